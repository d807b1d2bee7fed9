"""Every setting there is, and every one there will be: no model is trained on another's.

A setting that planning or training forgets would train a whole cohort on its first run's value, in
silence. So for each row of the table two runs that differ in it alone are grouped and trained: they
stand in two cohorts, or each of them comes out as it does alone, and not as the other. A new setting
is taken up by itself; where two values cannot be made up from its row, the test asks for them here.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import grid, worker
from zoo_builder.planning import cohorts, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.runs import Run
from zoo_builder.recipe import settings
from zoo_builder.recipe.settings import SETTINGS, Feeds, Setting
from zoo_datasets import sources, variation
from zoo_datasets.core import streams
from zoo_datasets.errors import BuildError
from zoo_datasets.networks import generated
from zoo_datasets.sources.fields import columns_of
from zoo_datasets.sources.rows import NAMES

RECIPE = """\
zoo: a/b
splits: {train: 1}
source: {id: digits, train: 24, validation: 12, test: 12}
architecture: [flatten, {linear: 4}, activation, dropout, {linear: classes}]
training: {epochs: 3, batch_size: 8, lr: 0.05}
snapshots: every_epoch
"""
# Two values, where those that `values_of` makes up from the table would not do.
VALUES: dict[str, tuple[Any, Any]] = {
    "source": ("digits", "iris"), "source_config": ("a", "b"), "image_column": ("a", "b"), "label_column": ("a", "b"),
    "source_train": (24, 16), "source_validation": (12, 8), "source_test": (12, 8), "source_features": ([0], [1]),
    "source_mean": ([0.1], [0.2]), "source_std": ([0.4], [0.5]), "resize": (6, 5), "channels": (1, 3),
    "architecture": ("mlp", ["flatten", {"linear": 4}, "activation", {"linear": "classes"}]), "examples": (8, 24),
    "init_low": (-1, -0.5), "init_first_low": (-1, -0.5), "init_last_low": (-1, -0.5), "target_loss": (1e-3, 100),
    "source_revision": ("a", "b"), "image_columns": (["a*"], ["b*"]), "image_layout": ("planes", "pixels"),
    "source_train_split": ("train", "train+more"), "source_validation_split": ("more", "test"),
    "source_test_split": ("more", "test"), "source_unlabeled": ("refuse", "leave_out"),
    "subset_class_names": (["0", "1"], ["2", "3"]), "min_epochs": (1, 3), "stop_drops": (1, 2), "augment_contrast": ([0.5, 1.5], [0.5, 2]),
    "augment_saturation": ([0.5, 1.5], [0, 1]), "subset_classes": ([0, 1], [2, 3]), "subset_class_shares": ([1] * 10, [0.3] * 10), "rotate_degrees": (0, 90),
    "subset_skip": (0.25, 0.5), "filter_size": (3, 5), "width_fc": (4, 8),
    "machine": ("SingleDirect", "SimpleXOR"), "machine_key": ("101", "11"), "language": ("a^n b^n", "a^n b^(n+1)"),
    "source_steps": (5, 6),
}  # fmt: skip
# What both runs have besides, so that the setting means something.
OF_TABLE = ("source.id=me/table",)
OF_SEQUENCES = ("training.loss=mse", "architecture=[{gru: 4}, {linear: classes}]", "source.steps=6")
OF_MACHINE = ("source.id=machine", "source.machine=SingleDirect", *OF_SEQUENCES)
BESIDE: dict[str, tuple[str, ...]] = {
    "source_draw": OF_MACHINE, "source_steps": OF_MACHINE, "machine": OF_SEQUENCES, "machine_modified": OF_MACHINE,
    "machine_key": (*OF_MACHINE, "source.modified=true"), "machine_key_rate": OF_MACHINE,
    **dict.fromkeys(("automaton", "automaton_states", "automaton_bits"), ("source.id=machine", *OF_SEQUENCES)),
    "language": ("training.loss=cross_entropy", *OF_SEQUENCES[1:]),
    "image_columns": OF_TABLE, "image_layout": (*OF_TABLE, 'source.image_columns=["a*"]'),
    "source_train_split": OF_TABLE, "source_validation_split": OF_TABLE, "source_test_split": OF_TABLE,
    "source_features": ("source.id=iris",), "source_mean": ("source.std=1",), "source_std": ("source.mean=0",),
    "init_low": ("init.high=1",), "init_high": ("init.low=0",), "init_first_low": ("init.first.high=1",),
    "init_first_high": ("init.first.low=0",), "init_last_low": ("init.last.high=1",),
    "init_last_high": ("init.last.low=0",), "dropout": (), "steps": ("training.epochs=",), "examples": ("training.epochs=",),
    "augment_hue": ("source.channels=3",), "augment_saturation": ("source.channels=3",),
    "stop_drops": ("training.lr=1", "training.epochs=30"), "stop_below": ("training.lr=1", "training.epochs=30"),
    "stop_unchanged": ("training.lr=0",),
    "patience": ("training.lr=0",), "min_epochs": ("training.target_loss=100",), "subset_relabel": ("subset.classes=[1, 0]",),
    "width": ("source.resize=16",), "subset_skip": ("subset.frac=0.5", "subset.classes=[1, 2]"),
    "trigger_frac": ("subset.trigger_target=1",),
    "trigger_row": ("subset.trigger_column=1",), "trigger_column": ("subset.trigger_row=1",),
    "trigger_source": ("subset.trigger_target=0", "subset.trigger_frac=0.05"),
    "trigger_clean_label": ("subset.trigger_frac=0.05",),
    "evaluate_batch_statistics": ("architecture=[flatten, {linear: 4}, batch_norm, activation, dropout, {linear: classes}]",),
    "evaluate_augmented": ("augmentation={noise_std: 0.1}",),
    "norm_scale_std": ("architecture=[flatten, {linear: 4}, batch_norm, activation, dropout, {linear: classes}]",),
    **dict.fromkeys(("filter_size", "depth_conv", "depth_fc", "width_conv", "width_fc", "batch_norm"), ("source.resize=32",)),
}  # fmt: skip
# What one value needs besides, which beside the other would mean nothing.
ALONG: dict[tuple[str, Any], tuple[str, ...]] = {("parameterization", "mup"): ("mup_base=2",)}
# Those of a start are in test_lineage.py; a place is no part of a recipe (tests/recipe/test_places.py).
NOT_LINEAGE = [s for s in SETTINGS.values() if s.feeds not in (Feeds.LINEAGE, Feeds.PLACE)]
Load = Callable[..., grid.Grid]


def values_of(setting: Setting) -> tuple[Any, Any]:
    """Two values of a setting."""
    if setting.name in VALUES:
        return VALUES[setting.name]
    if setting.kind == "choice":
        return setting.choices[0], setting.choices[1]
    if setting.kind == "bool":
        return False, True
    assert setting.kind in ("int", "float"), f"VALUES needs two values of `{setting.name}`"
    low = max(setting.low, 0)
    if setting.kind == "int":
        return int(low) + 1, int(low) + 2
    return (low + 0.25, low + 0.5) if setting.high <= 1 else (low + 0.01, low + 0.02)


def changes_of(setting: Setting, value: Any) -> list[str]:
    """The recipe's changes that give a run this value, and nothing else that another value would not."""
    along = ALONG.get((setting.name, value), ()) if isinstance(value, str) else ()
    return [*needed_by(setting), *BESIDE.get(setting.name, ()), *along, f"{setting.path}={json.dumps(value)}"]


def needed_by(setting: Setting) -> list[str]:
    if setting.needs is None:
        return []
    on, allowed = setting.needs
    target = ["subset.trigger_target=1"] if on == "trigger_frac" else []
    return [*needed_by(SETTINGS[on]), *target, f"{SETTINGS[on].path}={allowed[0] if allowed else 0.25}"]


@pytest.fixture(autouse=True, scope="module")
def a_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`me/table` where sources are looked for: three splits of twelve columns `a…` and twelve `b…`."""
    root, rng = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    (root / "me" / "table").mkdir(parents=True)
    columns = ["label", *(f"{kind}{i}" for kind in "ab" for i in range(12))]
    for split in ("train", "more", "test"):
        rows = np.column_stack([np.arange(60) % 3, rng.integers(0, 256, (60, 24))])
        lines = [",".join(map(str, row)) for row in rows.tolist()]
        (root / "me" / "table" / f"{split}.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
    text = "\n".join(f"  - {{split: {s}, path: {s}.csv}}" for s in ("train", "more", "test"))
    (root / "me" / "table" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{text}\n---\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_DATA", str(root))
        yield


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "recipe.yaml"

    def read(*changes: str, text: str = RECIPE) -> grid.Grid:
        path.write_text(text)
        return grid.load(path, changes)

    return read


def two_runs(load: Load, setting: Setting) -> tuple[Run, Run]:
    """Runs that differ in a setting alone: not in their streams, nor in any other setting that is used."""
    a, b = (runs.of(load(*changes_of(setting, v)))[0] for v in values_of(setting))
    differing = {n for n in SETTINGS if a.settings.get(n) != b.settings.get(n)}
    follows = {s.name for s in SETTINGS.values() if s.needs and s.needs.setting == setting.name}
    assert setting.name in differing
    assert differing <= {setting.name, *follows, *(["init_bias"] if setting.name == "architecture" else [])}
    assert a.keys == b.keys
    assert a.id != b.id
    return a, b


def group(*members: Run) -> list[Cohort]:
    """Cohorts on a source that is the same arrays whatever is asked for: only settings can part them."""
    tinted = any(r.settings.get(name) for r in members for name in ("augment_hue", "augment_saturation"))
    # Three convolutions of stride 2, or three pools, need more than the digits' 8 pixels.
    architecture = members[0].settings["architecture"]
    side = {"unterthiner": 16, "nws": 32}.get(architecture) if isinstance(architecture, str) else None
    spec = sources.SourceSpec("digits", train=24, validation=12, test=12, resize=side, channels=3 if tinted else None)
    made = members[0].settings["source"]
    if made in ("machine", "language"):
        what = {"machine": "SingleDirect"} if made == "machine" else {"language": "a^n b^n"}
        spec = sources.SourceSpec(made, train=24, validation=12, test=12, steps=6, **what)
    return cohorts.group(list(members), 16, lambda _: sources.load(spec), lambda *_: "torch_loop", "cpu")


def trained(cohort: Cohort) -> list[Any]:
    """All that each model of a cohort comes to."""
    snapshots, results, _ = worker.train(cohort, sources.load(cohort.runs[0].source))
    return [
        [[(s.step, s.epoch, s.examples_seen, s.sha256, s.metrics) for s in snapshots if s.model == m], result]
        for m, result in enumerate(results)
    ]


@pytest.mark.some(6)
@pytest.mark.parametrize("setting", NOT_LINEAGE, ids=lambda s: s.name)
def test_models_that_differ_in_a_setting_alone_never_share_it(setting: Setting, load: Load) -> None:
    pair = two_runs(load, setting)
    together = group(*pair)
    if setting.feeds.sharing is settings.Sharing.ALIKE:
        assert len(together) == 2
    if setting.feeds.sharing is settings.Sharing.OWN:
        assert len(together) == 1
    if setting.name in ("source_config", "image_column", "label_column", "source_revision", "source_unlabeled"):
        assert pair[0].source != pair[1].source  # no source has two that both can be trained on: tests/sources
        return
    if setting.name in ("augment_hue", "augment_saturation"):
        return  # gray digits have neither: tests/engines/test_distort.py
    if setting.feeds in (Feeds.SOURCE, Feeds.SCALING):
        made = [cohorts.group([r], 1, sources.load, lambda *_: "torch_loop", "cpu")[0] for r in pair]
    else:
        made = [group(r)[0] for r in pair]
    alone = [trained(c)[0] for c in made]
    assert alone[0] != alone[1], f"nothing uses `{setting.name}`"
    if len(together) == 1:
        assert trained(together[0]) == alone


@pytest.mark.parametrize("setting", [s for s in NOT_LINEAGE if s.name in settings.ALIKE], ids=lambda s: s.name)
def test_a_cohort_of_runs_that_differ_in_what_it_has_one_of_cannot_be_made(setting: Setting, load: Load) -> None:
    a, b = two_runs(load, setting)
    (c,) = group(a)
    with pytest.raises(
        BuildError, match=f"Runs {a.id} and {b.id} of one cohort differ in `.*, of which a cohort has one"
    ):
        cohorts.make((a, b), c.architecture, c.n_train, c.engine, c.device, c.source_sha256)


def test_nor_can_one_of_runs_whose_heads_number_other_classes(load: Load) -> None:
    a, b = (runs.of(load(f"subset={{classes: {c}, relabel: true}}"))[0] for c in ([0, 1], [1, 0]))
    assert len(group(a, b)) == 2
    (c,) = group(a)
    with pytest.raises(
        BuildError, match=re.escape("differ in `classes of the head` ((0, 1) and (1, 0)), of which a cohort")
    ):
        cohorts.make((a, b), c.architecture, c.n_train, c.engine, c.device, c.source_sha256)


# ── what the table says, and what the reader says of the same columns ──


def test_source_and_subset_have_a_field_for_each_setting_that_feeds_them() -> None:
    for kind, fed in (
        (sources.SourceSpec, settings.feeding(Feeds.SOURCE, Feeds.SCALING)),
        (sources.Subset, settings.feeding(Feeds.EXAMPLES, Feeds.LABELS, Feeds.INPUTS)),
    ):
        assert set(columns_of(kind)) == set(fed)
        for field in dataclasses.fields(kind):
            setting = SETTINGS[field.metadata["column"]]
            assert field.metadata["later"] == setting.later
            assert field.default == setting.default


def test_a_whole_number_is_a_quantity_or_a_name() -> None:
    """Whoever predicts a setting, or predicts from it, takes a name as a level; a new setting is put on one side here."""
    whole = {name for name, setting in SETTINGS.items() if setting.kind == "int"}
    generated_ones = {p.setting_of(g.name) for g in generated.GENERATED.values() for p in g.parameters}
    quantities = (whole & generated_ones) | {
        "augment_crop", "augment_shift", "automaton_bits", "automaton_states", "batch_size", "channels", "epochs", "examples",
        "init_models", "init_snapshot", "init_step", "min_epochs", "mup_base", "patience", "resize", "schedule_every_epochs", "source_steps",
        "source_test", "source_train", "source_validation", "steps", "stop_below", "stop_drops", "stop_unchanged",
        "trigger_column", "trigger_row", "trigger_size",
    }  # fmt: skip
    assert whole - quantities == NAMES
    assert quantities <= whole


def test_a_setting_says_what_it_feeds() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Setting("a", "a", "float", 0.0, "no word of what it feeds")  # type: ignore[call-arg]


@pytest.mark.parametrize("axis", settings.AXES)
def test_the_reader_knows_which_columns_move_with_an_axis(axis: str) -> None:
    columns = [c.name for c in runs.factor_columns()] + [s.name for s in SETTINGS.values() if s.later]
    moved = set(settings.sets(axis))
    if axis == "source":
        moved |= set(settings.feeding(Feeds.SOURCE, Feeds.SCALING))  # a level may be a mapping
    if axis == "architecture":
        moved |= {"init_bias"}
    for _ in range(2):  # what needs what needs it moves too
        moved |= {s.name for s in SETTINGS.values() if s.needs and s.needs.setting in moved}
    blocks = {b for b, members in settings.MEMBERS.items() if moved & {s.name for s in members}}
    assert set(columns) - set(variation.fixed_factors(axis, columns)) == ({axis} | moved | blocks) & set(columns)


# ── settings that came after the first zoos ──


@pytest.mark.parametrize(
    "setting",
    # A base is never left out beside `mup`.
    [s for s in SETTINGS.values() if s.later and not s.kept and s.feeds is not Feeds.PLACE and s.name != "mup_base"],
    ids=lambda s: s.name,
)
def test_a_later_setting_is_nowhere_at_its_default(setting: Setting, load: Load) -> None:
    needed = needed_by(setting)
    if any(change in needed for change in ("source.id=machine", "source.id=language")):
        needed += [f"training.loss={'mse' if 'source.id=machine' in needed else 'cross_entropy'}", OF_SEQUENCES[1]]
    (without,) = runs.of(load(*needed))
    (said,) = runs.of(load(*needed, f"{setting.path}={json.dumps(setting.default)}"))
    assert said == without
    assert setting.name not in said.settings
    assert setting.name not in {c.name for c in runs.factor_columns([said])}
    assert said.source.given == without.source.given
    names = {f.metadata["column"]: f.name for f in dataclasses.fields(sources.SourceSpec)}
    assert names.get(setting.name) not in said.source.given
    assert not any(
        setting.path.split(".", 1)[-1] in label
        for name, label in runs.factors(said).items() if isinstance(label, str) and name != "source"
    )  # fmt: skip
    assert group(said)[0].id == group(without)[0].id


def test_a_kept_setting_is_named_wherever_it_means_something(load: Load) -> None:
    (run,) = runs.of(load("architecture=nws", "source.resize=32"))
    kept = {s.name: s.default for s in SETTINGS.values() if s.kept}
    assert {n: run.settings[n] for n in kept} == kept
    assert {n: runs.factors(run)[n] for n in kept} == kept
    assert set(kept) <= {c.name for c in runs.factor_columns([run])}
    (other,) = runs.of(load())
    assert not set(kept) & {*other.settings, *(c.name for c in runs.factor_columns([other]))}
    row = runs.factors(run) | {
        "model_id": run.id,
        "split": "",
        "snapshot_schedule": json.dumps(run.snapshots.to_json()),
    }
    row |= {f"replicate_{n}": v for n, v in run.replicate.items()} | {f"{n}_key": v for n, v in run.keys.items()}
    assert runs.from_row(row, {}).settings == run.settings


def test_labels_are_text_or_canonical_json() -> None:
    assert [streams.level_label(v) for v in ("tanh", 1.0, None, True, [0, 1])] == [
        "tanh",
        "1.0",
        "null",
        "true",
        "[0,1]",
    ]
    assert len({streams.level_label(v) for v in itertools.chain(range(3), ("a", "b"))}) == 5
