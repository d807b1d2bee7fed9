"""Do our populations train as DOODL3's did, and how long does a Morse graph take? Published beside ours.

    python benchmarks/dynamics.py ZOO… [--accuracies ZOO…] [--reports DIR] [--times] [--pictures]

Each ZOO is built from a grid under grids/doodl3/. Every one is analyzed as `python -m
zoo_datasets analyze dynamics ZOO` does (kept under --reports); results/dynamics.json then holds
accuracies, Morse graphs with their frequencies, held-out scores and timings, with n,
intervals and versions, and what stands between the markers of docs/dynamics.md, sentences with numbers
and tables, is written anew. Of the sweep of epochs the map of one step is analyzed too.
With --pictures, so are those of docs/pictures/, from the zoo of the sweep of epochs. Of zoos under --accuracies
nothing but accuracies is compared: seconds, where Morse sets by the hundred take an hour. Times are
measured with --times, on an idle machine; otherwise those in the results stay.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dynamics_page
import numpy as np
import pages
from threadpoolctl import threadpool_limits

from zoo_datasets import cli, intervals
from zoo_datasets.analysis.dynamics import guidance, populations, readings, run
from zoo_datasets.analysis.dynamics.cubes import Cubes
from zoo_datasets.analysis.results import VERSIONS
from zoo_datasets.core import libraries
from zoo_datasets.zoo import open_zoo

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "dynamics.md"
ROUNDS = 7
PICTURED, SHOWN = (
    "iris-epochs",
    ("portrait-epochs-450", "fates", "foretell", "coordinates"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", nargs="+", type=Path, metavar="ZOO")
    parser.add_argument(
        "--accuracies", nargs="+", type=Path, default=[], metavar="ZOO", help="compare these in accuracy alone"
    )
    parser.add_argument("--times", action="store_true", help="measure times again")
    parser.add_argument("--reports", type=Path, default=Path("analysis"), help="where the analyses are kept")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "dynamics.json")
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    rows, studied, scored, engines, step = [], [], [], set(), None
    for zoo in options.zoos:
        out = options.reports / zoo.name
        if not known(out, zoo) and cli.main(["analyze", "dynamics", str(zoo), "--out", str(out)]):
            raise SystemExit(f"{zoo} could not be analyzed.")
        family, numbers = zoo.name.removeprefix("doodl3-"), json.loads((out / "numbers.json").read_text())
        engines |= set(open_zoo(zoo).models["engine_version"].to_pylist())
        studied += numbers["populations"]
        scored += numbers["levels"]
        rows += levels(family, numbers)
        if family == PICTURED:
            step = one_step(zoo, options.reports)
        if options.pictures and family == PICTURED:
            keep_pictures(out)
    # One family of tests over all zoos: the records are those of `rows`, so these get the corrected values too.
    tests = guidance.correct(studied, scored)
    results = {
        "versions": libraries.versions(VERSIONS),
        "engines": sorted(engines),
        "cpu": os.uname().machine,
        "tests": tests,
        "published": {},
        "timing": timing()
        if options.times or not options.json.exists()
        else json.loads(options.json.read_text())["timing"],
        "step": step,
        "populations": rows,
        "accuracies": [record for zoo in options.accuracies for record in accuracies(zoo)],
    }
    results["published"] = dynamics_page.against_published(results["populations"] + results["accuracies"])
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    if DOCS.exists():
        pages.rewrite(DOCS, "dynamics", dynamics_page.section(results))


def one_step(zoo: Path, reports: Path) -> list[dict[str, Any]]:
    """A record per population of the map of one step between snapshots."""
    out = reports / f"{zoo.name}-step"
    command = ["analyze", "dynamics", str(zoo), "--out", str(out), *dynamics_page.STEP]
    if not known(out, zoo, dynamics_page.STEP) and cli.main(command):
        raise SystemExit(f"The map of one step of {zoo} could not be analyzed.")
    numbers = json.loads((out / "numbers.json").read_text())
    return [
        {"population": p["population"], "pairs": p["pairs"], "n": p["n"], "step_epochs": p["step_epochs"],
         "networks_of_pairs": p["networks_of_pairs"], "readings": _structures(p),
         "coordinate_kinds": p.get("coordinate_kinds"), "resamples": p.get("resamples"), "resolutions": p.get("resolutions")}
        for p in numbers["populations"]
    ]  # fmt: skip


def _structures(population: dict[str, Any]) -> dict[str, Any]:
    """By reading: how many Morse sets, the indices that are not zero, and how much of them lies where no network started."""
    return {
        name: {"sets": len(r["sizes"]), "unseen": r["beyond_data"]["recurrent"], "conley": _nonzero(r.get("conley"))}
        for name, r in population["readings"].items()
    }


def _nonzero(conley: list[list[str] | None] | None) -> list[str] | None:
    """The Conley indices that are defined and not zero, sorted; None where none were computed."""
    return None if conley is None else sorted(f"({', '.join(i)})" for i in conley if i is not None and set(i) != {"0"})


def keep_pictures(out: Path) -> None:
    """Keep the PNG files that the page shows, without the level in their names."""
    from PIL import Image

    folder = DOCS.parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHOWN:
        # 256 colors are plenty for these, and a quarter of the bytes.
        picture = Image.open(out / f"{name}.png").convert("RGB").quantize(256)
        picture.save(folder / f"dynamics-{name.split('-')[0]}.png", optimize=True)


def known(out: Path, zoo: Path, options: Sequence[str] = ()) -> bool:
    """Whether a report of this very zoo, with these options, lies there: it would be the same again."""
    if not (out / "numbers.json").exists():
        return False
    numbers = json.loads((out / "numbers.json").read_text())
    digests = json.loads((zoo / "manifest.json").read_text())["digests"]
    parser = argparse.ArgumentParser()
    run.arguments(parser)
    default = vars(parser.parse_args(options)) | {"seed": 0}
    return numbers["zoos"][0]["digests"] == digests and all(default[k] == v for k, v in numbers["settings"].items())


def levels(family: str, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """One record per level of a family's axis, with the published value where there is one."""
    records = []
    for level in numbers["levels"]:
        first = next(p for p in numbers["populations"] if p["level"] == level["level"])
        level_key = key(family, level["level"])
        records.append({
            "family": family, "level": level_key, "published": dynamics_page.PUBLISHED.get(family, {}).get(level_key),
            **{k: level[k] for k in ("n", "n_populations", "n_diverged", "balanced_accuracy_published", "balanced_accuracy",
                                     "population_means_published", "entropy_medians", "foretell")},
            "coordinates": first["coordinates"],
            "structures": [{"population": p["population"]} | _structures(p)
                           for p in numbers["populations"] if p["level"] == level["level"]],
            "readings": {n: {k: r[k] for k in ("form", "sizes", "z", "beyond_data", "doubtful", "region_cells",
                                               "undecided_cells", "conley") if k in r}
                         for n, r in first["readings"].items()},
            "resamples": first.get("resamples"), "resolutions": first.get("resolutions"),
            "guidance": first["guidance"], "coordinate_kinds": first.get("coordinate_kinds"),
        })  # fmt: skip
    return records


def accuracies(zoo: Path) -> list[dict[str, Any]]:
    """A record per level of how well its networks end, with the published value where there is one."""
    family, of_level = zoo.name.removeprefix("doodl3-"), {}
    for population in populations.populations(open_zoo(zoo)):
        of_level.setdefault(tuple(population.level.items()), []).append(population)
    records = []
    for level, blocks in of_level.items():
        predicted, level_key = [populations.predictions(p) for p in blocks], key(family, dict(level))
        groups = np.concatenate([p.groups for p in blocks])
        record = {
            "family": family, "level": level_key, "published": dynamics_page.PUBLISHED.get(family, {}).get(level_key),
            "n": len(groups), "n_populations": len(blocks), "n_diverged": sum(p.n_diverged for p in blocks),
        }  # fmt: skip
        for name, of in (("balanced_accuracy", "balanced"), ("balanced_accuracy_published", "balanced_swapped")):
            values = [getattr(p, of) for p in predicted]
            record[name] = intervals.mean(np.concatenate(values), groups, ends=(0.0, 1.0)).to_json()
            record["population_means" + name.removeprefix("balanced_accuracy")] = [float(v.mean()) for v in values]
        records.append(record)
    return records


def key(family: str, level: dict[str, str]) -> str:
    """The level as the paper counts it: an architecture as its number of layers, or of units of the first."""
    (label,) = level.values()
    if "architecture" not in level:
        return label
    units = label.split("-")  # c2-c2-2: two convolutions and a linear layer
    if family.endswith("nodes"):
        return units[0]
    return str(sum(u.startswith("c") for u in units) or len(units))


def timing() -> list[dict[str, Any]]:
    """Seconds for 2^15 boxes from 100 pairs of points, on one thread: fit, prediction at every corner, graph."""
    with threadpool_limits(1):
        return _timing()


def _timing() -> list[dict[str, Any]]:
    rows = []
    for d in (2, 3, 4):
        rng = np.random.default_rng(0)
        x = rng.uniform(-2, 2, (100, d))
        y = 1.5 * np.tanh(x) + 0.1 * rng.normal(size=x.shape)
        cubes = Cubes.around(np.concatenate([x, y]), 15)
        for name in readings.READINGS:
            rounds = [readings.read(name, x, y, cubes, readings.Settings(15)).seconds for _ in range(ROUNDS)]
            rows.append({"dimensions": d, "reading": name, "rounds": ROUNDS}
                        | {part: statistics.median(r[part] for r in rounds) for part in ("fit", "predict", "graph")}
                        | {"all": statistics.median(sum(r.values()) for r in rounds)})  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
