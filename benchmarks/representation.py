"""Can weights tell that classes were rare, or that a mark went with one? Zoos → benchmarks/results/representation.json, figures, and the tables of docs/backdoors.md.

    python benchmarks/representation.py ZOO [--pictures] [-- --detectors all]

What a ZOO is, and where results go: `studies.py`.
"""

from __future__ import annotations

import representation_page
import studies

STUDY = studies.Study(
    "representation", "representation", "backdoors.md", representation_page.section, representation_page.PICTURES
)

if __name__ == "__main__":
    studies.main(STUDY, __doc__)
