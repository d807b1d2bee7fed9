"""Do our populations train as DOODL3's did, and how long does a Morse graph take? Published beside ours.

    python benchmarks/dynamics.py ZOO… [--out DIR] [--reports DIR]

Each ZOO is built from a grid under grids/doodl3/. Every one is analyzed as `python -m
zoo_datasets analyze dynamics ZOO` does (kept under --reports); results/dynamics.json then holds
accuracies, Morse graphs with their frequencies, held-out scores and timings, with n,
intervals and versions, and the tables between the markers of docs/dynamics.md are written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets import cli
from zoo_datasets.analysis import dynamics, readings
from zoo_datasets.analysis.cubes import Cubes
from zoo_datasets.analysis.report import versions

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "dynamics.md"
BEGIN, END = "<!-- dynamics -->\n", "<!-- /dynamics -->"
# Mean balanced accuracy of 100 networks, one population each, from the figure legends of the
# released notebooks (github.com/netrias/DOODL3 at e3d316b), with the arguments of the metric swapped.
PUBLISHED = {
    "iris-epochs": {"100": 0.85, "150": 0.92, "300": 0.95, "450": 0.95},
    "iris-batch": {"10": 0.79, "20": 0.60, "40": 0.44},
    "iris-layers": {"2": 0.94, "3": 0.85, "4": 0.77},
    "iris-nodes": {"3": 0.94, "4": 0.95, "5": 0.95, "6": 0.95},
    "mnist-epochs": {"4": 0.75, "8": 0.88, "12": 0.90, "16": 0.93},
    "mnist-batch": {"32": 0.91, "64": 0.86, "128": 0.75, "256": 0.56},
    "mnist-layers": {"1": 0.75, "2": 0.84, "3": 0.79, "4": 0.78},
}
PUBLISHED_S = 68.6  # a Morse graph of 2^15 boxes in two dimensions, as the paper reports
ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", nargs="+", type=Path, metavar="ZOO")
    parser.add_argument("--reports", type=Path, default=Path("analysis"), help="where the analyses are kept")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "dynamics.json")
    options = parser.parse_args()
    rows = []
    for zoo in options.zoos:
        out = options.reports / zoo.name
        if not known(out, zoo) and cli.main(["analyze", "dynamics", str(zoo), "--out", str(out)]):
            raise SystemExit(f"{zoo} could not be analyzed.")
        rows += levels(zoo.name.removeprefix("doodl3-"), json.loads((out / "numbers.json").read_text()))
    found = {"versions": versions(), "cpu": os.uname().machine, "timing": timing(), "populations": rows}
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    if DOCS.exists():
        before, rest = DOCS.read_text().split(BEGIN)
        DOCS.write_text(before + BEGIN + tables(found) + END + rest.split(END)[1])
    print(tables(found))


def known(out: Path, zoo: Path) -> bool:
    """Whether a report of this very zoo, at default settings, lies there: it would be the same again."""
    if not (out / "numbers.json").exists():
        return False
    numbers = json.loads((out / "numbers.json").read_text())
    digests = json.loads((zoo / "manifest.json").read_text())["digests"]
    parser = argparse.ArgumentParser()
    dynamics.arguments(parser)
    default = vars(parser.parse_args([])) | {"seed": 0}
    return numbers["zoos"][0]["digests"] == digests and all(default[k] == v for k, v in numbers["settings"].items())


def levels(family: str, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """One record per level of a family's axis, with the published value where there is one."""
    found = []
    for level in numbers["levels"]:
        first = next(p for p in numbers["populations"] if p["level"] == level["level"])
        own = key(family, level["level"])
        found.append({
            "family": family, "level": own, "published": PUBLISHED.get(family, {}).get(own),
            **{k: level[k] for k in ("n", "n_populations", "n_diverged", "balanced_accuracy_published", "balanced_accuracy",
                                     "population_means_published", "entropy_medians", "foretell")},
            "coordinates": first["coordinates"],
            "readings": {n: {k: r[k] for k in ("form", "sizes", "hasse", "z", "beyond_data", "doubtful", "region_cells",
                                               "undecided_cells")} for n, r in first["readings"].items()},
            "resamples": first.get("resamples"), "resolutions": first.get("resolutions"),
            "guidance": first["guidance"], "coordinate_kinds": first.get("coordinate_kinds"),
        })  # fmt: skip
    return found


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
    """Seconds for 2^15 boxes from 100 pairs of points: fit, prediction at every corner, graph."""
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


# ── tables ────────────────────────────────────────────────────────────────────────────


def tables(found: dict[str, Any]) -> str:
    """The Markdown of all tables."""
    return "\n".join(
        [accuracy(found["populations"]), graphs(found["populations"]), scores(found["populations"]), times(found)]
    )


def _interval(record: dict[str, Any]) -> str:
    return f"{record['value']:.3f} [{record['low']:.3f}, {record['high']:.3f}]"


def accuracy(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | published | ours, published metric | least and most of populations | ours, right metric | networks |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        ours, means = r["balanced_accuracy_published"], r["population_means_published"]
        published = "–" if r["published"] is None else f"{r['published']:.2f}"
        least = f"{min(means):.3f} … {max(means):.3f}" if len(means) > 1 else "–"
        lines.append(
            f"| {r['family']} {r['level']} | {published} | {_interval(ours)} | {least} | {_interval(r['balanced_accuracy'])} | "
            f"{r['n_populations']} × {r['n'] // r['n_populations']} |"
        )
    return "\n".join(lines) + "\n\nMeans over networks, 95 % intervals over init groups.\n"


def graphs(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | reading | Morse sets (cells of the largest) | recurrent cells where no start was | same structure in | most frequent structure |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        for name, one in r["readings"].items():
            resampled = r["resamples"][name] if r["resamples"] else None
            top = resampled["forms"][0] if resampled else None
            sizes = ", ".join(f"{s:,}" for s in sorted(one["sizes"], reverse=True)[:3])
            unseen = one["beyond_data"]["recurrent"]
            lines.append(
                f"| {r['family']} {r['level']} | {name} | {len(one['sizes'])}{f' ({sizes})' if sizes else ''} | "
                f"{'–' if unseen is None else f'{unseen:.0%}'} | "
                + (f"{sum(f['count'] for f in resampled['forms'] if f['form'] == one['form'])} of {resampled['n']} | "
                   f"{top['form'].split(':')[0]} ({top['count']}) |" if resampled else "– | – |")
            )  # fmt: skip
    return "\n".join(lines) + "\n"


def scores(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | fate, published | fate, mean | fate, confident | logistic, same weights | logistic, all weights |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        f = r["foretell"]
        if "undefined" not in f:
            fates = [f"{_interval(f['fates'][n])}, p = {f['fates'][n]['p']:.3f}" for n in readings.READINGS]
            lines.append(
                f"| {r['family']} {r['level']} | {' | '.join(fates)} | {_interval(f['same_weights'])} | {_interval(f['all_weights'])} |"
            )
    return (
        "\n".join(lines)
        + "\n\nAUC on held-out networks, 95 % intervals over init groups; p against 500 permutations.\n"
    )


def times(found: dict[str, Any]) -> str:
    lines = [
        "| 2^15 boxes, 100 networks | fit, s | predict at all corners, s | graph, sets, order, regions, s | all, s |",
        "|---|---|---|---|---|",
    ]
    for t in found["timing"]:
        lines.append(
            f"| {t['dimensions']}-D, {t['reading']} | {t['fit']:.3f} | {t['predict']:.3f} | {t['graph']:.3f} | {t['all']:.3f} |"
        )
    return "\n".join(lines) + (
        f"\n\nMedians of {found['timing'][0]['rounds']} rounds, one thread; the paper reports {PUBLISHED_S} s in 2-D. "
        + ", ".join(f"{k} {v}" for k, v in found["versions"].items()) + ".\n"
    )  # fmt: skip


if __name__ == "__main__":
    main()
