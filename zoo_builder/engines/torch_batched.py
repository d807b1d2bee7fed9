"""Job → trained models, all at once: one forward and backward for a whole cohort.

In:  a `Job` and windows of steps. Out: losses, states, logits, as `contract.Backend` says.

Linear layers become one batched product, convolutions one grouped convolution with a
group per model; a layer not known here goes through `torch.func.vmap`. The loss is summed
over models, so each model's gradient is its own. Nothing mixes models: no reduction runs
over them, and no number of one is multiplied into another's.

A value has one of two forms, told apart by its dimensions:

* stacked: (m, B, features) or (m, B, C, H, W); a sequence is (m, B, steps·features);
* grouped: (B, m·C, H, W), channels last in memory on a CPU.

In evaluation m is 1 until the first layer with weights: all models see the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call, vmap

from zoo_builder.engines import torch_common as common
from zoo_builder.engines.contract import Job, Window, check_batches
from zoo_builder.engines.torch_common import Tensors
from zoo_datasets.networks import modules
from zoo_datasets.networks.architecture import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM, Architecture, Node

_ELEMENTWISE: dict[str, Callable[..., torch.Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "elu": F.elu,
    "silu": F.silu,
    "leaky_relu": F.leaky_relu,
}

# Models side by side, measured on one Zen 3 core: beyond these the activations leave the
# cache, and wide layers gain nothing from company (best: 8 models of 8 channels, 4 of 16,
# 1 of 64, 16 of any MLP).
CPU_WIDTH = 16
CPU_CHANNELS = 64
CUDA_WIDTH = 1024  # bounds memory; such a step fills the device anyway
# Values of the largest layer at once in evaluation: 2 MB on a CPU (a share of its cache), 1 GB on CUDA.
CPU_VALUES, CUDA_VALUES = 2**19, 2**28
MOST_SAMPLES = 256
# A window of fewer steps than this is not worth the capture of a CUDA graph.
GRAPH_STEPS = 8


class TorchBatched:
    """M models in one tensor program. `by_vmap` names operations to send through vmap anyway."""

    name = "torch_batched"

    def __init__(self, job: Job, device: str = "cpu", by_vmap: Iterable[str] = ()) -> None:
        self._job = job
        self._device = common.prepare(device)
        self.version = common.version(self._device)
        self._state = common.State(job, self._device)
        self._columns = common.Columns(job.architecture, self._device)
        self._network = _Network(job.architecture, frozenset(by_vmap), self._device)
        self._pool = None  # on a CPU batches are gathered from the job's own array
        if self._device.type != "cpu" and not job.augmentation.any:
            self._pool = torch.tensor(job.pool, device=self._device)
        self._cohorts: dict[bytes, list[_Cohort]] = {}

    def state(self) -> dict[str, np.ndarray]:
        return self._state.copies()

    def weights(self, models: Sequence[int]) -> np.ndarray:
        return self._state.weights[list(models)].cpu().numpy()

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self._state.load(state)

    def advance(self, window: Window) -> np.ndarray:
        check_batches(self._job.architecture, window)
        losses = np.full((self._job.n_models, len(window.batch_sizes)), np.nan, np.float32)
        for cohort in self._active(window.active):
            cohort.load(self._state)
            losses[cohort.models] = cohort.train(window)
            cohort.store(self._state)
        return losses

    @torch.inference_mode()
    def logits(self, images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        job, columns = self._job, self._columns
        count = len(images) if rows is None else rows.shape[1]
        out = np.empty((job.n_models, count, job.architecture.n_outputs), np.float32)
        width = min(self._network.width, job.n_models)
        batch = self._network.evaluation_batch(width)
        for first in range(0, job.n_models, width):
            models = slice(first, first + width)
            weights = self._state.weights[models]
            tensors = columns.views(weights[:, columns.parameters], "parameter")
            tensors |= columns.views(weights[:, columns.buffers], "buffer")
            tensors = {name: t.contiguous() for name, t in tensors.items()}
            for start in range(0, count, batch):
                part = slice(start, start + batch)
                # A copy: torch has no read-only tensors and warns of read-only arrays.
                shown = np.array(images[None, part] if rows is None else images[rows[models, part]], np.float32)
                out[models, part] = self._network(tensors, torch.from_numpy(shown).to(self._device)).cpu().numpy()
        return out

    def _active(self, active: np.ndarray) -> list[_Cohort]:
        """The active models, sorted by update rule and cut to the width that pays."""
        key = active.tobytes()
        if key not in self._cohorts:
            models = np.flatnonzero(active)
            models = models[np.argsort(self._job.optimizers.kind[models], kind="stable")]
            width = self._network.width
            cut = [models[i : i + width] for i in range(0, len(models), width)]
            # Only the last is kept: activity seldom changes, and a cohort holds its weights.
            self._cohorts = {key: [_Cohort(self._job, m, self._network, self._columns, self._pool) for m in cut]}
        return self._cohorts[key]


class _Cohort:
    """Models that step together: their own copies of weights and slots, and their rates.

    Inactive models are in no cohort, which is how they keep every bit.
    """

    def __init__(
        self, job: Job, models: np.ndarray, network: _Network, columns: common.Columns, pool: torch.Tensor | None
    ) -> None:
        self.models = models
        self._job, self._network, self._columns, self._pool = job, network, columns, pool
        self._device = device = network.device
        self._index = torch.from_numpy(models).to(device)[:, None]
        m = len(models)
        self._parameters = torch.zeros(m, len(columns.parameters), device=device)
        self._buffers = torch.zeros(m, len(columns.buffers), device=device)
        self._slots = torch.zeros_like(self._parameters), torch.zeros_like(self._parameters)
        views = columns.views(self._parameters, "parameter")
        self._leaves: Tensors = {name: view.detach().requires_grad_() for name, view in views.items()}
        self._tensors = self._leaves | columns.views(self._buffers, "buffer")
        self._rules = common.rules(job, models, device)
        self._limits = common.clip_limits(job, models, device)
        # Nodes where no model drops anything cost nothing.
        self._dropout = {name: rate[models] for name, rate in common.dropout_rates(job).items() if rate[models].any()}
        self._graphs: dict[int, _Graph] = {}  # by batch size

    def load(self, state: common.State) -> None:
        """Copy the models' rows here."""
        for mine, whole, columns in self._pairs(state):
            mine.copy_(whole[self._index, columns])

    def store(self, state: common.State) -> None:
        """Copy the models' rows back."""
        for mine, whole, columns in self._pairs(state):
            whole[self._index, columns] = mine

    def _pairs(self, state: common.State) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        c = self._columns
        return [
            (self._parameters, state.weights, c.parameters),
            (self._buffers, state.weights, c.buffers),
            (self._slots[0], state.slot1, c.parameters),
            (self._slots[1], state.slot2, c.parameters),
        ]

    def train(self, window: Window) -> np.ndarray:
        """Take the window's steps; the losses (m, T)."""
        device, models = self._device, self.models
        rates = common.rates(self._job, window, models, device)  # (T, 4, m, 1)
        targets = torch.from_numpy(window.targets[models].astype(np.int64)).to(device)
        rows = window.rows[models] if self._pool is None else torch.from_numpy(window.rows[models]).to(device)
        losses = torch.empty(len(window.batch_sizes), len(models), device=device)
        start = 0
        for j, batch in enumerate(window.batch_sizes.tolist()):
            part = slice(start, start + batch)
            start += batch
            given = {"targets": targets[:, part], "rates": rates[j]}
            given |= self._masks(window.first_step + j, batch)
            if self._pool is None:
                given["images"] = self._images(rows[:, part], window.first_step + j)
            else:
                given["rows"] = rows[:, part]
            losses[j] = self._run(given, batch, int((window.batch_sizes[j:] == batch).sum()))
        return losses.T.cpu().numpy()

    def _run(self, given: Tensors, batch: int, left: int) -> torch.Tensor:
        if self._device.type != "cuda" or (batch not in self._graphs and left < GRAPH_STEPS):
            return self._step(given)
        if batch not in self._graphs:
            self._graphs[batch] = _Graph(self._step, given, [self._parameters, self._buffers, *self._slots])
        return self._graphs[batch](given)

    def _step(self, given: Tensors) -> torch.Tensor:
        """One update from the step's inputs alone; the loss (m,) before it."""
        images = given["images"] if self._pool is None else self._pool[given["rows"]]  # (m, B, *input_shape)
        logits = self._network(self._tensors, images, given)  # (m, B, C)
        loss = common.losses(self._job.loss, logits, given["targets"])
        gradients = torch.autograd.grad(loss.sum(), list(self._leaves.values()))
        with torch.no_grad():
            g = common.concatenate(gradients)  # (m, parameters)
            if self._limits is not None:
                common.clip(g, self._limits)
            for rule in self._rules:
                own = rule.rows
                slots = (slot[own] for slot in self._slots)
                rule.update(self._parameters[own], g[own], *slots, given["rates"][:, own])
        return loss.detach()

    def _images(self, rows: np.ndarray, step: int) -> torch.Tensor:
        """The batch of every model (m, B, *input_shape)."""
        if not self._job.augmentation.any:
            return torch.from_numpy(np.take(self._job.pool, rows, axis=0)).to(self._device)
        images = [common.batch_images(self._job, int(m), rows[i], step) for i, m in enumerate(self.models)]
        return torch.from_numpy(np.stack(images)).to(self._device)

    def _masks(self, step: int, batch: int) -> Tensors:
        """What each dropout node multiplies by, (m, B, *shape)."""
        masks = {}
        for name, rates in self._dropout.items():
            pairs = zip(self.models.tolist(), rates.tolist(), strict=True)
            factors = [common.dropout_factor(self._job, m, name, rate, step, batch) for m, rate in pairs]
            masks[name] = torch.from_numpy(np.stack(factors)).to(self._device)
        return masks


class _Graph:
    """One step as a CUDA graph: inputs are copied to where the capture read them."""

    def __init__(self, step: Callable[[Tensors], torch.Tensor], given: Tensors, state: list[torch.Tensor]) -> None:
        self._given = {name: t.clone() for name, t in given.items()}
        kept = [t.clone() for t in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up in the first calls, which no capture allows
            for _ in range(3):
                step(self._given)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = step(self._given)
        for tensor, value in zip(state, kept, strict=True):  # the warm-up steps are not the model's
            tensor.copy_(value)

    def __call__(self, given: Tensors) -> torch.Tensor:
        for name, tensor in given.items():
            self._given[name].copy_(tensor)
        self._graph.replay()
        return self._loss


# ── the forward pass ──────────────────────────────────────────────────────────────────


class _Network:
    """Weights of m models and images → logits (m, B, C)."""

    def __init__(self, architecture: Architecture, by_vmap: frozenset[str], device: torch.device) -> None:
        self.device = device
        self._architecture = architecture
        channels = max((n.shape[0] for n in architecture.nodes if n.op == "conv"), default=1)
        self.width = min(CPU_WIDTH, max(1, CPU_CHANNELS // channels)) if device.type == "cpu" else CUDA_WIDTH
        # vmap has no rule for a GRU, and modules know nothing of sequences that lie flat.
        own_form = {"dropout", "batch_norm", "rows", "gru", "last_step"}
        known = {*_ELEMENTWISE, *_LAYERS, "softmax"} - by_vmap | own_form
        self._single: dict[str, torch.nn.Module] = {}
        if any(node.op not in known for node in architecture.nodes):
            network = modules.Network(architecture).to(device)
            self._single = {n.name: network.get_submodule(n.name) for n in architecture.nodes if n.op not in known}
        shapes = {"input": architecture.input_shape} | {n.name: n.shape for n in architecture.nodes}
        self._channels = {n.name: shapes[n.inputs[0]][0] for n in architecture.nodes}
        self._tensors = {n.name: [e.name for e in architecture.entries(n.name)] for n in architecture.nodes}

    def evaluation_batch(self, width: int) -> int:
        """Samples at once for so many models."""
        values = CPU_VALUES if self.device.type == "cpu" else CUDA_VALUES
        largest = max(math.prod(n.shape) for n in self._architecture.nodes)
        return min(MOST_SAMPLES, max(1, values // (width * largest)))

    def __call__(self, tensors: Tensors, images: torch.Tensor, masks: Tensors | None = None) -> torch.Tensor:
        """`masks` of dropout nodes mean training; None is evaluation."""
        values = {"input": images}  # stacked
        for node in self._architecture.nodes:
            x = values[node.inputs[0]]
            own = {name.rsplit(".", 1)[1]: tensors[name] for name in self._tensors[node.name]}
            if node.name in self._single:
                x = _by_vmap(self._single[node.name].train(masks is not None), own, x, self._channels[node.name])
            elif node.op in _ELEMENTWISE:
                x = _ELEMENTWISE[node.op](x)
            elif node.op == "softmax":  # over the channels of (m, B, …), or of each model in (B, m·C, H, W)
                stacked = x.dim() != 4
                x = x.softmax(2) if stacked else x.unflatten(1, (-1, node.shape[0])).softmax(2).flatten(1, 2)
            elif node.op == "dropout":
                if masks is not None and node.name in masks:
                    mask = masks[node.name]  # (m, B, *shape)
                    x = x * (_grouped(mask) if x.dim() == 4 else mask.flatten(2) if x.dim() == 3 else mask)
            else:
                x = _LAYERS[node.op](node, own, x, masks is not None)
            values[node.name] = x
        m = len(next(iter(tensors.values())))
        return values[self._architecture.nodes[-1].name].expand(m, -1, -1)


# A layer: its node, its own tensors (m, …), its input, whether it trains.


def _conv(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    weight = own["weight"]  # (m, out, in, k, k)
    x = _grouped(x)
    groups = x.shape[1] // weight.shape[2]  # 1 where all models see the same images
    stride, padding = node.attrs["stride"], node.attrs["padding"]
    return F.conv2d(x, weight.flatten(0, 1), own["bias"].flatten(), stride, padding, groups=groups)


def _linear(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    weight, bias = own["weight"], own["bias"]  # (m, out, in), (m, out)
    if len(x) < len(weight):  # the same input for all: one wide product
        wide = F.linear(x[0], weight.flatten(0, 1), bias.flatten())  # (B, m·out)
        return wide.unflatten(1, bias.shape).transpose(0, 1)
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def _batch_norm(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    m = len(own["weight"])
    mean, variance = own["running_mean"].reshape(-1).clone(), own["running_var"].reshape(-1).clone()
    if len(node.shape) == 3:
        columns = _grouped(x)  # (B, m·C, H, W)
        columns = columns if columns.shape[1] == len(mean) else columns.repeat(1, m, 1, 1)
    else:
        columns = x.expand(m, -1, -1).transpose(0, 1).flatten(1)  # (B, m·features)
    scale, shift = own["weight"].flatten(), own["bias"].flatten()
    columns = F.batch_norm(columns, mean, variance, scale, shift, training, BATCH_NORM_MOMENTUM, BATCH_NORM_EPS)
    if training:
        own["running_mean"].copy_(mean.view_as(own["running_mean"]))
        own["running_var"].copy_(variance.view_as(own["running_var"]))
    return columns if len(node.shape) == 3 else columns.unflatten(1, (m, -1)).transpose(0, 1)


def _max_pool(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    return F.max_pool2d(_grouped(x), node.attrs["kernel"], node.attrs["stride"])


def _avg_pool(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    return F.avg_pool2d(_grouped(x), node.attrs["kernel"], node.attrs["stride"])


def _global_avg_pool(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    means = _grouped(x).mean((2, 3))  # (B, m·C)
    return means.unflatten(1, (-1, node.shape[0])).transpose(0, 1)


def _flatten(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    if x.dim() == 4:  # (B, m·C, H, W) → (B, m, C·H·W)
        return x.reshape(len(x), -1, *node.shape).transpose(0, 1)
    return x.flatten(2)


def _rows(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    x = _grouped(x)  # (B, m·C, H, W), H the steps and C·W the features
    return x.unflatten(1, (-1, node.shape[1] // x.shape[3])).permute(1, 0, 3, 2, 4).flatten(2)


def _gru(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    return modules.gru(own, x.unflatten(2, (node.shape[0], -1))).flatten(2)


def _last_step(node: Node, own: Tensors, x: torch.Tensor, training: bool) -> torch.Tensor:
    return x[:, :, -node.shape[0] :]


_LAYERS = {
    "conv": _conv,
    "linear": _linear,
    "gru": _gru,
    "rows": _rows,
    "last_step": _last_step,
    "batch_norm": _batch_norm,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "flatten": _flatten,
}


def _by_vmap(module: torch.nn.Module, own: Tensors, x: torch.Tensor, channels: int) -> torch.Tensor:
    """Any layer, given its module: `channels` is its input's."""
    if x.dim() == 4:  # (B, m·C, H, W) → (m, B, C, H, W)
        x = x.unflatten(1, (-1, channels)).transpose(0, 1)
    if not own:
        return vmap(module)(x)
    x = x.expand(len(next(iter(own.values()))), *x.shape[1:])
    return vmap(lambda tensors, one: functional_call(module, tensors, (one,)))(own, x)


def _grouped(x: torch.Tensor) -> torch.Tensor:
    """(m, B, C, H, W) → (B, m·C, H, W), channels last in memory on a CPU."""
    if x.dim() == 4:
        return x
    if x.device.type != "cpu":
        return x.transpose(0, 1).flatten(1, 2)
    # Made, not asked for: a single channel counts as both formats, so no conversion would
    # touch its strides, and the kernels choose by strides.
    m, batch, channels, *size = x.shape
    out = torch.empty(batch, m * channels, *size, memory_format=torch.channels_last)
    out.unflatten(1, (m, channels)).copy_(x.transpose(0, 1))
    return out
