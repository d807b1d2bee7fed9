"""The digest of a table sees values and nothing else; the columns are well formed."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_builder.planning import runs
from zoo_datasets.format import schema

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("count", pa.int64()),
        ("loss", pa.float64()),
        ("flip", pa.bool_()),
        ("classes", pa.list_(pa.int64())),
        ("weights", pa.list_(pa.float32(), 3)),
        ("nothing", pa.null()),
    ]
)
INT64 = st.integers(-(2**63), 2**63 - 1)
ROW = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "count": st.none() | INT64,
        "loss": st.none() | st.floats(allow_nan=True),
        "flip": st.none() | st.booleans(),
        "classes": st.none() | st.lists(st.none() | INT64, max_size=3),
        "weights": st.lists(st.floats(width=32), min_size=3, max_size=3),
        "nothing": st.none(),
    }
)
ROWS = st.lists(ROW, max_size=12)
FULL = {
    "text": "a",
    "count": 1,
    "loss": 0.5,
    "flip": True,
    "classes": [1, 2],
    "weights": [1.0, 2.0, 3.0],
    "nothing": None,
}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def test_the_digest_of_a_table_is_pinned() -> None:
    rows = [FULL, {**FULL, "text": None, "classes": None, "loss": float("nan")}, {**FULL, "text": "é", "classes": []}]
    assert schema.rows_digest(table(rows)) == "7eb34a1fe4f540576dc59865099d1f2be2af725bcf81c496dba67839429986b0"


@settings(deadline=None, max_examples=40)
@given(ROWS, st.lists(st.integers(0, 12), max_size=3))
def test_chunks_column_order_and_slices_do_not_change_the_digest(rows: list[dict], cuts: list[int]) -> None:
    whole = table(rows)
    expected = schema.rows_digest(whole)
    edges = sorted({0, len(rows), *(min(c, len(rows)) for c in cuts)})
    pieces = [whole.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    if pieces:
        assert schema.rows_digest(pa.concat_tables(pieces)) == expected
    assert schema.rows_digest(whole.select(whole.column_names[::-1])) == expected
    padded = pa.concat_tables([table([FULL]), whole, table([FULL])]).combine_chunks()
    assert schema.rows_digest(padded.slice(1, len(rows))) == expected


@settings(deadline=None, max_examples=30)
@given(ROWS, st.sampled_from(["zstd", "none"]), st.integers(1, 5), st.booleans())
def test_parquet_gives_the_same_digest_back(rows: list[dict], compression: str, group: int, dictionary: bool) -> None:
    whole, sink = table(rows), io.BytesIO()
    pq.write_table(whole, sink, compression=compression, row_group_size=group, use_dictionary=dictionary)
    sink.seek(0)
    assert schema.rows_digest(pq.read_table(sink)) == schema.rows_digest(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"text": "b"}, {"text": None}, {"text": ""}, {"count": 2}, {"count": None}, {"count": 0}, {"loss": 0.25},
        {"loss": None}, {"loss": 0.0}, {"loss": -0.0}, {"loss": float("nan")}, {"flip": False}, {"flip": None},
        {"classes": [2, 1]}, {"classes": [1]}, {"classes": []}, {"classes": None}, {"classes": [1, None]},
        {"classes": [1, 0]}, {"weights": [1.0, 2.0, -3.0]},
    ],
    ids=str,
)  # fmt: skip
def test_another_value_or_null_is_another_digest(change: dict[str, Any]) -> None:
    before = schema.rows_digest(table([FULL, FULL]))
    after = schema.rows_digest(table([FULL, {**FULL, **change}]))
    assert after != before
    moved = schema.rows_digest(table([{**FULL, **change}, FULL]))  # rows are in order
    assert moved not in (before, after)


def test_all_those_digests_differ() -> None:
    numbers = [0, 1, None, -1]
    ones = [schema.rows_digest(pa.table({"a": pa.array([n], pa.int64())})) for n in numbers]
    lists = [[[1], []], [[], [1]], [[1, 2], []], [[1], [2]], [None, [1, 2]], [[], [1, 2]]]
    several = [schema.rows_digest(pa.table({"a": pa.array(v, pa.list_(pa.int64()))})) for v in lists]
    texts = [["ab", "c"], ["a", "bc"], ["abc", ""], ["abc", None]]
    strings = [schema.rows_digest(pa.table({"a": v})) for v in texts]
    found = [*ones, *several, *strings]
    assert len(set(found)) == len(found)


def test_names_and_lengths_of_columns_count() -> None:
    one = pa.table({"a": pa.array([1], pa.int64())})
    assert schema.rows_digest(one) != schema.rows_digest(one.rename_columns(["b"]))
    assert schema.rows_digest(one) != schema.rows_digest(one.slice(0, 0))


def test_a_type_without_a_canonical_form_is_refused() -> None:
    with pytest.raises((TypeError, pa.ArrowException)):
        schema.rows_digest(pa.table({"a": pa.array([{"x": 1}])}))


def test_content_digests_take_weights_by_their_hashes() -> None:
    snapshots = pa.table({"weights_sha256": ["aa", "bb"], "step": [0, 1]})
    models = pa.table({"model_id": ["m"], "weights": pa.array([[1.0]], pa.list_(pa.float32()))})
    found = schema.digests({"models": models, "snapshots": snapshots})
    assert set(found) == {"weights", "models_rows", "snapshots_rows"}
    without = schema.digests({"models": models.drop_columns(["weights"]), "snapshots": snapshots})
    assert without == found  # the card may leave the weights out of a table
    other = schema.digests({"models": models, "snapshots": snapshots.slice(0, 1)})
    assert other["weights"] != found["weights"]


def test_every_column_of_a_table_has_one_name_a_type_and_a_line() -> None:
    factors = runs.factor_columns()
    for columns in (
        (*schema.MODEL_HEAD, *factors, *schema.MODEL_TAIL, *schema.METRICS),
        (*schema.SNAPSHOT_HEAD, *factors, *schema.METRICS, *schema.SNAPSHOT_TAIL),
    ):
        twice = [name for name, n in Counter(c.name for c in columns).items() if n > 1]
        assert not twice
        for c in columns:
            assert c.name.isidentifier(), c.name
            assert isinstance(c.type, pa.DataType), c.name
            assert c.doc, c.name
            assert "\n" not in c.doc, c.name


def test_metrics_are_complete_for_every_part() -> None:
    names = {c.name for c in schema.METRICS}
    for part in ("train", "validation", "test"):
        assert {f"{part}_{m}" for m in ("loss", "accuracy", "correct_per_class", "count_per_class")} <= names
    assert {"train_accuracy_clean", "gap_accuracy", "attack_success"} <= names


def test_weights_are_little_endian_float32() -> None:
    assert np.dtype(schema.WEIGHTS_DTYPE).itemsize == 4
    assert schema.FORMAT_VERSION == 1
