"""The published protocol of the Small CNN Zoo, on a small folder of its form."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from zoo_datasets import cli, protocols
from zoo_datasets.baselines import tabular
from zoo_datasets.baselines.design import Design
from zoo_datasets.errors import IntegrityError, ZooNotFoundError

SHAPES = [(3, 3, 1, 16), (3, 3, 16, 16), (3, 3, 16, 16), (16, 10)]
ROWS = 90
LAYOUT = 'varname,start_idx,shape\na/bias:0,0,"(10)"\na/kernel:0,{},"{}"\n'
# As published, without the metrics that nothing here reads.
HEADER = (
    "config.activation,config.b_init,config.dataset,config.dnn_architecture,config.dropout,config.epochs,config.init_std,config.l2reg,"
    "config.learning_rate,config.num_layers,config.num_units,config.optimizer,config.random_seed,config.train_fraction,config.w_init,"
    "modeldir,step,test_accuracy"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ninety networks at two steps each, whose accuracy their last bias tells."""
    place = tmp_path / "mnist"
    place.mkdir()
    lines, start = ["varname,start_idx,end_idx,size,shape"], 0
    for i, shape in enumerate(SHAPES):
        for kind, form in (("bias", shape[-1:]), ("kernel", shape)):
            size = int(np.prod(form))
            lines.append(f'sequential/layer_{i}/{kind}:0,{start},{start + size},{size},"{form}"')
            start += size
    (place / "layout.csv").write_text("\n".join(lines) + "\n")
    draw = np.random.default_rng(0)
    weights = draw.standard_normal((ROWS, start)).astype(np.float32)
    accuracy = 1 / (1 + np.exp(-weights[:, -170:-160].mean(1) * 3))  # the last bias
    rows = [
        f"{'relu' if i % 2 else 'tanh'},zeros,mnist,cnn,0.1,18,0.05,0.01,0.002,3,16,adam,{i},1.0,{'he_normal' if i % 4 else 'orthogonal'},"
        f"d/{i},{86 if i % 3 else 10},{a:.4f}"
        for i, a in enumerate(accuracy)
    ]
    (place / "metrics.csv").write_text(HEADER + "\n" + "\n".join(rows) + "\n")
    np.save(place / "weights.npy", weights)
    order = [0, *random.Random(1).sample(range(ROWS), ROWS)]
    (place / "mnist_split.csv").write_text("\n".join(map(str, order)) + "\n")
    return place


def test_sides_are_those_of_the_protocol_and_the_first_line_is_a_row() -> None:
    steps = np.array([86, 86, 10, 86, 86, 86, 86, 86, 86, 86, 86, 86])
    found = protocols.sides([0, 5, 2, 7, 0, 1, 3, 4, 6, 8, 9, 10, 11], steps)
    first = [0, 5, 7, 0, 1, 3]  # half of twelve rows of step 86, in the order of the file
    random.Random(0).shuffle(first)
    assert found == {"train": first[:4], "validation": first[4:], "test": [4, 6, 8, 9, 10, 11]}


def test_of_few_rows_of_the_last_step_no_three_sides_are_made() -> None:
    with pytest.raises(IntegrityError, match="2 are of step 86: too few for three sides"):
        protocols.sides([0, 1, 2, 3], np.array([86, 10, 86, 10]))
    with pytest.raises(IntegrityError, match="0 are of step 86"):
        protocols.sides([], np.zeros(0, np.int64))


@pytest.mark.skipif(not os.environ.get("ZOO_DATA"), reason="needs $ZOO_DATA")
def test_the_published_permutation_names_row_0_twice() -> None:
    files = sorted(Path(os.environ["ZOO_DATA"]).glob("formats/small-cnn-zoo-splits/*.csv"))
    if not files:
        pytest.skip("no published split in $ZOO_DATA")
    rows = protocols.permutation(files[0])
    assert rows[0] == 0
    assert len(set(rows)) >= len(rows) - 1


def test_the_recipe_is_every_published_setting_and_no_name_of_a_run(folder: Path) -> None:
    known = protocols.published(folder).train.view.recipe
    assert {"activation", "w_init", "b_init", "init_std", "l2reg", "learning_rate", "train_fraction"} <= set(
        known.column_names
    )
    assert not {"random_seed", "modeldir", "step", "test_accuracy"} & set(known.column_names)
    design = Design(known)
    assert [name for name, _ in design.levels] == ["activation", "w_init"]


def test_kernels_lie_as_our_layers_have_them(folder: Path) -> None:
    found = protocols.published(folder)
    raw = np.load(folder / "weights.npy")
    architecture = found.test.view.architectures[0]
    row, vector = int(found.test.ids[0]), found.test.view.vectors[0]
    ours = list(architecture.layout.unflatten(vector).values())
    start = 0
    for i, shape in enumerate(SHAPES):
        bias, kernel = (
            raw[row, start : start + shape[-1]],
            raw[row, start + shape[-1] :][: int(np.prod(shape))].reshape(shape),
        )
        start += shape[-1] + kernel.size
        np.testing.assert_array_equal(ours[2 * i + 1], bias)
        np.testing.assert_array_equal(ours[2 * i], kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)


@pytest.mark.slow
def test_bench_runs_the_published_split(folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(tabular, "TREES", 10)
    call = [
        "bench",
        str(folder),
        "--protocol",
        "nfn",
        "--baselines",
        "statistics-ridge",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main(call) == 0
    out = capsys.readouterr().out
    assert "### small-cnn-zoo/mnist/test_accuracy/nfn@1" in out
    assert "Split as published; row 0 stands twice" in out or "Split as published" not in out
    assert "| statistics-ridge" in out
    assert cli.main([*call, "--limit", "5", "--tune"]) == 1
    assert "leave out --limit and --tune" in capsys.readouterr().err
    assert cli.main([*call, "--tasks", "lr", "--split", "transfer"]) == 1
    assert "leave out --tasks and --split" in capsys.readouterr().err
    assert "Bounds are over the init groups" not in out


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("mnist_split.csv", "0\n500\n", IntegrityError, "names row 500, and the tables have 90"),
        ("mnist_split.csv", "0\nabc\n", IntegrityError, "is no permutation of rows"),
        ("mnist_split.csv", "0\n3\n", IntegrityError, "names 88 of 90 rows nowhere and 0 more than once"),
        ("mnist_split.csv", "\n".join(map(str, [0, *range(90), 7])), IntegrityError, "0 of 90 rows nowhere and 1 more than once"),
        ("mnist_split.csv", "\n".join(map(str, [0, 0, *range(90)])), IntegrityError, "and 1 more than once"),
        ("mnist_split.csv", None, ZooNotFoundError, "No split `mnist_split….csv` lies in"),
        ("metrics.csv", "a,b\n1,2\n", IntegrityError, "has no column 'step'"),
        ("metrics.csv", None, ZooNotFoundError, "has no metrics.csv"),
        ("layout.csv", "varname,start_idx\nx,1\n", IntegrityError, "does not say where tensors lie"),
        ("layout.csv", "varname,start_idx,shape\n", IntegrityError, "names no tensor"),
        ("layout.csv", LAYOUT.format(-9, "(10)"), IntegrityError, "from value -9 on lies outside of the 4,970 values"),
        ("layout.csv", LAYOUT.format(0, "(99999999999999)"), IntegrityError, "lies outside of the 4,970 values"),
        ("layout.csv", LAYOUT.format(0, "(0)"), IntegrityError, "lies outside"),
        ("metrics.csv", "step,test_accuracy\nlate,0.5\n", IntegrityError, "step is no number in every row"),
        ("metrics.csv", "step,test_accuracy\n86,good\n", IntegrityError, "test_accuracy is no number in every row"),
        ("layout.csv", None, ZooNotFoundError, "says where each tensor lies"),
        ("weights.npy", "text", IntegrityError, "cannot be read as an array"),
        ("weights.npy", "", IntegrityError, "cannot be read as an array"),
        ("weights.npy", "PK\x03\x04" + "x" * 99, IntegrityError, "cannot be read as an array"),
        ("metrics.csv", "step,test_accuracy,step\n86,0.5,86\n", IntegrityError, "has two columns 'step'"),
        ("metrics.csv", "config.activation,step,test_accuracy\n" + "swish,86,0.5\n" * ROWS, IntegrityError,
         r"metrics\.csv has networks that nobody can build: Unknown activation 'swish'"),
        ("metrics.csv", "config.activation,step,test_accuracy\n" + ",86,0.5\n" * ROWS, IntegrityError, "Unknown activation"),
        ("layout.csv", LAYOUT.format(10, "(10, 10)"), IntegrityError, r"shapes \(10, 10\), \(10,\) as they lie here; the network"),
        ("weights.npy", None, IntegrityError, "cannot be read as an array"),
    ],
)  # fmt: skip
def test_a_folder_that_is_none_is_a_sentence(folder, monkeypatch, name, text, error, said) -> None:
    monkeypatch.delenv("ZOO_DATA", raising=False)
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(error, match=said):
        protocols.published(folder)


def test_arrays_that_are_no_npy_file_are_a_sentence(folder: Path) -> None:
    raw = (folder / "weights.npy").read_bytes()
    np.savez(folder / "several.npz", a=np.zeros((ROWS, 4970), np.float32))
    (folder / "several.npz").replace(folder / "weights.npy")
    with pytest.raises(IntegrityError, match="cannot be read as an array"):
        protocols.published(folder)
    for old, new in (
        (b"}", b"("),
        (b"<f4", b",f4"),
        (b"(90, ", b"(9" + b"0" * 30 + b", "),
        (b"(90, 4970)", b"(True,)"),
    ):
        (folder / "weights.npy").write_bytes(raw.replace(old, new, 1))
        with pytest.raises(IntegrityError, match="cannot be read as an array"):
            protocols.published(folder)


def test_a_layout_whose_tensors_overlap_is_refused(folder: Path) -> None:
    lines = (folder / "layout.csv").read_text().splitlines()
    first = [line.split(",") for line in lines[1:]]
    (folder / "layout.csv").write_text("\n".join([lines[0], *(",".join([f[0], "0", *f[2:]]) for f in first)]) + "\n")
    with pytest.raises(IntegrityError, match="tensors lie one over another, or leave some of the 4,970 values out"):
        protocols.published(folder)


def test_weights_that_are_none_and_a_table_without_end_are_a_sentence(folder, monkeypatch) -> None:
    np.save(folder / "weights.npy", np.full((ROWS, 4970), "text"))
    with pytest.raises(IntegrityError, match=r"weights\.npy holds <U4, and no weights"):
        protocols.published(folder)
    monkeypatch.setattr(protocols, "MOST_BYTES", 100)
    with pytest.raises(IntegrityError, match="holds more than 100 bytes"):
        protocols._table(folder)
