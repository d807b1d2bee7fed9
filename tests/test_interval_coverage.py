"""How often intervals hold the truth, by simulation: nominal 95 % at 5, 10, 20 and 40 groups, skewed ones too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

from zoo_datasets import intervals, ranking
from zoo_datasets.intervals import Interval

pytestmark = pytest.mark.slow

GROUPS = (5, 10, 20, 40)
RHO = 0.5  # of the variance, what a group's members share

Simulation = Callable[[np.random.Generator, int], tuple[Interval, float]]


def normal_mean(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    group = np.repeat(np.arange(n_groups), 2)
    return intervals.mean(rng.normal(size=n_groups)[group] + 0.5 * rng.normal(size=2 * n_groups), group), 0.0


def uneven_mean(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """Groups of one to eight members, the large ones elsewhere: the mean of groups is asked for."""
    size = 1 + rng.integers(0, 8, n_groups)
    group = np.repeat(np.arange(n_groups), size)
    shared = rng.normal(size=n_groups) + 0.2 * (size - 4.5)
    return intervals.mean(shared[group] + 0.5 * rng.normal(size=len(group)), group), 0.0


def skewed_mean(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    return intervals.mean(rng.lognormal(size=n_groups), np.arange(n_groups), skewed=True), float(np.exp(0.5))


def skewed_mean_by_t(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    return intervals.mean(rng.lognormal(size=n_groups), np.arange(n_groups)), float(np.exp(0.5))


def heavy_mean(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    return intervals.mean(rng.standard_t(3, n_groups), np.arange(n_groups)), 0.0


def rare_difference(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """One answer in fifty differs, so that in most draws of few groups none does."""
    return intervals.mean((rng.random(n_groups) < 0.02).astype(float), np.arange(n_groups), ends=(0.0, 1.0)), 0.02


def r2(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """A predictor whose errors have a third of the variance of y, both shared in groups of three."""
    group = np.repeat(np.arange(n_groups), 3)

    def shared() -> np.ndarray:
        own = rng.normal(size=len(group))
        return np.sqrt(RHO) * rng.normal(size=n_groups)[group] + np.sqrt(1 - RHO) * own

    y = shared()
    return intervals.score("r2", y, y + shared() / np.sqrt(3), group, baseline=0.0), 2 / 3


def r2_of_rare_misses(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """A tenth of networks stayed at chance, and a reader takes a third of these for trained: they make nearly all of its error."""
    failed = rng.random(n_groups) < 0.1
    y = np.where(failed, 0.1, rng.normal(0.9, 0.03, n_groups))
    missed = failed & (rng.random(n_groups) < 1 / 3)
    said = np.where(missed, 0.9, y + rng.normal(0, 0.02, n_groups))
    middle = 0.1 * 0.1 + 0.9 * 0.9
    error = 0.1 / 3 * 0.8**2 + (1 - 0.1 / 3) * 0.02**2
    variance = 0.1 * (0.1 - middle) ** 2 + 0.9 * ((0.9 - middle) ** 2 + 0.03**2)
    return intervals.score("r2", y, said, np.arange(n_groups), baseline=middle), 1 - error / variance


def _two_readers(rng: np.random.Generator, n_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets of variance 1 and two readers whose errors, half of them alike, have variances 1/2 and 1/3; groups of three."""
    group = np.repeat(np.arange(n_groups), 3)

    def shared() -> np.ndarray:
        own = rng.normal(size=len(group))
        return np.sqrt(RHO) * rng.normal(size=n_groups)[group] + np.sqrt(1 - RHO) * own

    y, alike = shared(), shared()
    first, second = (np.sqrt(0.5) * (alike + shared()) for _ in range(2))
    return y, y + np.sqrt(1 / 2) * first, y + np.sqrt(1 / 3) * second, group


def lead_r2(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    y, first, second, group = _two_readers(rng, n_groups)
    return intervals.contrast("r2", y, first, second, group, baseline=0.0, n=399), 1 / 2 - 1 / 3


def lead_kendall(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """Of bivariate normals τ is 2/π · asin ρ."""
    y, first, second, group = _two_readers(rng, n_groups)
    rho = [1 / np.sqrt(1 + v) for v in (1 / 2, 1 / 3)]
    one = np.arange(0, len(y), 3)  # one of a group: pairs inside groups have a τ of their own
    found = intervals.contrast("kendall", y[one], first[one], second[one], group[one], n=399)
    return found, float(2 / np.pi * (np.arcsin(rho[1]) - np.arcsin(rho[0])))


def lead_auc(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """Two readers near the end of the range, where a sample of few twins shows no error of one of them, or of both."""
    shared, own = np.sqrt(0.5) * rng.normal(size=n_groups), [rng.normal(size=n_groups) for _ in range(2)]
    y, group, shifts = np.repeat([0, 1], n_groups), np.tile(np.arange(n_groups), 2), (3.0, 4.0)

    def reader(shift: float) -> np.ndarray:
        other = [0.5 * (alike + rng.normal(size=n_groups)) for alike in own]
        return np.concatenate([shared + other[0], shared + other[1] + shift])

    found = intervals.contrast("auc", y, *(reader(shift) for shift in shifts), group, n=399)
    return found, float(np.diff(norm.cdf(np.array(shifts) / np.sqrt(2)))[0])


def left_of_error(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    y, first, second, group = _two_readers(rng, n_groups)
    return ranking.left(y, first, second, group), 2 / 3


def apart_r2(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """One reader, asked twice: of networks that have nothing in common."""
    once, again = (_two_readers(rng, n_groups) for _ in range(2))
    first = intervals.score("r2", once[0], once[1], once[3], baseline=0.0, n=399)
    second = intervals.score("r2", again[0], again[2], again[3], baseline=0.0, n=399)
    return intervals.apart(first, second), 1 / 2 - 1 / 3


def kendall(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """One example a group, of a bivariate normal: τ = 2/π · asin ρ."""
    x = rng.normal(size=n_groups)
    y = 0.6 * x + 0.8 * rng.normal(size=n_groups)
    return intervals.score("kendall", y, x, np.arange(n_groups)), float(2 / np.pi * np.arcsin(0.6))


def auc_of(shift: float) -> Simulation:
    def twins(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
        shared = np.sqrt(RHO) * rng.normal(size=n_groups)
        scores = [shared + np.sqrt(1 - RHO) * rng.normal(size=n_groups) + d for d in (0.0, shift)]
        y, group = np.repeat([0, 1], n_groups), np.tile(np.arange(n_groups), 2)
        return intervals.score("auc", y, np.concatenate(scores), group), float(norm.cdf(shift / np.sqrt(2)))

    return twins


def auc_of_skewed_groups(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    """Each group of one class, with three members that share a lognormal value."""
    y = np.arange(n_groups) % 2
    group = np.repeat(np.arange(n_groups), 3)
    shared = np.log(1 + rng.lognormal(size=n_groups)) + 0.8 * y
    return intervals.score("auc", y[group], shared[group] + 0.1 * rng.normal(size=len(group)), group), SKEWED_AUC


def _skewed_auc() -> float:
    rng = np.random.default_rng(0)
    a, b = (np.log(1 + rng.lognormal(size=400_000)) + 0.1 * rng.normal(size=400_000) for _ in range(2))
    return float((b + 0.8 > a).mean())


SKEWED_AUC = _skewed_auc()


def share_of(p: float) -> Simulation:
    def single(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
        return intervals.proportion(rng.random(n_groups) < p, np.arange(n_groups)), p

    return single


def clustered_share(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
    group = np.repeat(np.arange(n_groups), 5)
    return intervals.proportion(rng.random(len(group)) < rng.beta(2, 0.5, n_groups)[group], group), 0.8


def balanced_of(*shares: float) -> Simulation:
    """Groups of a member of each class, which often err together; classes are told right by so many."""

    def whole(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
        group, y = np.repeat(np.arange(n_groups), len(shares)), np.tile(np.arange(len(shares)), n_groups)
        luck = np.where(rng.random(len(y)) < RHO, rng.random(n_groups)[group], rng.random(len(y)))
        right = luck < np.asarray(shares)[y]
        said = np.where(right, y, (y + 1) % len(shares))
        return intervals.score("balanced_accuracy", y, said, group), float(np.mean(shares))

    return whole


def rare(sizes: tuple[int, ...], *shares: float, agree: float | None = None) -> Simulation:
    """Classes of so many networks. With `agree` the difference of two readers, told right by as many as two shares say,
    who follow the same luck so often."""

    def few(rng: np.random.Generator, _: int) -> tuple[Interval, float]:
        y = np.repeat(np.arange(len(sizes)), sizes)
        luck = [rng.random(len(y)) for _ in range(2)]
        if agree is None:
            said = np.where(luck[0] < np.asarray(shares)[y], y, y + 1)
            return intervals.score("balanced_accuracy", y, said, np.arange(len(y))), float(np.mean(shares))
        luck[1] = np.where(rng.random(len(y)) < agree, luck[0], luck[1])
        said, other = (np.where(own < share, y, y + 1) for own, share in zip(luck, shares, strict=True))
        return intervals.contrast("balanced_accuracy", y, said, other, np.arange(len(y))), shares[1] - shares[0]

    return few


def rare_in_groups(groups: int, members: int, alike: float, *shares: float) -> Simulation:
    """A rare class in few groups, beside a common one in forty groups of five; members of a group err together. Of two shares
    the difference of two readers."""

    def few(rng: np.random.Generator, _: int) -> tuple[Interval, float]:
        y = np.repeat([1, 0], [groups * members, 200])
        group = np.concatenate([np.repeat(np.arange(groups), members), groups + np.repeat(np.arange(40), 5)])

        def said(share: float) -> np.ndarray:
            luck = np.sqrt(alike) * rng.normal(size=groups + 40)[group] + np.sqrt(1 - alike) * rng.normal(size=len(y))
            return np.where(luck < norm.ppf(share), y, 1 - y)

        if len(shares) == 1:
            return intervals.score("balanced_accuracy", y, said(shares[0]), group), shares[0]
        first, second = map(said, shares)
        return intervals.contrast("balanced_accuracy", y, first, second, group), shares[1] - shares[0]

    return few


def eta_of(effect: float) -> Simulation:
    def triplets(rng: np.random.Generator, n_groups: int) -> tuple[Interval, float]:
        """Three levels, each once in a group that shares half of the rest: the truth is of many groups."""
        group, level = np.repeat(np.arange(n_groups), 3), np.tile(np.arange(3), n_groups)
        rest = np.sqrt(RHO) * rng.normal(size=n_groups)[group] + np.sqrt(1 - RHO) * rng.normal(size=3 * n_groups)
        between = 2 * effect**2 / 3
        return intervals.eta_squared(effect * level + rest, level, group), between / (between + 1)

    return triplets


def covered(simulation: Simulation, n_groups: int, trials: int) -> tuple[float, float]:
    """The share of intervals that hold the truth, and of those there is none for."""
    held = none = 0
    for trial in range(trials):
        found, truth = simulation(np.random.default_rng([trial, n_groups]), n_groups)
        none += found.method == "none"
        held += found.low <= truth <= found.high
    return held / max(1, trials - none), none / trials


@pytest.mark.parametrize("n_groups", GROUPS)
@pytest.mark.parametrize(
    ("simulation", "trials", "least"),
    [
        (normal_mean, 1000, 0.93),
        (uneven_mean, 1000, 0.93),
        (heavy_mean, 1000, 0.93),
        (skewed_mean, 200, 0.88),
        (skewed_mean_by_t, 1000, 0.80),  # what a lognormal does to t: `skewed=True` is for it
        (r2, 200, 0.90),
        (kendall, 200, 0.90),
        (auc_of(0.0), 200, 0.90),
        (auc_of(1.0), 200, 0.90),
        (auc_of(2.5), 200, 0.90),
        (auc_of_skewed_groups, 200, 0.90),
        (eta_of(0.3), 200, 0.86),  # few groups and a small effect: what is seen is larger than what is there
        (eta_of(1.0), 200, 0.92),
        (rare_difference, 500, 0.93),
        (share_of(0.5), 500, 0.93),
        (share_of(0.97), 500, 0.93),
        (clustered_share, 500, 0.92),
        (balanced_of(0.97, 0.97), 500, 0.92),
        (balanced_of(0.5, 0.9, 0.7), 500, 0.92),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_a_nominal_95_percent_is_about_that(simulation: Simulation, trials: int, least: float, n_groups: int) -> None:
    share, none = covered(simulation, n_groups, trials)
    print(f"{simulation.__qualname__} {n_groups} groups: {share:.3f}, none for {none:.3f}")
    if simulation is auc_of_skewed_groups and n_groups == 5:
        assert none == 1  # two groups of a class and three of the other
    else:
        assert share >= least
        assert none <= 0.01


@pytest.mark.parametrize(("n_groups", "least"), [(40, 0.3), (200, 0.88), (400, 0.88)])
def test_an_r2_whose_error_few_networks_make_is_covered_from_some_hundred_on(n_groups: int, least: float) -> None:
    """Of forty there may be one such network, or none: nothing knows of what it has not seen."""
    share, none = covered(r2_of_rare_misses, n_groups, 100)
    print(f"{n_groups} groups: {share:.3f}, none for {none:.3f}")
    assert share >= least
    assert share < 0.8 or n_groups > 40  # what the documentation says


@pytest.mark.parametrize("n_groups", [20, 40, 600])  # those of more than 400 are dealt
@pytest.mark.parametrize(
    "simulation", [lead_r2, lead_kendall, lead_auc, left_of_error, apart_r2], ids=lambda s: s.__qualname__
)
def test_a_lead_over_another_reader_is_covered(simulation: Simulation, n_groups: int) -> None:
    share, none = covered(simulation, n_groups, 100 if n_groups > 100 else 200)
    print(f"{simulation.__qualname__} {n_groups} groups: {share:.3f}, none for {none:.3f}")
    assert share >= 0.90
    assert none <= (0.1 if simulation is lead_auc else 0.01)  # whose error one or two groups may make


@pytest.mark.parametrize(
    ("simulation", "least"),
    [
        (rare((200, 5), 0.99, 0.8), 0.92),
        (rare((200, 10), 0.95, 0.95), 0.92),
        (rare((100, 8, 8), 0.9, 0.6, 0.9), 0.92),
        (rare((200, 5), 0.6, 0.8, agree=0.0), 0.92),
        (rare((200, 10), 0.9, 0.97, agree=0.5), 0.92),
        (rare((200, 10), 0.8, 0.8, agree=0.9), 0.92),
        (rare((100, 8, 8), 0.6, 0.8, agree=0.5), 0.92),
        (rare((200, 5), 0.6, 0.8, agree=0.9), 0.92),
        (rare((200, 5), 0.5, 0.6, agree=1.0), 0.92),  # of five networks it may be that none is told differently
        (rare((20, 20), 0.5, 0.55, agree=1.0), 0.92),
        (rare_in_groups(5, 6, 1.0, 0.8), 0.92),  # as many judgements as groups; taken for thirty it was .72
        (rare_in_groups(5, 20, 0.5, 0.9), 0.90),
        (rare_in_groups(8, 10, 1.0, 0.8), 0.92),
        (rare_in_groups(20, 5, 0.5, 0.8), 0.92),
        (rare_in_groups(5, 6, 1.0, 0.7, 0.9), 0.92),
        (rare_in_groups(8, 10, 0.25, 0.7, 0.9), 0.92),
    ],
)
def test_a_rare_class_is_covered(simulation: Simulation, least: float) -> None:
    share, none = covered(simulation, 0, 500)
    print(f"{share:.3f}")
    assert (share >= least, none) == (True, 0)


def test_an_order_inside_strata_is_covered() -> None:
    """τ in tenths of 400 networks; strata are fixed, and a t of ten of them was three times as wide."""
    rng, truth, held, width, values = np.random.default_rng(0), 2 / np.pi * np.arcsin(0.6), 0, [], []
    strata = np.arange(400) % 10
    for _ in range(200):
        y, other = rng.normal(size=(2, 400))
        found = intervals.deleted(ranking._within, (y, 0.6 * y + 0.8 * other, strata), np.arange(400))
        held += found.low <= truth <= found.high
        width.append(found.high - found.low)
        values.append(found.value)
    assert held >= 0.92 * 200
    assert np.mean(width) < 1.3 * 2 * 1.96 * np.std(values)


@pytest.mark.parametrize("draws", [5, 6, 10, 20])
def test_a_mean_that_draws_alone_decide_is_covered_though_inits_are_alike(draws: int) -> None:
    """Inits that are all alike showed no error, and exact bounds of them alone held the truth in 57 to 87 %."""
    ways = {"init groups": np.repeat(np.arange(20), draws), "data draws": np.tile(np.arange(draws), 20)}
    held = 0
    for trial in range(400):
        values = np.tile(np.random.default_rng([trial, draws]).random(draws) < 0.5, 20).astype(float)
        found = intervals.crossed_mean(values, ways, ends=(-1.0, 1.0))
        held += found.low <= 0.5 <= found.high
    assert held >= 0.93 * 400


@pytest.mark.parametrize(("inits", "draws"), [(10, 5), (10, 10), (20, 6), (10, 40), (6, 20)])
@pytest.mark.parametrize("spread", [(1, 1, 0.5), (0, 1, 0.3), (1, 0, 0.3), (0, 0, 1)], ids=str)
def test_a_mean_over_inits_and_draws_covers_new_ones_of_both(
    spread: tuple[float, float, float], inits: int, draws: int
) -> None:
    """Of initialization, of data draw, of both together: by init groups alone it covers 30 % with one draw."""
    held, trials = 0, 400
    a, b, c = spread
    ways = {"init groups": np.repeat(np.arange(inits), draws), "data draws": np.tile(np.arange(draws), inits)}
    for trial in range(trials):
        rng = np.random.default_rng([trial, inits, draws])
        values = a * rng.normal(size=inits)[:, None] + b * rng.normal(size=draws) + c * rng.normal(size=(inits, draws))
        found = intervals.crossed_mean(values.ravel(), ways)
        held += found.low <= 0 <= found.high
    assert held / trials >= 0.92
