"""A plain YAML value → the type of its setting, so that 1 and 1.0 are one level.

In:  a `Setting`, a value, its place in the recipe.
Out: the value as its column holds it; a GridError that says what is needed instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from zoo_builder.recipe.settings import Setting
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.networks.generated import GENERATED
from zoo_datasets.networks.layers import PRESETS

MOST_NAME = 255  # bytes: file systems take no longer one


ONE = ("float", "int", "bool", "str", "choice")  # kinds of settings that have one value


def coerce(setting: Setting, value: Any, where: str) -> Any:
    """The value in the setting's own type. Raises GridError."""
    if value is None and setting.default is None:
        return None
    if isinstance(value, list) and setting.kind in ONE and setting.axis:
        raise GridError(
            f"{where}: `{setting.name}` is a list; several values are an axis: `axes: {{{setting.name}: {value}}}`."
        )
    return _READ[setting.kind](setting, value, where)


def _wrong(setting: Setting, value: Any, allowed: str, where: str) -> GridError:
    return GridError(f"{where}: `{setting.name}` is {value!r}; {allowed} is needed.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _float(setting: Setting, value: Any, where: str) -> float:
    if not _is_number(value) or not math.isfinite(value):
        raise _wrong(setting, value, "a number", where)
    return float(_in_range(setting, value, where)) + 0.0  # −0.0 and 0.0 are one level


def _int(setting: Setting, value: Any, where: str) -> int:
    if not _is_number(value) or not math.isfinite(value) or value != int(value):
        raise _wrong(setting, value, "a whole number", where)
    if abs(value) >= 2**63:  # what its column holds
        raise _wrong(setting, value, "a whole number of 64 bits", where)
    return int(_in_range(setting, value, where))


def _in_range(setting: Setting, value: float, where: str) -> float:
    if not setting.low <= value <= setting.high:
        upper = "" if setting.high == math.inf else f" and ≤ {setting.high:g}"
        raise _wrong(setting, value, f"a number ≥ {setting.low:g}{upper}", where)
    return value


def _bool(setting: Setting, value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(setting, value, "`true` or `false`", where)
    return value


def _str(setting: Setting, value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):  # a table without a header has columns 0, 1, …
        value = str(value)
    if not isinstance(value, str) or not value:
        quoted = f" in quotes, '\"{value}\"'," if isinstance(value, float) else ""
        raise _wrong(setting, value, "a name" + quoted, where)
    if any(len(part.encode()) > MOST_NAME for part in value.split("/")):
        raise _wrong(setting, value, f"a name of at most {MOST_NAME} bytes", where)
    return value


def _choice(setting: Setting, value: Any, where: str) -> str:
    if _str(setting, value, where) not in setting.choices:
        raise GridError(unknown(setting.name, value, setting.choices, where))
    return value


def _floats(setting: Setting, value: Any, where: str) -> tuple[float, ...]:
    return tuple(_numbers(setting, value, where, _float))


def _ints(setting: Setting, value: Any, where: str) -> tuple[int, ...]:
    result = _numbers(setting, value, where, _int)
    if len(set(result)) != len(result):
        raise _wrong(setting, value, "a list without repeats", where)
    return tuple(result)


def _numbers(setting: Setting, value: Any, where: str, read: Callable[[Setting, Any, str], Any]) -> list[Any]:
    items = [value] if _is_number(value) else value
    if not isinstance(items, list) or not items:
        raise _wrong(setting, value, "a list of numbers", where)
    return [read(setting, item, where) for item in items]


def _names(setting: Setting, value: Any, where: str) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(v, (str, int)) and not isinstance(v, bool) and v != "" for v in items):
        raise _wrong(setting, value, "a list of names or places", where)
    return tuple(map(str, items))


def _layers(setting: Setting, value: Any, where: str) -> Any:
    if isinstance(value, str):
        if value not in PRESETS and value not in GENERATED:
            raise GridError(unknown("architecture preset", value, (*PRESETS, *GENERATED), where))
    elif not isinstance(value, list) or not value:
        raise _wrong(setting, value, "a preset's name or a list of layers", where)
    return value


_READ: dict[str, Callable[[Setting, Any, str], Any]] = {
    "float": _float, "int": _int, "bool": _bool, "str": _str, "choice": _choice, "floats": _floats, "ints": _ints,
    "names": _names, "layers": _layers,
}  # fmt: skip
