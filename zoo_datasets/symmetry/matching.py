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
AT_ONCE = 64  # rows that are matched side by side


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
    lead = weights.shape[:-1]
    found = {g.name: np.empty((len(rows), g.units), np.int64) for g in known}
    for start in range(0, len(rows), AT_ONCE):
        for name, part in _match(rows[start : start + AT_ONCE], reference, known, buffers).items():
            found[name][start : start + AT_ONCE] = part
    return {g.name: found[g.name].reshape(*lead, g.units) for g in known}


def _match(rows: np.ndarray, reference: np.ndarray, known: tuple[Group, ...], buffers: np.ndarray) -> Permutations:
    """Group → int64 [S, units] of rows [S, P], each as it would be alone."""
    ref = reference[None].astype(np.float64)
    best, value = {g.name: np.tile(np.arange(g.units), (len(rows), 1)) for g in known}, np.full(len(rows), -np.inf)
    for forward in (True, False):
        current = rows.astype(np.float64)
        found = {g.name: np.tile(np.arange(g.units), (len(rows), 1)) for g in known}
        going = np.arange(len(rows))
        if forward:
            for group in known:
                _assign(current, ref, group, group.first, found, going)
        for _ in range(MOST_SWEEPS):
            if not len(going):
                break
            gains = [_assign(current, ref, g, g.places, found, going) for g in known]
            going = going[np.any(gains, axis=0)]
        reached = (current * ref)[:, ~buffers].sum(axis=1)
        better = reached > value
        value[better] = reached[better]
        for name, part in found.items():
            best[name][better] = part[better]
    return best


def _assign(
    current: np.ndarray, ref: np.ndarray, group: Group, places: Collection[Place], found: Permutations, of: np.ndarray
) -> np.ndarray:
    """Best order of one group given the others in the rows `of`, applied in place. (len(of),) bool: who gains."""
    from scipy.optimize import linear_sum_assignment

    gain = _similarity(current[of], ref, group, places)
    order = np.array([linear_sum_assignment(g, maximize=True)[1] for g in gain], np.int64)
    before = np.trace(gain, axis1=1, axis2=2)
    after = np.take_along_axis(gain, order[:, :, None], 2)[:, :, 0].sum(axis=1)
    # Sums in another order differ by rounding; a swap that gains less than that could cycle.
    slack = 1e-12 * np.abs(gain).sum(axis=(1, 2))
    gains: np.ndarray = after > before + slack
    if not gains.any():
        return gains
    moved = current[of[gains]]
    permute_group(moved, group, order[gains])
    # A recurrent tensor moves along both its dimensions: the gain of the assignment is its linear part only.
    if any(p.recurrent for p in places):
        taken = (moved * ref).sum(axis=1) > (current[of[gains]] * ref).sum(axis=1) + slack[gains]
        moved, gains[gains] = moved[taken], taken
    rows = of[gains]
    current[rows] = moved
    found[group.name][rows] = np.take_along_axis(found[group.name][rows], order[gains], 1)
    return gains


def _similarity(current: np.ndarray, ref: np.ndarray, group: Group, places: Collection[Place]) -> np.ndarray:
    """float64 [S, units, units]: inner product of the reference's unit i with unit j of each row, over parameters."""
    result = np.zeros((len(current), group.units, group.units))
    for place in places:
        if place.entry.role == "parameter":
            result += by_unit(ref, place) @ by_unit(current, place).swapaxes(1, 2)
    return result
