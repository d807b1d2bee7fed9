"""Evaluating again: the stored metrics, the loop over modules, other sources."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo_builder import build, grid, plan
from zoo_datasets import evaluate, sources
from zoo_datasets.errors import ZooError, ZooNotFoundError
from zoo_datasets.format import schema
from zoo_datasets.networks import kernels, modules
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.forward import Forward
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.networks.logits import logits_of
from zoo_datasets.networks.operations.registry import ACTIVATIONS
from zoo_datasets.zoo import Zoo, open_zoo

ASKED_FOR = {c.name for c in schema.ATTACK}  # stored where the recipe asks for them: `test_attacks.py`

pytest_plugins = ("reader_fixtures",)

CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "small-cnn": ("small-cnn", (1, 28, 28)),
    "small-cnn-gap": ("small-cnn-gap", (3, 32, 32)),
    "mlp": ("mlp", (1, 8, 8)),
    "table": ([{"linear": 7}, "batch_norm", "activation", "dropout", {"linear": "classes"}], (4,)),
    "batch norm first": (["batch_norm", {"conv": 4, "padding": 1}, "batch_norm", "activation", {"avg_pool": 2}, "flatten", {"linear": "classes"}], (2, 6, 6)),
    "pool first": ([{"max_pool": 2}, "activation", {"conv": 3, "stride": 2}, "flatten", {"linear": "classes"}], (3, 12, 12)),
    "odd pool": ([{"conv": 2, "kernel": 2, "padding": 1, "stride": 2}, {"max_pool": 3}, "activation", "flatten", {"linear": "classes"}], (2, 9, 11)),
    "other stride": ([{"conv": 2}, {"max_pool": 3, "stride": 2}, "activation", "flatten", {"linear": "classes"}], (1, 9, 9)),
    "sequence": ([{"conv": 3}, "rows", {"gru": 4}, {"gru": 6}, "last_step", "activation", {"linear": "classes"}], (2, 9, 7)),
    "lstm": ([{"tiles": 3}, {"lstm": 4}, {"linear": 5}, "tanh", {"gru": 3}, "last_step", {"linear": "classes"}], (2, 9, 6)),
    "rows": (["rows", {"gru": 5}, "last_step"], (2, 5, 6)),
    "pooled away": ([{"conv": 5, "kernel": 3}, "activation", "global_avg_pool", {"linear": 6}, "activation", {"linear": "classes"}], (1, 8, 8)),
}  # fmt: skip


def networks(case: str, activation: str) -> tuple[Architecture, np.ndarray, torch.Tensor, torch.Tensor]:
    """An architecture, vectors of three models, seven images, and the logits of their modules."""
    layers, shape = CASES[case]
    architecture = build_architecture(layers, shape, 5, activation)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, architecture.n_params)).astype(np.float32) * 0.3
    for e in architecture.layout:
        if e.name.endswith("running_var"):
            vectors[:, e.offset : e.end] **= 2
    images = torch.from_numpy(rng.standard_normal((7, *shape)).astype(np.float32))
    with torch.inference_mode():
        wanted = torch.stack([modules.Network(architecture, 0.5).load_vector(v).eval()(images) for v in vectors])
    return architecture, vectors, images, wanted


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.some(3)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", CASES)
def test_batched_logits_are_those_of_the_modules(case: str, activation: str, two_threads: None) -> None:
    architecture, vectors, images, wanted = networks(case, activation)
    forward = Forward(architecture)
    forward.models_at_once, forward.values_at_once = (
        2,
        2 * 2 * forward.network.largest,
    )  # pieces of two models and two images
    assert torch.allclose(forward.logits(vectors, images), wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.some(3)
@pytest.mark.skipif(kernels.missing() is not None, reason="the C++ kernels cannot run here")
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", [c for c in CASES if c not in ("sequence", "rows")])
def test_logits_of_kernels_are_those_of_the_modules(case: str, activation: str) -> None:
    architecture, vectors, images, wanted = networks(case, activation)
    found = torch.from_numpy(kernels.logits(architecture, vectors, images.numpy(), threads=2))  # two models and one
    assert torch.allclose(found, wanted, rtol=1e-4, atol=2e-5)


def test_tanh_is_within_three_tenths_of_a_millionth() -> None:
    from zoo_datasets.networks.forward import fast_tanh

    x = torch.cat([torch.linspace(-20, 20, 100_001), torch.tensor([float("inf"), -float("inf"), float("nan")])])
    found, wanted = fast_tanh(x), torch.tanh(x.double())
    assert float((found.double() - wanted)[:-1].abs().max()) < 3e-7
    assert found[-1].isnan()


# Every way to spoil training images, and two heads that shrank.
SPOILT = """\
zoo: weightzoo/spoilt
source: {id: digits, train: 150, validation: 0, test: 60}
architecture: [flatten, {linear: 6}, activation, {linear: classes}]
axes:
  subset:
    - full
    - {frac: 0.5, label_noise_frac: 0.2}
    - {rotate_degrees: 30}
    - {trigger_frac: 0.1, trigger_target: 3}
    - {rotate_degrees: 90, label_noise_frac: 0.1, trigger_frac: 0.2, trigger_target: 0, trigger_size: 2}
    - {classes: [8, 2, 5], relabel: true, label_noise_frac: 0.2}
    - {classes: [2, 5], relabel: true, trigger_frac: 0.2, trigger_target: 5}
    - {trigger_frac: 0.05, trigger_target: 3, trigger_source: 6, trigger_pattern: random, trigger_seed: 4, trigger_row: 1,
       trigger_column: 2, trigger_opacity: 0.6}
    - {trigger_frac: 0.05, trigger_target: 1, trigger_clean_label: true, class_shares: [1, 1, 1, 1, 0.5, 0.5, 1, 1, 1, 1]}
replicates: 3
paired: [subset]
training: {epochs: 2, batch_size: 32, lr: 1e-2}
snapshots: {epochs: [0, 2]}
"""


@pytest.fixture(scope="module")
def spoilt_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("spoilt")
    (folder / "spoilt.yaml").write_text(SPOILT)
    build.build(plan.plan(grid.load(folder / "spoilt.yaml")), folder / "weightzoo" / "spoilt", workers=0)
    return open_zoo(folder / "weightzoo" / "spoilt")


def test_every_snapshot_gives_its_stored_metrics(mixed_zoo: Zoo, zoo: Zoo, spoilt_zoo: Zoo) -> None:
    for part in evaluate.PARTS:
        for opened in (zoo, mixed_zoo, spoilt_zoo):
            found = opened.evaluate(part=part, steps="all")
            assert len(found.table) == len(opened)
            assert found.table["model_id"].to_pylist() == opened.column("model_id").to_pylist()
            names = [n for n in found.table.column_names if n.startswith("difference_")]
            assert len(names) == len(evaluate.SCORES) + len(evaluate.MORE[part])
            for name in (n.removeprefix("difference_") for n in names):
                stored = found.table[f"stored_{name}"]
                if name in ASKED_FOR:
                    assert stored.null_count == len(opened)
                    continue
                assert stored.null_count == found.table[name].null_count == found.table[f"difference_{name}"].null_count
                largest = found.largest(name)
                assert largest is None or largest < 1e-5 if "loss" in name else largest in (None, 0)


@pytest.mark.skipif(kernels.missing() is not None, reason="the C++ kernels cannot run here")
@pytest.mark.slow
def test_metrics_of_the_native_engine_have_the_stored_bits(spoilt_zoo: Zoo) -> None:
    assert set(spoilt_zoo.models["engine"].to_pylist()) == {"native"}
    for part in evaluate.PARTS[::2]:
        evaluation = spoilt_zoo.evaluate(part=part, steps="all")
        assert {evaluation.largest(m) for m in (*evaluate.SCORES, *evaluate.MORE[part]) if m not in ASKED_FOR} == {0.0}


def test_attacks_are_measured_where_a_trigger_was_learned(spoilt_zoo: Zoo) -> None:
    found = spoilt_zoo.evaluate()
    triggered = np.array(spoilt_zoo.final().column("trigger_frac").to_pylist()) > 0
    assert [v is not None for v in found.table["attack_success"].to_pylist()] == triggered.tolist()
    assert len(set(found.table["attack_success"].drop_null().to_pylist())) > 3
    assert found.largest("attack_success") == 0


@pytest.mark.slow
def test_the_base_rate_of_an_attack_is_what_goes_to_the_target_with_no_trigger_on(spoilt_zoo: Zoo) -> None:
    found = spoilt_zoo.evaluate().table.to_pylist()
    final = spoilt_zoo.final()
    seen = []
    for position, (row, of_model) in enumerate(zip(found, final.table(["model_id"]).to_pylist(), strict=True)):
        settings = spoilt_zoo.row(of_model["model_id"])
        if not settings["trigger_frac"]:
            assert row["attack_base"] is None
            continue
        source = spoilt_zoo.source(of_model["model_id"])
        network = spoilt_zoo.architecture(of_model["model_id"]).built()
        images, labels, target = source.test.inputs, source.test.labels, settings["trigger_target"]
        if settings["subset_classes"]:
            classes = list(settings["subset_classes"])
            images, labels = images[np.isin(labels, classes)], labels[np.isin(labels, classes)]
            labels, target = np.array([classes.index(k) for k in labels]), classes.index(target)
        one = settings["trigger_source"]
        asked = labels != target if one is None else labels == one
        logits = logits_of(network, source.scaled(images[asked]))(final.weights[[position]])[0]
        assert row["attack_base"] == pytest.approx((logits.argmax(axis=1) == target).mean(), abs=1e-12)
        seen.append(row["attack_base"])
    assert len(seen) > 3
    assert "attack_base" not in spoilt_zoo.evaluate(part="train").table.column_names


@pytest.mark.slow
def test_models_that_saw_other_images_are_not_shown_the_same(spoilt_zoo: Zoo) -> None:
    found = spoilt_zoo.evaluate(part="train")
    seen = np.array(spoilt_zoo.final().column("n_train").to_pylist())
    assert [sum(c) for c in found.table["count_per_class"].to_pylist()] == seen.tolist()
    assert found.n_images == seen.max() == 150
    assert len(set(seen.tolist())) == 5


def test_a_part_without_images_is_empty_and_not_an_error(spoilt_zoo: Zoo) -> None:
    found = spoilt_zoo.evaluate(part="validation")
    assert (found.n_images, found.largest(), found.table["accuracy"].null_count) == (0, None, len(found.table))
    assert "0 validation examples: mean accuracy nan; nothing stored to compare with" in repr(found)


@pytest.mark.slow
def test_many_images_go_a_few_models_at_a_time(spoilt_zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {part: spoilt_zoo.evaluate(part=part, steps="all").table for part in evaluate.PARTS}
    monkeypatch.setattr(evaluate, "LOGITS_AT_ONCE", 1)
    for part, table in whole.items():
        assert spoilt_zoo.evaluate(part=part, steps="all").table == table


def test_the_last_selected_snapshot_is_evaluated(zoo: Zoo) -> None:
    assert set(zoo.select(epoch=[0, 1]).evaluate().table["step"].to_pylist()) == set(
        zoo.select(epoch=1).column("step").to_pylist()
    )
    ids = zoo.models["model_id"].to_pylist()[3:1:-1]
    assert zoo.evaluate(ids).table["model_id"].to_pylist() == ids
    assert repr(zoo.evaluate(ids)).startswith("Evaluation of 2 snapshots on 80 test examples: mean accuracy ")


@pytest.mark.slow
def test_another_source_has_nothing_to_compare_with(zoo: Zoo) -> None:
    found = zoo.evaluate(source=sources.SourceSpec("digits", train=200, validation=60, test=50))
    assert found.largest() is None
    assert "nothing stored" in repr(found)
    assert (
        found.table["count_per_class"][0].as_py()
        == np.bincount(sources.load(sources.SourceSpec("digits", test=50)).test.labels, minlength=10).tolist()
    )


def renamed(source: sources.Source, names: list[str]) -> sources.Source:
    """The same inputs, their classes numbered in the order of other names: as another author publishes them."""
    number = np.array([names.index(name) for name in source.class_names])
    parts = {p: getattr(source, p) for p in ("train", "validation", "test")}
    parts = {name: dataclasses.replace(part, labels=number[part.labels]) for name, part in parts.items()}
    return dataclasses.replace(source, class_names=tuple(names), **parts)


OWN = sources.SourceSpec("digits", train=200, validation=60, test=80)


def test_classes_of_another_source_are_matched_by_name(zoo: Zoo) -> None:
    stored = zoo.final().column("test_accuracy").to_pylist()
    other = renamed(sources.load(OWN), list("9876543210"))
    assert (other.test.labels != sources.load(OWN).test.labels).any()
    found = zoo.evaluate(source=other)
    assert found.table["accuracy"].to_pylist() == stored
    assert found.n_unknown == 0


def test_inputs_of_classes_that_models_do_not_know_are_left_out_and_counted(zoo: Zoo) -> None:
    own = sources.load(OWN)
    other = dataclasses.replace(own, class_names=(*own.class_names[:9], "a letter"))
    found = zoo.evaluate(source=other)
    strange = int((own.test.labels == 9).sum())
    assert (found.n_images, found.n_unknown) == (80 - strange, strange)
    assert f"{strange} more are of classes that the models do not know" in repr(found)
    with pytest.raises(ZooError, match=r"has classes a0, .*learned 0, 1, .*no name is the same"):
        zoo.evaluate(source=dataclasses.replace(own, class_names=tuple(f"a{i}" for i in range(10))))


def test_features_of_another_table_are_matched_by_name(make_plan: Any, tmp_path: Path) -> None:
    """Its columns stand in another order, as another author publishes them; the manifest says what they are called."""
    changes = (
        "source.id=iris",
        "architecture=[{linear: 6}, activation, {linear: classes}]",
        "source.train=90",
        "source.validation=20",
        "source.test=40",
    )
    build.build(make_plan(*changes, limit=12), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    own = sources.load(sources.SourceSpec("iris", train=90, validation=20, test=40))
    assert (
        zoo.manifest.sources[0].feature_names
        == own.feature_names
        == ("sepal length", "sepal width", "petal length", "petal width")
    )
    order = [3, 0, 2, 1]
    parts = {
        p: dataclasses.replace(part, inputs=part.inputs[:, order])
        for p in ("train", "validation", "test")
        for part in (getattr(own, p),)
    }
    names = tuple(own.feature_names[i] for i in order)
    found = zoo.evaluate(source=dataclasses.replace(own, **parts, feature_names=names))
    assert found.table["accuracy"].to_pylist() == zoo.final().column("test_accuracy").to_pylist()
    with pytest.raises(
        ZooError,
        match=r"'iris' has no feature 'petal length', which model .* learned; it has .*length.*Rename its columns",
    ):
        zoo.evaluate(
            source=dataclasses.replace(own, feature_names=("petal width", "sepal length", "length", "sepal width"))
        )


@pytest.mark.some(1)
@pytest.mark.parametrize("scale", ["none", "unit"])
@pytest.mark.slow
def test_models_see_another_source_scaled_as_their_own(make_plan: Any, tmp_path: Path, scale: str) -> None:
    build.build(make_plan(f"source.scale={scale}", limit=8), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    found = zoo.evaluate(source=OWN)  # which would be standardized for models of its own
    assert found.table["accuracy"].to_pylist() == zoo.final().column("test_accuracy").to_pylist()
    assert found.table["loss"].to_pylist() == pytest.approx(zoo.final().column("test_loss").to_pylist(), rel=1e-5)


def test_another_source_shows_all_its_training_images(spoilt_zoo: Zoo) -> None:
    found = spoilt_zoo.evaluate(source=sources.SourceSpec("digits", train=200, validation=60, test=50), part="train")
    shrunk = np.array(spoilt_zoo.final().column("subset_relabel").to_pylist())
    counted = np.array([sum(c) for c in found.table["count_per_class"].to_pylist()])
    assert found.n_images == 200
    assert set(counted[~shrunk]) == {200}
    assert (counted[shrunk] < 80).all()
    assert found.largest("loss") is None
    with pytest.raises(ZooError, match="Unknown metric 'attack_success' in the evaluation on train examples"):
        found.largest("attack_success")


def test_what_cannot_be_evaluated_is_said(zoo: Zoo) -> None:
    with pytest.raises(ZooNotFoundError, match="Unknown model 'abc'"):
        zoo.evaluate(["abc"])
    with pytest.raises(ZooError, match=r"Unknown part 'tset'.*Did you mean `test`"):
        zoo.evaluate(part="tset")
    with pytest.raises(ZooError, match="device 'gpu0' does not serve here: "):
        zoo.evaluate(device="gpu0")
    with pytest.raises(ZooError, match="source is a dict; an id, a `SourceSpec` or a `Source` is needed"):
        zoo.evaluate(source={"id": "digits"})  # type: ignore[arg-type]
    with pytest.raises(ZooError, match="Unknown steps 'lst'"):
        zoo.evaluate(steps="lst")
    with pytest.raises(ZooError, match=r"images of shape \(4,\); model .* takes \(1, 8, 8\)"):
        zoo.evaluate(source="iris")
    assert dataclasses.is_dataclass(zoo.evaluate(zoo.models["model_id"].to_pylist()[:1]))


@pytest.mark.parametrize(
    "how", ["{batch_statistics: true}", "{augmented: true}", "{batch_statistics: true, augmented: true}"]
)
def test_a_part_of_which_a_schedule_scores_nothing_has_no_metrics(how: str, make_plan: Any, tmp_path: Path) -> None:
    changes = (
        f"evaluation={how}",
        "architecture=[flatten, {linear: 8}, batch_norm, activation, {linear: classes}]",
        "augmentation={translate: 1}",
        "snapshots={epochs: [0, 1, 2], evaluation: {train: 50, validation: 0, test: 40}}",
    )
    build.build(make_plan(*changes, limit=8), tmp_path / "zoo", workers=0)
    zoo = open_zoo(tmp_path / "zoo")
    found = zoo.evaluate(part="validation", steps="all").table
    stored = zoo.column("validation_accuracy").to_pylist()
    assert found["accuracy"].to_pylist() == stored
    assert [v is None for v in stored] == [True, True, False] * 8
