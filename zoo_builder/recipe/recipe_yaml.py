"""YAML text → plain values, each with the line it stands on.

PyYAML builds the node tree; the values are read here, because YAML 1.1 reads `no` as
false, `010` as 8, `1e-3` as text, and lets the last of two equal keys win in silence.
Custom tags, merge keys, cycles, infinite numbers and documents that unfold to very many
nodes are refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from zoo_datasets.core import yaml_text
from zoo_datasets.errors import GridError

MOST_BYTES = 1_000_000  # a recipe of a thousand lines has 50 kB
MOST_NODES = 50_000  # PyYAML makes ten thousand a second; aliases can make a few lines unfold to billions
MOST_DEPTH = 40
CHARACTERS_PER_NODE = 1_000  # one long text under many aliases unfolds too

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$")
_HALF_PAIR = re.compile("[\ud800-\udfff]")  # from an escape; UTF-8 cannot hold one
_PLAIN_TAGS = {f"tag:yaml.org,2002:{t}" for t in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")}

Lines = dict[tuple[Any, ...], int]


def load(text: bytes, name: str) -> tuple[Any, Lines]:
    """The value of a document, and path → line (from 1) of each key and item. Raises GridError."""
    if len(text) > MOST_BYTES:
        raise GridError(f"{name} has {len(text):,} bytes; a recipe has at most {MOST_BYTES:,}.")
    try:
        node = _Composer(text.decode("utf-8"), name).get_single_node()
    except GridError:
        raise
    except UnicodeDecodeError as error:
        raise GridError(f"{name} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise GridError(f"{name}, line {line}: this is not YAML: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # an escape of no character is the latter two
        raise GridError(f"{name}: this is not YAML: {error}.") from None
    if node is None:
        raise GridError(f"{name} is empty; a recipe needs at least `zoo: owner/name`.")
    lines: Lines = {}
    return _Reader(name, lines).read(node, (), 0), lines


def dump(value: Any) -> str:
    """YAML that `load` reads back to an equal value."""
    return yaml_text.dump(value, _Dumper, default_flow_style=None, width=100)


class _Dumper(yaml.SafeDumper):
    """Quotes what would not be read back as it is: PyYAML leaves the text `1e-3` bare."""


def _represent_text(dumper: _Dumper, value: str) -> yaml.Node:
    return yaml_text.text_node(dumper, value, None if isinstance(_plain(value), str) else "'")


_Dumper.add_representer(str, _represent_text)


class _Composer(yaml.SafeLoader):
    """PyYAML's tree, given up where it grows too large: a megabyte of it takes PyYAML minutes."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.file, self.made, self.depth = name, 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.made += 1
        self.depth += 1
        if self.made > MOST_NODES:
            raise GridError(f"{self.file} has more than {MOST_NODES:,} values; a recipe has at most so many.")
        if self.depth > MOST_DEPTH:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # PyYAML's own
            raise GridError(f"{self.file}, line {line}: nested deeper than {MOST_DEPTH} levels.")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    def __init__(self, name: str, lines: Lines) -> None:
        self.name, self.lines, self.nodes = name, lines, 0

    def read(self, node: yaml.Node, path: tuple[Any, ...], depth: int) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.nodes += 1 + (len(node.value) // CHARACTERS_PER_NODE if isinstance(node, yaml.ScalarNode) else 0)
        if self.nodes > MOST_NODES:
            raise GridError(f"{self.name} unfolds to more than {MOST_NODES:,} values: aliases of aliases are refused.")
        if depth > MOST_DEPTH:
            raise GridError(f"{self.name}, line {line}: nested deeper than {MOST_DEPTH} levels.")
        self._check_tag(node, line)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        assert isinstance(node, yaml.ScalarNode), "PyYAML has no other kind of node"
        return self._scalar(node, line)

    def _check_tag(self, node: yaml.Node, line: int) -> None:
        if node.tag not in _PLAIN_TAGS:
            raise GridError(f"{self.name}, line {line}: the tag {node.tag!r} is refused; a recipe holds plain values.")

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        value = node.value if node.style is not None else _plain(node.value)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise GridError(f"{self.name}, line {line}: {node.value[:40]} is too large; whole numbers have 64 bits.")
        if isinstance(value, float) and not math.isfinite(value):
            raise GridError(f"{self.name}, line {line}: {node.value[:40]} is not a finite number.")
        if _HALF_PAIR.search(node.value):
            raise GridError(f"{self.name}, line {line}: half a surrogate pair is no character.")
        return value

    def _mapping(self, node: yaml.MappingNode, path: tuple[Any, ...], depth: int) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                raise GridError(f"{self.name}, line {line}: a key must be a plain name.")
            self._check_tag(key_node, line)
            self._scalar(key_node, line)  # refused where a value would be; a key itself stays text
            key = key_node.value
            if key in result:
                first = self.lines[(*path, key)]
                raise GridError(f"{self.name}, line {line}: `{key}` is given twice (first in line {first}). Keep one.")
            self.lines[(*path, key)] = line
            result[key] = self.read(value_node, (*path, key), depth + 1)
        return result


def _plain(text: str) -> Any:
    """What unquoted text means by YAML 1.2's core rules."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INT.match(text):
        return int(text.replace("_", "")[:22])  # more digits are refused; Python's int() would raise at 4,300
    if _FLOAT.match(text):  # 010 and 1_0.5 stay text: what they mean differs between YAML versions
        return float(text)
    if text in (".inf", "+.inf", "-.inf", ".nan"):
        return float(text.replace(".", ""))
    return text
