"""Rows of a ranking → Markdown, and the table that is kept.

In:  a `tasks.Problem` and its cells, or the `Row`s that `ranking` made of them. Out: Markdown; a table with a line for each metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from zoo_datasets import metrics, tasks
from zoo_datasets.baselines.interface import Target
from zoo_datasets.baselines.known import ORACLE, is_control
from zoo_datasets.intervals import Interval
from zoo_datasets.ranking import (
    LEVEL,
    MORE,
    SHOWN,
    WORDS,
    Row,
    ceiling,
    first_of,
    hardly_shared,
    or_last,
    over_units,
    question,
    rows,
    unit_of,
)
from zoo_datasets.solving import Cell
from zoo_datasets.targets import tied_share
from zoo_datasets.tasks import Part, Problem

MOST_PLAIN = 1e6  # a score that is written out


def markdown(
    found: Problem, cells: Sequence[Cell], nulls: Mapping[str, Any] | None = None,
    known: Callable[[str, str], Sequence[Row]] | None = None,
) -> str:  # fmt: skip
    """The tables of all tasks of a problem; `known` gives rows of (target, where) that were made before."""
    about = tasks.describe(found)
    counts = ", ".join(f"{about['n'][s]:,} {s} ({about['groups'][s]:,} groups)" for s in about["n"])
    few = f", {found.networks:,} networks" if found.networks else ""
    lines = [
        f"## {found.zoo}, split {found.split_name}{few}",
        "",
        f"Networks: {counts}. Zoo {found.zoo_digest[:16]}.",
        "",
    ]
    for name, why in found.refused.items():
        lines += [f"{name} is not asked: {why}", ""]
    for where, part in found.tests.items():
        for target in found.train.targets.of:
            table = rows(found, cells, target, where, nulls) if known is None else known(target.name, where)
            if table:
                lines += [f"### {found.name_of(target.name, where)}", "", *_table(target, table), ""]
                lines += [" ".join(_notes(found, part, target, where, table)), ""]
    return "\n".join(lines) + "\n"


def _table(target: Target, table: Sequence[Row]) -> list[str]:
    kind = "class" if target.classes else "number"
    more = [m for m in MORE[kind] if any(m in r.scores and math.isfinite(r.scores[m].value) for r in table)]
    shown = [*SHOWN[kind], *more]
    null = any(r.null for r in table)
    over = [
        m for m in shown[:2] if m == shown[0] or any(m in r.gains and math.isfinite(r.gains[m].value) for r in table)
    ]
    heads = ["baseline", *(WORDS[m] for m in shown), *(f"over recipe ({WORDS[m]})" for m in over)]
    heads += [f"shuffled ({WORDS[m]})" for m in SHOWN[kind][:2]] if null else []
    heads += ["seeds", "parameters", "CPU-s"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in table:
        if row.error:
            lines.append(f"| {row.baseline} | {' | '.join(['–'] * (len(heads) - 2))} | {row.error} |")
            continue
        name = row.baseline + (" *" if row.separable is False else " ?" if row.unsaid else "")
        values = [in_words(row.scores[m], row.spread[m]) for m in shown]
        values += [in_words(row.gains[m], sign="+") if m in row.gains else "–" for m in over]
        values += [_null(row, m) for m in SHOWN[kind][:2]] if null else []
        lines.append(f"| {name} | {' | '.join(values)} | {row.seeds} | {row.parameters:,} | {row.cpu_s:,.1f} |")
    return lines


def _notes(found: Problem, part: Part, target: Target, where: str, table: Sequence[Row]) -> list[str]:
    first = first_of(table)
    which = ", the first that reads weights" if not is_control(table[first].baseline) else ""
    notes = [
        f"\\* not separable from {table[first].baseline}{which}: the interval of the difference, of all of them at "
        f"{LEVEL:.0%}, holds 0, or a seed reaches one of its."
    ]
    if control := next((r.control for r in table if r.control), None):
        notes.append(f"The recipe is {control}, which validation likes best of those that know no more.")
    if unsaid := dict.fromkeys(r.unsaid for r in table if r.unsaid):
        notes.append(f"? the difference has no bounds: {'; '.join(unsaid)}.")
    if unit := unit_of(found, where):
        notes.append(
            f"Bounds are over the init groups of {len(part):,} networks of this one {unit}; over {unit}s one permits no interval. R² is "
            "against their own mean."
        )
    if top := ceiling(found, target, where):
        notes.append(
            f"An oracle reaches R² {top['r2']:.3f} and some τ {top['kendall']:.3f}: accuracy was measured on finitely many images."
        )
    if not target.classes:
        asked = question(found, target, where)
        if any("kendall_within" in r.scores and math.isfinite(r.scores["kendall_within"].value) for r in table):
            tenths = control is not None and hardly_shared(part.points[asked.keep])
            strata = (
                f"tenths of what {control} foretells, since hardly two networks share a recipe"
                if tenths
                else "networks of one recipe"
            )
            notes.append(f"“{WORDS['kendall_within']}” is inside {strata}.")
        notes.append(
            f"{tied_share(asked.y):.1%} of test pairs are tied, so that τ is at most {metrics.most_kendall(asked.y):.3f}."
        )
        out = int((~asked.trained).sum())
        notes.append(
            f"{out:,} of {len(asked.y):,} networks are at chance or diverged, and left out of “trained alone”."
        )
    if any(r.null for r in table):
        counts = sorted({n for r in table if r.null for *_, n in r.null.values()})
        notes.append(f"Shuffled targets: 2.5 to 97.5 % of {', '.join(map(str, counts))} shuffles.")
    return notes


def in_words(interval: Interval, spread: tuple[float, float] = (0.0, 0.0), sign: str = "") -> str:
    """`0.912 [0.901, 0.922]; seeds 0.907–0.914`, or a dash."""
    if math.isnan(interval.value):
        return "–"
    bounds = f" [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]" if interval.method != "none" else ""
    if not bounds and interval.note != "not estimated":
        bounds = f" ({interval.note})"
    over = f"; seeds {spread[0]:.3f}–{spread[1]:.3f}" if spread[0] != spread[1] else ""
    if abs(interval.value) >= MOST_PLAIN:  # what diverged
        return f"{interval.value:{sign}.3g}"
    return f"{interval.value:{sign}.3f}{bounds}{over}"


def _null(row: Row, metric: str) -> str:
    if not row.null or metric not in row.null:
        return "–"
    low, high, _ = row.null[metric]
    return f"[{low:.3f}, {high:.3f}]"


def over_units_markdown(title: str, tables: Mapping[str, Sequence[Row]], metric: str, unit: str) -> str:
    """A matrix of baselines × units, and the mean over units with its interval where there are enough."""
    means = over_units(tables, metric)
    lines = [f"### {title}: {WORDS[metric]} by {unit}", "", f"| baseline | {' | '.join(tables)} | mean over {unit}s |"]
    lines.append("|" + "---|" * (len(tables) + 2))
    value = {(u, r.baseline): r.scores[metric].value for u, t in tables.items() for r in t if metric in r.scores}
    names = dict.fromkeys(r.baseline for t in tables.values() for r in t if not r.error)
    for name in sorted(names, key=lambda n: -or_last(means[n].value) if n in means else math.inf):
        shown = [f"{v:.3f}" if math.isfinite(v := value.get((u, name), math.nan)) else "–" for u in tables]
        last = in_words(means[name]) if name in means else "–"
        lines.append(f"| {name} | {' | '.join(shown)} | {last} |")
    return "\n".join(lines) + "\n"


def as_table(found: Problem, tables: Iterable[tuple[Target, Sequence[Row]]], where: str = "") -> pa.Table:
    """All rows of a problem's tables, a line for each metric: what `leaderboard.parquet` holds. A ceiling is `ORACLE`'s."""
    lines = []
    for target, table in tables:
        for metric, value in ceiling(found, target, where).items():
            named = {"zoo": found.zoo, "zoo_digest": found.zoo_digest, "split": found.split_name, "target": target.name}
            task = {"task": found.name_of(target.name, where), "n_train": len(found.train), "baseline": ORACLE}
            lines.append({**named, **task, "metric": metric, "value": value, "method": "ceiling"})
        for row in table:
            base = {
                "zoo": found.zoo, "zoo_digest": found.zoo_digest, "split": found.split_name, "target": target.name,
                "task": row.task, "baseline": row.baseline, "n_train": len(found.train), "seeds": row.seeds,
                "cpu_s": row.cpu_s, "parameters": row.parameters, "separable": row.separable, "error": row.error,
            }  # fmt: skip
            lines += [base | _line(row, m, i) for m, i in row.scores.items()] or [base]
    return pa.Table.from_pylist(lines, SCHEMA)


def _line(row: Row, metric: str, interval: Interval) -> dict[str, Any]:
    null = (row.null or {}).get(metric)
    left = row.left if metric == "r2" else None
    return {
        "metric": metric, "value": interval.value, "low": interval.low, "high": interval.high, "method": interval.method,
        "n": interval.n_examples, "n_groups": interval.n_groups, "least_seed": row.spread[metric][0],
        "most_seed": row.spread[metric][1],
        **_bounded("gain", row.gains.get(metric), row.control), **_bounded("beyond", row.beyond.get(metric), row.reference),
        **_bounded("left", left), **({"left_least_seed": row.left_by_seed[0], "left_most_seed": row.left_by_seed[1]} if left else {}),
        **({"null_low": null[0], "null_high": null[1], "shuffles": null[2]} if null else {}),
    }  # fmt: skip


def _bounded(name: str, found: Interval | None, over: str | None = None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        name: found.value,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        **({f"{name}_over": over} if over else {}),
    }


_COLUMNS = (
    ("zoo zoo_digest split target task baseline metric method error gain_over beyond_over", pa.string()),
    ("n_train n n_groups shuffles seeds parameters", pa.int64()),
    (
        "value low high least_seed most_seed gain gain_low gain_high beyond beyond_low beyond_high null_low null_high cpu_s",
        pa.float64(),
    ),
    ("left left_low left_high left_least_seed left_most_seed", pa.float64()),
    ("separable", pa.bool_()),
)
SCHEMA = pa.schema([(name, kind) for names, kind in _COLUMNS for name in names.split()])
