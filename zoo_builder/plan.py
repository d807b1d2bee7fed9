"""Recipe → plan: runs, cohorts with their engines, sources. Trains and writes nothing.

In:  a `Grid`, the engine and device asked for, and where local copies of sources lie.
Out: a `Plan`, a pure function of these. What it will cost is measured by `estimate.py`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo_builder import engines
from zoo_builder.engines import devices, gpu_memory
from zoo_builder.grid import RECIPE_VERSION, Grid
from zoo_builder.planning import advice, cohorts, lineage, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.lineage import Parents
from zoo_datasets import sources
from zoo_datasets.errors import ZooNotFoundError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation

log = logging.getLogger("zoo_builder")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be built: runs and cohorts in plan order, and the sources they learn."""

    grid: Grid
    runs: list[runs.Run]
    cohorts: list[Cohort]
    sources: dict[sources.SourceSpec, sources.Source]
    parents: Parents | None = None  # the zoo that the runs start from

    @property
    def identity(self) -> dict[str, Any]:
        """What a half-built folder must agree with to be gone on with, as plain JSON values."""
        value = {
            "recipe": RECIPE_VERSION,
            "document": dict(self.grid.document),
            "models": len(self.runs),
            "cohorts": len(self.cohorts),
            "engines": sorted({f"{c.engine} on {c.device}" for c in self.cohorts}),
            "sources": sorted(s.sha256 for s in self.sources.values()),
        }
        if self.parents is not None:  # their contents, so that a changed parent is another recipe
            value["parents"] = {self.parents.zoo: dict(self.parents.digests)}
        return json.loads(json.dumps(value))


def plan(recipe: Grid, *, engine: str = "auto", device: str = "cpu", data: str | None = None) -> Plan:
    """The plan of a recipe: a pure function of it, its sources, and the engine asked for.

    Raises GridError, ZooNotFoundError, BuildError.
    """
    device = devices.check(device)
    parents = lineage.open_parents(recipe.parent_zoo) if recipe.parent_zoo is not None else None
    models = runs.of(recipe, parents)
    loaded: dict[sources.SourceSpec, sources.Source] = {}

    def source_of(spec: sources.SourceSpec) -> sources.Source:
        if spec not in loaded:
            loaded[spec] = sources.load(spec, data, recipe.source_paths.get(spec.id))
        return loaded[spec]

    _load_all(recipe, dict.fromkeys(run.source for run in models), source_of)
    grouped = cohorts.group(models, recipe.cohort_size_on(device), source_of, _chooser(engine, device), device)
    if device == "cuda" and (memory := gpu_memory.total()) is not None:
        for cohort in {(c.architecture.id, c.batch_size): c for c in grouped}.values():
            gpu_memory.width(cohort.architecture, cohort.batch_size, memory)
    result = Plan(recipe, models, grouped, loaded, parents)
    for text in dict.fromkeys(advice.of(recipe, models, grouped, loaded.values(), parents)):
        log.warning("%s", text)
    return result


def _load_all(
    recipe: Grid, specs: Iterable[sources.SourceSpec], source_of: Callable[[sources.SourceSpec], sources.Source]
) -> None:
    """Raises ZooNotFoundError, which names every level of an axis of sources that is not here, and the recipe without them."""
    missing: dict[str, ZooNotFoundError] = {}
    for spec in specs:
        try:
            source_of(spec)
        except ZooNotFoundError as error:
            missing.setdefault(spec.id, error)
    if not missing:
        return
    text, (path, given) = str(next(iter(missing.values()))), _source_levels(recipe)
    if kept := [level for level in given if (level["id"] if isinstance(level, dict) else level) not in missing]:
        named = ", ".join(missing)
        text += f" Or leave out what is not here ({named}): --set '{path}={json.dumps(kept)}'"
    raise ZooNotFoundError(text) from None


def _source_levels(recipe: Grid) -> tuple[str, list[Any]]:
    """The path and the levels of the axis `source`, as the recipe has them; none where it has no such axis."""
    for path in (("axes", "source"), ("sample", "axes", "source"), ("sample", "axes", "source", "choice")):
        found: Any = recipe.document
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, list):
            return ".".join(path), found
    return "", []


def _chooser(engine: str, device: str) -> Callable[[Architecture, str, Augmentation], str]:
    """What names the engine of a cohort; why it is not `native` is said once."""
    reasons: set[str] = set()

    def choose(architecture: Architecture, loss: str, augmentation: Augmentation) -> str:
        name, reason = engine, ""
        if engine == "auto":
            name, reason = engines.choose(architecture, loss, augmentation, device)
        devices.check_supported(name, architecture, loss, augmentation, device)
        if reason and name != "native" and reason not in reasons:
            reasons.add(reason)
            log.info("engine %s: %s", name, reason)
        return name

    return choose
