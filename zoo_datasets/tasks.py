"""A zoo, targets and a split → what a baseline learns from, and what it is asked.

In:  an open zoo, the names of targets, the name of a split; other zoos to be asked about too.
Out: a `Problem`: networks and targets of train, validation and test, and the groups that intervals resample.

A task is a population (a zoo and the filter below) with a target, a split and a version: `digits-mlp/test_accuracy@1`.
The filter is fixed: the last snapshot of every model whose weights are finite (`progress` takes all of them). Rows are
shuffled by a seed of the zoo's digest, so that no order tells anything. A target that a zoo lacks, or that says
nothing there, is refused by a sentence, and the others are asked.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets import split_files, targets, task_splits
from zoo_datasets.baselines.interface import Labelled, Target, Targets, View
from zoo_datasets.core import streams
from zoo_datasets.core.arrow import floats_of
from zoo_datasets.errors import GridError, ZooError
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.sources.measured import measured
from zoo_datasets.sources.rows import subset_of
from zoo_datasets.split_files import Split
from zoo_datasets.targets import Asked, TaskError
from zoo_datasets.task_splits import VERSION
from zoo_datasets.zoo import Zoo

TRAINING = ("train_loss", "train_accuracy")  # what the control `metadata+training` is told
# A network learned nothing that is not better than chance by three standard errors of the images it was measured on.
ERRORS_ABOVE_CHANCE = 3.0


@dataclasses.dataclass(frozen=True)
class Part:
    """The networks of one side of a split, and what is known of them that no baseline sees."""

    zoo: str
    view: View
    targets: Targets
    ids: tuple[str, ...]  # of models; a model's snapshots have the same
    groups: np.ndarray  # (n,) str: models that share an initialization or a lineage
    tested: (
        np.ndarray
    )  # (n, K, 2): of each target the accuracy behind it, and on how many test images; NaN where it has none
    trained: np.ndarray  # (n,) bool: whether it learned anything (not diverged, above chance)
    points: np.ndarray  # (n,) str: equal where the recipe is, but for the replicate

    def __len__(self) -> int:
        return len(self.groups)

    @functools.cached_property
    def digest(self) -> str:
        """Of what was asked: which networks, in which order."""
        return streams.digest([self.zoo, list(self.ids)])[:32]

    def take(self, rows: np.ndarray) -> Part:
        return Part(
            self.zoo, self.view.take(rows), self.targets.take(rows), tuple(self.ids[int(i)] for i in rows),
            self.groups[rows], self.tested[rows], self.trained[rows], self.points[rows],
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Problem:
    """Tasks that share what is learned from, ready to be solved."""

    zoo: str
    zoo_digest: str
    split: Split
    split_name: str
    classes: Mapping[str, tuple[str, ...]]  # of each target that is a class, its levels by number
    train: Part
    validation: Part
    test: Part
    elsewhere: Mapping[str, Part]  # what else is asked after the same training: another zoo, another level
    refused: Mapping[str, str]  # target → why it is not asked; name of another zoo → why nothing is asked about it
    limit: int | None = None  # of the zoo's models, by plan order
    networks: int | None = None  # of the training side

    def only(self, names: Sequence[str]) -> Problem:
        """The same networks, asked those targets alone."""
        kept = [k for k, t in enumerate(self.train.targets.of) if t.name in names]
        of = tuple(self.train.targets.of[k] for k in kept)

        def part(whole: Part) -> Part:
            return dataclasses.replace(
                whole, targets=Targets(of, whole.targets.values[:, kept]), tested=whole.tested[:, kept]
            )

        return dataclasses.replace(
            self, train=part(self.train), validation=part(self.validation), test=part(self.test),
            elsewhere={w: part(p) for w, p in self.elsewhere.items()},
            classes={n: c for n, c in self.classes.items() if n in names},
            refused={n: why for n, why in self.refused.items() if n in names},
        )  # fmt: skip

    @property
    def tests(self) -> dict[str, Part]:
        """Name → networks asked about; "" are the split's own."""
        return {"": self.test, **self.elsewhere}

    def name_of(self, target: str, where: str = "") -> str:
        """`owner/zoo/target@1`, with the split where it is not by init group, and where else it was learned."""
        split = "" if self.split_name == "iid" else f"/{self.split_name}"
        if not where:
            return f"{self.zoo}/{target}{split}@{VERSION}"
        asked = self.elsewhere[where].zoo
        if where == asked or where.startswith(f"{asked}/"):  # the zoo, or a level that it has alone
            return f"{asked}/{target}/from={self.zoo}{split}{where.removeprefix(asked)}@{VERSION}"
        return f"{self.zoo}/{target}{split}/{where}@{VERSION}"

    @property
    def digest(self) -> str:
        """Of everything that is learned from: population, split, targets, version."""
        return self.digest_of([t.name for t in self.train.targets.of])

    def digest_of(self, names: Sequence[str]) -> str:
        """The same, were those targets learned."""
        return streams.digest([self.zoo_digest, self.split.digest, VERSION, sorted(names), self.train.digest])


def problem(
    zoo: Zoo, names: Sequence[str], split: str = "iid", *, others: Sequence[Zoo] = (), fresh: Sequence[Zoo] = (), limit: int | None = None,
    networks: int | None = None,
) -> Problem:  # fmt: skip
    """The tasks of these targets.

    `split` is `iid` (by init group, 50/10/40), `AXIS=LEVEL` (that level held out), or `from:AXIS=LEVEL` (learned on that
    level alone, asked on each other one). `others` are zoos whose test side is asked about too, `fresh` those of which
    every network is. `limit` takes the first
    models of the zoo's plan, `networks` so many of the training side.

    Raises TaskError where no target can be asked; GridError where the split leaves a side empty.
    """
    if not names:
        raise TaskError(
            "No target was named. Take test_accuracy, generalization_gap, progress, or a setting of the recipe."
        )
    names = list(dict.fromkeys(names))
    if "progress" in names and len(names) > 1:
        raise TaskError("`progress` asks about every snapshot, and the others about the last one: ask for it alone.")
    every = "progress" in names
    own_limit = limit if limit is not None and limit < zoo.manifest.counts.n_models else None
    zoo = prefix(zoo, limit)
    split = task_splits.named(zoo, split)
    axis, chosen = task_splits.made(zoo, split)
    population = _Population(zoo, every)
    found, refused = _asked(population.zoo, names)
    rows = population.sides(chosen)
    train, test = rows["train"], rows["test"]
    level_of = None
    if axis is not None:
        named = task_splits.level_names(zoo, axis)
        level_of = np.array([named[task_splits.label(v)] for v in population.zoo.column(axis).to_pylist()], object)
        own = split.partition("=")[2]
        train, rows["validation"], test = (r[level_of[r] == own] for r in (train, rows["validation"], test))
    learned = list(dict.fromkeys(population.ids[i] for i in train))
    # As many as there are, or more, is no limit: the results are the same, and so are their names.
    if networks is not None and networks >= len(learned):
        networks = None
    first = set(learned[:networks])
    train = np.array([i for i in train if population.ids[i] in first], np.int64)
    for name, some in zip(SPLITS, (train, rows["validation"], test), strict=True):
        if not len(some):
            raise TaskError(f"{zoo.name}: no network is left for {name} under the split {split!r}. Build more of them.")
    kept: list[Asked] = []
    for of in found:
        try:
            targets.check(zoo, of, of.take(train), of.take(test))
            kept.append(of)
        except TaskError as error:
            refused[of.target.name] = str(error)
    if not kept:
        raise TaskError(" ".join(refused.values()))
    told = {a.target.name: targets.telling(population.zoo, a.target.name) for a in kept}
    side_of = functools.partial(population.part, kept, population.zoo.axes, told)
    elsewhere = {}
    if axis is not None and level_of is not None:
        everywhere = rows["test"]
        for level in sorted(set(level_of[everywhere].tolist()) - {own}):
            elsewhere[f"{axis}={level}"] = side_of(everywhere[level_of[everywhere] == level])
    of_other = functools.partial(_of_other, kept, population.zoo, told, every)
    beside: list[tuple[Zoo, Callable[[Zoo], set[str]]]] = [
        (prefix(o, limit), lambda o: _unlearned(o, zoo, chosen)) for o in others
    ]
    beside += [(o, lambda o: set(o.models["model_id"].to_pylist())) for o in fresh]
    for other, models in beside:
        try:
            elsewhere |= of_other(other, models(other))
        except GridError as error:  # too few to have sides of their own
            refused[other.name] = f"{other.name}: {error}"
        except TaskError as error:
            refused[other.name] = str(error)
    classes = {a.target.name: a.levels for a in kept if a.target.classes}
    return Problem(
        zoo.name, split_files.zoo_digest(zoo), chosen, split, classes, side_of(train), side_of(rows["validation"]),
        side_of(test), elsewhere, refused, own_limit, networks,
    )  # fmt: skip


def prefix(zoo: Zoo, limit: int | None) -> Zoo:
    """The first models by plan order, with all their snapshots."""
    if limit is None or limit >= zoo.manifest.counts.n_models:
        return zoo
    if limit < 1:
        raise TaskError(f"{limit} models of {zoo.name} are none; the least is 1.")
    ids = zoo.models["model_id"].to_pylist()
    if _has(zoo, "plan_index"):  # the table itself is in order of splits
        ids = [ids[i] for i in np.argsort(zoo.models["plan_index"].to_numpy(), kind="stable")]
    first = set(ids[:limit])
    return zoo.take(np.flatnonzero([i in first for i in zoo.column("model_id").to_pylist()]))


def describe(found: Problem) -> dict[str, Any]:
    """What a result file says of the tasks."""
    return {
        "zoo": found.zoo, "zoo_digest": found.zoo_digest, "split": found.split_name, "split_digest": found.split.digest,
        "version": VERSION, "limit": found.limit, "networks": found.networks, "targets": [t.name for t in found.train.targets.of],
        "n": {s: len(getattr(found, s)) for s in SPLITS},
        "groups": {s: len(set(getattr(found, s).groups.tolist())) for s in SPLITS},
    }  # fmt: skip


def asked(found: Problem, target: Target, where: str = "") -> dict[str, Any]:
    """One task in words: population and filter, target, split and what is asked, by name and digest."""
    part = found.tests[where]
    return {
        "population": {"zoo": found.zoo, "digest": found.zoo_digest, "limit": found.limit},
        "filter": "every snapshot" if target.name == "progress" else "the last snapshot of each network",
        "left_out": "networks with a weight that is not finite, and those whose target is null",
        "target": target.name, "kind": "class" if target.classes else "number", "classes": target.classes or None,
        "split": {"name": found.split_name, "digest": found.split.digest, "rule": found.split.rule},
        "learned_from": {"networks": len(found.train), "validation": len(found.validation)},
        "asked_of": {"zoo": part.zoo, "networks": len(part), "digest": part.digest},
        "version": VERSION,
    }  # fmt: skip


# ── population ────────────────────────────────────────────────────────────────────────


class _Population:
    """The networks of a zoo's tasks, in an order of their own: last snapshots (or all), with finite weights."""

    def __init__(self, zoo: Zoo, every: bool) -> None:
        chosen = zoo if every else zoo.final()
        finite = np.array([np.isfinite(w).all() for w in _vectors(chosen)], bool)
        order = np.random.default_rng(int(split_files.zoo_digest(zoo)[:16], 16)).permutation(np.flatnonzero(finite))
        self.zoo = chosen.take(order)
        self.ids: list[str] = self.zoo.column("model_id").to_pylist()
        self.keys = split_files.group_keys(zoo)

    def sides(self, split: Split) -> dict[str, np.ndarray]:
        """Side → rows."""
        side = np.array([split.assignment.get(i, "") for i in self.ids], object)
        return {s: np.flatnonzero(side == s) for s in SPLITS}

    def part(
        self, found: Sequence[Asked], axes: Mapping[str, Any], told: Mapping[str, tuple[str, ...]], rows: np.ndarray
    ) -> Part:
        """Those rows; `axes` are what the recipe varied where it is learned, `told` those that give a target away there."""
        part = self.zoo.take(rows)
        names = list(dict.fromkeys(part.column("architecture_id").to_pylist()))
        built = tuple(self.zoo.manifest.architecture(str(n), "a network of the task").built() for n in names)
        numbers = np.array([names.index(i) for i in part.column("architecture_id").to_pylist()], np.int64)
        tested = np.stack([targets.tested(part, a.target.name) for a in found], axis=1)
        varied = {a: part.column(a) if _has(part, a) else pa.nulls(len(part)) for a in axes}
        recipe = pa.table(varied or {"": pa.nulls(len(part))})  # a table of no columns has no rows either
        seen = [c for c in TRAINING if _has(part, c)]
        training = pa.table({c: part.column(c) for c in seen}) if seen else None
        points = np.array([streams.canonical_json(r) for r in recipe.to_pylist()] or [""] * len(part), object)
        return Part(
            self.zoo.name,
            View(built, numbers, _vectors(part), recipe, functools.partial(shown, self.zoo), training, told),
            Targets(tuple(a.target for a in found), np.stack([a.take(rows) for a in found], axis=1)),
            tuple(self.ids[int(i)] for i in rows),
            np.array([self.keys[self.ids[int(i)]] for i in rows], object).astype(str),
            tested,
            _trained(part, [built[i] for i in numbers]),
            points.astype(str),
        )


def _trained(part: Zoo, architectures: Sequence[Architecture]) -> np.ndarray:
    """(n,) bool: did not diverge, and accuracy above chance by more than its error where one is stored.

    A network that diverged is here by its last snapshot that was finite, whose accuracy may be any.
    """
    stayed = np.ones(len(part), bool)
    if _has(part, "diverged_step"):
        stayed = np.array([s is None for s in part.column("diverged_step").to_pylist()], bool)
    if not _has(part, "test_accuracy"):
        return stayed
    accuracy = floats_of(part.column("test_accuracy"))
    chance = _chance(part, architectures)
    error = np.nan_to_num(np.sqrt(chance * (1 - chance) / targets.tested(part, "test_accuracy")[:, 1]))
    return np.asarray(stayed & ~(accuracy <= chance + ERRORS_ABOVE_CHANCE * error))


def _chance(part: Zoo, architectures: Sequence[Architecture]) -> np.ndarray:
    """What a network that learned nothing scores (n,): the share of the commonest class of the test images, or of a machine,
    whose outputs are values, the best that one of its networks is before its first update; 0 where none was measured then.
    """
    found = np.array([1.0 / max(2, a.n_outputs) for a in architectures])
    counts = part.column("test_count_per_class").to_pylist() if _has(part, "test_count_per_class") else []
    machines = part.column("machine").to_pylist() if _has(part, "machine") else [None] * len(part)
    start: dict[Any, float] = {}
    if any(m is not None for m in machines):
        first = part.whole.select(step=0)
        of, scores = (first.column(c).to_pylist() for c in ("machine", "test_accuracy"))
        parents = first.column("parent_id").to_pylist() if _has(part, "parent_id") else [None] * len(of)
        for machine, score, parent in zip(of, scores, parents, strict=True):
            if parent is None:  # of a child it is what its parent had learned
                start[machine] = max(start.get(machine, 0.0), score or 0.0)
    for i, machine in enumerate(machines):
        if machine is not None:
            found[i] = start.get(machine, 0.0)
        elif counts and counts[i] and sum(counts[i]):
            found[i] = max(found[i], max(counts[i]) / sum(counts[i]))
    return found


def _vectors(zoo: Zoo, at_once: int = 1024) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for start in range(0, len(zoo), at_once):
        found.extend(np.asarray(v) for v in zoo.weights[slice(start, min(start + at_once, len(zoo)))])
    return found


def _has(zoo: Zoo, column: str) -> bool:
    return targets.has(zoo, column)


def _asked(
    zoo: Zoo, names: Sequence[str], like: Mapping[str, Asked] | None = None
) -> tuple[list[Asked], dict[str, str]]:
    found, refused = [], {}
    for name in names:
        try:
            found.append(targets.asked(zoo, name, (like or {}).get(name)))
        except ZooError as error:  # what a gap is made of may be missing too
            refused[name] = str(error)
    return found, refused


def _unlearned(zoo: Zoo, home: Zoo, split: Split) -> set[str]:
    """The models of another zoo that are asked about: what shares no group with what is learned from, of its test side.

    Of a zoo that was built to be asked alone (all of its own split is test), of all its models. Where a level is held out, groups on
    the other zoo's test side may be learned from here.
    """
    keys = split_files.group_keys(home, zoo)
    learned = {keys[i] for i, side in split.assignment.items() if side in ("train", "validation")}
    models = zoo.models["model_id"].to_pylist()
    if not asked_alone(zoo):
        own = split_files.by_group(zoo, fractions=task_splits.SHARES, name="iid").assignment
        models = [i for i in models if own[i] == "test"]
    return {i for i in models if keys[i] not in learned}


def asked_alone(zoo: Zoo) -> bool:
    """Whether a zoo was built to be asked, and never learned from: all of its own split is test."""
    return set(zoo.models["split"].to_pylist()) == {"test"}


def _of_other(
    kept: Sequence[Asked], home: Zoo, told: Mapping[str, tuple[str, ...]], every: bool, zoo: Zoo, models: set[str]
) -> dict[str, Part]:
    """Those models of another zoo, and each combination of levels of what it alone varies, or each level where there are too
    many; a target that it lacks is unknown of all. Raises TaskError where there is no network of them with finite weights."""
    population = _Population(zoo, every)
    found, _ = _asked(population.zoo, [a.target.name for a in kept], {a.target.name: a for a in kept})
    by_name = {a.target.name: a for a in found}
    nothing = np.full(len(population.zoo), np.nan)
    same = [by_name.get(a.target.name, dataclasses.replace(a, values=nothing)) for a in kept]
    rows = np.flatnonzero([i in models for i in population.ids])
    if not len(rows):
        raise TaskError(
            f"No network of {zoo.name} is asked about: those of its test side share initializations or lineages with networks that "
            "are learned from, or have weights that are not finite."
        )
    part = population.part(same, home.axes, told, rows)
    alone = {}
    for axis in (a for a in zoo.axes if a not in home.axes and _has(zoo, a)):
        of = [f"{axis}={task_splits.label(v)}" for v in population.zoo.take(rows).column(axis).to_pylist()]
        each = Counter(of)
        if 1 < len(each) <= task_splits.MOST_LEVELS and min(each.values()) > 1:  # not what was drawn for each network
            alone[axis] = of
    cells = [",".join(cell) for cell in zip(*alone.values(), strict=True)]
    parts = {zoo.name: part}
    for of in [cells] if len(set(cells)) <= task_splits.MOST_LEVELS else alone.values():
        parts |= {f"{zoo.name}/{c}": part.take(np.flatnonzero(np.array(of, object) == c)) for c in sorted(set(of))}
    return parts


# ── labelled inputs ───────────────────────────────────────────────────────────────────


def shown(zoo: Zoo) -> Labelled:
    """Inputs of a zoo's source as its networks take them, with labels, which none of them learned from.

    Of the validation part, where it has enough for the control `images`, so that accuracy was not measured on them;
    else of the test part. Raises ZooError where networks learned from several sources or number classes of their own.
    """
    sources = sorted(set(zoo.models["source_sha256"].to_pylist()))
    if len(sources) != 1:
        raise TaskError(
            f"The networks of {zoo.name} learned from {len(sources)} sources; the control shows inputs of one."
        )
    models = zoo.models["model_id"].to_pylist()
    row = zoo.row(models[0])
    if subset_of(row).relabel:
        raise TaskError(f"The networks of {zoo.name} number classes of their own, so that no label suits them all.")
    source = zoo.source(models[0])
    if source.output_steps is not None:
        raise TaskError(
            f"The networks of {zoo.name} learned what is right at each step of a sequence, so that inputs have no labels."
        )
    part = "validation" if len(source.validation.labels) >= MOST_SHOWN else "test"
    found = measured(source, part, type(subset_of(row))(), zoo.architecture(models[0]).built().n_outputs)
    return found.first(MOST_SHOWN)


MOST_SHOWN = 128  # of which an accuracy of .7 is known to .04
