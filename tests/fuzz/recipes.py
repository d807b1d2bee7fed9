"""Recipes of anybody → a plan, or a GridError: the border that YAML crosses.

A trial takes a recipe that is right, changes some of it (keys, types, numbers at the edges, texts, structure, bytes)
and plans it, with a limit or without, as the command `plan` does. Nothing is trained but the few steps that `plan` times.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from zoo_builder import estimate, grid, plan
from zoo_builder.recipe import recipe_yaml, settings
from zoo_builder.recipe.document import TOP_LEVEL
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.layers import PRESETS
from zoo_datasets.networks.operations.registry import OPERATIONS

MOST_MESSAGE = 1000  # characters: a sentence or two, with a few names in it
SOURCE = {"id": "digits", "train": 60, "validation": 20, "test": 20}
RECIPES: tuple[dict[str, Any], ...] = (
    {"zoo": "a/b", "source": SOURCE, "replicates": 4, "training": {"epochs": 1}},
    {"zoo": "a/b", "source": SOURCE, "replicates": 3, "axes": {"lr": [1e-3, 1e-2], "optimizer": ["sgd", "adam"]}},
    {"zoo": "a/b", "source": {"id": "iris"}, "splits": {"train": 1}, "snapshots": {"evenly": 3}, "seed": 3},
    {"zoo": "a/b", "source": SOURCE, "splits": {"train": 0.5, "test": 0.5}, "replicates": {"init": 2, "order": 2},
     "axes": {"subset": ["full", {"frac": 0.5}], "init": ["kaiming_uniform", {"uniform": [-1, 1]}]}, "paired": ["subset"]},
    {"zoo": "a/b", "source": SOURCE, "sample": {"models": 6, "axes": {"lr": {"log_uniform": [1e-4, 1e-1]},
     "batch_size": {"integer": [8, 32]}, "dropout": {"uniform": [0, 0.5]}, "activation": ["relu", "tanh"]}}},
    {"zoo": "a/b", "source": SOURCE | {"resize": 6}, "replicates": 3, "training": {"steps": 5, "schedule": {"kind": "cosine"}},
     "architecture": [{"conv": 4, "kernel": 3}, {"max_pool": 2}, "activation", "flatten", {"linear": 8}, "dropout",
                      {"linear": "classes"}], "activation": "tanh", "augmentation": {"shift": 1, "flip": True}},
    {"zoo": "a/b", "source": SOURCE, "replicates": 3, "subset": {"classes": [0, 1], "relabel": True, "trigger_frac": 0.1,
     "trigger_target": 1}, "snapshots": {"epochs": [0, 0.5, 1], "optimizer": True}, "license": "MIT", "cohort_size": 2},
    {"zoo": "a/b", "source": SOURCE, "replicates": 3, "architecture": ["rows", {"gru": 4}, "last_step", {"linear": "classes"}],
     "training": {"epochs": 3, "patience": 1, "optimizer": "momentum", "momentum": 0.5, "clip_norm": 1}},
)  # fmt: skip
INTEGERS = (
    0,
    1,
    2,
    3,
    5,
    16,
    17,
    100,
    1000,
    65_536,
    10**5,
    10**6,
    10**9,
    10**12,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    10**30,
    -1,
    -(2**63),
)
FLOATS = (0.0, -0.0, 0.1, 0.5, 1.0, 1.5, 1e-3, 1e-9, 1e-300, 5e-324, 1e9, 1e16, 1e308, -1e308, -1.0)
TEXTS = (
    "", " ", "~", "null", "true", "no", "1e-3", "010", ".inf", ".nan", "a/b", "../../x", "/etc/passwd", "digits", "iris",
    "classes", "adam", "all", "x" * 300, "x" * 5000, "é", "\U0001f600", "\x1b[31mred", "<b>&amp;", "a\nb: c", "- x", "{a: b", "%s{}",
    "\u2028", "{0}", "*a", "&a", "!!python/object:os.system",
)  # fmt: skip
RAW = (
    b"!!python/object/apply:os.system [ls]", b"&a [*a]", b"[" * 500, b"{" * 500, b"- " * 500, b"? " * 99, b".nan", b"-.inf", b"\xff\xfe",
    b"\x00", b"'\\ud800'", b"\"\\ud800\"", b"<<: {a: b}", b"? [1]\n: 2", b"0x7fffffffffffffffffff", b"1" * 5000, b"1e999", b"0o17",
    b"2026-01-01", b"! x", b"%YAML 9.9\n---\n", b"---\n...\n---\n", b"\t", b"[" + b"1," * 3000 + b"]", b"\"" + b"x" * 50_000 + b"\"",
    b"a: &x [1,1,1,1,1,1,1,1,1,1]\nb: &y [*x,*x,*x,*x,*x,*x,*x,*x,*x,*x]\nc: &z [*y,*y,*y,*y,*y,*y,*y,*y]\nd: [*z,*z,*z,*z,*z,*z,*z,*z]",
)  # fmt: skip
PLACES = tuple(s.path for s in settings.SETTINGS.values())
BLOCKS = tuple(dict.fromkeys(p.split(".")[0] for p in PLACES))


def prepare(folder: Path) -> None:
    """Nothing: a recipe needs no folder but its own."""


def trial(rng: np.random.Generator, folder: Path) -> str:
    """Plans one changed recipe: "refused" or "held"."""
    recipe = copy.deepcopy(RECIPES[rng.integers(len(RECIPES))])
    for _ in range(int(rng.geometric(0.6))):
        _change(rng, recipe)
    data = _text(recipe)
    if rng.random() < 0.2:
        data = _damaged(rng, data)
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    changes = [f"{rng.choice(PLACES)}={_word(rng)}"] if rng.random() < 0.15 else []
    limit = int(rng.choice((1, 3, 4, 9))) if rng.random() < 0.5 else None
    try:
        loaded = grid.load(path, changes, limit)
        if any(str(v).count("/") and v not in ("a/b",) for v in _sources(loaded)):
            return "held"  # of the Hub: nothing here goes there
        planned = plan.plan(loaded)
        lines = list(estimate.describe(planned, 0))
    except ZooError as error:
        message = str(error)
        if not 10 <= len(message) <= MOST_MESSAGE:
            raise AssertionError(f"a message of {len(message):,} characters: {message[:200]!r}") from error
        return "refused"
    assert lines
    assert len({r.id for r in planned.runs}) == len(planned.runs) <= (limit or len(planned.runs))
    assert sorted(r.id for c in planned.cohorts for r in c.runs) == sorted(r.id for r in planned.runs)
    json.dumps(planned.identity, allow_nan=False)
    assert recipe_yaml.load(recipe_yaml.dump(dict(loaded.document)).encode(), "again")[0] == loaded.document
    return "held"


def _sources(loaded: grid.Grid) -> list[Any]:
    varied = [lv.values.get("source") for a in (*loaded.axes, *loaded.draws) for lv in a.levels]
    return [loaded.fixed["source"], *varied, loaded.fixed["init_zoo"]]


def _text(recipe: dict[str, Any]) -> bytes:
    """The recipe as YAML (JSON is YAML, but for a number like 1e-05 that our own writer knows to quote)."""
    try:
        return recipe_yaml.dump(recipe).encode("utf-8", "surrogatepass")
    except Exception:  # what YAML cannot write
        return json.dumps(recipe).encode()


def _value(rng: np.random.Generator, depth: int = 0) -> Any:
    """Anything that YAML can hold."""
    match int(rng.integers(10 if depth < 4 else 6)):
        case 0 | 1:
            return INTEGERS[rng.integers(len(INTEGERS))]
        case 2:
            return FLOATS[rng.integers(len(FLOATS))]
        case 3:
            return TEXTS[rng.integers(len(TEXTS))]
        case 4:
            return [None, True, False][rng.integers(3)]
        case 5:
            return str(rng.choice(_KNOWN))
        case 6:
            return [_value(rng, depth + 1) for _ in range(int(rng.choice((0, 1, 2, 2, 3, 60))))]
        case 7:
            return [
                float(x)
                for x in rng.choice((rng.uniform(0, 1, 40), 10.0 ** rng.uniform(-5, 3, 40), np.arange(40)))[
                    : int(rng.integers(1, 41))
                ]
            ]
        case 8:
            return _layers(rng)
        case _:
            return {str(rng.choice(_KNOWN)): _value(rng, depth + 1) for _ in range(int(rng.integers(4)))}


_KNOWN = (
    *TOP_LEVEL, *settings.SETTINGS, *settings.COMPOSITES, *PRESETS, *OPERATIONS, "residual", "activation", "classes", "kernel", "stride",
    "padding", "models", "axes", "uniform", "log_uniform", "integer", "choice", "normal", "constant", "init", "order",
    "subset", "train", "validation", "test", "every_epoch", "epochs", "steps", "log_steps", "evenly", "optimizer", "frac",
    "classes", "kind", "first", "last", "low", "high", "std", "mean", "value", "zoo", "epoch", "step", "__class__", "<<",
)  # fmt: skip


def _fitting(rng: np.random.Generator, setting: settings.Setting, varied: bool) -> Any:
    """A value of the setting's kind, most of them in its range; levels of it where it is an axis."""
    if varied:
        levels = [_fitting(rng, setting, False) for _ in range(int(rng.choice((1, 2, 3, 50))))]
        kind = str(rng.choice(("uniform", "log_uniform", "integer", "choice")))
        return levels if rng.random() < 0.7 else {kind: levels[:2] if rng.random() < 0.8 else levels}
    match setting.kind:
        case "float":
            return float(rng.choice((rng.uniform(0, 1), 10.0 ** rng.uniform(-9, 3), FLOATS[rng.integers(len(FLOATS))])))
        case "int":
            return int(rng.integers(1, 40)) if rng.random() < 0.8 else INTEGERS[rng.integers(len(INTEGERS))]
        case "choice":
            return str(rng.choice(setting.choices))
        case "bool":
            return bool(rng.random() < 0.5)
        case "ints":
            return [int(i) for i in rng.permutation(10)[: rng.integers(1, 4)]]
        case "floats":
            return [float(f) for f in rng.uniform(0, 1, rng.integers(1, 4))]
        case "layers":
            return str(rng.choice(tuple(PRESETS))) if rng.random() < 0.3 else _layers(rng)
        case _:
            return str(rng.choice(("digits", "iris", "all", "0", "petal length")))


def _layers(rng: np.random.Generator) -> list[Any]:
    """A list of layers, most of them possible, of sizes that are not."""
    layers: list[Any] = []
    for _ in range(int(rng.integers(1, 7))):
        if rng.random() < 0.15:
            layers.append({"residual": rng.choice((8, "add", None)) if rng.random() < 0.2 else _layers(rng)[:2]})
            continue
        name = str(rng.choice((*OPERATIONS, "activation")))
        size = int(rng.choice((1, 2, 3, 8, 64, 10**4, 10**7, 10**9, 2**62)))
        option = str(rng.choice(("kernel", "stride", "padding")))
        layers.append(
            [name, {name: size}, {name: size, option: int(rng.choice((0, 1, 2, 5, 10**6, 2**40)))}][rng.integers(3)]
        )
    return [*layers, {"linear": "classes"}] if rng.random() < 0.8 else layers


def _change(rng: np.random.Generator, recipe: dict[str, Any]) -> None:
    """Changes one place of a recipe: a setting by its path, or any key or item there is."""
    if rng.random() < 0.6:
        path = str(rng.choice((*PLACES, *TOP_LEVEL, "snapshots.evenly", "snapshots.epochs", "snapshots.steps", "sample.models",
                               "replicates.init", "replicates.order", "axes.lr", "sample.axes.lr")))  # fmt: skip
        if rng.random() < 0.25:
            path = f"{rng.choice(('axes', 'sample.axes'))}.{rng.choice((*settings.AXES,))}"
        *blocks, key = path.split(".")
        block = recipe
        for name in blocks:
            block = block.setdefault(name, {}) if isinstance(block.get(name, {}), dict) else block
        setting = settings.BY_PATH.get(path) or settings.SETTINGS.get(key)
        block[key] = _fitting(rng, setting, varied="axes" in blocks) if setting and rng.random() < 0.8 else _value(rng)
        return
    places = list(_places(recipe))
    block, key = places[rng.integers(len(places))]
    match int(rng.integers(4)):
        case 0 if isinstance(block, dict):
            del block[key]
        case 1 if isinstance(block, dict):
            block[str(rng.choice((*TEXTS, *_KNOWN)))] = block.pop(key)
        case 2:
            block[key] = [block[key]] * int(rng.choice((1, 2, 50)))
        case _:
            block[key] = _value(rng)
    if not recipe:
        recipe["zoo"] = "a/b"


def _places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def _word(rng: np.random.Generator) -> str:
    return json.dumps(_value(rng, 3)) if rng.random() < 0.7 else str(rng.choice(TEXTS))


def _damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """The bytes cut, flipped, doubled, or with something in them that is no plain value."""
    at = int(rng.integers(len(data) + 1))
    match int(rng.integers(5)):
        case 0:
            return data[:at]
        case 1:
            flipped = bytearray(data or b"x")
            flipped[at % len(flipped)] ^= 1 << int(rng.integers(8))
            return bytes(flipped)
        case 2:
            return data + data
        case 3:
            colon = data.find(b": ", at)
            line = data.find(b"\n", colon)
            return data if colon < 0 else data[: colon + 2] + RAW[rng.integers(len(RAW))] + data[line:]
        case _:
            return data[:at] + RAW[rng.integers(len(RAW))] + data[at:]
