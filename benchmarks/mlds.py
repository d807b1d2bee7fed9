"""What do weights say of the data that recurrent networks learned? Zoos → benchmarks/results/mlds.json, figures, and the tables of docs/machines.md.

    python benchmarks/mlds.py ZOO [--with ZOO …] [--pictures] [-- OPTION …]

`--with` names zoos of the same networks, as DS2 beside DS1. What a ZOO is, and where results go: `studies.py`.
"""

from __future__ import annotations

import machines_page
import studies

STUDY = studies.Study(
    "mlds", "machines", "machines.md", machines_page.section, machines_page.PICTURES, beside=("with",), drawn="matched-"
)

if __name__ == "__main__":
    studies.main(STUDY, __doc__)
