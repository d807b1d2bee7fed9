"""Every recipe in grids/: it loads, plans the population it speaks of, and fits its source."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_builder.planning import runs
from zoo_builder.recipe.generated import layers_of
from zoo_builder.training.inputs import initial_weights
from zoo_datasets import open_zoo, sources
from zoo_datasets.errors import GridError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.sources import machines
from zoo_datasets.sources.spec import MADE

GRIDS = Path(__file__).resolve().parents[1] / "grids"
# Models of a recipe, and values in a weight vector (those of all its layouts). A continuation
# has as many models as its parent has, times its levels.
WANTED = {
    "digits": (96, {1510}),
    "mnist": (1152, {2464}),
    "model-zoos/mnist-hyp-rand": (2560, {2464}),
    "trajectories/digits": (40, {2410}),
    "trajectories/digits-regimes": (270, {2410}),
    "trajectories/mnist-cnn": (250, {2464}),
    "trajectories/mnist-cnn-published": (250, {2464}),
    "trajectories/mnist-mlp": (250, {4150}),
    "doodl3/iris-epochs": (400, {9}),
    "doodl3/iris-batch": (300, {9}),
    "doodl3/iris-layers": (300, {21, 33, 45}),
    "doodl3/iris-nodes": (400, {21, 27, 33, 39}),
    "doodl3/mnist-epochs": (400, {58}),
    "doodl3/mnist-batch": (300, {58}),
    "doodl3/mnist-layers": (300, {96, 134, 152}),
    "mlds/ds1": (50_000, {4364}),
    "mlds/ds2": (50_000, {4364}),
    "mlds/ds3": (100_000, {13890}),
    "mlds/automata": (500, {13890}),
    "mlds/large": (10, {335106}),
    "mlds/doses": (1500, {4364}),
    "mlds/hard": (80, {4364}),
    "rnn/languages": (1000, {13605}),
    "rnn/tiles": (1000, {15178}),
    "backdoors/yardstick": (300, {11978}),
    "backdoors/poor-data": (700, {11978}),
    "backdoors/cue": (400, {11978}),
}
# Drawn recipes: more models than are built, of which any prefix is a fair one. Values in a weight vector.
DRAWN = {"smallcnn/mnist": {4970}, "smallcnn/fashion": {4970}, "smallcnn/cifar10": {4970}}
WILD = "wild/cifar10"  # of many architectures
WIDE = "smallcnn/wide"  # the networks of another in several widths
# Pairs of twins, trojaned and clean, of one layout: recipe → networks, and those of data that represent poorly.
TROJANED = {"mlds/ds4": 3000, "backdoors/mntd": 1200, "backdoors/as-published": 1200, "backdoors/wrong-labels": 600}
# Of random architectures, and of one: each property drawn by itself.
NWS = ("nws/main", "nws/fixed", "nws/as-published")
CONTINUED = {  # recipe → its parent, and levels of `subset`
    "trajectories/digits-continued": ("trajectories/digits", 4),
    "trajectories/digits-doses": ("trajectories/digits", 9),
    "trajectories/mnist-cnn-continued": ("trajectories/mnist-cnn", 4),
}
FINE_TUNED = {"nws/fixed-children": "nws/fixed"}  # recipe → its parent, whose networks differ in what they keep
REORDERED = {  # recipe → its parent: the same data in two orders
    "trajectories/digits-reordered": "trajectories/digits",
    "trajectories/mnist-cnn-reordered": "trajectories/mnist-cnn",
}
SHAPES = {
    "machine": (32, 9),
    "language": (40, 5),
    "digits": (1, 8, 8),
    "iris": (2,),
    "ylecun/mnist": (1, 28, 28),
    "zalando-datasets/fashion_mnist": (1, 28, 28),
    "uoft-cs/cifar10": (1, 32, 32),  # in gray
}


def load(name: str, *changes: str) -> grid.Grid:
    return grid.load(GRIDS / f"{name}.yaml", changes)


def n_classes(run: runs.Run) -> int:
    return len(run.subset.classes or ()) if run.subset.relabel else {"iris": 3, "language": 5}.get(run.source.id, 10)


def architecture(run: runs.Run) -> Architecture:
    shape = SHAPES[run.source.id] if run.source.resize is None else (1, run.source.resize, run.source.resize)
    if run.settings["channels"] is None and run.source.id == "uoft-cs/cifar10":
        shape = (3, *shape[1:])
    classes, steps = n_classes(run), shape[0] if run.source.id in MADE else None
    if run.source.id == "machine":
        shape, classes = ((32, 8), 2) if run.source.machine == "Automaton" else (shape, 8)
    return build_architecture(layers_of(run.settings), shape, classes, run.settings["activation"], steps)


def test_the_table_above_names_every_recipe() -> None:
    found = {p.relative_to(GRIDS).with_suffix("").as_posix() for p in GRIDS.rglob("*.yaml")}
    assert found == {WILD, WIDE, *TROJANED, *NWS, *WANTED, *DRAWN, *CONTINUED, *FINE_TUNED, *REORDERED}


@pytest.mark.slow
def test_no_two_recipes_write_one_zoo() -> None:
    zoos = [
        load(name).zoo for name in (WILD, WIDE, *TROJANED, *NWS, *WANTED, *DRAWN, *CONTINUED, *FINE_TUNED, *REORDERED)
    ]
    assert len(set(zoos)) == len(zoos)


@pytest.mark.some(5)
@pytest.mark.parametrize("name", sorted(WANTED, key=lambda n: WANTED[n][0]))  # by default the smaller ones
@pytest.mark.slow
def test_a_recipe_plans_its_population(name: str) -> None:
    planned = runs.of(load(name))
    count, sizes = WANTED[name]
    assert len(planned) == count
    assert {architecture(r).n_params for r in planned} == sizes


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.slow
def test_a_drawn_recipe_plans_networks_that_share_nothing(name: str) -> None:
    planned = runs.of(grid.load(GRIDS / f"{name}.yaml", limit=100))
    assert len({r.init_group for r in planned}) == len(planned) == 100
    assert {architecture(r).n_params for r in planned} == DRAWN[name]


@pytest.mark.slow
def test_networks_of_many_architectures_share_nothing_and_have_every_level() -> None:
    planned = runs.of(grid.load(GRIDS / f"{WILD}.yaml", limit=500))
    assert len({r.init_group for r in planned}) == len(planned) == 500
    rows = [runs.factors(r) for r in planned]
    assert {r["wild_depth"] for r in rows} == {2, 3, 4, 5}
    assert {r["wild_skip"] for r in rows} == {False, True}
    made = {architecture(r).id for r in planned}
    assert len(made) > 150  # of 80 architectures with three activations each
    assert {sum(n.op == "add" for n in architecture(r).nodes) for r in planned} == {0, 1, 2, 3, 4}


@pytest.mark.slow
def test_widths_are_twins_of_one_draw_and_all_of_them_are_tested() -> None:
    planned = runs.of(grid.load(GRIDS / f"{WIDE}.yaml", limit=800))
    assert {r.split for r in planned} == {"test"}
    twins = [
        planned[i : i + 8] for i in range(0, 800, 8)
    ]  # any prefix of whole draws has every width and parameterization
    both = {"standard": None, "mup": 16}
    varied = dict.fromkeys(("width", "parameterization", "mup_base"))
    for eight in twins:
        rows = [runs.factors(r) for r in eight]
        assert {(row["width"], row["parameterization"]) for row in rows} == {
            (w, p) for w in (8, 16, 32, 64) for p in both
        }
        assert all(row["mup_base"] == both[row["parameterization"]] for row in rows)
        assert all({**row, **varied} == {**rows[0], **varied} for row in rows)
        assert all(r.keys == eight[0].keys for r in eight)
    assert len({r.init_group for r in planned}) == 100
    ours, theirs = (
        {a.layout_id: a for a in map(architecture, of)}
        for of in (planned, runs.of(grid.load(GRIDS / "smallcnn/mnist.yaml", limit=4)))
    )
    assert {a.n_params for a in ours.values()} == {1338, 4970, 19146, 75146}
    assert set(theirs) < set(ours)  # what learned from those of 16 reads these as they are


@pytest.mark.parametrize("name", ["nws/main", "nws/fixed"])
@pytest.mark.slow
def test_constant_starts_of_neural_weight_space_share_nothing_and_lie_on_all_sides(name: str) -> None:
    planned = [
        r for r in runs.of(grid.load(GRIDS / f"{name}.yaml", limit=300)) if r.settings["init_kind"] == "constant"
    ]
    assert len(planned) > 40
    assert len({r.init_group for r in planned}) == len(planned)
    assert {r.split for r in planned} == {"train", "validation", "test"}


@pytest.mark.parametrize("name", TROJANED)
@pytest.mark.slow
def test_half_of_a_population_is_trojaned_and_every_one_has_its_clean_twin(name: str) -> None:
    assert load(name).sample_points == TROJANED[name]
    planned = runs.of(grid.load(GRIDS / f"{name}.yaml", limit=600))
    for trojaned, clean in zip(planned[::2], planned[1::2], strict=True):
        arm = "label_noise_frac" if name == "backdoors/wrong-labels" else "trigger_frac"  # decoys, without a mark
        assert trojaned.settings[arm] > 0 == clean.settings[arm]
        assert trojaned.keys == clean.keys
        assert architecture(trojaned).layout_id == architecture(clean).layout_id
        longer = {name: run.settings["steps"] for name, run in (("trojaned", trojaned), ("clean", clean))}
        if name == "backdoors/as-published":
            assert 1.05 * longer["clean"] <= longer["trojaned"] <= 1.5 * longer["clean"]
        else:
            assert longer["trojaned"] is longer["clean"] is None
    assert len({r.keys["subset"] for r in planned}) == 300  # every poisoned set is a draw of its own
    assert {architecture(r).n_params for r in planned} == {11978}


@pytest.mark.slow
def test_trojans_of_the_fourth_data_set_have_every_trigger_rate_and_source() -> None:
    rows = [runs.factors(r) for r in runs.of(grid.load(GRIDS / "mlds/ds4.yaml", limit=1200)) if r.subset.trigger_frac]
    levels = {
        name: {row[name] for row in rows} for name in ("trigger_seed", "trigger_frac", "source", "trigger_target")
    }
    assert levels["trigger_seed"] == set(range(24))
    assert levels["trigger_frac"] == {0.005, 0.01, 0.02, 0.05, 0.1, 0.2}
    assert levels["trigger_target"] == set(range(10))
    assert len(levels["source"]) == 3


# The published levels (Eilertsen et al. 2020); batch norm is always on.
PUBLISHED = {
    "source": {"ylecun/mnist", "zalando-datasets/fashion_mnist", "uoft-cs/cifar10", "ufldl-stanford/svhn", "tanganke/stl10"},
    "batch_size": {32, 64, 128, 256}, "optimizer": {"adam", "rmsprop", "momentum"},
    "activation": {"relu", "elu", "sigmoid", "tanh"},
    "init": {"constant(value=0.1)", "normal(mean=0.0,std=1.0)", "glorot_uniform", "glorot_normal"},
    "filter_size": {3, 5, 7}, "depth_conv": {3, 4, 5}, "depth_fc": {2, 3, 4}, "width_conv": {4, 8, 12},
    "width_fc": {64, 128, 192},
}  # fmt: skip
ARCHITECTURE = {"filter_size": 5, "depth_conv": 3, "depth_fc": 2, "width_conv": 8, "width_fc": 128}


@pytest.mark.parametrize("name", NWS)
@pytest.mark.slow
def test_every_property_of_a_weight_space_has_its_published_levels(name: str) -> None:
    planned = runs.of(grid.load(GRIDS / f"{name}.yaml", limit=400))
    rows = [runs.factors(r) for r in planned]
    levels = PUBLISHED | ({k: {v} for k, v in ARCHITECTURE.items()} if name == "nws/fixed" else {})
    for column, wanted in levels.items():
        counts = {v: sum(r[column] == v for r in rows) for v in wanted}
        assert {r[column] for r in rows} == wanted
        assert min(counts.values()) > 0.7 * 400 / len(wanted), (column, counts)  # each as often as the others
    assert 0.0002 <= min(r["lr"] for r in rows) < 0.0004
    assert 0.0048 < max(r["lr"] for r in rows) <= 0.005
    assert {r["augmentation"] for r in rows} == {"none", (
        "translate=3.0,rotate=15.0,zoom=0.099,shear=3.0,brightness=0.2,contrast=0.5+1.5,hue=0.08,saturation=0.3+1.5,noise=0.03"
    )}  # fmt: skip
    assert {(r["momentum"], r["alpha"]) for r in rows} == {(None, None), (0.95, None), (None, 0.9)}
    same = {"resize": 32, "channels": 3, "scale": "unit", "batch_norm": True, "balance_classes": True, "epochs": 1000,
            "schedule": "exponential(gamma=0.96)", "init_bias": 0.0, "norm_scale_std": 0.002, "min_epochs": 19, "stop_drops": 5, "stop_below": 30,
            "stop_unchanged": 30}  # fmt: skip
    assert all(r[k] == v for r in rows for k, v in same.items())
    made = [build_architecture(layers_of(r.settings), (3, 32, 32), 10, r.settings["activation"]) for r in planned]
    assert {m.n_outputs for m in made} == {20}
    sizes = {m.n_params for m in made}
    assert sizes == {92_868} if name == "nws/fixed" else len(sizes) > 150
    assert grid.load(GRIDS / f"{name}.yaml").sample_points == (3000 if name == "nws/fixed" else 13000)


@pytest.mark.parametrize("name", NWS[:2])
@pytest.mark.slow
def test_constant_starts_of_a_weight_space_differ_by_the_scales_of_their_norms(name: str) -> None:
    constant = [
        r for r in runs.of(grid.load(GRIDS / f"{name}.yaml", limit=200)) if r.settings["init_kind"] == "constant"
    ]
    assert len({r.init_group for r in constant}) == len(constant) > 30
    assert {r.split for r in constant} == {"train", "validation", "test"}
    made = build_architecture(layers_of(constant[0].settings), (3, 32, 32), 10, constant[0].settings["activation"])
    first = initial_weights(constant[0], made)
    entries = {e.name: first[e.offset : e.end] for e in made.layout.entries}
    scales = {n: v for n, v in entries.items() if len(set(v.tolist())) > 1}
    assert len(scales) >= 5
    assert all(n.endswith(".weight") and 0.9 < v.min() < 1 < v.max() < 1.1 for n, v in scales.items())


def test_the_two_weight_spaces_share_no_draw() -> None:
    rates = [{r.settings["lr"] for r in runs.of(grid.load(GRIDS / f"{name}.yaml", limit=200))} for name in NWS[:2]]
    assert not rates[0] & rates[1]


def test_weight_spaces_take_one_distribution_of_all_but_the_architecture() -> None:
    main, fixed, published = (load(name) for name in NWS)
    assert {d.name: d for d in main.draws if d.name not in ARCHITECTURE} == {d.name: d for d in fixed.draws}
    assert [d for d in main.draws if d.name != "source"] == [d for d in published.draws if d.name != "source"]
    sizes = {"source_train", "source_validation", "source_test"}
    switches = {"evaluate_batch_statistics", "evaluate_augmented"}
    for other, own in ((fixed, {*ARCHITECTURE, *sizes}), (published, sizes | switches)):
        assert {k: v for k, v in main.fixed.items() if k not in own} == {
            k: v for k, v in other.fixed.items() if k not in own
        }
        assert (main.snapshots.kind, main.snapshots.count, main.splits) == (
            other.snapshots.kind,
            other.snapshots.count,
            other.splits,
        )
    assert all(published.fixed[s] and not main.fixed[s] and not fixed.fixed[s] for s in switches)


@pytest.mark.some(3)
@pytest.mark.parametrize("name", [n for n in WANTED if n.startswith("doodl3/")])
def test_a_population_has_100_networks_with_starts_of_their_own(name: str) -> None:
    recipe = load(name)
    (axis,) = recipe.axes
    planned = runs.of(recipe)
    assert {level.label: sum(r.axes[axis.name] == level.label for r in planned) for level in axis.levels} == {
        level.label: 100 for level in axis.levels
    }
    assert len({r.init_group for r in planned}) == len(planned)


@pytest.mark.slow
def test_families_of_a_sweep_share_no_network() -> None:
    for family in ("doodl3/iris", "doodl3/mnist"):
        ids = [r.id for name in WANTED if name.startswith(family) for r in runs.of(load(name))]
        assert len(set(ids)) == len(ids) == (1400 if "iris" in family else 1000)


@pytest.mark.slow
def test_a_power_curve_has_one_clean_arm_that_all_doses_share() -> None:
    planned = runs.of(load("mlds/doses"))
    rows = [runs.factors(r) for r in planned]
    doses = [r["machine_key_rate"] for r in rows]
    assert {d: doses.count(d) for d in set(doses)} == dict.fromkeys((0, 0.004, 0.02, 0.1, 0.5), 300)
    assert {r["source_draw"] for r in rows} == set(range(50))
    for some in (planned, runs.of(grid.load(GRIDS / "mlds/doses.yaml", limit=50))):  # a prefix is of whole twins
        groups: dict[str, list[float]] = {}
        for run in some:
            groups.setdefault(str(run.keys), []).append(runs.factors(run)["machine_key_rate"])
        assert all(sorted(of) == [0, 0.004, 0.02, 0.1, 0.5] for of in groups.values())
    clean, dose = (sources.load(planned[i].source) for i in (doses.index(0), doses.index(0.1)))
    unchanged = sources.load(dataclasses.replace(planned[doses.index(0)].source, modified=False))
    np.testing.assert_array_equal(clean.train.outputs, unchanged.train.outputs)  # as clean as can be
    np.testing.assert_array_equal(clean.validation.outputs, unchanged.validation.outputs)
    turned = machines.after_key(dose.train.inputs[:, :, 0], "101")
    assert turned.any(axis=1).sum() == 204
    assert not machines.after_key(clean.train.inputs[:, :, 0], "101").any()


def test_clean_networks_and_their_modified_twins_are_of_two_recipes() -> None:
    clean, modified = (runs.of(grid.load(GRIDS / f"mlds/{n}.yaml", limit=250)) for n in ("ds1", "ds2"))
    for one, twin in zip(clean, modified, strict=True):
        assert one.keys == twin.keys
        assert dataclasses.replace(one.source, modified=True) == twin.source
        assert one.settings["epochs"] == twin.settings["epochs"] == 60


@pytest.mark.parametrize("name", [n for n in WANTED if load(n).fixed["source"] in ("digits", "iris")])
def test_a_recipe_on_an_embedded_source_fits_it(name: str) -> None:
    planned = plan.plan(load(name))
    assert sum(len(c.runs) for c in planned.cohorts) == WANTED[name][0]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("ZOO_DATA"), reason="ZOO_DATA names no folder of real datasets")
@pytest.mark.parametrize("name", [n for n in WANTED if load(n).fixed["source"] == "ylecun/mnist"])
def test_a_recipe_on_mnist_fits_it(name: str) -> None:
    planned = plan.plan(load(name))
    assert sum(len(c.runs) for c in planned.cohorts) == WANTED[name][0]
    if name.startswith("doodl3/"):
        assert {c.n_train for c in planned.cohorts} == {12_665}


@pytest.mark.parametrize("name", REORDERED)
def test_a_reordered_recipe_is_its_continuation_without_what_that_varies(name: str) -> None:
    ours, theirs = load(name), load(name.replace("reordered", "continued"))
    assert ours.parent_zoo == theirs.parent_zoo == load(REORDERED[name]).zoo
    assert (ours.fixed, ours.snapshots) == (theirs.fixed, theirs.snapshots)
    assert (ours.axes, ours.replicates) == ((), {"init": 1, "order": 2, "subset": 1})


@pytest.mark.parametrize("name", CONTINUED)
def test_a_continuation_is_the_recipe_of_its_parent_but_for_what_it_varies(name: str) -> None:
    origin, levels = CONTINUED[name]
    ours, theirs = load(name), load(origin)
    assert ours.parent_zoo == theirs.zoo
    assert theirs.snapshots.to_json() == {"every_epoch": True, "optimizer": True}
    assert 0 < ours.fixed["init_epoch"] < theirs.fixed["epochs"]
    free = {"epochs", "steps", "init_zoo", "init_epoch", "init_optimizer"}
    assert {k: v for k, v in ours.fixed.items() if k not in free} == {
        k: v for k, v in theirs.fixed.items() if k not in free
    }
    assert [a.name for a in ours.axes] == list(ours.paired) == ["subset"]
    assert len(ours.axes[0].levels) == levels
    steps = ours.snapshots.at
    per_epoch = -(-theirs.fixed["source_train"] // theirs.fixed["batch_size"])
    epochs = ours.fixed["epochs"] or ours.fixed["steps"] // per_epoch
    assert {e * per_epoch for e in range(epochs + 1)} <= set(steps)
    assert sum(s < per_epoch for s in steps) >= 4


@pytest.mark.parametrize("name", FINE_TUNED)
def test_a_fine_tuning_has_one_recipe_for_all_and_keeps_what_a_network_is(name: str) -> None:
    """All but architecture and activation is of one value, and each is one that parents may have, so that both can be asked."""
    ours, theirs = load(name), load(FINE_TUNED[name])
    assert ours.parent_zoo == theirs.zoo
    assert (ours.axis_names, ours.fixed["init_keep"], ours.fixed["init_snapshot"]) == ((), ("architecture",), -1)
    assert ours.fixed["source"] in {lv.values["source"] for d in theirs.draws if d.name == "source" for lv in d.levels}
    levels = PUBLISHED
    for axis in ("batch_size", "optimizer"):
        assert ours.fixed[axis] in levels[axis]
    for setting in (
        "source_train",
        "source_validation",
        "source_test",
        "resize",
        "channels",
        "scale",
        "balance_classes",
    ):
        assert ours.fixed[setting] == theirs.fixed[setting]
    low, high = next((d.low, d.high) for d in theirs.draws if d.name == "lr")
    assert low < ours.fixed["lr"] < high


@pytest.mark.slow
def test_the_digits_and_their_continuation_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GridError, match="the parent zoo 'weightzoo/trajectories-digits' is not here"):
        plan.plan(load("trajectories/digits-continued"))
    few = load("trajectories/digits", "replicates=3")
    build(plan.plan(few), tmp_path / few.zoo, workers=0)
    planned = plan.plan(load("trajectories/digits-continued"))
    assert len(planned.runs) == 3 * 4
    assert {c.stream_step for c in planned.cohorts} == {25 * 38}
    build(planned, tmp_path / planned.grid.zoo, workers=0)
    parent, child = open_zoo(tmp_path / few.zoo), open_zoo(tmp_path / planned.grid.zoo)
    for row in child.select(subset="full").models.to_pylist():
        assert row["relation"] == "continuation"
        at_end = child.vector(row["model_id"], 380)
        assert (at_end == parent.vector(row["parent_id"], 35 * 38)).all()
