"""Weights → other weights of the same function: orbits under permutation, scale and sign.

In:  float32 vectors [..., P] and the `Architecture` whose layout they follow.
Out: vectors of the same shape. `augment` draws a random member of each orbit,
     `canonicalize` picks one representative, `align` the member nearest to a reference.

Three kinds of symmetry, of the network in evaluation mode:

* `permutation`: hidden units of linear layers and GRUs and channels of convolutions change
  places, with their bias, their batch norm (running buffers too) and what reads them: a GRU's
  unit in all three gates, and in what its own next step reads. After `flatten` a channel is a
  block of rows·columns inputs. Any activation. Bits only move.
* `scale`: what enters a unit times c > 0, what reads it divided by c. Needs relu or
  leaky_relu, or no activation, in between (Neyshabur et al., "Path-SGD", 2015); pooling,
  dropout and flatten do not matter. Not into a batch norm: its ε is not scaled. *Out of* a
  batch norm it is allowed: its weight and bias are then what enters.
* `sign`: what enters a unit times −1, what reads it too. Needs tanh, or no activation, and no
  max pool (Chen et al., "On the geometry of feedforward neural network error surfaces",
  1993). Into a batch norm it turns running mean and weight. A GRU's state starts at zero and is
  a mean of tanh, so its units have a sign too: of the new gate, and of all that reads the state.

Sigmoid has a sign symmetry too that moves the next bias; zero padding breaks it, and it is
not used here. Permutations come from the groups of the layout alone; scale and sign from the
chain of nodes. Where nodes branch or are unknown no scale or sign is claimed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from zoo_datasets import errors, exact, models, streams

KINDS = ("permutation", "scale", "sign")
AFFINE = ("conv", "linear", "gru", "batch_norm")  # nodes that hold weights
# Commute with scale and sign.
TRANSPARENT = ("avg_pool", "global_avg_pool", "dropout", "flatten", "rows", "last_step")
HOMOGENEOUS = ("relu", "leaky_relu", "max_pool")  # f(c·x) = c·f(x) for c > 0
ODD = ("tanh",)  # f(−x) = −f(x)
# Sweeps over all groups in `match`; Ainsworth et al. see convergence in a few.
MOST_SWEEPS = 100

Permutations = dict[str, np.ndarray]  # group → int64 [..., units]; unit i comes from unit p[i]


@dataclasses.dataclass(frozen=True)
class Place:
    """A dimension of a tensor that runs over units: each unit is `block` neighbors in it."""

    entry: models.Entry
    dim: int
    units: int

    @property
    def block(self) -> int:
        return self.entry.shape[self.dim] // self.units

    @property
    def recurrent(self) -> bool:
        """Whether the tensor runs over these units twice: from a GRU's state to its next."""
        name = self.entry.groups[self.dim]
        return name != "" and self.entry.groups.count(name) > 1

    @property
    def split_shape(self) -> tuple[int, ...]:
        """The entry's shape with its dimension as (units, block)."""
        s = self.entry.shape
        return (*s[: self.dim], self.units, self.block, *s[self.dim + 1 :])


@dataclasses.dataclass(frozen=True)
class Group:
    """Units that may change places: `own` tensors belong to a unit, `readers` take its output."""

    name: str
    units: int
    own: tuple[Place, ...]
    readers: tuple[Place, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        return (*self.own, *self.readers)


@dataclasses.dataclass(frozen=True)
class Factor:
    """A factor per unit between two neighboring nodes with weights: `up` times c, `down` divided by c."""

    source: str
    sink: str
    units: int
    scale: bool
    sign: bool
    up: tuple[Place, ...]
    down: tuple[Place, ...]


def groups(layout: Collection[models.Entry]) -> tuple[Group, ...]:
    """The permutation groups of a layout, in forward order.

    A group has as many units as the first dimension named after it. Raises ValueError where
    another one is no multiple of that.
    """
    sizes: dict[str, int] = {}
    for entry in layout:
        for size, name in zip(entry.shape, entry.groups, strict=True):
            if name:
                sizes.setdefault(name, size)
    found = []
    for name, units in sizes.items():
        places = [Place(e, dim, units) for e in layout for dim, g in enumerate(e.groups) if g == name]
        for p in places:
            if p.entry.shape[p.dim] % units:
                raise ValueError(
                    f"Dimension {p.dim} of {p.entry.name} has size {p.entry.shape[p.dim]}, no multiple of the "
                    f"{units} units of its group {name!r}."
                )
        own = tuple(p for p in places if p.dim == 0)
        found.append(Group(name, units, own, tuple(p for p in places if p.dim > 0)))
    return tuple(found)


def factors(architecture: models.Architecture) -> tuple[Factor, ...]:
    """Where scale or sign is free, in forward order."""
    readers: dict[str, list[models.Node]] = {}
    for node in architecture.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    shapes = {n.name: n.shape for n in architecture.nodes}
    found = []
    for node in architecture.nodes:
        if node.op not in AFFINE:
            continue
        between, sink = [], node
        while len(readers.get(sink.name, [])) == 1 and len(readers[sink.name][0].inputs) == 1:
            sink = readers[sink.name][0]
            if sink.op in AFFINE:
                break
            between.append(sink.op)
        if sink is node or sink.op not in AFFINE:
            continue  # the output, or a fork
        scale = all(op in TRANSPARENT or op in HOMOGENEOUS for op in between)
        scale &= sink.op != "batch_norm" and node.op != "gru"
        sign = all(op in TRANSPARENT or op in ODD for op in between)
        if scale or sign:
            units = shapes[node.name][1 if node.op == "gru" else 0]
            up, down = _rows(architecture, node, units), _columns(architecture, sink, units)
            if sink.op == "batch_norm":  # running mean turns with its input, the weight turns back
                entries = {e.name.rsplit(".", 1)[1]: e for e in architecture.entries(sink.name)}
                up = (*up, Place(entries["running_mean"], 0, units))
                down = (Place(entries["weight"], 0, units),)
            if node.op == "gru":  # its next step reads the state too, in every gate
                back = [e for e in architecture.entries(node.name) if ".weight_h" in e.name]
                down = (*(Place(e, 1, units) for e in back), *down)
            found.append(Factor(node.name, sink.name, units, scale, sign, up, down))
    return tuple(found)


def _rows(architecture: models.Architecture, node: models.Node, units: int) -> tuple[Place, ...]:
    """What enters a unit; of a GRU what enters its new gate, the one whose sign the state has."""
    entries = [e for e in architecture.entries(node.name) if e.role == "parameter"]
    return tuple(Place(e, 0, units) for e in entries if node.op != "gru" or e.name.endswith("n"))


def _columns(architecture: models.Architecture, node: models.Node, units: int) -> tuple[Place, ...]:
    """What reads the units of the layer before."""
    return tuple(
        Place(e, 1, units) for e in architecture.entries(node.name) if len(e.shape) > 1 and ".weight_h" not in e.name
    )


# ── permutations ──────────────────────────────────────────────────────────────────────


def permute(
    weights: np.ndarray, layout: Collection[models.Entry], permutations: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Vectors [..., P] whose unit i is unit p[i] of `weights`, for p [units] or [..., units] of each group.

    The same bits in other places; `permute(·, layout, invert(permutations))` undoes it.
    Raises ValueError for shapes that do not fit, ZooError for a group that is not there.
    """
    weights, rows = _matrix(weights, layout)
    out = rows.copy()
    known = {g.name: g for g in groups(layout)}
    for name, value in permutations.items():
        if name not in known:
            raise errors.ZooError(errors.unknown("group of units", name, known))
        _permute_group(out, known[name], _indices(value, known[name], rows.shape[0], weights.shape))
    return out.reshape(weights.shape)


def invert(permutations: Mapping[str, np.ndarray]) -> Permutations:
    """The permutations that undo these: each [..., units]."""
    return {name: np.argsort(value, axis=-1, kind="stable") for name, value in permutations.items()}


def random_permutations(layout: Collection[models.Entry], n: int, key: Any) -> Permutations:
    """n uniform permutations of every group, int64 [n, units] each; row i depends on `key` and i alone."""
    return {
        g.name: np.argsort(
            streams.words(streams.stream_key(["permutation", g.name, key]), n * g.units).reshape(n, g.units),
            axis=1, kind="stable",
        )
        for g in groups(layout)
    }  # fmt: skip


def _permute_group(rows: np.ndarray, group: Group, index: np.ndarray) -> None:
    """Reorder one group of rows [S, P] in place; index [S, units]."""
    for place in group.places:
        tensor = _tensor(rows, place)  # (S, …, units, block, …)
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
    weights: np.ndarray, architecture: models.Architecture, key: Any,
    *, kinds: Collection[str] = KINDS, octaves: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """A random member of each vector's orbit, float32 of the shape [..., P] of `weights`.

    `key` is any JSON value; row i depends on it and i alone, the same on every machine.
    Permutations are uniform, signs fair, scales 2^u with u uniform in ±octaves. Permutation
    and sign keep every magnitude; scale rounds to float32. Raises ValueError.
    """
    kinds = _kinds(kinds)
    weights, rows = _matrix(weights, architecture.layout)
    out, n = rows.copy(), len(rows)
    for f in factors(architecture):
        where = [f.source, f.sink, key]
        if f.scale and "scale" in kinds:
            u = streams.uniforms(streams.stream_key(["scale", *where]), n * f.units).reshape(n, f.units)
            # `exact.exp` takes x ≤ 0, so 2^u is drawn as 2^octaves · e^(…).
            _multiply(out, f, 2.0**octaves * exact.exp((u - 1.0) * (2.0 * octaves * math.log(2.0))))
        if f.sign and "sign" in kinds:
            u = streams.uniforms(streams.stream_key(["sign", *where]), n * f.units).reshape(n, f.units)
            _multiply(out, f, np.where(u < 0.5, -1.0, 1.0))
    if "permutation" in kinds:
        drawn = random_permutations(architecture.layout, n, key)
        for group in groups(architecture.layout):
            _permute_group(out, group, drawn[group.name])
    return out.reshape(weights.shape)


def _multiply(rows: np.ndarray, factor: Factor, c: np.ndarray) -> None:
    """`up` times c, `down` divided by c, in place; c float64 [S, units]."""
    for places, by in ((factor.up, c), (factor.down, 1.0 / c)):
        for place in places:
            tensor = _tensor(rows, place)
            shape = [len(rows)] + [1] * (tensor.ndim - 1)
            shape[1 + place.dim] = factor.units
            tensor[...] = tensor * by.reshape(shape)


# ── one representative ────────────────────────────────────────────────────────────────


def canonicalize(
    weights: np.ndarray, architecture: models.Architecture, *, kinds: Collection[str] = KINDS
) -> np.ndarray:
    """The representative of each vector's orbit, float32 of the shape [..., P] of `weights`.

    One sweep forward, so that what a layer reads is settled before the layer is. Scale: what
    enters a unit (weights and bias) has norm 1. Sign: the largest of it in magnitude is
    positive. Permutation: units ascend by what enters them, compared value by value.

    Equal bits for vectors that differ by permutations or signs; by scale, equal up to
    rounding (and two units may swap if their first weights differ by rounding only). Not
    settled: scale and sign of a unit that nothing enters (all zero), and the order of units
    with the same inputs whose outputs hold the same magnitudes.
    Raises ValueError.
    """
    kinds = _kinds(kinds)
    weights, rows = _matrix(weights, architecture.layout)
    out = rows.copy()
    by_source = {f.source: f for f in factors(architecture)}
    ordered = {g.name: g for g in groups(architecture.layout)} if "permutation" in kinds else {}
    last_of = _last_owner(ordered)
    for node in dict.fromkeys(e.name.rsplit(".", 1)[0] for e in architecture.layout):
        factor = by_source.get(node)
        if factor is not None:
            # A recurrent tensor turns with the other units too, so it decides nothing.
            inputs = np.concatenate([_by_unit(out, p) for p in factor.up if not p.recurrent], axis=2)  # (S, units, K)
            if factor.scale and "scale" in kinds:
                norm = np.sqrt((inputs.astype(np.float64) ** 2).sum(2))
                _multiply(out, factor, np.where(norm > 0, 1.0 / np.where(norm > 0, norm, 1.0), 1.0))
            if factor.sign and "sign" in kinds:
                top = np.take_along_axis(inputs, np.abs(inputs).argmax(2)[..., None], 2)[..., 0]
                _multiply(out, factor, np.where(top < 0, -1.0, 1.0))
        for group in last_of.get(node, ()):
            _permute_group(out, group, _order(out, group))
    return out.reshape(weights.shape)


def _last_owner(ordered: Mapping[str, Group]) -> dict[str, list[Group]]:
    """Node → groups that are complete there: sorted once all their own tensors are settled."""
    result: dict[str, list[Group]] = {}
    for group in ordered.values():
        result.setdefault(group.own[-1].entry.name.rsplit(".", 1)[0], []).append(group)
    return result


def _order(rows: np.ndarray, group: Group) -> np.ndarray:
    """The order of a group's units, int64 [S, units]: ascending by own values, ties by what they feed."""
    own = [p for p in group.own if not p.recurrent]  # a recurrent tensor's columns are not in order yet
    first = _sortable(_by_unit(rows, own[0])[:, :, 0])  # (S, units)
    order = np.argsort(first, axis=1, kind="stable")
    ranked = np.take_along_axis(first, order, 1)
    for s in np.flatnonzero((ranked[:, 1:] == ranked[:, :-1]).any(axis=1)):
        row = rows[s : s + 1]
        keys = [_sortable(_by_unit(row, p)[0]) for p in own]  # (units, K) each
        # The readers are not in order yet, so their values are compared as sorted magnitudes.
        keys += [np.sort(_sortable(np.abs(_by_unit(row, p)[0])), axis=1) for p in group.readers]
        order[s] = np.lexsort(np.concatenate(keys, axis=1).T[::-1])
    return order


def _sortable(values: np.ndarray) -> np.ndarray:
    """uint32 in the order of float32, total over all bits (−0 < 0, NaN at the ends)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(0x80000000))


# ── nearest to a reference ────────────────────────────────────────────────────────────


def align(weights: np.ndarray, reference: np.ndarray, architecture: models.Architecture) -> np.ndarray:
    """Each vector [..., P] with its units permuted to match the reference [P] best; bits only move.

    See `match`. Scale and sign stay: to remove them first, align
    `canonicalize(weights, architecture, kinds=("scale", "sign"))` to the same of the reference.
    Raises ValueError; needs scipy.
    """
    return permute(weights, architecture.layout, match(weights, reference, architecture))


def match(weights: np.ndarray, reference: np.ndarray, architecture: models.Architecture) -> Permutations:
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
    weights, rows = _matrix(weights, architecture.layout)
    reference = np.asarray(reference, np.float32)
    if reference.shape != (architecture.n_params,):
        raise ValueError(f"The reference has shape {reference.shape}; it must be ({architecture.n_params},).")
    for name, values in (("weights", rows), ("reference", reference)):
        if not np.isfinite(values).all():
            raise ValueError(f"The {name} hold values that are not finite; select models that did not diverge.")
    known = groups(architecture.layout)
    buffers = architecture.buffer_mask()
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
                _assign(current, ref, group, [p for p in group.own if not p.recurrent], found)
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
    _permute_group(moved, group, order[None])
    # A recurrent tensor moves along both its dimensions: the gain of the assignment is its linear part only.
    if any(p.recurrent for p in places) and (moved * ref).sum() <= (current * ref).sum() + slack:
        return False
    current[...] = moved
    found[group.name] = found[group.name][order]
    return True


def _similarity(current: np.ndarray, ref: np.ndarray, group: Group, places: Collection[Place] = ()) -> np.ndarray:
    """float64 [units, units]: inner product of the reference's unit i with unit j, over parameters."""
    result = np.zeros((group.units, group.units))
    for place in places or group.places:
        if place.entry.role == "parameter":
            result += _by_unit(ref, place)[0] @ _by_unit(current, place)[0].T
    return result


# ── shapes ────────────────────────────────────────────────────────────────────────────


def _tensor(rows: np.ndarray, place: Place) -> np.ndarray:
    """A view of one tensor of rows [S, P]: (S, …, units, block, …)."""
    e = place.entry
    return rows[:, e.offset : e.end].reshape(len(rows), *place.split_shape)


def _by_unit(rows: np.ndarray, place: Place) -> np.ndarray:
    """The values of each unit in one tensor: (S, units, K)."""
    tensor = np.moveaxis(_tensor(rows, place), 1 + place.dim, 1)
    return tensor.reshape(len(rows), place.units, place.entry.size // place.units)


def _matrix(weights: np.ndarray, layout: Collection[models.Entry]) -> tuple[np.ndarray, np.ndarray]:
    """The weights as float32 [..., P] and as rows [S, P]. Raises ValueError."""
    weights = np.asarray(weights, np.float32)
    width = max((e.end for e in layout), default=0)
    if weights.ndim == 0 or weights.shape[-1] != width:
        raise ValueError(
            f"Weights have shape {weights.shape}; the layout has {width} values, so (..., {width}) is needed."
        )
    return weights, weights.reshape(math.prod(weights.shape[:-1]), width)


def _kinds(kinds: Collection[str]) -> Collection[str]:
    chosen = (kinds,) if isinstance(kinds, str) else kinds
    for kind in chosen:
        if kind not in KINDS:
            raise ValueError(errors.unknown("kind of symmetry", kind, KINDS))
    return chosen
