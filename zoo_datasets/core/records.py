"""JSON ↔ frozen records: a value's type is checked once, where it enters.

In:  a JSON value and the type it should have: `str`, `bool`, `int`, `float`, `None`, `Any`, a `Literal`, a
     union, `tuple[T, ...]`, `Mapping[str, T]`, or a dataclass of such fields. A class with `from_json` and
     `to_json` reads and writes itself.
Out: the typed value, or a `Mismatch` that says where and what; and the JSON value back.

Whole numbers count or place something: none is negative, and each fits 64 bits. Keys that a
dataclass does not name are kept in its field `more`; where it has none they are refused, or a flip
in the name of a key would take away what it says.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from zoo_datasets.errors import shown, unknown

MOST_DEPTH = 100  # of values whose type is `Any`; a recipe nests five deep
MOST_COUNT = 2**63 - 1
MOST_KEY = 1_000  # characters of a key: messages say where a value lies

Decoder = Callable[[Any], Any]  # a JSON value → the typed one


class Mismatch(ValueError):
    """A JSON value is not what it should be: "`files[3].bytes` is '12', not a whole number of 0 or more"."""

    def __init__(self, text: str, at: str = "") -> None:
        super().__init__(text, at)
        self.text, self.at = text, at  # `{at}` in the text is where the value lies

    def __str__(self) -> str:
        return self.text.replace("{at}", self.at or "all of it")

    def below(self, step: str) -> Mismatch:
        """The same, one step further up."""
        return Mismatch(self.text, f"{step}{'.' if self.at and self.at[0] != '[' else ''}{self.at}")


def decode(kind: Any, value: Any) -> Any:
    """The value as `kind`. Raises Mismatch."""
    return _reader(kind)(value)


def decode_fields(kind: Any, value: Any) -> Any:
    """A dataclass by its fields alone, for its own `from_json`. Raises Mismatch."""
    return _record(kind)(value)


def encode(value: Any) -> Any:
    """The JSON value of a record: what `decode` reads back. A field that is None by default is left out where it is."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return fields_json(value)
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    return [encode(v) for v in value] if isinstance(value, (tuple, list)) else value


def fields_json(record: Any) -> dict[str, Any]:
    """The JSON object of a dataclass's own fields."""
    fields = [f for f in dataclasses.fields(record) if f.name != "more"]
    shown = [f.name for f in fields if f.default is not None or getattr(record, f.name) is not None]
    return {**{name: encode(getattr(record, name)) for name in shown}, **getattr(record, "more", {})}


@functools.cache
def _reader(kind: Any) -> Decoder:
    """What reads values of a type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _plain
    if hasattr(kind, "from_json"):
        return kind.from_json  # type: ignore[no-any-return]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _record(kind)
    if origin in (typing.Union, types.UnionType):
        return _either([_reader(a) for a in arguments])
    if origin is Literal:
        return lambda value: _expect(value in arguments, value, " or ".join(map(repr, arguments)))
    if origin is tuple:
        return _list(_reader(arguments[0]))
    if origin is Mapping:
        return _object(_reader(arguments[1]))
    return SCALARS[kind]


@functools.cache
def _record(kind: Any) -> Decoder:
    hints = typing.get_type_hints(kind)
    fields = {f.name: _reader(hints[f.name]) for f in dataclasses.fields(kind) if f.name != "more"}
    keeps = "more" in hints
    needed = [f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING]

    def read(value: Any) -> Any:
        _expect(isinstance(value, dict), value, "an object")
        for name in value:
            if name not in fields and not keeps:
                what = unknown("part", name, fields, "`{at}`").removesuffix(".")
                raise Mismatch(f"{what}; where a newer version wrote it, upgrade weightzoo")
        for name in needed:
            if name not in value:
                raise Mismatch("it has no `{at}`", name)
        given = {name: _at(name, fields[name], value[name]) for name in fields if name in value}
        if keeps:
            given["more"] = _values(_plain, {k: v for k, v in value.items() if k not in fields})
        return kind(**given)

    return read


def _list(item: Decoder) -> Decoder:
    def read(value: Any) -> Any:
        _expect(isinstance(value, list), value, "a list")
        return tuple(_items(item, value))

    return read


def _object(item: Decoder) -> Decoder:
    def read(value: Any) -> Any:
        _expect(isinstance(value, dict), value, "an object")
        return _values(item, value)

    return read


def _items(read: Decoder, values: list[Any]) -> list[Any]:
    done: list[Any] = []
    try:
        for value in values:
            done.append(read(value))
    except Mismatch as problem:
        raise problem.below(f"[{len(done)}]") from None
    return done


def _values(read: Decoder, values: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {}
    key = ""
    try:
        for key, value in values.items():
            _expect(len(key) <= MOST_KEY, key, "a name")
            done[_text(key)] = read(value)
    except Mismatch as problem:
        raise problem.below(shown(key)) from None
    return done


def _at(step: str, read: Decoder, value: Any) -> Any:
    try:
        return read(value)
    except Mismatch as problem:
        raise problem.below(step) from None


def _either(readers: list[Decoder]) -> Decoder:
    def read(value: Any) -> Any:
        problems = []
        for one in readers:
            try:
                return one(value)
            except Mismatch as problem:
                problems.append(problem)
        raise problems[0]

    return read


def _plain(value: Any, depth: int = MOST_DEPTH) -> Any:
    """A JSON value of any shape, as it is, if it can be printed and hashed."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (dict, list)):
        if not depth:
            raise Mismatch("`{at}` is nested too deep")
        read = functools.partial(_plain, depth=depth - 1)
        return _values(read, value) if isinstance(value, dict) else _items(read, value)
    if isinstance(value, float):
        return _expect(math.isfinite(value), value, "a finite number")
    return _expect(value is None or isinstance(value, int), value, "a JSON value")


def _text(value: Any) -> Any:
    if isinstance(value, str) and value.isascii():
        return value
    _expect(isinstance(value, str), value, "a string")
    # Half of a surrogate pair is no character: it can be neither printed nor hashed.
    return _expect(not any("\ud800" <= c <= "\udfff" for c in value), value, "Unicode text")


def _whole(value: Any) -> Any:
    return _expect(type(value) is int and 0 <= value <= MOST_COUNT, value, "a whole number of 0 or more")


def _number(value: Any) -> Any:
    _expect(type(value) is float or (type(value) is int and abs(value) <= MOST_COUNT), value, "a number")
    return _expect(math.isfinite(value), value, "a finite number")


def _flag(value: Any) -> Any:
    return _expect(type(value) is bool, value, "true or false")


def _nothing(value: Any) -> Any:
    return _expect(value is None, value, "null")


SCALARS: dict[Any, Decoder] = {str: _text, int: _whole, float: _number, bool: _flag, types.NoneType: _nothing}


def _expect(good: bool, value: Any, what: str) -> Any:
    if not good:
        raise Mismatch(f"`{{at}}` is {reprlib.repr(value)}, not {what}")
    return value
