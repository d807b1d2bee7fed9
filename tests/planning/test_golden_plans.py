"""Ids, rows and cohorts of many recipes, against digests that the first version computed.

`golden_plans.json` holds digests alone: of runs (ids, keys, splits), of their rows in `models`, of
sources and subsets, of cohorts, and of what a half-built folder is compared with. They never change
for a recipe of today; a new setting leaves them alone, since it is absent at its default. A limit of paired
grids takes whole groups of twins, and took the first runs of the plan once: there the digests are of
other runs of the same plan.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import grid, plan
from zoo_builder.planning import cohorts, lineage, runs
from zoo_builder.recipe import recipe_yaml
from zoo_builder.recipe.settings import SETTINGS
from zoo_datasets import sources
from zoo_datasets.core import streams
from zoo_datasets.sources.spec import MADE

HERE = Path(__file__).resolve().parent
GOLDEN = json.loads((HERE / "golden_plans.json").read_text())
GRIDS = HERE.parents[1] / "grids"
DIGITS = "zoo: a/b\nsplits: {train: 1}\nsource: {id: digits, train: 100, validation: 50, test: 50}\nreplicates: 2\n"
LIMIT = 60

# One axis or block each, on a small source: every setting of the first version and most later ones.
BLOCKS = (
    "axes: {activation: [relu, tanh], dropout: [0, 0.25]}\n"
    "architecture: [flatten, {linear: 8}, activation, dropout, {linear: classes}]",
    "axes: {lr: [1e-3, 1, 0.1], batch_size: [8, 16]}",
    "axes: {optimizer: [sgd, momentum, nesterov, adam, adamw, rmsprop], momentum: [0.5, 0.9], alpha: [0.9, 0.99]}",
    "axes: {beta1: [0.8, 0.9], beta2: [0.9, 0.999], eps: [1e-8, 1e-6], weight_decay: [0, 0.1], clip_norm: [null, 1]}",
    "axes: {augment_flip: [false, true], augment_shift: [0, 1], augment_noise_std: [0, 0.1]}",
    "axes: {subset_classes: [null, [0, 1], [3, 1]], label_noise_frac: [0, 0.2], subset_frac: [1, 0.5]}",
    "subset: {trigger_frac: 0.1, trigger_target: 1}\n"
    "axes: {trigger_size: [2, 3], trigger_value: [0, 1], trigger_position: [top_left, bottom_right]}",
    "axes: {architecture: [mlp, [flatten, {linear: 8}, activation, {linear: classes}]], init_bias: [null, 0.5, 0]}",
    "axes: {architecture: [[flatten, {linear: classes}], [flatten, {linear: 8}, activation, {linear: classes}]],"
    " activation: [relu, tanh]}",
    "axes: {source: [digits, iris], scale: [unit, standardize]}",
    "axes: {source: [{id: digits, train: 40}, {id: iris, train: 30, validation: 9}]}",
    "axes: {resize: [null, 6], loss: [cross_entropy, mse], patience: [null, 1], target_loss: [null, 0.5]}",
    "axes: {epochs: [1, 3]}\nsnapshots: {evenly: 3}",
    "axes: {steps: [5, 9]}\nsnapshots: {log_steps: 4}",
    "axes: {examples: [100, 333]}\nsnapshots: {steps: [0, 3, 2], optimizer: true}",
    "training: {epochs: 2, min_epochs: 1, patience: 2}\nsnapshots: every_epoch",
    "axes: {subset: [full, {frac: 0.5}, {classes: [0, 1], relabel: true}, {classes: [1, 0], relabel: true},"
    " {trigger_frac: 0.1, trigger_target: 0, trigger_value: 0.5}]}\npaired: [subset]\nreplicates: {init: 2, order: 2}",
    "axes: {subset: [{frac: 0.7}, {trigger_frac: 0.1, trigger_target: 3}, {trigger_frac: 0.2, trigger_target: 2}]}",
    "axes: {subset: [full, {rotate_degrees: 30}, {rotate_degrees: -15.5, frac: 0.5}]}",
    "axes: {init: [normal, {uniform: [-1, 1]}, {normal: 0.1, bias: 0}, {normal: [1, 2]}, {constant: 0.1}, orthogonal]}",
    "axes: {init: [normal, {kind: glorot_uniform, first: {uniform: [-2, 2]}}, {normal: 0.1, last: glorot_normal}]}",
    "axes: {schedule: [constant, cosine, {kind: step, gamma: 0.1, every_epochs: 2}, {kind: exponential, gamma: 0.9}]}",
    "training: {schedule: {kind: cosine, final_frac: 0.1}}",
    "axes: {augmentation: [none, {shift: 1, flip: true}, {noise_std: 0.1}, {crop: 2}]}",
    "sample: {models: 40, axes: {lr: {log_uniform: [1e-4, 1e-1]}, batch_size: {integer: [8, 10]},"
    " subset: [full, {frac: 0.5}], dropout: {uniform: [0.1, 0.5]}}}\n"
    "architecture: [flatten, {linear: 8}, activation, dropout, {linear: classes}]",
    "seed: 7\ncohort_size: 1\nreplicates: {init: 2, order: 3, subset: 2}",
    "mup_base: 16\naxes: {parameterization: [standard, mup], optimizer: [sgd, adam]}\npaired: [parameterization]",
)  # fmt: skip
IRIS = (
    "zoo: a/b\nsplits: {train: 1}\nreplicates: 2\nsource: {id: iris, features: [0, 2], split_seed: 3, validation: 0}\n"
)
CONTINUED = (
    "init: {zoo: parent, epoch: 1}\ntraining: {epochs: 2, batch_size: 8}\naxes: {subset: [full, {frac: 0.5}]}",
    "init: {zoo: parent, step: 3, models: 2, optimizer: reset}\ntraining: {steps: 9, batch_size: 8}",
    "init: {zoo: parent}\ntraining: {batch_size: 8}\naxes: {init_epoch: [0, 1, 2], init_optimizer: [reset, continue]}\n"
    "replicates: {order: 2}",
)
CASES = {
    **{f"block {i}": DIGITS.replace("replicates: 2\n", "" if "replicates" in b else "replicates: 2\n").replace(
        "source: {id: digits, train: 100, validation: 50, test: 50}\n",
        "" if "source:" in b else "source: {id: digits, train: 100, validation: 50, test: 50}\n") + b
       for i, b in enumerate(BLOCKS)},
    "iris": IRIS,
    **{f"continued {i}": "zoo: a/b\nsource: {id: digits, train: 40, validation: 9, test: 9}\n" + t
       for i, t in enumerate(CONTINUED)},
    **{p.relative_to(GRIDS).as_posix(): p.read_text() for p in sorted(GRIDS.rglob("*.yaml"))},
}  # fmt: skip
PARENT = (
    "zoo: a/parent\nsource: {id: digits, train: 40, validation: 9, test: 9}\nreplicates: 3\n"
    "training: {epochs: 2, batch_size: 8}\nsnapshots: {steps: [0, 3, 5, 10], optimizer: true}"
)


def source_of(spec: sources.SourceSpec) -> sources.Source:
    """The source, or gray images in the place of one that is not embedded."""
    if spec.id in ("digits", "iris", *MADE):
        return sources.load(spec)
    side, channels = spec.resize or 28, spec.channels or 1

    def part(n: int) -> sources.Part:
        return sources.Part(np.zeros((n, channels, side, side), np.uint8), np.arange(n) % 10, np.arange(n))

    return sources.Source(
        spec,
        tuple("0123456789"),
        part(spec.train or 600),
        part(60),
        part(60),
        (0.0,) * channels,
        (1.0,) * channels,
        255.0,
        "f" * 64,
    )


def parents_of(recipe: grid.Grid) -> lineage.Parents:
    """A zoo of these models, as if it were sealed in a folder: rows and places, without weights."""
    planned = runs.of(recipe)
    rows, snapshots = [], {}
    for i, run in enumerate(planned):
        source = source_of(run.source)
        layout = cohorts.architecture(run, source).layout_id
        rows.append(
            runs.factors(run)
            | {"model_id": run.id, "split": run.split, "plan_index": i, "n_train": cohorts.n_train(run, source)}
            | {f"replicate_{k}": v for k, v in run.replicate.items()}
            | {f"{k}_key": v for k, v in run.keys.items()}
            | {"snapshot_schedule": json.dumps(schedule_of(run)), "lineage_root": None}
        )
        snapshots[run.id] = {
            step: {"epoch": step / 5, "shard": "w", "tensor": layout, "row": i, "weights_sha256": streams.digest([i, step]),
                   "optimizer_sha256": streams.digest([i, step, "o"])}
            for step in (0, 3, 5, 10)
        }  # fmt: skip
    return lineage.Parents(Path("parent"), recipe.zoo, {"weights": "0" * 64}, {}, tuple(rows), snapshots)


def schedule_of(run: runs.Run) -> dict[str, Any]:
    return run.snapshots.to_json()


def changed(subset: sources.Subset) -> dict[str, Any]:
    return {k: v for k, v in vars(subset).items() if v != getattr(sources.Subset(), k)}


def known(row: dict[str, Any], used: set[str]) -> dict[str, Any]:
    """A row without the settings that came after the digests were computed, none of which may say anything but of its own recipe."""
    since = set(SETTINGS) - set(GOLDEN["settings"]) - used
    assert all(row[name] in (None, SETTINGS[name].default) for name in since)
    return {name: value for name, value in row.items() if name not in since}


def golden_of(text: str, load: Callable[..., grid.Grid]) -> dict[str, str]:
    """The digests of a recipe. Pure, but for the embedded sources."""
    recipe = load(text)
    parents = parents_of(load(PARENT)) if recipe.parent_zoo is not None else None
    if parents is not None and recipe.parent_zoo != "parent":
        return {"document": streams.digest([recipe.digest, recipe_yaml.dump(dict(recipe.document))])}
    planned = runs.of(recipe, parents)
    made = cohorts.group(planned, recipe.cohort_size_on("cpu"), source_of, lambda *_: "torch_loop", "cpu")
    specs = list(dict.fromkeys(r.source for r in planned))
    identity = plan.Plan(recipe, planned, made, {s: source_of(s) for s in specs}, parents).identity
    used = {name for r in planned for name in r.settings}
    columns = [[c.name, str(c.type), c.doc] for c in runs.factor_columns(planned)]
    values = {
        "document": [recipe.digest, recipe_yaml.dump(dict(recipe.document))],
        "runs": [[r.id, r.axes, r.replicate, r.keys, r.split, schedule_of(r), r.start and r.start.identity,
                  r.start and r.start.relation] for r in planned],
        "settings": [dict(r.settings) for r in planned],
        "rows": [columns, [known(runs.factors(r), used) for r in planned]],
        "sources": [[s.given for s in specs], [changed(r.subset) for r in planned]],
        "cohorts": [[c.id, [r.id for r in c.runs], c.n_train, c.stream_step, c.steps] for c in made],
        "identity": identity,
    }  # fmt: skip
    return {name: streams.digest(value)[:16] for name, value in values.items()}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., grid.Grid]:
    def read(text: str) -> grid.Grid:
        (tmp_path / "recipe.yaml").write_text(text)
        # Groups are dealt as they were: for the rule of today others are on each side, and all else is alike.
        return dataclasses.replace(grid.load(tmp_path / "recipe.yaml", limit=LIMIT), split_rule="deficit")

    return read


@pytest.mark.some(12)
@pytest.mark.parametrize("name", CASES)
def test_a_recipe_gives_what_it_gave_in_the_first_version(name: str, load: Callable[..., grid.Grid]) -> None:
    assert golden_of(CASES[name], load) == GOLDEN["recipes"][name]


def test_settings_that_came_after_the_first_zoos_say_so() -> None:
    assert [s.name for s in SETTINGS.values() if not s.later] == GOLDEN["first_settings"]
