"""What populations cost: the first networks of recipes, built and timed → benchmarks/results/rates.json and the table of docs/reference/zoos.md.

    python benchmarks/rates.py grids/mlds/ds1.yaml --limit 18 [--set PATH=VALUE …] [--out DIR]

Each recipe is built once as `python -m zoo_builder build --workers 0` does it, end to end, into a folder that is thrown away, or into
DIR, where a build of more networks goes on: planning, sources, training, scoring, parts and sealing. Seconds are CPU time of that process on one core, so that other work on the machine
counts little; a start of some seconds is in them, so take networks for half a minute or more. A prefix of a recipe is a fair sample of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nws_cost
import pages
import pyarrow.compute as pc
from engines import cpu_name

from zoo_builder import grid
from zoo_builder.planning import runs
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.zoo import open_zoo

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULT = HERE / "results" / "rates.json"
PAGE = pages.DOCS / "reference" / "zoos.md"
MANY = 100_000  # networks, of a column that says what they would take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--limit", type=int, required=True, metavar="N")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder that keeps the networks (default: none)")
    options = parser.parse_args()
    name = options.grid.resolve().relative_to(ROOT / "grids").with_suffix("").as_posix()
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "zoo"
        if out.exists():
            raise SystemExit(f"{out} exists; what was built before would not be counted.")
        results[" ".join([name, *options.changes])] = measured(options.grid, options.limit, options.changes, out)
    RESULT.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    pages.rewrite(PAGE, "rates", "\n".join(section(results)) + "\n")
    pages.rewrite(nws_cost.PAGE, "nws-cost", "\n".join(nws_cost.section(results)) + "\n")


def measured(recipe: Path, limit: int, changes: list[str], out: Path) -> dict[str, Any]:
    """One build of the first networks into `out`, and what the whole recipe has."""
    whole = grid.load(recipe, changes)
    command = [sys.executable, "-m", "zoo_builder", "build", "--grid", str(recipe), "--limit", str(limit)]
    command += ["--workers", "0", "--out", str(out), "--quiet"]
    for change in changes:
        command += ["--set", change]
    before, began, load = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), os.getloadavg()[0]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if failed := subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(failed)  # it has said why
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    manifest, models = Manifest.read(out), open_zoo(str(out)).models
    return {
        "changes": changes, "networks": len(models), "snapshots": sum(manifest.counts.of("snapshots").values()),
        "in_recipe": runs.count(whole), "steps": pc.sum(models["step"]).as_py(), "examples": pc.sum(models["examples_seen"]).as_py(),
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "wall_s": wall, "load_before": load,
        "bytes": sum(f.bytes for f in manifest.files.values()), "cpu": cpu_name(),
        "engines": sorted({f"{e.version} ({e.isa})" for e in manifest.engines}),
    }  # fmt: skip


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The table of what was measured."""
    if not results:
        yield "Nothing has been measured with this version yet.\n"
        return
    machines = ", ".join(sorted({r["cpu"] for r in results.values()}))
    yield (
        f"CPU seconds on one core ({machines}), end to end: the first networks of each recipe by `python benchmarks/rates.py`. Of many cores "
        "divide by their number.\n"
    )
    yield from pages.table(
        ("recipe", "measured on", "CPU s per 1,000 networks", "networks a second and core", "the whole recipe", f"{MANY:,} networks", "MB per 1,000"),
        [
            (f"`{name}`", f"{r['networks']:,}", f"{1000 * _each(r):,.0f}", f"{1 / _each(r):.2f}",
             f"{r['in_recipe']:,}: {_hours(r['in_recipe'] * _each(r))}", _hours(MANY * _each(r)), f"{r['bytes'] / r['networks'] / 1e3:,.0f}")
            for name, r in sorted(results.items())
        ],
    )  # fmt: skip


def _each(result: Mapping[str, Any]) -> float:
    return float(result["cpu_s"] / result["networks"])


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} CPU-h" if seconds < 360_000 else f"{seconds / 3600:,.0f} CPU-h"


if __name__ == "__main__":
    main()
