"""`Document` → the same without places, and the places: where a source lies is no part of a recipe.

In:  a `Document`, whose `source`, or levels of the axis `source`, may have a `path` beside their `id`.
Out: the `Document` without paths, and id → path. So a path enters no id, no table and no manifest,
     the recipe that a zoo keeps is the same on every machine, and one that names a place is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from zoo_builder.recipe import settings
from zoo_builder.recipe.document import Document
from zoo_builder.recipe.values import coerce
from zoo_datasets.errors import GridError

_SETTING = settings.SETTINGS["source_path"]
_KEYS = (_SETTING.path.split(".")[1], _SETTING.name)  # `source: {path: …}`; in a level the bare name too


def taken(document: Document) -> tuple[Document, dict[str, str]]:
    """The document without paths, and the folder of each source that has one. Raises GridError."""
    paths: dict[str, str] = {}
    values = dict(document.values)

    def without(block: Any, where: tuple[Any, ...]) -> Any:
        """A source's mapping without its path, which is kept."""
        if not isinstance(block, dict) or not set(_KEYS) & set(block):
            return block
        place = document.where(*where)
        source = block.get("id", block.get("source"))
        for path in (coerce(_SETTING, block[key], place) for key in _KEYS if key in block):
            if path is None:
                continue
            if not isinstance(source, str):
                raise GridError(
                    f"{place}: `path` is {path!r}, and names no set; give it an `id` of your own: owner/name."
                )
            if paths.setdefault(source, path) != path:
                raise GridError(f"{place}: source {source!r} has two paths, {paths[source]!r} and {path!r}; keep one.")
        return {key: value for key, value in block.items() if key not in _KEYS}

    kept = document.get("init", "keep")
    for where, levels in _levels(document):
        block: Any = values
        for key in where[:-1]:
            block[key] = dict(block[key])
            block = block[key]
        block[where[-1]] = (
            [without(level, (*where, i)) for i, level in enumerate(levels)]
            if isinstance(levels, list)
            else without(levels, where)
        )
    # Networks that keep their parents' source may be told where it lies.
    if paths and "source" in (kept if isinstance(kept, list) else [kept]) and set(values.get("source") or ()) == {"id"}:
        del values["source"]
    return dataclasses.replace(document, values=values), paths


def refuse(document: Document) -> None:
    """Raises GridError where the recipe of a zoo names a place.

    Sealing takes places out: one that is there was written by a stranger, and would have files of this machine read, or of a
    source that computes a Python file run. A user's own stands in the command line.
    """
    for source, path in taken(document)[1].items():
        raise GridError(
            f"{document.where('source', 'path')}: a zoo's recipe names no place, and this one has source {source!r} read from "
            f"{path!r}: it was changed after it was sealed, and nothing is read. To build it from a place of yours, take that out "
            "and say --set source.path=…."
        )


def _levels(document: Document) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where a recipe speaks of its source: the block, and lists of levels."""
    for where in (
        ("source",),
        ("axes", "source"),
        ("sample", "axes", "source"),
        ("sample", "axes", "source", "choice"),
    ):
        value = document.get(*where)
        if isinstance(value, dict if len(where) == 1 else list):
            yield where, value
