"""Weights → the member of their orbit that is nearest to a reference."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from jaxtyping import Float32, Shaped

from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.symmetry.moves import permute, permute_group
from zoo_datasets.symmetry.units import Group, Permutations, Place, by_unit, groups, matrix_of

# Sweeps over all groups in `match`; Ainsworth et al. see convergence in a few.
MOST_SWEEPS = 100


def align(
    weights: Shaped[np.ndarray, "*batch p"], reference: np.ndarray, architecture: Architecture | External
) -> Float32[np.ndarray, "*batch p"]:
    """Each vector with its units permuted to match the reference [P] best; bits only move.

    See `match`. Scale and sign stay: to remove them first, align
    `canonicalize(weights, architecture, kinds=("scale", "sign"))` to the same of the reference.
    Raises ValueError; needs scipy.
    """
    return permute(weights, architecture.layout, match(weights, reference, architecture))


def match(
    weights: Shaped[np.ndarray, "*batch p"], reference: np.ndarray, architecture: Architecture | External
) -> Permutations:
    """Group → int64 [..., units] such that `permute(weights, layout, ·)` is near the reference [P].

    Weight matching by coordinate descent (Ainsworth et al., "Git Re-Basin", 2022, section
    3.2): one group after another is assigned exactly (the inner product of all
    parameters that touch it, other groups held; of a recurrent tensor its linear part, and a
    move is taken only if it gains) until none gains. It finds a local optimum.
    Two starts, the better result is kept: as the weights are, and forward, each group by
    what enters it; so a permuted copy of the reference is matched exactly. Buffers are
    permuted along and take no part in the match.
    Raises ValueError where shapes do not fit or values are not finite; needs scipy.
    """
    weights, rows = matrix_of(weights, architecture.layout)
    reference = np.asarray(reference, np.float32)
    if reference.shape != (architecture.n_params,):
        raise ValueError(f"The reference has shape {reference.shape}; it must be ({architecture.n_params},).")
    for name, values in (("weights", rows), ("reference", reference)):
        if not np.isfinite(values).all():
            raise ValueError(f"The {name} hold values that are not finite; select models that did not diverge.")
    known = groups(architecture.layout)
    buffers = architecture.layout.buffer_mask()
    parts = [_match_one(row, reference, known, buffers) for row in rows]
    lead = weights.shape[:-1]
    return {
        g.name: np.array([p[g.name] for p in parts], np.int64).reshape(*lead, g.units) for g in known
    }  # fmt: skip


def _match_one(row: np.ndarray, reference: np.ndarray, known: tuple[Group, ...], buffers: np.ndarray) -> Permutations:
    best: tuple[float, Permutations] | None = None
    ref = reference[None].astype(np.float64)
    for forward in (True, False):
        current = row[None].astype(np.float64)
        found = {g.name: np.arange(g.units) for g in known}
        if forward:
            for group in known:
                _assign(current, ref, group, group.first, found)
        for _ in range(MOST_SWEEPS):
            if not any([_assign(current, ref, g, g.places, found) for g in known]):
                break
        value = float((current * ref)[0, ~buffers].sum())
        if best is None or value > best[0]:
            best = value, found
    assert best is not None
    return best[1]


def _assign(current: np.ndarray, ref: np.ndarray, group: Group, places: Collection[Place], found: Permutations) -> bool:
    """Best order of one group given the others, applied in place. True if it gains."""
    from scipy.optimize import linear_sum_assignment

    gain = _similarity(current, ref, group, places)
    _, order = linear_sum_assignment(gain, maximize=True)
    before, after = gain.trace(), gain[np.arange(group.units), order].sum()
    # Sums in another order differ by rounding; a swap that gains less than that could cycle.
    slack = 1e-12 * np.abs(gain).sum()
    if after <= before + slack:
        return False
    moved = current.copy()
    permute_group(moved, group, order[None])
    # A recurrent tensor moves along both its dimensions: the gain of the assignment is its linear part only.
    if any(p.recurrent for p in places) and (moved * ref).sum() <= (current * ref).sum() + slack:
        return False
    current[...] = moved
    found[group.name] = found[group.name][order]
    return True


def _similarity(current: np.ndarray, ref: np.ndarray, group: Group, places: Collection[Place]) -> np.ndarray:
    """float64 [units, units]: inner product of the reference's unit i with unit j, over parameters."""
    result = np.zeros((group.units, group.units))
    for place in places:
        if place.entry.role == "parameter":
            result += by_unit(ref, place)[0] @ by_unit(current, place)[0].T
    return result
