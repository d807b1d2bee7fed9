"""Model zoos as datasets: open them, slice them, rebuild their networks, compare them.

`open_zoo` opens a zoo in a folder or on the Hub; `weights` gives the weight matrix of a
`datasets.Dataset` that came from one. What a name needs is imported when it is first used:
`import zoo_datasets` loads neither torch nor pyarrow. Modules that users import by name:
`audit`, `evaluate`, `hub`, `loaders`, `metrics`, `sources`, `split_files`, `symmetry`,
`variation`, `views`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # where editors and type checkers look; at run time `__getattr__` does it
    from zoo_datasets.errors import (
        BuildError,
        FormatVersionError,
        GridError,
        IntegrityError,
        NoNetworkError,
        ZooError,
        ZooNotFoundError,
    )
    from zoo_datasets.reading.arrow_weights import weights
    from zoo_datasets.reading.weights import Weights
    from zoo_datasets.zoo import Zoo, open_zoo

__version__ = "0.1.0"  # of both packages; pyproject.toml reads it here

# Public name → the module it comes from.
_HOMES = {
    "open_zoo": "zoo",
    "Zoo": "zoo",
    "weights": "reading.arrow_weights",
    "Weights": "reading.weights",
    "ZooError": "errors",
    "GridError": "errors",
    "ZooNotFoundError": "errors",
    "IntegrityError": "errors",
    "FormatVersionError": "errors",
    "NoNetworkError": "errors",
    "BuildError": "errors",
}
__all__ = [
    "BuildError", "FormatVersionError", "GridError", "IntegrityError", "NoNetworkError", "Weights", "Zoo",
    "ZooError", "ZooNotFoundError", "open_zoo", "weights",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo_datasets' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zoo_datasets.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
