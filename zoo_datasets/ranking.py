"""Result cells → rows, best first, with intervals, ceilings and what they add to their controls.

In:  a `tasks.Problem` and the cells of its baselines, ours or others'. Out: `Row`s.

Intervals resample groups of test networks (`intervals`), with the trained baseline as given; the spread over seeds stands
beside them and is never pooled, and the mean of several seeds is a reader of its own. Of a held-out level, or of networks of
another source, the unit that a reader asks about is the level or the source: of one there is no interval, and the table says
so. The *ceiling* is what an oracle that knows the true accuracy would reach, given how many images the stored one was
measured on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals, metrics
from zoo_datasets.baselines.interface import Target
from zoo_datasets.baselines.known import is_control
from zoo_datasets.core.score_sums import least_spread
from zoo_datasets.intervals import Interval
from zoo_datasets.solving import Cell, together
from zoo_datasets.tasks import Problem

# What ranks a table comes first. Those of MORE are shown where they are defined.
SHOWN = {"number": ("r2", "kendall", "mae"), "class": ("balanced_accuracy", "accuracy")}
MORE = {"number": ("kendall_trained", "kendall_within", "spearman"), "class": ("auc",)}
WORDS = {
    "r2": "R²", "kendall": "τ", "mae": "MAE", "kendall_trained": "τ, trained alone", "kendall_within": "τ, equal recipe",
    "spearman": "ρ", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy", "auc": "AUC",
}  # fmt: skip
MEANS = ("mae", "accuracy")  # over groups, of which their intervals are, not over examples
RECIPE = ("metadata", "metadata-ridge")  # what the weights must add to: the one that validation likes better
STATISTICS = (
    "statistics",
    "statistics-eilertsen",
    "statistics-ridge",
)  # what readers of the weights themselves must add to
LEVEL = 0.95  # of bounds; of all leads of a table together
ORACLES = 20  # measurements of the true accuracy that a ceiling averages over
STRATA = 10  # by what the recipe alone foretells, where no two networks have the same recipe
SEVERAL = 3  # seeds whose mean is a row of its own
MOST_LOSS = 1e300  # what a file of others may call one; whole numbers of JSON have no end
FEWEST = 20  # trained networks that an order is worth being told of


@dataclasses.dataclass(frozen=True)
class Row:
    """A baseline on a task: each metric's interval at the median seed, its spread over seeds, and against the best.

    Of the mean of several seeds the interval is its own, the spread that of the seeds it is made of, and the cost theirs together.
    """

    task: str
    baseline: str
    scores: Mapping[str, Interval]
    spread: Mapping[str, tuple[float, float]]  # least and most over seeds
    seeds: int
    cpu_s: float
    parameters: int
    # Whether the lead of the best reader of weights leaves out 0, and no seed reaches one of its; None for itself and for controls that
    # score higher, and where nothing can be said (`unsaid`).
    separable: bool | None
    gains: Mapping[str, Interval] = dataclasses.field(
        default_factory=dict
    )  # metric → over `control` on the same groups
    null: Mapping[str, tuple[float, float, int]] | None = None  # after shuffled targets: 2.5 %, 97.5 %, and how many
    control: str | None = None  # of RECIPE
    left: Interval | None = None  # its squared error / that of `control`: what it leaves of what the recipe leaves
    left_by_seed: tuple[float, float] = (math.nan, math.nan)
    reference: str | None = None  # of STATISTICS
    beyond: Mapping[str, Interval] = dataclasses.field(
        default_factory=dict
    )  # metric → over `reference` on the same groups
    error: str | None = None
    unsaid: str = ""  # why nothing is said of the lead over this row


# ── scoring ───────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class _Question:
    """A target asked of a part: what is right, and what scores need to know beside it."""

    target: Target
    y: np.ndarray
    keep: np.ndarray  # rows of the part whose value is known
    groups: np.ndarray
    trained: np.ndarray
    strata: np.ndarray
    middle: float | None  # what R² is against: the mean of the training targets, or (None) of those asked about
    tenths: bool = False  # whether strata are of what the recipe foretells

    @property
    def kind(self) -> str:
        return "class" if self.target.classes else "number"

    def of(self, cell: Cell) -> np.ndarray:
        return np.asarray(cell.predictions[self.keep])

    def value(self, metric: str, given: np.ndarray) -> float:
        """A score of predictions as `of` gives them; NaN where it is not defined."""
        given = self._as(metric, given)
        if metric == "spearman":
            return metrics.spearman(self.y, given)
        if metric == "kendall_trained":
            enough = self.trained.sum() >= FEWEST and not self.trained.all()
            return metrics.kendall(self.y[self.trained], given[self.trained]) if enough else math.nan
        if metric == "kendall_within":
            return _within(self.y, given, self.strata)
        if metric == "auc" and self.target.classes != 2:
            return math.nan
        if metric in MEANS:
            return intervals.score(metric, self.y, given, self.groups).value
        return metrics.SCORES[metric](self.y, given, **self._options(metric))

    def interval(self, metric: str, given: np.ndarray) -> Interval:
        value, given = self.value(metric, given), self._as(metric, given)
        if math.isnan(value):
            return _without(metric, value, len(self.y))
        if metric == "spearman":
            return _of_an_order(intervals.deleted(metrics.spearman, (self.y, given), self.groups, of=metric))
        if metric == "kendall_trained":
            rows = self.trained
            return intervals.score("kendall", self.y[rows], given[rows], self.groups[rows])
        if metric == "kendall_within":
            return _of_an_order(intervals.deleted(_within, (self.y, given, self.strata), self.groups, of=metric))
        return intervals.score(metric, self.y, given, self.groups, **self._options(metric))

    def lead(self, metric: str, first: np.ndarray, second: np.ndarray, level: float = LEVEL) -> Interval:
        """How much better `second` is on the same groups."""
        a, b = self._as(metric, first), self._as(metric, second)
        n = max(intervals.RESAMPLES, intervals.least_resamples(level))
        return intervals.contrast(metric, self.y, a, b, self.groups, level=level, n=n, **self._options(metric))

    def left(self, control: np.ndarray, given: np.ndarray) -> Interval:
        return left(self.y, control, given, self.groups)

    def _as(self, metric: str, given: np.ndarray) -> np.ndarray:
        if not self.target.classes:
            return given
        return given[:, 1] if metric == "auc" and self.target.classes == 2 else given.argmax(1)

    def _options(self, metric: str) -> dict[str, Any]:
        return {"baseline": self.middle} if metric == "r2" and self.middle is not None else {}


def left(y: np.ndarray, control: np.ndarray, given: np.ndarray, groups: np.ndarray) -> Interval:
    """The squared error of `given` as a share of the control's, all (n,): (1 − R²) / (1 − R² of the control). Bounds on a log scale."""

    def log_share(y: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.log(((other - y) ** 2).mean() / ((one - y) ** 2).mean()))

    found = intervals.deleted(log_share, (y, control, given), groups, of="share of squared error")
    value, low, high = (math.exp(x) for x in (found.value, found.low, found.high))
    return dataclasses.replace(found, value=value, low=low, high=high)


def _within(y: np.ndarray, given: np.ndarray, strata: np.ndarray) -> float:
    """The mean over strata of τ-b inside them; NaN where none has an order."""
    inside, _ = metrics.kendall_within(y, given, strata)
    return float(inside.mean()) if len(inside) else math.nan


def _of_an_order(found: Interval) -> Interval:
    """Bounds of a correlation: a jackknife's, of few groups, may lie beyond what there is."""
    return (
        dataclasses.replace(found, low=max(-1.0, found.low), high=min(1.0, found.high))
        if found.method != "none"
        else found
    )


def _without(metric: str, value: float, n: int) -> Interval:
    return Interval(metric, value, math.nan, math.nan, 0.95, "none", 0, n, "not estimated")


def question(found: Problem, target: Target, where: str = "", control: Cell | None = None) -> _Question:
    """What is asked. Strata are equal recipes; where there are hardly any, tenths of what `control` foretells.

    R² is against the training mean where networks are like those of training. Of another source or level that would credit
    whoever knows that it is harder, and so it is against the mean of its own networks.
    """
    part = found.tests[where]
    place = [t.name for t in found.train.targets.of].index(target.name)
    y, train = part.targets.values[:, place], found.train.targets.values[:, place]
    keep = np.flatnonzero(np.isfinite(y))
    points = part.points[keep]
    strata = np.unique(points, return_inverse=True)[1]
    tenths = bool(hardly_shared(points) and control is not None and not target.classes)
    if tenths and control is not None:
        order = np.argsort(np.argsort(control.predictions[keep], kind="stable"), kind="stable")
        strata = order * STRATA // max(1, len(keep))
    middle = None if unit_of(found, where) else float(train[np.isfinite(train)].mean())
    return _Question(target, y[keep], keep, part.groups[keep], part.trained[keep], strata, middle, tenths)


def hardly_shared(recipes: np.ndarray) -> bool:
    """Whether most networks (n,) share their recipe with nobody."""
    _, label = np.unique(recipes, return_inverse=True)
    return bool(len(label) and (np.bincount(label)[label] > 1).mean() < 0.5)


def rows(
    found: Problem, cells: Iterable[Cell], target: Target, where: str = "", nulls: Mapping[str, Any] | None = None
) -> list[Row]:
    """The table of one task, best first; what failed comes last. `nulls` are those of `nulls.read`."""
    task = found.name_of(target.name, where)
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.task == task:
            by_name.setdefault(cell.baseline, []).append(cell)
    good = {n: of for n, of in by_name.items() if not any(c.error for c in of)}
    # What draws nothing says the same by every seed, and its mean is no other reader.
    many = [
        of for of in good.values() if len(of) >= SEVERAL and (np.ptp([c.predictions for c in of], axis=0) > 0).any()
    ]
    whole = {(cell := together(of)).baseline: (cell, of) for of in many}
    recipe = control_of(good)
    asked = question(found, target, where, good[recipe][0] if recipe else None)
    failed = [
        Row(task, n, {}, {}, len(of), 0.0, 0, None, error=next(c.error for c in of if c.error))
        for n, of in by_name.items()
        if n not in good
    ]
    if len(asked.y) < 2:
        none = "fewer than two networks that are asked about have a value"
        return failed + [Row(task, n, {}, {}, len(of), 0.0, 0, None, error=none) for n, of in good.items()]
    first, *others = SHOWN[asked.kind][:2]
    done = [_row(task, name, of, asked, nulls or {}) for name, of in good.items()]
    done += [_row(task, name, of, asked, {}, cell) for name, (cell, of) in whole.items()]
    seeds_of = good | {name: of for name, (_, of) in whole.items()}
    done.sort(key=lambda pair: -or_last(pair[0].scores[first].value))
    control = next((given for row, given in done if row.baseline == recipe), None)
    reference = _least_loss(good, STATISTICS)
    known = {row.baseline: given for row, given in done}
    best = first_of([row for row, _ in done])
    level = level_of_leads(sum(not is_control(row.baseline) for row, _ in done), len(done))
    ranked = []
    for i, (row, given) in enumerate(done):
        lead = asked.lead(first, given, done[best][1], level) if i > best else None
        reached = _most(row, first) >= done[best][0].spread[first][0]  # one seed by another of the first
        separable, unsaid = None, ""
        if lead is not None and (given == done[best][1]).all():  # whose lead has no bounds, and none is needed
            separable = False
        elif lead is not None and lead.method == "none":
            unsaid = lead.note
        elif lead is not None:
            separable = bool(lead.low > 0) and not reached
        row = dataclasses.replace(row, separable=separable, unsaid=unsaid, control=recipe)
        if control is not None and row.baseline != recipe:
            row = _with_gain(row, asked, control, [asked.of(c) for c in seeds_of[row.baseline]], given)
        if reference is not None and not is_control(row.baseline) and row.baseline not in STATISTICS:
            beyond = {m: asked.lead(m, known[reference], given) for m in (first, *others) if m in intervals.CONTRASTED}
            row = dataclasses.replace(row, reference=reference, beyond=beyond)
        ranked.append(row)
    return ranked + failed


def level_of_leads(readers: int, rows: int) -> float:
    """The level of each lead of the best of so many readers of weights over the other rows, so that all together hold `LEVEL`.

    The best is so on these very networks: any reader might have been, and any lead of any is held to its share of the error
    (Bonferroni), of two readers on either side, of a reader and a control on one.
    """
    candidates = readers or rows
    return 1.0 - (1.0 - LEVEL) / max(1.0, candidates * (rows - 1) / 2)


def _with_gain(
    row: Row, asked: _Question, control: np.ndarray, several: Sequence[np.ndarray], given: np.ndarray
) -> Row:
    """What a row adds to the recipe, and of a number what it leaves of what that leaves: of its median seed, and by seed."""
    shown = SHOWN[asked.kind][:2]
    gains = {m: asked.lead(m, control, given) for m in shown if m in intervals.CONTRASTED}
    if asked.target.classes:
        return dataclasses.replace(row, gains=gains)
    shares = [asked.left(control, p).value for p in several] if len(several) > 1 else []
    left = asked.left(control, given)
    by_seed = (min(shares), max(shares)) if shares else (left.value, left.value)
    return dataclasses.replace(row, gains=gains, left=left, left_by_seed=by_seed)


def first_of(table: Sequence[Row]) -> int:
    """The place of the best reader of weights among rows, best first; 0 where there are controls alone."""
    return next((i for i, row in enumerate(table) if not is_control(row.baseline)), 0)


def control_of(cells: Mapping[str, Sequence[Cell]]) -> str | None:
    """Of those that know the recipe alone, by name, the one with the least loss on validation; None where there is none."""
    return _least_loss(cells, RECIPE)


def _least_loss(cells: Mapping[str, Sequence[Cell]], names: Sequence[str]) -> str | None:
    losses = {name: _validation_loss(cells[name][0]) for name in names if name in cells}
    return min(losses, key=losses.__getitem__) if losses else None


def _validation_loss(cell: Cell) -> float:
    """Of what was chosen; infinite where a file of others does not say, or says no number."""
    tried = cell.chosen.get("tried") if isinstance(cell.chosen, Mapping) else None
    said = (
        [t.get("validation_loss") for t in tried if isinstance(t, Mapping)] if isinstance(tried, list | tuple) else []
    )
    numbers = [float(x) for x in said if isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < MOST_LOSS]
    return min(numbers, default=math.inf)


def _most(row: Row, metric: str) -> float:
    return max(row.spread[metric][1], row.scores[metric].value)


def _row(
    task: str, name: str, several: Sequence[Cell], asked: _Question, nulls: Mapping[str, Any], whole: Cell | None = None
) -> tuple[Row, np.ndarray]:
    """A row without its place, and its predictions: those of the median seed, or of `whole`, which is what the seeds say together."""
    shown = (*SHOWN[asked.kind], *MORE[asked.kind])
    given = [asked.of(c) for c in several]
    values = {m: [asked.value(m, p) for p in given] for m in shown}
    own = given[int(np.argsort(values[shown[0]])[(len(given) - 1) // 2])] if whole is None else asked.of(whole)
    scores = {m: asked.interval(m, own) for m in shown}
    finite = {m: [x for x in v if math.isfinite(x)] or [math.nan] for m, v in values.items()}
    spread = {m: (min(v), max(v)) for m, v in finite.items()}
    null = nulls.get(name, {}).get(task)
    known = {m: [x for x in v if math.isfinite(x)] for m, v in (null or {}).items()}  # a shuffle that failed is NaN
    bounds = {m: (*np.quantile(v, [0.025, 0.975]).tolist(), len(v)) for m, v in known.items() if v} or None
    cost = float(np.mean([c.cpu_s for c in several])) if whole is None else whole.cpu_s
    parameters = (whole or several[0]).parameters
    return Row(task, name, scores, spread, len(several), cost, parameters, None, {}, bounds), own


def or_last(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def ceiling(found: Problem, target: Target, where: str = "") -> dict[str, float]:
    """What an oracle that knows the true value reaches in `r2` and `kendall`; empty where nothing says how it was measured.

    Of R² it is 1 − the variance of measuring p on n images, p (1 − p) / (n − 1), over that of the targets. Of τ it is what measuring
    again would reach, mean of `ORACLES` draws: the stored accuracy stands for the true one, which sets networks too far apart, and
    each gets images of its own, which disorders them more than the same images for all. It is about right, and no bound. Of networks
    that answer at every step nothing is said: steps of a sequence go together, and are not so many images.
    """
    part = found.tests[where]
    if any(a.n_logits != a.n_outputs for a in part.view.architectures):
        return {}
    asked = question(found, target, where)
    rate, images = np.moveaxis(part.tested[asked.keep, [t.name for t in part.targets.of].index(target.name)], -1, 0)
    if not len(rate) or not np.isfinite(rate).all():
        return {}
    middle = asked.y.mean() if asked.middle is None else asked.middle
    noise = (rate * (1 - rate) / np.maximum(images - 1, 1)).mean()
    true, sign = asked.y, -1.0 if target.name == "generalization_gap" else 1.0
    generator = np.random.default_rng(int(part.digest[:16], 16))
    counts = images.astype(np.int64)
    measured = [true + sign * (generator.binomial(counts, rate) / counts - rate) for _ in range(ORACLES)]
    order = [dataclasses.replace(asked, y=seen).value("kendall", true) for seen in measured]
    spread = ((asked.y - middle) ** 2).sum()
    if spread <= least_spread(asked.y) or not np.isfinite(order).all():  # all alike: there is nothing to foretell
        return {}
    return {"r2": float(1 - noise * len(true) / spread), "kendall": float(np.mean(order))}


def unit_of(found: Problem, where: str) -> str:
    """What a reader would want an interval over, where it is not the networks of this population."""
    if where and found.elsewhere[where].zoo.startswith(f"{found.zoo}-fresh-"):
        return ""  # the same recipe, and networks like those of the test side
    if where and where == found.elsewhere[where].zoo:
        return "source"
    return "level" if where or found.split.rule.get("maker") == "held_out" else ""


def over_units(tables: Mapping[str, Sequence[Row]], metric: str) -> dict[str, Interval]:
    """Baseline → the mean of a metric over held-out levels or sources, the unit being the level or source.

    `tables` are the rows of each unit; of fewer than five units there are no bounds.
    """
    found: dict[str, dict[str, float]] = {}
    for unit, table in tables.items():
        for row in table:
            if metric in row.scores and math.isfinite(row.scores[metric].value):
                found.setdefault(row.baseline, {})[unit] = row.scores[metric].value
    return {
        name: intervals.mean(np.array(list(of.values())), np.array(list(of)))
        for name, of in found.items()
        if len(of) == len(tables)
    }
