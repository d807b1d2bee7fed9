"""YAML → `Document`: a recipe as plain values, which knows where each of them stands.

In:  a YAML file, `--set path=value` changes and a `--limit`, which become part of it.
Out: a `Document`: plain YAML values, with the place of each for messages. What they mean is
`grid.py`'s to say; here they are only found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_builder.recipe import recipe_yaml, settings
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.networks.generated import GENERATED

TOP_LEVEL = (
    "zoo", *dict.fromkeys(path.split(".")[0] for path in settings.BY_PATH), "axes", "sample", "replicates", "paired",
    "snapshots", "splits", "seed", "cohort_size", "limit", "description", "license",
)  # fmt: skip
MOST_SHOWN = 100  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Document:
    """A recipe's values; what reads them names the line of what is wrong."""

    values: Mapping[str, Any]
    lines: recipe_yaml.Lines
    name: str  # of the file
    changed: Sequence[tuple[str, ...]]  # paths of the `--set` changes

    def where(self, *path: Any) -> str:
        """The place of a value, as messages begin with it."""
        for keys in self.changed:
            if path[: len(keys)] == keys or (path not in self.lines and keys[: len(path)] == path):
                return f"--set {'.'.join(keys)}"
        line = self.lines.get(path)
        return f"{self.name}, line {line}" if line else self.name

    def get(self, *path: str) -> Any:
        """The value at a path; None where there is none."""
        block: Any = self.values
        for key in path:
            block = block.get(key) if isinstance(block, dict) else None
        return block

    def mapping(self, key: str) -> dict[str, Any]:
        """A block that is a mapping, {} where it is absent. Raises GridError."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise GridError(f"{self.where(key)}: `{key}` is {value!r}; a mapping is needed.")
        return value

    def whole(self, key: str, default: int, least: int) -> int:
        """A whole number. Raises GridError."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise GridError(f"{self.where(key)}: `{key}` is {value!r}; a whole number ≥ {least} is needed.")
        return value


def read_document(path: Path | str, changes: Sequence[str] = (), limit: int | None = None) -> Document:
    """The document of a YAML file with `path=value` changes applied. Raises GridError."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise GridError(f"Cannot read the grid {path}: {error.strerror}. Name a YAML file with --grid.") from None
    document, lines = recipe_yaml.load(text, path.name)
    if not isinstance(document, dict):
        raise GridError(f"{path.name} holds a {type(document).__name__}; a recipe is a mapping: `zoo: owner/name`, …")
    changed = [_apply(document, change) for change in changes]
    if limit is not None:
        if any(change.partition("=")[0].strip() == "limit" for change in changes):
            raise GridError(f"--limit {limit} and --set limit say both how many models are built; keep one of them.")
        if limit < 1:
            raise GridError(f"--limit {limit}: at least 1 model is needed.")
        if limit >= 2**63:
            raise GridError(f"--limit {limit}: whole numbers have 64 bits.")
        document["limit"] = limit
    result = Document(document, lines, path.name, changed)
    for key in document:
        if key not in TOP_LEVEL:
            inside = settings.path_of(key)
            if inside is not None:
                *blocks, last = inside.split(".")
                written = "".join(f"{block}: {{" for block in blocks) + f"{last}: …" + "}" * len(blocks)
                raise GridError(f"{result.where(key)}: `{key}` stands inside a block: `{written}`.")
            raise GridError(unknown("key", key, TOP_LEVEL, result.where(key)))
    return result


def _apply(document: dict[str, Any], change: str) -> tuple[str, ...]:
    """Makes one `--set` change in the document; the path that it changed."""
    path, sign, text = change.partition("=")
    if not sign or not path:
        raise GridError(f"--set {change!r}: write it as path=value, for example --set training.epochs=2.")
    keys = path.split(".")
    if len(keys) == 1 and path not in TOP_LEVEL:
        # A bare name is as good as its path: --set lr=0.01.
        if path not in settings.SETTINGS:
            raise GridError(unknown("setting", path, [*TOP_LEVEL, *settings.SETTINGS], "--set"))
        keys = settings.SETTINGS[path].path.split(".")
    value, _ = recipe_yaml.load(text.encode(), f"--set {path}") if text.strip() else (None, None)
    block: Any = document
    for key in keys[:-1]:
        named = block.get(key)
        if key == "architecture" and isinstance(named, str) and named in GENERATED:
            block[key] = {named: {}}  # which says the same, and has room
        block = block.setdefault(key, {})
        if not isinstance(block, dict):
            raise GridError(f"--set {change!r}: `{key}` is {block!r} in the recipe, so nothing can be set inside it.")
    block[keys[-1]] = value
    return tuple(keys)


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What two recipes disagree about, for the message that refuses to mix them."""
    a, b, text = _flat(ours), _flat(theirs), streams.canonical_json

    def shown(values: dict[str, Any], key: str) -> str:
        if key not in values:
            return "absent"
        value = values[key]  # as JSON: 1 and 1.0 are other recipes, another order of keys is not
        written = text(value) if value is not None else "none"
        return written if len(written) <= MOST_SHOWN else written[:MOST_SHOWN] + "…"

    changed = [k for k in dict.fromkeys([*a, *b]) if k not in a or k not in b or text(a[k]) != text(b[k])]
    rows = [f"`{k.removeprefix('document.')}` is {shown(b, k)} there, {shown(a, k)} here" for k in changed[:5]]
    return "; ".join(rows) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
    return {path: value}
