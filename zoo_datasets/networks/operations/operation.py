"""What the packages know about a layer, as one record: `Operation`.

In:  what a recipe says of a layer (`Given`), and shapes of one sample.
Out: its attributes, output shape, tensors, `nn.Module` and form for many models at once; what
     of it symmetry, views and kernels must know.

A family of layers is one file beside this one, and `registry.py` lists them. No record loads torch:
`module` and `batched` are given `values.py`, which does, as `t`, a `Torch`: `t.nn`, `t.F`, `t.grouped`.

Shapes are of one sample: (channels, rows, columns), (steps, features) of a sequence, or (features,).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from zoo_datasets import errors

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]
Value: TypeAlias = "torch.Tensor"
Tensors: TypeAlias = "Mapping[str, torch.Tensor]"
# A layer: its own tensors by name, its input, whether it trains → its output. Of m networks at once
# tensors are (m, …) and values have one of the forms of `values.py`; of one network as PyTorch has them.
Layer: TypeAlias = "Callable[[Mapping[str, torch.Tensor], torch.Tensor, bool], torch.Tensor]"
Module: TypeAlias = "torch.nn.Module"


class Torch(Protocol):
    """What layers are made of: `values.py`, as they know it."""

    @property
    def torch(self) -> ModuleType: ...
    @property
    def nn(self) -> ModuleType: ...
    @property
    def F(self) -> ModuleType: ...

    def grouped(self, x: Value) -> Value: ...
    def on_gpu(self, x: Value, kernel: int = 1) -> bool: ...
    def elementwise(self, function: Callable[[Value], Value]) -> Layer: ...
    def Add(self) -> Module: ...
    def Function(
        self, name: str, function: Layer, shapes: Mapping[str, Shape] | None = None, bound: float = 0.0
    ) -> Module: ...


@dataclasses.dataclass(frozen=True)
class Node:
    """One layer of a network: its inputs are names of earlier nodes, or "input"."""

    name: str
    op: str  # a key of `registry.OPERATIONS`
    inputs: tuple[str, ...]
    shape: Shape  # of its output
    attrs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a node, without the node's name and its place in the vector."""

    name: str
    shape: Shape
    groups: tuple[str, ...]  # of units, one per dimension, as `layout.Entry` has them
    start: str = "drawn"  # from the init's distribution; or "bias", "scale", "ones", "zeros"
    buffer: bool = False
    fan: int | None = None  # PyTorch's own uniform is ±1/√fan; None: the fan in
    reads: int | None = None  # the dimension over the units of the layer before
    recurrent: bool = False  # dimension 1 runs over the layer's own units, a step before
    signed: bool = True  # turns with the sign of the unit it belongs to
    follows: bool = False  # a statistic of the layer's input, that turns with it

    @property
    def fan_in(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def fan_out(self) -> int:
        return self.shape[0] * math.prod(self.shape[2:])


@dataclasses.dataclass(frozen=True)
class Given:
    """A layer as the recipe writes it: `{conv: 8, kernel: 5}` has the value 8 and one option."""

    op: str
    value: Any
    options: Mapping[str, Any]
    position: int | str  # in the list, from 1; "3.2" is the second of the block that is third
    n_classes: int

    def whole(self, key: str, least: int, default: Any = None) -> int:
        """The option of that name, or the value under the layer's own. Raises GridError."""
        number = self.value if key == self.op else self.options.get(key, default)
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise errors.GridError(
                f"Layer {self.position} ({self.op}): `{key}` is {number!r}; a whole number ≥ {least} is needed."
            )
        return number

    def features(self) -> int:
        """The value, where `classes` stands for their number. Raises GridError."""
        return self.n_classes if self.value == "classes" else self.whole(self.op, 1)


def no_attributes(given: Given) -> Attributes:
    """The attributes of a layer that takes no value: none. Raises GridError."""
    if given.value is not None:
        raise errors.GridError(
            f"Layer {given.position}: `{given.op}` takes no value, got {given.value!r}. Write it as `{given.op}`."
        )
    return {}


def same(attrs: Attributes, shape: Shape, where: str) -> Shape:
    """The output shape of a layer that keeps its input's."""
    return shape


def sequence(shape: Shape, where: str) -> Shape:
    """The shape, of a sequence. Raises GridError."""
    if len(shape) != 2:
        misfit(
            where, f"needs a sequence (steps, features), but the layer before gives {shape}. "
            "`rows` makes one of an image, a step per row."
        )  # fmt: skip
    return shape


def no_sequence(attrs: Attributes, shape: Shape, where: str) -> Shape:
    """The same, of a layer that takes no sequence. Raises GridError."""
    if len(shape) == 2:
        misfit(
            where, f"takes no sequence, but the layer before gives (steps, features) = {shape}. "
            "Put `last_step` before it."
        )  # fmt: skip
    return shape


def misfit(where: str, problem: str) -> NoReturn:
    """Raises the GridError of a layer whose input does not fit: `where` is like "layer 3 (conv)"."""
    raise errors.GridError(f"{where[0].upper()}{where[1:]} {problem}")


def units_of(shape: Shape) -> int:
    """How many units an output has: features of a sequence, else channels or features."""
    return shape[1] if len(shape) == 2 else shape[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """One kind of layer."""

    name: str
    # How many nodes it takes. The value of the first is its input; that of a second is among its own tensors, as "skip".
    inputs: int = 1
    # (t, node, input shape, dropout rate of the model) → the `nn.Module` of one network.
    module: Callable[[Torch, Node, Shape, float], Module]
    # (t, node) → the layer of m networks at once; None: `module` through vmap.
    batched: Callable[[Torch, Node], Layer] | None = None

    # As a recipe writes it.
    options: tuple[str, ...] = ()
    parse: Callable[[Given], Attributes] = no_attributes
    output_shape: Callable[[Attributes, Shape, str], Shape] = same
    activation: bool = False  # may stand for `activation`

    # (node, units before, group of its own units, group of the units before) → its tensors.
    tensors: Callable[[Node, int, str, str], list[Tensor]] = lambda node, width, own, before: []
    units: bool = False  # has units of its own; else its tensors belong to the units before
    step_tensor: str | None = None  # a tensor of its module that no vector holds: it is the step itself

    # f(c·x) = c·f(x) for c > 0, and f(−x) = −f(x): unit by unit; with tensors, of f in what enters a unit.
    homogeneous: bool = False
    odd: bool = False

    kernel: int | None = None  # its number in native/plan.h; None: the C++ kernels do not know it
