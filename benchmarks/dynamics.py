"""Do our populations train as DOODL3's did, and how long does a Morse graph take? Published beside ours.

    python benchmarks/dynamics.py ZOO… [--reports DIR] [--pictures]

Each ZOO is built from a grid under grids/doodl3/. Every one is analyzed as `python -m
zoo_datasets analyze dynamics ZOO` does (kept under --reports); results/dynamics.json then holds
accuracies, Morse graphs with their frequencies, held-out scores and timings, with n,
intervals and versions, and the tables between the markers of docs/dynamics.md are written anew.
With --pictures, so are those of docs/pictures/, from the zoo of the sweep of epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from zoo_datasets import cli
from zoo_datasets.analysis.dynamics import guidance, readings, run
from zoo_datasets.analysis.dynamics.cubes import Cubes
from zoo_datasets.analysis.results import versions
from zoo_datasets.zoo import open_zoo

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
CLOSE = 0.02  # of a published value, which has two digits
PUBLISHED_S = 68.6  # a Morse graph of 2^15 boxes in two dimensions, as the paper reports
ROUNDS = 7
PICTURED, SHOWN = (
    "iris-epochs",
    ("portrait-epochs-450", "robustness-epochs-450", "fates", "foretell", "coordinates", "spread"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoos", nargs="+", type=Path, metavar="ZOO")
    parser.add_argument("--reports", type=Path, default=Path("analysis"), help="where the analyses are kept")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "dynamics.json")
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    rows, studied, scored, engines = [], [], [], set()
    for zoo in options.zoos:
        out = options.reports / zoo.name
        if not known(out, zoo) and cli.main(["analyze", "dynamics", str(zoo), "--out", str(out)]):
            raise SystemExit(f"{zoo} could not be analyzed.")
        family, numbers = zoo.name.removeprefix("doodl3-"), json.loads((out / "numbers.json").read_text())
        engines |= set(open_zoo(zoo).models["engine_version"].to_pylist())
        studied += numbers["populations"]
        scored += numbers["levels"]
        rows += levels(family, numbers)
        if options.pictures and family == PICTURED:
            keep_pictures(out)
    # One family of tests over all zoos: the records are those of `rows`, so these get the corrected values too.
    tests = guidance.correct(studied, scored)
    results = {
        "versions": versions(),
        "engines": sorted(engines),
        "cpu": os.uname().machine,
        "tests": tests,
        "timing": timing(),
        "populations": rows,
    }
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    if DOCS.exists():
        before, rest = DOCS.read_text().split(BEGIN)
        DOCS.write_text(before + BEGIN + tables(results) + END + rest.split(END)[1])
    print(tables(results))


def keep_pictures(out: Path) -> None:
    """Keep the PNG files that the page shows, without the level in their names."""
    from PIL import Image

    folder = DOCS.parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHOWN:
        # 256 colors are plenty for these, and a quarter of the bytes.
        picture = Image.open(out / f"{name}.png").convert("RGB").quantize(256)
        picture.save(folder / f"dynamics-{name.split('-')[0]}.png", optimize=True)


def known(out: Path, zoo: Path) -> bool:
    """Whether a report of this very zoo, at default settings, lies there: it would be the same again."""
    if not (out / "numbers.json").exists():
        return False
    numbers = json.loads((out / "numbers.json").read_text())
    digests = json.loads((zoo / "manifest.json").read_text())["digests"]
    parser = argparse.ArgumentParser()
    run.arguments(parser)
    default = vars(parser.parse_args([])) | {"seed": 0}
    return numbers["zoos"][0]["digests"] == digests and all(default[k] == v for k, v in numbers["settings"].items())


def levels(family: str, numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """One record per level of a family's axis, with the published value where there is one."""
    records = []
    for level in numbers["levels"]:
        first = next(p for p in numbers["populations"] if p["level"] == level["level"])
        level_key = key(family, level["level"])
        records.append({
            "family": family, "level": level_key, "published": PUBLISHED.get(family, {}).get(level_key),
            **{k: level[k] for k in ("n", "n_populations", "n_diverged", "balanced_accuracy_published", "balanced_accuracy",
                                     "population_means_published", "entropy_medians", "foretell")},
            "coordinates": first["coordinates"],
            "readings": {n: {k: r[k] for k in ("form", "sizes", "z", "beyond_data", "doubtful", "region_cells",
                                               "undecided_cells", "conley") if k in r}
                         for n, r in first["readings"].items()},
            "resamples": first.get("resamples"), "resolutions": first.get("resolutions"),
            "guidance": first["guidance"], "coordinate_kinds": first.get("coordinate_kinds"),
        })  # fmt: skip
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


# ── tables ────────────────────────────────────────────────────────────────────────────


def tables(results: dict[str, Any]) -> str:
    """The Markdown of all tables."""
    return "\n".join(
        [
            accuracy(results["populations"]),
            graphs(results["populations"]),
            corrected(results),
            scores(results["populations"]),
            times(results),
        ]
    )


def _interval(record: dict[str, Any]) -> str:
    return f"{record['value']:.3f} [{record['low']:.3f}, {record['high']:.3f}]"


def accuracy(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | published | ours, published metric | difference | least … most of populations | spread of one population | ours, right metric | networks |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        ours, means = r["balanced_accuracy_published"], r["population_means_published"]
        published = difference = least = spread = "–"
        if len(means) > 1:
            least, spread = f"{min(means):.3f} … {max(means):.3f}", f"{statistics.stdev(means):.3f}"
        if r["published"] is not None:
            published, difference = f"{r['published']:.2f}", f"{ours['value'] - r['published']:+.3f}"
            if abs(ours["value"] - r["published"]) > CLOSE:
                difference = f"**{difference}**"
        lines.append(
            f"| {r['family']} {r['level']} | {published} | {_interval(ours)} | {difference} | {least} | {spread} | "
            f"{_interval(r['balanced_accuracy'])} | {r['n_populations']} × {r['n'] // r['n_populations']} |"
        )
    notes = [_off(r) for r in rows if r["published"] is not None
            and abs(r["balanced_accuracy_published"]["value"] - r["published"]) > CLOSE]  # fmt: skip
    return (
        "\n".join(lines)
        + "\n\nMeans over networks, 95 % intervals over init groups. The spread is the standard deviation "
        "of our populations' means: by so much a single population of 100, as each published value is one, misses "
        f"the mean of many. Bold: off by more than {CLOSE}. {' '.join(notes)}\n"
    )


def _off(r: dict[str, Any]) -> str:
    """Why a published value may differ, as far as our populations tell."""
    means, published = r["population_means_published"], r["published"]
    name = f"{r['family']} {r['level']}"
    if len(means) < 2:  # networks scatter; nothing is known of what a population shares
        ours = r["balanced_accuracy_published"]
        error = (ours["high"] - ours["low"]) / (2 * stats.norm.isf(0.025))
        p = 2 * stats.norm.sf(abs(ours["value"] - published) / (error * 2**0.5))
        return f"{name}: one population of ours; by the scatter of networks alone two would differ so much with p = {p:.3f}."
    off = (published - statistics.mean(means)) / (statistics.stdev(means) * (1 + 1 / len(means)) ** 0.5)
    p = 2 * stats.t.sf(abs(off), len(means) - 1)
    said = f"{name}: one more population of ours would be as far off with p = {p:.2f}"
    return said + (": within our spread." if p >= guidance.LEVEL else ": beyond our spread.")


def graphs(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | reading | Morse sets (cells of the largest) | recurrent cells where no start was | Conley indices | same structure in | most frequent structure |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        for name, one in r["readings"].items():
            resampled = r["resamples"][name] if r["resamples"] else None
            top = resampled["forms"][0] if resampled else None
            sizes = ", ".join(f"{s:,}" for s in sorted(one["sizes"], reverse=True)[:3])
            unseen = one["beyond_data"]["recurrent"]
            lines.append(
                f"| {r['family']} {r['level']} | {name} | {len(one['sizes'])}{f' ({sizes})' if sizes else ''} | "
                f"{'–' if unseen is None else f'{unseen:.0%}'} | {_indices(one)} | "
                + (f"{sum(f['count'] for f in resampled['forms'] if f['form'] == one['form'])} of {resampled['n']} | "
                   f"{_form(top['form'])} ({top['count']}) |" if resampled else "– | – |")
            )  # fmt: skip
    return "\n".join(lines) + (
        "\n\nConley indices by CMGDB: those that are not zero, dimension by dimension; then how many are zero (recurrent boxes, "
        "perhaps no recurrence) and how many are undefined, at the edge of the box. –: no set, or over 20 million edges.\n"
    )


def _form(form: str) -> str:
    return re.sub(r"\b1 (set|edge)s", r"1 \1", form.split(":")[0])


def _indices(reading: dict[str, Any]) -> str:
    conley = reading.get("conley")
    if not conley:
        return "–"
    count = Counter("edge" if i is None else "zero" if set(i) == {"0"} else f"({', '.join(i)})" for i in conley)
    last = {"zero": 1, "edge": 2}
    names = sorted(count, key=lambda name: (last.get(name, 0), name))
    return ", ".join(f"{count[n]} {n}" if n in last or count[n] > 1 else n for n in names)


def scores(rows: list[dict[str, Any]]) -> str:
    lines = ["| population | fate, published | fate, mean | fate, confident | logistic, same weights | logistic, all weights |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        f = r["foretell"]
        if "undefined" not in f:
            fates = [f"{_interval(f['fates'][n])}, p = {f['fates'][n]['p']:.3f}, q = {f['fates'][n]['q']:.2f}"
                     for n in readings.READINGS]  # fmt: skip
            lines.append(
                f"| {r['family']} {r['level']} | {' | '.join(fates)} | {_interval(f['same_weights'])} | {_interval(f['all_weights'])} |"
            )
    return (
        "\n".join(lines)
        + "\n\nAUC on held-out networks, 95 % intervals over init groups; p against 500 permutations, q corrected.\n"
    )


FAMILIES = {
    "start": "accuracy and entropy by the start's fate", "end": "the same by the end's fate",
    "foretell": "held-out AUC of fates",
}  # fmt: skip


def corrected(results: dict[str, Any]) -> str:
    lines = ["| tests, all populations and readings | number | p < 0.05 | by chance | after correction | least q |", "|---|---|---|---|---|---|"]  # fmt: skip
    for family, t in results["tests"].items():
        least = "–" if t["least_q"] is None else f"{t['least_q']:.3f}"
        lines.append(
            f"| {FAMILIES[family]} | {t['n']} | {t['below']} | {t['by_chance']:.1f} | {t['findings']} | {least} |"
        )
    return "\n".join(lines) + (
        "\n\nBenjamini and Hochberg's correction within each row of this table: q is the share of false findings to expect if "
        "all tests up to this one are called findings.\n"
    )


def times(results: dict[str, Any]) -> str:
    lines = [
        "| 2^15 boxes, 100 networks | fit, s | predict at all corners, s | graph, sets, order, regions, s | all, s |",
        "|---|---|---|---|---|",
    ]
    for t in results["timing"]:
        lines.append(
            f"| {t['dimensions']}-D, {t['reading']} | {t['fit']:.3f} | {t['predict']:.3f} | {t['graph']:.3f} | {t['all']:.3f} |"
        )
    return "\n".join(lines) + (
        f"\n\nMedians of {results['timing'][0]['rounds']} rounds, one thread; the paper reports {PUBLISHED_S} s in 2-D. Networks trained by "
        + f"{', '.join(results['engines'])}. "
        + ", ".join(f"{k} {v}" for k, v in results["versions"].items()) + ".\n"
    )  # fmt: skip


if __name__ == "__main__":
    main()
