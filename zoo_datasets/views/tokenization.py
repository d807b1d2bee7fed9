"""Weights → tokens of layers, units or windows, and back, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from zoo_datasets import errors
from zoo_datasets.core import notebook, streams
from zoo_datasets.networks.layout import Entry, Layout
from zoo_datasets.views.index import entries_of, gather, padded, range_of


@dataclasses.dataclass(frozen=True, repr=False)
class Tokens:
    """A vector cut into T tokens of D values, zero where the mask is false."""

    values: Shaped[np.ndarray, "*batch t d"]
    mask: Bool[np.ndarray, "t d"]
    positions: Int64[np.ndarray, "t 3"]  # token, layer (0, 1, …), place in the layer
    index: Int64[np.ndarray, "t d"]  # where in the vector, −1 where the mask is false
    n_params: int

    def __repr__(self) -> str:
        *batch, n, size = self.values.shape
        layers = len(np.unique(self.positions[:, 1]))
        of = f", {' × '.join(f'{b:,}' for b in batch)} networks" if batch else ""
        return f"Tokens: {n:,} of up to {size:,} values, {layers} layers{of}, {self.n_params:,} values each"

    def _repr_html_(self) -> str:
        rows = []
        for layer in np.unique(self.positions[:, 1]).tolist():
            own = self.mask[self.positions[:, 1] == layer].sum(axis=1)
            rows.append((layer, f"{len(own):,}", " to ".join(map(str, sorted({int(own.min()), int(own.max())})))))
        return notebook.table(repr(self), ("layer", "tokens", "values in each"), rows)


def tokens(
    weights: Shaped[np.ndarray, "*batch p"], layout: Layout, by: str = "layer", *, size: int | None = None,
    buffers: bool = True,
) -> Tokens:  # fmt: skip
    """Tokens of each vector, with mask and positions; `untokens` gives the vectors back.

    `layer`: a token a layer, with all its tensors. `neuron`: a token a unit or channel, its
    incoming weights and bias (Schürholt et al. 2021; a batch norm's units are
    tokens of their own). `window`: `size` consecutive values, cut anew at each layer. With
    `size`, tokens of layers and neurons longer than that are cut into pieces (for neurons
    as SANE does: Schürholt et al., "Towards Scalable and Versatile Weight Space Learning",
    2024). Positions are those of SANE.
    """
    weights = layout.checked(weights)
    if by not in ("layer", "neuron", "window"):
        raise ValueError(errors.unknown("kind of token", by, ("layer", "neuron", "window")))
    if by == "window" and size is None:
        raise ValueError('tokens(by="window") needs a `size`: how many consecutive values a token takes.')
    if size is not None and size < 1:
        raise ValueError(f"`size` is {size}; a token takes at least 1 value.")
    pieces: list[np.ndarray] = []
    positions: list[tuple[int, int, int]] = []
    for number, members in enumerate(_layers(entries_of(layout, buffers))):
        place = 0
        for row in _units(members) if by == "neuron" else [np.concatenate([range_of(e) for e in members])]:
            step = size or len(row)
            for start in range(0, len(row), step):
                positions.append((len(pieces), number, place))
                pieces.append(row[start : start + step])
                place += 1
    index = padded(pieces)
    mask = index >= 0
    return Tokens(gather(weights, index), mask, np.array(positions, np.int64).reshape(-1, 3), index, weights.shape[-1])


def untokens(
    tokens: Tokens, values: np.ndarray | None = None, buffers: np.ndarray | None = None
) -> Shaped[np.ndarray, "*batch p"]:
    """The vectors of tokens, bit for bit, or of other `values` [..., T, D] in their place.

    `buffers` [..., n] in layout order fill what tokens without buffers left out.
    Raises ValueError where shapes do not fit or buffers are missing.
    """
    values = tokens.values if values is None else np.asarray(values)
    if values.shape[-2:] != tokens.index.shape:
        raise ValueError(f"Token values have shape {values.shape}; {('...', *tokens.index.shape)} is needed.")
    out = np.zeros((*values.shape[:-2], tokens.n_params), values.dtype)
    seen = np.zeros(tokens.n_params, bool)
    seen[tokens.index[tokens.mask]] = True
    out[..., tokens.index[tokens.mask]] = values[..., tokens.mask]
    missing = int((~seen).sum())
    if missing:
        given = None if buffers is None else np.shape(buffers)
        if given is None or given[-1:] != (missing,):
            raise ValueError(
                f"These tokens leave out {missing} buffers of {tokens.n_params} values; pass `buffers` of shape "
                f"(..., {missing}), got {given}."
            )
        out[..., ~seen] = buffers
    return out


def _layers(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Neighboring tensors of one node: `conv1.weight` and `conv1.bias`."""
    layers: dict[str, list[Entry]] = {}
    for e in entries:
        layers.setdefault(e.node, []).append(e)
    return list(layers.values())


def _units(members: Sequence[Entry]) -> list[np.ndarray]:
    """Places of each unit's own values in a layer; tensors of another first dimension go apart."""
    rows: dict[int, list[np.ndarray]] = {}
    for e in members:
        n = e.shape[0] if e.shape else 1
        rows.setdefault(n, []).append(range_of(e).reshape(n, -1))
    return [row for parts in rows.values() for row in np.concatenate(parts, axis=1)]


def window(
    weights: Shaped[np.ndarray, " ..."], k: int, key: Any
) -> tuple[Shaped[np.ndarray, "s {k}"], Int64[np.ndarray, " s"]]:
    """k consecutive values of each row [S, P] at a random offset: the values, and the offsets.

    The local view of NWS (Eilertsen et al. 2020). `key` is any JSON value; row i's offset
    depends on key, i, k and P alone, uniform in 0 … P − k. For windows without buffers pass
    `flat(weights, layout, buffers=False)`.
    """
    weights = np.asarray(weights)
    if weights.ndim != 2:
        raise ValueError(f"Weights have shape {weights.shape}; window needs rows (S, P).")
    n, width = weights.shape
    if not 1 <= k <= width:
        raise ValueError(f"A window of {k} values does not fit into weights of shape {weights.shape}: 1 ≤ k ≤ {width}.")
    offsets = streams.integers(streams.stream_key(["window", key]), np.full(n, width - k + 1))  # [S]
    if not n:
        return weights[:, :k], offsets
    return np.lib.stride_tricks.sliding_window_view(weights, k, axis=1)[np.arange(n), offsets], offsets
