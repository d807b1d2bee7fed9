"""What can be read from a few consecutive weights? Zoos → benchmarks/results/nws.json, figures, and the tables of docs/nws.md.

    python benchmarks/nws.py ZOO [--children ZOO …] [--pictures] [-- OPTION …]

A ZOO is the folder of a sealed zoo, or a recipe: `grids/nws/main.yaml` is built first, where `python -m zoo_builder` would
build it, unless it is there. What stands behind `--` goes to `python -m zoo_datasets analyze nws`. Trained meta-classifiers are
kept in `analysis/ZOO/nws/trained/`: a call that was stopped goes on. Each call replaces the record of its zoo and keeps
those of others. Every number of the page that was measured is written by `nws_page.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nws_page
import pages
from trajectories import _folder

from zoo_datasets import cli

HERE = Path(__file__).parent
RESULT = HERE / "results" / "nws.json"
PAGE = HERE.parent / "docs" / "nws.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--children", nargs="+", default=[], metavar="ZOO")
    parser.add_argument(
        "--numbers", type=Path, metavar="JSON", help="of an analysis that has been run, instead of running it"
    )
    parser.add_argument("--pictures", action="store_true", help="draw those of docs/pictures/ again")
    parser.add_argument("--workers", type=int, default=0, help="of a build (default: 0, in this process)")
    options, more = parser.parse_known_args()
    numbers, folder = analyzed(options, [m for m in more if m != "--"])
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[numbers["zoos"][0]["name"]] = numbers
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    if options.pictures:
        keep_pictures(folder, numbers)
    pages.rewrite(PAGE, "nws", "\n".join(nws_page.section(results)) + "\n")


def analyzed(options: argparse.Namespace, more: list[str]) -> tuple[dict[str, Any], Path]:
    """The numbers of `analyze nws`, and the folder they and the figures lie in."""
    if options.numbers:
        return json.loads(options.numbers.read_text()), options.numbers.parent
    zoo = _folder(options.zoo, options.workers)
    children = [_folder(z, options.workers) for z in options.children]
    out = Path("analysis", Path(zoo).name, "nws")
    command = ["analyze", "nws", zoo, "--out", str(out), *(["--children", *children] if children else []), *more]
    if failed := cli.main(command):
        raise SystemExit(failed)
    return json.loads((out / "numbers.json").read_text()), out


def keep_pictures(folder: Path, numbers: Mapping[str, Any]) -> None:
    """Keep the PNG files in docs/pictures/, named after the zoo."""
    from PIL import Image

    name = nws_page.short(numbers["zoos"][0]["name"])
    target = PAGE.parent / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in folder.glob("*.png") if p.stem in nws_page.PICTURES):
        # 256 colors are plenty for these, and a quarter of the bytes.
        Image.open(path).convert("RGB").quantize(256).save(target / f"{name}-{path.stem}.png", optimize=True)


if __name__ == "__main__":
    main()
