"""Small recipes that ask for too much: a GridError with the number, before any of it is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zoo_builder import grid, plan
from zoo_builder.estimate import describe
from zoo_builder.planning import runs
from zoo_builder.recipe import bounds
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError

Load = Callable[..., grid.Grid]
SOURCE = "source: {id: digits, train: 200, validation: 60, test: 80}\n"
LEVELS = ", ".join(f"{i}e-4" for i in range(1, 41))
SIX_AXES = (
    "axes: {"
    + ", ".join(f"{a}: [{LEVELS}]" for a in ("lr", "weight_decay", "beta1", "beta2", "eps", "clip_norm"))
    + "}"
)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(text: str, limit: int | None = None) -> grid.Grid:
        head = "zoo: a/b\n" + ("" if "source:" in text else SOURCE)
        (tmp_path / "g.yaml").write_text(head + text)
        return grid.load(tmp_path / "g.yaml", limit=limit)

    return read


def architecture(layers: str) -> str:
    return f"replicates: 4\narchitecture: [{layers}, {{linear: classes}}]"


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SIX_AXES, r"line 3: the axes cross to 4,096,000,000 points \(40 × 40 × 40 × 40 × 40 × 40 levels\); at most 1,000,000"),
        ("snapshots: {evenly: 1000000000000}", "`evenly` is 1,000,000,000,000 snapshots of one model; at most 50,000"),
        ("snapshots: {log_steps: 50001}", "`log_steps` is 50,001 snapshots of one model; at most 50,000"),
        ("snapshots: {epochs: [0, 1e308]}", r"`epochs` has 1e\+308; numbers up to 1,000,000,000"),
        ("snapshots: {steps: [9000000000000000000]}", "`steps` has 9,000,000,000,000,000,000; numbers up to"),
        ("init: {constant: 1e31}", r"`init_value` is 1e\+31; a number ≥ -1e\+30 and ≤ 1e\+30 is needed"),
        ("source: " + "x" * 256, "a name of at most 255 bytes is needed"),
        ("init: {zoo: a/c, epoch: 1e308}", r"`init_epoch` is 1e\+308; a number ≥ 0 and ≤ 1e\+09 is needed"),
        ("sample: {models: 4, axes: {lr: {log_uniform: [1e-320, 1e300]}}}", "is too wide for numbers of 64 bits"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_a_recipe_is_refused_as_it_is_read(load: Load, text: str, message: str, limit: int | None) -> None:
    with pytest.raises(GridError, match=message):
        load(text, limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replicates: 1000000000", r"line 3: the recipe asks for 1,000,000,000 models \(1 points, 1,000,000,000 replicates\)"),
        ("replicates: {init: 100000, order: 100000, subset: 100000}\nsplits: {train: 1}", "1,000,000,000,000,000 models"),
        ("sample: {models: 1000000000, axes: {lr: {uniform: [1e-4, 1e-2]}}}", r"1,000,000,000 models \(1,000,000,000 points"),
        ("replicates: 5000\naxes: {lr: [" + LEVELS + "]}", r"200,000 models \(40 points, 5,000 replicates\)"),
        ("replicates: 90000\ndescription: " + "long " * 4000, "90,000 models of a recipe of 20,1.. characters"),
    ],
    ids=lambda v: str(v)[:30],
)  # fmt: skip
def test_a_limit_is_the_way_out_of_many_models(load: Load, text: str, message: str) -> None:
    with pytest.raises(GridError, match=message) as raised:
        load(text)
    assert "`--limit N`" in str(raised.value)
    some = runs.of(load(text, 4))
    assert len({r.id for r in some}) == 4
    more = runs.of(load(text, 9))
    assert [r.id for r in more[:4]] == [r.id for r in some]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replicates: 4\ntraining: {epochs: 1000000000000}", "Training is 7,000,000,000,000 updates of one model; at most 1,000,000,000"),
        ("replicates: 4\ntraining: {steps: 9000000000000000000}", "Training is 9,000,000,000,000,000,000 updates"),
        ("replicates: 4\ntraining: {examples: 9000000000000000000}", "Training is 315,000,000,000,000,000 updates"),
        ("replicates: 4\ntraining: {epochs: 100000}\nsnapshots: every_epoch", "`snapshots: every_epoch` is 100,00. snapshots"),
        ("replicates: 4\ntraining: {epochs: 100000, patience: 3}\nsnapshots: {evenly: 4}", "`snapshots: evenly` is 100,00. snapshots"),
        (architecture("flatten, {linear: 1000000000}"), r"Layer 2 \(linear\): `features` is 1,000,000,000; at most 16,777,216"),
        (architecture("flatten, {linear: 10000000}"), "The architecture has 750,000,010 weights; at most 268,435,456"),
        (architecture("{conv: 16000000, kernel: 1}, flatten"), r"Layer 1 \(conv\) gives 1,024,000,000 values"),
        (architecture("{conv: 8, kernel: 900000001, padding: 450000000}, flatten"), "`kernel` is 900,000,001; at most"),
        (architecture("{conv: 100, kernel: 2001, padding: 1000}, flatten"), "The architecture has 400,4.*weights; at most"),
        (architecture("rows, {gru: 100000}, last_step"), r"The architecture has 30,00.* weights"),
        (architecture("flatten, " + "activation, " * 1000 + "{linear: 8}"), "The architecture has 1,003 layers; at most 1,000"),
        (architecture("flatten, {linear: 3000000}") + "\ncohort_size: 16", r"A cohort of 4 models takes .* GB while it trains \(225,000,010 values each"),
        (architecture("flatten, {linear: 1}").replace("{linear: classes}", "{linear: classes, outputs: 1000000}").replace("replicates: 4", "replicates: 16") + "\ncohort_size: 16",
         r"A cohort of 16 models takes .* GB while it trains .*outputs to be scored"),
        ("replicates: 4\nsource: {id: digits, mean: [1e308], std: [1]}", r"mean 1e\+308 and std 1; scaled by them, pixels are no"),
        ("replicates: 4\nsource: {id: digits, resize: 100000}", r"resized to 100,000 × 100,000 takes .* GB for .* images of 8 × 8"),
    ],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
def test_a_plan_refuses_what_a_machine_cannot_hold_or_finish(load: Load, text: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        plan.plan(load(text))


def test_a_sample_ends_where_every_point_there_is_was_drawn(load: Load) -> None:
    text = "sample: {models: 1000000000, axes: {lr: [0.1, 0.2]}}\nreplicates: 1000000000"
    assert [(r.axes["lr"], r.replicate["init"]) for r in runs.of(load(text, 4))] == [
        (lr, i) for i in (0, 1) for lr in dict.fromkeys(r.axes["lr"] for r in runs.of(load(text, 4)))
    ]


def test_a_limit_that_is_never_reached_is_refused(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_MODELS", 50)
    levels = [i / 100 for i in range(40)]
    recipe = load(f"splits: {{train: 1}}\naxes: {{optimizer: [sgd, momentum], momentum: {levels}}}", 45)
    with pytest.raises(
        GridError, match=r"The first 50 of 80 combinations of replicates and points are \d\d different models"
    ):
        runs.of(recipe)


def test_crossed_points_are_in_the_order_of_their_digests(load: Load) -> None:
    g = load("axes: {lr: [0.1, 0.2, 0.3], beta1: [0.5, 0.9], activation: [relu, tanh]}")
    planned = runs.of(g)
    assert [streams.digest(dict(r.axes)) for r in planned] == sorted(streams.digest(dict(r.axes)) for r in planned)
    assert len(planned) == 12


def test_levels_of_an_init_are_compared_by_their_ends(load: Load) -> None:
    """Crossing these would be 27 million combinations, of a recipe of 10 kB."""
    numbers = [i / 1000 for i in range(1, 300)]
    axes = f"init_low: {[-n for n in numbers]}, init_high: {numbers}, init_std: {numbers}"
    assert load(f"sample: {{models: 40, axes: {{init_kind: [uniform, normal], {axes}}}}}").sample_points == 40
    with pytest.raises(GridError, match=r"init `uniform: \[0.5, 0.001\]` needs low < high"):
        load(f"sample: {{models: 40, axes: {{init_kind: [uniform, normal], {axes.replace('[-0.001,', '[0.5,')}}}}}")


def test_a_network_too_large_to_be_timed_is_planned(load: Load) -> None:
    planned = plan.plan(load(architecture("flatten, {linear: 800000}") + "\ncohort_size: 1\nsplits: {train: 1}", 1))
    assert list(describe(planned, 0))[-1].startswith("how long it takes is not known")
