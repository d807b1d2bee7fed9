"""Networks as people use them: exported, copied, wrapped, in other precisions; and back to a vector, or a sentence."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from zoo_datasets.errors import ZooError
from zoo_datasets.networks import forward, modules
from zoo_datasets.networks.architecture import External
from zoo_datasets.networks.initialization import initialize
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.layout import Layout
from zoo_datasets.networks.operations.registry import OPERATIONS

IMAGE = (2, 6, 6)
HEAD = ["flatten", {"linear": "classes"}]
LAYERS: dict[str, list[Any]] = {name: [name, *HEAD] for name in OPERATIONS} | {
    "conv": [{"conv": 3, "padding": 1, "stride": 2}, *HEAD], "linear": HEAD, "flatten": HEAD,
    "max_pool": [{"max_pool": 2}, *HEAD], "avg_pool": [{"avg_pool": 2, "stride": 1}, *HEAD],
    "global_avg_pool": ["global_avg_pool", {"linear": "classes"}], "dropout": [{"dropout": 0.5}, *HEAD],
    "rows": ["rows", "last_step", {"linear": "classes"}], "last_step": ["rows", "tanh", "last_step", {"linear": "classes"}],
    "add": [{"residual": [{"conv": 2, "kernel": 3, "padding": 1}, "relu"]}, *HEAD],
    "gru": ["rows", {"gru": 4}, "relu", "last_step", {"linear": "classes"}],
    "lstm": ["rows", {"lstm": 4}, {"linear": 3}, "relu", "last_step", {"linear": "classes"}],
    "tiles": [{"tiles": 3}, "last_step", {"linear": "classes"}],
    "batch_norm of features": ["flatten", {"linear": 5}, "batch_norm", "relu", {"linear": "classes"}],
}  # fmt: skip


def network_of(layers: list[Any]) -> modules.Network:
    architecture = build_architecture(layers, IMAGE, 3)
    vector = initialize(architecture, "0f" * 16, "normal")
    return modules.Network(architecture, 0.1).load_vector(vector, step=7).eval()


@pytest.fixture(params=LAYERS)
def network(request: pytest.FixtureRequest) -> modules.Network:
    return network_of(LAYERS[request.param])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((4, *IMAGE), np.float32))


# ── what PyTorch does with a network ──


@pytest.mark.slow
def test_a_network_is_exported_for_any_number_of_images(network: modules.Network, images: torch.Tensor) -> None:
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("images")},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    exported = torch.export.load(file).module()
    for some in (images, images[:2], images.repeat(3, 1, 1, 1)):
        torch.testing.assert_close(exported(some), network(some))
    assert set(program.state_dict) == set(network.state_dict())


COPIES: dict[str, Callable[[modules.Network], nn.Module]] = {
    "pickled": lambda network: pickle.loads(pickle.dumps(network)),  # noqa: S301 - of our own making
    "copied": copy.deepcopy,
    "loaded": lambda network: network_of_state(network),
    "channels last": lambda network: copy.deepcopy(network).to(memory_format=torch.channels_last),
    "double and back": lambda network: copy.deepcopy(network).double().float(),
}


def network_of_state(network: modules.Network) -> modules.Network:
    fresh = modules.Network(network.architecture, 0.1)
    fresh.load_state_dict(network.state_dict())
    return fresh.eval()


@pytest.mark.some(20)
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_network_computes_the_same(how: str, network: modules.Network, images: torch.Tensor) -> None:
    other = COPIES[how](network)
    torch.testing.assert_close(other(images), network(images))
    before, after = (modules.to_vector(n, network.architecture) for n in (network, other))
    assert before.tobytes() == after.tobytes()


def test_a_network_is_a_function_of_its_tensors(network: modules.Network, images: torch.Tensor) -> None:
    halved = {name: p / 2 for name, p in network.named_parameters()}
    found = torch.func.functional_call(network, halved, (images,))
    other = copy.deepcopy(network)
    with torch.no_grad():
        for p in other.parameters():
            p /= 2
    torch.testing.assert_close(found, other(images))
    gradient = torch.func.grad(lambda p: torch.func.functional_call(network, p, (images,)).square().sum())(halved)
    assert {k: v.shape for k, v in gradient.items()} == {k: v.shape for k, v in halved.items()}


@pytest.mark.some(20)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_runs_in_another_precision(kind: torch.dtype, network: modules.Network, images: torch.Tensor) -> None:
    found = copy.deepcopy(network).to(kind)(images.to(kind))
    assert found.dtype == kind
    torch.testing.assert_close(found.float(), network(images), rtol=0.05, atol=0.05)


# ── a network, as it was trained → its vector ──

BOTH = [
    {"conv": 3}, "batch_norm", "relu", "flatten", {"linear": 5}, "batch_norm", "relu", {"linear": 5}, {"linear": "classes"},
]  # fmt: skip


def compiled_inside(network: modules.Network) -> nn.Module:
    network.linear1 = compiled(network.linear1)
    return network


compiled: Any = functools.partial(torch.compile, backend="eager")  # of which nothing is run

WRAPPED: dict[str, Callable[[modules.Network], nn.Module]] = {
    "itself": lambda network: network,
    "compiled": compiled,
    "compiled inside": compiled_inside,
    "data parallel": nn.DataParallel,
    "compiled, data parallel, compiled": lambda n: compiled(nn.DataParallel(compiled(n))),
    "averaged": torch.optim.swa_utils.AveragedModel,
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.slow
def test_the_vector_is_that_of_the_network_inside(how: str) -> None:
    network = network_of(BOTH)
    vector = modules.to_vector(network, network.architecture)
    wrapped = WRAPPED[how](copy.deepcopy(network))
    for state in (wrapped, wrapped.state_dict()):
        assert modules.to_vector(state, network.architecture).tobytes() == vector.tobytes()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_become_float32(kind: torch.dtype) -> None:
    network = network_of(BOTH)
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    found = modules.to_vector(state, network.architecture)
    wanted = {e.name: state[e.name].float().numpy() for e in network.architecture.layout}
    assert found.dtype == np.float32
    assert found.tobytes() == network.architecture.layout.flatten(wanted).tobytes()


def test_sparse_foreign_and_tied_tensors_are_read() -> None:
    network = network_of(BOTH)
    vector, state = modules.to_vector(network, network.architecture), network.state_dict()
    sparse = state | {"linear1.weight": state["linear1.weight"].to_sparse()}
    foreign = {k: v.numpy().astype(v.numpy().dtype.newbyteorder(">")) for k, v in state.items()}
    for other in (sparse, foreign):
        assert modules.to_vector(other, network.architecture).tobytes() == vector.tobytes()
    network.linear2.bias = network.linear1.bias
    tied = network.architecture.layout.unflatten(modules.to_vector(network, network.architecture))
    assert tied["linear2.bias"].tobytes() == tied["linear1.bias"].tobytes()


def test_a_parametrized_network_gives_the_weights_that_it_uses() -> None:
    network = network_of(BOTH)
    nn.utils.parametrizations.weight_norm(network.linear1)
    with torch.no_grad():
        network.linear1.parametrizations.weight.original0 *= 2  # type: ignore[union-attr]
    vector = modules.to_vector(nn.DataParallel(network), network.architecture)
    used = network.architecture.layout.unflatten(vector)["linear1.weight"]
    assert used.tobytes() == network.linear1.weight.detach().numpy().tobytes()
    with pytest.raises(ZooError, match=r"no linear1\.weight: it is parametrized\. Give the network itself"):
        modules.to_vector(network.state_dict(), network.architecture)


def test_an_imported_layout_may_have_such_names_itself() -> None:
    layout = Layout.of([("module.a", (2,), "parameter", ("",)), ("a", (1,), "parameter", ("",))])
    state = {"a": torch.ones(1), "module.a": torch.zeros(2), "never": torch.zeros(3)}
    assert modules.to_vector(state, External(layout)).tolist() == [0, 0, 1]


def changed(**tensors: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {**state, **{name.replace("__", "."): value for name, value in tensors.items()}}


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda s: {k: v for k, v in s.items() if k != "linear1.bias"}, r"no linear1\.bias\. Give the state of the whole"),
    "another name": (lambda s: {"model." + k: v for k, v in s.items()}, r"but .*model\.conv1\.bias.*under the network's own names"),
    "pruned": (lambda s: {k.replace("linear1.weight", "linear1.weight_orig"): v for k, v in s.items()}, r"but linear1\.weight_orig\."),
    "more": (changed(head__weight=torch.ones(2)), r"no place for head\.weight: the network has more tensors"),
    "twice": (lambda s: {f"{p}.{k}": v for k, v in s.items() for p in ("module", "_orig_mod")}, r"has conv1\.weight twice, once as _orig_mod"),
    "exact and wrapped": (lambda s: s | {"module.linear1.bias": s["linear1.bias"]}, r"no place for module\.linear1\.bias"),
    "shape": (changed(linear1__bias=torch.ones(6)), r"linear1\.bias has shape \(6,\), the layout says \(5,\)"),
    "meta": (lambda s: {k: v.to("meta") for k, v in s.items()}, r"conv1\.weight holds no weights that can be read: .*meta"),
    "nothing": (changed(linear1__bias=None), r"linear1\.bias holds no weights that can be read"),
    "whole numbers": (changed(linear1__bias=torch.ones(5, dtype=torch.int8)), r"linear1\.bias holds int8; weights are floating"),
    "complex": (changed(linear1__bias=torch.ones(5) * 1j), r"linear1\.bias holds complex64; weights are floating"),
    "too large": (changed(linear1__bias=torch.full((5,), 1e300, dtype=torch.float64)), "larger than any float32"),
    "names are numbers": (lambda s: dict(enumerate(s.values())), "The state has no"),
    "a vector": (lambda s: np.zeros(3), "takes a state dict or a network, not a ndarray"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_is_no_state_of_the_network_is_refused_in_a_sentence(change: Any, message: str) -> None:
    network = network_of(BOTH)
    with pytest.raises(ZooError, match=message):
        modules.to_vector(change(dict(network.state_dict())), network.architecture)


# ── a vector → a network ──


def test_vectors_of_other_kinds_become_a_state() -> None:
    network = network_of(BOTH)
    vector = modules.to_vector(network, network.architecture)
    for same in (torch.from_numpy(vector).requires_grad_(), vector.astype(">f4"), vector.tolist()):
        state = modules.to_state_dict(same, network.architecture, step=7)
        assert modules.to_vector(state, network.architecture).tobytes() == vector.tobytes()
    rough = torch.from_numpy(vector).bfloat16()
    state = modules.to_state_dict(rough, network.architecture)
    assert modules.to_vector(state, network.architecture).tobytes() == rough.float().numpy().tobytes()
    n = len(vector)
    for wrong, message in (
        (vector[None], rf"has shape \(1, {n}\), the layout says \({n},\)"), (vector[1:], r"the layout says"),
        (vector.astype(object), "holds object"), (vector.astype(complex), "holds complex128"), ("weights", "holds <U7"),
    ):  # fmt: skip
        with pytest.raises(ZooError, match=message):
            network.load_vector(wrong)


# ── many networks in one pass ──

SKIPPED = {
    "from the input": [{"residual": [{"conv": 2, "kernel": 3, "padding": 1}, "relu"]}, *HEAD],
    "from the input, by a pool": [{"conv": 2, "kernel": 3, "padding": 1}, {"residual": [{"max_pool": 1}]}, *HEAD],
    "from the first convolution": [{"conv": 3, "kernel": 3}, {"residual": [{"max_pool": 1}, "tanh"]}, {"max_pool": 2}, *HEAD],
    "from the pool behind it": [{"conv": 3, "kernel": 3}, {"max_pool": 2}, {"residual": [{"conv": 3, "padding": 1}]}, *HEAD],
    "of images alone, and of features": [{"residual": ["relu"]}, "flatten", {"residual": [{"linear": 72}]}, {"linear": "classes"}],
}  # fmt: skip


@pytest.mark.parametrize("layers", SKIPPED.values(), ids=SKIPPED)
def test_networks_with_skips_give_in_one_pass_what_each_gives_alone(layers: list[Any], images: torch.Tensor) -> None:
    architecture = build_architecture(layers, IMAGE, 3)
    vectors = np.stack([initialize(architecture, f"{i:032x}", "normal", bias=0.1) for i in range(3)])
    together = forward.Forward(architecture).logits(vectors, images)
    for vector, logits in zip(vectors, together, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(logits, modules.Network(architecture).load_vector(vector).eval()(images))
