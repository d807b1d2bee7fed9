"""Snapshots → trajectories: weights by model and step."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Shaped

from zoo_datasets import errors


class Rows(Protocol):
    """A matrix [S, P] that gives copies of its rows: an array, or a zoo's lazy weights."""

    @property
    def shape(self) -> tuple[int | None, ...]: ...
    def __getitem__(self, index: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Weights by model and step; 0 where the mask is false."""

    values: Shaped[np.ndarray, "m t p"]
    mask: Bool[np.ndarray, "m t"]
    model_ids: tuple[str, ...]
    at: Shaped[np.ndarray, " t"]  # step, epoch, or 0, 1, … for `by="order"`


def trajectories(weights: Rows, snapshots: pa.Table, by: str = "step") -> Trajectories:
    """Trajectories of rows [S, P] that lie in the order of the snapshots table (S rows).

    Models come in the order of their first row. The second axis is every distinct `step` (or
    `epoch`) there is, or with `by="order"` the k-th snapshot of a model, whatever its step.
    """
    if by not in ("step", "epoch", "order"):
        raise ValueError(errors.unknown("axis of trajectories", by, ("step", "epoch", "order")))
    shape = tuple(weights.shape)
    if shape[1:] == (None,):
        raise ValueError("These weights mix layouts; take one layout at a time: weights.by_layout().")
    if len(shape) != 2 or shape[0] != len(snapshots):
        raise ValueError(
            f"Weights have shape {shape}; for {len(snapshots)} rows of snapshots ({len(snapshots)}, P) is needed."
        )
    encoded = snapshots["model_id"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    model = encoded.indices.to_numpy()  # [S], in order of first appearance
    ids = tuple(encoded.dictionary.to_pylist())
    column = snapshots["step" if by == "order" else by].to_numpy()
    if by == "order":
        order = np.lexsort((column, model))
        first = np.searchsorted(model[order], np.arange(len(ids)))
        place = np.empty(len(model), np.int64)
        place[order] = np.arange(len(model)) - first[model[order]]
        at = np.arange(place.max(initial=-1) + 1)
    else:
        at, place = np.unique(column, return_inverse=True)
    mask = np.zeros((len(ids), len(at)), bool)
    mask[model, place] = True
    if mask.sum() != len(model):
        raise ValueError(
            f"{len(model) - mask.sum()} rows repeat a model at the same {by}: a trajectory has one snapshot each."
        )
    rows = np.asarray(weights[np.arange(len(model))])
    try:
        values = np.zeros((*mask.shape, rows.shape[1]), rows.dtype)
    except MemoryError:
        raise ValueError(
            f"{len(ids):,} models at {len(at):,} values of {by} with {rows.shape[1]:,} weights are "
            f"{mask.size * rows.shape[1] * rows.dtype.itemsize / 1e9:,.0f} GB, more than there is. Where few models share a {by}, take "
            "by='order'; else fewer models."
        ) from None
    values[model, place] = rows
    return Trajectories(values, mask, ids, at)
