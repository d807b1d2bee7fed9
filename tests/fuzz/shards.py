"""A stranger's safetensors shards: headers that lie, bytes flipped, files cut or grown; the manifest agrees."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import _strangers
from tests.fuzz._strangers import prepare as prepare

JUNK: tuple[Any, ...] = (
    None, True, 0, 1, -1, 4, 8, 2**31, 2**62, 2**63, 10**40, 0.0, 1.5, float("nan"), "", "F32", "F16", "I64", "x", "\ud800", [],
    [0], [0, 0], [2**62, 0], [2**32, 2**32], [1] * 100, [[1]], {}, {"x": 1}, [1, 2, 3],
)  # fmt: skip


def trial(rng: np.random.Generator, folder: Path) -> str:
    """One changed shard, sealed again, and everything that is done with the zoo."""
    root = _strangers.copied(folder)
    found = sorted(p for name in ("weights", "optimizer") for p in (root / name).iterdir())
    path = found[rng.integers(len(found))]
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    head, body = data[8 : 8 + length], data[8 + length :]
    kind = rng.integers(6)
    if kind < 3:
        head = _changed(rng, json.loads(head))
    elif kind == 3:
        raw = bytearray(head)
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[place] ^= 1 << int(rng.integers(8))
        head = bytes(raw)
    elif kind == 4:
        raw = bytearray(body)
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[place] ^= 1 << int(rng.integers(8))
        body = bytes(raw)
    claimed = (
        len(head)
        if rng.integers(3)
        else int(rng.choice([0, 1, len(head) - 1, len(head) + 8, 999_999, 2**31, 2**63 - 1]))
    )
    data = claimed.to_bytes(8, "little") + head + body
    if kind == 5:
        data = [data[: int(rng.integers(len(data)))], data + bytes(int(rng.integers(1, 100))), b"", data[:8]][
            rng.integers(4)
        ]
    path.write_bytes(data)
    _strangers.seal(root)
    return _strangers.used(root, rng)


def _changed(rng: np.random.Generator, head: dict[str, Any]) -> bytes:
    """Another header: an entry's part replaced, tensors swapped, renamed, added, named twice; metadata of any kind."""
    name = list(head)[rng.integers(len(head))]
    part = ("dtype", "shape", "data_offsets")[rng.integers(3)]
    kind = rng.integers(9)
    if kind < 3:
        head[name][part] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    elif kind == 3:
        numbers = head[name][("shape", "data_offsets")[rng.integers(2)]]
        place = rng.integers(len(numbers))
        numbers[place] = [numbers[place] + 1, numbers[place] - 4, numbers[place] * 2, -numbers[place], 2**62][
            rng.integers(5)
        ]
    elif kind == 4:
        head[name] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    elif kind == 5:
        head[f"{name}x"] = head.pop(name)
    elif kind == 6:
        head["__metadata__"] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    elif kind == 7:
        first = json.dumps(head)
        return first[:-1].encode() + b"," + first[1:].encode()
    else:
        head[name]["shape"] = head[name]["shape"][::-1]
    return json.dumps(head).encode()
