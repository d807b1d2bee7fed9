"""A manifest of before, which has no digest of its own: what it says twice is compared, with itself and with the tables."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from zoo_datasets.core import streams
from zoo_datasets.format import check, consistency
from zoo_datasets.format.consistency import contradictions
from zoo_datasets.format.manifest import CONFIGS, Manifest
from zoo_datasets.format.tables import read_table

GOLDEN = Path(__file__).parents[1] / "golden" / "weightzoo" / "golden"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="session")
def before(tiny_zoo: Path) -> dict[str, Any]:
    """The tiny zoo's manifest, as it would have been written before."""
    value: dict[str, Any] = json.loads((tiny_zoo / "manifest.json").read_bytes())
    del value["manifest_sha256"]
    return value


@pytest.fixture(scope="session")
def tables(tiny_zoo: Path) -> Any:
    return {c: read_table(tiny_zoo, Manifest.read(tiny_zoo), c, weights=True) for c in CONFIGS}


@pytest.mark.slow
def test_a_real_zoo_contradicts_itself_nowhere(before: dict[str, Any], tables: Any) -> None:
    assert list(contradictions(Manifest.parse(before, "here"), tables)) == []
    golden = Manifest.read(GOLDEN)
    assert list(contradictions(golden, {c: read_table(GOLDEN, golden, c, weights=True) for c in CONFIGS})) == []


def first(values: dict[str, Any]) -> Any:
    return values[next(iter(values))]


def rename(holder: dict[str, Any], old: str, new: str) -> None:
    holder[new] = holder.pop(old)


def document(change: Change) -> Change:
    """A change of the recipe, of which the digest is forged too."""

    def made(m: dict[str, Any]) -> None:
        change(m["identity"]["document"])
        m["recipe_sha256"] = streams.digest([m["identity"]["recipe"], m["identity"]["document"]])

    return made


def add_list(m: dict[str, Any]) -> None:
    """Layers that no model has, under their right name."""
    layers = ["flatten", {"linear": "classes"}]
    m["layer_lists"][f"layers-{streams.digest(layers)[:8]}"] = layers


def move_layout(m: dict[str, Any]) -> None:
    """The networks' layout under another name, and the models' own beside it."""
    m["layouts"]["f" * 16] = copy.deepcopy(first(m["layouts"]))
    for a in m["architectures"].values():
        a.update(layout="f" * 16)


CHANGES: list[tuple[Change, str]] = [
    (lambda m: m["files"].append({"path": "weights/more", "bytes": 0, "sha256": "0" * 64}), "`files under weights/`"),
    (lambda m: first(m["layouts"])[-1].update(shape=[11]), "models have 610 weights in the layout"),
    (move_layout, "models have the architecture"),
    (add_list, "`layer_lists`"),
    (lambda m: m["identity"].update(parents={"a/b": {}}), "`identity.parents`"),
    (lambda m: m["sources"][0]["images"].update(more=1), "`images` of sources"),
    (lambda m: m["sources"][0].update(class_names=[]), "`class_names` of sources"),
    (lambda m: rename(m["axes"], "activation", "activatioo"), "the axis 'activatioo' of the manifest is no factor"),
    (lambda m: m["axes"].update(activation=["tanh", "relu", "gelu"]), "`axes.activation`"),
    (lambda m: m["splits"].update(fractions={"trian": 1.0}), "no shares"),
    (lambda m: m["digests"].update(weightz=m["digests"].pop("weights")), "`digests`"),
    (lambda m: m["sources"][0].update(sha256="x"), "'x' in the manifest's `sources` is no SHA-256"),
    (lambda m: m["fingerprints"][0].update(init_sha256="x"), "'x' in the manifest's `fingerprints` is no SHA-256"),
    (lambda m: m["fingerprints"][0].update(model_id="x"), "a fingerprint of x with"),
    (lambda m: m["fingerprints"][0].update(weights=""), "with 0 weights"),
    (lambda m: m.update(optimizer_state=True), "`optimizer_state`"),
    (lambda m: m.update(inline_weights=False), "`inline_weights`"),
    (lambda m: m["factors"].remove("lr"), "`factors`"),
    (lambda m: m["factors"].append("rl"), "`factors`"),
    (lambda m: rename(m["axes"], "activation", "activatioo"), "`axes`"),
    (lambda m: m["axes"].update(activation=["tanh", "rely"]), "`axes.activation`"),
    (lambda m: m["axes"].update(activation=["tanh", "relu", "relu"]), "`axes.activation`"),
    (lambda m: m["counts"].update(init_groups=5), "`counts.init_groups`"),
    (lambda m: m["counts"].pop("cohorts"), "`counts.cohorts`"),
    (lambda m: m["counts"].update(diverged=1), "`counts.diverged`"),
    (lambda m: m["counts"].update(models={"train": 8, "validation": 5, "test": 3}), "of another split than they say"),
    (lambda m: m["counts"].update(snapshots={"train": 24, "validation": 15, "test": 9}), "of another split than they say"),
    (lambda m: rename(m["layouts"], first(m["architectures"])["layout"], "f" * 16) or [a.update(layout="f" * 16) for a in m["architectures"].values()], "`layouts`"),
    (lambda m: first(m["layouts"])[0].update(name="linear3.weight"), "`layouts."),
    (lambda m: rename(m["architectures"], next(iter(m["architectures"])), "f" * 16), "`architectures`"),
    (lambda m: m["engines"][0].update(isa="mmx"), "`engines`"),
    (lambda m: m["identity"].update(models=17), "`identity.models`"),
    (lambda m: m["identity"].update(cohorts=5), "`identity.cohorts`"),
    (lambda m: m["identity"].update(engines=["torch_loop on cpu"]), "`identity.engines`"),
    (lambda m: m["identity"].update(sources=[]), "`identity.sources`"),
    (lambda m: m["identity"].update(novelty=1), "parts that nobody knows: novelty"),
    (lambda m: m["identity"].update(recipe=2), "`recipe_sha256`"),
    (lambda m: m["identity"]["document"]["training"].update(epochs=3), "`recipe_sha256`"),
    (lambda m: m.update(recipe_sha256="0" * 64), "`recipe_sha256`"),
    (lambda m: m.update(zoo="weightzoo/tinz"), "its recipe of weightzoo/tiny"),
    (lambda m: rename(m["layer_lists"], next(iter(m["layer_lists"])), "layers-00000000"), "`layer_lists`"),
    (lambda m: first(m["layer_lists"])[1].update(linear=9), "`layer_lists`"),
    (lambda m: m["splits"].update(rule="hash"), "`splits.rule`"),
    (lambda m: m["splits"].update(rule="given"), "not one of hash, blocks, deficit, inherited"),
    (lambda m: m["splits"]["fractions"].update(train=0.8), "no shares"),
    (document(lambda d: d.update(splits={"train": 0.5})), "`splits.fractions`"),
    (lambda m: m.pop("splits"), "has no `splits`"),
    (lambda m: m.pop("population"), "has no `population`"),
    (lambda m: m["population"].update(test_accuracy=m["population"]["test_accuracy"] + 1e-9), "`population.test_accuracy`"),
    (lambda m: m["population"].update(standard_error=None), "`population.standard_error`"),
    (lambda m: m["population"].update(init_groups=3), "`population.init_groups`"),
    (lambda m: m["sources"][0].update(sha256="0" * 64), "`sources`"),
    (lambda m: m["sources"][0]["images"].update(train=201), "images.train`"),
    (lambda m: m["sources"][0].update(input_shape=[1, 8, 9]), "has inputs [1, 8, 9]"),
    (lambda m: m["sources"][0].update(class_names=["a", "b"]), "has 2 classes, models count 10"),
    (lambda m: m["sources"][0].update(class_names=["a"] * 10), "`class_names` of sources"),
    (lambda m: m["sources"][0].update(std=[0.0]), "`mean and std`"),
    (lambda m: m["sources"][0].update(std=[1.0, 1.0]), "`mean and std`"),
    (lambda m: m["sources"][0].update(peak=0.0), "`peak`"),
    (lambda m: m["sources"][0].update(id="digitz"), "spec.id`"),
    (lambda m: rename(m["sources"][0]["spec"], "resize", "resizf"), "`spec`"),
    (lambda m: m["sources"][0]["spec"].update(resize=9), "spec.resize`, and no model does"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[said for _, said in CHANGES])
def test_a_change_that_contradicts_the_rest_is_found(
    before: dict[str, Any], tables: Any, change: Change, said: str
) -> None:
    value = copy.deepcopy(before)
    change(value)
    found = list(contradictions(Manifest.parse(value, "here"), tables))
    assert any(said in sentence for sentence in found), found


def test_levels_of_an_axis_that_means_nothing_to_some_models_are_compared(before: dict[str, Any], tables: Any) -> None:
    """As momentum to Adam: their rows have null, and the axis has a label more."""
    models = tables["models"]
    at = models.column_names.index("activation")
    labels = [None if v == "relu" else v for v in models["activation"].to_pylist()]
    other = {**tables, "models": models.set_column(at, models.schema.field(at), pa.array(labels))}
    for levels, contradicts in ((["tanh", "relu"], False), (["relu", "gelu"], True)):
        value = copy.deepcopy(before)
        value["axes"]["activation"] = levels
        found = list(contradictions(Manifest.parse(value, "here"), other))
        assert any("`axes.activation`" in sentence for sentence in found) is contradicts


def test_check_says_it(tiny_copy: Path, before: dict[str, Any]) -> None:
    value = copy.deepcopy(before)
    value["counts"]["init_groups"] = 5
    (tiny_copy / "manifest.json").write_text(json.dumps(value))
    assert check.check(tiny_copy).problems == ["the manifest says 5 of `counts.init_groups`, 8 is found"]


@pytest.mark.parametrize(("old", "new"), [('"op": "tanh"', '"op": "tanj"'), ('"kind": "layers"', '"kind": "layert"')])
def test_a_network_that_this_version_cannot_build_is_its_id_too(
    tiny_copy: Path, before: dict[str, Any], old: str, new: str
) -> None:
    (tiny_copy / "manifest.json").write_text(json.dumps(before).replace(old, new, 1))
    assert "by its layers: one of them was changed" in check.check(tiny_copy).problems[0]


# ── models and snapshots ──


def put(table: pa.Table, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(name), pa.array(change(table[name].to_pylist()), table[name].type))


def turned(values: list[Any]) -> list[Any]:
    return [values[1], values[0], *values[2:]]


OTHERWISE: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "split": ("snapshots", lambda t: put(t, "split", lambda v: [v[-1], *v[1:]]), r"1 snapshots have another `split` than their model's `split`"),
    "axis": ("snapshots", lambda t: put(t, "activation", lambda v: ["relu" if v[0] == "tanh" else "tanh", *v[1:]]), "another `activation` than their model's"),
    "tensor": ("snapshots", lambda t: put(t, "tensor", lambda v: ["0" * 16, *v[1:]]), "another `tensor` than their model's `layout`"),
    "steps first": ("snapshots", lambda t: t.sort_by([("split", "descending"), ("step", "ascending")]), "do not follow the order of their models"),
    "steps below 0": ("snapshots", lambda t: put(t, "step", lambda v: [-1, *v[1:]]), "steps below 0"),
    "plan": ("models", lambda t: put(t, "plan_index", turned), "models of train are not in the order of `plan_index`"),
    "models": ("models", lambda t: t.take(pa.array([1, 0, *range(2, len(t))])), "do not follow the order of their models"),
    "accuracy": ("models", lambda t: put(t, "test_accuracy", lambda v: [v[0] / 2, *v[1:]]), "1 models have another `test_accuracy` than their last snapshot"),
    "epoch": ("models", lambda t: put(t, "epoch", lambda v: [None, *v[1:]]), "1 models have another `epoch` than their last snapshot"),
    "counts": ("snapshots", lambda t: put(t, "test_correct_per_class", lambda v: [*v[:-1], v[0][::-1]]), "another `test_correct_per_class`"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_snapshot_that_says_otherwise_than_its_model_is_found(name: str, before: dict[str, Any], tables: Any) -> None:
    config, change, said = OTHERWISE[name]
    found = list(contradictions(Manifest.parse(before, "here"), tables | {config: change(tables[config])}))
    assert any(re.search(said, text) for text in found), found


def test_what_is_not_known_of_both_is_alike() -> None:
    a, b = pa.array([1.0, float("nan"), None, 2.0]), pa.array([1.0, float("nan"), None, 3.0])
    assert consistency._unlike(a, b).tolist() == [3]
    assert consistency._unlike(a, pa.array([float("nan"), 1.0, 1.0, None])).tolist() == [0, 1, 2, 3]


def test_what_an_importer_knows_of_the_last_snapshot_alone_contradicts_nothing(
    before: dict[str, Any], tables: Any
) -> None:
    empty = put(tables["snapshots"], "test_loss", lambda v: [None] * len(v))
    said = list(contradictions(Manifest.parse(before, "here"), tables | {"snapshots": empty}))
    assert not [text for text in said if "test_loss" in text]
