"""Can one see training progress in weight space? Zoos → benchmarks/results/trajectories.json and the tables of docs.

    python benchmarks/trajectories.py ZOO [--continued ZOO …] [--regimes ZOO …] [--pictures]

A ZOO is the folder of a sealed zoo, or a recipe: `grids/trajectories/digits.yaml` is built first,
where `python -m zoo_builder` would build it, unless it is there. Each call replaces the record of
its zoo and keeps those of others. With --pictures, those of docs/pictures/ are drawn again. Every
number of the page that was measured, in tables and in sentences, is written by `trajectories_page.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pages
import trajectories_page

from zoo_datasets import cli

HERE = Path(__file__).parent
RESULT = HERE / "results" / "trajectories.json"
PAGE = HERE.parent / "docs" / "trajectories.md"
PICTURES = ("dendrogram", "steps", "ladder", "pca", "detection")  # those that the page shows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--continued", nargs="+", default=[], metavar="ZOO")
    parser.add_argument("--regimes", nargs="+", default=[], metavar="ZOO")
    parser.add_argument(
        "--numbers",
        type=Path,
        metavar="JSON",
        help="of an analysis that has been run, instead of running it; its pictures lie beside it",
    )
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--workers", type=int, default=0, help="of a build (default: 0, in this process)")
    options = parser.parse_args()
    numbers = json.loads(options.numbers.read_text()) if options.numbers else analyzed(options)
    if options.numbers and options.pictures:
        keep_pictures(options.numbers.parent, numbers)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[numbers["zoos"][0]["name"]] = numbers
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    pages.rewrite(PAGE, "trajectories", "\n".join(trajectories_page.section(results)) + "\n")


def analyzed(options: argparse.Namespace) -> dict[str, Any]:
    """The numbers of `analyze trajectories`, run now."""
    zoo, *_ = [_folder(options.zoo, options.workers)]
    more = {name: [_folder(z, options.workers) for z in getattr(options, name)] for name in ("continued", "regimes")}
    with tempfile.TemporaryDirectory() as out:
        command = ["analyze", "trajectories", zoo, "--out", out]
        for name, folders in more.items():
            command += [f"--{name}", *folders] if folders else []
        if failed := cli.main([*command, *([] if options.pictures else ["--no-pictures"])]):
            raise SystemExit(failed)
        numbers = json.loads((Path(out) / "numbers.json").read_text())
        if options.pictures:
            keep_pictures(Path(out), numbers)
    return numbers


def _folder(zoo: str, workers: int) -> str:
    """The folder of a zoo; of a recipe, built where its name says."""
    if not zoo.endswith((".yaml", ".yml")):
        return zoo
    from zoo_builder import cli as builder
    from zoo_builder import grid

    folder = Path(grid.load(Path(zoo)).zoo)
    if not (folder / "manifest.json").exists() and builder.main(["--grid", zoo, "--workers", str(workers)]):
        raise SystemExit(f"{zoo} could not be built.")
    return str(folder)


def keep_pictures(out: Path, numbers: Mapping[str, Any]) -> None:
    """Keep the PNG files in docs/pictures/, named after the zoo."""
    from PIL import Image

    name = trajectories_page.short(numbers["zoos"][0]["name"])
    folder = PAGE.parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in out.glob("*.png") if p.stem.startswith(PICTURES)):
        short = path.stem.replace(name + "-", "")
        # 256 colors are plenty for these, and a quarter of the bytes.
        Image.open(path).convert("RGB").quantize(256).save(folder / f"{name}-{short}.png", optimize=True)


if __name__ == "__main__":
    main()
