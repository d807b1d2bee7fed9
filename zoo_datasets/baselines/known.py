"""Name → baseline: what `bench --baselines` takes. A new one is a line here, or `register` from outside."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
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
    "metadata+training": lambda: Tabular("metadata+training", "recipe+training", "boosting"),
    "images": _neural("images", "Images"),
    "statistics-ridge": lambda: Tabular("statistics-ridge", "statistics", "ridge"),
    "statistics": lambda: Tabular("statistics", "statistics", "boosting"),
    "statistics-mlp": _neural("statistics_mlp", "StatisticsMlp"),
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
    "matrix-probes": _neural("matrices", "MatrixProbes"),
    "probing-random": _neural("probing", "Probing", probes="random"),
}
# Every seed gives the same: least squares, and trees that look at all rows and columns. They take seconds on a core.
NO_DRAWS = (
    "mean", "metadata-ridge", "metadata", "metadata+training", "images", "statistics-ridge", "statistics",
    "statistics-eilertsen", "metadata+statistics", "flat",
)  # fmt: skip
# Of baselines that came to say something else than before: which one a result is of. What has no number is the first.
REVISIONS = {
    "metadata-ridge": 2, "metadata": 3, "metadata+training": 3, "metadata+statistics": 3,
    **dict.fromkeys(("statistics", "statistics-eilertsen", "probing", "probing-hidden", "probing-random"), 2),
}  # fmt: skip
CONTROLS = ("mean", "metadata-ridge", "metadata")  # beside every row, asked for or not
ORACLE = "oracle"  # what a table calls its ceiling; no baseline has that name
# Names that stand for several.
SETS = {
    "controls": (*CONTROLS, "metadata+training", "metadata+statistics", "images", "probing-random"),
    "cheap": NO_DRAWS,
    "dear": (
        "statistics-mlp",
        "flat-mlp",
        "flat-mlp-permuted",
        "deep-sets",
        "nfn",
        "neural-graph",
        "scalegmn",
        "probing",
        "tokens",
    ),  # of any networks
    "all": tuple(BASELINES),
}


def named(words: Iterable[str]) -> list[str]:
    """The baselines that those names and sets mean, each once. Raises ZooError for an unknown one."""
    found: list[str] = []
    for word in words:
        if word not in SETS and word not in BASELINES:
            raise errors.ZooError(errors.unknown("baseline", word, [*SETS, *BASELINES]))
        found += SETS.get(word, (word,))
    return list(dict.fromkeys(found))


def baseline(name: str, settings: Mapping[str, Any] | None = None) -> Baseline:
    """A new baseline of that name, with settings that were chosen before. Raises ZooError."""
    if name not in BASELINES:
        raise errors.ZooError(errors.unknown("baseline", name, [*SETS, *BASELINES]))
    made = BASELINES[name]()
    if settings:
        if not hasattr(made, "configure"):
            raise errors.ZooError(f"The baseline {name} takes no settings, and {', '.join(settings)} are given.")
        made.configure(settings)
    return made


def together(name: str, seeds: int) -> str:
    """The name of the mean of what several seeds of a baseline say."""
    return f"{name}, mean of {seeds}"


def is_control(name: str) -> bool:
    """Whether a baseline, or the mean of its seeds, is told more than weights, or learns less of them than others do."""
    return single(name) in SETS["controls"]


def single(name: str) -> str:
    """The baseline whose seeds' mean has that name; any other name as it is."""
    return name.partition(", mean of ")[0]


def register(name: str, make: Callable[[], Baseline]) -> None:
    """Make a baseline of one's own known by a name."""
    BASELINES[name] = make
