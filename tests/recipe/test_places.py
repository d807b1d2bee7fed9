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


MACHINE = """\
zoo: me/evil
source: {id: machine, machine: mine, train: 20, test: 10}
architecture: [{gru: 2}, {linear: classes}]
training: {steps: 1, batch_size: 4}
splits: {train: 1}
"""


def test_the_recipe_of_a_zoo_names_no_place_and_runs_nothing(tmp_path: Path) -> None:
    """A path is outside the digest of a recipe: a stranger may add one, and a machine's file would be run."""
    recipe, code, ran = tmp_path / "grid.yaml", tmp_path / "mine.py", tmp_path / "ran"
    code.write_text(f"open({str(ran)!r}, 'w').close()\ndef mine(x):\n    return x[:, :, 0] > 0\n")
    recipe.write_text(MACHINE.replace("mine, train", f"mine, path: {json.dumps(str(code))}, train"))
    assert grid.load(recipe).source_paths == {"machine": str(code)}  # a recipe of one's own
    (tmp_path / "manifest.json").write_text('{"format_version": 1}')
    for changes in ((), ("seed=7",)):
        with pytest.raises(
            GridError,
            match=r"line 2: a zoo's recipe names no place, and this one has source 'machine' read from .*mine.py",
        ):
            grid.load(recipe, changes)
    recipe.write_text(MACHINE)
    assert grid.load(recipe, [f"source.path={json.dumps(str(code))}"]).source_paths == {"machine": str(code)}
    assert not ran.exists()


@pytest.mark.slow
def test_a_place_in_a_sealed_recipe_is_refused_by_whoever_builds_from_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from resealed import reseal

    from zoo_builder import verify
    from zoo_datasets import fresh, open_zoo
    from zoo_datasets.errors import ZooError

    table().to_csv(tmp_path / "train.csv")
    out = tmp_path / "zoo"
    build.build(
        plan.plan(
            read(
                tmp_path,
                f"source.path={json.dumps(str(tmp_path))}",
                text=RECIPE.replace("splits", "sample: {models: 4, axes: {lr: {uniform: [0.1, 0.2]}}}\nsplits"),
            )
        ),
        out,
        workers=0,
    )
    recipe = out / "grid.yaml"
    assert "path" not in recipe.read_text()
    recipe.write_text(recipe.read_text().replace("id: me/set", "id: me/set, path: /somewhere"))
    reseal(out)
    with pytest.raises(GridError, match="a zoo's recipe names no place"):
        verify.rebuild(out, workers=0)
    (said,) = (p for p in verify.verify(out).problems if "grid.yaml" in p)
    assert "names no place" in said
    with pytest.raises(ZooError, match="exit code 2"):
        fresh.build(open_zoo(out), 7, 2, tmp_path)
    assert "names no place" in capfd.readouterr().err
