"""Can one see training progress in weight space? Zoos → benchmarks/results/trajectories.json and the tables of docs/trajectories.md.

    python benchmarks/trajectories.py ZOO [--continued ZOO …] [--regimes ZOO …] [--pictures] [-- OPTION …]

What a ZOO is, and where results go: `studies.py`.
"""

from __future__ import annotations

import studies
import trajectories_page

STUDY = studies.Study(
    "trajectories",
    "trajectories",
    "trajectories.md",
    trajectories_page.section,
    trajectories_page.PICTURES,
    beside=("continued", "regimes"),
)

if __name__ == "__main__":
    studies.main(STUDY, __doc__)
