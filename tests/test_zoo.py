"""Opening a zoo, selecting, and one model of it."""

from __future__ import annotations

import ast
import importlib
import json
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hub_server import LoopbackHub
from hypothesis import given, settings
from hypothesis import strategies as st
from resealed import write_manifest

import zoo_datasets
from zoo_datasets import weights
from zoo_datasets.errors import FormatVersionError, IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import contents, writer
from zoo_datasets.format.schema import Column
from zoo_datasets.format.tables import read_table
from zoo_datasets.networks import modules
from zoo_datasets.networks.layout import Layout
from zoo_datasets.reading.columns import unknown_level
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("hub_fixtures", "reader_fixtures")


# ── opening ──


def test_public_names_are_these() -> None:
    assert zoo_datasets.__all__ == [
        "BuildError", "FormatVersionError", "GridError", "IntegrityError", "NoNetworkError", "Weights", "Zoo",
        "ZooError", "ZooNotFoundError", "open_zoo", "weights",
    ]  # fmt: skip
    assert zoo_datasets.open_zoo is open_zoo
    assert callable(zoo_datasets.weights)
    assert set(zoo_datasets.__all__) <= set(dir(zoo_datasets))
    with pytest.raises(AttributeError, match="no attribute 'open_zoos'"):
        _ = zoo_datasets.open_zoos


# What users import by name, and what is in it for them.
PUBLIC = {
    "audit": {"audit"},
    "evaluate": {"evaluate", "Evaluation"},
    "hub": {"locate"},
    "intervals": {"mean", "difference", "proportion", "score", "contrast", "statistic", "crossed_mean"},
    "loaders": {"Loader", "WeightsDataset", "WeightsStream", "LayoutBatches"},
    "metrics": {"kendall", "auc", "balanced_accuracy"},
    "sources": {"load", "SourceSpec", "Source", "Subset", "training_examples", "training_images"},
    "split_files": {"load_split", "by_group", "held_out"},
    "symmetry": {"augment", "canonicalize", "align", "match", "permute", "invert", "groups", "factors"},
    "variation": {"pairs", "effect"},
    "views": {
        "flat",
        "statistics",
        "statistic_names",
        "tokens",
        "untokens",
        "window",
        "graph",
        "ungraph",
        "trajectories",
    },
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_hold_these_names(name: str) -> None:
    module = importlib.import_module(f"zoo_datasets.{name}")
    assert not {n for n in PUBLIC[name] if not callable(getattr(module, n, None))}
    if hasattr(module, "__all__"):
        assert set(module.__all__) >= PUBLIC[name]
        assert not [n for n in module.__all__ if not hasattr(module, n)]


def test_editors_find_the_names_that_are_imported_when_they_are_used() -> None:
    """The block under TYPE_CHECKING, where type checkers look, names what `__getattr__` gives, from the same modules."""
    tree = ast.parse(Path(zoo_datasets.__file__).read_text())
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    homes = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert sorted(homes) == zoo_datasets.__all__
    for name, module in homes.items():
        assert getattr(zoo_datasets, name) is getattr(importlib.import_module(str(module)), name)


@pytest.mark.slow
def test_importing_and_selecting_bring_no_heavy_library(tiny_zoo: Path) -> None:
    code = (
        "import sys, zoo_datasets\n"
        "assert 'pyarrow' not in sys.modules\n"
        f"zoo = zoo_datasets.open_zoo({str(tiny_zoo)!r})\n"
        "repr(zoo.select(activation='relu', epoch=[0, 2], n_train=100)), zoo.weights[3:7], zoo.models\n"
        "heavy = {'torch', 'ray', 'sklearn', 'datasets', 'pandas', 'huggingface_hub', 'zoo_builder'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    folder = Path(zoo_datasets.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_are_what_the_files_hold(zoo: Zoo) -> None:
    for config, table in (("models", zoo.models), ("snapshots", zoo.snapshots)):
        stored = read_table(zoo.root, zoo.manifest, config)
        kept = [n for n in stored.column_names if n != "weights"]
        assert table.equals(stored.select(kept))


def test_opening_reads_neither_columns_nor_weights(tiny_copy: Path) -> None:
    for path in (tiny_copy / "weights").iterdir():
        path.write_bytes(b"")
    zoo = open_zoo(tiny_copy)
    assert len(zoo.select(activation="relu")) == 24
    with pytest.raises(IntegrityError, match=r"has 0 bytes, the manifest says"):
        _ = zoo.weights[0]


def test_repr_says_counts_axes_levels_and_sizes(zoo: Zoo) -> None:
    assert repr(zoo) == (
        "Zoo weightzoo/tiny: 16 models, 48 snapshots\n"
        "  activation   tanh, relu\n"
        "  subset       full, frac=0.5\n".replace("full, frac=0.5", ", ".join(zoo.axes["subset"]))
        + "  splits       " + ", ".join(f"{k} {v}" for k, v in zoo.manifest.counts.models.items()) + " models\n"
        "  weights      610 float32 each, 1 layout(s), 0.1 MB in all"
    )  # fmt: skip
    assert repr(zoo.select(activation="relu", epoch=0)).startswith(
        "Zoo weightzoo/tiny: 8 models, 8 snapshots, of 16 and 48\n  activation   relu\n"
    )


def test_a_handle_travels_to_other_processes_as_its_place_and_its_rows(zoo: Zoo) -> None:
    part = zoo.select(epoch=1)
    part.weights[:], part.snapshots
    data = pickle.dumps(part)
    assert len(data) < 100_000
    again = pickle.loads(data)  # noqa: S301
    assert np.array_equal(again.weights[:], part.weights[:])
    assert again.snapshots.equals(part.snapshots)


# ── selecting ──


def rows_where(zoo: Zoo, keep: Callable[[dict[str, Any]], bool]) -> list[int]:
    models = {m["model_id"]: m for m in zoo.models.to_pylist()}
    return [i for i, s in enumerate(zoo.snapshots.to_pylist()) if keep({**models[s["model_id"]], **s})]


LEVELS: dict[str, list[Any]] = {
    "activation": ["tanh", "relu"], "epoch": [0, 1.0, 2, 7], "subset": ["full", "frac=0.5"], "n_train": [200, 100, 101],
    "replicate_init": [0, 1, 2, 3], "split": ["train", "test"], "weight_decay": [0], "augment_flip": [False],
    "diverged_step": [None, 3], "clip_norm": [None], "step": [0, 7, 14],
}  # fmt: skip


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_select_is_equality_or_membership_in_every_column(zoo: Zoo, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(list(LEVELS)), unique=True, max_size=4))
    wanted = {
        n: data.draw(st.lists(st.sampled_from(LEVELS[n]), unique=True) | st.sampled_from(LEVELS[n])) for n in names
    }

    def keep(row: dict[str, Any]) -> bool:
        return all(row[n] in v if isinstance(v, list) else row[n] == v for n, v in wanted.items())

    assert zoo.select(**wanted).rows.tolist() == rows_where(zoo, keep)


UNKNOWN_LEVELS = {
    "case": ({"activation": "Tanh"}, r"Unknown level of activation 'Tanh' in weightzoo/tiny\..* Did you mean `tanh`\?"),
    "one of several": ({"activation": ["relu", "Tanh"]}, r"level of activation 'Tanh' .* Did you mean `tanh`\?"),
    "another": ({"activation": "gelu"}, r"level of activation 'gelu' .* Known: relu, tanh\."),
    "number": ({"lr": 0.02}, r"level of lr 0\.02 in weightzoo/tiny\. Known: 0\.01\. Did you mean `0\.01`\?"),
    "no number": ({"lr": float("nan")}, r"level of lr nan .* Did you mean `0\.01`\?"),
    "whole number": ({"batch_size": 10**9}, r"level of batch_size 1000000000 "),
    "bool": ({"augment_flip": True}, r"level of augment_flip 'True' .* Known: False"),
    "only null": ({"clip_norm": 1.0}, r"level of clip_norm 1\.0 .* Known: none\."),
    "block": ({"subset": "ful"}, r"level of subset 'ful' .* Did you mean `full`\?"),
    "lists": ({"subset_classes": [1, 2]}, r"level of subset_classes '\[1, 2\]' .* Known: none\."),
    "split": ({"split": "tset"}, r"level of split 'tset' .* Known: test, train, validation\. Did you mean `test`\?"),
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "message"), UNKNOWN_LEVELS.values(), ids=UNKNOWN_LEVELS)
def test_a_level_that_the_zoo_has_nowhere_is_no_empty_selection(wanted: dict[str, Any], message: str, zoo: Zoo) -> None:
    for part in (zoo, zoo.select(epoch=1), zoo.take([])):
        with pytest.raises(ZooError, match=message):
            part.select(**wanted)


F = pc.field
UNKNOWN_IN_EXPRESSIONS = {
    "equal": (F("activation") == "Tanh", r"Unknown level of activation 'Tanh' in weightzoo/tiny\..* Did you mean `tanh`\?"),
    "from the left": ("Tanh" == F("activation"), "level of activation 'Tanh'"),
    "not equal": (F("activation") != "Tanh", "level of activation 'Tanh'"),
    "among": (F("activation").isin(["tanh", "Tanh"]), "level of activation 'Tanh'"),
    "numbers": (F("lr").isin([0.01, 1 / 3]), r"level of lr 0\.3333333333333333 "),
    "deep": (~((F("epoch") > 1) | (F("lr") == 0.02)), r"level of lr 0\.02 .* Did you mean `0\.01`\?"),
    "bool": (F("augment_flip") == True, "level of augment_flip 'True'"),  # noqa: E712
    "split": (F("split") == "tset", r"level of split 'tset' .* Did you mean `test`\?"),
    "number for a text": (F("split") == 3, r"level of split '3' .* Known: test, train, validation\."),
    "quotes": (F("activation") == '") == b\n', "level of activation"),
}  # fmt: skip


@pytest.mark.parametrize(("expression", "message"), UNKNOWN_IN_EXPRESSIONS.values(), ids=UNKNOWN_IN_EXPRESSIONS)
def test_an_unknown_level_in_an_expression_is_refused_as_by_name(
    expression: pc.Expression, message: str, zoo: Zoo
) -> None:
    for part in (zoo, zoo.take([])):
        with pytest.raises(ZooError, match=message):
            part.select(expression)


def test_an_expression_over_no_levels_is_taken_as_it_is(zoo: Zoo) -> None:
    part = zoo.select(activation="relu")
    for expression in (
        F("activation") == "tanh", F("epoch") == 7, F("lr") == pa.scalar(None), F("lr") > 7, pc.starts_with(F("activation"), "T"),
        F("model_id") == 'activation == "Tanh"', F("subset_classes").is_valid(), F("split").isin(["test"]) & (F("step") == -1),
    ):  # fmt: skip
        assert len(part.select(expression)) == 0


def test_what_a_selection_has_lost_gives_an_empty_one(zoo: Zoo) -> None:
    part = zoo.select(activation="relu", subset="full")
    assert len(part) > 0
    for lost in ({"activation": "tanh"}, {"activation": []}, {"lr": None}, {"epoch": 7}, {"diverged_step": 3}):
        assert len(part.select(**lost)) == 0
    assert len(part.select(activation=["tanh", "relu"])) == len(part)


def test_at_most_ten_levels_are_named_the_nearest_among_them() -> None:
    levels = [i / 100 for i in range(100)]
    message = unknown_level("lr", 0.505, levels, "z")
    shown = [float(v) for v in message.split("Known: ")[1].split(", …")[0].split(", ")]
    assert shown == levels[46:56]
    assert message.endswith("… (100 in all). Did you mean `0.5`?")


def test_a_second_selection_narrows_the_first(zoo: Zoo) -> None:
    once = zoo.select(activation="relu", epoch=[0, 2], subset="full")
    twice = zoo.select(epoch=[0, 2]).select(pc.field("activation") == "relu").select(subset="full")
    assert once.rows.tolist() == twice.rows.tolist()
    assert twice.whole.rows.tolist() == zoo.rows.tolist()


def test_an_expression_may_join_columns_of_both_tables(zoo: Zoo) -> None:
    accuracy = np.median(zoo.column("test_accuracy").to_numpy())
    found = zoo.select(
        (pc.field("test_accuracy") > accuracy) & (pc.field("n_train") < 150) & pc.field("activation").isin(["tanh"]),
        epoch=2,
    )
    wanted = rows_where(
        zoo,
        lambda r: (
            r["test_accuracy"] > accuracy and r["n_train"] < 150 and r["activation"] == "tanh" and r["epoch"] == 2
        ),
    )
    assert found.rows.tolist() == wanted


def test_a_column_of_lists_is_compared_whole(mixed_zoo: Zoo) -> None:
    assert set(mixed_zoo.select(subset_classes=[1, 4, 7]).column("subset").to_pylist()) == {"classes=1+4+7"}
    assert set(mixed_zoo.select(subset_classes=None).column("subset").to_pylist()) == {"full"}


@pytest.mark.parametrize(
    ("wanted", "n"),
    [
        ([[1, 4, 7]], 27), ([None, (1, 4, 7)], 54), ([None], 27), (np.array([[1, 4, 7]]), 27), (pa.array([1, 4, 7]), 27),
        (pa.array([[1, 4, 7], None]), 54), (np.array([1, 4, 7]), 27), ([np.int64(1), 4, pa.scalar(7)], 27),
    ],
)  # fmt: skip
def test_a_column_of_lists_is_one_of_several(wanted: Any, n: int, mixed_zoo: Zoo) -> None:
    assert len(mixed_zoo.select(subset_classes=wanted)) == n


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([[1, 4, 7], [1, 4]], r"Unknown level of subset_classes '\[1, 4\]' in weightzoo/mixed"),
        ([[[1, 4, 7]]], r"Column 'subset_classes' holds values of type int64; \[1, 4, 7\] is not one of them"),
        (["1"], r"Column 'subset_classes' holds values of type int64; '1' is not one of them"),
        ((n for n in (1, 4, 7)), "Column 'subset_classes' holds lists and is compared as a whole; <generator"),
    ],
)
def test_what_is_no_list_of_the_column_is_refused(wanted: Any, message: str, mixed_zoo: Zoo) -> None:
    with pytest.raises(ZooError, match=message):
        mixed_zoo.select(subset_classes=wanted)


def test_tables_of_a_selection_hold_its_rows_and_models(zoo: Zoo) -> None:
    part = zoo.select(activation="relu", epoch=[1, 2])
    assert part.snapshots.equals(zoo.snapshots.take(pa.array(part.rows)))
    assert part.models["activation"].unique().to_pylist() == ["relu"]
    assert set(part.models["model_id"].to_pylist()) == set(part.snapshots["model_id"].to_pylist())
    assert part.table(["n_train", "epoch"]).column_names == ["n_train", "epoch"]
    empty = part.select(activation="tanh")
    assert len(empty) == len(empty.snapshots) == len(empty.models) == 0
    assert "0 models, 0 snapshots" in repr(empty)


def test_values_of_numpy_and_arrow_name_models_and_steps(zoo: Zoo) -> None:
    ids, steps = zoo.models["model_id"], zoo.snapshots["step"]
    own = zoo.vector(ids[0].as_py(), steps[0].as_py())
    assert np.array_equal(zoo.vector(ids[0], steps[0]), own)
    assert np.array_equal(zoo.vector(np.str_(ids[0].as_py()), np.int64(steps[0].as_py())), own)
    assert np.array_equal(zoo.weights[np.array(3)], zoo.weights[3])
    assert zoo.table("lr").column_names == ["lr"]
    assert len(zoo.take(np.array([]))) == 0
    assert len(zoo.select(step=np.array(steps[0].as_py()))) == 16


def test_a_thousand_ids_are_one_look_at_the_table(zoo: Zoo) -> None:
    """It was a mask of the whole table for each."""
    ids = [f"{i:016x}" for i in range(100_000)]
    tracemalloc.start()
    try:
        assert len(zoo.select(model_id=[*ids, zoo.models["model_id"][3].as_py()])) == 3
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_what_a_selection_prints_is_its_own(zoo: Zoo) -> None:
    part = zoo.select(split="test")
    assert f"splits       test {len(part.models)} models" in repr(part)
    empty = repr(zoo.select(step=[]))
    assert "drawn at random" not in empty
    assert "splits       no models" in empty


def test_a_verified_zoo_is_a_dataset_without_a_copy(zoo: Zoo) -> None:
    checked = open_zoo(zoo.root, verify=True)
    assert checked.weights.runs() == zoo.weights.runs()
    assert len(checked.weights.runs()) == 3
    assert np.array_equal(weights(checked.to_hf())[:], zoo.weights[:])


def test_take_picks_positions_in_the_order_asked(zoo: Zoo) -> None:
    assert zoo.take([5, 3]).rows.tolist() == [5, 3]
    assert zoo.take([5, 3]).snapshots["step"].to_pylist() == zoo.snapshots["step"].take([5, 3]).to_pylist()
    assert zoo.take(slice(2, 4)).rows.tolist() == [2, 3]


def test_final_is_the_last_selected_snapshot_of_each_model(zoo: Zoo) -> None:
    assert zoo.final().column("step").to_pylist() == zoo.models["step"].to_pylist()
    assert set(zoo.take(np.arange(48)[::-1]).select(epoch=[0, 1]).final().column("epoch").to_pylist()) == {1.0}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"activatoin": "relu"},
            r"Unknown column 'activatoin' in weightzoo/tiny\. Known: .*Did you mean `activation`\?",
        ),
        ({"lr": "high"}, r"Column 'lr' holds values of type double; 'high' is not one of them"),
        ({"step": 0.5}, r"Column 'step' holds values of type int64; 0\.5 is not"),
        ({"activation": 3}, r"Column 'activation' holds values of type string; 3 is not"),
        ({"step": 10**400}, r"Column 'step' holds values of type int64; 1000+ is not"),
        ({"lr": 10**400}, r"Column 'lr' holds values of type double; 1000+ is not"),
        ({"subset_classes": 1}, r"Column 'subset_classes' holds lists and is compared as a whole; 1 is none"),
    ],
)
def test_a_condition_that_cannot_be_met_by_any_zoo_is_refused(wanted: dict[str, Any], message: str, zoo: Zoo) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.select(**wanted)


def test_an_expression_finds_columns_whose_name_is_no_single_word(tmp_path: Path) -> None:
    n = 3
    factors = [Column("my col", pa.float64(), ""), Column("x-y", pa.string(), ""), Column("a.b", pa.int64(), "")]
    layout = Layout.of([("a.weight", (2, 2), "parameter", ("units", ""))])
    models = pa.table({
        "model_id": ["m0", "m1", "m2"], "init_group": ["g0", "g1", "g2"], "layout": ["of4"] * n, "n_snapshots": [1] * n,
        "my col": [1.0, 2.0, 3.0], "x-y": ["a", "b", "b"], "a.b": [1, 1, 2],
    })  # fmt: skip
    about = contents.About("someone/theirs", {"of4": layout}, factors=factors, axes={c.name: "sample" for c in factors})
    vectors = [np.full((1, 4), k, np.float32) for k in range(n)]
    writer.write(tmp_path / "z", about, [contents.Models("train", models, pa.table({"step": [0] * n}), vectors)])
    found = open_zoo(tmp_path / "z")
    assert found.select(pc.field("my col") > 1).column("model_id").to_pylist() == ["m1", "m2"]
    assert found.select((pc.field("x-y") == "b") & (pc.field("a.b") < 2)).column("model_id").to_pylist() == ["m1"]
    with pytest.raises(ZooError, match="Unknown level of x-y 'c'"):
        found.select(pc.field("x-y") == "c")


def test_a_bad_expression_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ZooError, match=r"Unknown column 'epcoh' .*Did you mean `epoch`\?"):
        zoo.select(pc.field("epcoh") > 1)
    with pytest.raises(ZooError, match=r"takes a pyarrow\.compute expression or column=value"):
        zoo.select({"epoch": 1})  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="cannot be computed"):
        zoo.select(pc.field("activation") > 1)
    for no_condition in (pc.field("epoch"), pc.field("epoch") + 1, pc.scalar(1)):
        with pytest.raises(ZooError, match="cannot be computed: Filter expression must evaluate to bool"):
            zoo.select(no_condition)


# ── one model ──


@pytest.mark.slow
def test_a_loaded_model_reproduces_the_stored_test_accuracy(mixed_zoo: Zoo) -> None:
    import torch

    for row in mixed_zoo.models.to_pylist():
        network = mixed_zoo.load_model(row["model_id"])
        source = mixed_zoo.source(row["model_id"])
        assert not network.training
        with torch.inference_mode():
            guess = network(torch.from_numpy(source.scaled(source.test.inputs))).argmax(1).numpy()
        assert (guess == source.test.labels).mean() == row["test_accuracy"], row["model_id"]


def test_a_vector_survives_the_way_through_a_state_dict(mixed_zoo: Zoo) -> None:
    for row in mixed_zoo.snapshots.select(["model_id", "step"]).to_pylist():
        state = mixed_zoo.state_dict(row["model_id"], row["step"])
        architecture = mixed_zoo.architecture(row["model_id"])
        again = modules.to_vector(state, architecture)
        assert again.tobytes() == mixed_zoo.vector(row["model_id"], row["step"]).tobytes()
        counted = [v for k, v in state.items() if k.endswith("num_batches_tracked")]
        assert counted
        assert all(int(v) == row["step"] for v in counted)


def test_a_model_without_a_step_is_at_the_last_selected_one(zoo: Zoo) -> None:
    model = zoo.models["model_id"][2].as_py()
    first = zoo.select(epoch=[0, 1])
    assert np.array_equal(
        first.vector(model), zoo.vector(model, first.select(model_id=model).column("step").to_pylist()[-1])
    )


@pytest.mark.slow
def test_training_examples_are_those_of_the_row(zoo: Zoo) -> None:
    for row in zoo.models.to_pylist()[:6]:
        seen = zoo.training_examples(row["model_id"])
        assert len(seen.rows) == row["n_train"]
        labels = zoo.source(row["model_id"]).train.labels[seen.rows]
        assert np.bincount(labels, minlength=10).tolist() == row["train_count_per_class"]


def test_what_is_not_there_is_named(zoo: Zoo) -> None:
    model = zoo.models["model_id"][0].as_py()
    with pytest.raises(
        ZooNotFoundError, match=rf"Unknown model '{model[:-1]}' in weightzoo/tiny.*Did you mean `{model}`"
    ):
        zoo.load_model(model[:-1])
    with pytest.raises(ZooNotFoundError, match=r"has no snapshot at step 3 in this selection\. Known: 0, "):
        zoo.load_model(model, 3)
    other = "relu" if zoo.row(model)["activation"] == "tanh" else "tanh"
    with pytest.raises(ZooNotFoundError, match="has no snapshot in this selection; widen"):
        zoo.select(activation=other).vector(model)


# ── damage ──


def edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    change(manifest)
    write_manifest(root / "manifest.json", manifest)


def test_a_missing_zoo_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError, match=r"holds no zoo: it has no manifest\.json"):
        open_zoo(tmp_path)
    with pytest.raises(ZooNotFoundError, match="No folder"):
        open_zoo(tmp_path / "nowhere")


def test_newer_formats_are_refused(tiny_copy: Path) -> None:
    edit(tiny_copy, lambda m: m.update(weights_dtype="float8"))
    with pytest.raises(FormatVersionError, match=r"stores weights as float8.*Upgrade weightzoo"):
        open_zoo(tiny_copy)
    edit(tiny_copy, lambda m: m.update(format_version=99))
    with pytest.raises(FormatVersionError, match="format version 99"):
        open_zoo(tiny_copy)


@pytest.mark.slow
def test_an_architecture_of_another_layout_or_kind_is_refused(tiny_copy: Path) -> None:
    def lie(manifest: dict[str, Any]) -> None:
        for a in manifest["architectures"].values():
            a["nodes"][1]["shape"], a["nodes"][1]["attrs"] = [9], {"features": 9}

    def agree(manifest: dict[str, Any]) -> None:
        for a in manifest["architectures"].values():
            a["nodes"][2]["shape"] = [9]

    edit(tiny_copy, lie)
    zoo = open_zoo(tiny_copy)
    with pytest.raises(IntegrityError, match=r"contradicts itself: layer 3 .* has shape \[8\], and \[9\] follows"):
        zoo.load_model(zoo.models["model_id"][0].as_py())
    edit(tiny_copy, agree)
    zoo = open_zoo(tiny_copy)
    with pytest.raises(IntegrityError, match=r"has layout .*, the manifest says"):
        zoo.load_model(zoo.models["model_id"][0].as_py())
    edit(tiny_copy, lambda m: [a.update(kind="attention") for a in m["architectures"].values()] and None)
    zoo = open_zoo(tiny_copy)
    with pytest.raises(FormatVersionError, match=r"kind 'attention'.*Upgrade"):
        zoo.load_model(zoo.models["model_id"][0].as_py())


def test_another_source_than_the_zoos_is_refused(tiny_copy: Path) -> None:
    path = next((tiny_copy / "data" / "models").glob("train-*"))
    table = pq.read_table(path)
    at = table.schema.get_field_index("source_sha256")
    pq.write_table(table.set_column(at, "source_sha256", pa.array(["0" * 64] * len(table))), path)
    edit(
        tiny_copy,
        lambda m: (
            [
                e.update(bytes=path.stat().st_size)
                for e in m["files"]
                if e["path"].endswith(path.name) and "models" in e["path"]
            ]
            and None
        ),
    )
    zoo = open_zoo(tiny_copy)
    with pytest.raises(IntegrityError, match="is not what weightzoo/tiny was trained on"):
        zoo.source(table["model_id"][0].as_py())
    with pytest.raises(IntegrityError, match="has other contents than were sealed"):
        open_zoo(tiny_copy, verify=True)


def test_a_torn_table_is_an_integrity_error(tiny_copy: Path) -> None:
    path = next((tiny_copy / "data" / "snapshots").glob("train-*"))
    data = bytearray(path.read_bytes())
    data[100:400] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"of weightzoo/tiny is damaged.*Fetch or build"):
        _ = open_zoo(tiny_copy).snapshots
    path.write_bytes(data[:-20] + bytes(20))
    with pytest.raises(IntegrityError, match="is damaged"):
        open_zoo(tiny_copy).select(epoch=0)


def test_a_zoo_on_the_hub_opens_like_a_folder(published: LoopbackHub, zoo: Zoo) -> None:
    far = open_zoo("weightzoo/tiny", revision="v1")
    assert far.snapshots.equals(zoo.snapshots)
    assert far.select(activation="relu", epoch=2).rows.tolist() == zoo.select(activation="relu", epoch=2).rows.tolist()
    with pytest.raises(ZooNotFoundError, match="v9"):
        open_zoo("weightzoo/tiny", revision="v9")
