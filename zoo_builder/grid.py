"""YAML → `Grid`: the recipe, checked. Every mistake of a user is caught here.

In:  a YAML file, `--set path=value` changes and a `--limit`.
Out: a `Grid`: fixed settings, axes with their levels (or a random sample), replicates,
pairing, snapshot schedule and splits, all in their own types. The changes and the limit are
part of it: `document` is the recipe as it is run, and loading it gives the same grid.

Nothing here reads data: whether a class exists or shapes fit is known when the source is.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_builder.recipe import bounds, conflicts, generated, levels, places, settings, snapshots
from zoo_builder.recipe.axes import Axis, Draw, crossed, sampled, twin
from zoo_builder.recipe.document import Document, read_document
from zoo_builder.recipe.snapshots import SnapshotSchedule
from zoo_builder.recipe.values import coerce
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.format import licenses
from zoo_datasets.format.paths import ZOO_ID

# Bumped when the same recipe would give other networks: it enters every cohort's id.
RECIPE_VERSION = 1
# Torch's engines are fastest around 16 models on a CPU; the native one is flat in it. A GPU wants many.
COHORT_SIZE = {"cpu": 16, "cuda": 1024}
DEFAULT_EPOCHS = 5
DEFAULT_SPLITS = {"train": 0.7, "validation": 0.15, "test": 0.15}

REPLICATES = ("init", "order", "subset")
_LICENSE = re.compile(r"[A-Za-z0-9][\w.+ ,()/-]{,99}\Z", re.ASCII)  # on one line
MOST_NAME = 96  # characters that the Hub takes


@dataclasses.dataclass(frozen=True)
class Grid:
    """A recipe. `fixed` has every setting; axes and draws override it point by point."""

    zoo: str
    fixed: Mapping[str, Any]
    axes: tuple[Axis, ...]
    draws: tuple[Draw, ...]
    sample_points: (
        int  # 0 where axes are only crossed; else drawn points times the crossed ones that each of them has, twins too
    )
    twin: Mapping[str, Any]  # settings in which each drawn point's twin differs from it; none: there are no such twins
    replicates: Mapping[str, int]  # of init, order, subset
    tied: bool  # one replicate number for all three
    paired: tuple[str, ...]
    snapshots: SnapshotSchedule
    splits: Mapping[str, float]
    seed: int
    cohort_size: int | None  # as the recipe says; `cohort_size_on` is what holds
    limit: int | None
    document: Mapping[str, Any]  # plain YAML values; equal documents are equal recipes
    source_paths: Mapping[str, str] = dataclasses.field(default_factory=dict)  # id → folder; no part of the recipe
    split_rule: str = ""  # of the zoo that was sealed by this recipe; none: the one that so many groups take

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The varied factors, in the order of the recipe."""
        return tuple(a.name for a in self.axes) + tuple(d.name for d in self.draws)

    def cohort_size_on(self, device: str) -> int:
        """How many models are trained together at most on "cpu" or "cuda"."""
        return self.cohort_size or COHORT_SIZE[device]

    @property
    def parent_zoo(self) -> str | None:
        """The zoo whose snapshots the runs start from, as the recipe names it."""
        return self.fixed["init_zoo"]

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe as it is run."""
        return streams.digest([RECIPE_VERSION, self.document])


def load(path: Path | str, changes: Sequence[str] = (), limit: int | None = None) -> Grid:
    """The grid of a YAML file with `path=value` changes applied. Raises GridError; also where the recipe of a zoo names a place."""
    manifest = _manifest(Path(path).parent)
    if manifest is not None:
        places.refuse(read_document(path))
    found = _grid(*places.taken(read_document(path, changes, limit)), sealed=manifest is not None)
    same = not changes and limit is None
    return dataclasses.replace(found, split_rule=_split_rule(manifest or {}) if same else "")


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The zoo's manifest in a folder, and not one of other programs, which web pages have too; empty where it is damaged."""
    try:
        found = json.loads((folder / "manifest.json").read_bytes())
    except OSError:
        return None
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return found if "format_version" in found else None


def _split_rule(manifest: Mapping[str, Any]) -> str:
    """How a sealed zoo's groups were dealt, which its recipe does not say: a zoo of before is dealt as it was."""
    said = manifest.get("splits")
    rule = said.get("rule") if isinstance(said, dict) else None
    return "deficit" if rule == "deficit" else ""


def _grid(document: Document, source_paths: Mapping[str, str], *, sealed: bool) -> Grid:
    zoo = document.values.get("zoo")
    if not isinstance(zoo, str) or not ZOO_ID.fullmatch(zoo):
        raise GridError(f"{document.where('zoo')}: `zoo` is {zoo!r}; it must be owner/name, like weightzoo/mnist-cnn.")
    if (
        max(map(len, zoo.split("/"))) > MOST_NAME
        or any(p in zoo for p in ("--", ".."))
        or zoo.endswith(("-", ".", ".git"))
    ):
        raise GridError(
            f"{document.where('zoo')}: `zoo` is {zoo!r}, and the Hub takes no such name: at most {MOST_NAME} characters, "
            "without `--` and `..`, and no `-`, `.` or `.git` at the end."
        )
    _texts(document)
    fixed = _fixed(document)
    axes = crossed(document)
    points, draws = sampled(document)
    varied: tuple[Axis | Draw, ...] = (*axes, *draws)
    names = [a.name for a in varied]
    paired = _paired(document, names)
    differs = twin(document, draws, paired)
    crossing = bounds.check_points(document.where("axes"), {a.name: len(a.levels) for a in axes})
    each = crossing * (2 if differs else 1)
    if points % each:
        how = f"`axes` cross to {crossing} points" + (" and their twins" if differs else "")
        raise GridError(
            f"{document.where('sample', 'models')}: `models` is {points}, and {how}, of which each "
            f"drawn one has all: a multiple of {each} is needed, like {max(1, round(points / each)) * each}."
        )
    conflicts.check(document, fixed, varied)
    if not sealed:
        conflicts.check_use(document, fixed, varied)
    if all(fixed[n] is None and n not in names for n in conflicts.BUDGETS):
        fixed["epochs"] = DEFAULT_EPOCHS
    replicates, tied = _replicates(document)
    limit = None if document.values.get("limit") is None else document.whole("limit", 0, 1)
    if fixed["init_zoo"] is None:  # else there are as many as the parent zoo has models
        repeated = replicates["init"] if tied else math.prod(replicates.values())
        place = document.where("sample" if points else "replicates" if repeated > crossing else "axes")
        bounds.check_models(place, points or crossing, repeated, limit, len(streams.canonical_json(document.values)))
    return Grid(
        zoo=zoo,
        fixed=fixed,
        axes=axes,
        draws=draws,
        sample_points=points,
        twin=differs,
        replicates=replicates,
        tied=tied,
        paired=paired,
        snapshots=snapshots.parse(document.values.get("snapshots", {"epochs": [0]}), document.where("snapshots")),
        splits=_splits(document),
        seed=document.whole("seed", 0, 0),
        cohort_size=document.whole("cohort_size", 1, 1) if "cohort_size" in document.values else None,
        limit=limit,
        document=document.values,
        source_paths=source_paths,
    )


def _texts(document: Document) -> None:
    description, license = document.values.get("description"), document.values.get("license")
    if not isinstance(description, str | None):
        raise GridError(f"{document.where('description')}: `description` is {description!r}; text is needed.")
    if license is None:
        return
    place = document.where("license")
    if not isinstance(license, str) or not _LICENSE.match(license):
        raise GridError(f"{place}: `license` is {license!r}; a name like cc-by-4.0 is needed.")
    if licenses.on_the_hub(license) is None:  # else the zoo could be built, and never published
        raise GridError(
            unknown("license", license, licenses.LICENSES, place) + " `other` stands for any that is not there."
        )


def _fixed(document: Document) -> dict[str, Any]:
    fixed = dict(settings.DEFAULTS)

    def where(path: str) -> str:
        return document.where(*path.split("."))

    source = document.values.get("source")
    if isinstance(source, str):
        source = {"id": source}
    blocks = {"source": source} | {name: document.mapping(name) for name in ("training", "evaluation")}
    for name, block in blocks.items():
        if block is not None:
            if not isinstance(block, dict):
                raise GridError(f"{document.where(name)}: `{name}` is {block!r}; a mapping is needed.")
            fixed |= levels.flatten(block, name, where)
    for key, value in document.values.items():
        if value is None:
            continue
        if settings.COMPOSITES.get(key) == key:  # `subset`; `schedule` stands in `training`
            fixed |= levels.composite(key, value, where(key))
        elif key == "architecture" and isinstance(value, dict):
            fixed |= generated.read(value, where(key))
        elif key in settings.BY_PATH:
            fixed[settings.BY_PATH[key].name] = coerce(settings.BY_PATH[key], value, where(key))
    return fixed


def _replicates(document: Document) -> tuple[dict[str, int], bool]:
    value = document.values.get("replicates", 1)
    if isinstance(value, dict):
        for key in value:
            if key not in REPLICATES:
                raise GridError(unknown("stream of `replicates`", key, REPLICATES, document.where("replicates", key)))
        counts, tied = {name: value.get(name, 1) for name in REPLICATES}, False
    else:
        counts, tied = dict.fromkeys(REPLICATES, value), True
    for number in counts.values():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise GridError(
                f"{document.where('replicates')}: `replicates` is {number!r}; a whole number ≥ 1 is needed, or "
                "{init: 10, order: 2, subset: 3}."
            )
    return counts, tied


def _paired(document: Document, axes: list[str]) -> tuple[str, ...]:
    value = document.values.get("paired") or []
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list):
        raise GridError(f"{document.where('paired')}: `paired` is {value!r}; a list of axes is needed, like [subset].")
    for name in names:
        if name not in axes:
            raise GridError(unknown("axis", name, axes, document.where("paired")))
    return tuple(names)


def _splits(document: Document) -> dict[str, float]:
    value = document.values.get("splits", DEFAULT_SPLITS)
    where = document.where("splits")
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
