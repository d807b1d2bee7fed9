"""A zoo of twins that differ in their training set alone → its networks by level: well represented, or classes rare, or a cue spurious.

In:  a zoo whose networks are paired over `subset`. Out: `Arms`: a `Population` of the last snapshots, and of each network its level.

The reference is the level in which no class has a share of its own and nothing is stamped. A level with `class_shares` is known by
its rare classes and their smallest share, one with a mark that goes with a class in training (`trigger_clean_label`) by that class and
the share of images that carry it; in nothing else may the data of networks differ. How much a network relies on the mark is measured:
the test images of other classes that the mark sends to its class, less those that it sends elsewhere, of those that would not go there
anyway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets.analysis.backdoors import population
from zoo_datasets.analysis.backdoors.population import KEYS, Population
from zoo_datasets.errors import ZooError
from zoo_datasets.sources import Subset
from zoo_datasets.sources.rows import subset_of
from zoo_datasets.zoo import Zoo

REFERENCE = "all classes alike"
RECIPE = "grids/backdoors/poor-data.yaml"
MOST_NAMED = 6  # classes in a label
# A subset without its mark.
UNMARKED: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Subset) if f.name.startswith("trigger_")}


@dataclasses.dataclass(frozen=True)
class Arms:
    """Networks, each of one level."""

    networks: Population  # `trojaned` are those of any level but the reference
    level: np.ndarray  # (n,) text: `REFERENCE`, or a label of `levels`
    levels: dict[str, str]  # label → what is poor, `rare` or `cue`, by falling harm of its kind
    share: np.ndarray  # (n,) float64: the smallest share of a class, the largest being 1; NaN of levels with a cue
    reliance: np.ndarray  # (n,) float64: `population.lift` of the cue, NaN too where there is none
    rare: np.ndarray  # (n,) float64: mean accuracy on the classes that are rare in some level

    def side(self, *levels: str) -> np.ndarray:
        """The networks (n,) bool of these levels."""
        return np.isin(self.level, levels)


def read(zoo: Zoo, data: str | Path | None = None) -> tuple[Arms, dict[str, int]]:
    """All networks that did not diverge and have a twin of the reference, and how many fell out. Raises ZooError."""
    rows = population.rows_of(zoo, 0)
    subsets = {r["model_id"]: subset_of(r) for r in rows}
    for row in rows:
        row["kind"], row["level"], row["harm"] = _level(subsets[row["model_id"]], row["model_id"])
    if {r["kind"] for r in rows} <= {""}:
        raise ZooError(
            f"{zoo.name} has no network whose classes have unequal shares, or of which a mark goes with a class: data that "
            f"represent poorly are those of {RECIPE}."
        )
    _check_alike(zoo, rows, subsets)
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
            f"{zoo.name} has no twin of a network whose classes are alike; pair them: `paired: [subset]`, with one level "
            "that has neither class shares nor a mark."
        )
    numbers: dict[tuple[str, ...], int] = {}
    for row in kept:
        row["pair"] = numbers.setdefault(tuple(row[k] for k in KEYS), len(numbers))
    population.check_pairs(kept, "kind", RECIPE)
    found = population.population_of([zoo], kept, population.attacks_of([zoo], kept, data))
    kind = np.array([r["kind"] for r in kept], object)
    known = sorted({(r["kind"], r["harm"], r["level"]) for r in kept if r["kind"]}, key=lambda k: (k[0] != "rare", k))
    share = np.array(
        [
            1.0 if s.class_shares is None else min(s.class_shares) / max(s.class_shares)
            for s in (subsets[r["model_id"]] for r in kept)
        ]
    )
    rare = sorted({c for r in kept for c in _rare(subsets[r["model_id"]])})
    return Arms(
        dataclasses.replace(found, trojaned=kind != "", works=np.ones(len(kept), bool)),
        np.array([r["level"] for r in kept], object), {level: kind for kind, _, level in known}, np.where(kind == "cue", np.nan, share),
        np.where(kind == "cue", population.lift(found.success, found.base), np.nan), _mean_of(found.classes, rare),
    ), counts  # fmt: skip


def _level(own: Subset, model: str) -> tuple[str, str, float]:
    """What is poor, a label, and a number that is smaller where more harm is done. Raises ZooError for another kind of data."""
    if own.trigger_frac and not own.trigger_clean_label:
        raise ZooError(
            f"Model {model} learned wrong labels of stamped images; those are backdoors: `analyze backdoors`."
        )
    if own.class_shares is not None and (own.trigger_frac or len(set(own.class_shares)) == 1):
        what = "classes of unequal shares and a mark" if own.trigger_frac else "class shares that are all equal"
        raise ZooError(
            f"Model {model} learned with {what}; a level is one or the other, beside a reference of neither."
        )
    if own.trigger_frac:
        return "cue", f"a cue for {own.trigger_target} on {own.trigger_frac:g}", -own.trigger_frac
    if own.class_shares is None:
        return "", REFERENCE, 0.0
    rare, least = _rare(own), min(own.class_shares) / max(own.class_shares)
    named = ", ".join(map(str, rare[:MOST_NAMED])) + (", …" if len(rare) > MOST_NAMED else "")
    shares = {own.class_shares[c] for c in rare}
    return (
        "rare",
        f"class{'es' if len(rare) > 1 else ''} {named} of share {least:g}{' and more' if len(shares) > 1 else ''}",
        least,
    )


def _rare(own: Subset) -> list[int]:
    """Classes of a smaller share than others have."""
    shares = own.class_shares or ()
    return [c for c, share in enumerate(shares) if share < max(shares)]


def _check_alike(zoo: Zoo, rows: list[dict[str, Any]], subsets: Mapping[str, Subset]) -> None:
    """Raises ZooError where networks differ in their data by more than a level says: then two levels, or references, are one."""
    of_level: dict[str, Subset] = {}
    for row in rows:
        own = subsets[row["model_id"]]
        first = of_level.setdefault(row["level"], own)
        rest = [dataclasses.replace(s, class_shares=None, **UNMARKED) for s in (next(iter(of_level.values())), own)]
        for one, other in ((first, own), rest):
            differ = [
                f.metadata["column"]
                for f in dataclasses.fields(Subset)
                if getattr(one, f.name) != getattr(other, f.name)
            ]
            if differ:
                raise ZooError(
                    f"Networks of {zoo.name} differ in {', '.join(f'`{n}`' for n in differ)} too, beside their level {row['level']!r}. Select one "
                    f"value of it: levels are compared that differ in nothing else, as in {RECIPE}."
                )


def _mean_of(accuracy: np.ndarray, classes: list[int]) -> np.ndarray:
    """Mean accuracy on these classes, of those that have test images; NaN where none has."""
    own = accuracy[:, classes]
    known = np.isfinite(own)
    return np.asarray(np.where(known, own, 0.0).sum(1) / np.where(known.any(1), known.sum(1), np.nan))
