"""Where a source lies is no part of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from zoo_builder import build, grid, plan
from zoo_builder.planning import runs
from zoo_datasets.errors import GridError, ZooNotFoundError

RECIPE = """\
zoo: me/placed
source: {id: me/set, scale: unit}
architecture: [{linear: 3}, activation, {linear: classes}]
training: {steps: 2, batch_size: 8}
splits: {train: 1}
"""


@pytest.fixture(autouse=True)
def nothing_else_to_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "empty"))


def table(rows: int = 40) -> datasets.Dataset:
    values = np.random.default_rng(0).random((rows, 2)).tolist()
    return datasets.Dataset.from_dict(
        {"x": [v[0] for v in values], "y": [v[1] for v in values], "label": [0, 1] * (rows // 2)}
    )


def read(folder: Path, *changes: str, text: str = RECIPE) -> grid.Grid:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return grid.load(path, changes)


@pytest.mark.some(1)
@pytest.mark.parametrize("saved", ["csv", "dataset", "dict"])
@pytest.mark.slow
def test_a_path_is_read_and_enters_no_id_no_table_and_no_manifest(tmp_path: Path, saved: str) -> None:
    secret = tmp_path / "a place of mine"
    if saved == "csv":
        secret.mkdir()
        table().to_csv(secret / "train.csv")
    elif saved == "dataset":
        table().save_to_disk(secret)
    else:
        datasets.DatasetDict({"train": table()}).save_to_disk(secret)
    placed, plain = read(tmp_path, f"source.path={json.dumps(str(secret))}"), read(tmp_path)
    assert placed.source_paths == {"me/set": str(secret)}
    assert dict(placed.document) == dict(plain.document)
    assert placed.digest == plain.digest
    assert runs.of(placed) == runs.of(plain)
    planned = plan.plan(placed)
    (source,) = planned.sources.values()
    assert sorted(source.train.inputs[:, 0].tolist()) == sorted(table()["x"][i] for i in source.train.index)
    out = tmp_path / "zoo"
    build.build(planned, out, workers=0)
    names = [p for p in out.rglob("*") if p.is_file()]
    assert len(names) > 5
    for file in names:
        assert b"a place of mine" not in file.read_bytes(), file


def test_levels_of_the_axis_have_places_of_their_own(tmp_path: Path) -> None:
    text = RECIPE.replace(
        "source: {id: me/set, scale: unit}\n", "axes: {source: [{id: a/b, path: one}, {id: a/c, source_path: two}]}\n"
    )
    found = read(tmp_path, text=text)
    assert found.source_paths == {"a/b": "one", "a/c": "two"}
    assert found.document["axes"] == {"source": [{"id": "a/b"}, {"id": "a/c"}]}
    drawn = text.replace("axes: {source: [", "sample: {models: 2, axes: {source: {choice: [").replace(
        "]}\n", "]}}}\n", 1
    )
    assert read(tmp_path, text=drawn).source_paths == found.source_paths


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{path: x}", "line 2: `path` is 'x', and names no set; give it an `id` of your own: owner/name"),
        ("{id: a/b, path: 3.5}", "line 2: `source_path` is 3.5; a name in quotes, .* is needed"),
        ("{id: a/b, path: [x]}", r"`source_path` is \['x'\]"),
    ],
)
def test_a_path_that_cannot_be_one_is_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        read(tmp_path, text=RECIPE.replace("{id: me/set, scale: unit}", source))


def test_two_paths_of_one_source_are_refused(tmp_path: Path) -> None:
    text = RECIPE + "axes: {source: [{id: me/set, path: two}]}\n"
    with pytest.raises(GridError, match="source 'me/set' has two paths, 'one' and 'two'"):
        read(tmp_path, "source.path=one", text=text)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (["source.path=/nowhere/at/all"], ZooNotFoundError, "The folder '/nowhere/at/all' of source 'me/set' is not there: source.path"),
        (["source.path=recipe.yaml"], ZooNotFoundError, "is a file; name the folder it lies in"),
        (["source.path=.", "source.revision=main"], GridError, "has a path and a revision; a folder has no revisions"),
        (["source.path=.", "source.id=digits"], GridError, "'digits' comes with scikit-learn and takes no path"),
        (["source.path=.", "source.id=a/b/c"], GridError, "'a/b/c' is no name for a set in a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_by_its_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        plan.plan(read(tmp_path, *changes))
