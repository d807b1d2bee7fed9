"""Rows of `snapshots` ↔ what their models' rows and cohorts say of them, without training.

In:  a `Sealed` zoo and its cohorts, made anew.
Out: problems. Compared are labels, splits, order and places; steps against schedule and end; epochs and
examples shown; what metrics say of each other; and the last snapshot with its model's row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import ACCURACY_RULES, watched
from zoo_builder.verifying.sealed import Row, Sealed
from zoo_datasets.core.report import Report
from zoo_datasets.format import contents, schema
from zoo_datasets.networks import scoring
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.sources.measured import attack_of
from zoo_datasets.sources.rows import first_of, subset_of
from zoo_datasets.sources.spec import MADE

ROWS = 20_000  # in memory at a time


def compare_snapshots(zoo: Sealed, cohorts: Sequence[Cohort], report: Report) -> None:
    """Every row of `snapshots`, and how every model ended."""
    of = {run.id: (cohort, i) for cohort in cohorts for i, run in enumerate(cohort.runs)}
    report.extend([p for row in zoo.rows for p in _end(row, *of[row["model_id"]], zoo.steps[row["model_id"]])])
    problems: list[str] = []
    places: dict[tuple[str, str], int] = {}
    expected = ((row, last) for row in zoo.rows for last in _lasts(row["n_snapshots"]))
    for (row, last), snapshot in zip(expected, _rows(zoo), strict=False):
        problems += _snapshot(zoo, row, of[row["model_id"]][0], snapshot, places)
        if last:
            problems += _published(row, snapshot)
    report.extend(problems)


def _lasts(count: int) -> Iterator[bool]:
    return (i == count - 1 for i in range(count))


def _rows(zoo: Sealed) -> Iterator[dict[str, Any]]:
    for batch in zoo.tables["snapshots"].to_batches(max_chunksize=ROWS):
        yield from batch.to_pylist()


def _end(row: Row, cohort: Cohort, place: int, steps: list[int]) -> Iterator[str]:
    """How a model ended, and at which steps it was published."""
    run, total, id = cohort.runs[place], cohort.steps[place], row["model_id"]
    budget = next(k for k in ("steps", "examples", "epochs") if run.settings[k] is not None)
    open_end = watched(run)
    reasons = [budget, "diverged"]
    if run.settings["target_loss"] is not None:
        reasons.append("target_loss")
    if any(run.settings.get(name) is not None for name in ("patience", *ACCURACY_RULES)):
        reasons.append("early_stopping")
    reason, step = row["stop_reason"], row["diverged_step"]
    if reason not in reasons:
        yield f"model {id} ended by {reason!r}; its recipe knows {', '.join(reasons)}"
        return
    if (step is None) == (reason == "diverged") or (step is not None and not 0 <= step <= total):
        yield f"model {id} ended by {reason!r}, and its diverged_step is {step}"
        return
    due = run.snapshots.steps(cohort.steps_per_epoch, total, open_end=open_end)
    if run.snapshots.target_loss is not None and not open_end:  # one more, at the end of an epoch
        more = set(steps) - set(due)
        steps = steps if len(more) > 1 or any(s % cohort.steps_per_epoch for s in more) else sorted(set(steps) - more)
    if reason == budget and not open_end:
        right = steps == due
    elif reason == "diverged" and not open_end:
        right = steps == ([s for s in due if s <= steps[-1]] or [0]) or steps == [0]
    else:  # where a rule ended it, its last step is an epoch's end, and an even schedule was thinned
        ends = {s for s in steps if s % cohort.steps_per_epoch == 0}
        right = steps == sorted(set(steps)) and set(steps) <= set(due) | ends and steps[-1] <= total
    if not right:
        yield f"model {id} has snapshots at steps {_some(steps)}; its schedule gives {_some(due)}"


def _some(steps: list[int]) -> str:
    return ", ".join(map(str, steps[:8])) + (", …" if len(steps) > 8 else "")


def _snapshot(
    zoo: Sealed, row: Row, cohort: Cohort, snapshot: Mapping[str, Any], places: dict[tuple[str, str], int]
) -> Iterator[str]:
    """A row of `snapshots` against its model's."""
    where = f"model {snapshot['model_id']}, step {snapshot['step']}"
    wanted = {name: row[name] for name in ("model_id", "split", *zoo.manifest.axes)} | {"tensor": row["layout"]}
    place = (snapshot["shard"], snapshot["tensor"])
    wanted["row"] = places[place] = places.get(place, -1) + 1
    seen = cohort.seen(cohort.stream_step + snapshot["step"]) - cohort.seen(cohort.stream_step)
    wanted |= {"examples_seen": seen, "epoch": seen / cohort.n_train}
    for name, value in wanted.items():
        if snapshot.get(name) != value:
            yield f"{where}: `{name}` is {snapshot.get(name)!r}, not {value!r}"
            return
    if not snapshot["shard"].startswith(f"weights/{row['split']}-"):
        yield f"{where}: it lies in {snapshot['shard']}, which is of another split"
    balanced = bool(cohort.runs[0].settings.get("balance_classes"))
    if text := _metrics(snapshot, row, cohort.architecture, balanced):
        yield f"{where}: {text}"


def _answers(row: Row, architecture: Architecture) -> int:
    """How many answers are counted of each input: one; of a sequence the steps, or all values of all steps."""
    if row["source"] not in MADE:
        return 1
    return architecture.n_logits if row["source"] == "machine" else architecture.n_logits // architecture.n_outputs


def _metrics(snapshot: Mapping[str, Any], row: Row, architecture: Architecture, balanced: bool) -> str | None:
    """Where metrics contradict each other, how."""
    classes, answers = architecture.n_outputs, _answers(row, architecture)
    for part in ("train", "validation", "test"):
        correct, count = (snapshot[f"{part}_{what}_per_class"] for what in ("correct", "count"))
        if not all(isinstance(v, list) and len(v) == classes and None not in v for v in (correct, count)):
            return f"counts per class of {part} are not of {classes} classes"
        if not all(0 <= c <= n for c, n in zip(correct, count, strict=True)):
            return f"more {part} images are right than there are"
        accuracy = sum(correct) / sum(count) if sum(count) else None
        if snapshot[f"{part}_accuracy"] != accuracy:
            return f"`{part}_accuracy` is {snapshot[f'{part}_accuracy']}, and {accuracy} by its counts per class"
    for part in ("train", "validation", "test"):
        most = None if snapshot["step"] == row["step"] else first_of(row, part)
        stored = row[f"{part}_count_per_class"]
        if not isinstance(stored, list) or None in stored:
            return f"the counts per class of {part} of its model are none"
        # Of a balanced model an epoch shows a part of its training images, and all of them are scored.
        whole = row["n_train"] * answers if part == "train" and not balanced else sum(stored)
        if part == "train" and whole < row["n_train"]:
            return f"{whole:,} train images are counted, and an epoch of its model shows {row['n_train']:,}"
        wanted, counted = (
            whole if most is None else min(most * answers, whole),
            sum(snapshot[f"{part}_count_per_class"]),
        )
        if counted != wanted:
            return f"{counted:,} {part} images are counted, and {wanted:,} is what its model says"
    if text := _attack(snapshot, row, classes):
        return text
    for name, value in scoring.gaps(snapshot).items():
        if snapshot[name] != value:
            return f"`{name}` is {snapshot[name]}, and {value} by its parts"
    parts = [
        c.name
        for c in (*schema.METRICS, *schema.ATTACK)
        if c.name in snapshot and c.name.endswith(("loss", "clean", "success", "base")) and c.name != "gap_loss"
    ]
    numbers = [snapshot[name] for name in parts]
    if any(v is not None and not (math.isfinite(v) and v >= 0) for v in numbers):
        return "a loss or a share is negative or not finite"
    return None


def _attack(snapshot: Mapping[str, Any], row: Row, classes: int) -> str | None:
    """Where shares of attacks are not those of their counts by class, how."""
    shown, subset = snapshot["test_count_per_class"], subset_of(row)
    for share, counts in (("attack_success", "attack_per_class"), ("attack_base", "attack_base_per_class")):
        if (sent := snapshot.get(counts)) is None:
            continue
        whole = isinstance(sent, list) and len(sent) == classes and None not in sent
        if not whole or not all(0 <= n <= of for n, of in zip(sent, shown, strict=True)):
            return f"`{counts}` is {sent}, and {shown} test images are there"
        # Where classes have names, which number the target has is the source's to say.
        if subset.class_names is not None or (aim := attack_of(subset)) is None:
            continue
        open_to = [c == aim.source if aim.source is not None else c != aim.target for c in range(classes)]
        n = sum(itertools.compress(shown, open_to))
        value = sum(itertools.compress(sent, open_to)) / n if n else None
        if snapshot[share] != value:
            return f"`{share}` is {snapshot[share]}, and {value} by its counts per class"
    return None


def _published(row: Row, snapshot: Mapping[str, Any]) -> Iterator[str]:
    for name in (n for n in contents.PUBLISHED_COLUMNS if n in snapshot):
        if row[name] != snapshot[name]:
            yield f"model {row['model_id']}: `{name}` is {row[name]!r}, and {snapshot[name]!r} at its last snapshot"
            return
