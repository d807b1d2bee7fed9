"""Can one see training progress in weight space? Zoos → benchmarks/results/trajectories.json and the tables of docs.

    python benchmarks/trajectories.py ZOO [--continued ZOO …] [--pictures]

A ZOO is the folder of a sealed zoo, or a recipe: `grids/trajectories/digits.yaml` is built first,
where `python -m zoo_builder` would build it, unless it is there. Each call replaces the record of
its zoo and keeps those of others. With --pictures, those of docs/pictures/ are drawn again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_datasets import cli
from zoo_datasets.analysis.trajectories.pictures import label

HERE = Path(__file__).parent
RESULT = HERE / "results" / "trajectories.json"
PAGE = HERE.parent / "docs" / "trajectories.md"
BEGIN, END = "<!-- trajectories -->\n", "<!-- /trajectories -->"
DETECTORS = ("all", "step length", "curvature", "direction", "test_loss", "metadata", "null")
SHAPES = {
    "length": "path length Σ‖Δ‖", "chord": "chord", "tortuosity": "tortuosity, length / chord",
    "smoothness": "smoothness, mean cosine of consecutive steps", "curvature": "curvature, median over the path (rad per unit)",
    "first_step": "first step", "last_step": "last step", "shrinking": "share of steps shorter than the one before",
    "kendall_step_loss_along_training": "τ of step length and train loss along one training",
    "kendall_step_loss_across_models": "the same across models at equal epoch",
    "kendall_length_final_test_accuracy": "τ of path length and final test accuracy, across models",
}  # fmt: skip
ROWS_SHOWN = 4  # of a detection curve: first, last, and evenly between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo")
    parser.add_argument("--continued", nargs="+", default=[], metavar="ZOO")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--workers", type=int, default=0, help="of a build (default: 0, in this process)")
    options = parser.parse_args()
    folders = [_folder(z, options.workers) for z in (options.zoo, *options.continued)]
    with tempfile.TemporaryDirectory() as out:
        command = [
            "analyze",
            "trajectories",
            folders[0],
            "--out",
            out,
            *([] if options.pictures else ["--no-pictures"]),
        ]
        failed = cli.main([*command, *(["--continued", *folders[1:]] if folders[1:] else [])])
        if failed:
            raise SystemExit(failed)
        numbers = json.loads((Path(out) / "numbers.json").read_text())
        if options.pictures:
            keep_pictures(Path(out), numbers)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[numbers["zoos"][0]["name"]] = numbers
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n".join(section(results)) + "\n" + END + rest.split(END)[1])


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

    name = _short(numbers["zoos"][0]["name"])
    folder = PAGE.parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(out.glob("*.png")):
        short = path.stem.replace(name + "-", "")
        # 256 colors are plenty for these, and a quarter of the bytes.
        Image.open(path).convert("RGB").quantize(256).save(folder / f"{name}-{short}.png", optimize=True)


def _short(name: str) -> str:
    return name.split("/")[-1]


# ── tables ────────────────────────────────────────────────────────────────────────────


def section(results: Mapping[str, Any]) -> Iterator[str]:
    """The page's Markdown for every zoo analyzed so far."""
    for name, numbers in sorted(results.items()):
        of, made = numbers["population"], numbers["settings"]
        yield f"### {name}\n"
        yield (
            f"{of['n_models']} networks, {of['n_snapshots']:,} snapshots of {of['n_params']:,} weights, from epoch "
            f"{made['first_epoch']:g} on. Intervals: 95 %, {made['resamples']:,} resamples of {of['n_groups']} init groups. "
            "Versions: " + ", ".join(f"{k} {v}" for k, v in numbers["versions"].items() if k in ("numpy", "scipy", "scikit-learn")) + ".\n"
        )  # fmt: skip
        yield from _clusters(numbers["ladder"])
        yield from _shapes(numbers["paths"])
        yield from _versions(numbers["versioning"], numbers["null"])
        for found in numbers.get("detection", ()):
            yield from _detection(found)
        yield from _pictures(_short(name))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def _clusters(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for metric in ("euclidean", "cosine"):
        lines = []
        for dims in dict.fromkeys(r["dimensions"] for r in rows):
            mine = {r["linkage"]: r for r in rows if (r["dimensions"], r["metric"]) == (dims, metric)}
            one = mine["single"]
            purity = " / ".join(f"{mine[k]['purity']:.3f}" for k in ("single", "average", "complete", "ward"))
            taus = [
                _interval({"value": one[t], "low": one[f"{t}_low"], "high": one[f"{t}_high"]}, 3)
                for t in ("tau_true_walk", "tau_true_nearest_sort", "tau_found_walk")
            ]
            lines.append([f"{dims:,}", f"{one['energy_frac']:.3f}", purity, f"{one['separation']:.2f}", *taus])
        part = {r["linkage"]: r["n_trajectories"] for r in rows}
        less = "" if len(set(part.values())) == 1 else f"; all linkages but single of {part['ward']} trajectories"
        yield f"Whose and when, {metric} distances{less}:\n"
        yield from _table(
            ["dimensions", "of Σ‖w‖²", "purity single / average / complete / Ward", "separation",
             "τ walk, true clusters", "τ sort, true clusters", "τ walk, found clusters (single)"], lines,
        )  # fmt: skip


def _shapes(paths: Mapping[str, Any]) -> Iterator[str]:
    yield from _table(
        ["path of a network", "mean over networks"], [[t, _interval(paths[k], 3)] for k, t in SHAPES.items()]
    )


def _versions(found: Mapping[str, Any], null: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for how, words in (("models_given", "number of models given"), ("models_found", "number found by the largest gap")):
        for name in ("walk", "nearest_sort"):
            f1 = [_interval(found[how][name][f"f1_{what}"], 3) for what in ("pairs", "links")]
            rows.append([f"{name.replace('_', ' ')}, {words} ({found[how]['n_clusters']})", *f1])
    rows.append(
        ["null: snapshots' labels shuffled", *(f"{null[f'f1_{what}']['mean']:.4f}" for what in ("pairs", "links"))]
    )
    yield from _table(["versions from a shuffled bag", "F1 of ordered pairs", "F1 of links"], rows)
    purity, tau = null["purity"], null["tau_true_walk"]
    yield (
        f"Nulls over {null['n_draws']} shuffles: purity {purity['mean']:.3f} [{purity['least']:.3f}, {purity['most']:.3f}], "
        f"τ walk {tau['mean']:+.3f} [{tau['least']:+.3f}, {tau['most']:+.3f}].\n"
    )


def _detection(found: Mapping[str, Any]) -> Iterator[str]:
    rows = found["rows"]
    last = max(r["snapshot"] for r in rows)
    shown = sorted({1 + round(i * (last - 1) / (ROWS_SHOWN - 1)) for i in range(ROWS_SHOWN)})
    lines = []
    for condition in dict.fromkeys(r["condition"] for r in rows):
        for snapshot in shown:
            mine = {r["detector"]: r for r in rows if (r["condition"], r["snapshot"]) == (condition, snapshot)}
            cells = [_interval({"value": mine[d]["auc"], **mine[d]}, 2) if d in mine else "–" for d in DETECTORS]
            lines.append([label(condition), f"{next(iter(mine.values()))['steps']:,}", *cells])
    pairs, lineages = rows[0]["n_pairs"], rows[0]["n_lineages"]
    yield (
        f"Changed data against clean twins, `{found['zoo']}`: {pairs} pairs of {lineages} lineages, AUC, "
        f"{found['folds']}-fold by lineage:\n"
    )
    names = {
        "all": "all three",
        "test_loss": "test loss",
        "metadata": "metadata alone",
        "null": "null: labels shuffled",
    }
    yield from _table(["condition", "updates since", *(names.get(d, d) for d in DETECTORS)], lines)


def _pictures(name: str) -> Iterator[str]:
    for path in sorted((PAGE.parent / "pictures").glob(f"{name}-*.png")):
        yield f"![{path.stem.removeprefix(name + '-')} of {name}](pictures/{path.name})\n"


def _interval(found: Mapping[str, Any], digits: int) -> str:
    if found["value"] is None:
        return "–"
    if found["low"] is None:
        return f"{found['value']:.{digits}f}"
    return f"{found['value']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


if __name__ == "__main__":
    main()
