"""`python -m tests.fuzz [BORDER …] --minutes 60`: the table of borders, trials, and what came of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz import harness


def main() -> int:
    if sys.argv[1:2] == ["child"]:
        border, folder, number, pipe = sys.argv[2:]
        harness.child(border, Path(folder), int(number), int(pipe))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Try hostile inputs at every border.")
    parser.add_argument(
        "borders", metavar="BORDER", nargs="*", help=f"of {', '.join(harness.borders())} (default: all)"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for each border (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial (default: 0)")
    parser.add_argument("--trials", type=int, help="how many, if fewer than time allows")
    options = parser.parse_args()
    print(harness.HEAD, flush=True)
    broke = 0
    for border in options.borders or harness.borders():
        tally = harness.run(border, 60 * options.minutes, options.first, options.trials)
        print(tally, flush=True)
        for text in tally.broke:
            print(text, file=sys.stderr)
        broke += len(tally.broke)
    return 1 if broke else 0


if __name__ == "__main__":
    sys.exit(main())
