"""Probing: the published size, the true network behind it, and what it learns and does not learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import population
import pytest
import torch

from zoo_datasets.baselines import probes
from zoo_datasets.baselines.images import Images
from zoo_datasets.baselines.learning import Training
from zoo_datasets.baselines.probing import Prober, Probing
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.modules import Network
from zoo_datasets.symmetry import augment

RELU, FLAT = population.architecture(), population.architecture(population.FLAT, "tanh")


@pytest.mark.parametrize(("count", "published"), [(64, 676_770), (128, 842_658)])
def test_the_published_number_of_parameters(count: int, published: int) -> None:
    gray = build_architecture("small-cnn-gap", (1, 32, 32), 10)
    view = population.view(1, gray)
    prober = Prober(view, 1, count, "generated", hidden=False)
    assert sum(p.numel() for p in prober.parameters()) == published


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 5, 9), (1, 3, 3), (7,)])
@pytest.mark.parametrize("kind", probes.KINDS)
def test_probes_have_the_shape_of_the_input(shape: tuple[int, ...], kind: str) -> None:
    made = probes.probes(kind, 4, shape)
    assert made().shape == (4, *shape)
    assert made().abs().max() <= 1
    assert bool(list(made.parameters())) == (kind != "random")


def test_an_unknown_kind_of_probe_is_refused() -> None:
    with pytest.raises(ZooError, match="generatd"):
        probes.probes("generatd", 4, (1, 8, 8))


def test_the_generator_is_linear_before_its_tanh() -> None:
    made = probes.Generated(2, (1, 8, 8))
    first, second = made.codes.data[:, :, None, None]
    with torch.no_grad():
        middle = made.layers((first + second)[None] / 2)
        torch.testing.assert_close(middle, (made.layers(first[None]) + made.layers(second[None])) / 2)


def test_answers_are_those_of_each_network_alone() -> None:
    view = population.view(5, RELU, FLAT)
    prober = Prober(view, 1, 6, "learned", hidden=False)
    read: list[torch.Tensor] = []
    prober.reader.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    population.outputs(prober, view)
    for row, vector in enumerate(view.vectors):
        network = Network(view.architectures[view.architecture[row]]).load_vector(vector).eval()
        with torch.no_grad():
            alone = torch.asinh(network(prober.probes())).flatten()
        torch.testing.assert_close(read[0][row], alone, rtol=1e-4, atol=1e-5)


def test_of_networks_that_answer_at_every_step_all_steps_are_read() -> None:
    """A probe's answers were cut to the first step, and no change of a later one was seen."""
    three = build_architecture([{"gru": 4}, {"linear": "classes"}], (6, 3), 3, steps=6)
    two = build_architecture([{"gru": 4}, {"linear": "classes"}], (6, 3), 2, steps=6)
    view = population.view(4, three, two)
    prober = Prober(view, 1, 5, "learned", hidden=True)
    read: list[torch.Tensor] = []
    prober.reader.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    population.outputs(prober, view)
    answers = read[0].unflatten(1, (5, 6, 3))
    for row, vector in enumerate(view.vectors):
        made = view.architectures[view.architecture[row]]
        with torch.no_grad():
            alone = torch.asinh(Network(made).load_vector(vector).eval()(prober.probes()))  # (T, steps, classes)
        torch.testing.assert_close(answers[row, :, :, : made.n_outputs], alone, rtol=1e-4, atol=1e-5)
        assert not answers[row, :, :, made.n_outputs :].any()


@pytest.mark.some(1)
@pytest.mark.parametrize("hidden", [False, True])
def test_outputs_are_blind_to_the_order_of_units_and_to_the_other_networks(hidden: bool) -> None:
    view = population.view(6, RELU, FLAT)
    torch.manual_seed(0)
    prober = Prober(view, 2, 6, "generated", hidden)
    if prober.late is not None:
        torch.nn.init.normal_(prober.late.last.weight)
    found = population.outputs(prober, view)
    moved = dataclasses.replace(
        view, vectors=[augment(v, view.architectures[a], [int(i)], kinds=["permutation"])
                       for i, (v, a) in enumerate(zip(view.vectors, view.architecture, strict=True))]
    )  # fmt: skip
    np.testing.assert_allclose(population.outputs(prober, moved), found, atol=1e-5)
    alone = np.concatenate([population.outputs(prober, view.take(np.array([i]))) for i in range(6)])
    np.testing.assert_allclose(alone, found, atol=1e-5)
    assert found.std(0).min() > 1e-4


def test_with_hidden_responses_training_starts_as_without() -> None:
    view = population.view(4, RELU)
    prober = Prober(view, 2, 6, "generated", hidden=True)
    found = population.outputs(prober, view)
    prober.late = None
    np.testing.assert_array_equal(population.outputs(prober, view), found)


def test_networks_that_diverged_leave_the_others_alone() -> None:
    view = population.view(4, RELU)
    prober = Prober(view, 1, 6, "generated", hidden=True)
    found = population.outputs(prober, view)
    vectors = list(view.vectors)
    vectors[0], vectors[1] = np.full_like(vectors[0], np.nan), np.full_like(vectors[1], 1e30)
    after = population.outputs(prober, dataclasses.replace(view, vectors=vectors))
    np.testing.assert_allclose(after[2:], found[2:], atol=1e-6)
    assert np.isfinite(after).all()


def test_inputs_of_two_shapes_are_refused() -> None:
    other = build_architecture(population.CONV, (1, 9, 9), 3)
    with pytest.raises(ZooError, match="2 shapes"):
        Prober(population.view(2, RELU, other), 1, 4, "generated", hidden=False)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "hidden"), [("generated", False), ("learned", True), ("random", False)])
def test_it_learns_what_weights_determine(kind: str, hidden: bool) -> None:
    train, validation, test = (population.view(n, RELU, seed=s) for s, n in enumerate((120, 40, 60)))
    baseline = Probing(kind, 8, hidden, Training(epochs=10, batch=16, rate=3e-3))
    baseline.fit((train, population.targets(train)), (validation, population.targets(validation)), seed=1)
    found, wanted = baseline.predict(test), population.targets(test)
    assert population.r2(found["number"], wanted.values[:, 0]) > 0.3
    assert ((found["size"] >= 0) & (found["size"] <= 1)).all()
    np.testing.assert_allclose(found["kind"].sum(1), 1)
    assert np.nanmean(found["kind"].argmax(1) == wanted.values[:, 2]) > 0.65


@pytest.mark.slow
def test_shuffled_targets_give_nothing_and_the_same_seed_the_same() -> None:
    train, validation, test = (population.view(n, RELU, seed=s) for s, n in enumerate((60, 30, 60)))
    fits = []
    for _ in range(2):
        baseline = Probing(
            "generated", 4, training=Training(epochs=3), trials=[{"rate": 1e-3}, {"rate": 3e-3, "count": 6}]
        )
        baseline.fit((train, population.targets(train, 7)), (validation, population.targets(validation, 8)), seed=3)
        fits.append(baseline.predict(test)["number"])
    np.testing.assert_array_equal(*fits)
    assert population.r2(fits[0], population.targets(test).values[:, 0]) < 0.1
    assert [t["rate"] for t in baseline.chosen["trials"]] == [1e-3, 3e-3]


@pytest.mark.slow
def test_labelled_inputs_foretell_the_accuracy_on_others() -> None:
    draw = np.random.default_rng(0)
    inputs = draw.standard_normal((400, *population.SHAPE)).astype(np.float32)
    labels = (inputs.mean((1, 2, 3)) > 0).astype(np.int64)
    train, test = (population.view(n, RELU, FLAT, seed=s) for s, n in enumerate((60, 30)))

    def accuracy(view: population.View) -> population.Targets:
        values = np.empty((len(view), 1))
        for i, vector in enumerate(view.vectors):
            network = Network(view.architectures[view.architecture[i]]).load_vector(vector).eval()
            with torch.no_grad():
                values[i] = (network(torch.from_numpy(inputs)).argmax(1).numpy() == labels).mean()
        return population.Targets((population.Target("accuracy", bounded=True),), values)

    control = Images(inputs, labels, 128)
    control.fit((train, accuracy(train)), (test, accuracy(test)), seed=0)
    assert population.r2(control.predict(test)["accuracy"], accuracy(test).values[:, 0]) > 0.8
    assert control.parameters == 4
    with pytest.raises(ZooError, match="401 of both"):
        Images(inputs, labels, 401)
