"""A selection of a zoo → a `datasets.Dataset` of columns and weights.

In:  a `Selection`, and which columns of `snapshots` to take.
Out: a dataset over the mapped shards: no weight is copied, and torch is not needed.
`arrow_weights.py` is the way back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.core import libraries, streams
from zoo_datasets.errors import ZooError
from zoo_datasets.reading.selection import Selection
from zoo_datasets.reading.weights import Weights

# Chunks of an Arrow table of weights; a table of more scraps is slower to read than a copy.
MOST_CHUNKS = 1000


def to_hf(zoo: Selection, columns: Sequence[str] | None = None) -> Any:
    """The selection as a `datasets.Dataset`: columns (default: all of `snapshots`) and `weights`.

    Its weights are the mapped shards themselves, and a selection is the dataset's own
    indices, so nothing is copied; of a zoo on the Hub, or of several layouts, it holds the
    selected rows alone. `zoo_datasets.weights` gives the matrix back.
    """
    columns = [columns] if isinstance(columns, str) else columns
    with libraries.needed():
        import datasets  # a second to import, for this function alone

    # Of a local zoo all snapshots, of which a selection is indices; what was asked for of a remote one, and of one of
    # several layouts, whose lists are a copy.
    base = zoo.whole if zoo.location.is_local and not zoo.whole.weights.ragged else zoo
    table = base.table(columns)
    table = pa.table([*table.columns, _column(base.weights)], [*table.column_names, "weights"])  # columns may be none
    rows = hashlib.sha256(base.rows.tobytes()).hexdigest()
    fingerprint = streams.digest([dict(zoo.manifest.digests), rows, table.column_names])[:16]
    dataset = datasets.Dataset(table, fingerprint=fingerprint)
    return dataset if np.array_equal(base.rows, zoo.rows) else dataset.select(zoo.rows)


def _column(weights: Weights) -> pa.ChunkedArray:
    """Weights as an Arrow column: a chunk for each run of neighboring rows, which is a view, not copied."""
    n = len(weights)
    if weights.ragged:
        rows = weights[:]
        offsets = np.cumsum([0, *(len(r) for r in rows)])
        values = pa.array(np.concatenate(rows), pa.float32())
        if offsets[-1] < 2**31:
            return pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)])
        raise ZooError("These weights mix layouts and pass 8 GB; take them by layout, or select fewer.")
    width = weights.shape[1] or 0
    kind = pa.list_(pa.float32(), width)
    runs = weights.runs()
    chunks = []
    for start, end in runs if len(runs) <= MOST_CHUNKS else [(0, n)]:
        flat = weights[start:end].reshape(-1)
        values = pa.Array.from_buffers(pa.float32(), flat.size, [None, pa.py_buffer(flat)])
        chunks.append(pa.FixedSizeListArray.from_arrays(values, type=kind))
    return pa.chunked_array(chunks, kind)
