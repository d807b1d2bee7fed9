"""Does `monitor` see that training went over to another domain? Doses of it → benchmarks/results/monitor.json, a picture, a section of docs.

    python benchmarks/monitor.py --data DIR [--zoos DIR]

Small MLPs learn from MNIST, a checkpoint every thousand images, and then from a thousand more: images seen before, images of
the same kind never seen (the yardstick: new data, no new domain), and the latter with a share replaced by Fashion-MNIST. Each
child starts at its parent's last snapshot and goes on with the optimizer's state (`init: {zoo: …}` with another `source`).
`monitor` sees the parent's snapshots and the child's one, no data; what a test would have found stands beside it. DIR holds
local copies of both sources as the Hub has them. No recipe mixes two sources: the mixtures are written beside the zoos.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_builder import build, grid, plan
from zoo_datasets import intervals
from zoo_datasets.analysis.results import DPI, VERSIONS
from zoo_datasets.analysis.trajectories import monitor
from zoo_datasets.core import figures, libraries
from zoo_datasets.zoo import Zoo, open_zoo

HERE = Path(__file__).parent
RESULT = HERE / "results" / "monitor.json"
PAGE = HERE.parent / "docs" / "trajectories.md"
PICTURE = "pictures/monitor-doses.png"
MNIST, FASHION = "ylecun/mnist/mnist", "zalando-datasets/fashion_mnist/fashion_mnist"
LEVELS = (0.05, 0.1)
DOSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # share of the new images that are of the other domain
SURE = 1 - 0.05 / (len(DOSES) + 1)  # of each interval: those of one column hold at once with 95 % (Bonferroni)
SEEN = "images seen before"
LEARNED, EPOCHS, CHUNK = 30_000, 3, 1000  # images, passes over them, images from one checkpoint to the next
BATCH = 50
# The history is the last pass: in the first ones steps shrink fast, and what is rare there is not rare later.
STEPS = range((EPOCHS - 1) * LEARNED // BATCH, EPOCHS * LEARNED // BATCH + 1, CHUNK // BATCH)
RECIPE = """\
zoo: weightzoo/{name}
source: {{id: stream, path: {path}, train: {train}, validation: 100, test: 2000, scale: standardize, mean: [0.1307], std: [0.3081], resize: 14}}
architecture: [flatten, {{linear: 16}}, activation, {{linear: classes}}]
activation: tanh
{more}
training: {{optimizer: momentum, lr: 0.02, momentum: 0.9, batch_size: {batch}, epochs: {epochs}}}
snapshots: {{steps: {steps}, optimizer: true}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("ZOO_DATA"), help="folder of local sources (default: $ZOO_DATA)")  # fmt: skip
    parser.add_argument("--zoos", type=Path, help="where zoos and mixtures are kept (default: nowhere)")
    parser.add_argument("--networks", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = study(options.zoos or Path(folder), Path(options.data), options.networks)
    RESULT.write_text(json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    draw(result)
    pages.rewrite(PAGE, "monitor", section(result))


def study(folder: Path, data: Path, networks: int) -> dict[str, Any]:
    """Everything that the page says, as JSON."""
    learned = source(data, folder, "learned", 0, LEARNED)
    parents = built("monitored", learned, LEARNED, f"replicates: {networks}", EPOCHS, [0, *STEPS])
    streams = {SEEN: source(data, folder, "seen", 0, CHUNK)}
    streams |= {name(d): source(data, folder, f"fashion-{100 * d:g}", LEARNED, CHUNK, d) for d in DOSES}
    onward = f"init: {{zoo: {parents}, epoch: {EPOCHS}, optimizer: continue}}"
    zoo, rows = open_zoo(parents), []
    for what, path in streams.items():
        children = built(f"monitored-{path.name}", path, CHUNK, onward, 1, [0, CHUNK // BATCH])
        rows.append({"condition": what, **asked(zoo, open_zoo(children))})
    for row in rows:
        row |= beside(row, next(r for r in rows if r["condition"] == name(0)))
    return {
        "networks": networks, "n_history": len(STEPS) - 2, "rows": rows, "versions": libraries.versions(VERSIONS),
        "test_accuracy_of_parents": float(np.mean(zoo.final().column("test_accuracy").to_numpy())),
    }  # fmt: skip


def name(dose: float) -> str:
    return f"{100 * dose:g} % Fashion-MNIST" if dose else "images never seen"


def built(name: str, path: Path, train: int, more: str, epochs: int, steps: list[int]) -> Path:
    """The folder of a zoo that learns a source of ours, beside it, built unless it is there."""
    recipe = path.parent / f"{name}.yaml"
    recipe.write_text(
        RECIPE.format(name=name, path=path, train=train, more=more, epochs=epochs, steps=steps, batch=BATCH)
    )
    loaded = grid.load(recipe)
    folder = path.parent / loaded.zoo
    if not (folder / "manifest.json").exists():
        build.build(plan.plan(loaded), folder, workers=0)
    return folder


def source(data: Path, folder: Path, name: str, first: int, n: int, dose: float = 0.0) -> Path:
    """A folder of Parquet files: MNIST images from row `first` on, a share of them replaced. Larger doses hold the smaller."""
    made = folder.resolve() / name
    made.mkdir(parents=True, exist_ok=True)
    ours = _rows(data / MNIST, "train", first, n)
    theirs = _rows(data / FASHION, "train", first, n).cast(ours.schema)
    replaced = np.random.default_rng(0).permutation(n) < round(dose * n)
    pq.write_table(pa.concat_tables([ours, theirs]).take(np.arange(n) + n * replaced), made / "train.parquet")
    pq.write_table(_rows(data / MNIST, "train", 50_000, 100), made / "validation.parquet")
    pq.write_table(_rows(data / MNIST, "test", 0, 2000), made / "test.parquet")
    return made


def _rows(folder: Path, split: str, first: int, n: int) -> pa.Table:
    (file,) = folder.glob(f"{split}-*.parquet")
    return pq.read_table(file).slice(first, n)


def asked(parents: Zoo, children: Zoo) -> dict[str, Any]:
    """How many children `monitor` wants tested again, how their step looks beside the history, and what a test finds."""
    reports, lineages, changes = [], [], []
    for row in sorted(children.models.to_pylist(), key=lambda row: row["lineage_root"]):
        steps = [s for s in parents.select(model_id=row["parent_id"]).column("step").to_pylist() if s >= STEPS[0]]
        history = [parents.vector(row["parent_id"], s) for s in sorted(steps)]
        new = children.vector(row["model_id"], CHUNK // BATCH)
        reports.append({level: monitor.monitor(history, [new], level) for level in LEVELS})
        mine = children.select(model_id=row["model_id"]).table(["step", "test_accuracy"]).to_pylist()
        before, after = (r["test_accuracy"] for r in sorted(mine, key=lambda r: r["step"]))
        changes.append(after - before)
        lineages.append(row["lineage_root"])
    of, one = np.array(lineages), [r[LEVELS[0]].steps[0] for r in reports]
    hits = {at: np.array([float(r[at].retest) for r in reports]) for at in LEVELS}
    retest = {f"{at:g}": intervals.proportion(hit, of, level=SURE) for at, hit in hits.items()}
    return {
        "retest": {level: found.to_json() for level, found in retest.items()},
        "accuracy_change": intervals.mean(np.array(changes), of, level=SURE, ends=(-1.0, 1.0)).to_json(),
        "lineages": lineages, "p": [s.p for s in one], "accuracy_changes": changes,
        **{f"median_{k}": float(np.median([getattr(s, k) for s in one])) for k in monitor.FEATURES},
    }  # fmt: skip


def beside(row: Mapping[str, Any], unseen: Mapping[str, Any]) -> dict[str, Any]:
    """What a condition adds to images of the same domain, network by network: to the share of *retest*, and to accuracy."""
    assert row["lineages"] == unseen["lineages"]
    of = np.array(row["lineages"])
    alarm, usual = (np.array(r["p"]) <= LEVELS[0] for r in (row, unseen))
    change, drift = (np.array(r["accuracy_changes"]) for r in (row, unseen))
    return {
        "retest_added": intervals.difference(
            usual.astype(float), alarm.astype(float), of, level=SURE, ends=(-1.0, 1.0)
        ).to_json(),
        "accuracy_added": intervals.difference(drift, change, of, level=SURE, ends=(-1.0, 1.0)).to_json(),
    }


# ── the page ──────────────────────────────────────────────────────────────────────────


def section(result: Mapping[str, Any]) -> str:
    """The Markdown between the markers."""
    low, high = (f"{level:g}" for level in LEVELS)
    rows = {r["condition"]: r for r in result["rows"]}
    doses = [d for d in DOSES if d]
    told = [d for d in doses if rows[name(d)]["retest_added"]["low"] > 0]
    harmed = [d for d in doses if rows[name(d)]["accuracy_added"]["high"] < 0]
    nulls = "; ".join(f"{what}, {_alarms(rows[what])}" for what in (SEEN, name(0)))
    said = (
        f"{result['networks']} networks (196-16-10, test accuracy {result['test_accuracy_of_parents']:.3f}), {result['n_history']} steps of "
        f"history, one new one: ranks give p of 1/{result['n_history'] + 1} and its multiples, so that at level {low} the longest alone rings. **False alarms**, each with 95 % bounds of its own: {nulls}. **Fashion-MNIST**: more *retest* than for MNIST images never seen "
        f"{_from(told, doses)}; less accuracy on MNIST than after those {_from(harmed, doses)}.{_missed(rows)}"
    )  # fmt: skip
    lines = [
        f"| the next thousand images | retest at level {low} | at level {high} | more of them at {low} than for images never seen | test accuracy, change | less that of images never seen | length, in steps before | cosine with it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for what, r in rows.items():
        more, added = (_change(r[k]) if what != name(0) else "–" for k in ("retest_added", "accuracy_added"))
        lines.append(
            f"| {what} | {_share(r['retest'][low])} | {_share(r['retest'][high])} | {more} | {_change(r['accuracy_change'])} | {added} | {r['median_length']:.2f} | {r['median_direction']:+.2f} |"
        )
    return (
        f"{said}\n\n![Retest by dose of another domain]({PICTURE})\n\n"
        + "\n".join(lines)
        + "\n\nShares of networks with exact bounds; change of accuracy, mean with t interval, those of one column to hold at once with 95 % (Bonferroni over its rows)."
        " Medians of length and cosine. Each condition is one thousand images, the same for all networks: bounds are over networks, not over images.\n"
    )


def _change(found: Mapping[str, Any]) -> str:
    return f"{found['value']:+.4f} [{max(found['low'], -1.0):+.4f}, {min(found['high'], 1.0):+.4f}]"


def _missed(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Conditions that cost accuracy, and ring no more often than what costs none."""
    missed = [
        (what, r) for what, r in rows.items() if r["accuracy_added"]["high"] < 0 and r["retest_added"]["low"] <= 0
    ]
    if not missed:
        return ""
    said = "; ".join(f"{what}: accuracy {_change(r['accuracy_added'])} beside {name(0)}" for what, r in missed)
    return f" **What it misses**, harm without more *retest*: {said}. Weights say that training goes on as it did, and not that this is good."


def _from(which: list[float], doses: list[float]) -> str:
    """Doses in words: "from 5 % on" where they are all from one on."""
    if not which:
        return "at no dose"
    if which == doses[-len(which) :]:
        return f"from {100 * which[0]:g} % on"
    return "at " + ", ".join(f"{100 * d:g} %" for d in which)


def _alarms(row: Mapping[str, Any]) -> str:
    """False alarms where nothing changed but the images: each level against bounds of its own, the stricter test of a promise."""
    said = []
    for level in LEVELS:
        found = intervals.proportion((np.array(row["p"]) <= level).astype(float), np.array(row["lineages"]))
        word = (
            "**more than allowed**"
            if found.low > level
            else "less than allowed"
            if found.high < level
            else "as allowed"
        )
        said.append(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] at level {level:g} ({word})")
    return ", ".join(said)


def _share(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def draw(result: Mapping[str, Any]) -> None:
    """Shares of *retest*, and what a test finds, by dose."""
    from PIL import Image

    rows = {r["condition"]: r for r in result["rows"]}
    figure, ((left, right),) = figures.figure_of(9.5, 3.6, columns=2)
    at = np.arange(len(DOSES))
    for ax, color, values in (
        (left, figures.BLUE, [rows[name(d)]["retest"][f"{LEVELS[0]:g}"] for d in DOSES]),
        (right, figures.VERMILION, [rows[name(d)]["accuracy_change"] for d in DOSES]),
    ):
        middle = np.array([v["value"] for v in values])
        sides = np.array([[v["value"] - v["low"], v["high"] - v["value"]] for v in values]).T
        ax.errorbar(at, middle, sides, fmt="o-", color=color, capsize=3, markersize=4, linewidth=1.2)
        ax.set_xticks(at, [f"{100 * d:g}" for d in DOSES])
    left.axhline(LEVELS[0], color=figures.GREY, linestyle="--", linewidth=1)
    left.set_ylim(-0.03, 1.03)
    words = "of the next thousand images, % Fashion-MNIST"
    figures.caption(left, f"asked to be tested again; dashed: allowed, {LEVELS[0]:g}", words, "share of networks")
    figures.caption(right, "what the test finds on MNIST", words, "change of test accuracy")
    figures.headline(figure, f"monitor, by dose of another domain ({result['networks']} networks)")
    path = PAGE.parent / PICTURE
    figure.savefig(path, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
