"""Recipe → plan: runs, cohorts with their engines, sources. Trains and writes nothing.

In:  a `Grid`, the engine and device asked for, and where local copies of sources lie.
Out: a `Plan`, a pure function of these. What it will cost is measured by `estimate.py`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

from zoo_builder import engines
from zoo_builder.engines import devices
from zoo_builder.grid import RECIPE_VERSION, Grid
from zoo_builder.planning import cohorts, lineage, runs
from zoo_builder.planning.cohorts import Cohort
from zoo_builder.planning.lineage import Parents
from zoo_datasets import sources

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
        return json.loads(json.dumps(value))  # type: ignore[no-any-return]


def plan(recipe: Grid, *, engine: str = "auto", device: str = "cpu", data: str | None = None) -> Plan:
    """The plan of a recipe: a pure function of it, its sources, and the engine asked for.

    Raises GridError, ZooNotFoundError, BuildError.
    """
    device = devices.check(device)
    parents = lineage.open_parents(recipe.parent_zoo) if recipe.parent_zoo is not None else None
    planned = runs.plan(recipe, parents)
    asked = recipe.sample_points * len(runs.replicates(recipe, parents))
    if recipe.limit is None and len(planned) < asked:
        log.warning("the sample asks for %d models, but only %d of its points differ", asked, len(planned))
    loaded: dict[sources.SourceSpec, sources.Source] = {}

    def source_of(spec: sources.SourceSpec) -> sources.Source:
        if spec not in loaded:
            loaded[spec] = sources.load(spec, data)
        return loaded[spec]

    said: set[str] = set()

    def choose(architecture: Any, loss: str, augmentation: Any) -> str:
        if engine != "auto":
            devices.check_supported(engine, architecture, loss, augmentation, device)
            return engine
        name, reason = engines.choose(architecture, loss, augmentation, device)
        if name != "native" and reason not in said:
            said.add(reason)
            log.info("engine %s: %s", name, reason)
        return name

    made = cohorts.group(planned, recipe.cohort_size, source_of, choose, device)
    for text in dict.fromkeys(filter(None, map(_beyond_budget, made))):
        log.warning("%s", text)
    if parents and recipe.fixed["init_optimizer"] is None and "init_optimizer" not in recipe.axis_names:
        if any(r.settings["init_optimizer"] == "reset" for r in planned):
            log.warning("runs start with fresh optimizer moments: %s kept none", parents.zoo)
    return Plan(recipe, planned, made, loaded, parents)


def _beyond_budget(cohort: Cohort) -> str | None:
    """A warning where a schedule asks for snapshots after the end of training."""
    schedule = cohort.runs[0].snapshots
    late = schedule.beyond(cohort.steps_per_epoch, max(cohort.steps))
    if not late:
        return None
    return f"snapshots at {schedule.kind} {', '.join(f'{n:g}' for n in late)} are after the end of training; not taken"
