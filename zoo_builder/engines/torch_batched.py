"""Job → trained models, all at once: one forward and backward for a whole cohort.

In:  a `Job` and windows of steps. Out: losses, states, logits, as `contract.Backend` says.

The layers are those of `networks/batched.py`, which keep models apart. The loss is summed over
models, so each model's gradient is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo_builder.engines import gpu_memory, graphs
from zoo_builder.engines import torch_common as common
from zoo_builder.engines.contract import Job, Window, check_batches
from zoo_builder.engines.torch_common import Tensors
from zoo_datasets.core import libraries
from zoo_datasets.networks.batched import Batched
from zoo_datasets.networks.gpu import draws

with libraries.needed():
    import torch

# Models side by side, measured on one Zen 3 core: beyond these the activations leave the
# cache, and wide layers gain nothing from company (best: 8 models of 8 channels, 4 of 16,
# 1 of 64, 16 of any MLP).
CPU_WIDTH = 16
CPU_CHANNELS = 64
# Values of the largest layer at once in evaluation: 2 MB on a CPU (a share of its cache), 1 GB on CUDA.
CPU_VALUES, CUDA_VALUES = 2**19, 2**28
MOST_SAMPLES = 256
# A window of fewer steps than this is not worth the capture of a CUDA graph.
GRAPH_STEPS = 8


class TorchBatched:
    """M models in one tensor program."""

    name = "torch_batched"

    def __init__(
        self, job: Job, device: str = "cpu", recorder: graphs.Recorder | None = None, *, drawing: bool | None = None
    ) -> None:
        """`recorder` makes graphs of steps; without one CUDA does on a GPU, and nothing on a CPU.

        `drawing` is whether the device draws batches, augmentation and dropout itself: a GPU does, a CPU is told them.

        Raises GridError where one model does not fit a GPU, BuildError where others leave too little of it.
        """
        self._job = job
        self._device = common.prepare(device)
        self.version = common.version(self._device)
        self._network = _Network(job, self._device)
        self._recorder = recorder
        if self._device.type == "cuda":
            from zoo_datasets.networks.gpu import convolution

            self.version += f", kernels {convolution.VERSION}"
            self._recorder = recorder or graphs.Cuda()
        with gpu_memory.said():
            self._state = common.State(job, self._device)
            self._columns = common.TensorColumns(job.architecture, self._device)
            self._pool = None  # on a CPU batches are gathered from the job's own array
            there = self._device.type != "cpu" if drawing is None else drawing
            if there:
                self._pool = torch.tensor(np.ascontiguousarray(job.pool, np.float32), device=self._device)
        self._slices: dict[bytes, list[_Slice]] = {}

    @property
    def width(self) -> int:
        """Models that step side by side at most."""
        return self._network.width

    def state(self) -> dict[str, np.ndarray]:
        return self._state.copies()

    def weights(self, models: Sequence[int]) -> np.ndarray:
        return self._state.weights[list(models)].cpu().numpy()

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self._state.load(state)

    def advance(self, window: Window) -> np.ndarray:
        check_batches(self._job.architecture, window)
        losses = np.full((self._job.n_models, len(window.batch_sizes)), np.nan, np.float32)
        with gpu_memory.said():
            for part in self._parts(window.active):
                part.load(self._state)
                active = window.active[part.models]
                losses[part.models[active]] = part.train(window)[active]
                part.store(self._state, active)
        return losses

    @gpu_memory.said()
    @torch.inference_mode()
    def logits(
        self, images: np.ndarray, rows: np.ndarray | None = None, models: Sequence[int] | None = None
    ) -> np.ndarray:
        if models is not None:
            # All are run whichever are asked for: how many are side by side may decide the last bits.
            if rows is not None:
                places = np.zeros(self._job.n_models, np.int64)
                places[list(models)] = np.arange(len(models))
                rows = rows[places]
            return self.logits(images, rows)[list(models)]
        job, columns, cpu = self._job, self._columns, self._device.type == "cpu"
        count = len(images) if rows is None else rows.shape[1]
        # A GPU is sent all images once, and gathers there.
        there = None if cpu else torch.tensor(np.asarray(images, np.float32), device=self._device)
        out = np.empty((job.n_models, count, job.architecture.n_logits), np.float32)
        width = min(self._network.width, job.n_models)
        batch = self._network.evaluation_batch(width)
        for first in range(0, job.n_models, width):
            abreast = slice(first, first + width)
            weights = self._state.weights[abreast]
            tensors = columns.views(weights[:, columns.parameters], "parameter")
            tensors |= columns.views(weights[:, columns.buffers], "buffer")
            tensors = {name: t.contiguous() for name, t in tensors.items()}
            for start in range(0, count, batch):
                part = slice(start, start + batch)
                own = None if rows is None else rows[abreast, part]
                if there is None:
                    # A copy: torch has no read-only tensors and warns of read-only arrays.
                    shown = torch.from_numpy(np.array(images[None, part] if own is None else images[own], np.float32))
                else:
                    shown = there[None, part] if own is None else there[torch.from_numpy(own).to(self._device)]
                out[abreast, part] = self._network(tensors, shown).cpu().numpy()
        return out

    def _parts(self, active: np.ndarray) -> list[_Slice]:
        """Models that step together, sorted by update rule and cut to the width that pays: every active one is in a part.

        Inactive ones are along while they are the fewer and steps are recorded: a recording costs more than their
        steps, which nobody stores.
        """
        if self._recorder is not None and 2 * active.sum() > len(active):
            active = np.ones_like(active)
        key = active.tobytes()
        if key not in self._slices:
            self._slices = {}  # frees what the last ones hold
            models = np.flatnonzero(active)
            models = models[np.argsort(self._job.optimizers.kind[models], kind="stable")]
            width = self._network.width
            cut = [models[i : i + width] for i in range(0, len(models), width)]
            # Only the last is kept: activity seldom changes, and a slice holds its weights.
            made = [_Slice(self._job, m, self._network, self._columns, self._pool, self._recorder) for m in cut]
            self._slices = {key: made}
        return self._slices[key]


class _Slice:
    """Models of a cohort that step together: their own copies of weights and slots, and their rates.

    Of inactive models nothing is stored, which is how they keep every bit.
    """

    def __init__(
        self, job: Job, models: np.ndarray, network: _Network, columns: common.TensorColumns, pool: torch.Tensor | None,
        recorder: graphs.Recorder | None,
    ) -> None:  # fmt: skip
        self.models = models
        self._job, self._network, self._columns = job, network, columns
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
        self._drawn = None if pool is None else _Drawn(job, models, self._dropout, pool)
        self._recorder = recorder
        self._graphs: dict[int, graphs.Graph] = {}  # by batch size

    def load(self, state: common.State) -> None:
        """Copy the models' rows here."""
        for own, matrix, columns in self._pairs(state):
            own.copy_(matrix[self._index, columns])

    def store(self, state: common.State, active: np.ndarray) -> None:
        """Copy the rows of the active models (m,) back."""
        chosen = torch.from_numpy(np.flatnonzero(active)).to(self._device)
        for own, matrix, columns in self._pairs(state):
            matrix[self._index[chosen], columns] = own[chosen]

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
        rows = window.rows[models]
        places = None if self._drawn is None else torch.from_numpy(rows).to(device).long()
        steps = window.first_step + torch.arange(len(window.batch_sizes), device=device)
        losses = torch.empty(len(window.batch_sizes), len(models), device=device)
        start = 0
        for j, batch in enumerate(window.batch_sizes.tolist()):
            part = slice(start, start + batch)
            start += batch
            given = {"targets": common.targets_of(self._job, window, models, part).to(device), "rates": rates[j]}
            if places is None:
                given |= self._masks(window.first_step + j, batch)
                given["images"] = self._images(rows[:, part], window.first_step + j)
            else:
                given |= {"rows": places[:, part], "step": steps[j : j + 1]}
            losses[j] = self._run(given, batch, int((window.batch_sizes[j:] == batch).sum()))
        return losses.T.cpu().numpy()

    def _run(self, given: Tensors, batch: int, left: int) -> torch.Tensor:
        if self._recorder is None or (batch not in self._graphs and left < GRAPH_STEPS):
            return self._step(given)
        if batch not in self._graphs:
            state = [self._parameters, self._buffers, *self._slots]
            self._graphs[batch] = graphs.Graph(self._step, given, state, self._recorder)
        return self._graphs[batch](given)

    def _step(self, given: Tensors) -> torch.Tensor:
        """One update from the step's inputs alone; the loss (m,) before it."""
        if self._drawn is None:
            images, masks = given["images"], given  # (m, B, *input_shape)
        else:
            images, masks = self._drawn(given["rows"], given["step"])
        logits = self._network(self._tensors, images, masks)  # (m, B, C)
        loss = common.losses(self._job.loss, logits, given["targets"])
        gradients = torch.autograd.grad(loss.sum(), list(self._leaves.values()))
        with torch.no_grad():
            g = common.concatenate(gradients)  # (m, parameters)
            if self._limits is not None:
                common.clip(g, self._limits)
            for rule in self._rules:
                own, (slot1, slot2) = rule.rows, self._slots
                rule.update(self._parameters[own], g[own], slot1[own], slot2[own], given["rates"][:, own])
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


class _Drawn:
    """What the device draws for the models of a slice: their batches as they see them, and dropout's factors."""

    def __init__(self, job: Job, models: np.ndarray, dropout: dict[str, np.ndarray], pool: torch.Tensor) -> None:
        """`dropout` has the models' rates by node."""
        augment, keys = (
            draws.keys([of[m] for m in models.tolist()], pool.device) for of in (job.augment_key, job.dropout_key)
        )
        self._pool = pool
        self._images = draws.Images(job.augmentation, augment, pool.shape[1:])
        self._factors = {
            node.name: draws.Dropout(layer, node.shape, keys, dropout[node.name])
            for layer, node in enumerate(job.architecture.nodes)
            if node.name in dropout
        }

    def __call__(self, rows: torch.Tensor, step: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        """Images (m, B, *input_shape) and factors (m, B, *shape) by node, of the rows (m, B) at that step (1,)."""
        factors = {name: of(rows.shape[1], step) for name, of in self._factors.items()}
        return self._images(self._pool, rows, step), factors


class _Network:
    """The batched network, and how many models and samples it takes at once."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.device = device
        self._layers = Batched(job.architecture, device)
        channels = max((n.shape[0] for n in job.architecture.nodes if n.op == "conv"), default=1)
        self.width = min(CPU_WIDTH, max(1, CPU_CHANNELS // channels))
        if device.type == "cuda":
            whole = torch.cuda.get_device_properties(device).total_memory
            self.width = gpu_memory.width(job.architecture, job.batch_size, whole)
            abreast = min(self.width, job.n_models)
            gpu_memory.check_free(job.architecture, job.batch_size, job.n_models, abreast, job.pool.nbytes, device)

    def evaluation_batch(self, width: int) -> int:
        """Samples at once for so many models."""
        values = CPU_VALUES if self.device.type == "cpu" else CUDA_VALUES
        return min(MOST_SAMPLES, max(1, values // (width * self._layers.largest)))

    def __call__(self, tensors: Tensors, images: torch.Tensor, masks: Tensors | None = None) -> torch.Tensor:
        """Logits (m, B, C) of stacked images; `masks` of dropout nodes mean training, None is evaluation."""
        return self._layers(tensors, {"input": images}, masks)
