"""A layer is one record in one file: what is derived from it, and a new one from end to end."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo_builder import build, engines, grid, plan
from zoo_datasets import symmetry, views
from zoo_datasets.errors import GridError
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.operations import values
from zoo_datasets.networks.operations.operation import Layer, Node, Operation, Shape, Tensor, Tensors, misfit
from zoo_datasets.networks.operations.registry import OPERATIONS, operation
from zoo_datasets.zoo import open_zoo

# ── the worked example: all that a new layer takes, but a kernel ──────────────────────


def _output_shape(attrs: Mapping[str, Any], shape: Shape, where: str) -> Shape:
    if len(shape) != 1:
        misfit(where, f"needs a flat input (features,), but the layer before gives {shape}.")
    return shape


def _tensors(node: Node, width: int, own: str, before: str) -> list[Tensor]:
    return [Tensor("weight", (width,), (own,), "ones"), Tensor("bias", (width,), (own,), "zeros")]


def _module(t: Any, node: Node, shape: Shape, dropout: float) -> nn.Module:
    return t.nn.LayerNorm(shape)


def _batched(t: Any, node: Node) -> Layer:
    def layer(own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
        normal = t.F.layer_norm(x, node.shape)  # (m, B, features)
        return torch.addcmul(own["bias"][:, None], normal, own["weight"][:, None])

    return layer


LAYER_NORM = Operation(
    name="layer_norm", output_shape=_output_shape, tensors=_tensors, module=_module, batched=_batched
)

RECIPE = """\
zoo: weightzoo/normal
source: {id: digits, train: 100, validation: 40, test: 60}
architecture: [flatten, {linear: 6}, layer_norm, activation, {linear: classes}]
activation: tanh
replicates: 4
training: {epochs: 2, batch_size: 32, lr: 1e-1}
"""


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("record", "engine"), [(LAYER_NORM, "torch_batched"), (dataclasses.replace(LAYER_NORM, batched=None), "torch_loop")]
)
@pytest.mark.slow
def test_a_new_layer_trains_evaluates_and_is_drawn(
    record: Operation, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPERATIONS, record.name, record)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    build.build(plan.plan(grid.load(path)), tmp_path / "weightzoo" / "normal", workers=0)
    zoo = open_zoo(tmp_path / "weightzoo" / "normal")
    assert set(zoo.models["engine"].to_pylist()) == {engine}
    found = zoo.evaluate(part="train")
    assert found.largest("accuracy") == 0
    assert found.largest("loss") < 1e-5
    assert (np.array(found.table["accuracy"]) > 0.2).all()  # it learns

    model = zoo.models["model_id"][0].as_py()
    architecture, weights = zoo.architecture(model), zoo.weights[:]
    names = [e.name for e in architecture.layout.of_node("layer_norm1")]
    assert names == ["layer_norm1.weight", "layer_norm1.bias"]
    start = architecture.layout.unflatten(zoo.weights[zoo.position(model, 0)])
    assert (start["layer_norm1.weight"] == 1).all()
    assert (start["layer_norm1.bias"] == 0).all()
    np.testing.assert_array_equal(views.untokens(views.tokens(weights, architecture.layout, "neuron")), weights)
    drawn = views.graph(weights, architecture)
    assert drawn.node_features.shape == (len(weights), 64 + 6 + 10, 3)  # bias, and the norm's weight and bias
    np.testing.assert_array_equal(views.ungraph(drawn), weights)
    # Permutations are free, from the groups alone; scale and sign are not, since it mixes units.
    assert [(g.name, g.units) for g in symmetry.groups(architecture.layout)] == [("linear1", 6)]
    assert symmetry.factors(architecture) == ()
    images = torch.randn(20, 1, 8, 8)
    network = zoo.load_model(model)
    before = network(images)
    moved = symmetry.augment(zoo.vector(model), architecture, "key")
    assert (moved != zoo.vector(model)).any()
    torch.testing.assert_close(network.load_vector(moved)(images), before)


def test_a_new_layer_that_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, "layer_norm", LAYER_NORM)
    with pytest.raises(GridError, match=r"Layer 1 \(layer_norm\) needs a flat input .* gives \(1, 8, 8\)"):
        build_architecture(["layer_norm", "flatten", {"linear": "classes"}], (1, 8, 8), 10)
    with pytest.raises(GridError, match="`layer_norm` takes no value, got 3"):
        build_architecture(["flatten", {"layer_norm": 3}, {"linear": "classes"}], (1, 8, 8), 10)


def test_an_engine_is_chosen_by_the_forms_that_a_layer_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, "layer_norm", LAYER_NORM)
    architecture = build_architecture(["flatten", "layer_norm", {"linear": "classes"}], (1, 8, 8), 10)
    choose: Callable[[], tuple[str, str]] = lambda: engines.choose(architecture, "mse", Augmentation(), "cpu")  # noqa: E731
    assert choose()[0] == "torch_batched"
    monkeypatch.setitem(OPERATIONS, "layer_norm", dataclasses.replace(LAYER_NORM, batched=None))
    assert choose()[0] == "torch_loop"
    assert choose()[1].startswith("no batched form of layer_norm; native: ")


# ── what records promise ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [n for n, o in OPERATIONS.items() if o.activation])
def test_parity_and_homogeneity_of_activations_are_what_they_do(name: str) -> None:
    record = operation(name)
    x = torch.randn(50, 7, dtype=torch.float64)
    f = record.module(values, Node("a", name, ("input",), (7,)), (7,), 0.0)
    assert torch.allclose(f(3 * x), 3 * f(x)) == record.homogeneous
    assert torch.allclose(f(-x), -f(x)) == record.odd


@pytest.mark.parametrize("name", ["max_pool", "avg_pool", "global_avg_pool", "flatten", "rows"])
def test_parity_and_homogeneity_of_layers_are_what_they_do(name: str) -> None:
    record = operation(name)
    x = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    f = record.module(values, Node("a", name, ("input",), (3, 3, 3), {"kernel": 2, "stride": 2}), (3, 6, 6), 0.0)
    assert torch.allclose(f(3 * x), 3 * f(x)) == record.homogeneous
    assert torch.allclose(f(-x), -f(x)) == record.odd


@pytest.mark.slow
def test_records_load_no_torch() -> None:
    code = "import sys, zoo_datasets.networks.layers, zoo_datasets.networks.kernels; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
