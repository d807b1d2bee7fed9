"""A problem and baselines → result files, and from them a table with intervals, ceilings and controls.

In:  a `tasks.Problem`, names of baselines, seeds; result files, ours or others'.
Out: a JSON file for each baseline and seed (predictions on test included, so that everything can be recomputed); Markdown.

The test side is touched once a result: whatever was chosen was chosen on validation. Intervals resample groups of test
networks (`intervals`), with the trained baseline as given; the spread over seeds stands beside them and is never pooled. The
*ceiling* is what an oracle that knows the true accuracy would reach, given how many images the stored one was measured on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets import intervals, metrics, tasks
from zoo_datasets.baselines.interface import Target
from zoo_datasets.baselines.known import CONTROLS, NO_DRAWS, baseline
from zoo_datasets.core import files, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.intervals import Interval
from zoo_datasets.tasks import Problem

FORMAT = 1
SHOWN = {"number": ("r2", "kendall", "mae"), "class": ("balanced_accuracy", "accuracy")}
MOST_BYTES = 256 << 20  # of a result file
ORACLES = 20  # measurements of the true accuracy that a ceiling averages over


@dataclasses.dataclass(frozen=True)
class Cell:
    """A baseline on a task under one seed: what was predicted of each test network, and what it cost."""

    task: str
    baseline: str
    seed: int
    predictions: np.ndarray  # (n,) or (n, classes) float64, in the order of the problem's test side
    cpu_s: float
    parameters: int
    chosen: Any
    error: str | None = None


# ── solving ───────────────────────────────────────────────────────────────────────────


def solve(found: Problem, name: str, seed: int) -> list[Cell]:
    """Fit a baseline once, for all targets of the problem. Where it cannot, cells that say why."""
    targets = found.train.targets.of
    started = time.process_time()
    try:
        solver = baseline(name)
        solver.fit((found.train.view, found.train.targets), (found.validation.view, found.validation.targets), seed)
        predictions = solver.predict(found.test.view)
        spent, size, chosen = time.process_time() - started, solver.parameters, dict(solver.chosen)
    except ZooError as error:
        none = np.full(len(found.test), np.nan)
        return [Cell(found.name_of(t.name), name, seed, none, 0.0, 0, None, str(error)) for t in targets]
    cells = []
    for target in targets:
        values, task = np.asarray(predictions[target.name], np.float64), found.name_of(target.name)
        wrong = int((~np.isfinite(values)).sum())
        problem = f"{wrong} of {values.size} predictions are not finite" if wrong else None
        cells.append(Cell(task, name, seed, values, spent, size, chosen.get(target.name, chosen), problem))
    return cells


def run(
    found: Problem, names: Sequence[str], seeds: int, out: Path, commit: str | None = None
) -> Iterator[tuple[str, int, bool]]:
    """Solve and write what has no result file yet, controls first; gives (baseline, seed, whether it was there)."""
    for name in dict.fromkeys([*CONTROLS, *names]):
        baseline(name)  # an unknown name is said before anything is computed
    for name in dict.fromkeys([*CONTROLS, *names]):
        for seed in range(1 if name in NO_DRAWS else seeds):  # what no draw enters needs no seeds
            path = (
                out
                / f"{streams.digest([found.digest, sorted(t.name for t in found.train.targets.of), name, seed])[:16]}.json"
            )
            there = path.exists()
            if not there:
                files.write_atomic(path, _to_json(found, solve(found, name, seed), commit))
            yield name, seed, there


def _to_json(found: Problem, cells: Sequence[Cell], commit: str | None) -> bytes:
    head = {
        "format": FORMAT, "about": tasks.describe(found), "problem": found.digest, "commit": commit,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }  # fmt: skip
    rows = [dataclasses.asdict(c) | {"predictions": np.round(c.predictions, 7).tolist()} for c in cells]
    return (json.dumps(jsonable(head | {"cells": rows}), indent=1) + "\n").encode()


def read(found: Problem, folder: Path) -> list[Cell]:
    """The cells of the problem among a folder's result files, ours or others'.

    Raises IntegrityError where a file was made from other bytes than the zoo's, or does not hold a prediction for each test network.
    """
    cells = []
    targets = {found.name_of(t.name): t for t in found.train.targets.of}
    for path in sorted(folder.glob("*.json")):
        value = json.loads(files.read_bounded(path, MOST_BYTES))
        if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("cells"), list):
            raise IntegrityError(f"{path} is no result file of this version. Take it out of the folder.")
        about = value.get("about")
        if not isinstance(about, dict) or about.get("zoo") != found.zoo or about.get("split") != found.split_name:
            continue
        if value.get("problem") != found.digest:
            raise IntegrityError(
                f"{path} was made from other bytes than {found.zoo}'s, another split, or an older version of the tasks. Take it out "
                "of the folder, or open the zoo that it names."
            )
        for row in value["cells"]:
            if row["task"] not in targets:
                continue
            of = targets[row["task"]]
            predictions = np.array(
                [[np.nan if x is None else x for x in np.atleast_1d(p)] for p in row["predictions"]], float
            )
            wanted = (len(found.test), max(1, of.classes))
            if predictions.shape != wanted and row["error"] is None:
                raise IntegrityError(
                    f"{path}: predictions of {row['task']} have shape {predictions.shape}, not {wanted}."
                )
            row["predictions"] = predictions if of.classes else predictions[:, 0]
            cells.append(Cell(**{f.name: row[f.name] for f in dataclasses.fields(Cell)}))
    return cells


# ── scoring ───────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Row:
    """A baseline on a task: each metric's interval at the median seed, its spread over seeds, and against the best."""

    task: str
    baseline: str
    scores: Mapping[str, Interval]
    spread: Mapping[str, tuple[float, float]]  # least and most over seeds
    seeds: int
    cpu_s: float
    parameters: int
    separable: bool | None  # whether the best baseline's lead leaves out 0; None for the best itself
    error: str | None = None


def rows(found: Problem, cells: Iterable[Cell], target: Target) -> list[Row]:
    """The table of one task, best first; what failed comes last."""
    task, place = found.name_of(target.name), [t.name for t in found.train.targets.of].index(target.name)
    y_all = found.test.targets.values[:, place]
    keep = np.isfinite(y_all)
    y, groups = y_all[keep], found.test.groups[keep]
    shown = SHOWN["class" if target.classes else "number"]
    middle = _finite_mean(found.train.targets.values[:, place])
    done: list[tuple[Row, np.ndarray]] = []
    failed = []
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.task == task:
            by_name.setdefault(cell.baseline, []).append(cell)
    for name, several in by_name.items():
        broken = [c.error for c in several if c.error]
        if broken:
            failed.append(Row(task, name, {}, {}, len(several), 0.0, 0, None, broken[0]))
            continue
        given = [c.predictions[keep].argmax(1) if target.classes else c.predictions[keep] for c in several]
        values = {m: [_score(m, y, p, middle) for p in given] for m in shown}
        at = int(np.argsort(values[shown[0]])[(len(given) - 1) // 2])
        scores = {m: _interval(m, y, given[at], groups, middle) for m in shown}
        spread = {m: (min(v), max(v)) for m, v in values.items()}
        cost = float(np.mean([c.cpu_s for c in several]))
        done.append((Row(task, name, scores, spread, len(several), cost, several[0].parameters, None), given[at]))
    done.sort(key=lambda pair: -_or_last(pair[0].scores[shown[0]].value))
    ranked = [done[0][0]] if done else []
    for row, prediction in done[1:]:
        lead = intervals.contrast(shown[0], y, prediction, done[0][1], groups, **_options(shown[0], middle))
        ranked.append(dataclasses.replace(row, separable=bool(lead.low > 0)))
    return ranked + failed


def _options(metric: str, middle: float) -> dict[str, Any]:
    return {"baseline": middle} if metric == "r2" else {}


def _score(metric: str, y: np.ndarray, prediction: np.ndarray, middle: float) -> float:
    return metrics.SCORES[metric](y, prediction, **_options(metric, middle))


def _interval(metric: str, y: np.ndarray, prediction: np.ndarray, groups: np.ndarray, middle: float) -> Interval:
    return intervals.score(metric, y, prediction, groups, **_options(metric, middle))


def _finite_mean(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].mean())


def _or_last(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def ceiling(found: Problem, target: Target) -> dict[str, float]:
    """What an oracle that knows the true test accuracy reaches in `r2` and `kendall`; empty where nothing says how it was measured.

    The stored accuracy stands for the true one, and is measured again on as many images: mean of `ORACLES` draws.
    """
    if not target.bounded or not (found.test.images > 0).all() or target.name != "test_accuracy":
        return {}
    place = [t.name for t in found.train.targets.of].index(target.name)
    true, images = found.test.targets.values[:, place], found.test.images
    generator = np.random.default_rng(int(found.digest[:16], 16))
    measured = [generator.binomial(images, true) / images for _ in range(ORACLES)]
    middle = _finite_mean(found.train.targets.values[:, place])
    return {m: float(np.mean([_score(m, seen, true, middle) for seen in measured])) for m in ("r2", "kendall")}


# ── showing ───────────────────────────────────────────────────────────────────────────


def markdown(found: Problem, cells: Sequence[Cell]) -> str:
    """The tables of all tasks of a problem."""
    about = tasks.describe(found)
    counts = ", ".join(f"{about['n'][s]:,} {s} ({about['groups'][s]:,} groups)" for s in about["n"])
    lines = [f"## {found.zoo}, split {found.split_name}", "", f"Networks: {counts}. Zoo {found.zoo_digest[:16]}.", ""]
    for target in found.train.targets.of:
        shown = SHOWN["class" if target.classes else "number"]
        lines += [f"### {found.name_of(target.name)}", ""]
        lines += [f"| baseline | {' | '.join(shown)} | seeds | parameters | CPU-s |", "|" + "---|" * (len(shown) + 4)]
        for row in rows(found, cells, target):
            if row.error:
                lines.append(f"| {row.baseline} | {' | '.join(['–'] * len(shown))} | {row.seeds} | – | {row.error} |")
                continue
            name = row.baseline if row.separable is not False else f"{row.baseline} *"
            values = [_cell(row.scores[m], row.spread[m]) for m in shown]
            lines.append(f"| {name} | {' | '.join(values)} | {row.seeds} | {row.parameters:,} | {row.cpu_s:,.1f} |")
        top = ceiling(found, target)
        place = [t.name for t in found.train.targets.of].index(target.name)
        notes = ["\\* not separable from the first row: the interval of the difference holds 0."]
        if top:
            notes.append(
                f"An oracle reaches R² {top['r2']:.3f} and τ {top['kendall']:.3f}: accuracy was measured on finitely many images."
            )
        if not target.classes:
            notes.append(f"{tasks.tied_share(found.test.targets.values[:, place]):.1%} of test pairs are tied.")
        lines += ["", " ".join(notes), ""]
    return "\n".join(lines) + "\n"


def _cell(interval: Interval, spread: tuple[float, float]) -> str:
    if math.isnan(interval.value):
        return "–"
    bounds = f" [{interval.low:.3f}, {interval.high:.3f}]" if interval.method != "none" else f" ({interval.note})"
    over = f"; seeds {spread[0]:.3f}–{spread[1]:.3f}" if spread[0] != spread[1] else ""
    return f"{interval.value:.3f}{bounds}{over}"
