"""Runs → cohorts: alike runs only, of a size the recipe fixes, whatever the hardware."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_builder import grid, plan
from zoo_builder.planning import cohorts, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import Run
from zoo_datasets import sources
from zoo_datasets.errors import GridError
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.sources.augmentation import augmentation_of

BASE = "zoo: a/b\nsplits: {train: 1}\nsource: {id: digits, train: 100, validation: 50, test: 50}\n"
MIXED = (
    BASE + "axes:\n  activation: [tanh, relu]\n  batch_size: [16, 32]\n  lr: [1, 2]\n"
    "  subset: [full, {frac: 0.5}, {label_noise_frac: 0.5}, {trigger_frac: 0.1, trigger_target: 0}]\nreplicates: 3\n"
)


@pytest.fixture(scope="module")
def planned_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Run]]:
    folder, counter = tmp_path_factory.mktemp("grids"), itertools.count()

    def make(text: str, *changes: str, limit: int | None = None) -> list[Run]:
        path = folder / f"{next(counter)}.yaml"
        path.write_text(text)
        return runs.of(grid.load(path, changes, limit))

    return make


@pytest.fixture(scope="module")
def mixed(planned_of: Callable[..., list[Run]]) -> list[Run]:
    return planned_of(MIXED)


def group(
    planned: list[Run], size: int = 16, engine: str = "torch_loop", device: str = "cpu", **options: Any
) -> list[Cohort]:
    source_of = options.get("source_of", sources.load)
    return cohorts.group(planned, size, source_of, lambda *_: engine, device)


def members(made: list[Cohort]) -> list[list[str]]:
    return [[r.id for r in c.runs] for c in made]


def sharing(made: list[Cohort], names: tuple[str, ...]) -> list[set[Any]]:
    return [{tuple(r.settings[n] for n in names) for r in c.runs} for c in made]


# --- membership ------------------------------------------------------------------------


def test_every_run_is_in_one_cohort(mixed: list[Run]) -> None:
    found = [i for c in members(group(mixed)) for i in c]
    assert sorted(found) == sorted(r.id for r in mixed)


def test_cohorts_are_full_but_the_last_of_a_kind(mixed: list[Run]) -> None:
    # Of each of 2 activations × 2 batch sizes: 12 full or noisy runs, 6 halves, 6 poisoned.
    sizes = [len(c.runs) for c in group(mixed, 5)]
    assert max(sizes) == 5
    assert sorted(sizes) == sorted([5, 5, 2, 5, 1, 5, 1] * 4)


def test_cohorts_and_their_runs_are_in_plan_order(mixed: list[Run]) -> None:
    place = {r.id: i for i, r in enumerate(mixed)}
    made = group(mixed, 5)
    firsts = [place[c.runs[0].id] for c in made]
    assert firsts == sorted(firsts)
    for c in made:
        assert [place[r.id] for r in c.runs] == sorted(place[r.id] for r in c.runs)


def test_engine_and_device_do_not_move_a_run_to_another_cohort(mixed: list[Run]) -> None:
    expected = members(group(mixed, 5))
    assert members(group(mixed, 5, engine="native")) == expected
    assert members(group(mixed, 5, engine="torch_batched", device="cuda")) == expected


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 96), st.integers(1, 20))
@pytest.mark.slow
def test_a_longer_plan_keeps_every_full_cohort(mixed: list[Run], limit: int, size: int) -> None:
    whole = {c.id for c in group(mixed, size)}
    for c in group(mixed[:limit], size):
        assert c.id in whole or len(c.runs) < size


@pytest.mark.parametrize(
    ("axis", "apart"),
    [
        ("batch_size: [16, 32]", True), ("activation: [relu, tanh]", True), ("loss: [cross_entropy, mse]", True),
        ("subset: [full, {frac: 0.5}]", True), ("subset: [full, {classes: [0, 1]}]", True),
        ("subset: [full, {trigger_frac: 0.1, trigger_target: 1}]", True),
        ("subset: [{trigger_frac: 0.1, trigger_target: 1}, {trigger_frac: 0.1, trigger_target: 1, trigger_size: 2}]", True),
        ("subset: [{trigger_frac: 0.1, trigger_target: 1}, {trigger_frac: 0.1, trigger_target: 1, trigger_value: 0}]", True),
        ("augmentation: [none, {shift: 1}]", True), ("augment_noise_std: [0, 0.1]", True),
        ("architecture: [mlp, [flatten, {linear: classes}]]", True), ("source_train: [110, 90]", True),
        ("scale: [unit, standardize]", True), ("resize: [null, 6]", True),
        ("subset: [{classes: [0, 1], relabel: true}, {classes: [1, 0], relabel: true}]", True),
        ("lr: [1, 2]", False), ("optimizer: [sgd, adam]", False), ("dropout: [0, 0.5]", False), ("epochs: [1, 2]", False),
        ("clip_norm: [null, 1]", False), ("init: [normal, orthogonal]", False), ("schedule: [constant, cosine]", False),
        ("label_noise_frac: [0, 0.5]", False), ("patience: [null, 1]", False), ("weight_decay: [0, 1]", False),
        ("subset: [{trigger_frac: 0.1, trigger_target: 1}, {trigger_frac: 0.2, trigger_target: 2}]", False),
    ],
    ids=lambda v: str(v)[:60],
)  # fmt: skip
def test_what_an_engine_cannot_vary_is_never_mixed(planned_of: Any, axis: str, apart: bool) -> None:
    base = BASE.replace("train: 100, ", "") if axis.startswith("source_train") else BASE
    planned = planned_of(f"{base}axes: {{{axis}}}\nreplicates: 3\n")
    assert len(planned) == 6
    made = group(planned)
    assert len(made) == (2 if apart else 1)
    if apart:
        assert all(len({tuple(r.axes.values()) for r in c.runs}) == 1 for c in made)


def test_equal_numbers_of_images_may_share_a_cohort(planned_of: Any) -> None:
    text = (
        BASE.replace("train: 100,", "train: 1000,") + "axes: {subset: [full, {label_noise_frac: 0.3}]}\nreplicates: 2\n"
    )
    (one,) = group(planned_of(text))
    assert (one.n_train, one.batch_size, one.steps) == (1000, 32, [160] * 4)
    counts = {c.n_train for c in group(planned_of(BASE + "axes: {subset: [full, {frac: 0.5}, {classes: [3]}]}\n"))}
    assert len(counts) == 3
    assert max(counts) == 100


def test_a_source_is_asked_for_once_per_shape_not_per_run(mixed: list[Run]) -> None:
    asked = []

    def source_of(spec: sources.SourceSpec) -> sources.Source:
        asked.append(spec)
        return sources.load(spec)

    made = group(mixed, 5, source_of=source_of)
    assert len(asked) == 16 + len(made)


# --- ids -------------------------------------------------------------------------------


def test_a_cohort_id_is_pinned(mixed: list[Run]) -> None:
    first = group(mixed, 5)[0]
    assert first.id == "fd9c59e520b0f844f66a6e65a55b9f79bd8f9dc095c7da66c6c8cd02500fcc3a"
    assert len({c.id for c in group(mixed, 5)}) == 28


def test_the_id_changes_with_everything_the_numbers_depend_on(mixed: list[Run]) -> None:
    c = group(mixed, 5)[0]
    same = cohorts.make(c.runs, c.architecture, c.n_train, c.engine, c.device, c.source_sha256)
    assert same == c
    wider = next(o.runs[0] for o in group(mixed, 5)[1:] if cohorts.shared(o.runs[0]) == cohorts.shared(c.runs[0]))
    other_keys = dataclasses.replace(c.runs[0], keys={**c.runs[0].keys, "order": "0" * 32})
    others = [
        cohorts.make(c.runs, c.architecture, c.n_train, "native", c.device, c.source_sha256),
        cohorts.make(c.runs, c.architecture, c.n_train, c.engine, "cuda", c.source_sha256),
        cohorts.make(c.runs, c.architecture, c.n_train, c.engine, c.device, "0" * 64),
        cohorts.make(c.runs, c.architecture, c.n_train + 1, c.engine, c.device, c.source_sha256),
        cohorts.make(c.runs[1:], c.architecture, c.n_train, c.engine, c.device, c.source_sha256),
        cohorts.make(c.runs[::-1], c.architecture, c.n_train, c.engine, c.device, c.source_sha256),
        cohorts.make((*c.runs, wider), c.architecture, c.n_train, c.engine, c.device, c.source_sha256),
        cohorts.make((other_keys, *c.runs[1:]), c.architecture, c.n_train, c.engine, c.device, c.source_sha256),
    ]
    assert len({c.id, *(o.id for o in others)}) == 9


def test_splits_and_names_do_not_enter_the_id(planned_of: Any) -> None:
    a = group(planned_of(MIXED), 5)
    b = group(planned_of(MIXED, "splits={train: 0.5, test: 0.5}", "zoo=c/d", "license=mit"), 5)
    assert [c.id for c in a] == [c.id for c in b]


# --- what does not fit the source ------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "architecture: small-cnn",
            r"Layer 5 \(conv\): its window 5×5 does not fit into the input of shape \(8, 2, 2\)",
        ),
        ("architecture: [{linear: classes}]", r"Layer 1 \(linear\) needs a flat input .* gives \(1, 8, 8\)"),
        ("subset: {classes: [11]}", "class 11; the source has classes 0 to 9"),
        (
            "augmentation: {shift: 8}",
            r"Augmentation moves by up to 8 pixels; of \(1, 8, 8\) it takes fewer than 8",
        ),
    ],
)
def test_what_does_not_fit_the_source_is_refused(planned_of: Any, text: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        group(planned_of(f"{BASE}{text}\n"))


def test_a_stop_rule_of_any_run_needs_validation_images(planned_of: Any) -> None:
    base = BASE.replace("validation: 50", "validation: 0")
    for axis in ("patience: [null, 1]", "target_loss: [null, 0.5]"):
        planned = planned_of(f"{base}axes: {{{axis}}}\n")
        for in_some_order in (planned, planned[::-1]):
            with pytest.raises(
                GridError,
                match="looks at validation examples, and the source has none of this network's classes; ask for some",
            ):
                group(in_some_order)


def test_one_class_alone_is_nothing_to_learn(planned_of: Callable[..., list[Run]]) -> None:
    """Its loss is 0 whatever the weights. One of several outputs is somebody's wish."""
    digits = sources.load(sources.SourceSpec("digits", train=100, validation=50, test=50))
    three = digits.train.labels == 3
    part = dataclasses.replace(
        digits.train,
        inputs=digits.train.inputs[three],
        labels=digits.train.labels[three],
        index=digits.train.index[three],
    )
    only = dataclasses.replace(digits, train=part)
    with pytest.raises(GridError, match="Source 'digits' has one class alone in its train part, '3': there is nothing"):
        group(planned_of(BASE), source_of=lambda _: only)
    with pytest.raises(GridError, match="relabel and one class: a network of one output has nothing to learn"):
        group(planned_of(BASE, "subset.classes=[3]", "subset.relabel=true"))
    assert group(planned_of(BASE, "subset.classes=[3]"))[0].architecture.nodes[-1].shape == (10,)


def test_images_are_needed_to_be_moved(planned_of: Any) -> None:
    with pytest.raises(GridError, match=r"shift, crop and flip need images; the source iris has shape \(4,\)"):
        group(planned_of("zoo: a/b\nsplits: {train: 1}\nsource: iris\naugmentation: {flip: true}\n"))


def test_a_distortion_is_in_pixels_and_in_scaled_colors(planned_of: Any) -> None:
    told = "translate: 3, rotate: 15, brightness: 0.2, contrast: [0.5, 1.5], noise: 0.03"
    (run,) = planned_of(BASE + f"augmentation: {{{told}}}\n")
    source = sources.load(run.source)
    d = augmentation_of(run.settings, source).distortion
    assert (d.translate, d.rotate, d.zoom, d.brightness, d.contrast, d.noise) == (3, 15, 0, 0.2, (0.5, 1.5), 0.03)
    assert (d.mean, d.std, d.saturation) == (tuple(source.mean), tuple(source.std), (1.0, 1.0))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("hue: 0.08", r"hue and saturation needs RGB images; digits has 1 channel\. `source: \{channels: 3\}`"),
        ("saturation: [0.3, 1.5]", "hue and saturation needs RGB images"),
        ("contrast: [1.5, 0.5]", r"`contrast` is \[1.5, 0.5\]; two factors are needed, the smaller first"),
        ("contrast: 0.5", r"`contrast` is \[0.5\]; two factors are needed"),
        ("translate: 8", r"Augmentation moves by up to 8 pixels; of \(1, 8, 8\) it takes fewer than 8"),
    ],
)
def test_a_distortion_that_does_not_fit_is_refused(planned_of: Any, told: str, said: str) -> None:
    with pytest.raises(GridError, match=said):
        group(planned_of(BASE + f"augmentation: {{{told}}}\n"))


def test_numbers_cannot_be_distorted(planned_of: Any) -> None:
    with pytest.raises(GridError, match=r"needs images; the source iris has shape \(4,\)\. `noise_std` is for numbers"):
        group(planned_of("zoo: a/b\nsplits: {train: 1}\nsource: iris\naugmentation: {noise: 0.1}\n"))


def test_relabelled_classes_shrink_the_head(planned_of: Any) -> None:
    (small,) = group(planned_of(BASE + "subset: {classes: [7, 1, 3], relabel: true}\n"))
    (full,) = group(planned_of(BASE + "subset: {classes: [7, 1, 3]}\n"))
    assert (small.architecture.n_outputs, full.architecture.n_outputs) == (3, 10)


def test_augmentation_is_in_scaled_units(planned_of: Any) -> None:
    (run,) = planned_of(BASE + "augmentation: {shift: 2, crop: 1, flip: true, noise_std: 0.5}\n")
    source = sources.load(run.source)
    found = augmentation_of(run.settings, source)
    assert (found.shift, found.crop, found.flip) == (2, 1, True)
    assert found.noise == pytest.approx([0.5 / s for s in source.std])
    black = source.scaled(source.train.inputs[:1] * 0)[0, :, 0, 0]
    assert found.fill == pytest.approx(black.tolist())
    (plain,) = planned_of(BASE)
    assert not augmentation_of(plain.settings, source).any
    assert isinstance(found, Augmentation)


def test_a_cohort_says_how_long_each_run_is(planned_of: Any, tmp_path: Path) -> None:
    (one,) = group(planned_of(BASE + "axes: {epochs: [1, 3]}\n"))
    assert sorted(one.steps) == [4, 12]


def test_examples_that_a_smaller_head_has_no_class_for_count_as_none(tmp_path: Path) -> None:
    """All was trained, and then the zoo could not be sealed; of rules that stop, none ever looked at anything."""
    recipe = tmp_path / "g.yaml"
    text = (
        "zoo: a/b\nsource: {{id: digits, train: 200, validation: {}, test: {}}}\narchitecture: [flatten, {{linear: classes}}]\n"
        "axes: {{subset: [full, {{classes: [1, 2], relabel: true}}]}}\nreplicates: 3\ntraining: {{epochs: 2{}}}\n"
    )
    recipe.write_text(text.format(5, 3, ""))
    with pytest.raises(
        GridError,
        match=r"Of the 3 test examples of source 'digits' none is of the classes that `subset` leaves \(1, 2\)",
    ):
        plan.plan(grid.load(recipe))
    recipe.write_text(text.format(2, 200, ", patience: 1"))
    with pytest.raises(
        GridError, match="`patience` looks at validation examples, and the source has none of this network's classes"
    ):
        plan.plan(grid.load(recipe))
    recipe.write_text(text.format(60, 200, ", patience: 1"))
    assert len(plan.plan(grid.load(recipe)).runs) == 6
