"""What is read of networks, and by which solver: the detectors of backdoors, each `fit` and `score` alike.

In:  networks to learn from and to choose by, each clean or trojaned. Out: of any networks a score, larger where a backdoor is likelier.

`cheap` ones take seconds for thousands of networks and answer every question of the study; the others run the networks themselves. A
`control` sees no weights: what the recipe says, or what a test of clean images shows. A detector that finds no more than its controls
has found nothing about weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo_datasets.analysis.backdoors import reads
from zoo_datasets.analysis.backdoors.linear import TARGET, Boosted, Logistic, OutlierClass
from zoo_datasets.analysis.backdoors.population import Population
from zoo_datasets.baselines import saved
from zoo_datasets.baselines.groups import finite
from zoo_datasets.baselines.interface import Baseline, Targets
from zoo_datasets.baselines.tabular import Tabular
from zoo_datasets.errors import ZooError, unknown


@dataclasses.dataclass(frozen=True)
class Kind:
    """A detector before it has learned."""

    name: str
    reads: str
    make: Callable[[], Baseline]
    control: bool = False
    cheap: bool = True
    one_layout: bool = False  # reads weights place by place
    needs_starts: bool = False


def _probes(name: str) -> Callable[[], Baseline]:
    """A solver of PyTorch's, which is imported when it is made."""

    def make() -> Baseline:
        made: Baseline = getattr(importlib.import_module("zoo_datasets.baselines.queries"), name)()
        return made

    return make


def _linear(name: str, reading: str, **options: Any) -> Kind:
    return Kind(name, reading, lambda: Logistic(name, "weights"), one_layout=True, **options)


KINDS = (
    Kind("statistics, logistic", "weights", lambda: Logistic("statistics, logistic", "statistics")),
    Kind("statistics, boosting", "weights", lambda: Boosted("statistics, boosting")),
    Kind("outlying class, weights", "weights", lambda: OutlierClass("outlying class, weights", "weights")),
    Kind("outlying class, bias", "weights", lambda: OutlierClass("outlying class, bias", "bias")),
    _linear("linear on weights", "weights"),
    _linear("linear on aligned weights", "aligned"),
    _linear("linear on sorted weights", "sorted"),
    _linear("linear on final - initial", "change", needs_starts=True),
    Kind("first updates", "trajectory", lambda: Logistic("first updates", "table"), needs_starts=True),
    Kind("MNTD", "weights", _probes("mntd"), cheap=False),
    Kind("ULP", "weights", _probes("ulp"), cheap=False),
    Kind("queries not tuned", "weights", _probes("untuned"), cheap=False),
    Kind("recipe", "recipe", lambda: Tabular("recipe", "recipe", "boosting"), control=True),
    Kind("test loss and accuracy", "loss", lambda: Tabular("test loss and accuracy", "recipe", "boosting"), control=True),
    Kind("clean accuracy", "accuracy", lambda: Logistic("clean accuracy", "table"), control=True),
    Kind("accuracy by class", "classes", lambda: Logistic("accuracy by class", "table"), control=True),
    Kind("all but weights", "all but weights", lambda: Tabular("all but weights", "recipe", "boosting"), control=True),
)  # fmt: skip
CHEAP = tuple(k.name for k in KINDS if k.cheap)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a study that asks detectors."""
    parser.add_argument(
        "--detectors", metavar="NAMES",
        help=f"some of these, by commas, or `all` (default: those that are cheap): {', '.join(slug(k.name) for k in KINDS)}",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DIR", help="folder of local sources (default: $ZOO_DATA)")
    parser.add_argument("--no-pictures", action="store_true", help="numbers and tables alone")


def named(names: str | None) -> list[Kind]:
    """The kinds of that list, by commas; the cheap ones for None, all for `all`. Raises ZooError."""
    known = {slug(k.name): k for k in KINDS}
    if names is None:
        return [k for k in KINDS if k.cheap]
    if names.strip() == "all":
        return list(KINDS)
    asked = [slug(n.strip()) for n in names.split(",")]
    for name in asked:
        if name not in known:
            raise ZooError(unknown("detector", name, known, "--detectors"))
    return [known[n] for n in dict.fromkeys(asked)]


def suits(kind: Kind, p: Population) -> bool:
    """Whether there is an answer about these networks together: what reads weights place by place has none of two layouts."""
    return not kind.one_layout or len({a.layout_id for a in p.architectures}) == 1


def able(kinds: Sequence[Kind], p: Population, asked: bool) -> tuple[list[Kind], dict[str, str]]:
    """The kinds that these networks have enough for, and why the others are left out. Raises ZooError for one that was asked for."""
    found, lacking = [], {}
    for kind in kinds:
        try:
            if kind.needs_starts:
                reads.check_starts(kind.reads, p)
            found.append(kind)
        except ZooError as error:
            if asked:
                raise
            lacking[kind.name] = str(error)
    return found, lacking


def slug(name: str) -> str:
    """A name as a file's and a command line's: `linear-on-final-initial`."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


@dataclasses.dataclass
class Detector:
    """A detector that has learned. Its fields are arrays, texts and a solver, so that `baselines.saved` can keep it."""

    name: str
    reads: str
    solver: Any  # a `Baseline`
    reference: np.ndarray | None = None  # (P,) float32: the network that others are aligned to
    steps: tuple[int, ...] = ()  # of the snapshots that a trajectory is read from

    def score(self, networks: Population) -> np.ndarray:
        """(n,) float64 log odds, larger where a backdoor is likelier. Raises ZooError for networks of another kind."""
        if not len(networks):
            return np.zeros(0)
        view = reads.view(self.reads, networks, self.reference)
        if self.reads == "trajectory" and networks.steps[0] != self.steps:
            raise ZooError(
                f"The networks keep snapshots at steps {reads.listed(networks.steps[0])} before the last, and this detector learned "
                f"from those at steps {reads.listed(self.steps)}. Build the zoo with that schedule, or take a detector that reads "
                "the last weights."
            )
        chance = np.clip(np.asarray(self.solver.predict(view)[TARGET.name], np.float64)[:, 1], 1e-15, 1 - 1e-15)
        return np.log(chance) - np.log1p(-chance)

    def rebuild(self) -> None:
        """Take up what was read from a file. Raises ValueError, TypeError where it is none."""
        saved.check(self)
        if self.reads not in reads.READS or (self.reads == "aligned") != (self.reference is not None):
            raise ValueError(f"it does not know how it reads {self.reads!r}")
        if (self.reads == "trajectory") != (len(self.steps) > 0):
            raise ValueError(f"it reads {self.reads}, and has {len(self.steps)} steps")
        if hasattr(self.solver, "rebuild"):
            self.solver.rebuild()


def fit(
    kind: Kind, train: Population, validation: Population, seed: int, y: Sequence[np.ndarray] | None = None
) -> Detector:
    """A detector of that kind, from networks of both kinds; `y` in place of who is trojaned, of training and validation.

    Raises ZooError where one kind is missing, or the networks lack what it reads.
    """
    labels = [s.trojaned for s in (train, validation)] if y is None else list(y)
    for what, side in (("learn from", train), ("choose by", validation)):
        if not len(side):
            raise ZooError(f"The detector {kind.name!r} has no network to {what}; the zoo's splits leave none.")
    if len(np.unique(labels[0])) < 2:
        raise ZooError(
            f"The detector {kind.name!r} learns from clean networks and trojaned ones; the {len(train):,} training networks are "
            f"all {'trojaned' if labels[0][0] else 'clean'}."
        )
    reference = finite(train.weights[0]).copy() if kind.reads == "aligned" else None
    solver = kind.make()
    views = [
        (reads.view(kind.reads, side, reference), Targets((TARGET,), np.asarray(values, np.float64)[:, None]))
        for side, values in zip((train, validation), labels, strict=True)
    ]
    solver.fit(views[0], views[1], seed)
    steps = tuple(train.steps[0]) if kind.reads == "trajectory" else ()
    return Detector(kind.name, kind.reads, solver, reference, steps)
