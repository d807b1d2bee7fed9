"""Weights → other members of their orbit: permuted as told, or drawn at random."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Integer, Shaped

from zoo_datasets import errors
from zoo_datasets.core import exact, streams
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layout import Layout
from zoo_datasets.symmetry.units import (
    KINDS,
    Factor,
    Group,
    Permutations,
    factors_of,
    groups,
    kinds_of,
    matrix_of,
    tensor_of,
)

MOST_OCTAVES = 30  # float32 holds weights of any usual size times 2^30 twice over

# ── permutations ──────────────────────────────────────────────────────────────────────


def permute(
    weights: Shaped[np.ndarray, "*batch p"], layout: Layout, permutations: Mapping[str, np.ndarray]
) -> Shaped[np.ndarray, "*batch p"]:
    """Vectors whose unit i is unit p[i] of `weights`, for p [units] or [..., units] of each group.

    The same bits of the same type in other places; `permute(·, layout, invert(permutations))` undoes it.
    Raises ValueError for shapes that do not fit, ZooError for a group that is not there.
    """
    weights = layout.checked(np.asarray(weights))
    out = weights.reshape(math.prod(weights.shape[:-1]), layout.n_params).copy()
    known = {g.name: g for g in groups(layout)}
    for name, value in permutations.items():
        if name not in known:
            raise errors.ZooError(errors.unknown("group of units", name, known))
        permute_group(out, known[name], _indices(value, known[name], len(out), weights.shape))
    return out.reshape(weights.shape)


def invert(permutations: Mapping[str, np.ndarray]) -> Permutations:
    """The permutations that undo these: each [..., units]."""
    return {name: np.argsort(value, axis=-1, kind="stable") for name, value in permutations.items()}


def random_permutations(layout: Layout, n: int, key: Any) -> Permutations:
    """n uniform permutations of every group, int64 [n, units] each; row i depends on `key` and i alone."""
    return {
        g.name: np.argsort(
            streams.words(streams.stream_key(["permutation", g.name, key]), n * g.units).reshape(n, g.units),
            axis=1, kind="stable",
        )
        for g in groups(layout)
    }  # fmt: skip


def permute_group(rows: Shaped[np.ndarray, "s p"], group: Group, index: Integer[np.ndarray, "s {group.units}"]) -> None:
    """Reorder one group of rows in place."""
    for place in group.places:
        tensor = tensor_of(rows, place)  # (S, …, units, block, …)
        axis = 1 + place.dim
        shape = [len(rows)] + [1] * (tensor.ndim - 1)
        shape[axis] = group.units
        tensor[...] = np.take_along_axis(tensor, index.reshape(shape), axis)


def _indices(value: np.ndarray, group: Group, n: int, shape: tuple[int, ...]) -> np.ndarray:
    value = np.asarray(value)
    if value.shape not in ((group.units,), (*shape[:-1], group.units)):
        raise ValueError(
            f"The permutation of {group.name!r} has shape {value.shape}; for weights of shape {shape} it must be "
            f"({group.units},) or {(*shape[:-1], group.units)}."
        )
    index = np.broadcast_to(value.reshape(-1, group.units), (n, group.units))
    if (np.sort(index, axis=1) != np.arange(group.units)).any():
        raise ValueError(f"The permutation of {group.name!r} does not hold each of 0 … {group.units - 1} once.")
    return index


# ── a random member ───────────────────────────────────────────────────────────────────


def augment(
    weights: Shaped[np.ndarray, "*batch p"], architecture: Architecture | External, key: Any,
    *, kinds: Collection[str] = KINDS, octaves: float = 1.0,
) -> Float32[np.ndarray, "*batch p"]:  # fmt: skip
    """A random member of each vector's orbit.

    `key` is any JSON value; row i depends on it and i alone, the same on every machine.
    Permutations are uniform, signs fair, scales 2^u with u uniform in ±octaves. Permutation
    and sign keep every magnitude; scale rounds to float32. Raises ValueError.
    """
    kinds = kinds_of(kinds)
    if not 0 <= octaves <= MOST_OCTAVES:
        raise ValueError(
            f"`octaves` is {octaves!r}; a number from 0 to {MOST_OCTAVES} is needed, for scales are 2^±octaves."
        )
    weights, rows = matrix_of(weights, architecture.layout)
    out, n = rows.copy(), len(rows)
    for f in factors_of(architecture, kinds):
        where = [f.source, f.sink, key]
        if f.scale and "scale" in kinds:
            u = streams.uniforms(streams.stream_key(["scale", *where]), n * f.units).reshape(n, f.units)
            # `exact.exp` takes x ≤ 0, so 2^u is drawn as 2^octaves · e^(…).
            multiply(out, f, 2.0**octaves * exact.exp((u - 1.0) * (2.0 * octaves * math.log(2.0))))
        if f.sign and "sign" in kinds:
            u = streams.uniforms(streams.stream_key(["sign", *where]), n * f.units).reshape(n, f.units)
            multiply(out, f, np.where(u < 0.5, -1.0, 1.0))
    if "permutation" in kinds:
        drawn = random_permutations(architecture.layout, n, key)
        for group in groups(architecture.layout):
            permute_group(out, group, drawn[group.name])
    return out.reshape(weights.shape)


def multiply(rows: Float32[np.ndarray, "s p"], factor: Factor, c: Float64[np.ndarray, "s {factor.units}"]) -> None:
    """`up` times c, `down` divided by c, in place."""
    for places, by in ((factor.up, c), (factor.down, 1.0 / c)):
        for place in places:
            tensor = tensor_of(rows, place)
            shape = [len(rows)] + [1] * (tensor.ndim - 1)
            shape[1 + place.dim] = factor.units
            tensor[...] = tensor * by.reshape(shape)
