"""Paths, clusters, order and the SVD ladder on points whose answers are known."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from zoo_datasets.analysis.trajectories import clusters, ladder, order, paths, run, siblings, windows
from zoo_datasets.analysis.trajectories.snapshots import Bag


def circle(radius: float, turns: int, dimensions: int = 5) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, turns + 1)
    plane = np.linalg.qr(np.random.default_rng(0).standard_normal((dimensions, 2)))[0]
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1) @ plane.T


def threads(models: int = 6, snapshots: int = 12, dimensions: int = 30, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Paths from far-apart starts, with steps that shrink: points, whose, at."""
    random = np.random.default_rng(seed)
    start = 10.0 * random.standard_normal((models, 1, dimensions))
    length = 0.8 ** np.arange(snapshots)[:, None]
    step = (
        random.standard_normal((models, 1, dimensions)) + 0.1 * random.standard_normal((models, snapshots, dimensions))
    ) * length
    points = (start + np.cumsum(step, axis=1)).reshape(-1, dimensions)
    return points, np.repeat(np.arange(models), snapshots), np.tile(np.arange(snapshots), models)


# ── paths ──


def test_a_straight_line_has_no_turns() -> None:
    line = np.outer([0.0, 1.0, 3.0, 3.5], [3.0, 4.0]) + 7.0
    path = paths.measure(line)
    np.testing.assert_allclose(path.step, [5.0, 10.0, 2.5])
    assert path.length == pytest.approx(17.5)
    assert path.chord == pytest.approx(17.5)
    assert path.tortuosity == pytest.approx(1.0)
    assert path.smoothness == pytest.approx(1.0)
    np.testing.assert_allclose(path.curvature, 0.0, atol=1e-7)


@pytest.mark.parametrize("radius", [0.5, 4.0])
def test_the_curvature_of_a_circle_is_one_over_its_radius(radius: float) -> None:
    path = paths.measure(circle(radius, 360))
    np.testing.assert_allclose(path.curvature, 1 / radius, rtol=1e-4)
    np.testing.assert_allclose(path.turn, 2 * np.pi / 360, rtol=1e-6)
    assert path.length == pytest.approx(2 * np.pi * radius, rel=1e-4)
    assert path.chord == pytest.approx(0.0, abs=1e-12)


def test_right_angles_and_reversals_have_smoothness_zero_and_minus_one() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    assert paths.measure(square).smoothness == pytest.approx(0.0)
    np.testing.assert_allclose(paths.measure(square).curvature, np.pi / 2)
    assert paths.measure(np.array([[0.0], [1.0], [0.0], [1.0]])).smoothness == pytest.approx(-1.0)


def test_a_path_is_blind_to_rotation_and_translation() -> None:
    random = np.random.default_rng(1)
    path = random.standard_normal((9, 6))
    rotation = np.linalg.qr(random.standard_normal((6, 6)))[0]
    a, b = paths.measure(path), paths.measure(path @ rotation + 3.0)
    np.testing.assert_allclose(a.step, b.step)
    np.testing.assert_allclose(a.curvature, b.curvature)


def test_a_network_that_stands_still_has_no_angles() -> None:
    path = paths.measure(np.ones((4, 3)))
    assert path.length == 0.0
    assert np.isnan(path.cosine).all()
    assert np.isnan([path.tortuosity, path.smoothness, paths.median(path.curvature)]).all()


def test_two_snapshots_are_no_path() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 5\); a path needs \(T, P\) with T ≥ 3"):
        paths.measure(np.zeros((2, 5)))


@pytest.mark.slow
def test_steps_and_loss_are_related_along_training_and_across_models() -> None:
    random = np.random.default_rng(2)
    losses = [np.sort(random.random(9))[::-1] for _ in range(30)]
    follows = [loss[:-1] * 2 for loss in losses]
    np.testing.assert_allclose(paths.along_training(follows, losses), 1.0)
    groups = np.arange(30)
    assert paths.across_models(follows, losses, groups, 200, 0)["value"] == pytest.approx(1.0)
    # Steps that fall with time alone: related along training, not across models.
    clock = [np.linspace(1, 0.1, 8) * (1 + 1e-3 * random.random()) for _ in range(30)]
    np.testing.assert_allclose(paths.along_training(clock, losses), 1.0)
    across = paths.across_models(clock, losses, groups, 200, 0)
    assert across["low"] < 0 < across["high"]


def test_intervals_leave_out_what_is_not_there() -> None:
    found = paths.mean(np.array([1.0, np.nan, 3.0]), np.array(["a", "b", "c"]))
    assert (found["value"], found["n_examples"], found["n_groups"]) == (2.0, 2, 2)
    assert (found["low"], found["high"], found["method"]) == (None, None, "none")  # of two groups
    assert paths.mean(np.array([np.nan]), np.array(["a"]))["value"] is None
    assert paths.share(np.ones(40), np.arange(40))["low"] == pytest.approx(0.025 ** (1 / 40))


def test_a_model_drawn_twice_is_no_pair() -> None:
    """τ across models is over pairs of two of them, so resamples do not shrink it."""
    random = np.random.default_rng(3)
    losses = [random.random(4) for _ in range(12)]
    found = paths.across_models([loss[:-1] for loss in losses], losses, np.arange(12), 200, 0)
    assert (found["value"], found["low"], found["method"]) == (
        1.0,
        None,
        "none",
    )  # nothing differs between groups, and others may
    mixed = [random.random(3) for _ in range(12)]
    expected = np.mean([stats.kendalltau([s[t] for s in mixed], [v[t] for v in losses]).statistic for t in range(3)])
    assert paths.across_models(mixed, losses, np.arange(12), 200, 0)["value"] == pytest.approx(expected)


# ── clusters ──


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 40), k=st.integers(1, 6), block=st.integers(1, 9), seed=st.integers(0, 10**6),
    metric=st.sampled_from(clusters.DISTANCES),
)  # fmt: skip
@pytest.mark.slow
def test_one_pass_in_blocks_gives_scipys_distances_and_dendrograms(
    n: int, k: int, block: int, seed: int, metric: str
) -> None:
    random = np.random.default_rng(seed)
    points = random.standard_normal((n, k)) if seed % 3 else random.integers(1, 4, (n, k)).astype(float)  # or with ties
    whose = random.integers(0, 3, n)
    expected = pdist(points, metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "BLOCK", block)
        found = clusters.distances(points, metric, whose, condensed=True)
    assert found.condensed is not None
    np.testing.assert_allclose(found.condensed, expected, atol=1e-6)
    # Where distances tie, only the heights of single linkage are the same for any order of merges.
    for kind in ("single", "average", "complete") if seed % 3 else ("single",):
        ours, theirs = clusters.linkage(found, kind, metric), hierarchy.linkage(expected, kind)
        assert hierarchy.is_valid_linkage(ours)
        np.testing.assert_allclose(ours[:, 2], theirs[:, 2], atol=1e-6)
        if seed % 3 and metric == "euclidean":
            cut, same = (c(z, max(1, n // 3)) for c, z in ((clusters.cut, ours), (hierarchy.cut_tree, theirs)))
            assert clusters.adjusted_rand(cut, same.ravel()) == pytest.approx(1.0)


def test_ward_works_with_euclidean_distances_and_of_unit_vectors_for_cosine() -> None:
    points = np.random.default_rng(0).standard_normal((25, 4))
    whose = np.zeros(25, int)
    ours = clusters.linkage(clusters.distances(points, "euclidean", whose, True), "ward", "euclidean")
    np.testing.assert_allclose(ours[:, 2], hierarchy.linkage(points, "ward")[:, 2])
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    ours = clusters.linkage(clusters.distances(points, "cosine", whose, True), "ward", "cosine")
    np.testing.assert_allclose(ours[:, 2], hierarchy.linkage(unit, "ward")[:, 2])


def test_heights_of_nearly_equal_vectors_keep_their_digits() -> None:
    """Squares from a matrix product lose them: ‖a‖² + ‖b‖² − 2ab of vectors 10⁻³ apart and 10⁴ long."""
    base = np.random.default_rng(0).standard_normal(50) * 1e3
    points = base + np.arange(6)[:, None] * np.eye(50)[0] * 1e-3
    found = clusters.distances(points, "euclidean", np.arange(6))
    np.testing.assert_allclose(found.heights, 1e-3, rtol=1e-8)


@pytest.mark.parametrize("block", [2, 8])
def test_nearest_neighbors_are_told_apart_by_trajectory(block: int) -> None:
    points = np.array([[0.0], [1.0], [3.0], [10.0], [12.0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "BLOCK", block)
        found = clusters.distances(points, "euclidean", np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(found.intra, [1, 1, 2, 2, 2])
    np.testing.assert_allclose(found.inter, [10, 9, 7, 7, 9])
    assert found.separation == pytest.approx(3.5)


def test_linkage_without_all_distances_is_single_linkage_alone() -> None:
    found = clusters.distances(np.eye(4), "euclidean", np.zeros(4, int))
    assert len(clusters.linkage(found, "single", "euclidean")) == 3
    with pytest.raises(ValueError, match="average linkage needs all distances"):
        clusters.linkage(found, "average", "euclidean")
    with pytest.raises(ValueError, match="Unknown linkage 'median'"):
        clusters.linkage(found, "median", "euclidean")
    with pytest.raises(ValueError, match="Unknown metric 'manhattan'"):
        clusters.distances(np.eye(4), "manhattan", np.zeros(4, int))


def test_threads_are_found_whole_and_their_number_too() -> None:
    points, whose, _ = threads()
    merges = clusters.single(clusters.distances(points, "euclidean", whose))
    assert clusters.clusters_by_gap(merges) == 6
    label = clusters.cut(merges, 6)
    assert clusters.purity(label, whose) == 1.0
    assert clusters.adjusted_rand(label, whose) == 1.0
    found = clusters.heights(merges, whose)
    assert len(found.between) == 5
    assert found.within.max() < found.between.min()


def test_shuffled_labels_have_the_purity_of_chance() -> None:
    points, whose, _ = threads(models=20, snapshots=30)
    label = clusters.cut(clusters.single(clusters.distances(points, "euclidean", whose)), 20)
    mixed = np.random.default_rng(0).permutation(whose)
    assert clusters.purity(label, mixed) < 0.2
    assert abs(clusters.adjusted_rand(label, mixed)) < 0.02
    found = clusters.distances(points, "euclidean", mixed)
    assert found.separation < 1.0


def test_purity_counts_the_most_frequent_trajectory_of_each_cluster() -> None:
    found, whose = np.array([0, 0, 0, 0, 1, 1]), np.array([5, 5, 7, 8, 7, 7])
    assert clusters.purity(found, whose) == pytest.approx(4 / 6)
    assert clusters.purity(np.arange(6), whose) == 1.0


def test_the_number_of_clusters_is_read_from_the_largest_gap_between_heights() -> None:
    points = np.array([0.0, 1.0, 2.0, 50.0, 51.0, 100.0])[:, None]  # heights 1, 1, 1, 48, 49
    assert clusters.clusters_by_gap(clusters.single(clusters.distances(points, "euclidean", np.zeros(6, int)))) == 3


def test_a_cut_has_as_many_clusters_as_asked() -> None:
    merges = hierarchy.linkage(np.random.default_rng(0).random((9, 2)), "average")
    assert [len(np.unique(clusters.cut(merges, k))) for k in range(1, 10)] == list(range(1, 10))
    with pytest.raises(ValueError, match="10 clusters of 9 points; 1 to 9 are possible"):
        clusters.cut(merges, 10)


# ── order ──


@pytest.mark.parametrize("algorithm", order.ALGORITHMS)
def test_every_algorithm_recovers_a_path_with_shrinking_steps(algorithm: str) -> None:
    points, whose, at = threads()
    mixed = np.random.default_rng(0).permutation(len(points))
    place = order.recover(points[mixed], whose[mixed])[algorithm]
    assert place.shape == (order.SHUFFLES, len(points))
    found = order.score(whose[mixed], place, whose[mixed], at[mixed])
    # The last two snapshots are each other's nearest, so sorting swaps them in half the shuffles: one pair of 66.
    assert found.order.min() >= (1 - 2 / 66 if algorithm == "nearest_sort" else 1.0)
    assert algorithm == "path" or (found.forward == 1).all()  # these threads do not grow


def noisy_paths(models: int = 8, snapshots: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random walks that grow, some of whose snapshots are equal: pairs of nearest neighbors tie everywhere."""
    random = np.random.default_rng(5)
    points = np.cumsum(random.standard_normal((models, snapshots, 30)), axis=1)
    points[:, 6] = points[:, 5]  # a network that did not move
    whose, at = np.repeat(np.arange(models), snapshots), np.tile(np.arange(snapshots), models)
    return points.reshape(-1, 30), whose, at


@pytest.mark.parametrize("metric", clusters.DISTANCES)
def test_places_do_not_depend_on_the_order_of_rows(metric: str) -> None:
    points, whose, _ = noisy_paths()
    expected = order.recover(points, whose, metric)
    for seed in range(3):
        mixed = np.random.default_rng(seed).permutation(len(points))
        for name, place in order.recover(points[mixed], 7 - whose[mixed], metric).items():
            np.testing.assert_array_equal(place, expected[name][:, mixed], err_msg=name)


@pytest.mark.slow
def test_ties_do_not_fall_toward_the_truth() -> None:
    """Points in pairs: inside a pair nothing but the order of rows says which came first."""
    rng = np.random.default_rng(0)
    n = 400
    whose, at = np.repeat(np.arange(n), 2), np.tile([0, 1], n)
    points = rng.standard_normal((2 * n, 5))
    for name in ("walk", "nearest_sort"):
        tau = order.score(whose, order.recover(points, whose)[name], whose, at).tau
        assert abs(tau.mean()) < 0.1, name  # 1 where the stable sort keeps rows as they came


def test_equal_snapshots_share_a_place_and_claim_nothing() -> None:
    points = np.array([[0.0], [5.0], [5.0], [7.0]])
    whose = np.zeros(4, int)
    place = order.recover(points, whose)["walk"]
    assert (place[:, 1] == place[:, 2]).all()
    found = order.score(whose, place, whose, np.arange(4))
    assert (found.pairs_claimed == 5).all()
    assert (found.links_claimed == 0).all()
    assert found.order.tolist() == [5 / 6]


def test_order_and_direction_are_scored_apart() -> None:
    whose, at = np.repeat([0, 1], 4), np.tile(np.arange(4), 2)
    place = np.stack([np.concatenate([np.arange(4), np.arange(4)]), np.concatenate([np.arange(4)[::-1], np.arange(4)])])
    found = order.score(whose, place, whose, at)
    assert found.tau.tolist() == [0.0, 1.0]
    assert found.order.tolist() == [1.0, 1.0]
    assert found.forward.tolist() == [0.5, 1.0]


def test_without_the_first_steps_lengths_still_tell_the_direction() -> None:
    """Steps of one length, as at the end of training: loneliness is noise, and weights grow."""
    random = np.random.default_rng(1)
    steps = random.standard_normal((20, 30, 200))
    steps[:, 0] += 20 * random.standard_normal((20, 200)) / np.sqrt(200)
    points = np.cumsum(steps, axis=1).reshape(-1, 200)
    whose, at = np.repeat(np.arange(20), 30), np.tile(np.arange(30), 20)
    late = at >= 10
    found = {
        name: order.score(whose[late], place, whose[late], at[late] - 10)
        for name, place in order.recover(points[late], whose[late]).items()
    }
    assert found["path"].tau.mean() > 0.95
    assert found["walk"].forward.mean() < 0.9
    assert found["walk"].tau.mean() < 0.8


def test_distances_on_demand_give_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    points, whose, _ = threads()
    known = order.recover(points, whose)
    monkeypatch.setattr(order, "MOST_KNOWN", 0)
    monkeypatch.setattr(order, "ROWS", 5)
    for name, place in order.recover(points, whose).items():
        np.testing.assert_array_equal(place, known[name])


def test_growing_steps_are_recovered_backwards() -> None:
    points, whose, at = threads(models=2)
    place = order.recover(points, whose)["walk"]
    assert (order.score(whose, place, whose, at.max() - at).tau == -1.0).all()


def test_tau_inside_whole_trajectories_is_kendalls() -> None:
    random = np.random.default_rng(0)
    whose, at = np.repeat([0, 1, 2], 8), np.tile(np.arange(8), 3)
    place = np.concatenate([random.permutation(8) for _ in range(3)])
    expected = [stats.kendalltau(np.arange(8), place[whose == m]).statistic for m in range(3)]
    np.testing.assert_allclose(order.score(whose, place, whose, at).tau, expected)


def test_shuffled_places_have_tau_of_zero_and_half_the_pairs() -> None:
    random = np.random.default_rng(0)
    whose, at = np.repeat(np.arange(60), 30), np.tile(np.arange(30), 60)
    place = np.concatenate([random.permutation(30) for _ in range(60)])
    found = order.score(whose, place, whose, at)
    assert abs(found.tau.mean()) < 0.05
    assert found.f1("pairs").mean() == pytest.approx(0.5, abs=0.03)
    assert found.f1("links").mean() < 0.1


def by_hand(cluster: list[int], place: list[int], whose: list[int], at: list[int]) -> tuple[float, float]:
    """F1 of ordered pairs and of links, from sets of claims."""
    n = range(len(whose))
    true = {(i, j) for i, j in itertools.permutations(n, 2) if whose[i] == whose[j] and at[i] < at[j]}
    claimed = {(i, j) for i, j in itertools.permutations(n, 2) if cluster[i] == cluster[j] and place[i] < place[j]}
    links = {(i, j) for i, j in true if at[j] == at[i] + 1}
    said = {(i, j) for i, j in claimed if not any((i, m) in claimed and (m, j) in claimed for m in n)}
    f1 = lambda a, b: 2 * len(a & b) / (len(a) + len(b))  # noqa: E731
    return f1(true, claimed), f1(links, said)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_versioning_scores_are_f1_of_the_claims(seed: int) -> None:
    random = np.random.default_rng(seed)
    whose, at = np.repeat([0, 1, 2], 4), np.tile(np.arange(4), 3)
    mixed = random.permutation(12)
    cluster = random.integers(0, 3, 12)
    place = np.empty(12, int)
    for rows in order.members(cluster):
        place[rows] = random.permutation(len(rows))
    found = order.score(cluster, place, whose[mixed], at[mixed])
    arguments = (cluster.tolist(), place.tolist(), whose[mixed].tolist(), at[mixed].tolist())
    together = [
        2
        * getattr(found, f"{what}_hit").sum()
        / (getattr(found, f"{what}_claimed") + getattr(found, f"{what}_true")).sum()
        for what in ("pairs", "links")
    ]
    assert together == pytest.approx(by_hand(*arguments))


def test_a_bag_of_threads_is_put_in_versions() -> None:
    points, whose, at = threads()
    mixed = np.random.default_rng(3).permutation(len(points))
    points, whose, at = points[mixed], whose[mixed], at[mixed]
    label = clusters.cut(clusters.single(clusters.distances(points, "euclidean", whose)), 6)
    found = order.score(label, order.recover(points, label)["walk"], whose, at)
    assert found.f1("pairs").tolist() == found.f1("links").tolist() == [1.0] * 6
    bounds = order.f1_interval(found, "pairs", np.arange(6))
    assert bounds["value"] == 1.0
    assert bounds["n_groups"] == 6


# ── ladder ──


def test_the_ladder_halves_and_ends_at_three() -> None:
    assert ladder.rungs(2410) == [2410, 1205, 602, 301, 150, 75, 37, 18, 9, 4, 3]
    assert ladder.rungs(12) == [12, 6, 3]
    assert ladder.rungs(3) == [3]


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_coordinates_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 2.0
    u, s, _ = np.linalg.svd(weights.astype(np.float64), full_matrices=False)
    found = ladder.decompose(weights)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(u * s), atol=1e-5)
    np.testing.assert_allclose(found.energy, np.cumsum(s**2) / (s**2).sum())
    np.testing.assert_allclose(pdist(found.coordinates), pdist(weights), rtol=1e-5)  # a rotation
    few = ladder.decompose(weights, 3)
    np.testing.assert_allclose(few.coordinates, found.coordinates[:, :3], atol=1e-5)
    np.testing.assert_allclose(few.energy, found.energy[:3])


# ── runs from one start ───────────────────────────────────────────────────────────────


def fans(angle: float, families: int = 6, snapshots: int = 12) -> tuple[Bag, list[tuple[str, int]]]:
    """Families of two runs from one start, along directions that are `angle` apart; steps of one, and a little noise."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(families):
        start = 100 * rng.normal(size=10)
        for turn in (-angle / 2, angle / 2):
            along = np.arange(1, snapshots + 1)[:, None] * np.r_[np.cos(turn), np.sin(turn), np.zeros(8)]
            rows.append(start + along + 1e-3 * rng.normal(size=along.shape))
    models = 2 * families
    whose, at = np.divmod(np.arange(models * snapshots), snapshots)
    columns = {"step": at + 1.0}
    names = tuple(f"m{i}" for i in range(models))
    bag = Bag(np.concatenate(rows).astype(np.float32), whose, at, columns, names, np.repeat(np.arange(families), 2), 0)
    return bag, [(f"p{i // 2}", 8) for i in range(models)]


@pytest.mark.slow
def test_runs_from_one_start_are_told_apart_where_they_part_and_not_where_they_go_side_by_side() -> None:
    apart, together = (siblings.of_families(*fans(angle), seed=0) for angle in (np.pi / 2, 0.02))
    assert apart is not None
    assert together is not None
    assert (apart["n_families"], apart["siblings"]) == (6, [2])
    whole, later = apart["rows"]
    assert (whole["first_step"], later["first_step"], later["last_step"]) == (1, 7, 12)
    assert later["purity"]["value"] == later["whole"]["value"] == later["found"]["value"] == 1.0
    assert later["null"] < 0.8
    for row in together["rows"]:
        # Clusters are moments: both siblings in each, whatever labels are dealt inside an update.
        assert row["purity"]["value"] <= row["null"] < 0.7
        assert row["whole"]["value"] == row["found"]["value"] == 0.0


def test_of_siblings_those_are_told_apart_that_have_not_ended_before() -> None:
    bag, starts = fans(np.pi / 2)

    def cut(lengths: tuple[int, ...]) -> dict[str, Any] | None:
        """The second half of families whose siblings have so many snapshots, in turn."""
        kept = bag.at < np.array(lengths * (bag.n_models // len(lengths)))[bag.whose]
        parts = {
            "weights": bag.weights[kept],
            "whose": bag.whose[kept],
            "at": bag.at[kept],
            "columns": {"step": bag.at[kept] + 1.0},
        }
        return siblings.of_families(dataclasses.replace(bag, **parts), starts, seed=0)

    whole, one_family_less, alone = cut((12, 12)), cut((3, 3, 12, 12, 12, 12)), cut((12, 3))
    assert whole is not None
    assert one_family_less is not None
    assert alone is not None
    assert [r["n_families"] for r in whole["rows"]] == [6, 6]
    assert [(r["n_families"], r["n_siblings"]) for r in one_family_less["rows"]] == [(6, 12), (4, 8)]
    assert one_family_less["rows"][1]["found"]["value"] == one_family_less["rows"][1]["whole"]["value"] == 1.0
    assert len(alone["rows"]) == 1  # whoever is left alone is told from nobody


def test_a_run_of_one_snapshot_in_a_stretch_has_no_direction() -> None:
    """Steps that grow, as one direction says; half of the runs have one snapshot in the second half."""
    random = np.random.default_rng(0)
    grown = np.cumsum(np.cumsum(np.ones(10)))[:, None] * np.abs(random.normal(size=(6, 1, 8)))
    weights = (grown + 100 * random.normal(size=(6, 1, 8)) * 0 + 50 * np.arange(6)[:, None, None]).reshape(60, 8)
    whose, at = np.divmod(np.arange(60), 10)
    kept = (whose % 2 == 0) | (at < 6)
    columns = {"step": at[kept] + 1.0, "epoch": at[kept] + 1.0}
    bag = Bag(weights[kept].astype(np.float32), whose[kept], at[kept], columns, tuple("abcdef"), np.arange(6), 0)
    found = windows.stretch(bag, np.flatnonzero(bag.at >= 5), 0)
    assert {name: right["n_examples"] for name, right in found["direction"].items()} == dict.fromkeys(
        order.DIRECTIONS, 3
    )
    assert {name: right["n_examples"] for name, right in found["forward"].items()} == dict.fromkeys(found["forward"], 3)
    assert found["direction"]["weights grow"]["value"] == 1.0


def test_a_family_starts_from_one_snapshot_and_not_only_from_one_parent() -> None:
    bag, starts = fans(1.0, families=2)
    assert siblings.of_families(bag, [(parent, 8 * i) for i, (parent, _) in enumerate(starts)], seed=0) is None
    assert siblings.of_families(bag, [(None, None)] * bag.n_models, seed=0) is None  # drawn, each its own
    mixed = siblings.of_families(bag, [("p", 8), ("p", 8), ("p", 16), ("p", 24)], seed=0)
    assert mixed is not None
    assert (mixed["n_families"], mixed["siblings"]) == (1, [2])


@pytest.mark.parametrize(
    ("purity", "least"), [([1, 1, 0.8, 1], 30), ([1, 1, 1, 1], 3), ([0.9, 1, 1, 1], None), ([1, 0.9, 0.8, 0.7], 60)]
)
def test_runs_are_found_down_to_the_last_rung_before_one_is_lost(purity: list[float], least: int | None) -> None:
    rows = [
        {"metric": metric, "linkage": linkage, "dimensions": d, "purity": p if linkage == "single" else 0.5}
        for d, p in zip((60, 30, 15, 3), purity, strict=True)
        for metric, linkage in (("euclidean", "single"), ("euclidean", "ward"))
    ]
    assert ladder.whole_down_to(rows[::-1]) == least


def test_the_null_of_versions_is_of_the_number_that_is_shown() -> None:
    """Of trajectories of unequal length pairs of the longest outweigh the others; what is shown is the mean over trajectories."""
    random = np.random.default_rng(0)
    lengths = np.array([3] * 9 + [60])
    whose = np.repeat(np.arange(10), lengths)
    at = np.concatenate([np.arange(n) for n in lengths])
    walks = np.cumsum(random.normal(size=(len(at), 6)), 0) + 200 * random.normal(size=(10, 6))[whose]
    bag = Bag(walks.astype(np.float32), whose, at, {"step": at + 1.0}, tuple(map(str, range(10))), np.arange(10), 0)
    near = clusters.distances(bag.weights, "euclidean", whose)
    base = run.Partition(clusters.single(near), np.arange(len(at)), bag.weights, {}, {}, {})
    found = run.null(base, bag, 0)["f1_pairs"]
    own = random.permutation(len(at))
    place = order.recover(bag.weights, whose, seed=0)["path"][0]
    one = order.score(whose, place, whose[own], at[own]).f1("pairs").mean()
    assert found["least"] - 0.02 <= one <= found["most"] + 0.02
    assert found["mean"] < 0.1
