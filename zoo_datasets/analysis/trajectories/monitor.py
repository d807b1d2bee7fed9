"""Checkpoints of one model, old and new → has it changed in a way that its own history does not show: test it again?

In:  a reference (snapshots of a model of a zoo, or a folder of safetensors files), and newer checkpoints.
Out: for each new step its length, direction and curvature beside the history's, a p-value, and one
     line: retest or not.

A step is described by the step before it: log of the ratio of their lengths, cosine of the angle between
them, log of the curvature times the length. How unusual it is, is the largest of the three distances from the
median in median absolute deviations. The p-value is conformal: the rank of the new step among all
steps, itself included, of a history that goes on as before. If steps are exchangeable once the
step before is taken out, alarms at level α come in at most a share α of steps (Vovk et al. 2005); with
n steps in the history no p is below 1/(n + 1), and a level that the history cannot reach is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import decimal as decimals
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zoo_datasets.analysis.trajectories import paths
from zoo_datasets.core import meters
from zoo_datasets.core import tensors as saved_tensors
from zoo_datasets.errors import ZooError, ZooNotFoundError, alternatives
from zoo_datasets.zoo import Zoo, open_zoo

FEATURES = ("length", "direction", "curvature")
ROUNDING = 1e-9  # of a level that is compared: 0.3 / 3 is less than 1 / 10 in floats
SMALLEST_TURN = 1e-6  # radians: float32 weights know no smaller one; keeps the logarithm finite
MOST_BYTES = 1 << 36  # of a checkpoint, all of which is read
# Statistics that batch norm collects, and no weights that training moves.
COLLECTED = re.compile(r"(running_mean|running_var|num_batches_tracked)$")


@dataclasses.dataclass(frozen=True)
class Step:
    """One new step beside the history."""

    length: float  # in units of the step before
    direction: float  # cosine with the step before
    curvature: float  # turning angle over the mean of both lengths, times the length of the one before
    p: float

    def __str__(self) -> str:
        return (
            f"{self.length:.3g} times as long as the step before, cosine {self.direction:+.3f}, curvature {self.curvature:.3g}: "
            f"p = {self.p:.3g}"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What `monitor` found; `retest` is the answer."""

    steps: tuple[Step, ...]
    n_history: int  # steps that are described by a step before
    level: float

    @property
    def retest(self) -> bool:
        """Whether one of the new steps is as rare as the level asks."""
        return _rings(min(s.p for s in self.steps), self.level, len(self.steps))

    def __str__(self) -> str:
        least = min(s.p for s in self.steps)
        what = f"p = {least:.3g} of {len(self.steps)} new steps against {self.n_history} of the history, false alarms at most {self.level:g}"
        return (
            f"retest: the model has moved as it never did ({what})"
            if self.retest
            else f"no retest: it moves as before ({what})"
        )


def _rings(p: float, level: float, n_new: int) -> bool:
    """Whether the least p-value is at most the level, shared among the new steps (Bonferroni)."""
    return p * n_new <= level * (1 + ROUNDING)


def describe(before: np.ndarray, here: np.ndarray, after: np.ndarray) -> np.ndarray:
    """log length ratio, cosine, and log curvature of the step here → after, after before → here, [3]."""
    u, v = (np.asarray(b, np.float64) - a for a, b in ((before, here), (here, after)))
    unit, length = np.linalg.norm(u), np.linalg.norm(v)
    if not (unit > 0 and length > 0):
        raise ZooError(
            "Two checkpoints that follow each other are equal: a step of length 0 has no direction. Leave one out."
        )
    cosine = float(paths.cosines(u[None], v[None])[0])
    turn = max(np.arccos(cosine), SMALLEST_TURN)
    return np.array([np.log(length / unit), cosine, np.log(turn * unit / ((unit + length) / 2))])


def monitor(history: Sequence[np.ndarray], new: Sequence[np.ndarray], level: float = 0.05) -> Report:
    """New checkpoints [P] after a history of them, oldest first. Raises ZooError where the history is too short for the level."""
    n = len(history) - 2
    if not new:
        raise ZooError("There is no new checkpoint to compare.")
    if not 0 < level < 1:
        raise ZooError(f"--level {level}: a share of false alarms is between 0 and 1.")
    if n < 1 or not _rings(1 / (n + 1), level, len(new)):
        needed = max(np.ceil(len(new) / level / (1 + ROUNDING)) - 1, 1)
        raise ZooError(
            f"{len(history)} checkpoints in the history; for {len(new)} new ones at level {level:g} at least {needed + 2:.0f} are "
            "needed, since a step can be no rarer than one of all seen. Give more of the history, or a higher level."
        )
    seen = meters.over(range(n), "steps of the history", "steps")
    known = np.stack([describe(*history[i : i + 3]) for i in seen])
    steps, line = [], [*history[-2:], *new]
    for i in range(len(new)):
        one = describe(*line[i : i + 3])
        every = np.concatenate([known, one[None]])
        unusual = _unusual(every)
        p = float((unusual >= unusual[-1]).mean())
        steps.append(Step(float(np.exp(one[0])), float(one[1]), float(np.exp(one[2])), p))
    return Report(tuple(steps), n, level)


def _unusual(values: np.ndarray) -> np.ndarray:
    """Largest distance from the median, in median absolute deviations, of each row of [n, F]."""
    away = np.abs(values - np.median(values, axis=0))
    spread = np.median(away, axis=0)
    return np.asarray((away / np.where(spread > 0, spread, 1.0)).max(axis=1))


# ── checkpoints ───────────────────────────────────────────────────────────────────────


class Checkpoint(NamedTuple):
    """What a checkpoint is called in messages, and how its tensors are read, flat."""

    name: str
    read: Callable[[], Mapping[str, np.ndarray]]


def checkpoints(text: str) -> list[Checkpoint]:
    """What an argument names, oldest first; none is read yet. Raises ZooError.

    `ZOO::MODEL` all snapshots of a model, `ZOO::MODEL@A-B` those of steps A to B; a safetensors file, or a folder
    of them in the order of the numbers in their names.
    """
    if "::" in text:
        zoo, _, rest = text.partition("::")
        return _of_zoo(open_zoo(zoo), *_named(rest, text))
    path = Path(text)
    files = _in_order(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise ZooNotFoundError(
            f"{text}: no safetensors file and no folder of them. Of a zoo name a model: ZOO::MODEL, or ZOO::MODEL@FIRST-LAST."
        )
    return [Checkpoint(str(file), partial(_of_file, file)) for file in files]


def _named(rest: str, text: str) -> tuple[str, int, int]:
    found = re.fullmatch(r"([^@]+)(?:@(\d{1,15})(?:-(\d{1,15}))?)?", rest)
    if not found:
        raise ZooError(
            f"{text!r}: a model of a zoo is named ZOO::MODEL, its steps ZOO::MODEL@STEP or ZOO::MODEL@FIRST-LAST."
        )
    model, first, last = found.groups()
    if first is None:
        return model, 0, np.iinfo(np.int64).max
    return model, int(first), int(last or first)


def _of_zoo(zoo: Zoo, model: str, first: int, last: int) -> list[Checkpoint]:
    zoo.row(model)  # says it where there is none
    known = sorted(zoo.select(model_id=model).column("step").to_pylist())
    steps = [s for s in known if first <= s <= last]
    if not steps:
        raise ZooNotFoundError(
            f"Model {model} of {zoo.name} has no snapshot at steps {first} to {last}. Known: {alternatives(known)}."
        )
    layout = zoo.architecture(model).layout

    def tensors(step: int) -> dict[str, np.ndarray]:
        vector = zoo.vector(model, step)
        return {e.name: vector[e.offset : e.end] for e in layout if e.role == "parameter"}

    return [Checkpoint(f"{model}@{step}", partial(tensors, step)) for step in steps]


def _of_file(path: Path) -> dict[str, np.ndarray]:
    tensors = saved_tensors.read(path, MOST_BYTES, lambda name: bool(COLLECTED.search(name)))
    return {k: v.ravel() for k, v in tensors.items() if not COLLECTED.search(k)}


def _in_order(files: Iterable[Path]) -> list[Path]:
    """By the numbers in their names. Raises ZooError where these say no order."""
    known = list(files)
    parts = {f: re.findall(r"\d+(?:\.\d+)?", f.stem) for f in known}
    whole, decimal = (
        sorted(known, key=lambda f: ([of(n) for n in parts[f]], f.name)) for of in (_versions, decimals.Decimal)
    )
    most = max(known, key=lambda f: (len(parts[f]), f.name), default=None)
    if most is None:
        return []
    if odd := [f for f in whole if len(parts[f]) != len(parts[most])]:
        raise ZooError(
            f"{odd[0].parent}: {odd[0].name} and {most.name} have {len(parts[odd[0]])} and {len(parts[most])} numbers in their names, by "
            "which checkpoints are put in order. Name them alike: `step-100.safetensors`, `step-200.safetensors`, …"
        )
    for first, second in itertools.pairwise(decimal):
        if [decimals.Decimal(n) for n in parts[first]] == [decimals.Decimal(n) for n in parts[second]]:
            raise ZooError(
                f"{first.parent}: which of {first.name} and {second.name} is older their names do not say. Number them: "
                "`step-100.safetensors`, …"
            )
    if whole != decimal:
        first = next(a for a, b in zip(whole, decimal, strict=True) if a != b)
        raise ZooError(
            f"{first.parent}: {first.name} may be read as a decimal or as two whole numbers, and these give other orders. Name checkpoints with "
            "as many digits after every point."
        )
    return decimal


def _versions(number: str) -> tuple[int, ...]:
    """3.10 comes after 3.9."""
    return tuple(map(int, number.split(".")))


def flat(checkpoints: Iterable[Checkpoint]) -> list[np.ndarray]:
    """Each as one vector float64 [P], tensors by name. Raises ZooError where they are not of one layout, or not finite."""
    vectors: list[np.ndarray] = []
    first, expected = "", dict[str, int]()
    for name, read in checkpoints:
        tensors = read()
        sizes = {k: v.size for k, v in tensors.items()}
        if not vectors:
            first, expected = name, sizes
        if sizes != expected or not expected:
            odd = sorted(set(expected.items()) ^ set(sizes.items()))[:1]
            raise ZooError(
                f"{name} and {first} are not checkpoints of one model: they differ in tensor {odd[0][0]!r}."
                if odd
                else f"{name} holds no weights."
            )
        vector = np.concatenate([np.asarray(tensors[k], np.float64).ravel() for k in sorted(expected)])
        if not np.isfinite(vector).all():
            raise ZooError(f"{name} holds weights that are not finite: retest that model in any case.")
        vectors.append(vector)
    return vectors


# ── the command ───────────────────────────────────────────────────────────────────────


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help="history of the model: ZOO::MODEL@FIRST-LAST, or a folder of safetensors files",
    )
    parser.add_argument(
        "new", nargs="+", metavar="NEW", help="newer checkpoints of it: safetensors files, or ZOO::MODEL@FIRST-LAST"
    )
    parser.add_argument(
        "--level", type=float, default=0.05, help="share of false alarms that is allowed (default: 0.05)"
    )


def run(options: argparse.Namespace) -> Report:
    """The report of a call. Raises ZooError."""
    history = checkpoints(options.reference)
    new = [c for text in options.new for c in checkpoints(text)]
    vectors = flat(meters.over([*history, *new], "reading", "checkpoints"))
    # A zoo that goes on from another keeps the snapshot that it starts from: the same weights twice are no step.
    fresh = [v for i, v in enumerate(vectors[len(history) :]) if i or not np.array_equal(v, vectors[len(history) - 1])]
    return monitor(vectors[: len(history)], fresh, options.level)
