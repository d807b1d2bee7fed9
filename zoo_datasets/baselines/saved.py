"""A baseline that has learned → one safetensors file, and back; numbers and JSON, never code.

In:  a solver of this package after `fit`; a file. Out: the same predictions, bit for bit on one machine.

What a solver holds is written as a tree of JSON whose arrays lie beside it; its classes are named, and only classes of
this package are made again, by filling in their fields. Training networks are not kept: of a view its architectures are.
A network of torch's is built anew by the solver (`rebuild`) and given its weights. A dataclass comes back with all its fields
and no other; of what type they are `check` says.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.baselines.interface import Baseline, View
from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError, ZooError, reason

KEY = "weightzoo.baseline"
FORMAT = 1
PACKAGE = "zoo_datasets."
MOST_BYTES = 1 << 30  # of a saved baseline: NFN's 2.8 million numbers are 11 MB
MOST_DEPTH = 40  # of the tree: a solver's is below ten
NOT_KEPT = ("progress",)  # fields of a solver that say nothing of what it learned
FORGOTTEN = ("_kept",)  # lists of what was worked out, and can be again
# What code of ours raises that believes a file: any byte of it may be another.
DAMAGE = (
    ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, AssertionError, ArithmeticError, MemoryError,
)  # fmt: skip


def save(solver: Baseline, path: Path) -> None:
    """Write it, whole or not at all. Raises ZooError for a solver of a class that is not this package's."""
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, np.ndarray] = {}
    tree = _encode(solver, arrays)
    text = json.dumps({"format": FORMAT, "solver": tree})
    files.write_atomic(path, to_bytes(arrays, {KEY: text}))


def load(path: Path, what: str = "saved baseline", remedy: str = "Take it away, and it is made again.") -> Baseline:
    """The solver of a file. Raises IntegrityError where it is none: no `what`, and what is to be done."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        data = files.read_bounded(path, MOST_BYTES)
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = json.loads(head["__metadata__"][KEY])
        if text["format"] != FORMAT:
            raise IntegrityError(f"{path} is of format {text['format']!r}; this library reads {FORMAT}.")
        solver: Baseline = _decode(text["solver"], from_bytes(data), 0)
        if hasattr(solver, "rebuild"):
            solver.rebuild()
        solver.predict  # noqa: B018  (a file may name another class of ours, which is no solver)
    except FileNotFoundError:
        raise ZooError(f"There is no saved baseline at {path}. Run the benchmark again without it.") from None
    except (*DAMAGE, SafetensorError) as error:
        if isinstance(error, IntegrityError):
            raise
        raise IntegrityError(f"{path} is no {what}, or damaged: {reason(error)}. {remedy}") from None
    return solver


def check(record: Any) -> None:
    """Raises TypeError where a field of a dataclass, or of one within it, is not of the type that the class says."""
    hints = typing.get_type_hints(type(record))
    for field in dataclasses.fields(record):
        if not _fits(getattr(record, field.name), hints[field.name]):
            raise TypeError(f"`{field.name}` of {type(record).__name__} is not of its type")


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, k) for k in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(v, arguments[0]) for v in value)
    if origin is not None:
        if isinstance(value, Mapping):
            return issubclass(origin, Mapping) and all(_fits(v, arguments[1]) for v in value.values())
        return isinstance(value, origin)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if dataclasses.is_dataclass(value) and isinstance(value, kind):
        check(value)
    return isinstance(value, kind)


# ── tree ──────────────────────────────────────────────────────────────────────────────


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {"array": _kept(value, arrays)}
    if isinstance(value, list):
        return [_encode(v, arrays) for v in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, arrays) for v in value]}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop]}
    if isinstance(value, View):  # its architectures, and how many networks are of each
        value = dataclasses.replace(value, vectors=[], recipe=None, shown=None, training=None)
    elif isinstance(value, Mapping):
        return {"dict": [[str(k), _encode(v, arrays)] for k, v in value.items()]}
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return {"weights": [[k, _kept(v.numpy(), arrays)] for k, v in value.state_dict().items()]}
    if torch is not None and isinstance(value, torch.Tensor):
        return {"tensor": _kept(value.numpy(), arrays)}
    kind = type(value)
    if not kind.__module__.startswith(PACKAGE):
        raise ZooError(f"{kind.__module__}.{kind.__qualname__} is no class of this package, and cannot be saved.")
    names = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(vars(value))
    fields = [[n, _encode([] if n in FORGOTTEN else getattr(value, n), arrays)] for n in names if n not in NOT_KEPT]
    return {"object": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}


def _kept(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    arrays[name := f"a{len(arrays)}"] = np.ascontiguousarray(array).reshape(array.shape)
    return name


def _decode(value: Any, arrays: Mapping[str, np.ndarray], depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise ValueError("the tree is too deep")
    if isinstance(value, list):
        return [_decode(v, arrays, depth + 1) for v in value]
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float(value["float"])
    if "array" in value:
        return arrays[value["array"]]
    if "tuple" in value:
        return tuple(_decode(v, arrays, depth + 1) for v in value["tuple"])
    if "slice" in value:
        return slice(*value["slice"])
    if "dict" in value:
        return {k: _decode(v, arrays, depth + 1) for k, v in value["dict"]}
    if "weights" in value or "tensor" in value:
        import torch

        if "tensor" in value:
            return torch.from_numpy(arrays[value["tensor"]].copy())
        return {k: torch.from_numpy(arrays[name].copy()) for k, name in value["weights"]}
    module, _, name = value["object"].partition(":")
    if not module.startswith(PACKAGE):
        raise ValueError(f"{module} is not of this package")
    kind = getattr(importlib.import_module(module), name)
    if not isinstance(kind, type):
        raise TypeError(f"{name} is no class")
    fields = {k: _decode(v, arrays, depth + 1) for k, v in value["fields"]}
    if kind is View:
        fields |= {"recipe": pa.table({}), "shown": None, "training": None}
    if dataclasses.is_dataclass(kind):
        wanted = {f.name for f in dataclasses.fields(kind)} - set(NOT_KEPT)
        if strange := wanted.symmetric_difference(fields):
            raise ValueError(
                f"{name} has {'no' if strange & wanted else 'a'} field {min(strange & wanted or strange)!r}"
            )
    made = object.__new__(kind)
    for k, v in fields.items():
        object.__setattr__(made, k, v)  # of a frozen dataclass too
    for k in NOT_KEPT:
        if not dataclasses.is_dataclass(kind):
            made.__dict__.setdefault(k, None)
    return made
