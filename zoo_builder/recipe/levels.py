"""A level of an axis, or a block of a recipe → the settings it fixes; and their canonical label.

In:  what YAML has for one level (`0.5`, `cosine`, `{frac: 0.5}`, `{uniform: [-1, 1]}`) or one block.
Out: {setting name: value in its type}. The label is what the axis' column says and what ids are
made of: one function, from the settings alone, whatever their spelling was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo_builder.recipe.settings import BY_PATH, COMPOSITES, DEFAULTS, MEMBERS, SETTINGS, Setting
from zoo_builder.recipe.values import coerce
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.networks.initialization import INITS
from zoo_datasets.networks.layers import PRESET_BIAS


def expand(axis: str, level: Any, where: str) -> dict[str, Any]:
    """What a level of an axis sets: {setting name: value in its type}. Raises GridError."""
    if axis in COMPOSITES:
        values = composite(axis, level, where)
        for name, value in values.items():
            if value != DEFAULTS[name] and not SETTINGS[name].applies(values):
                raise GridError(f"{where}: {_unmet(SETTINGS[name], values)}")
        return values
    if axis == "source" and isinstance(level, dict):
        if "id" not in level:
            raise GridError(f"{where}: a level of `source` needs its `id`, got {level!r}.")
        return {BY_PATH[p].name: v for p, v in _block("source", level, where).items()}
    if axis == "architecture" and isinstance(level, dict):
        name = next(iter(level), "wild")
        raise GridError(
            f"{where}: a level of `architecture` is {level!r}; one that is generated is its name alone there, and its "
            f"parameters are axes of their own: `architecture: [{name}]`, and beside it an axis for each that varies."
        )
    return {axis: coerce(SETTINGS[axis], level, where)}


def _unmet(setting: Setting, values: Mapping[str, Any]) -> str:
    assert setting.needs is not None
    on, allowed = setting.needs
    if not allowed:
        return f"`{setting.name}` needs a `{on}` above 0 in the same level."
    return f"`{setting.name}` is for `{on}` {' or '.join(allowed)}; this level has {values[on]}."


def composite(axis: str, level: Any, where: str) -> dict[str, Any]:
    """A level of `subset`, `init`, `schedule` or `augmentation`, in any of its spellings."""
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
    values = {BY_PATH[p].name: v for p, v in _block(COMPOSITES[axis], level, where).items()}
    # A level says everything about its block: what it does not name is at its default.
    return {s.name: s.default for s in MEMBERS[axis]} | values


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
            keys = [p[len(block) + 1 :] for p in BY_PATH if p.startswith(block + ".")]
            raise GridError(unknown(f"key of `{block}`", key, keys, where))
        result[path] = coerce(BY_PATH[path], value, where)
    return result


def flatten(document: Mapping[str, Any], path: str, where: Callable[[str], str]) -> dict[str, Any]:
    """A block of a recipe (`training`, `source`, …) → {setting name: value}. Raises GridError."""
    result: dict[str, Any] = {}
    for key, value in document.items():
        full = f"{path}.{key}" if path else key
        if full in COMPOSITES.values():
            axis = next(a for a, b in COMPOSITES.items() if b == full)
            result |= composite(axis, value, where(full))
        elif full in BY_PATH:
            result[BY_PATH[full].name] = coerce(BY_PATH[full], value, where(full))
        else:
            keys = sorted({p[len(path) + 1 :].split(".")[0] for p in BY_PATH if p.startswith(path + ".")})
            raise GridError(unknown(f"key of `{path}`", key, keys, where(full)))
    return result


def label(axis: str, values: Mapping[str, Any]) -> str:
    """The canonical name of a level, from the settings it fixes."""
    if axis == "architecture" and not isinstance(values["architecture"], str):
        return f"layers-{streams.digest(values['architecture'])[:8]}"
    if axis not in COMPOSITES:
        return streams.level_label(values[axis])
    skipped = len(COMPOSITES[axis]) + 1
    given = {s.path[skipped:]: v for s in MEMBERS[axis] if (v := values.get(s.name, s.default)) != s.default}
    if axis in ("init", "schedule"):
        kind = values[f"{axis}_kind"]
        given.pop("kind", None)
        if axis == "init":
            kind = given.pop("zoo", kind)  # drawn from a distribution, or taken from a zoo
        return f"{kind}({_inner(given)})" if given else kind
    return _inner(given) or ("full" if axis == "subset" else "none")


def _inner(given: Mapping[str, Any]) -> str:
    return ",".join(f"{k}={_shown(v)}" for k, v in given.items())


def _shown(value: Any) -> str:
    if isinstance(value, tuple):  # names may hold any sign, so JSON alone tells where one ends
        return streams.level_label(value) if any(isinstance(v, str) for v in value) else "+".join(map(str, value))
    return str(value)


def labels(values: Mapping[str, Any], axes: Iterable[str]) -> dict[str, str]:
    """The labels of a run's levels, from its normalized settings, where null is what means nothing."""
    in_blocks = {k: DEFAULTS[k] if v is None else v for k, v in values.items()}
    if values["init_bias"] == bias_of(values["architecture"]):
        in_blocks["init_bias"] = None  # the preset's own bias is no deviation
    plain = DEFAULTS | dict(values)  # an axis may be a setting that is at its default here
    return {axis: label(axis, in_blocks if axis in COMPOSITES else plain) for axis in axes}


def bias_of(architecture: Any) -> float:
    """What every bias is at the start where the recipe does not say: the preset's, else 0."""
    return PRESET_BIAS.get(architecture, 0.0) if isinstance(architecture, str) else 0.0
