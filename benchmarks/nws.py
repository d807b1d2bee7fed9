"""What can be read from a few consecutive weights? Zoos → benchmarks/results/nws.json, figures, and the tables of docs/nws.md.

    python benchmarks/nws.py ZOO [--children ZOO …] [--pictures] [-- OPTION …]

Trained meta-classifiers are kept in analysis/ZOO/nws/trained/: a call that was stopped goes on. What a ZOO is, and where results
go: `studies.py`.
"""

from __future__ import annotations

import nws_page
import studies

STUDY = studies.Study("nws", "nws", "nws.md", nws_page.section, nws_page.PICTURES, beside=("children",))

if __name__ == "__main__":
    studies.main(STUDY, __doc__)
