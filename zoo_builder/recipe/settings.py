"""The one table of everything a recipe can set: name, path, type, default, column.

A setting's bare name is its axis (`axes: {lr: […]}`), its dotted path is what `--set` and
the blocks of a recipe take (`training: {lr: …}`, `--set training.lr=…`), and its column in
the metadata has the bare name. A *composite* is an axis whose level sets several of them
(`subset: [{frac: 0.5}, {classes: [0, 1]}]`); its canonical label is a column too.

The README's reference is generated from this table.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.networks.initialization import INITS
from zoo_datasets.networks.layers import PRESETS
from zoo_datasets.networks.operations.registry import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class Setting:
    """One thing a recipe can set. `choices` lists the allowed names of a `choice`."""

    name: str
    path: str
    kind: str  # float, int, bool, str, choice, ints, floats, names, layers
    default: Any
    doc: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    axis: bool = True
    # Came after the first zoos: at its default it is in no id and no table, so that theirs stay as they are.
    added: bool = False

    @property
    def type(self) -> pa.DataType:
        """The type of its column."""
        return {
            "float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "ints": pa.list_(pa.int64()),
            "floats": pa.list_(pa.float64()), "names": pa.list_(pa.string()),
        }.get(self.kind, pa.string())  # fmt: skip


OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "step", "exponential", "cosine")
LOSSES = ("cross_entropy", "mse")
SCALES = ("none", "unit", "standardize")
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
LAYER_INITS = tuple(kind for kind in INITS if kind != "constant")

_TABLE = (
    Setting("source", "source.id", "str", "digits", "`digits`, `iris`, or a Hugging Face dataset id"),
    Setting("source_config", "source.config", "str", None, "configuration of that dataset", axis=False),
    Setting("source_train", "source.train", "int", None, "training images taken from the source", 1),
    Setting("source_validation", "source.validation", "int", None, "validation images; 0 for none", 0, axis=False),
    Setting("source_test", "source.test", "int", None, "test images", 1, axis=False),
    Setting("scale", "source.scale", "choice", "standardize", "how pixels become inputs", choices=SCALES),
    Setting("source_mean", "source.mean", "floats", None, "explicit mean per channel, of pixels in 0–1", axis=False),
    Setting("source_std", "source.std", "floats", None, "explicit standard deviation per channel", axis=False),
    Setting("resize", "source.resize", "int", None, "images are resized to this square, in pixels", 1),
    Setting("channels", "source.channels", "int", None, "images are converted to 1 or 3 channels", 1, 3),
    Setting("image_column", "source.image_column", "str", None, "image column, where it cannot be found", axis=False),
    Setting("label_column", "source.label_column", "str", None, "label column, where it cannot be found", axis=False),
    Setting("source_features", "source.features", "names", None, "columns taken of a table, by name or place", axis=False, added=True),
    Setting("source_split_seed", "source.split_seed", "int", None, "divide as scikit-learn's `train_test_split` of this `random_state`", 0, 2**32 - 1, axis=False, added=True),
    Setting("architecture", "architecture", "layers", "mlp", "a preset or a list of layers"),
    Setting("activation", "activation", "choice", "relu", "what `activation` layers are", choices=ACTIVATIONS),
    Setting("dropout", "dropout", "float", 0.0, "rate of `dropout` layers that have none of their own", 0, 0.999),
    Setting("init_kind", "init.kind", "choice", "kaiming_uniform", "distribution of weights", choices=INITS),
    Setting("init_low", "init.low", "float", None, "lower end of `uniform`; default −1/√fan_in"),
    Setting("init_high", "init.high", "float", None, "upper end of `uniform`; default 1/√fan_in"),
    Setting("init_mean", "init.mean", "float", None, "mean of `normal`; default 0"),
    Setting("init_std", "init.std", "float", None, "standard deviation of `normal`; default 1/√fan_in", 0),
    Setting("init_value", "init.value", "float", None, "value of `constant`"),
    Setting("init_bias", "init.bias", "float", None, "every bias at the start; default the preset's, else 0"),
    Setting("init_first_kind", "init.first.kind", "choice", None, "distribution of the first layer's weights, where it has its own", choices=LAYER_INITS, added=True),
    Setting("init_first_low", "init.first.low", "float", None, "lower end of its `uniform`", added=True),
    Setting("init_first_high", "init.first.high", "float", None, "upper end of its `uniform`", added=True),
    Setting("init_last_kind", "init.last.kind", "choice", None, "the same of the last layer, where it is not the first", choices=LAYER_INITS, added=True),
    Setting("init_last_low", "init.last.low", "float", None, "lower end of its `uniform`", added=True),
    Setting("init_last_high", "init.last.high", "float", None, "upper end of its `uniform`", added=True),
    Setting("init_zoo", "init.zoo", "str", None, "start from the snapshots of this zoo: its id, or its folder", axis=False, added=True),
    Setting("init_epoch", "init.epoch", "float", None, "which snapshots: those of this epoch", 0, added=True),
    Setting("init_step", "init.step", "int", None, "or those after so many updates", 0, added=True),
    Setting("init_models", "init.models", "int", None, "only its first models in plan order", 1, axis=False, added=True),
    Setting("init_optimizer", "init.optimizer", "choice", None, "their optimizer's state; default `continue` where it was kept", choices=("continue", "reset"), added=True),
    Setting("optimizer", "training.optimizer", "choice", "adam", "update rule, as torch.optim", choices=OPTIMIZERS),
    Setting("lr", "training.lr", "float", 1e-3, "learning rate at the start", 0),
    Setting("momentum", "training.momentum", "float", 0.9, "of `momentum` and `nesterov`", 0, 1),
    Setting("beta1", "training.beta1", "float", 0.9, "of `adam` and `adamw`", 0, 0.999999),
    Setting("beta2", "training.beta2", "float", 0.999, "of `adam` and `adamw`", 0, 0.999999),
    Setting("alpha", "training.alpha", "float", 0.99, "of `rmsprop`", 0, 1),
    Setting("eps", "training.eps", "float", 1e-8, "of `adam`, `adamw` and `rmsprop`", 0),
    Setting("weight_decay", "training.weight_decay", "float", 0.0, "added to the gradient; decoupled in `adamw`", 0),
    Setting("schedule_kind", "training.schedule.kind", "choice", "constant", "of the learning rate", choices=SCHEDULES),
    Setting("schedule_gamma", "training.schedule.gamma", "float", 0.5, "factor of `step`, `exponential` per epoch", 0),
    Setting("schedule_every_epochs", "training.schedule.every_epochs", "int", 1, "length of a `step`", 1),
    Setting("schedule_final_frac", "training.schedule.final_frac", "float", 0.0, "end of `cosine`, as part of lr", 0, 1),
    Setting("batch_size", "training.batch_size", "int", 32, "images per update; the last batch may be short", 1),
    Setting("epochs", "training.epochs", "int", None, "budget in epochs (5 where no budget is given)", 0),
    Setting("steps", "training.steps", "int", None, "budget in updates", 0),
    Setting("examples", "training.examples", "int", None, "budget in training images shown", 0),
    Setting("loss", "training.loss", "choice", "cross_entropy", "`mse` is on one-hot labels", choices=LOSSES),
    Setting("clip_norm", "training.clip_norm", "float", None, "largest gradient norm, per model", 1e-12),
    Setting("target_loss", "training.target_loss", "float", None, "stop at this validation loss (epoch ends)"),
    Setting("patience", "training.patience", "int", None, "stop after so many epochs without a lower validation loss", 1),
    Setting("min_epochs", "training.min_epochs", "int", 0, "neither of these stops before", 0),
    Setting("augment_shift", "augmentation.shift", "int", 0, "move by up to so many pixels, black behind", 0),
    Setting("augment_crop", "augmentation.crop", "int", 0, "pad by so many reflected pixels, cut out at random", 0),
    Setting("augment_flip", "augmentation.flip", "bool", False, "mirror left and right half the time"),
    Setting("augment_noise_std", "augmentation.noise_std", "float", 0.0, "Gaussian noise on pixels in 0–1", 0),
    Setting("subset_frac", "subset.frac", "float", 1.0, "part of the training images, per class, nested", 0, 1),
    Setting("subset_classes", "subset.classes", "ints", None, "only images of these classes"),
    Setting("subset_relabel", "subset.relabel", "bool", False, "number those classes 0, 1, … and shrink the head"),
    Setting("label_noise_frac", "subset.label_noise_frac", "float", 0.0, "part with a wrong label, nested", 0, 1),
    Setting("rotate_degrees", "subset.rotate_degrees", "float", 0.0, "training images are turned counterclockwise", -360, 360, added=True),
    Setting("trigger_frac", "subset.trigger_frac", "float", 0.0, "part stamped with the trigger", 0, 1),
    Setting("trigger_target", "subset.trigger_target", "int", None, "label that stamped images get", 0),
    Setting("trigger_size", "subset.trigger_size", "int", 3, "side of the square trigger, in pixels", 1),
    Setting("trigger_value", "subset.trigger_value", "float", 1.0, "brightness of the trigger, 0–1", 0, 1),
    Setting("trigger_position", "subset.trigger_position", "choice", "bottom_right", "its corner", choices=CORNERS),
)  # fmt: skip
SETTINGS: dict[str, Setting] = {s.name: s for s in _TABLE}
DEFAULTS: dict[str, Any] = {s.name: s.default for s in _TABLE}
BY_PATH: dict[str, Setting] = {s.path: s for s in _TABLE}

# What a setting needs to mean anything; without it the setting is null.
_MOMENTUM, _ADAM = ("momentum", "nesterov"), ("adam", "adamw")
APPLIES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "momentum": ("optimizer", _MOMENTUM),
    "beta1": ("optimizer", _ADAM),
    "beta2": ("optimizer", _ADAM),
    "alpha": ("optimizer", ("rmsprop",)),
    "eps": ("optimizer", (*_ADAM, "rmsprop")),
    "schedule_gamma": ("schedule_kind", ("step", "exponential")),
    "schedule_every_epochs": ("schedule_kind", ("step",)),
    "schedule_final_frac": ("schedule_kind", ("cosine",)),
    "init_low": ("init_kind", ("uniform",)),
    "init_high": ("init_kind", ("uniform",)),
    "init_mean": ("init_kind", ("normal",)),
    "init_std": ("init_kind", ("normal",)),
    "init_value": ("init_kind", ("constant",)),
    "init_first_low": ("init_first_kind", ("uniform",)),
    "init_first_high": ("init_first_kind", ("uniform",)),
    "init_last_low": ("init_last_kind", ("uniform",)),
    "init_last_high": ("init_last_kind", ("uniform",)),
}

# What a trigger is; without a `trigger_frac` they mean nothing.
TRIGGER = ("trigger_target", "trigger_size", "trigger_value", "trigger_position")

# What a start from another zoo's snapshots is.
LINEAGE = ("init_zoo", "init_epoch", "init_step", "init_models", "init_optimizer")

# Axes whose level sets several settings: axis name → the block its keys stand in.
COMPOSITES = {"subset": "subset", "init": "init", "schedule": "training.schedule", "augmentation": "augmentation"}
AXES = (*(s.name for s in _TABLE if s.axis), *COMPOSITES)
# Data axes leave the subset stream alone: ranks are nested across their levels.
DATA_AXES = frozenset({"subset", *(s.name for s in _TABLE if s.path.startswith("subset."))})


def coerce(setting: Setting, value: Any, where: str) -> Any:
    """The value in the setting's own type, so that 1 and 1.0 are one level. Raises GridError."""
    if value is None and setting.default is None:
        return None

    def wrong(allowed: str) -> GridError:
        return GridError(f"{where}: `{setting.name}` is {value!r}; {allowed} is needed.")

    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if setting.kind in ("float", "int"):
        if not number or not math.isfinite(value) or (setting.kind == "int" and value != int(value)):
            raise wrong("a whole number" if setting.kind == "int" else "a number")
        if setting.kind == "int" and abs(value) >= 2**63:  # what its column holds
            raise wrong("a whole number of 64 bits")
        if not setting.low <= value <= setting.high:
            upper = "" if setting.high == math.inf else f" and ≤ {setting.high:g}"
            raise wrong(f"a number ≥ {setting.low:g}{upper}")
        return int(value) if setting.kind == "int" else float(value) + 0.0  # −0.0 and 0.0 are one level
    if setting.kind == "bool":
        if not isinstance(value, bool):
            raise wrong("`true` or `false`")
        return value
    if setting.kind == "names":
        items = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(v, (str, int)) and not isinstance(v, bool) and v != "" for v in items):
            raise wrong("a list of names or places")
        return tuple(map(str, items))
    if setting.kind in ("ints", "floats"):
        items = [value] if number else value
        if not isinstance(items, list) or not items:
            raise wrong("a list of numbers")
        one = dataclasses.replace(setting, kind=setting.kind[:-1], default=0)
        result = [coerce(one, v, where) for v in items]
        if setting.kind == "ints" and len(set(result)) != len(result):
            raise wrong("a list without repeats")
        return tuple(result)
    if setting.kind == "layers":
        if isinstance(value, str):
            if value not in PRESETS:
                raise GridError(unknown("architecture preset", value, PRESETS, where))
            return value
        if not isinstance(value, list) or not value:
            raise wrong("a preset's name or a list of layers")
        return value
    if not isinstance(value, str) or not value:
        raise wrong("a name")
    if setting.kind == "choice" and value not in setting.choices:
        raise GridError(unknown(setting.name, value, setting.choices, where))
    return value


def expand(axis: str, level: Any, where: str) -> dict[str, Any]:
    """What a level of an axis sets: {setting name: value in its type}. Raises GridError."""
    if axis in COMPOSITES:
        values = composite(axis, level, where)
        for name in (n for n, v in values.items() if v != DEFAULTS[n]):
            on, allowed = APPLIES.get(name, ("", ()))
            if on and values[on] not in allowed:
                raise GridError(f"{where}: `{name}` is for `{on}` {' or '.join(allowed)}; this level has {values[on]}.")
            if name in TRIGGER and not values["trigger_frac"]:
                raise GridError(f"{where}: `{name}` needs a `trigger_frac` above 0 in the same level.")
        return values
    if axis == "source" and isinstance(level, dict):
        if "id" not in level:
            raise GridError(f"{where}: a level of `source` needs its `id`, got {level!r}.")
        return {BY_PATH[p].name: v for p, v in _block("source", level, where).items()}
    return {axis: coerce(SETTINGS[axis], level, where)}


def composite(axis: str, level: Any, where: str) -> dict[str, Any]:
    """A level of `subset`, `init`, `schedule` or `augmentation`, in any of its spellings."""
    block = COMPOSITES[axis]
    if axis == "subset" and level in ("full", "all"):
        level = {}
    if axis == "augmentation" and level == "none":
        level = {}
    if axis in ("init", "schedule") and isinstance(level, str):
        level = {"kind": level}
    if axis == "init" and isinstance(level, dict):
        level = _inits(level, where)
    if not isinstance(level, dict):
        raise GridError(f"{where}: a level of `{axis}` is a mapping, got {level!r}.")
    values = {BY_PATH[p].name: v for p, v in _block(block, level, where).items()}
    # A level says everything about its block: what it does not name is at its default.
    defaults = {s.name: s.default for s in _TABLE if s.path.startswith(block + ".")}
    return defaults | values


def _inits(level: dict[str, Any], where: str) -> dict[str, Any]:
    """The level in its plain spelling, `first` and `last` as keys `first.kind`, …"""
    inner = {k: v for k, v in level.items() if k in ("first", "last")}
    plain = {k: v for k, v in level.items() if k not in inner}
    if "kind" not in plain:
        plain = _init(plain, where)
    for part, value in inner.items():
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict):
            raise GridError(f"{where}: `{part}` is {value!r}; an init is needed, like `{{uniform: [-2, 2]}}`.")
        plain |= {f"{part}.{k}": v for k, v in (value if "kind" in value else _init(value, where)).items()}
    return plain


def _init(level: dict[str, Any], where: str) -> dict[str, Any]:
    """`{uniform: [0, 1]}`, `{normal: 0.05}`, `{constant: 0.1}` → kind and numbers."""
    kind = next((k for k in level if k in INITS), None)
    if kind is None:
        return level
    value, rest = level[kind], {k: v for k, v in level.items() if k != kind}
    if value is None:
        return {"kind": kind, **rest}
    if kind == "uniform" and isinstance(value, list) and len(value) == 2:
        return {"kind": kind, "low": value[0], "high": value[1], **rest}
    if kind == "normal" and isinstance(value, list) and len(value) == 2:
        return {"kind": kind, "mean": value[0], "std": value[1], **rest}
    if kind == "normal" and not isinstance(value, list):
        return {"kind": kind, "std": value, **rest}
    if kind == "constant":
        return {"kind": kind, "value": value, **rest}
    raise GridError(
        f"{where}: `{kind}: {value!r}` is not an init. Write `{{uniform: [low, high]}}`, `{{normal: [mean, std]}}`, "
        f"`{{constant: value}}` or a name: {', '.join(INITS)}."
    )


def _block(block: str, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """{path: value in its type} of the keys of one block."""
    result = {}
    for key, value in values.items():
        path = f"{block}.{key}"
        # `subset: {subset_frac: …}`: the bare name is as clear as the short one.
        path = SETTINGS[key].path if key in SETTINGS and SETTINGS[key].path.startswith(block + ".") else path
        if path not in BY_PATH:
            known = [p[len(block) + 1 :] for p in BY_PATH if p.startswith(block + ".")]
            raise GridError(unknown(f"key of `{block}`", key, known, where))
        result[path] = coerce(BY_PATH[path], value, where)
    return result


def flatten(document: Mapping[str, Any], path: str, where: Callable[[str], str]) -> dict[str, Any]:
    """A block of a recipe (`training`, `source`, …) → {setting name: value}. Raises GridError."""
    result: dict[str, Any] = {}
    for key, value in document.items():
        full = f"{path}.{key}" if path else key
        if full == "training.schedule" or full in COMPOSITES.values():
            axis = next(a for a, b in COMPOSITES.items() if b == full)
            given = composite(axis, value, where(full))
            result |= given
        elif full in BY_PATH:
            result[BY_PATH[full].name] = coerce(BY_PATH[full], value, where(full))
        else:
            known = sorted({p[len(path) + 1 :].split(".")[0] for p in BY_PATH if p.startswith(path + ".")})
            raise GridError(unknown(f"key of `{path}`", key, known, where(full)))
    return result


def label(axis: str, values: Mapping[str, Any]) -> str:
    """The canonical name of a level: what the axis' column says and what ids are made of."""
    if axis == "architecture" and not isinstance(values["architecture"], str):
        return f"layers-{streams.digest(values['architecture'])[:8]}"
    if axis not in COMPOSITES:
        value = values[axis]
        return value if isinstance(value, str) else streams.canonical_json(value)
    block = COMPOSITES[axis]
    given = {
        s.path[len(block) + 1 :]: values[s.name]
        for s in _TABLE
        if s.path.startswith(block + ".") and values.get(s.name, s.default) != s.default
    }
    if axis in ("init", "schedule"):
        kind = values[f"{axis}_kind"]
        given.pop("kind", None)
        if axis == "init":
            kind = given.pop("zoo", kind)  # drawn from a distribution, or taken from a zoo
        inner = ",".join(f"{k}={_text(v)}" for k, v in given.items())
        return f"{kind}({inner})" if inner else kind
    return ",".join(f"{k}={_text(v)}" for k, v in given.items()) or ("full" if axis == "subset" else "none")


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


def reference() -> str:
    """The table above as Markdown: what the README prints, pinned to it by a test."""
    rows = ["| setting (axis, column) | path (`--set`) | default | |", "|---|---|---|---|"]
    for s in _TABLE:
        default = "" if s.default is None else f"`{_text(s.default).lower() if s.kind == 'bool' else s.default}`"
        choices = ": " + ", ".join(f"`{c}`" for c in s.choices) if s.choices else ""
        rows.append(f"| `{s.name}`{'' if s.axis else ' (no axis)'} | `{s.path}` | {default} | {s.doc}{choices} |")
    return "\n".join(rows) + "\n"
