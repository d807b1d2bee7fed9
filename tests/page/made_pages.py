"""Zoos for tests of the page, and what lies in a page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from resealed import write_manifest

from zoo_datasets.format import contents, writer
from zoo_datasets.format.schema import Column
from zoo_datasets.networks.layout import Layout
from zoo_datasets.page import payload
from zoo_datasets.zoo import Zoo, open_zoo

KINDS = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays, read as the page reads them."""
    plain = gzip.decompress(data)
    length = int.from_bytes(plain[:4], "little")
    header = json.loads(plain[4 : 4 + length])
    body = plain[4 + length :]
    arrays = {
        name: np.frombuffer(body, dtype, count, at) for name, (dtype, at, count) in header.pop("arrays").items()
    }  # fmt: skip
    return header, arrays


def packed_in(html: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What lies in a page."""
    found = re.search(r'<script type="application/x-weightzoo" id="data">([^<]*)</script>', html)
    assert found is not None
    return unpacked(base64.b64decode(found[1]))


def made(zoo: Zoo) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return unpacked(payload.make(zoo, zoo.name))


def external(
    out: Path, factors: Mapping[str, Sequence[Any]], *, metrics: Mapping[str, Sequence[Any]] | None = None,
    widths: Sequence[int] | None = None, steps: int = 1, weights: np.ndarray | None = None,
    texts: Mapping[str, str] | None = None, ids: Sequence[str] | None = None,
) -> Zoo:  # fmt: skip
    """A zoo without layers as an importer writes it: a column for each factor, a layout for each width."""
    n = len(next(iter(factors.values())))
    widths = [6] * n if widths is None else widths
    layouts = {f"of{w}": Layout.of([("a.weight", (w // 2, 2), "parameter", ("units", ""))]) for w in widths}
    columns = [
        Column(name, KINDS[type(next(v for v in values if v is not None))], name) for name, values in factors.items()
    ]
    about = contents.About(
        "someone/theirs", layouts, factors=columns, axes={c.name: "sample" for c in columns}, texts=dict(texts or {})
    )  # fmt: skip
    draw = np.random.default_rng(n)
    values = [
        draw.standard_normal((steps, widths[i]), np.float32) if weights is None else weights[i : i + 1]
        for i in range(n)
    ]
    models = pa.table({
        "model_id": list(ids or (f"model-{i:05}" for i in range(n))), "init_group": [f"group-{i // 2}" for i in range(n)],
        "layout": [f"of{w}" for w in widths], "n_snapshots": [len(v) for v in values],
        **{c.name: pa.array(factors[c.name], c.type) for c in columns},
    })  # fmt: skip
    own = np.repeat(np.arange(n), [len(v) for v in values])
    measured = {k: pa.array([v[i] for i in own], pa.float64()) for k, v in (metrics or {}).items()}
    at = np.concatenate([10 * np.arange(len(v)) for v in values])
    parts = [contents.Models("train", models, pa.table({"step": at, **measured}), values)]
    writer.write(out, about, parts)
    return open_zoo(out)


def retabled(zoo: Zoo, config: str, change: Callable[[pa.Table], pa.Table]) -> Zoo:
    """The same zoo as a stranger would have sealed it, with another table."""
    root = zoo.root
    manifest = json.loads((root / "manifest.json").read_text())
    for entry in manifest["files"]:
        path = root / entry["path"]
        if path.parent == root / "data" / config:
            parquet.write_table(change(parquet.read_table(path)), path)
            entry |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_manifest(root / "manifest.json", manifest)
    return open_zoo(root)
