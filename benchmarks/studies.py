"""The frame of the commands that analyze zoos for a page: zoo → benchmarks/results/NAME.json, pictures, and the page's section.

A ZOO is the folder of a sealed zoo, or a recipe, which is built first where `python -m zoo_builder` would build it, unless it is
there. What stands behind `--` goes to `python -m zoo_datasets analyze`, which leaves its files in analysis/ZOO/. Each call replaces
the record of its zoo, or of its zoos that are one population, and keeps those of others. Every number of the page that was measured is
written by the page's own module.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pages

from zoo_datasets import cli

HERE = Path(__file__).parent


class Study(NamedTuple):
    """An analysis that has a page."""

    name: str  # of its results, and of the page's markers
    analysis: str
    page: str  # in docs/
    section: Callable[[Mapping[str, Any]], Iterable[str]]  # records of all zoos → what stands between the markers
    pictures: Iterable[str]  # what the names of those begin with that the page shows
    beside: tuple[str, ...] = ()  # options of the analysis that name other zoos
    drawn: str = ""  # begins the names of the figures that the page shows, where one arm's are


def main(study: Study, about: str) -> None:
    """Read the command line, analyze, and write results, pictures and page."""
    options, more = told(study, about, sys.argv[1:])
    numbers, folder = analyzed(study, options, more)
    path = HERE / "results" / f"{study.name}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    name = pages.joined(z["name"] for z in numbers["zoos"][: len(options.zoo)])
    results[name] = numbers
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    if options.pictures:
        keep_pictures(study, folder, name)
    pages.rewrite(pages.DOCS / study.page, study.name, "\n".join(study.section(results)) + "\n")


def told(study: Study, about: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What the command line says: our options, and the analysis' own."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("zoo", nargs="+", help="several are one population, where the analysis takes such")
    for name in study.beside:
        parser.add_argument(f"--{name}", dest=name, nargs="+", default=[], metavar="ZOO")
    parser.add_argument(
        "--numbers", type=Path, metavar="JSON",
        help="of an analysis that has been run, instead of running it; its pictures lie beside it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the analysis' files (default: analysis/ZOO/NAME)")
    parser.add_argument("--pictures", action="store_true", help="draw those of docs/pictures/ again")
    parser.add_argument("--workers", type=int, default=0, help="of a build (default: 0, in this process)")
    # What follows names no zoo, whatever it looks like.
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options, more = parser.parse_known_args(arguments[:at])
    behind = arguments[at + 1 :]
    if any(a.split("=")[0] == "--out" for a in behind):
        raise SystemExit("--out is this command's own: it stands before the `--`.")
    return options, [*more, *behind]


def analyzed(study: Study, options: argparse.Namespace, more: list[str]) -> tuple[dict[str, Any], Path]:
    """The numbers of the analysis, and the folder they and the figures lie in."""
    if options.numbers:
        return json.loads(options.numbers.read_text()), options.numbers.parent
    zoos = [folder_of(z, options.workers) for z in options.zoo]
    out = options.out or Path("analysis", pages.joined(Path(z).name for z in zoos), study.analysis)
    for old in (out / "numbers.json", *out.glob("*.png")):  # of an earlier run, which might have asked otherwise
        old.unlink(missing_ok=True)
    command = ["analyze", study.analysis, *zoos, "--out", str(out)]
    for name in study.beside:
        beside = [folder_of(z, options.workers) for z in getattr(options, name)]
        command += [f"--{name}", *beside] if beside else []
    if failed := cli.main([*command, *more]):
        raise SystemExit(failed)
    return json.loads((out / "numbers.json").read_text()), out


def folder_of(zoo: str, workers: int) -> str:
    """The folder of a zoo; of a recipe, built where its name says."""
    if not zoo.endswith((".yaml", ".yml")):
        return zoo
    from zoo_builder import cli as builder
    from zoo_builder import grid

    folder = Path(grid.load(Path(zoo)).zoo)
    if not (folder / "manifest.json").exists() and builder.main(["--grid", zoo, "--workers", str(workers)]):
        raise SystemExit(f"{zoo} could not be built.")
    return str(folder)


def keep_pictures(study: Study, folder: Path, zoo: str) -> None:
    """Keep the PNG files that the page shows in docs/pictures/, named after the zoo."""
    from PIL import Image

    name = pages.short(zoo)
    target = pages.DOCS / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.png")):
        stem = path.stem.removeprefix(study.drawn).replace(f"{name}-", "")
        if stem.startswith(tuple(study.pictures)):
            # 256 colors are plenty for these, and a quarter of the bytes.
            Image.open(path).convert("RGB").quantize(256).save(target / f"{name}-{stem}.png", optimize=True)
