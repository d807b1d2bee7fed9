"""The card says what is there, `datasets` and Croissant readers can hold it to that, and it never wavers."""

from __future__ import annotations

import ast
import copy
import dataclasses
import io
import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import datasets
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from zoo_datasets.core import figures, plain_text
from zoo_datasets.format import card, licenses
from zoo_datasets.format.manifest import Manifest, seal
from zoo_datasets.format.tables import read_table
from zoo_datasets.hub import croissant, pictures

pytest_plugins = ("hub_fixtures",)

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="session")
def manifest(tiny_dressed: Path) -> Manifest:
    return Manifest.read(tiny_dressed)


@pytest.fixture(scope="session")
def models(tiny_dressed: Path, manifest: Manifest) -> pa.Table:
    return read_table(tiny_dressed, manifest, "models", weights=True)


@pytest.fixture(scope="session")
def schemas(tiny_dressed: Path) -> dict[str, pa.Schema]:
    return {c: pq.read_schema(tiny_dressed / f"data/{c}/train-00000-of-00001.parquet") for c in card.CONFIGS}


def head_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])  # type: ignore[no-any-return]


def shuffled(value: Any) -> Any:
    """The same value with the keys of every mapping in reverse."""
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(value.items())}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_the_head_has_what_the_hub_searches_by(tiny_dressed: Path, manifest: Manifest) -> None:
    head = head_of((tiny_dressed / "README.md").read_text())
    assert head["license"] == "cc-by-4.0"
    assert head["pretty_name"] == "tiny"
    assert head["size_categories"] == ["n<1K"]
    assert {"weightzoo", "weight space learning"} <= set(head["tags"])
    assert "tabular-regression" in head["task_categories"]
    assert [c["config_name"] for c in head["configs"] if c.get("default")] == ["models"]
    for config, info in zip(head["configs"], head["dataset_info"], strict=True):
        name = config["config_name"]
        assert config["description"] == card.digest(manifest, name)
        assert info["config_name"] == name
        assert {s["name"]: s["num_examples"] for s in info["splits"]} == manifest.counts.of(name)
        assert info["download_size"] == manifest.files.size(f"data/{name}/")


@pytest.mark.slow
def test_the_features_in_the_head_are_those_of_the_tables(tiny_dressed: Path, schemas: dict[str, pa.Schema]) -> None:
    for info in head_of((tiny_dressed / "README.md").read_text())["dataset_info"]:
        stated = datasets.Features._from_yaml_list(info["features"])
        assert stated == datasets.Features.from_arrow_schema(schemas[info["config_name"]])


def test_the_digest_tells_two_zoos_of_one_name_apart(manifest: Manifest) -> None:
    other = dataclasses.replace(manifest, digests={**manifest.digests, "snapshots_rows": "f" * 64})
    assert card.digest(other, "models") == card.digest(manifest, "models")
    assert card.digest(other, "snapshots") != card.digest(manifest, "snapshots")


@pytest.mark.slow
def test_the_card_is_the_same_for_any_order_of_the_manifests_keys(
    manifest: Manifest, models: pa.Table, schemas: dict[str, pa.Schema]
) -> None:
    other = Manifest.parse(shuffled(manifest.to_json()), "here")
    for more in ({}, {"schemas": schemas, "pictures": ["accuracy.png"], "name": "a/b"}):
        text = card.render(manifest, models, **more)
        assert text == card.render(other, models, **more) == card.render(manifest, models, **more)
    assert croissant.describe(other, schemas) == croissant.describe(manifest, schemas)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@pytest.mark.slow
def test_any_text_in_the_head_reads_back_as_itself(manifest: Manifest, text: str) -> None:
    document = {**manifest.identity.document, "license": text}
    other = dataclasses.replace(manifest, identity=dataclasses.replace(manifest.identity, document=document))
    head = yaml.safe_load(card._head(other, "a/b", None).split("---\n")[1])
    assert head["license"] in licenses.LICENSES
    assert ("license_name" in head) == (head["license"] == "other")
    assert f"\n{plain_text.markdown(text)}; the source data" in card._licence(other, "a/b")


@pytest.mark.parametrize(("license", "identifier"), [("MIT", "mit"), ("Apache 2.0", "apache-2.0")])
def test_a_sealed_zoo_is_published_under_the_hubs_name_of_its_licence(
    manifest: Manifest, models: pa.Table, schemas: dict[str, pa.Schema], license: str, identifier: str
) -> None:
    value = copy.deepcopy(manifest.to_json())
    value["identity"]["document"]["license"] = license
    sealed = Manifest.parse(seal(value), "here")
    assert head_of(card.render(sealed, models, schemas=schemas))["license"] == identifier
    assert croissant.describe(sealed, schemas)["license"] == f"https://spdx.org/licenses/{identifier.upper()}"


def test_another_id_and_licence_show_everywhere(manifest: Manifest, models: pa.Table) -> None:
    value = copy.deepcopy(manifest.to_json())
    value["identity"]["document"]["license"] = "no"
    value["sources"][0]["id"] = "ylecun/mnist"
    text = card.render(Manifest.parse(seal(value), "here"), models, name="me/mine")
    assert (head_of(text)["license"], head_of(text)["license_name"]) == ("other", "no")
    assert head_of(text)["source_datasets"] == ["ylecun/mnist"]
    assert 'load_dataset("me/mine"' in text
    assert "weightzoo/tiny" not in text
    assert "[ylecun/mnist](https://huggingface.co/datasets/ylecun/mnist)" in text


def test_a_zoo_without_axes_or_measured_accuracy_has_a_card(manifest: Manifest, models: pa.Table) -> None:
    at = models.column_names.index("test_accuracy")
    blank = models.set_column(at, "test_accuracy", pa.nulls(len(models), pa.float64()))
    text = card.render(dataclasses.replace(manifest, axes={}, inline_weights=False), blank)
    assert "none measured" in text
    assert "The random streams only" in text
    assert '["weights"]' not in text
    assert pictures.draw(blank, models.slice(0, 0), {}) == {}


@pytest.mark.parametrize(
    "where", ["weightzoo/tiny", 'w"q', "back\\slash", "żoo", "line\nbreak", "\x7f\u202e", "\udcff"]
)
def test_the_lines_that_load_a_zoo_are_python_whatever_its_path(manifest: Manifest, where: str) -> None:
    lines = card.load_lines(manifest, where)
    called = next(n for n in ast.walk(ast.parse(lines)) if isinstance(n, ast.Call) and n.keywords)
    assert ast.literal_eval(called.args[0]) == where
    assert plain_text.lines(lines) == lines  # as a terminal shows it
    assert ("weightzoo/tiny" not in where) or 'load_dataset("weightzoo/tiny", split="train")' in lines


def test_the_lines_that_load_a_zoo_name_what_it_has(manifest: Manifest, models: pa.Table) -> None:
    """A split with models, and weights where they are inline: in the card too."""
    counts = {"test": manifest.counts.models["test"]}
    tested = dataclasses.replace(
        manifest, counts=dataclasses.replace(manifest.counts, models=counts), inline_weights=False
    )
    lines = card.load_lines(tested, "a/b")
    assert 'split="test"' in lines
    assert "print(len(models), " in lines
    assert f"```python\n{lines}```" in card.render(tested, models, name="a/b")


@pytest.mark.parametrize(
    ("accuracies", "found"),
    [
        ([0.4, None, 0.1, 0.2, 0.3], [0.1, 0.25, 0.4]),
        ([0.4, float("nan"), 0.1, float("inf"), 0.2], [0.1, 0.2, 0.4]),
        ([float("nan")] * 2, []),
        ([None], []),
    ],
)
def test_range_and_median_are_of_what_was_measured(
    manifest: Manifest, accuracies: list[float | None], found: list[float]
) -> None:
    column = pa.chunked_array([pa.array(accuracies, pa.float64())])
    assert card.least_median_most(column) == pytest.approx(found)
    models = pa.table({"split": ["train"] * len(accuracies), "test_accuracy": column})
    said = ", ".join(f"{a:.3f}" for a in found) or "none measured"
    assert f"| {said} |" in card._counts(manifest, models).splitlines()[4]


def test_only_pictures_that_exist_are_shown(manifest: Manifest, models: pa.Table) -> None:
    assert "](pictures/" not in card.render(manifest, models)
    text = card.render(manifest, models, pictures=["trajectories.png"])
    assert "![Test accuracy of the models over training](pictures/trajectories.png)" in text
    assert "accuracy.png" not in text


@pytest.mark.slow
def test_pictures_are_sharp_png_files_and_come_out_the_same(
    tiny_dressed: Path, manifest: Manifest, models: pa.Table
) -> None:
    snapshots = read_table(tiny_dressed, manifest, "snapshots")
    drawn = pictures.draw(models, snapshots, manifest.axes)
    assert set(drawn) == set(card.PICTURES)
    for name, data in drawn.items():
        assert data == (tiny_dressed / "pictures" / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", data[16:24]) == (1280, 576)


def drawn_of(
    levels: list[str], places: list[int | None], epochs: list[float | None], accuracies: tuple[float, ...]
) -> dict[str, bytes]:
    models = pa.table({
        "model_id": [f"m{i}" for i in range(4)], "plan_index": pa.array(places, pa.int64()), "kind": levels,
        "test_accuracy": accuracies,
    })  # fmt: skip
    snapshots = pa.table({
        "model_id": np.repeat(models["model_id"], 3), "epoch": pa.array(epochs * 4, pa.float64()),
        "test_accuracy": np.repeat(accuracies, 3),
    })  # fmt: skip
    return pictures.draw(models, snapshots, {"kind": sorted(set(levels))})


def test_what_a_stranger_left_out_keeps_no_picture_from_being_drawn() -> None:
    kinds, some = ["a", "a", "b", "b"], (0.1, 0.2, 0.3, 0.4)
    drawn = drawn_of(kinds, [0, 1, 2, 3], [0.0, 1.0, 2.0], some)
    assert set(drawn) == set(card.PICTURES)
    assert drawn_of(kinds, [None] * 4, [0.0, 1.0, 2.0], some) == drawn  # the order of rows
    for epochs in ([None] * 3, [5.0] * 3):  # without time there is no course over it
        assert drawn_of(kinds, [0, 1, 2, 3], epochs, some) == {"accuracy.png": drawn["accuracy.png"]}
    assert set(drawn_of(kinds, [0, 1, 2, 3], [0.0, None, 2.0], some)) == set(drawn)
    for other in ((40.0, 50.0, 60.0, 93.0), (-3.0, -2.0, -2.0, 0.5), (0.1, float("inf"), 0.2, 0.3)):
        assert set(drawn_of(kinds, [0, 1, 2, 3], [0.0, 1.0, 2.0], other)) == set(drawn)


def test_names_of_a_stranger_stand_in_pictures_as_they_are() -> None:
    level = r"$\frac$"
    assert set(drawn_of([level, level, "_b", ""], [0, 1, 2, 3], [0.0, 1.0, 2.0], (0.1, 0.2, 0.3, 0.4))) == set(
        card.PICTURES
    )
    assert [pictures._label(v) for v in ("_b", "", None, 0.5, level)] == [" _b", " ", "None", "0.5", level]
    figure, axes = figures.figure_of(6, 4)
    axes[0, 0].plot([1, 1000], [1, 2], label=level)
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_yticks([1, 2], [level, "$"])
    figures.caption(axes[0, 0], level, level, level)
    figures.headline(figure, level)
    figures.legend(axes[0, 0], title=level)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(out, format="svg")
    assert len(re.findall(r">\$\\frac\$</text>", out.getvalue())) == 7
    assert "mathdefault" not in re.sub("<!--.*?-->", "", out.getvalue())  # the axis' own 10², a formula


def test_colors_tell_the_axis_that_moves_accuracy_most() -> None:
    models = pa.table({"a": ["x", "y", "x", "y"], "b": [1.0, 1.0, 0.5, 0.5], "test_accuracy": [0.1, 0.2, 0.8, 0.9]})
    axis, levels = pictures._strongest(
        models, pictures._floats(models["test_accuracy"]), {"a": ["x", "y"], "b": ["1.0", "0.5"]}
    )
    assert (axis, levels) == ("b", ["1", "1", "0.5", "0.5"])
    # Seven targets and the null of those without a trigger: more levels than colors, however few the axis names.
    eight = pa.table({"trigger_target": [*range(7), None], "test_accuracy": [i / 8 for i in range(8)]})
    assert (
        pictures._strongest(eight, pictures._floats(eight["test_accuracy"]), {"trigger_target": list(range(7))})[0]
        == ""
    )
    assert pictures._order(["10", "9", "x", "1"]) == ["1", "9", "10", "x"]


# ── what reads it ──


def load(folder: Path, cache: Path, *config: str) -> Any:
    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), *config, cache_dir=str(cache))


@pytest.mark.slow
def test_load_dataset_opens_the_folder_with_the_types_stated(
    tiny_dressed: Path, manifest: Manifest, schemas: dict[str, pa.Schema], tmp_path: Path
) -> None:
    for config in card.CONFIGS:
        found = load(tiny_dressed, tmp_path, config)
        assert dict(found.num_rows) == manifest.counts.of(config)
        assert found["train"].features == datasets.Features.from_arrow_schema(schemas[config])


def test_a_wrong_count_in_the_card_is_caught(tiny_dressed: Path, manifest: Manifest, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_dressed, tmp_path / "tiny"))
    text, n = (folder / "README.md").read_text(), manifest.counts.models["train"]
    (folder / "README.md").write_text(text.replace(f"num_examples: {n}\n", f"num_examples: {n - 1}\n", 1))
    with pytest.raises(datasets.exceptions.NonMatchingSplitsSizesError):
        load(folder, tmp_path / "cache")


@pytest.mark.slow
def test_a_rebuilt_zoo_of_the_same_name_is_read_anew(
    tiny_dressed: Path, manifest: Manifest, models: pa.Table, schemas: dict[str, pa.Schema], tmp_path: Path
) -> None:
    first = load(tiny_dressed, tmp_path / "cache")["train"]["test_accuracy"]
    folder = Path(shutil.copytree(tiny_dressed, tmp_path / "tiny"))
    path = folder / "data/models/train-00000-of-00001.parquet"
    table = pq.read_table(path, partitioning=None)
    zeros = pa.array([0.0] * len(table))
    pq.write_table(table.set_column(table.column_names.index("test_accuracy"), "test_accuracy", zeros), path)
    assert list(load(folder, tmp_path / "cache")["train"]["test_accuracy"]) == list(first)  # why the digest is needed
    other = dataclasses.replace(manifest, digests={**manifest.digests, "models_rows": "0" * 64})
    (folder / "README.md").write_text(card.render(other, models, schemas=schemas))
    assert set(load(folder, tmp_path / "cache")["train"]["test_accuracy"]) == {0.0}


def test_croissant_describes_every_parquet_file_and_column(
    tiny_dressed: Path, manifest: Manifest, schemas: dict[str, pa.Schema]
) -> None:
    found = json.loads((tiny_dressed / "croissant.json").read_text())
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert found["license"] == "https://spdx.org/licenses/CC-BY-4.0"
    sealed = {f.path: f.sha256 for f in manifest.files.under("data/")}
    described = [d for d in found["distribution"] if d.get("encodingFormat") == croissant.PARQUET]
    assert {d["@id"]: d["sha256"] for d in described if d["@type"] == "cr:FileObject"} == sealed
    ids = [d["@id"] for d in found["distribution"]]
    assert len(set(ids)) == len(ids)
    for records in found["recordSet"]:
        assert [f["@id"].split("/")[1] for f in records["field"]] == schemas[records["@id"]].names
        assert all(f["source"]["fileSet"]["@id"] in ids and f["description"] for f in records["field"])
    weights = next(f for f in found["recordSet"][0]["field"] if f["@id"] == "models/weights")
    assert (weights["dataType"], weights["isArray"]) == ("cr:Float32", True)
    assert weights["arrayShape"] == str(schemas["models"].field("weights").type.list_size)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of mlcroissant's own dependencies
def test_mlcroissant_validates_it_and_reads_the_rows(tiny_dressed: Path, manifest: Manifest, models: pa.Table) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    described = json.loads((tiny_dressed / "croissant.json").read_text())
    found = mlcroissant.Dataset(jsonld=described, mapping={"repo": str(tiny_dressed)})
    assert not found.metadata.issues.errors
    # Ours name no clock, and a release is a tag of the Hub rather than a number in the file.
    assert {w.split("org/")[-1].split('"')[0] for w in found.metadata.issues.warnings} <= {"datePublished", "version"}
    rows = {r["models/model_id"].decode(): r for r in found.records("models")}
    for row in models.select(["model_id", "test_accuracy", "weights"]).to_pylist():
        mine = rows.pop(row["model_id"])
        assert mine["models/test_accuracy"] == row["test_accuracy"]
        assert np.float32(mine["models/weights"]).tobytes() == np.float32(row["weights"]).tobytes()
    assert not rows
    assert len(list(found.records("snapshots"))) == manifest.counts.n_snapshots
