"""Fixed settings and axes → nothing, or the GridError of what contradicts.

In:  a `Document`, and what was read of it: every setting that is fixed, the factors varied.
Out: nothing. Each value was checked where it was read; here they meet: two axes that set the
same thing, two budgets, a start that is drawn and taken, a setting that nothing would use.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo_builder.recipe import settings
from zoo_builder.recipe.axes import Axis, Draw, extremes, place_of, touched
from zoo_builder.recipe.document import Document
from zoo_builder.recipe.generated import takes
from zoo_datasets.errors import GridError, unknown

Axes = Sequence[Axis | Draw]
BUDGETS = settings.feeding(settings.Feeds.BUDGET)
LINEAGE_SETTINGS = settings.feeding(settings.Feeds.LINEAGE)
INIT_SETTINGS = settings.feeding(settings.Feeds.INIT)
AUGMENTATION = settings.feeding(settings.Feeds.AUGMENTATION)
ARCHITECTURE = set(settings.feeding(settings.Feeds.ARCHITECTURE))


def check(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """Raises GridError where settings and axes do not go together."""
    _overlaps(document, axes)
    _budget(document, fixed, axes)
    _lineage(document, fixed, axes)
    _inits(document, fixed, axes)
    _parameterization(document, fixed, axes)
    _without_effect(document, fixed, axes)


def _overlaps(document: Document, axes: Axes) -> None:
    """Raises GridError where two axes set the same thing: `subset` with `subset_frac`."""
    for a, b in itertools.combinations(axes, 2):
        if touched(a) & touched(b):
            raise GridError(f"{place_of(document, b)}: axes `{a.name}` and `{b.name}` set the same thing.")


def _budget(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """Training takes one budget at most."""
    varied = [a.name for a in axes if a.name in BUDGETS]
    given = [n for n in BUDGETS if fixed[n] is not None or n in varied]
    if len(given) > 1:
        raise GridError(
            f"{document.where('training')}: the budget is given in {' and '.join(given)}; give one of them."
        )
    for axis in axes:
        if axis.name in BUDGETS and any(level.values[axis.name] is None for level in axis.levels):
            raise GridError(f"{place_of(document, axis)}: a level of `{axis.name}` is null; a budget is needed.")


def _lineage(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """A grid that starts from a zoo's snapshots: what it needs, and what it cannot have."""
    place, given = document.where("init"), {n for n in LINEAGE_SETTINGS if fixed[n] is not None}
    for axis in axes:
        given |= _varied_lineage(document, axis)
    if fixed["init_zoo"] is None:
        if given:
            raise GridError(f"{place}: `{min(given)}` is given, but no `zoo` to start from: `init: {{zoo: …}}`.")
        return
    if len(given & {"init_epoch", "init_step", "init_snapshot"}) != 1:
        raise GridError(
            f"{place}: a start from a zoo needs one of `epoch`, `step` and `snapshot`: `init: {{zoo: …, epoch: 5}}`."
        )
    _kept_or_given(document, fixed, axes)
    _nothing_drawn(document, fixed, axes)
    _nothing_assigned(document)


def _varied_lineage(document: Document, axis: Axis | Draw) -> set[str]:
    """The settings of a start that an axis varies. Raises GridError where its levels name zoos."""
    if all(level.values.get(name) is None for name in LINEAGE_SETTINGS for level in axis.levels):
        return set()
    if axis.name == "init":
        raise GridError(
            f"{place_of(document, axis)}: a level of `init` cannot name a zoo; write `init: {{zoo: …}}` for the whole "
            "recipe, and vary `init_epoch`, `init_step`, `init_snapshot` or `init_optimizer`."
        )
    return touched(axis) & set(LINEAGE_SETTINGS)


def _kept_or_given(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """What networks keep of their parents the recipe does not say too."""
    place, given = document.where("init", "keep"), _given(document)
    for name in fixed["init_keep"] or ():
        if name not in settings.KEPT:
            whole = next((w for w, kept in settings.KEPT.items() if name in kept), None)
            if whole is not None:
                raise GridError(f"{place}: `{name}` goes with `{whole}`; keep that.")
            raise GridError(unknown("setting to keep", name, settings.KEPT, place))
        kept = settings.KEPT[name]
        here = [(document.where(*given[k]), k) for k in kept if k in given]
        here += [(place_of(document, a), k) for a in axes for k in kept if k in touched(a)]
        block = settings.COMPOSITES.get(name, "source" if name == "source" else None)
        # One word for all of it, or a block with nothing in it.
        if block is not None and document.get(*block.split(".")) is not None:
            here.append((document.where(*block.split(".")), name))
        if here:
            raise GridError(
                f"{here[0][0]}: `{here[0][1]}` is given here, and `init: {{keep: …}}` takes `{name}` from the parents. Leave one out."
            )


def _nothing_drawn(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """Weights that are taken are not drawn."""
    varied = set().union(*(touched(a) for a in axes))
    for name in sorted(INIT_SETTINGS):
        if fixed[name] != settings.DEFAULTS[name] or name in varied:
            raise GridError(
                f"{document.where('init')}: `{name}` is of weights that are drawn; these are taken from "
                f"{fixed['init_zoo']}. Keep one."
            )


def _nothing_assigned(document: Document) -> None:
    """Splits and the number of initializations are the parents'."""
    if "splits" in document.values:
        raise GridError(
            f"{document.where('splits')}: models keep the split of the model they start from; leave it out."
        )
    repeated = document.values.get("replicates", 1)
    if repeated != 1 and (not isinstance(repeated, dict) or "init" in repeated):
        raise GridError(
            f"{document.where('replicates')}: there are as many starts as models in the parent zoo (`init: {{models: N}}` "
            "takes the first N); only `order` and `subset` can be repeated, like {order: 2}."
        )


def _inits(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """Every combination of levels of an init must be one that can be drawn."""
    varied = [a for a in axes if touched(a) & set(INIT_SETTINGS)]
    place = place_of(document, varied[0]) if varied else document.where("init")
    for kind, value in _combinations(fixed, varied, ("init_kind", "init_value")):
        if kind == "constant" and value is None:
            raise GridError(f"{place}: init `constant` needs its value: `{{constant: 0.1}}`.")
    for part in ("init", "init_first", "init_last"):
        for kind, low, high in _combinations(fixed, varied, (f"{part}_kind", f"{part}_low", f"{part}_high")):
            if kind == "uniform" and (low is None) != (high is None):
                raise GridError(f"{place}: init `uniform` has one of `low` and `high`; give both or neither.")
            if kind == "uniform" and low is not None and not low < high:
                raise GridError(f"{place}: init `uniform: [{low}, {high}]` needs low < high.")


def _parameterization(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """µP is relative to a base, and scales draws about 0."""
    varied = [a for a in axes if "parameterization" in touched(a)]
    if not varied and fixed["parameterization"] == "standard":
        return
    place = place_of(document, varied[0]) if varied else document.where("parameterization")
    for kind, base in _combinations(fixed, axes, ("parameterization", "mup_base")):
        if kind == "mup" and base is None:
            raise GridError(f"{place}: `mup` needs the width of its base, units of the first layer: `mup_base: 16`.")
    for part in ("init", "init_first", "init_last"):
        names = ("parameterization", *(f"{part}_{n}" for n in ("kind", "low", "high")), "init_mean")
        for parameterization, kind, low, high, mean in _combinations(fixed, axes, names):
            about_zero = {
                "constant": False,
                "uniform": low is None or high is None or low == -high,
                "normal": part != "init" or not mean,
            }
            if parameterization == "mup" and not about_zero.get(kind, True):
                raise GridError(
                    f"{place}: `mup` scales weights that are drawn about 0, and those of init `{kind}` are not; take an init "
                    "that is, or `parameterization: standard`."
                )


def _combinations(fixed: Mapping[str, Any], axes: Axes, names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """The values that these settings take together; of the numbers of an axis its ends, which decide for those between."""
    parts = []
    for axis in axes:
        values = [{n: level[n] for n in names if n in level} for level in extremes(axis)]
        if axis.name in names:
            numbers = [v[axis.name] for v in values if isinstance(v[axis.name], float)]
            ends = {min(numbers), max(numbers)} if numbers else set()
            values = [v for v in values if not isinstance(v[axis.name], float) or v[axis.name] in ends]
        if values[0]:
            parts.append(values)
    for levels in itertools.product(*parts):
        together = {n: fixed[n] for n in names}
        for level in levels:
            together |= level
        yield tuple(together.values())


def _without_effect(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """Raises GridError where a fixed setting would be ignored: an axis varies it, or nothing uses it."""
    given = {n: p for n, p in _given(document).items() if fixed[n] != settings.DEFAULTS[n] or "training" in p}
    for axis in axes:
        both = sorted(touched(axis) & set(given))
        if both:
            place = document.where(*given[both[0]])
            raise GridError(f"{place}: `{both[0]}` is fixed here and varied by axis `{axis.name}`; keep one of them.")
    for name, path in given.items():
        unmet = _unmet(settings.SETTINGS[name], fixed, axes)
        if unmet:
            raise GridError(f"{document.where(*path)}: `{name}` is given, but {unmet}")
    if "min_epochs" in given:
        _rule(document.where(*given["min_epochs"]), fixed, axes)
    _unused_layers(document, fixed, axes, given)


def check_use(document: Document, fixed: Mapping[str, Any], axes: Axes) -> None:
    """Raises GridError where something asked for would make no difference. It is asked of recipes that are to be built, and not of
    those that zoos were sealed with, some of them before it was."""
    given = _given(document)
    for axis in axes:
        # Of a block (`subset`) each level sets several, of which some may mean nothing.
        unmet = _unmet(settings.SETTINGS[axis.name], fixed, axes) if axis.name in settings.SETTINGS else None
        if unmet:
            raise GridError(f"{place_of(document, axis)}: axis `{axis.name}` makes no difference: {unmet}")
        if axis.name == "min_epochs":
            _rule(place_of(document, axis), fixed, axes)
    if fixed["target_loss"] is not None and fixed["target_loss"] < 0:
        raise GridError(
            f"{document.where(*given['target_loss'])}: `target_loss` is {fixed['target_loss']:g}, and no loss is below 0."
        )
    for name, unused in (("evaluate_batch_statistics", _no_norm), ("evaluate_augmented", _no_augmentation)):
        varied = next((a for a in axes if name in touched(a)), None)
        if (varied is not None or (name in given and fixed[name])) and (why := unused(fixed, axes)):
            place = place_of(document, varied) if varied is not None else document.where(*given[name])
            raise GridError(f"{place}: `{name}` is given, but no {why}.")


def _rule(place: str, fixed: Mapping[str, Any], axes: Axes) -> None:
    """Raises GridError where nothing could stop before the budget, so that `min_epochs` says nothing."""
    names = {a.name for a in axes} | set(fixed["init_keep"] or ())
    rules = [n for n in settings.feeding(settings.Feeds.STOP) if n != "min_epochs"]
    if not any(fixed[n] is not None or n in names for n in rules):
        raise GridError(f"{place}: `min_epochs` needs one of {', '.join(f'`{n}`' for n in rules)}.")


def _no_norm(fixed: Mapping[str, Any], axes: Axes) -> str:
    kept = "architecture" in (fixed["init_keep"] or ())
    return "" if kept or _any_takes("batch_norm", fixed, axes) else "architecture of this recipe has a batch norm"


def _no_augmentation(fixed: Mapping[str, Any], axes: Axes) -> str:
    levels = [fixed, *itertools.chain(*map(extremes, axes))]
    some = any(v.get(n, settings.DEFAULTS[n]) != settings.DEFAULTS[n] for v in levels for n in AUGMENTATION)
    kept = {"augmentation", *AUGMENTATION} & set(fixed["init_keep"] or ())
    return "" if some or kept else "network of this recipe is trained on augmented inputs"


def _unmet(setting: settings.Setting, fixed: Mapping[str, Any], axes: Axes) -> str | None:
    """Why no run of the recipe would use a setting; None where one does."""
    if setting.needs is None:
        return None
    on, allowed = setting.needs
    values = [v[on] for a in axes for v in extremes(a) if on in v] or [fixed[on]]
    if any(map(setting.needs.met_by, values)):
        return None
    if not allowed:
        return f"no `{on}` above 0."
    return f"nothing in this recipe uses it: it is for `{on}` {' or '.join(allowed)}."


def _unused_layers(
    document: Document, fixed: Mapping[str, Any], axes: Axes, given: Mapping[str, tuple[str, ...]]
) -> None:
    """Raises GridError for a dropout rate or an activation that no architecture has a layer for."""
    if "architecture" in (fixed["init_keep"] or ()):
        return  # it is each parent's: `runs.of` says it when it has them
    for name in TAKEN_BY_LAYERS:
        axis = next((a for a in axes if name in touched(a)), None)
        if (axis is not None or name in given) and not _any_takes(name, fixed, axes):
            place = place_of(document, axis) if axis is not None else document.where(*given[name])
            raise GridError(
                f"{place}: `{name}` is given, but no architecture of this recipe has a layer `{name}` that takes it."
            )
    axis = next(
        (a for a in axes if any(x.values.get("norm_scale_std") for x in a.levels) or a.name == "norm_scale_std"), None
    )
    drawn = axis is not None or fixed["norm_scale_std"]
    if drawn and not _any_takes("batch_norm", fixed, axes):
        place = place_of(document, axis) if axis is not None else document.where(*given["norm_scale_std"])
        raise GridError(f"{place}: `norm_scale_std` is given, but no architecture of this recipe has a batch norm.")


def _any_takes(layer: str, fixed: Mapping[str, Any], axes: Axes) -> bool:
    """Whether an architecture of the recipe has a layer of that name without a value of its own."""
    named = [level.values for axis in axes for level in axis.levels if "architecture" in level.values] or [{}]
    # A layer that a parameter brings, as `wild_norm`, needs one switch beside the architecture's name.
    switches = [v for a in axes if touched(a) & ARCHITECTURE for v in extremes(a) if "architecture" not in v]
    return any(takes({**fixed, **a, **v}, layer) for a in named for v in ({}, *switches))


TAKEN_BY_LAYERS = ("dropout", "activation")


def _given(document: Document) -> dict[str, tuple[str, ...]]:
    """Settings that the recipe fixes by name → their path in the document."""
    paths = {}
    for s in settings.SETTINGS.values():
        *path, key = keys = tuple(s.path.split("."))
        block = document.get(*path)
        # A level that is one word is its kind: `init: he_normal`.
        if (isinstance(block, dict) and key in block) or (key == "kind" and block is not None):
            paths[s.name] = keys
    return paths
