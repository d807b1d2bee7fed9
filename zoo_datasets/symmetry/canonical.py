"""Weights → one representative of their orbit."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.symmetry.moves import multiply, permute_group
from zoo_datasets.symmetry.units import KINDS, Factor, Group, by_unit, factors_of, groups, kinds_of, matrix_of


def canonicalize(
    weights: Shaped[np.ndarray, "*batch p"], architecture: Architecture | External, *, kinds: Collection[str] = KINDS
) -> Float32[np.ndarray, "*batch p"]:
    """The representative of each vector's orbit.

    One sweep forward, so that what a layer reads is settled before the layer is. Scale: what
    enters a unit (weights and bias) has norm 1. Sign: the largest of it in magnitude is
    positive. Permutation: units ascend by what enters them, compared value by value.

    Equal bits for vectors that differ by permutations or signs; by scale, equal up to
    rounding (and two units may swap if their first weights differ by rounding only). Not
    settled: scale and sign of a unit that nothing enters (all zero), the scale of one whose outputs, or what
    is added to it later, float32 would not hold (networks that diverged, units that decayed), and the order of units with the same inputs
    whose outputs hold the same magnitudes.
    Raises ValueError.
    """
    kinds = kinds_of(kinds)
    weights, rows = matrix_of(weights, architecture.layout)
    out = rows.copy()
    by_source = {f.source: f for f in factors_of(architecture, kinds)}
    ordered = {g.name: g for g in groups(architecture.layout)} if "permutation" in kinds else {}
    last_of = _last_owner(ordered)
    for node in architecture.layout.by_node:
        factor = by_source.get(node)
        if factor is not None:
            inputs = np.concatenate([by_unit(out, p) for p in factor.first], axis=2)  # (S, units, K)
            if factor.scale and "scale" in kinds:
                norm = np.sqrt((inputs.astype(np.float64) ** 2).sum(2))
                norm = np.where((norm > 0) & _finite(out, factor, norm), norm, 1.0)
                multiply(out, factor, 1.0 / norm)
            if factor.sign and "sign" in kinds:
                top = np.take_along_axis(inputs, np.abs(inputs).argmax(2)[..., None], 2)[..., 0]
                multiply(out, factor, np.where(top < 0, -1.0, 1.0))
        for group in last_of.get(node, ()):
            permute_group(out, group, _order(out, group))
    return out.reshape(weights.shape)


def _finite(rows: np.ndarray, factor: Factor, by: np.ndarray) -> np.ndarray:
    """Where what leaves a unit stays finite when it is multiplied, and what enters it or is added when it is divided, bool [S, units]."""
    fits = np.ones(by.shape, bool)
    for places, factors in ((factor.down, by), (factor.up, 1.0 / np.where(by > 0, by, 1.0))):
        largest = np.max([np.abs(by_unit(rows, p)).max(2).astype(np.float64) for p in places], axis=0)
        fits &= ~(np.isfinite(largest) & (largest * factors > np.finfo(np.float32).max))
    return fits


def _last_owner(ordered: Mapping[str, Group]) -> dict[str, list[Group]]:
    """Node → groups that are sorted there: all that they are sorted by is settled, and nothing has read them yet."""
    result: dict[str, list[Group]] = {}
    for group in (g for g in ordered.values() if g.own):
        result.setdefault(group.first[-1].entry.node, []).append(group)
    return result


def _order(rows: Float32[np.ndarray, "s p"], group: Group) -> Int64[np.ndarray, "s {group.units}"]:
    """The order of a group's units: ascending by own values, ties by what they feed."""
    own = group.first
    first = _sortable(by_unit(rows, own[0])[:, :, 0])  # (S, units)
    order = np.argsort(first, axis=1, kind="stable")
    ranked = np.take_along_axis(first, order, 1)
    for s in np.flatnonzero((ranked[:, 1:] == ranked[:, :-1]).any(axis=1)):
        row = rows[s : s + 1]
        keys = [_sortable(by_unit(row, p)[0]) for p in own]  # (units, K) each
        # The others are not in order yet, so their values are compared as sorted magnitudes.
        others = [p for p in group.places if p not in own and not (p.recurrent and p in group.own)]
        keys += [np.sort(_sortable(np.abs(by_unit(row, p)[0])), axis=1) for p in others]
        order[s] = np.lexsort(np.concatenate(keys, axis=1).T[::-1])
    return order


def _sortable(values: np.ndarray) -> np.ndarray:
    """uint32 in the order of float32, total over all bits (−0 < 0, NaN at the ends)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(0x80000000))
