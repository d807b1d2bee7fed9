"""Neural Weight Space: its order, its files, and both ways between them and a zoo."""

from __future__ import annotations

import csv
import re
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets import cli, views
from zoo_datasets.errors import ZooError
from zoo_datasets.exchange import nws
from zoo_datasets.exchange.nws import importing, properties
from zoo_datasets.exchange.nws.network import Numbers, conv_values, read_off
from zoo_datasets.format import check, contents, writer
from zoo_datasets.format.schema import Column
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.zoo import Zoo, open_zoo

FIXED = Numbers(5, 3, 2, 8, 128)
TINY = (Numbers(3, 3, 2, 1, 4), Numbers(3, 4, 3, 2, 8), Numbers(5, 5, 2, 1, 4))
FACTORS = (
    Column("source", pa.string(), ""), Column("lr", pa.float64(), ""), Column("batch_size", pa.int64(), ""),
    Column("optimizer", pa.string(), ""), Column("init_kind", pa.string(), ""), Column("augment_shift", pa.int64(), ""),
)  # fmt: skip
Said = pytest.CaptureFixture[str]


def models(seed: int = 0, **changes: object) -> contents.Models:
    """Six models of three shapes with four snapshots each, no two alike."""
    draw = np.random.default_rng(seed)
    rows, weights = [], []
    for i in range(6):
        made = TINY[i % 3].network(("relu", "tanh")[i % 2])
        rows.append({
            "model_id": f"{i:016x}", "init_group": f"g{i}", "layout": made.layout_id, "architecture_id": made.id,
            "n_snapshots": 4, "source": ("ylecun/mnist", "uoft-cs/cifar10")[i % 2], "lr": 10.0 ** -(2 + i),
            "batch_size": 32 << i % 3, "optimizer": ("adam", "rmsprop", "momentum")[i % 3],
            "init_kind": ("constant", "normal", "glorot_uniform", "glorot_normal")[i % 4], "augment_shift": 3 * (i == 1),
        } | changes)  # fmt: skip
        weights.append(draw.standard_normal((4, made.n_params), np.float32))
    snapshots = {"step": np.tile([0, 10, 20, 30], 6), "epoch": np.tile([0.0, 1.0, 2.0, 3.0], 6)}
    snapshots |= {f"{p}_accuracy": np.round(draw.random(24), 3) for p in ("train", "validation", "test")}
    return contents.Models("train", pa.Table.from_pylist(rows), pa.table(snapshots), weights)


def sealed(root: Path, **changes: object) -> Zoo:
    """A zoo of such models."""
    made = [n.network(a) for n in TINY for a in ("relu", "tanh")]
    about = contents.About(
        "weightzoo/nws", {a.layout_id: a.layout for a in made},
        {a.id: {**a.to_json(), "layout": a.layout_id} for a in made}, FACTORS,
    )  # fmt: skip
    writer.write(root, about, [models(**changes)])
    return open_zoo(root)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return sealed(tmp_path_factory.mktemp("ours") / "weightzoo" / "nws")


@pytest.fixture(scope="module")
def theirs(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in their files. Read it; change only copies of it."""
    folder = tmp_path_factory.mktemp("theirs") / "out"
    assert nws.write(zoo, folder) == 6
    return folder


@pytest.fixture
def exported(theirs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(theirs, tmp_path / "out"))


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


# ── the order ──


def test_their_fixed_network_has_their_number_of_values() -> None:
    made = FIXED.network("elu")
    assert (made.n_params, conv_values(made)) == (92_868, 16_880)
    assert [n.op for n in made.nodes[:8]] == ["conv", "batch_norm", "elu", "max_pool"] * 2
    assert [n.op for n in made.nodes[12:]] == ["flatten", *["linear", "elu", "batch_norm", "dropout"] * 2, "linear"]


@pytest.mark.slow
def test_all_their_architectures_have_the_published_sizes() -> None:
    sizes = [
        Numbers(k, dc, df, wc, wf).network("relu").n_params
        for k in (3, 5, 7) for dc in (3, 4, 5) for df in (2, 3, 4) for wc in (4, 8, 12) for wf in (64, 128, 192)
    ]  # fmt: skip
    assert (len(sizes), min(sizes), max(sizes), sorted(sizes)[121]) == (243, 21_260, 388_172, 95_844)
    assert round(sum(sizes) / 243) == 125_270


def test_the_order_is_that_of_their_variables_and_of_flattened_pixels() -> None:
    """Named by hand on the smallest network that shows both: two channels of 1×2 pixels, two units."""
    layers = [{"conv": 2, "kernel": 1}, "batch_norm", "relu", "flatten", {"linear": 2}]
    made = build_architecture(layers, (1, 1, 2), 2)
    names = [f"{e.name}[{i}]" for e in made.layout for i in range(e.size)]
    shown = [names[i].replace("batch_norm1.", "").replace("linear1.weight", "w") for i in views.nws_order(made)]
    assert shown == [
        "conv1.weight[0]", "conv1.weight[1]", "conv1.bias[0]", "conv1.bias[1]",
        "bias[0]", "bias[1]", "weight[0]", "weight[1]",  # shift, then scale
        "running_mean[0]", "running_mean[1]", "running_var[0]", "running_var[1]",
        "w[0]", "w[2]", "w[1]", "w[3]", "w[4]", "w[6]", "w[5]", "w[7]",  # both channels of a pixel, unit by unit
        "linear1.bias[0]", "linear1.bias[1]",
    ]  # fmt: skip


def test_a_norm_of_flattened_images_has_their_order_of_pixels() -> None:
    made = build_architecture([{"conv": 2, "kernel": 1}, "flatten", "batch_norm", {"linear": 1}], (1, 1, 2), 1)
    shift = next(e for e in made.layout if e.name == "batch_norm1.bias")
    places = views.nws_order(made).tolist()
    assert [p - shift.offset for p in places if shift.offset <= p < shift.end] == [0, 2, 1, 3]


def test_a_kernel_is_written_by_output_then_input_channel() -> None:
    made = Numbers(3, 3, 2, 2, 8).network("relu")
    weights = np.arange(made.n_params, dtype=np.float32)
    kernel = made.layout.unflatten(weights)["conv1.weight"]  # (out, in, rows, columns)
    theirs = kernel.transpose(2, 3, 1, 0)  # as TensorFlow keeps it
    by_hand = [theirs[r, c, i, o] for o in range(2) for i in range(3) for r in range(3) for c in range(3)]
    assert views.to_nws(weights, made)[: kernel.size].tolist() == by_hand


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back_gives_the_same_bits(dtype: type) -> None:
    made = FIXED.network("relu")
    weights = np.random.default_rng(0).standard_normal((2, 3, made.n_params)).astype(dtype)
    weights[0, 0, :3] = [np.nan, np.inf, -0.0]
    moved = views.to_nws(weights, made)
    assert moved.dtype == dtype
    assert not np.array_equal(moved, weights)
    assert views.from_nws(moved, made).tobytes() == weights.tobytes()


def test_a_layer_that_they_do_not_have_has_no_order() -> None:
    made = build_architecture(["rows", {"gru": 4}, "last_step", {"linear": "classes"}], (1, 8, 8), 10)
    with pytest.raises(
        ValueError, match=r"^rows1 is a layer `rows`; the order is known of conv, linear, batch_norm\.$"
    ):
        views.nws_order(made)
    summed = build_architecture(
        ["flatten", {"linear": 4}, {"residual": ["relu", {"linear": 4}]}, {"linear": 2}], (1, 2, 2), 2
    )
    with pytest.raises(ValueError, match="is a layer `add`"):
        views.nws_order(summed)


def test_what_is_flat_is_flattened_once() -> None:
    once, twice = (
        build_architecture([{"conv": 2, "kernel": 1}, *flat, {"linear": 3}], (1, 2, 3), 3)
        for flat in (["flatten"], ["flatten", "flatten"])
    )
    np.testing.assert_array_equal(views.nws_order(twice), views.nws_order(once))


@pytest.mark.parametrize("numbers", [FIXED, *TINY, Numbers(3, 3, 2, 1, 4, batch_norm=False)])
def test_the_numbers_are_read_off_the_network(numbers: Numbers) -> None:
    assert read_off(numbers.network("elu")) == (numbers, "elu")


def test_another_network_has_no_numbers() -> None:
    layers = FIXED.layers()
    layers[1:3] = layers[2:0:-1]  # the activation before the norm
    assert read_off(build_architecture(layers, (3, 32, 32), 20)) is None
    assert read_off(build_architecture([*FIXED.layers()[:-1], {"linear": 10}], (3, 32, 32), 10)) is None
    assert read_off(build_architecture("mlp", (1, 8, 8), 10)) is None


# ── export and import ──


def test_the_files_are_theirs(zoo: Zoo, theirs: Path) -> None:
    folder = theirs / "0001"
    assert (folder / "meta.csv").read_text() == (
        "dataset,lrate,batch_size,batch_norm,augmentation,optimizer,activation,initialization,filter_size,depth_conv,"
        "depth_fc,width_conv,width_fc\ncifar10,0.001,64,True,1,1,3,1,3,4,3,2,8\n"
    )
    assert sorted(p.name for p in (folder / "weights").iterdir()) == ["001.bin", "002.bin", "003.bin", "004.bin"]
    at = zoo.position(f"{1:016x}", 20)
    made = zoo.architecture(f"{1:016x}")
    np.testing.assert_array_equal(
        np.fromfile(folder / "weights" / "003.bin", "<f8"), views.to_nws(zoo.weights[at], made).astype(np.float64)
    )
    errors = np.fromfile(folder / "error.bin", "<f8").reshape(-1, 5)
    assert errors[:, 0].tolist() == [0, 10, 20, 30]
    np.testing.assert_array_equal(errors[2, 1], 100 * (1 - zoo.column("train_accuracy")[at].as_py()))
    smooth = errors[0, 2]
    for row in errors[1:]:
        smooth = 0.5 * smooth + 0.5 * row[2]
        assert row[4] == smooth
    of_all = struct.unpack("<3d", (folder / "stat.bin").read_bytes()[:24])
    assert of_all == (4.0, 30.0, 3.0)
    kept = np.round(np.linspace(0, of_all[0] - 1, 4)).astype("uint32")  # as their loader takes the rows of snapshots
    assert errors[kept, 0].tolist() == [0, 10, 20, 30]
    listed = rows_of(theirs / "train.csv")
    assert [r["path"] for r in listed] == [f"{i:04d}" for i in range(6)]
    vector = np.fromfile(folder / "weights" / "001.bin", "<f8")
    assert len(vector) == int(listed[1]["weightn_conv"]) + int(listed[1]["weightn_fc"])


@pytest.mark.slow
def test_a_round_trip_gives_the_same_bits(zoo: Zoo, theirs: Path, tmp_path: Path) -> None:
    manifest = nws.read(theirs, tmp_path / "someone" / "back")
    assert manifest.zoo == "someone/back"
    assert not check.check(tmp_path / "someone" / "back").problems
    back = open_zoo(tmp_path / "someone" / "back")
    order = np.argsort(back.column("plan_index").to_numpy(), kind="stable")
    ours = sorted(range(len(zoo)), key=lambda i: (zoo.column("model_id")[i].as_py(), zoo.column("step")[i].as_py()))
    for mine, again in zip(ours, order.tolist(), strict=True):
        assert zoo.weights[mine].tobytes() == back.weights[again].tobytes()
        for name in ("step", "epoch"):
            assert zoo.column(name)[mine] == back.column(name)[again]
        for name in ("train_accuracy", "validation_accuracy", "test_accuracy"):
            assert back.column(name)[again].as_py() == pytest.approx(zoo.column(name)[mine].as_py(), abs=1e-15)
    for row in properties.table(back).to_pylist():
        first = next(r for r in properties.table(zoo).to_pylist() if r["lrate"] == row["lrate"])
        assert {k: v for k, v in row.items() if k != "model_id"} == {k: v for k, v in first.items() if k != "model_id"}
    nws.write(back, tmp_path / "again")
    by_rate = {r["lrate"]: r["path"] for f in (tmp_path / "again").glob("*.csv") for r in rows_of(f)}
    for r in rows_of(theirs / "train.csv"):
        for name in ("meta.csv", *(f"weights/{n:03d}.bin" for n in range(1, 5))):
            one, two = (theirs / r["path"] / name), (tmp_path / "again" / by_rate[r["lrate"]] / name)
            assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_an_imported_zoo_has_their_columns_and_ours(exported: Path, tmp_path: Path) -> None:
    nws.read(exported, tmp_path / "b", "someone/theirs")
    zoo = open_zoo(tmp_path / "b")
    assert zoo.axes["activation"] == ["relu", "tanh"]
    assert zoo.axes["lrate"] == []
    assert zoo.axes["filter_size"] == ["3", "5"]
    assert "batch_norm" not in zoo.axes
    row = zoo.select(dataset="cifar10", depth_conv=4).models.to_pylist()[0]
    assert (row["lrate"], row["lr"], row["augmentation"], row["optimizer"]) == (1e-3, 1e-3, True, "rmsprop")
    network = zoo.load_model(row["model_id"])
    assert network.training is False
    for asked in (zoo.evaluate, lambda: zoo.source(row["model_id"]), lambda: zoo.training_images(row["model_id"])):
        with pytest.raises(ZooError, match=r"^The zoo has no column `\w+`: it does not say on what data"):
            asked()


@pytest.mark.slow
def test_models_that_start_alike_are_one_group_on_one_side(exported: Path, tmp_path: Path) -> None:
    shutil.copy(exported / "0000" / "weights" / "001.bin", exported / "0003" / "weights" / "001.bin")  # of one shape
    (exported / "train.csv").unlink()  # which would have all of them on one side
    nws.read(exported, tmp_path / "someone" / "back")
    rows = open_zoo(tmp_path / "someone" / "back").models.sort_by("plan_index").to_pylist()
    assert rows[0]["init_group"] == rows[3]["init_group"]
    assert rows[0]["split"] == rows[3]["split"]
    assert len({r["init_group"] for r in rows}) == 5
    assert {r["split"] for r in rows} == {"train", "validation", "test"}


@pytest.mark.slow
def test_lists_say_which_models_are_in_a_zoo_and_on_which_side(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Theirs leave out networks of very low accuracy, and have no validation."""
    rows = rows_of(exported / "train.csv")
    (exported / "train.csv").unlink()
    for side, kept in (("train", rows[:3]), ("test", rows[3:5])):
        lines = [",".join(("dataset", "path")), *(f"{r['dataset']},/their/disk/{r['path']}" for r in kept)]
        (exported / f"nws_main_{side}.csv").write_text("\n".join(lines) + "\n")
    nws.read(exported, tmp_path / "someone" / "listed")
    back = open_zoo(tmp_path / "someone" / "listed").models.sort_by("plan_index").to_pylist()
    assert [r["split"] == "test" for r in back] == [False] * 3 + [True] * 2
    assert "1 of 6 models are in no list, and are left out" in caplog.text
    shutil.copy(exported / "0000" / "weights" / "001.bin", exported / "0003" / "weights" / "001.bin")
    with pytest.raises(
        ZooError, match="Models 0000 and 0003 start from the same weights, and the lists have one in train"
    ):
        nws.read(exported, tmp_path / "someone" / "parted")
    (exported / "nws_main_test.csv").write_text("dataset,path\nmnist,0000\n")
    with pytest.raises(ZooError, match="model 0000 is listed twice"):
        nws.read(exported, tmp_path / "someone" / "twice")
    (exported / "nws_main_test.csv").write_text("dataset,folder\nmnist,0000\n")
    with pytest.raises(ZooError, match="a row has no `path`"):
        nws.read(exported, tmp_path / "someone" / "nowhere")
    (exported / "nws_main_test.csv").write_text('path,dataset\n0004,"mnist\n')
    with pytest.raises(ZooError, match=r"nws_main_test\.csv is no CSV file"):
        nws.read(exported, tmp_path / "someone" / "unquoted")
    (exported / "nws_main_test.csv").write_text(f"path,model_id\n0004,{'a' * 16}\n0005,{'a' * 16}\n")
    with pytest.raises(ZooError, match="give one `model_id` to several models"):
        nws.read(exported, tmp_path / "someone" / "alike")
    for path in exported.glob("*.csv"):
        path.write_text("path\n9999\n" if "train" in path.name else "path\n")
    with pytest.raises(ZooError, match=r"None of the 6 models in .* is in one of its lists"):
        nws.read(exported, tmp_path / "someone" / "none")
    assert not (tmp_path / "someone" / "none").exists()


def test_a_listed_model_without_a_folder_is_told(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    (exported / "train.csv").write_text("path\n0000\n0001\n7777\n")
    assert [m.folder.name for m in importing._models(exported)] == ["0000", "0001"]
    assert "1 of 3 listed models have no folder, such as 7777." in caplog.text


def test_files_of_a_spreadsheet_begin_with_a_mark_and_are_read(exported: Path) -> None:
    for path in (exported / "train.csv", exported / "0000" / "meta.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(importing._models(exported)) == 6


def test_a_list_is_read_row_by_row_and_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MOST_LIST", 200_000)  # so much is reserved before it is read
    path, names = tmp_path / "train.csv", "".join(f",{i:04d}" for i in range(importing.MOST_COLUMNS))
    path.write_text(f"path{names[:-5]}\n" + "".join(f"{i:04d}\n" for i in range(1000)))
    tracemalloc.start()
    try:
        assert len(importing._listed(tmp_path)) == 1000
        assert tracemalloc.get_traced_memory()[1] < 2e6  # a dictionary of all columns for each row took 40 MB
    finally:
        tracemalloc.stop()
    path.write_text(f"path{names}\n0000\n")
    with pytest.raises(ZooError, match=r"train\.csv has a line of more than 1,000 columns or 100,000 characters"):
        importing._listed(tmp_path)
    path.write_text(f'path\n"{"0" * importing.MOST_LINE}')
    with pytest.raises(ZooError, match=r"train\.csv has a line of more than 1,000 columns or 100,000 characters"):
        importing._listed(tmp_path)
    monkeypatch.setattr(importing, "MOST_LISTED", 2)
    path.write_text("path\n0\n1\n")
    assert len(importing._listed(tmp_path)) == 2
    path.write_text("path\n0\n1\n2\n")
    with pytest.raises(ZooError, match="the lists name more than 2 models"):
        importing._listed(tmp_path)


@pytest.mark.slow
def test_what_was_exported_comes_back_under_its_names_on_its_sides(
    zoo: Zoo, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "FROM_TRAIN", 1.0)  # had it no sides of its own, all of it would be validation
    nws.read(theirs, tmp_path / "someone" / "back")
    sides = [
        {r["model_id"]: r["split"] for r in z.models.to_pylist()}
        for z in (zoo, open_zoo(tmp_path / "someone" / "back"))
    ]
    assert sides[0] == sides[1]


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (lambda f: (f / "weights" / "004.bin").unlink(), r"error\.bin has 4 rows, and there are 3 snapshots\. Copy"),
        (
            lambda f: (f / "error.bin").write_bytes(table(0, 10, 20)),
            r"error\.bin has 3 rows, and .*stat\.bin says 4\. Copy",
        ),
        (
            lambda f: (f / "weights" / "004.bin").rename(f / "weights" / "0004.bin"),
            r"weights holds 0004\.bin; snapshots are 001\.bin",
        ),
    ],
)
def test_a_copy_that_was_cut_short_is_no_other_history(
    lost: Callable[[Path], None], said: str, exported: Path, tmp_path: Path
) -> None:
    lost(exported / "0001")
    with pytest.raises(ZooError, match=said):
        nws.read(exported, tmp_path / "someone" / "back")
    assert not (tmp_path / "someone" / "back").exists()


def test_the_rows_are_those_that_their_loader_takes(exported: Path, tmp_path: Path) -> None:
    """Of more rows than the first number of `stat.bin` says, the first so many; of an export of ours a row is a snapshot's."""
    for folder in exported.glob("0*"):
        np.array([2.0, 30, 3, 1.0]).tofile(folder / "stat.bin")  # as an earlier version wrote it: epochs
    nws.read(exported, tmp_path / "someone" / "ours")
    ours = open_zoo(tmp_path / "someone" / "ours").column("step").to_pylist()
    for path in exported.glob("*.csv"):
        path.unlink()
    for folder in exported.glob("0*"):
        (folder / "error.bin").write_bytes((folder / "error.bin").read_bytes() + table(900)[:40])
        np.array([4.0, 30, 3, 1.0]).tofile(folder / "stat.bin")
    nws.read(exported, tmp_path / "someone" / "theirs")
    assert sorted(open_zoo(tmp_path / "someone" / "theirs").column("step").to_pylist()) == sorted(ours)


def test_a_model_with_fewer_snapshots_than_others_is_told(
    exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in exported.glob("*.csv"):
        path.unlink()
    (exported / "0001" / "weights" / "004.bin").unlink()
    nws.read(exported, tmp_path / "someone" / "back")
    assert "1 of 6 models have fewer than 4 snapshots, such as 0001 with 3" in caplog.text


@pytest.mark.slow
def test_of_every_epochs_errors_those_of_the_snapshots_are_taken(exported: Path, tmp_path: Path) -> None:
    """20 of n files are kept, evenly spaced over the epochs; the rows of errors are all there."""
    table = np.column_stack([np.arange(11) * 7, *[np.arange(11) * 9.0] * 4])
    for path in exported.glob("*.csv"):  # of an export of ours a row is a snapshot's
        path.unlink()
    for folder in exported.glob("0*"):
        table.astype("<f8").tofile(folder / "error.bin")
        np.array([11, 70, 10, 60.5]).tofile(folder / "stat.bin")
    nws.read(exported, tmp_path / "someone" / "back")
    zoo = open_zoo(tmp_path / "someone" / "back")
    assert zoo.column("step").to_pylist()[:4] == [0, 21, 49, 70]
    assert zoo.column("epoch").to_pylist()[:4] == [0.0, 3.0, 7.0, 10.0]
    assert zoo.column("test_accuracy").to_pylist()[:4] == [1 - 9.0 * i / 100 for i in (0, 3, 7, 10)]
    assert set(zoo.models["seconds"].to_pylist()) == {60.5}


def test_whole_epochs_are_whole_numbers(exported: Path, tmp_path: Path) -> None:
    """49 updates a pass, whose 49 · (2 / 98) would be 0.9999999999999999."""
    for folder in exported.glob("0*"):
        (folder / "weights" / "004.bin").unlink()
        (folder / "error.bin").write_bytes(table(0, 49, 98))
        np.array([3, 98, 2, 1.0]).tofile(folder / "stat.bin")
    nws.read(exported, tmp_path / "someone" / "back")
    assert open_zoo(tmp_path / "someone" / "back").column("epoch").to_pylist() == 6 * [0.0, 1.0, 2.0]


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_network_that_diverged_is_kept_up_to_its_last_finite_snapshot(
    zoo: Zoo, exported: Path, tmp_path: Path, value: float
) -> None:
    path = exported / "0001" / "weights" / "003.bin"
    weights = np.fromfile(path, "<f8")
    weights[-1] = value
    weights.tofile(path)
    nws.read(exported, tmp_path / "someone" / "back")
    assert not check.check(tmp_path / "someone" / "back").problems
    back = open_zoo(tmp_path / "someone" / "back")
    (gone,) = back.select(stop_reason="diverged").models.to_pylist()
    assert (gone["model_id"], gone["diverged_step"], gone["n_snapshots"]) == (f"{1:016x}", 20, 2)
    assert back.select(model_id=gone["model_id"]).column("step").to_pylist() == [0, 10]
    assert back.vector(gone["model_id"]).tobytes() == zoo.vector(gone["model_id"], 10).tobytes()
    assert back.manifest.counts.diverged == 1
    assert back.models["stop_reason"].null_count == back.models["diverged_step"].null_count == 5
    path.replace(exported / "0001" / "weights" / "001.bin")
    path.write_bytes((exported / "0001" / "weights" / "002.bin").read_bytes())
    with pytest.raises(ZooError, match=r"001\.bin is not finite, so no snapshot of this model is kept"):
        nws.read(exported, tmp_path / "someone" / "gone")


@pytest.mark.slow
def test_a_trained_zoo_goes_both_ways_by_the_command_line(tmp_path: Path, capsys: Said) -> None:
    recipe = tmp_path / "grid.yaml"
    recipe.write_text(
        "zoo: weightzoo/nws\nsource: {id: digits, train: 40, validation: 20, test: 20, resize: 32, channels: 3}\n"
        f"architecture: {[*Numbers(3, 3, 2, 1, 4).layers()[:-1], {'linear': 'classes'}]}\n"
        "training: {epochs: 1, batch_size: 20}\ninit: glorot_uniform\nreplicates: 3\nsnapshots: {epochs: [0, 1]}\n"
    )
    build(plan.plan(grid.load(recipe)), tmp_path / "zoo", workers=0)
    assert cli.main(["export", "nws", str(tmp_path / "zoo"), "--out", str(tmp_path / "out")]) == 1
    assert "is no network of Neural Weight Space" in capsys.readouterr().err  # ten logits
    assert not (tmp_path / "out").exists()


# ── what is refused ──


def meta(change: Callable[[str], str]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "meta.csv").write_text(change((folder / "meta.csv").read_text()))

    return damage


def put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def table(*steps: float, error: float = 50.0) -> bytes:
    return np.array([[s, error, error, error, error] for s in steps], "<f8").tobytes()


@pytest.mark.parametrize(("damage", "said"), [
    (meta(lambda t: t.replace("lrate", "rate")), r"meta.csv has no column lrate; all of dataset, lrate, .* are needed"),
    (meta(lambda t: t.replace("depth_fc,width_conv", "a,b")), "has no column depth_fc, width_conv"),
    (meta(lambda t: t.splitlines()[0] + "\n"), "meta.csv has 0 rows; one with 13 values is needed"),
    (meta(lambda t: ""), "has no column"),
    (meta(lambda t: t.replace(",8\n", ",16\n")), r"001.bin has [\d,]+ bytes, and the network of .*meta.csv has [\d,]+ values"),
    (meta(lambda t: t.replace(",8\n", ",9\n")), "names no network: `width_fc` 9 cannot be halved 2 times"),
    (meta(lambda t: t.replace(",8\n", ",99999999999999\n")), "`width_fc` is '99999999999999'; a whole number above 0"),
    (meta(lambda t: t.replace("True,1,1,3,1,3,", "True,1,1,3,1,4,")), "`filter_size` is 4; it is odd"),
    (meta(lambda t: t.replace("True,1,1,3,1,3,", "True,1,1,3,1,33,")), "at most the 32 pixels"),
    (meta(lambda t: t.replace("True,1,1,3,1,3,", "True,1,7,3,1,3,")), "`optimizer` is '7'; known are 0 adam, 1 rmsprop"),
    (meta(lambda t: t.replace("0.001", "nan")), "`lrate` is 'nan'; a number is needed"),
    (meta(lambda t: t.replace("3,4,3,2,8", "3,2,3,2,8")), "There are 2 convolutions"),
    (put("weights/002.bin", b"1234"), "002.bin has 4 bytes, and the network"),
    (put("weights/006.bin", b""), r"weights needs 001.bin, 002.bin and so on without a gap .* it has 1, 2, 3, 4, 6"),
    (put("error.bin", b"1234"), "error.bin has 4 bytes; rows of 5 numbers, 40 bytes each"),
    (put("error.bin", table(0, 1)), "error.bin has 2 rows, and .*stat.bin says 4. Copy"),
    (put("error.bin", table(0, 1, 1, 2)), "step 1 follows step 1"),
    (put("error.bin", table(0, 1, 1.5, 2)), "holds steps, which are whole numbers"),
    (put("error.bin", table(0, 1, 2, 3, error=101)), "an error is 101 %"),
    (put("stat.bin", b""), "stat.bin has 0 bytes"),
    (put("stat.bin", np.array([4.0, 30, -8, 1]).tobytes()), "stat.bin: 30 updates in -8 passes and 1 seconds are no training"),
    (put("stat.bin", np.array([4.0, 1e-300, 1e300, 1]).tobytes()), "are no training"),
    (put("stat.bin", np.array([4.0, 30, 3, np.inf]).tobytes()), "are no training"),
    (meta(lambda t: re.sub(r"0\.\d+", "-1", t, count=1)), "`lrate` is '-1'; a number from 0 on is needed"),
    (lambda f: (f / "stat.bin").unlink(), "stat.bin cannot be read: No such file"),
    (lambda f: (f / "meta.csv").unlink(), "meta.csv cannot be read: No such file"),
    (lambda f: shutil.rmtree(f / "weights"), r"it has none"),
])  # fmt: skip
def test_a_damaged_folder_is_one_sentence_and_no_zoo(
    exported: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(exported / "0001")
    with pytest.raises(ZooError, match=said):
        nws.read(exported, tmp_path / "someone" / "back")
    assert not list((tmp_path / "someone").iterdir())


def test_values_that_float32_cannot_hold_are_refused(exported: Path, tmp_path: Path) -> None:
    path = exported / "0001" / "weights" / "003.bin"
    (np.fromfile(path, "<f8") + 1e-12).tofile(path)
    with pytest.raises(ZooError, match=r"003.bin holds values that no float32 is"):
        nws.read(exported, tmp_path / "someone" / "back")
    assert not list((tmp_path / "someone").iterdir())


def test_an_empty_folder_that_one_stands_in_takes_the_zoo(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "someone" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    inode = here.stat().st_ino
    manifest = nws.read(exported, Path())
    assert manifest.zoo == "someone/here"
    assert here.stat().st_ino == inode
    assert open_zoo(here).manifest.zoo == "someone/here"
    assert [p.name for p in here.parent.iterdir()] == ["here"]


def test_what_cannot_be_read_is_not_said_to_be_no_place_to_write(exported: Path, tmp_path: Path) -> None:
    path = exported / "0001" / "weights" / "002.bin"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(ZooError, match=r"002.bin cannot be read: Too many levels of symbolic links\.$"):
        nws.read(exported, tmp_path / "someone" / "back")


@pytest.mark.slow
def test_nothing_is_written_over(zoo: Zoo, exported: Path, tmp_path: Path, capsys: Said) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ZooError, match="is not empty, and nothing is written over"):
        nws.write(zoo, exported)
    with pytest.raises(ZooError, match="is not empty, and nothing is written over"):
        nws.read(exported, zoo.root)
    assert cli.main(["import", "nws", str(exported), str(tmp_path / "a b")]) == 1
    assert "A zoo is called `owner/name`" in capsys.readouterr().err
    assert cli.main(["import", "nws", str(tmp_path / "nowhere"), str(tmp_path / "someone" / "x")]) == 2
    assert "No folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert cli.main(["export", "nws", str(zoo.root), "--out", str(tmp_path / "empty")]) == 0
    assert cli.main(["import", "nws", str(exported), str(tmp_path / "someone" / "x")]) == 0
    assert capsys.readouterr().out.endswith("6 models, 24 snapshots, sealed\n")


def test_an_empty_folder_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has no model: each is a folder with a number, like 0001"):
        nws.read(tmp_path, tmp_path / "someone" / "back")


def test_a_setting_without_a_code_is_refused(tmp_path: Path) -> None:
    zoo = sealed(tmp_path / "zoo", optimizer="sgd")
    with pytest.raises(ZooError, match=r"Unknown optimizer 'sgd' in model 0+ of weightzoo/nws, for which"):
        nws.write(zoo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_selection_is_exported_and_an_empty_one_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    assert nws.write(zoo.select(step=[0, 30], optimizer="adam"), tmp_path / "out") == 2
    assert len(list((tmp_path / "out" / "0001" / "weights").iterdir())) == 2
    with pytest.raises(ZooError, match="Nothing of weightzoo/nws is selected"):
        nws.write(zoo.select(step=0).select(step=30), tmp_path / "none")


def test_models_before_their_first_update_come_back(zoo: Zoo, tmp_path: Path) -> None:
    nws.write(zoo.select(step=0), tmp_path / "out")
    nws.read(tmp_path / "out", tmp_path / "someone" / "back")
    back = open_zoo(tmp_path / "someone" / "back")
    assert set(back.column("step").to_pylist()) == {0}
    assert sorted(v.tobytes() for v in back.weights) == sorted(v.tobytes() for v in zoo.select(step=0).weights)
