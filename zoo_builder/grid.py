"""YAML → `Grid`: the recipe, checked. Every mistake of a user is caught here.

In:  a YAML file, `--set path=value` changes and a `--limit`.
Out: a `Grid`: fixed settings, axes with their levels (or a random sample), replicates,
pairing, snapshot schedule and splits, all in their own types. The changes and the limit are
part of it: `document` is the recipe as it is run, and loading it gives the same grid.

Nothing here reads data: whether a class exists or shapes fit is known when the source is.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_builder import recipe_yaml, settings
from zoo_datasets import models, streams
from zoo_datasets.errors import GridError, unknown

# Bumped when the same recipe would give other networks: it enters every cohort's id.
RECIPE_VERSION = 1
# Torch's engines are fastest around 16 models on a CPU; the native one is flat in it.
COHORT_SIZE = 16
DEFAULT_EPOCHS = 5
DEFAULT_SPLITS = {"train": 0.7, "validation": 0.15, "test": 0.15}

TOP_LEVEL = (
    "zoo", "source", "architecture", "activation", "dropout", "init", "axes", "sample", "replicates", "paired",
    "training", "augmentation", "subset", "snapshots", "splits", "seed", "cohort_size", "limit", "description", "license",
)  # fmt: skip
MOST_SHOWN = 100  # characters of a value in a message
REPLICATES = ("init", "order", "subset")
DISTRIBUTIONS = ("choice", "uniform", "log_uniform", "integer")
SCHEDULES = ("epochs", "steps", "log_steps", "evenly", "every_epoch")
_LICENSE = re.compile(r"[A-Za-z][\w.+-]*\Z", re.ASCII)
_ZOO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")


@dataclasses.dataclass(frozen=True)
class Level:
    """One value of an axis: its canonical label, and the settings it fixes."""

    label: str
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Axis:
    """A varied factor and its levels, in the order given."""

    name: str
    levels: tuple[Level, ...]


@dataclasses.dataclass(frozen=True)
class Draw:
    """An axis of a random sample: a distribution with its numbers, or levels to choose from."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    levels: tuple[Level, ...] = ()


@dataclasses.dataclass(frozen=True)
class Grid:
    """A recipe. `fixed` has every setting; axes and draws override it point by point."""

    zoo: str
    fixed: Mapping[str, Any]
    axes: tuple[Axis, ...]
    draws: tuple[Draw, ...]
    sample_models: int  # 0 where axes are crossed
    replicates: Mapping[str, int]  # of init, order, subset
    tied: bool  # one replicate number for all three
    paired: tuple[str, ...]
    snapshots: Mapping[str, Any]
    splits: Mapping[str, float]
    seed: int
    cohort_size: int
    limit: int | None
    document: Mapping[str, Any]  # plain YAML values; equal documents are equal recipes

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The varied factors, in the order of the recipe."""
        return tuple(a.name for a in self.axes) + tuple(d.name for d in self.draws)

    @property
    def parent_zoo(self) -> str | None:
        """The zoo whose snapshots the runs start from, as the recipe names it."""
        return self.fixed["init_zoo"]

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe as it is run."""
        return streams.digest([RECIPE_VERSION, self.document])


def load(path: Path | str, changes: Sequence[str] = (), limit: int | None = None) -> Grid:
    """The grid of a YAML file with `path=value` changes applied. Raises GridError."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise GridError(f"Cannot read the grid {path}: {error.strerror}. Name a YAML file with --grid.") from None
    document, lines = recipe_yaml.load(text, path.name)
    if not isinstance(document, dict):
        raise GridError(f"{path.name} holds a {type(document).__name__}; a recipe is a mapping: `zoo: owner/name`, …")
    changed = [_apply(document, change) for change in changes]
    if limit is not None:
        if limit < 1:
            raise GridError(f"--limit {limit}: at least 1 model is needed.")
        document["limit"] = limit
    return _Reader(document, lines, path.name, changed).grid()


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What two recipes disagree about, for the message that refuses to mix them."""
    a, b = _flat(ours), _flat(theirs)

    def shown(values: dict[str, Any], key: str) -> str:
        if key not in values:
            return "absent"
        value = values[key]  # as JSON: 1 and 1.0 are other recipes, another order of keys is not
        text = streams.canonical_json(value) if value is not None else "none"
        return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "…"

    changed = [k for k in dict.fromkeys([*a, *b]) if k not in a or k not in b or _text(a[k]) != _text(b[k])]
    rows = [f"`{k.removeprefix('document.')}` is {shown(b, k)} there, {shown(a, k)} here" for k in changed[:5]]
    return "; ".join(rows) + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")


def _text(value: Any) -> str:
    return streams.canonical_json(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
    return {path: value}


def _apply(document: dict[str, Any], change: str) -> tuple[str, ...]:
    """Makes one `--set` change in the document; the path that it changed."""
    path, sign, text = change.partition("=")
    if not sign or not path:
        raise GridError(f"--set {change!r}: write it as path=value, for example --set training.epochs=2.")
    keys = path.split(".")
    if len(keys) == 1 and path not in TOP_LEVEL:
        # A bare name is as good as its path: --set lr=0.01.
        if path not in settings.SETTINGS:
            raise GridError(unknown("setting", path, [*TOP_LEVEL, *settings.SETTINGS], "--set"))
        keys = settings.SETTINGS[path].path.split(".")
    value, _ = recipe_yaml.load(text.encode(), f"--set {path}") if text.strip() else (None, None)
    block: Any = document
    for key in keys[:-1]:
        block = block.setdefault(key, {})
        if not isinstance(block, dict):
            raise GridError(f"--set {change!r}: `{key}` is {block!r} in the recipe, so nothing can be set inside it.")
    block[keys[-1]] = value
    return tuple(keys)


class _Reader:
    """One document; its methods read one block each and name the line of what is wrong."""

    def __init__(
        self, document: dict[str, Any], lines: recipe_yaml.Lines, name: str, changed: Sequence[tuple[str, ...]]
    ) -> None:
        self.document, self.lines, self.name, self.changed = document, lines, name, changed

    def where(self, *path: Any) -> str:
        for keys in self.changed:
            if path[: len(keys)] == keys or (path not in self.lines and keys[: len(path)] == path):
                return f"--set {'.'.join(keys)}"
        line = self.lines.get(path)
        return f"{self.name}, line {line}" if line else self.name

    def grid(self) -> Grid:
        d = self.document
        for key in d:
            if key not in TOP_LEVEL:
                raise GridError(unknown("key", key, TOP_LEVEL, self.where(key)))
        zoo = d.get("zoo")
        if not isinstance(zoo, str) or not _ZOO.match(zoo):
            raise GridError(f"{self.where('zoo')}: `zoo` is {zoo!r}; it must be owner/name, like weightzoo/mnist-cnn.")
        self._texts()
        if "axes" in d and "sample" in d:
            raise GridError(
                f"{self.where('sample')}: a recipe has `axes` (crossed) or `sample` (random points), not both."
            )
        fixed = self._fixed()
        axes = tuple(self._axis(name, levels, ("axes", name)) for name, levels in self._mapping("axes").items())
        models, draws = self._sample()
        self._conflicts((*axes, *draws))
        replicates, tied = self._replicates()
        grid = Grid(
            zoo, fixed, axes, draws, models, replicates, tied, self._paired([a.name for a in (*axes, *draws)]),
            self._snapshots(), self._splits(), self._whole("seed", 0, 0), self._whole("cohort_size", COHORT_SIZE, 1),
            None if d.get("limit") is None else self._whole("limit", 0, 1), d,
        )  # fmt: skip
        self._budget(grid)
        self._lineage(grid)
        self._inits(grid)
        self._without_effect(grid)
        return grid

    def _texts(self) -> None:
        description, license = self.document.get("description"), self.document.get("license")
        if not isinstance(description, str | None):
            raise GridError(f"{self.where('description')}: `description` is {description!r}; text is needed.")
        # It stands on a line of the card's YAML head.
        if license is not None and not (isinstance(license, str) and _LICENSE.match(license)):
            raise GridError(f"{self.where('license')}: `license` is {license!r}; a name like cc-by-4.0 is needed.")

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.document.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise GridError(f"{self.where(key)}: `{key}` is {value!r}; a mapping is needed.")
        return value

    def _whole(self, key: str, default: int, least: int) -> int:
        value = self.document.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise GridError(f"{self.where(key)}: `{key}` is {value!r}; a whole number ≥ {least} is needed.")
        return value

    def _fixed(self) -> dict[str, Any]:
        fixed = {s.name: s.default for s in settings.SETTINGS.values()}

        def where(path: str) -> str:
            return self.where(*path.split("."))

        source = self.document.get("source")
        if isinstance(source, str):
            source = {"id": source}
        blocks = {"source": source, "training": self._mapping("training")}
        for name, block in blocks.items():
            if block is not None:
                if not isinstance(block, dict):
                    raise GridError(f"{self.where(name)}: `{name}` is {block!r}; a mapping is needed.")
                fixed |= settings.flatten(block, name, where)
        for axis in ("init", "augmentation", "subset"):
            if self.document.get(axis) is not None:
                fixed |= settings.composite(axis, self.document[axis], self.where(axis))
        for name in ("architecture", "activation", "dropout"):
            if self.document.get(name) is not None:
                fixed[name] = settings.coerce(settings.SETTINGS[name], self.document[name], self.where(name))
        return fixed

    def _without_effect(self, grid: Grid) -> None:
        """Raises GridError where a fixed setting would be ignored: an axis varies it, or nothing uses it."""
        given = {
            n: p for n, p in self._given().items() if grid.fixed[n] != settings.SETTINGS[n].default or "training" in p
        }
        for axis in (*grid.axes, *grid.draws):
            both = sorted(_touched(axis) & set(given))
            if both:
                place = self.where(*given[both[0]])
                raise GridError(
                    f"{place}: `{both[0]}` is fixed here and varied by axis `{axis.name}`; keep one of them."
                )
        for name, path in given.items():
            on, allowed = settings.APPLIES.get(name, ("", ()))
            varied = [lv.values[on] for a in (*grid.axes, *grid.draws) for lv in a.levels if on in lv.values]
            values = varied or [grid.fixed.get(on)]
            if on and not set(values) & set(allowed):
                raise GridError(
                    f"{self.where(*path)}: `{name}` is given, but nothing in this recipe uses it: it is for "
                    f"`{on}` {' or '.join(allowed)}."
                )

        fraction = [lv.values.get("trigger_frac") for a in (*grid.axes, *grid.draws) for lv in a.levels]
        drawn = any(d.name == "trigger_frac" for d in grid.draws)
        for name in set(given) & set(settings.TRIGGER):
            if not (grid.fixed["trigger_frac"] or any(fraction) or drawn):
                raise GridError(f"{self.where(*given[name])}: `{name}` is given, but no `trigger_frac` above 0.")
        if "min_epochs" in given and not any(
            grid.fixed[n] is not None or n in grid.axis_names for n in ("patience", "target_loss")
        ):
            raise GridError(f"{self.where(*given['min_epochs'])}: `min_epochs` needs `patience` or `target_loss`.")
        self._unused_layers(grid, given)

    def _unused_layers(self, grid: Grid, given: Mapping[str, tuple[str, ...]]) -> None:
        """Raises GridError for a dropout rate or an activation that no architecture has a layer for."""
        varied = [lv.values for a in (*grid.axes, *grid.draws) for lv in a.levels if "architecture" in lv.values]
        lists = [v["architecture"] for v in varied or [grid.fixed]]
        layers = [x for y in lists for x in (models.PRESETS[y] if isinstance(y, str) else y)]
        for name in ("dropout", "activation"):
            bare = any(x == name or (isinstance(x, Mapping) and x.get(name, 0) is None) for x in layers)
            axis = next((a for a in (*grid.axes, *grid.draws) if name in _touched(a)), None)
            if not bare and (axis is not None or name in given):
                place = self._at(axis) if axis is not None else self.where(*given[name])
                raise GridError(
                    f"{place}: `{name}` is given, but no architecture of this recipe has a layer `{name}` that takes it."
                )

    def _given(self) -> dict[str, tuple[str, ...]]:
        """Settings that the recipe fixes by name → their path in the document."""
        found = {}
        for s in settings.SETTINGS.values():
            keys, block = tuple(s.path.split(".")), self.document
            for key in keys[:-1]:
                inner = block.get(key) if isinstance(block, dict) else None
                block = inner if isinstance(inner, dict) else {}
            if keys[-1] in block or (keys[-1] == "kind" and keys[:-1] and self._at_path(keys[:-1]) is not None):
                found[s.name] = keys
        return found

    def _at_path(self, keys: tuple[str, ...]) -> Any:
        block: Any = self.document
        for key in keys:
            block = block.get(key) if isinstance(block, dict) else None
        return block

    def _axis(self, name: str, levels: Any, path: tuple[str, ...]) -> Axis:
        where = self.where(*path)
        if name not in settings.AXES:
            raise GridError(unknown("axis", name, settings.AXES, where))
        if not isinstance(levels, list) or not levels:
            raise GridError(f"{where}: axis `{name}` is {levels!r}; a list of levels is needed, like [1e-3, 1e-4].")
        result: dict[str, Level] = {}
        for i, value in enumerate(levels):
            at = self.where(*path, i)
            values = settings.expand(name, value, at)
            label = settings.label(name, {s.name: s.default for s in settings.SETTINGS.values()} | values)
            if label in result:
                raise GridError(f"{at}: level {value!r} of `{name}` is there already (both are {label}).")
            result[label] = Level(label, values)
        return Axis(name, tuple(result.values()))

    def _sample(self) -> tuple[int, tuple[Draw, ...]]:
        block = self._mapping("sample")
        if not block:
            return 0, ()
        for key in block:
            if key not in ("models", "axes"):
                raise GridError(unknown("key of `sample`", key, ("models", "axes"), self.where("sample", key)))
        models = block.get("models")
        if isinstance(models, bool) or not isinstance(models, int) or models < 1:
            raise GridError(f"{self.where('sample')}: `sample` needs `models`, a whole number ≥ 1; got {models!r}.")
        axes = block.get("axes")
        if not isinstance(axes, dict) or not axes:
            raise GridError(
                f"{self.where('sample')}: `sample` needs `axes`, like {{lr: {{log_uniform: [1e-4, 1e-2]}}}}."
            )
        return models, tuple(self._draw(name, spec) for name, spec in axes.items())

    def _draw(self, name: str, spec: Any) -> Draw:
        where = self.where("sample", "axes", name)
        if name not in settings.AXES:
            raise GridError(unknown("axis", name, settings.AXES, where))
        if isinstance(spec, list):
            return Draw(name, "choice", levels=self._axis(name, spec, ("sample", "axes", name)).levels)
        if not isinstance(spec, dict) or len(spec) != 1:
            raise GridError(f"{where}: `{name}` is {spec!r}; one of {', '.join(DISTRIBUTIONS)} is needed.")
        kind, value = next(iter(spec.items()))
        if kind not in DISTRIBUTIONS:
            raise GridError(unknown("distribution", kind, DISTRIBUTIONS, where))
        if kind == "choice":
            return Draw(name, kind, levels=self._axis(name, value, ("sample", "axes", name, kind)).levels)
        setting = settings.SETTINGS.get(name)
        wanted = ("int",) if kind == "integer" else ("float",)
        if setting is None or setting.kind not in wanted:
            raise GridError(f"{where}: `{name}` cannot be drawn {kind}; use `choice` with a list of levels.")
        if not isinstance(value, list) or len(value) != 2 or None in value:
            raise GridError(f"{where}: `{kind}` needs [low, high], got {value!r}.")
        low, high = (settings.coerce(setting, v, where) for v in value)
        if not low < high or (kind == "log_uniform" and low <= 0):
            raise GridError(
                f"{where}: `{kind}: [{low}, {high}]` needs low < high" + (", both above 0." if low <= 0 else ".")
            )
        return Draw(name, kind, low, high)

    def _conflicts(self, axes: Sequence[Axis | Draw]) -> None:
        """Two axes must not set the same thing: `subset` with `subset_frac`."""
        for a, b in itertools.combinations(axes, 2):
            if _touched(a) & _touched(b):
                raise GridError(f"{self._at(b)}: axes `{a.name}` and `{b.name}` set the same thing.")

    def _at(self, axis: Axis | Draw) -> str:
        return self.where(*(("axes",) if isinstance(axis, Axis) else ("sample", "axes")), axis.name)

    def _replicates(self) -> tuple[dict[str, int], bool]:
        value = self.document.get("replicates", 1)
        if isinstance(value, dict):
            for key in value:
                if key not in REPLICATES:
                    raise GridError(unknown("stream of `replicates`", key, REPLICATES, self.where("replicates", key)))
            counts, tied = {name: value.get(name, 1) for name in REPLICATES}, False
        else:
            counts, tied = dict.fromkeys(REPLICATES, value), True
        for number in counts.values():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise GridError(
                    f"{self.where('replicates')}: `replicates` is {number!r}, which gives zero models; "
                    "a whole number ≥ 1 is needed, or {init: 10, order: 2, subset: 3}."
                )
        return counts, tied

    def _paired(self, axes: list[str]) -> tuple[str, ...]:
        value = self.document.get("paired") or []
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list):
            raise GridError(f"{self.where('paired')}: `paired` is {value!r}; a list of axes is needed, like [subset].")
        for name in names:
            if name not in axes:
                raise GridError(unknown("axis", name, axes, self.where("paired")))
        return tuple(names)

    def _snapshots(self) -> dict[str, Any]:
        value = self.document.get("snapshots", {"epochs": [0]})
        where = self.where("snapshots")
        if isinstance(value, str):
            value = {value: True}
        if isinstance(value, dict) and "optimizer" in value:
            kept = value["optimizer"]
            if not isinstance(kept, bool):
                raise GridError(
                    f"{where}: `optimizer` is {kept!r}; `true` keeps the optimizer's state at each snapshot."
                )
            schedule = self._schedule({k: v for k, v in value.items() if k != "optimizer"}, where)
            return {**schedule, "optimizer": True} if kept else schedule
        return self._schedule(value, where)

    def _schedule(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) != 1:
            raise GridError(f"{where}: `snapshots` is {value!r}; one of {', '.join(SCHEDULES)} is needed.")
        kind, numbers = next(iter(value.items()))
        if kind not in SCHEDULES:
            raise GridError(unknown("snapshot schedule", kind, SCHEDULES, where))
        if kind == "every_epoch":
            if numbers is not True:
                raise GridError(
                    f"{where}: `every_epoch` is {numbers!r}; write `snapshots: every_epoch`, or list `epochs`."
                )
            return {kind: True}
        if kind in ("evenly", "log_steps"):
            if isinstance(numbers, bool) or not isinstance(numbers, int) or numbers < 2:
                raise GridError(f"{where}: `{kind}` is {numbers!r}; a number of snapshots ≥ 2 is needed.")
            return {kind: numbers}
        ok = isinstance(numbers, list) and numbers
        for n in numbers if ok else ():
            ok = ok and isinstance(n, (int, float)) and not isinstance(n, bool) and n >= 0
            ok = ok and (kind == "epochs" or n == int(n))
        if not ok:
            raise GridError(f"{where}: `{kind}` is {numbers!r}; a list of numbers ≥ 0 is needed, like [0, 1, 2, 5].")
        return {kind: sorted({float(n) if kind == "epochs" else int(n) for n in numbers})}

    def _splits(self) -> dict[str, float]:
        value = self.document.get("splits", DEFAULT_SPLITS)
        where = self.where("splits")
        if not isinstance(value, dict) or not value:
            raise GridError(f"{where}: `splits` is {value!r}; shares are needed, like {{train: 0.7, test: 0.3}}.")
        for name, share in value.items():
            if name not in DEFAULT_SPLITS:
                raise GridError(unknown("split", name, DEFAULT_SPLITS, where))
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
                raise GridError(f"{where}: split `{name}` is {share!r}; a share in (0, 1] is needed.")
        total = sum(value.values())
        if abs(total - 1) > 1e-9:
            raise GridError(f"{where}: the splits add up to {total:g}; they must add up to 1.")
        return {name: float(value[name]) for name in DEFAULT_SPLITS if name in value}

    def _budget(self, grid: Grid) -> None:
        names = ("epochs", "steps", "examples")
        varied = [n for n in names if n in grid.axis_names]
        given = [n for n in names if grid.fixed[n] is not None or n in varied]
        if len(given) > 1:
            raise GridError(
                f"{self.where('training')}: the budget is given in {' and '.join(given)}; give one of them."
            )
        for axis in (*grid.axes, *grid.draws):
            if axis.name in names and any(level.values[axis.name] is None for level in axis.levels):
                raise GridError(f"{self._at(axis)}: a level of `{axis.name}` is null; a budget is needed.")
        if not given:
            grid.fixed["epochs"] = DEFAULT_EPOCHS  # type: ignore[index]  # our own dict, not yet shared

    def _lineage(self, grid: Grid) -> None:
        """A grid that starts from a zoo's snapshots: what it needs, and what it cannot have."""
        where, names = self.where("init"), set(grid.axis_names)
        fixed = {n for n in settings.LINEAGE if grid.fixed[n] is not None}
        for axis in (*grid.axes, *grid.draws):
            if any(
                n in level.values and level.values[n] is not None for n in settings.LINEAGE for level in axis.levels
            ):
                if axis.name == "init":
                    raise GridError(
                        f"{self._at(axis)}: a level of `init` cannot name a zoo; write `init: {{zoo: …}}` for the whole "
                        "recipe, and vary `init_epoch`, `init_step` or `init_optimizer`."
                    )
                fixed |= _touched(axis) & set(settings.LINEAGE)
        if grid.parent_zoo is None:
            if fixed:
                raise GridError(f"{where}: `{min(fixed)}` is given, but no `zoo` to start from: `init: {{zoo: …}}`.")
            return
        if len(fixed & {"init_epoch", "init_step"}) != 1:
            raise GridError(
                f"{where}: a start from a zoo needs one of `epoch` and `step`: `init: {{zoo: …, epoch: 5}}`."
            )
        drawn = {n for n in settings.SETTINGS if n.startswith("init_")} - set(settings.LINEAGE)
        for name in sorted(drawn):
            if grid.fixed[name] != settings.SETTINGS[name].default or names & {name, "init"}:
                raise GridError(
                    f"{where}: `{name}` is of weights that are drawn; these are taken from {grid.parent_zoo}. Keep one."
                )
        if "splits" in self.document:
            raise GridError(
                f"{self.where('splits')}: models keep the split of the model they start from; leave it out."
            )
        given = self.document.get("replicates", 1)
        if given != 1 and (not isinstance(given, dict) or "init" in given):
            raise GridError(
                f"{self.where('replicates')}: there are as many starts as models in the parent zoo (`init: {{models: N}}` "
                "takes the first N); only `order` and `subset` can be repeated, like {order: 2}."
            )

    def _inits(self, grid: Grid) -> None:
        """Every combination of levels of an init must be one that can be drawn."""
        varied = [a for a in (*grid.axes, *grid.draws) if any(name.startswith("init_") for name in _touched(a))]
        for levels in itertools.product(*(_extremes(a) for a in varied)):
            values = dict(grid.fixed)
            for level in levels:
                values |= level
            where = self._at(varied[0]) if varied else self.where("init")
            if values["init_kind"] == "constant" and values["init_value"] is None:
                raise GridError(f"{where}: init `constant` needs its value: `{{constant: 0.1}}`.")
            for part in ("init", "init_first", "init_last"):
                kind, low, high = (values[f"{part}_{name}"] for name in ("kind", "low", "high"))
                if kind == "uniform" and (low is None) != (high is None):
                    raise GridError(f"{where}: init `uniform` has one of `low` and `high`; give both or neither.")
                if kind == "uniform" and low is not None and not low < high:
                    raise GridError(f"{where}: init `uniform: [{low}, {high}]` needs low < high.")


def _touched(axis: Axis | Draw) -> set[str]:
    """The settings that an axis fixes."""
    return {name for level in axis.levels for name in level.values} or {axis.name}


def _extremes(axis: Axis | Draw) -> list[Mapping[str, Any]]:
    """Settings of every level; of a drawn number, at both ends of its range."""
    if axis.levels:
        return [level.values for level in axis.levels]
    assert isinstance(axis, Draw)
    return [{axis.name: axis.low}, {axis.name: axis.high}]
