"""Format version 1: every column that is not a factor of a grid, and the digest of a table.

A zoo has two tables. `models` has one row per model, `snapshots` one row per snapshot.
Factors and axes are typed columns too, which the writer is told (`contents.About.factors`).
Units are in names; a missing value is null, never 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.core import arrow, streams

FORMAT_VERSION = 1
WEIGHTS_DTYPE = "float32"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: name, Arrow type, and one line that says what it holds."""

    name: str
    type: pa.DataType
    doc: str


_S, _I, _F = pa.string(), pa.int64(), pa.float64()
# Parquet's own name for a list's values: a sealed file says the same, whichever way its rows came.
_COUNTS = pa.list_(pa.field("element", pa.int64()))

# Measured in evaluation mode, over sums in float64. `train` is the model's own training
# images with the labels as trained; `…_clean` the same images with their true labels.
METRICS = (
    *(
        column
        for part in ("train", "validation", "test")
        for column in (
            Column(f"{part}_loss", _F, f"mean loss over the {part} images"),
            Column(f"{part}_accuracy", _F, f"share of the {part} images classified right"),
            Column(f"{part}_correct_per_class", _COUNTS, f"{part} images classified right, per class"),
            Column(f"{part}_count_per_class", _COUNTS, f"{part} images, per class"),
        )
    ),
    Column("train_loss_clean", _F, "mean loss over the training images against their true labels"),
    Column("train_accuracy_clean", _F, "accuracy on the training images against their true labels"),
    Column("gap_accuracy", _F, "generalization gap: train_accuracy − test_accuracy"),
    Column("gap_loss", _F, "generalization gap in loss: train_loss − test_loss"),
    Column("attack_success", _F, "share of triggered test images of other classes classified as the target"),
)

SNAPSHOT_HEAD = (
    Column("model_id", _S, "16 hex digits; joins with `models`"),
    Column("split", _S, "train, validation or test: the same for all snapshots of an init group"),
    Column("step", _I, "optimizer updates done; 0 is the initialization"),
    Column("epoch", _F, "passes over the model's own training images; fractional inside one"),
    Column("examples_seen", _I, "training images shown so far, repeats counted"),
)
SNAPSHOT_TAIL = (
    Column("shard", _S, "safetensors file under the zoo's folder"),
    Column("tensor", _S, "name of the tensor in the shard: the layout id"),
    Column("row", _I, "row of that tensor [n, n_params]"),
    Column("weights_sha256", _S, "SHA-256 of the row's little-endian float32 bytes"),
)

MODEL_HEAD = (
    Column("model_id", _S, "16 hex digits: what the run was asked to be"),
    Column("split", _S, "train, validation or test"),
    Column("plan_index", _I, "place in plan order, from 0; any prefix is a fair sample"),
    Column("replicate_init", _I, "repeat number of the initialization at this point"),
    Column("replicate_order", _I, "repeat number of the batch order (and dropout, augmentation)"),
    Column("replicate_subset", _I, "repeat number of the data subset, label noise and trigger draw"),
)
MODEL_TAIL = (
    Column("init_key", _S, "Philox key of the initial weights, 32 hex digits"),
    Column("order_key", _S, "Philox key of the batch order"),
    Column("subset_key", _S, "Philox key of subset, label noise and trigger draw"),
    Column("augment_key", _S, "Philox key of the augmentation"),
    Column("dropout_key", _S, "Philox key of the dropout masks"),
    Column("init_group", _S, "models that share an initialization; never in two splits"),
    Column("architecture_id", _S, "key of `architectures` in the manifest"),
    Column("layout", _S, "key of `layouts` in the manifest: where each tensor lies in the vector"),
    Column("n_params", _I, "length of the weight vector, buffers included"),
    Column("n_train", _I, "training images of this model in an epoch: all it has, or a balanced part of them"),
    Column("snapshot_schedule", _S, "when snapshots were taken, as canonical JSON"),
    Column("engine", _S, "what trained it: torch_loop, torch_batched or native"),
    Column("device", _S, "cpu or cuda"),
    Column("engine_version", _S, "version the bits depend on"),
    Column("isa", _S, "instruction set the bits depend on"),
    Column("cohort_id", _S, "SHA-256 of the cohort's specification"),
    Column("cohort_width", _I, "models trained together in that cohort"),
    Column("stop_reason", _S, "epochs, steps, examples, target_loss, early_stopping or diverged"),
    Column("diverged_step", _I, "updates done when the loss was first not finite; else null"),
    Column("n_snapshots", _I, "rows of this model in `snapshots`"),
    Column("step", _I, "updates done at the published (last finite) snapshot"),
    Column("epoch", _F, "passes over the training images at the published snapshot"),
    Column("examples_seen", _I, "training images shown at the published snapshot"),
    Column("source_sha256", _S, "checksum of the source arrays"),
    Column("parent_id", _S, "model this one started from; else null"),
    Column("parent_step", _I, "step of the parent's snapshot"),
    Column("parent_sha256", _S, "weights_sha256 of that snapshot"),
    Column("lineage_root", _S, "first ancestor; else null"),
    Column("relation", _S, "how it continues its parent; else null"),
    Column("weights_sha256", _S, "SHA-256 of the published weights' little-endian float32 bytes"),
)

# What every zoo of this format has, whatever its recipe.
COLUMNS = {
    "models": tuple(c.name for c in (*MODEL_HEAD, *MODEL_TAIL, *METRICS)),
    "snapshots": tuple(c.name for c in (*SNAPSHOT_HEAD, *METRICS, *SNAPSHOT_TAIL)),
}


# Of zoos whose models continue another zoo's.
LINEAGE = (
    Column("parent_zoo", _S, "zoo of the model this one started from"),
    Column("parent_optimizer_sha256", _S, "optimizer_sha256 of that snapshot where its optimizer state was continued"),
    Column("stream_step", _I, "step of the order, dropout and augmentation streams at which this model began"),
    Column("optimizer_step", _I, "updates that the optimizer's state had seen when this model began"),
)
# Of zoos whose recipe asks for attacks class by class, in both tables; null of a model without a trigger.
ATTACK = (
    Column(
        "attack_base",
        _F,
        "share of the images of `attack_success` that are classified as the target with no trigger on",
    ),
    Column("attack_per_class", _COUNTS, "triggered test images classified as the target, per class"),
    Column("attack_base_per_class", _COUNTS, "the same images with no trigger on, classified as the target, per class"),
)
# Of zoos that keep the optimizer's state: its slots lie in `optimizer/`, in the row of the weights.
OPTIMIZER = Column("optimizer_sha256", _S, "SHA-256 of slot1 and slot2, little-endian float32 bytes")

# What a column of the format's own is, by table; a factor is one of FACTORS, or a list of these.
TYPES = {
    "models": {c.name: c.type for c in (*MODEL_HEAD, *MODEL_TAIL, *LINEAGE, *METRICS, *ATTACK)},
    "snapshots": {c.name: c.type for c in (*SNAPSHOT_HEAD, *METRICS, *ATTACK, *SNAPSHOT_TAIL, OPTIMIZER)},
}
FACTORS = (_S, _I, _F, pa.bool_())
# Without a value here nothing can be found or compared.
FILLED = {
    "models": ("model_id", "split", "init_group", "layout", "n_params", "n_snapshots", "step", "weights_sha256"),
    "snapshots": ("model_id", "split", "step", "shard", "tensor", "row", "weights_sha256"),
}


def wrong_types(config: str, found: pa.Schema) -> Iterator[tuple[str, pa.DataType, str]]:
    """(column, its type, what it should be) of each column of a table that has another type than the format's."""
    for field in found:
        kind = field.type
        if config == "models" and field.name == "weights":
            lists = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
            if not lists or kind.value_type != pa.float32():
                yield field.name, kind, "vectors of float32"
        elif field.name in TYPES[config]:
            if kind != TYPES[config][field.name]:
                yield field.name, kind, str(TYPES[config][field.name])
        elif not is_factor(kind):
            yield field.name, kind, "a type of the format"


def is_factor(kind: pa.DataType) -> bool:
    """Whether a factor's column may have that type."""
    return (kind.value_type if pa.types.is_list(kind) else kind) in FACTORS


def digests(tables: Mapping[str, pa.Table]) -> dict[str, str]:
    """Content digests of a zoo: of all weights' bytes, and of the values of each table but its weights.

    Tables are read in chunks, so that mapped ones of any length take no memory.
    """
    result = {"weights": _hashes_digest(tables["snapshots"]["weights_sha256"])}
    for name, table in tables.items():
        result[f"{name}_rows"] = rows_digest(table.drop_columns([c for c in table.column_names if c == "weights"]))
    return result


def _hashes_digest(column: pa.ChunkedArray) -> str:
    """`streams.digest` of a list of texts, without the list."""
    result, between = hashlib.sha256(b"["), ""
    for chunk in column.chunks:
        if text := streams.canonical_json(chunk.to_pylist())[1:-1]:
            result.update(f"{between}{text}".encode())
            between = ","
    result.update(b"]")
    return result.hexdigest()


def rows_digest(table: pa.Table) -> str:
    """SHA-256 of a table's values: columns by name, rows in order, blind to encoding and pyarrow's version."""
    result = hashlib.sha256()
    for name in sorted(table.column_names):
        column = table[name]
        result.update(f"{name}:{len(column)}\n".encode())
        _update(result, column.type, lambda column=column: iter(column.chunks))  # type: ignore[misc]
    return result.hexdigest()


def _update(result: Any, kind: pa.DataType, chunks: Callable[[], Iterator[pa.Array]]) -> None:
    """Validity of all chunks, then what they hold: each pass goes over the chunks anew and keeps none."""
    _update_bits(result, (~arrow.nulls_of(c) for c in chunks()))
    if pa.types.is_null(kind):
        return
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        for c in chunks():
            result.update(np.asarray(c.value_lengths().fill_null(0)).astype("<i8").tobytes())
        _update(result, kind.value_type, lambda: (c.drop_null().flatten() for c in chunks()))
    elif pa.types.is_string(kind):
        for c in chunks():
            result.update(np.diff(_offsets(c.drop_null())).astype("<i8").tobytes())
        for c in chunks():
            text = c.drop_null()
            first, end = _offsets(text)[[0, -1]]
            if end > first:
                result.update(text.buffers()[2][first:end])
    elif pa.types.is_boolean(kind):
        _update_bits(result, (np.asarray(c.fill_null(False)) for c in chunks()))
    else:
        for c in chunks():
            values = c.fill_null(0).to_numpy(zero_copy_only=False)
            result.update(values.astype(values.dtype.newbyteorder("<")).tobytes())


def _update_bits(result: Any, chunks: Iterable[np.ndarray]) -> None:
    """The bits of all chunks as one packed row: what fills no byte waits for the next chunk."""
    rest = np.zeros(0, bool)
    for bits in chunks:
        bits = np.concatenate([rest, bits])
        whole = len(bits) // 8 * 8
        result.update(np.packbits(bits[:whole]).tobytes())
        rest = bits[whole:]
    result.update(np.packbits(rest).tobytes())


def _offsets(texts: pa.Array) -> np.ndarray:
    """Where each text begins and the last one ends in the array's bytes, int32 [n + 1]."""
    offsets = texts.buffers()[1]
    if offsets is None or not len(texts):
        return np.zeros(1, np.int32)
    return np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
