"""What do weights say of the data that recurrent networks learned? Zoos → benchmarks/results/mlds.json, figures, and the tables of docs/machines.md.

    python benchmarks/mlds.py ZOO [--with ZOO …] [--pictures] [-- OPTION …]

A ZOO is the folder of a sealed zoo, or a recipe, which is built first where `python -m zoo_builder` would build it, unless it is
there. `--with` names zoos of the same networks, as DS2 beside DS1. What stands behind `--` goes to `python -m zoo_datasets analyze
machines`. Each call replaces the record of its first zoo and keeps those of others. Every number of the page that was measured is
written by `machines_page.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import machines_page
import pages
from trajectories import _folder

from zoo_datasets import cli

HERE = Path(__file__).parent
RESULT = HERE / "results" / "mlds.json"
PAGE = HERE.parent / "docs" / "machines.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--with", dest="others", nargs="+", default=[], metavar="ZOO")
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
    pages.rewrite(PAGE, "mlds", "\n".join(machines_page.section(results)) + "\n")


def analyzed(options: argparse.Namespace, more: list[str]) -> tuple[dict[str, Any], Path]:
    """The numbers of `analyze machines`, and the folder they and the figures lie in."""
    if options.numbers:
        return json.loads(options.numbers.read_text()), options.numbers.parent
    zoo, *others = [_folder(z, options.workers) for z in (options.zoo, *options.others)]
    out = Path("analysis", Path(zoo).name, "machines")
    command = ["analyze", "machines", zoo, "--out", str(out), *(["--with", *others] if others else []), *more]
    if failed := cli.main(command):
        raise SystemExit(failed)
    return json.loads((out / "numbers.json").read_text()), out


def keep_pictures(folder: Path, numbers: Mapping[str, Any]) -> None:
    """Keep the PNG files of the primary arm in docs/pictures/, named after the zoo."""
    from PIL import Image

    name = machines_page.short(numbers["zoos"][0]["name"])
    target = PAGE.parent / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    for stem in machines_page.PICTURES:
        path = next((p for p in (folder / f"{stem}.png", folder / f"matched-{stem}.png") if p.exists()), None)
        if path is not None:
            # 256 colors are plenty for these, and a quarter of the bytes.
            Image.open(path).convert("RGB").quantize(256).save(target / f"{name}-{stem}.png", optimize=True)


if __name__ == "__main__":
    main()
