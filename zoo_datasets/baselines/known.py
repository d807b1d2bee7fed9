"""Name → baseline: what `bench --baselines` takes. A new one is a line here, or `register` from outside."""

from __future__ import annotations

from collections.abc import Callable

from zoo_datasets import errors
from zoo_datasets.baselines.interface import Baseline
from zoo_datasets.baselines.tabular import Tabular

BASELINES: dict[str, Callable[[], Baseline]] = {
    "mean": lambda: Tabular("mean", "none", "mean"),
    "metadata-ridge": lambda: Tabular("metadata-ridge", "recipe", "ridge"),
    "metadata": lambda: Tabular("metadata", "recipe", "boosting"),
    "statistics-ridge": lambda: Tabular("statistics-ridge", "statistics", "ridge"),
    "statistics": lambda: Tabular("statistics", "statistics", "boosting"),
    "statistics-eilertsen": lambda: Tabular("statistics-eilertsen", "statistics", "boosting", "eilertsen"),
    "metadata+statistics": lambda: Tabular("metadata+statistics", "recipe+statistics", "boosting"),
}
NO_DRAWS = ("mean", "metadata-ridge", "statistics-ridge")  # every seed gives the same
CONTROLS = ("mean", "metadata-ridge", "metadata")  # beside every row, asked for or not


def baseline(name: str) -> Baseline:
    """A fresh baseline of that name. Raises ZooError."""
    if name not in BASELINES:
        raise errors.ZooError(errors.unknown("baseline", name, BASELINES))
    return BASELINES[name]()


def register(name: str, make: Callable[[], Baseline]) -> None:
    """Make a baseline of one's own known by a name."""
    BASELINES[name] = make
