"""A problem and a baseline → what it scores where there is nothing to learn: targets shuffled, fitted again.

In:  a `tasks.Problem`, names of baselines, how many shuffles. Out: a file for each baseline, and from it the scores.

Targets of train and validation change places with whole groups, and inside them, where most networks share theirs: what a group
shares stays together, and tells nothing of others. Of groups of several sizes each is given targets of one whole group, some of
them twice or left out. Else they change places among all networks of a side. Settings are those that the
true targets chose; the test side keeps its own targets. A null whose interval leaves out chance says that something leaks.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets import ranking, results, solving, tasks
from zoo_datasets.core import files, meters, permuting, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import IntegrityError
from zoo_datasets.solving import Cell
from zoo_datasets.tasks import Part, Problem

log = logging.getLogger(__name__)

SAVED_EVERY = 30.0  # CPU seconds, or one shuffle that takes more: what a stop may cost
SHARED = 0.5  # of networks: with more in groups of two and more, groups stay together


def run(
    found: Problem, names: Sequence[str], shuffles: int, out: Path, cells: Sequence[Cell],
    frozen: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[str]:  # fmt: skip
    """Fill up the null of each baseline to so many shuffles; gives each name when it is done. `cells` say what was chosen."""
    work = [n for n in names if any(c.baseline == n and not c.failed for c in cells)]
    for name in meters.over(work, f"{found.zoo}, shuffled targets", "baselines"):
        path = out / f"null-{results.key_of(found, name, 0)}.json"
        settings = {**_chosen(name, found, cells), **((frozen or {}).get(name) or {})}
        said = json.loads(json.dumps(jsonable(settings)))
        done = _known(path, said, within(found.train))
        start = min((len(v) for of in done.values() for v in of.values()), default=0)
        done = {task: {m: v[:start] for m, v in of.items()} for task, of in done.items()}
        began = saved = time.process_time()
        for k in range(start, shuffles):
            rng = streams.generator("null", k)
            train, validation = (shuffled(p, rng) for p in (found.train, found.validation))
            # The place of a value is its shuffle, so that going on repeats none: of one that failed it is NaN.
            for cell in solving.solve(
                dataclasses.replace(found, train=train, validation=validation, elsewhere={}), name, k, settings
            ):
                for metric, value in _values(found, cell).items():
                    done.setdefault(cell.task, {}).setdefault(metric, []).append(value)
            if k + 1 == shuffles or time.process_time() - saved > SAVED_EVERY:
                head = {
                    "kind": "null", "about": tasks.describe(found), "baseline": name, "within": within(found.train),
                    "settings": said,
                }  # fmt: skip
                spent = {"cpu_s": time.process_time() - began, "shuffles": k + 1}
                files.write_atomic(path, json.dumps(jsonable({**head, **spent, "scores": done})) + "\n")
                saved = time.process_time()
        yield name


def read(found: Problem, names: Sequence[str], folder: Path) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Baseline → task → metric → its value after each shuffle."""
    paths = {n: folder / f"null-{results.key_of(found, n, 0)}.json" for n in names}
    return {n: _scores(p) for n, p in paths.items() if p.exists()}


def shuffled(part: Part, rng: np.random.Generator) -> Part:
    """The same networks, with targets of others; where groups are shared, all of a group's from one group."""
    among = within(part)
    if among == "all":
        order = rng.permutation(len(part))
    elif among == "whole groups":
        order = permuting.permutations(part.groups, 1, rng)[0]
    else:
        order = _lent(part.groups, rng)
    return dataclasses.replace(part, targets=part.targets.take(order))


def _lent(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of each network the place of another whose target it gets (n,): of each group those of a group drawn, whatever their sizes.

    A group may draw itself, as by chance it does: if none did, what was learned would be the opposite of the truth.
    """
    label = np.unique(groups, return_inverse=True)[1]
    found = np.empty(len(groups), np.int64)
    for own, lender in enumerate(rng.permutation(label.max() + 1)):
        mine, theirs = np.flatnonzero(label == own), rng.permutation(np.flatnonzero(label == lender))
        found[mine] = np.resize(theirs, len(mine))
    return found


def within(part: Part) -> str:
    """Among which networks targets change places: `whole groups` of one size, `groups of any size`, or `all` where most
    networks have a group of their own."""
    sizes = np.unique(part.groups, return_counts=True)[1]
    if (sizes * (sizes > 1)).sum() <= SHARED * sizes.sum():
        return "all"
    return "whole groups" if np.ptp(sizes) == 0 else "groups of any size"


def _chosen(name: str, found: Problem, cells: Sequence[Cell]) -> dict[str, Any]:
    """The settings that the true targets chose, of a baseline that chooses for each target."""
    own = {found.name_of(t.name): t.name for t in found.train.targets.of}
    chosen = {own[c.task]: c.chosen for c in cells if c.baseline == name and c.task in own}
    return {
        t: dict(c["chosen"])
        for t, c in chosen.items()
        if isinstance(c, Mapping) and isinstance(c.get("chosen"), Mapping)
    }


def _values(found: Problem, cell: Cell) -> dict[str, float]:
    target = next(t for t in found.test.targets.of if found.name_of(t.name) == cell.task)
    asked = ranking.question(found, target)
    return {m: math.nan if cell.error else asked.value(m, asked.of(cell)) for m in ranking.SHOWN[asked.kind][:2]}


def _known(path: Path, settings: Mapping[str, Any], among: str) -> dict[str, dict[str, list[float]]]:
    """The scores of shuffles that were made before with those settings, in that way; none of a file that cannot be read."""
    if not path.exists():
        return {}
    try:
        done = _scores(path)
    except IntegrityError as error:
        log.warning("%s", error)
        return {}
    whole = json.loads(files.read_bounded(path, results.MOST_BYTES))
    # Files of before settings were written have those that every fit chose for itself.
    return done if whole.get("settings") in (None, settings) and whole.get("within") in (None, among) else {}


def _scores(path: Path) -> dict[str, dict[str, list[float]]]:
    try:
        whole = json.loads(files.read_bounded(path, results.MOST_BYTES))
        if whole.get("within") == "groups":  # as was done before: what groups tell stayed, and was no null
            return {}
        value = whole["scores"]
        return {
            str(task): {str(m): [np.nan if x is None else float(x) for x in v] for m, v in of.items()}
            for task, of in value.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IntegrityError(
            f"{path} is no record of shuffled targets. Take it away, and they are shuffled again."
        ) from None
