"""A stranger's `manifest.json`: changed in structure, types and numbers, in its text, or forged so that its digest agrees."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import _strangers
from tests.fuzz._strangers import prepare as prepare
from zoo_datasets.networks.architecture import Architecture, from_json
from zoo_datasets.networks.layout import Layout

# What is put in the place of a value.
JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 255, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, -(2**63), 0.0, -0.0, 0.5, 1e-320, 1e308,
    float("nan"), float("inf"), "", "x", "\x00", "\x1b[31m", "\ud800", "‮", "é" * 50, "../x", "/etc/passwd", "x" * 3000,
    "sample", "external", "layers", "<script>", "`a`|b", [], {}, [None], [0], ["x"], [[]], {"x": None}, {"": {}},
    [1] * 40, [[[[[[]]]]]], list(range(2000)),
)  # fmt: skip


def trial(rng: np.random.Generator, folder: Path) -> str:
    """One changed manifest, and everything that is done with it."""
    root = _strangers.copied(folder)
    value = _strangers.read(root)
    how = rng.integers(5)
    if how == 0:
        _garble(rng, root)
    else:
        for _ in range(rng.integers(1, 4)):
            _change(rng, value)
        if how == 1:
            value.pop("manifest_sha256", None)  # one of before
        if how == 2:
            _own_ids(value)
        _strangers.write(root, value, forged=how != 1)
    return _strangers.used(root, rng)


def _garble(rng: np.random.Generator, root: Path) -> None:
    """The text itself: bits, pieces cut out, doubled or moved, numbers made longer, nesting."""
    data = bytearray((root / "manifest.json").read_bytes())
    at, end = sorted(int(n) for n in rng.integers(0, len(data), 2))
    end = min(end, at + 200)
    kind = rng.integers(7)
    if kind == 0:
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:end]
    elif kind == 2:
        data[at:at] = data[at:end]
    elif kind == 3:
        data = data[:at]
    elif kind == 4:
        data[at:at] = bytes([rng.choice(list(b'0123456789-+.eE,:[]{}"\\ \x00\xff'))]) * int(rng.integers(1, 300))
    elif kind == 5:
        data = bytearray(b"[" * 200_000 if rng.integers(2) else b'{"format_version": ' + b"1" * 10_000 + b"}")
    else:
        data[:] = b"\xef\xbb\xbf" + data if rng.integers(2) else bytes(data).decode().encode("utf-16")
    (root / "manifest.json").write_bytes(data)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in steps for p in ((*path, key), *_places(item, (*path, key)))]


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _change(rng: np.random.Generator, value: Any) -> None:
    """One value replaced, taken away, renamed, doubled, moved from elsewhere, or a number moved a little."""
    places = _places(value)
    if not places:
        return
    # By depth first: a manifest is mostly files and layouts.
    depth = rng.choice(sorted({len(p) for p in places}))
    near = [p for p in places if len(p) == depth]
    path = near[rng.integers(len(near))]
    holder, key = _at(value, path[:-1]), path[-1]
    item = holder[key]
    kind = rng.integers(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        names = ["x", "", "__class__", str(key)[:-1], f"{key}s", str(key).upper(), "\ud800"]
        holder[names[rng.integers(len(names))]] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.insert(int(rng.integers(len(holder) + 1)), copy.deepcopy(item))
    elif kind == 3:
        holder[key] = copy.deepcopy(_at(value, places[rng.integers(len(places))]))
    elif kind in (4, 5) and type(item) in (int, float):
        holder[key] = [item + 1, item - 1, -item, item * 2, item * 1000, item / 2, float(item)][rng.integers(7)]
    elif kind in (4, 5) and isinstance(item, str):
        other = [item + "x", item[:-1], item.upper(), item[::-1], item.replace("a", "b"), item + "\x00", item * 20]
        holder[key] = other[rng.integers(len(other))]
    else:
        holder[key] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])


def _own_ids(value: dict[str, Any]) -> None:
    """Ids of changed architectures and layouts recomputed, so that what they say is believed as far as it goes."""
    try:
        layouts = {
            name: Layout.from_json(json.loads(json.dumps(entries))) for name, entries in value["layouts"].items()
        }
        renamed = {name: layout.id for name, layout in layouts.items()}
        value["layouts"] = {renamed[name]: layout.to_json() for name, layout in layouts.items()}
        made = {}
        for name, record in value["architectures"].items():
            record["layout"] = renamed[record["layout"]]
            network = from_json(record, Layout.from_json(value["layouts"][record["layout"]]))
            made[network.id if isinstance(network, Architecture) else name] = record
        value["architectures"] = made
    except Exception:
        pass
