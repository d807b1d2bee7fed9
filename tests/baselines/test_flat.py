"""Flat weights → predictions: the closed form, the penalty that validation takes, permuted batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic_populations import MLP, random_view, shuffled

from zoo_datasets import symmetry
from zoo_datasets.baselines import deep_sets, flat
from zoo_datasets.baselines.interface import MixedLayoutsError, Target, Targets, View
from zoo_datasets.baselines.learning import Training
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.layers import build_architecture

SMALL = ["flatten", {"linear": 2}, "activation", {"linear": "classes"}]
OF = (Target("line"), Target("share", bounded=True), Target("sign", classes=2))


def line_targets(view: View) -> Targets:
    """A line in the first three weights, squeezed into a share, and its sign."""
    line = view.matrix[:, :3].astype(np.float64) @ [2.0, -1.0, 1.0]
    return Targets(OF, np.stack([7 + line, 0.5 + np.tanh(line) / 4, (line > 0).astype(float)], 1))


def views(n: int = 64) -> list[View]:
    return [random_view(SMALL, (1, 1, 2), m, m, classes=2) for m in (n, 40, 50)]


def test_ridge_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))
    unit = np.linalg.eigvalsh(np.cov(x.T, bias=True) * 20).mean()
    for penalty, found in flat._path(x, y, (0.0, 0.5)):
        own = x - x.mean(0)
        slopes = np.linalg.solve(own.T @ own + penalty * unit * np.eye(3), own.T @ (y - y.mean()))
        assert found[1:] == pytest.approx(slopes)
        assert found[0] == pytest.approx(y.mean() - x.mean(0) @ slopes)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_axes_are_principal_whichever_side_is_longer(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    x -= x.mean(0)
    axes = flat._axes(x, 3)
    assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.norm(x @ axes, axis=0) == pytest.approx(np.linalg.svd(x, compute_uv=False)[:3])
    assert flat._axes(x, 99).shape[1] == (4 if shape[0] == 5 else 5)  # centered: 5 rows have 4 directions


def test_pca_ridge_learns_a_line_and_nothing_from_shuffled_targets() -> None:
    train, validation, test = views()
    baseline = flat.PcaRidge()
    with pytest.raises(ZooError, match="has learned nothing yet"):
        baseline.predict(test)
    targets = line_targets(train)
    targets.values[::5, 0] = np.nan  # missing for some networks
    baseline.fit((train, targets), (validation, line_targets(validation)), 0)
    found = baseline.predict(test)
    scores = baseline.heads.scores(found, line_targets(test))
    assert scores["line"] > 0.999
    assert scores["share"] > 0.8
    assert scores["sign"] > 0.2
    assert found["sign"].sum(1) == pytest.approx(np.ones(50))
    assert baseline.chosen["line"]["chosen"]["penalty"] == min(flat.PENALTIES)
    assert baseline.parameters == 12 * 12 + 13 * 4
    baseline.fit((train, shuffled(line_targets(train), 1)), (validation, line_targets(validation)), 0)
    assert baseline.heads.scores(baseline.predict(test), line_targets(test))["line"] < 0.2


def test_pca_ridge_refuses_another_layout() -> None:
    train, validation, _ = views()
    baseline = flat.PcaRidge(components=2)
    baseline.fit((train, line_targets(train)), (validation, line_targets(validation)), 0)
    assert baseline.chosen["components"] == 2
    with pytest.raises(MixedLayoutsError, match="it knows no other"):
        baseline.predict(random_view(MLP, (1, 2, 2), 3, 0))


@pytest.mark.slow
def test_mlp_learns_a_line_and_has_the_published_width() -> None:
    train, validation, test = views()
    baseline = flat.FlatMlp(hidden=(32,), training=Training(epochs=40, batch=16, rate=0.01))
    baseline.fit((train, line_targets(train)), (validation, line_targets(validation)), 0)
    assert baseline.learned.heads.scores(baseline.predict(test), line_targets(test))["line"] > 0.8
    assert baseline.parameters == 13 * 32 + 33 * 4
    published = sum(p.numel() for p in flat.FlatMlp.network(_sized(12), 1).parameters())
    assert published == 13 * 1000 + 1001 * 1000 + 1001


def _sized(n: int) -> flat.FlatMlp:
    baseline = flat.FlatMlp()
    baseline.layout = views(2)[0].layout
    assert baseline.layout.n_params == n
    return baseline


def test_augmented_batches_are_of_the_same_orbits_and_predictions_of_the_networks_themselves() -> None:
    view = views()[0]
    baseline = flat.FlatMlp(augment=True)
    baseline.prepare(view)
    read, rows = baseline.inputs(view), np.arange(30)
    plain, once = read(rows, None).numpy(), read(rows, np.random.default_rng(0)).numpy()
    assert np.array_equal(plain, baseline.standard(view.matrix[:30]))
    back = once * baseline.standard.scale + baseline.standard.shift
    same = [symmetry.canonicalize(w, view.layout, kinds=["permutation"]) for w in (back, view.matrix[:30])]
    assert np.allclose(*same, atol=1e-5)
    moved = (np.abs(back - view.matrix[:30]) > 1e-3).any(1).mean()
    assert 0.2 < moved < 0.8  # two units: half of the draws move something
    assert np.array_equal(once, read(rows, np.random.default_rng(0)).numpy())


@pytest.mark.parametrize("turned", [False, True])
def test_of_several_architectures_of_one_layout_units_move_that_may_in_each(turned: bool) -> None:
    tail = ["relu", {"linear": "classes"}]
    ways = (
        ["flatten", {"linear": 4}, "relu", {"linear": 4}, *tail],
        ["flatten", {"linear": 4}, "relu", {"residual": [{"linear": 4}]}, *tail],
    )
    made = tuple(build_architecture(way, (1, 1, 2), 2) for way in (ways[::-1] if turned else ways))
    one = random_view(ways[0], (1, 1, 2), 40, 0, classes=2)
    view = dataclasses.replace(one, architectures=made, architecture=np.arange(40) % 2)
    baseline = flat.FlatMlp(augment=True)
    baseline.prepare(view)
    back = (
        baseline.inputs(view)(np.arange(40), np.random.default_rng(0)).numpy() * baseline.standard.scale
        + baseline.standard.shift
    )
    residual = next(a for a in made if any(n.op == "add" for n in a.nodes))
    same = [symmetry.canonicalize(w, residual, kinds=["permutation"]) for w in (back, view.matrix)]
    assert np.allclose(*same, atol=1e-5)
    sets = deep_sets.DeepSets()
    sets.prepare(view)
    assert [g.units for g in symmetry.groups(sets.units)] == [4]
