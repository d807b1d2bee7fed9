"""A zoo of twins that differ in their training set alone → its networks by level: well represented, or classes rare, or a cue spurious.

In:  a zoo whose networks are paired over `subset`. Out: `Arms`: a `Population` of the last snapshots, and of each network its level.

The reference is the level in which no class has a share of its own and nothing is stamped. Of a level with `class_shares` the dose is
its smallest share; of one with a mark that goes with a class in training (`trigger_clean_label`) the share of images that carry it.
How much a network relies on the mark is measured: the test images of other classes that the mark sends to its class, of those that would
not go there anyway.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from zoo_datasets.analysis.backdoors import population
from zoo_datasets.analysis.backdoors.population import KEYS, Population
from zoo_datasets.errors import ZooError
from zoo_datasets.sources.rows import subset_of
from zoo_datasets.zoo import Zoo

AXIS = "subset"
REFERENCE = "all classes alike"


@dataclasses.dataclass(frozen=True)
class Arms:
    """Networks, each of one level."""

    networks: Population  # `trojaned` are those of any level but the reference
    level: np.ndarray  # (n,) text: `REFERENCE`, or a label of `levels`
    levels: dict[str, str]  # label → what is poor, `rare` or `cue`, by falling harm of its kind
    share: np.ndarray  # (n,) float64: the smallest share of a class; 1 of the reference, NaN of levels with a cue
    reliance: np.ndarray  # (n,) float64: images that the cue moves; NaN without one
    rare: np.ndarray  # (n,) float64: mean accuracy on the classes that are rare in some level

    def side(self, *levels: str) -> np.ndarray:
        """The networks (n,) bool of these levels."""
        return np.isin(self.level, levels)


def read(zoo: Zoo, data: str | Path | None = None) -> tuple[Arms, dict[str, int]]:
    """All networks that did not diverge and have a twin of the reference, and how many fell out. Raises ZooError."""
    rows = population.rows_of(zoo, 0)
    subsets = {r["model_id"]: subset_of(r) for r in rows}
    for row in rows:
        own = subsets[row["model_id"]]
        if own.trigger_frac and not own.trigger_clean_label:
            raise ZooError(
                f"{zoo.name} has networks with wrong labels on stamped images; those are backdoors: `analyze backdoors`."
            )
        row["kind"] = "cue" if own.trigger_frac else "rare" if own.class_shares is not None else ""
        row["dose"] = own.trigger_frac if own.trigger_frac else min(own.class_shares or (1.0,))
    if {r["kind"] for r in rows} <= {""}:
        raise ZooError(
            f"{zoo.name} has no network whose classes have unequal shares, or of which a mark goes with a class: data that "
            "represent poorly are those of grids/backdoors/poor-data.yaml."
        )
    good = [r for r in rows if not r["diverged"] and np.isfinite(r["scores"][1])]
    references = {tuple(r[k] for k in KEYS) for r in good if not r["kind"]}
    kept = [r for r in good if tuple(r[k] for k in KEYS) in references]
    counts = {
        "networks": len(rows),
        "diverged_or_unscored": len(rows) - len(good),
        "without_a_twin": len(good) - len(kept),
    }
    if all(not r["kind"] for r in kept):
        raise ZooError(
            f"{zoo.name} has no twin of a network whose classes are alike; pair them: `paired: [{AXIS}]`, with one level "
            "that has neither class shares nor a mark."
        )
    numbers: dict[tuple[str, ...], int] = {}
    for row in kept:
        row["pair"] = numbers.setdefault(tuple(row[k] for k in KEYS), len(numbers))
    found = population.population_of([zoo], kept, population.attacks_of([zoo], kept, data))
    kind, dose = np.array([r["kind"] for r in kept], object), np.array([r["dose"] for r in kept], float)
    level = np.array([_label(k, d) for k, d in zip(kind, dose, strict=True)], object)
    known = {(k, d) for k, d in zip(kind.tolist(), dose.tolist(), strict=True) if k}
    # The worst first: of shares the smallest, of cues the commonest.
    ordered = sorted(known, key=lambda x: (x[0] != "rare", x[1] if x[0] == "rare" else -x[1]))
    networks = dataclasses.replace(found, trojaned=kind != "", works=np.ones(len(kept), bool))
    rare = sorted({c for r in kept for c, s in enumerate(subsets[r["model_id"]].class_shares or ()) if s < 1})
    return Arms(
        networks, level, {_label(k, d): k for k, d in ordered}, np.where(kind == "cue", np.nan, dose),
        np.where(kind == "cue", population.lift(found.success, found.base), np.nan),
        found.classes[:, rare].mean(1) if rare else np.full(len(kept), np.nan),
    ), counts  # fmt: skip


def _label(kind: str, dose: float) -> str:
    return {"rare": f"classes of share {dose:g}", "cue": f"a cue on {dose:g}"}.get(kind, REFERENCE)
