"""Model zoos as datasets: open them, slice them, rebuild their networks, compare them.

`open_zoo` opens a zoo in a folder or on the Hub; `weights` gives the weight matrix of a
`datasets.Dataset` that came from one. What a name needs is imported when it is first used:
`import zoo_datasets` loads neither torch nor pyarrow.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name → the module it comes from.
_PUBLIC = {
    "open_zoo": "zoo",
    "Zoo": "zoo",
    "weights": "dataset_weights",
    "Weights": "matrix",
    "ZooError": "errors",
    "GridError": "errors",
    "ZooNotFoundError": "errors",
    "IntegrityError": "errors",
    "FormatVersionError": "errors",
    "BuildError": "errors",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zoo_datasets' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zoo_datasets.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
