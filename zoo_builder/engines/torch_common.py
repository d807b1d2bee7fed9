"""What the two torch engines share: columns of the flat vector, draws, losses, updates.

In:  a `Job`'s vectors and a `Window`'s rates. Out: tensors, and updates in place.

Parameters and buffers are kept in two matrices, because optimizer, decay and clipping
must not see a running statistic. Every vector over models is (m, 1), to stand beside a
matrix (m, parameters).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from zoo_builder.engines.contract import ADAM, ADAMW, RMSPROP, SGD, Job, Window
from zoo_datasets.core import libraries, streams
from zoo_datasets.networks import augment
from zoo_datasets.networks.architecture import Architecture

with libraries.needed():
    import torch
    import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]

CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_'s


def prepare(device: str) -> torch.device:
    """The device, with what it takes to get the same bits twice."""
    where = torch.device(device)
    if where.type == "cpu":
        torch.set_num_threads(1)  # workers are one per core; a second thread only spins
    else:
        # Without a fixed workspace cuBLAS may pick another algorithm per stream.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return where


def version(device: torch.device) -> str:
    """What the bits depend on besides the instruction set: "torch 2.13.0"."""
    release = torch.__version__.split("+")[0]
    if device.type == "cpu":
        return f"torch {release}"
    return f"torch {release} cuda {torch.version.cuda} {torch.cuda.get_device_name(device)}"


class TensorColumns:
    """Where the tensors of a layout lie once parameters and buffers are kept apart."""

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        mask = architecture.layout.buffer_mask()
        self.parameters = torch.from_numpy(np.flatnonzero(~mask)).to(device)
        self.buffers = torch.from_numpy(np.flatnonzero(mask)).to(device)
        self._layout = architecture.layout

    def views(self, matrix: torch.Tensor, role: str) -> Tensors:
        """Named views (m, *shape) into the matrix (m, columns) of all tensors of that role."""
        views: Tensors = {}
        start = 0
        for e in (e for e in self._layout if e.role == role):
            # One row's tensor is contiguous, so `view` works although the rows lie apart.
            views[e.name] = matrix[:, start : start + e.size].view(len(matrix), *e.shape)
            start += e.size
        return views


class State:
    """Weights and optimizer slots of all models: three matrices (M, P) on the device."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.weights = torch.tensor(job.initial, dtype=torch.float32, device=device)
        self.slot1, self.slot2 = torch.zeros_like(self.weights), torch.zeros_like(self.weights)

    def copies(self) -> dict[str, np.ndarray]:
        return {name: t.to("cpu", copy=True).numpy() for name, t in vars(self).items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        for name, tensor in vars(self).items():
            tensor.copy_(torch.tensor(state[name], dtype=torch.float32))


# ── draws ─────────────────────────────────────────────────────────────────────────────


def batch_images(job: Job, model: int, rows: np.ndarray, step: int) -> np.ndarray:
    """One model's batch (B, *input_shape), augmented; a fresh array."""
    images = job.pool[rows]
    if job.augmentation.any:
        images = augment.augmented(images, job.augmentation, job.augment_key[model], step)
    return np.ascontiguousarray(images, np.float32)


def dropout_rates(job: Job) -> dict[str, np.ndarray]:
    """Rates (M,) of the dropout nodes, by name, in forward order."""
    return {
        node.name: job.dropout_rate if node.attrs["rate"] is None else np.full(job.n_models, node.attrs["rate"])
        for node in job.architecture.nodes
        if node.op == "dropout"
    }


def dropout_factor(job: Job, model: int, name: str, rate: float, step: int, batch: int) -> np.ndarray:
    """What the units of that node are multiplied by: 0 or 1 / (1 − rate), float32 (B, *shape)."""
    layer, node = next((i, n) for i, n in enumerate(job.architecture.nodes) if n.name == name)
    if rate == 0:
        return np.ones((batch, *node.shape), np.float32)
    keep = streams.dropout_keep(job.dropout_key[model], rate, step, layer, batch, int(np.prod(node.shape)))
    return (keep * np.float32(1 / (1 - rate))).reshape(batch, *node.shape)


# ── losses and updates ────────────────────────────────────────────────────────────────


def targets_of(job: Job, window: Window, models: np.ndarray, part: slice) -> torch.Tensor:
    """What is right of a part of the window: classes (m, B), or step by step (m, B, T) or (m, B, T, K)."""
    if job.outputs is not None:
        return torch.from_numpy(job.outputs[window.rows[models, part]])
    return torch.from_numpy(window.targets[models, part].astype(np.int64))


def losses(kind: str, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean loss of each model's batch: (m, B, C) and `targets_of` → (m,). Logits of a sequence lie flat."""
    if targets.dim() == 4:
        assert kind == "mse", "values are learned by their squares alone"
        return (logits - targets.flatten(2)).square().flatten(1).mean(1)
    if targets.dim() == 3:  # every step is an example
        logits, targets = logits.unflatten(2, (targets.shape[2], -1)).flatten(1, 2), targets.flatten(1)
    m, batch, classes = logits.shape
    if kind == "cross_entropy":
        each = F.cross_entropy(logits.reshape(m * batch, classes), targets.reshape(-1), reduction="none")
        return each.view(m, batch).mean(1)
    if kind == "mse":
        return (logits - torch.zeros_like(logits).scatter_(2, targets[..., None], 1.0)).square().flatten(1).mean(1)
    raise ValueError(f"Unknown loss {kind!r}. Known: cross_entropy, mse.")


# Row numbers of what `rates` gives for each step.
LR, ADAM_LR, ROOT_BIAS2, SHRINK = range(4)


def rates(job: Job, window: Window, models: np.ndarray, device: torch.device) -> torch.Tensor:
    """lr, lr / bias1, √bias2 and 1 − lr · weight_decay, float32 (T, 4, m, 1), computed in float64."""
    lr, bias1, bias2 = window.lr[models], window.bias1[models], window.bias2[models]  # (m, T)
    with np.errstate(all="ignore"):  # a rate of 1e300 is float32's inf, and no concern of SGD's is a bias of 0
        decayed = 1 - lr * job.optimizers.weight_decay[models, None]
        stacked = np.stack([lr, lr / bias1, np.sqrt(bias2), decayed]).astype(np.float32)  # (4, m, T)
    return torch.from_numpy(np.ascontiguousarray(stacked.transpose(2, 0, 1)[..., None])).to(device)


@dataclasses.dataclass(frozen=True)
class Rule:
    """The update of consecutive rows of one kind: what `rates` does not hold, each (m, 1)."""

    kind: int
    rows: slice
    momentum: torch.Tensor
    nesterov: torch.Tensor | None  # None where no row wants it
    decay: torch.Tensor | None  # or (m, parameters); None where no gradient takes any
    beta1: torch.Tensor
    beta2: torch.Tensor
    rest1: torch.Tensor  # 1 − β, subtracted in float64
    rest2: torch.Tensor
    eps: torch.Tensor
    alpha: torch.Tensor
    rest_alpha: torch.Tensor
    factor: torch.Tensor | None = None  # (m, parameters): of the learning rate; None where all are 1

    def update(self, p: torch.Tensor, g: torch.Tensor, s1: torch.Tensor, s2: torch.Tensor, rate: torch.Tensor) -> None:
        """One step in place: all (m, parameters), `rate` (4, m, 1). `g` is spent."""
        lr = rate[LR if self.kind in (SGD, RMSPROP) else ADAM_LR]
        if self.factor is not None:
            lr = lr * self.factor
        if self.decay is not None:
            g.addcmul_(p, self.decay)
        if self.kind == SGD:
            s1.mul_(self.momentum).add_(g)
            move = s1 if self.nesterov is None else torch.where(self.nesterov, g.addcmul_(s1, self.momentum), s1)
            p.sub_(move * lr)
        elif self.kind == RMSPROP:
            s2.mul_(self.alpha).add_(g.square().mul_(self.rest_alpha))
            p.sub_(g.mul_(lr).div_(s2.sqrt().add_(self.eps)))
        else:
            if self.kind == ADAMW:
                p.mul_(rate[SHRINK])
            s1.mul_(self.beta1).addcmul_(g, self.rest1)
            s2.mul_(self.beta2).add_(g.square_().mul_(self.rest2))
            step = s2.sqrt().div_(rate[ROOT_BIAS2]).add_(self.eps)
            p.sub_(torch.div(s1, step, out=step).mul_(lr))


def rules(job: Job, models: np.ndarray, device: torch.device) -> list[Rule]:
    """The update rules of `models`, which must come sorted by kind."""
    o = job.optimizers
    kinds = o.kind[models]
    assert (np.diff(kinds) >= 0).all()

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)

    def column(values: np.ndarray, members: np.ndarray) -> torch.Tensor:  # (m, 1)
        return tensor(values[members, None])

    found = []
    for kind in np.unique(kinds):
        if kind not in (SGD, ADAM, ADAMW, RMSPROP):
            raise ValueError(f"Unknown optimizer kind {kind}. Known: SGD 0, ADAM 1, ADAMW 2, RMSPROP 3.")
        at = np.flatnonzero(kinds == kind)
        own = models[at]
        factor = np.ones((len(own), 1))
        if job.rate_factors is not None:
            factor = _of_parameters(job.architecture, job.rate_factors[own])
        decay = o.weight_decay[own, None] / factor
        found.append(
            Rule(
                kind=int(kind),
                rows=slice(int(at[0]), int(at[-1]) + 1),
                momentum=column(o.momentum, own),
                nesterov=column(o.nesterov, own) > 0 if o.nesterov[own].any() else None,
                decay=tensor(decay) if kind != ADAMW and decay.any() else None,
                beta1=column(o.beta1, own),
                beta2=column(o.beta2, own),
                rest1=column(1 - o.beta1, own),
                rest2=column(1 - o.beta2, own),
                eps=column(o.eps, own),
                alpha=column(o.alpha, own),
                rest_alpha=column(1 - o.alpha, own),
                factor=tensor(factor) if (factor != 1).any() else None,
            )
        )
    return found


def _of_parameters(architecture: Architecture, of_tensors: np.ndarray) -> np.ndarray:
    """(m, tensors of the layout) → (m, parameters)."""
    sizes = [e.size if e.role == "parameter" else 0 for e in architecture.layout]
    return np.repeat(of_tensors, sizes, axis=1)


def clip_limits(job: Job, models: np.ndarray, device: torch.device) -> torch.Tensor | None:
    """Largest gradient norms (m, 1), inf for never; None where no model has one."""
    limits = job.optimizers.clip_norm[models]
    return torch.from_numpy(limits.astype(np.float32)[:, None]).to(device) if np.isfinite(limits).any() else None


def clip(g: torch.Tensor, limits: torch.Tensor) -> None:
    """Scale each row of (m, parameters) to its limit, in place."""
    norm = torch.linalg.vector_norm(g, dim=1, keepdim=True)
    # Squares leave float32 long before their root does: a factor of 0 would stop the model, and nothing would say so.
    wide = torch.linalg.vector_norm(g, dim=1, keepdim=True, dtype=torch.float64)
    factor = torch.where(norm.isinf(), (limits / wide).to(g.dtype), limits / (norm + CLIP_EPS)).clamp(max=1)
    # ∞/∞ is NaN: without a limit even an overflowing gradient stays as it is.
    g.mul_(factor.masked_fill_(limits.isinf(), 1))


def concatenate(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Gradients (m, *shape) of all parameters in layout order → (m, parameters)."""
    return torch.cat([g.flatten(1) for g in gradients], 1)
