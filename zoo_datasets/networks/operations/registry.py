"""Name → `Operation`: every layer there is. A new family is a file beside this one, and a line here."""

from __future__ import annotations

from collections.abc import Collection

from zoo_datasets import errors
from zoo_datasets.networks.operations import (
    activations,
    convolution,
    dropout,
    linear,
    normalization,
    pooling,
    recurrent,
    residual,
    shapes,
)
from zoo_datasets.networks.operations.operation import Operation

_FAMILIES = (convolution, linear, recurrent, pooling, normalization, dropout, shapes, residual, activations)
OPERATIONS: dict[str, Operation] = {o.name: o for family in _FAMILIES for o in family.OPERATIONS}
# Levels of the setting `activation`, which layers written as `activation` are.
ACTIVATIONS = tuple(o.name for o in activations.OPERATIONS)


def operation(name: str) -> Operation:
    """The operation of that name. Raises FormatVersionError: a newer version may know it."""
    if name not in OPERATIONS:
        raise errors.FormatVersionError(errors.unknown("layer", name, OPERATIONS) + " A newer weightzoo may know it.")
    return OPERATIONS[name]


def without(form: str, names: Collection[str]) -> list[str]:
    """Those layers, sorted, that have no such form: "batched" or "kernel"."""
    return sorted(n for n in set(names) if n not in OPERATIONS or getattr(OPERATIONS[n], form) is None)
