"""What can be read from a few consecutive weights? Zoos → benchmarks/results/nws.json, figures, and the tables of docs/nws.md.

    python benchmarks/nws.py ZOO [--children ZOO …] [--pictures] [-- OPTION …]

One call gives the whole table: networks of one property, the published epoch, and the meta-classifier in all folds and about every level
that it has not seen are asked for unless an OPTION says otherwise (`--single P …`, `--no-published-epoch`, `--no-deep-folds`,
`--no-deep-transfer`, `--no-deep`). Trained meta-classifiers are kept in
analysis/ZOO/nws/trained/, and answers question by question: a call that was stopped goes on. What a ZOO is, and where results go:
`studies.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import nws_page
import studies

STUDY = studies.Study("nws", "nws", "nws.md", nws_page.section, nws_page.PICTURES, beside=("children",))
# Named before any result: the data, how it was learned from, and what the number of updates gives away.
SINGLE = ("source", "optimizer", "batch_size")
DEEP = ("--single", *SINGLE, "--published-epoch", "--deep-folds", "--deep-transfer")


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The command line with what the table needs before the options that the caller gives, of which the last one counts."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, more = list(arguments[:at]), list(arguments[at + 1 :])
    return [*own, "--", *(() if "--no-deep" in arguments else DEEP), *more]


if __name__ == "__main__":
    sys.argv[1:] = with_defaults(sys.argv[1:])
    studies.main(STUDY, __doc__)
