"""Plain values → YAML that reads back as the same values."""

from __future__ import annotations

from typing import Any

import yaml

LINE_BREAKS = "\x85\u2028\u2029"  # of YAML 1.1: PyYAML would fold them away


class Dumper(yaml.SafeDumper):
    """Writes a text with such a line break escaped."""


def text_node(dumper: yaml.SafeDumper, text: str, style: str | None = None) -> yaml.Node:
    """The node of a text, in a style that keeps all of it."""
    kept = '"' if any(c in text for c in LINE_BREAKS) else style
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=kept)


Dumper.add_representer(str, text_node)


def dump(value: Any, dumper: type[yaml.SafeDumper] = Dumper, **options: Any) -> str:
    """The value in block style, keys in their order."""
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, **options))
