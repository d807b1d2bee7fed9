"""Can weights tell that a network has a backdoor, which its loss does not? Zoos → benchmarks/results/backdoors.json, figures, and the tables of docs/backdoors.md.

    python benchmarks/backdoors.py ZOO [--yardstick ZOO] [--decoys ZOO] [--pictures] [-- --detectors all]

What a ZOO is, and where results go: `studies.py`.
"""

from __future__ import annotations

import backdoors_page
import studies

STUDY = studies.Study(
    "backdoors",
    "backdoors",
    "backdoors.md",
    backdoors_page.section,
    backdoors_page.PICTURES,
    beside=("yardstick", "decoys"),
)

if __name__ == "__main__":
    studies.main(STUDY, __doc__)
