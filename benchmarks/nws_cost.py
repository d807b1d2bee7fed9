"""benchmarks/results/{rates,cohort_price,engines,gpu-draws}.json → what Neural Weight Space costs, between the markers of docs/nws.md.

In:  `rates.py`'s measurements, of which those of grids/nws/ count; the price of a cohort, of augmentation, the share of sgemm
     and the GPU's rate, all of the fixed network.
Out: sentences and a table. No number is typed. `rates.py` calls this when it has measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pages

RESULTS = Path(__file__).parent / "results"
PAGE = pages.DOCS / "nws.md"
FAMILY = "nws/"
FIXED = "nws/fixed"
COUNTED = (
    "nws/main",
    FIXED,
)  # the 16,000 published networks; other recipes are the same ones, or some of them, made otherwise
WORKLOAD = "W6"  # the fixed network, in engines.json and gpu-draws.json
CORES = 64  # of the node that the whole is told for
BATCH = 64  # of W6's measured steps


def section(rates: Mapping[str, Any]) -> Iterator[str]:
    """The table of the recipes, and what all their networks take here, on a node, and on a GPU."""
    own = {name: r for name, r in sorted(rates.items()) if name.startswith(FAMILY)}
    if not own:
        yield "Nothing has been measured with this version yet.\n"
        return
    yield from pages.table(
        ("recipe", "measured on", "steps each", "images learned each", "CPU s each", "networks a second and core", "as published", "CPU-h"),
        [
            (f"`{name}`", f"{r['networks']:,}", f"{r['steps'] / r['networks']:,.0f}", f"{r['examples'] / r['networks']:,.0f}",
             f"{_each(r):.1f}", f"{1 / _each(r):.4f}", f"{r['in_recipe']:,}", f"{_hours(r):,.0f}")
            for name, r in own.items()
        ],
    )  # fmt: skip
    counted = {recipe: name for recipe in COUNTED if (name := _measured(recipe, own))}
    if counted:
        rows = [own[name] for name in counted.values()]
        hours, networks = sum(map(_hours, rows)), sum(r["in_recipe"] for r in rows)
        yield (
            f"All {networks:,} of {' and '.join(f'`{name}`' for name in counted.values())} take {hours:,.0f} CPU-hours by that: "
            f"{hours / 48:,.1f} days of two cores, {hours / CORES:,.1f} hours of a node of {CORES} "
            f"({', '.join(sorted({r['cpu'] for r in rows}))}; start, scoring and sealing included).\n"
        )
    yield _cohorts()
    yield _sgemm()
    if FIXED in counted:
        yield _gpu(own[counted[FIXED]])


def _measured(recipe: str, own: Mapping[str, Any]) -> str | None:
    """The one measurement of a recipe that counts: as it stands, or with changes, of the most networks."""
    names = [name for name in own if name.split()[0] == recipe]
    return recipe if recipe in names else max(names, key=lambda name: own[name]["networks"], default=None)


def _cohorts() -> str:
    found = json.loads((RESULTS / "cohort_price.json").read_text())
    rates = [r["median"] for size, r in found["rate_against_one"].items() if size != "1"]
    steps = ", ".join(f"{a['ratio']['median'] - 1:.1%} by `{a['engine']}`" for a in found["augmentation"])
    return (
        f"Start, part, commit and sealing of a cohort of one network are {found['share_of_usual_training']['median']:.1%} of its training, where that "
        f"takes {found['usual_epochs']} epochs. In cohorts of {' and '.join(s for s in found['rate_against_one'] if s != '1')} a network "
        f"trains {min(rates):.2f} to {max(rates):.2f} times as fast as alone. All nine augmentations add {steps} to a step of one network "
        f"({found['machine']}; `benchmarks/cohort_price.py`, {found['rounds']} rounds).\n"
    )


def _sgemm() -> str:
    engines = json.loads((RESULTS / "engines.json").read_text())
    of = next(t for t in engines["training"] if t["workload"] == WORKLOAD)
    return (
        f"A step of the fixed network reaches {of['share_of_sgemm']:.0%} of what one core does in sgemm ({engines['cpu']}, without "
        "augmentation; `benchmarks/results/engines.json`).\n"
    )


def _gpu(fixed: Mapping[str, Any]) -> str:
    found = json.loads((RESULTS / "gpu-draws.json").read_text())
    best = max((d for d in found["draws"] if d["workload"] == WORKLOAD), key=lambda d: d["models"])
    images = best["steps_per_s"]["device"] * BATCH
    hours = fixed["examples"] / fixed["networks"] * fixed["in_recipe"] / images / 3600
    return (
        f"On a GPU ({found['about']['device']}), {best['models']} fixed networks side by side learn {images:,.0f} augmented images a second: "
        f"{hours:.1f} hours of training for all {fixed['in_recipe']:,}, if cohorts are that wide and scoring costs nothing. Networks "
        "of random architecture are alone in their cohorts, and a GPU is no faster with these than a core ([GPU](gpu.md)).\n"
    )


def _each(result: Mapping[str, Any]) -> float:
    return float(result["cpu_s"] / result["networks"])


def _hours(result: Mapping[str, Any]) -> float:
    return _each(result) * int(result["in_recipe"]) / 3600
