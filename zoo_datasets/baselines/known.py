"""Name → baseline: what `bench --baselines` takes. A new one is a line here, or `register` from outside."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from zoo_datasets import errors
from zoo_datasets.baselines.interface import Baseline
from zoo_datasets.baselines.tabular import Tabular


def _neural(module: str, name: str, *arguments: Any, **options: Any) -> Callable[[], Baseline]:
    """A baseline of PyTorch's, which is imported when it is made."""

    def make() -> Baseline:
        made: Baseline = getattr(importlib.import_module(f"zoo_datasets.baselines.{module}"), name)(
            *arguments, **options
        )
        return made

    return make


BASELINES: dict[str, Callable[[], Baseline]] = {
    "mean": lambda: Tabular("mean", "none", "mean"),
    "metadata-ridge": lambda: Tabular("metadata-ridge", "recipe", "ridge"),
    "metadata": lambda: Tabular("metadata", "recipe", "boosting"),
    "statistics-ridge": lambda: Tabular("statistics-ridge", "statistics", "ridge"),
    "statistics": lambda: Tabular("statistics", "statistics", "boosting"),
    "statistics-eilertsen": lambda: Tabular("statistics-eilertsen", "statistics", "boosting", "eilertsen"),
    "metadata+statistics": lambda: Tabular("metadata+statistics", "recipe+statistics", "boosting"),
    "flat": _neural("flat", "PcaRidge"),
    "flat-mlp": _neural("flat", "FlatMlp"),
    "flat-mlp-permuted": _neural("flat", "FlatMlp", augment=True),
    "deep-sets": _neural("deep_sets", "DeepSets"),
    "nfn": _neural("nfn", "NFN"),
    "nfn-np": _neural("nfn", "NFN", "np", standardize="position"),
    "neural-graph": _neural("graphs", "NeuralGraph"),
    "scalegmn": _neural("scalegmn", "ScaleGMN"),
    "tokens": _neural("tokens", "TokenAutoencoder"),
    "probing": _neural("probing", "Probing"),
    "probing-hidden": _neural("probing", "Probing", hidden=True),
    "probing-random": _neural("probing", "Probing", probes="random"),
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
