"""Job → trained models, one `nn.Module` after another: the reference.

In:  a `Job` and windows of steps. Out: losses, states, logits, as `contract.Backend` says.

Forward and backward are `modules.Network` and autograd; only dropout's draws and the
updates are ours. Where another engine and this one disagree by more than rounding, the
other is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo_builder.engines import torch_common as common
from zoo_builder.engines.contract import Job, Window, check_batches
from zoo_datasets.core import libraries
from zoo_datasets.networks.modules import Network

with libraries.needed():
    import torch
    from torch import nn

# Samples per forward of `logits`: large enough to hide call overhead, small enough for the cache.
EVALUATION_BATCH = 256


class TorchLoop:
    """M models, trained one at a time."""

    name = "torch_loop"

    def __init__(self, job: Job, device: str = "cpu") -> None:
        self._job = job
        self._device = common.prepare(device)
        self.version = common.version(self._device)
        self._state = common.State(job, self._device)
        self._columns = columns = common.TensorColumns(job.architecture, self._device)
        self._rates = common.dropout_rates(job)
        # One network serves all models: its tensors are views into two rows that are refilled.
        self._parameters = torch.zeros(1, len(columns.parameters), device=self._device)
        self._buffers = torch.zeros(1, len(columns.buffers), device=self._device)
        self._network = Network(job.architecture).to(self._device)
        for name in self._rates:
            setattr(self._network, name, _Dropout())
        for role, row in (("parameter", self._parameters), ("buffer", self._buffers)):
            for name, view in columns.views(row, role).items():
                module, leaf = name.rsplit(".", 1)
                tensor = nn.Parameter(view[0]) if role == "parameter" else view[0]
                setattr(self._network.get_submodule(module), leaf, tensor)
        self._leaves = [self._network.get_parameter(e.name) for e in job.architecture.layout if e.role == "parameter"]

    def state(self) -> dict[str, np.ndarray]:
        return self._state.copies()

    def weights(self, models: Sequence[int]) -> np.ndarray:
        return self._state.weights[list(models)].cpu().numpy()

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self._state.load(state)

    def advance(self, window: Window) -> np.ndarray:
        check_batches(self._job.architecture, window)
        losses = np.full((self._job.n_models, len(window.batch_sizes)), np.nan, np.float32)
        for model in np.flatnonzero(window.active):
            losses[model] = self._train(int(model), window)
        return losses

    def _train(self, model: int, window: Window) -> np.ndarray:
        job, state, network = self._job, self._state, self._network
        alone = np.array([model])
        (rule,) = common.rules(job, alone, self._device)
        limits = common.clip_limits(job, alone, self._device)
        rates = common.rates(job, window, alone, self._device)  # (T, 4, 1, 1)
        slot1, slot2 = (slot[model, self._columns.parameters][None] for slot in (state.slot1, state.slot2))
        self._load(model)
        network.train()
        losses, start = torch.empty(len(window.batch_sizes), device=self._device), 0
        for j, batch in enumerate(window.batch_sizes.tolist()):
            step, part = window.first_step + j, slice(start, start + batch)
            start += batch
            images = torch.from_numpy(common.batch_images(job, model, window.rows[model, part], step))
            targets = common.targets_of(job, window, alone, part)  # (1, B, …)
            for name, rate in self._rates.items():
                factor = common.dropout_factor(job, model, name, float(rate[model]), step, batch)
                network.get_submodule(name).factor = torch.from_numpy(factor).to(self._device)
            logits = network(images.to(self._device))
            loss = common.losses(job.loss, logits.flatten(1)[None], targets.to(self._device)).sum()  # of one model
            gradients = torch.autograd.grad(loss, self._leaves)
            with torch.no_grad():
                g = common.concatenate([g[None] for g in gradients])  # (1, parameters)
                if limits is not None:
                    common.clip(g, limits)
                rule.update(self._parameters, g, slot1, slot2, rates[j])
            losses[j] = loss.detach()
        self._store(model, slot1, slot2)
        return losses.cpu().numpy()

    def logits(
        self, images: np.ndarray, rows: np.ndarray | None = None, models: Sequence[int] | None = None
    ) -> np.ndarray:
        job, network = self._job, self._network
        chosen = range(job.n_models) if models is None else models
        count = len(images) if rows is None else rows.shape[1]
        out = np.empty((len(chosen), count, job.architecture.n_logits), np.float32)
        network.eval()
        for place, model in enumerate(chosen):
            self._load(model)
            with torch.inference_mode():
                for start in range(0, count, EVALUATION_BATCH):
                    part = slice(start, start + EVALUATION_BATCH)
                    # A copy: torch has no read-only tensors and warns of read-only arrays.
                    shown = np.array(images[part] if rows is None else images[rows[place, part]], np.float32)
                    out[place, part] = network(torch.from_numpy(shown).to(self._device)).flatten(1).cpu().numpy()
        return out

    def _load(self, model: int) -> None:
        weights = self._state.weights[model]
        self._parameters.copy_(weights[self._columns.parameters])
        self._buffers.copy_(weights[self._columns.buffers])

    def _store(self, model: int, slot1: torch.Tensor, slot2: torch.Tensor) -> None:
        state, columns = self._state, self._columns
        state.weights[model, columns.parameters] = self._parameters[0]
        state.weights[model, columns.buffers] = self._buffers[0]
        state.slot1[model, columns.parameters] = slot1[0]
        state.slot2[model, columns.parameters] = slot2[0]


class _Dropout(nn.Module):
    """Dropout whose draws are given."""

    factor: torch.Tensor  # (B, *shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor if self.training else x
