"""A library that is not installed → one sentence with the line that installs it.

The base install reads zoos; what trains, draws and fits comes with extras, and is imported where it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from zoo_datasets.errors import MissingLibraryError

# Module → what `pip install` calls it.
PIP = {
    "torch": "torch", "jax": "jax", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "PyYAML",
    "ray": "ray", "matplotlib": "matplotlib", "networkx": "networkx", "CMGDB": "CMGDB", "umap": "umap-learn",
    "torch_geometric": "torch_geometric", "datasets": "datasets", "huggingface_hub": "huggingface_hub",
    "safetensors": "safetensors", "scipy": "scipy", "pyarrow": "pyarrow",
}  # fmt: skip


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Imports of other libraries; raises MissingLibraryError where one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if isinstance(error, MissingLibraryError) or missing(error) is None:
            raise
        raise MissingLibraryError(missing(error)) from None


def missing(error: ImportError) -> str | None:
    """The sentence for an import that failed; None where no library that this one uses is missing."""
    module = (error.name or "").split(".")[0]
    return f"{module} is not installed: pip install {PIP[module]}." if module in PIP else None
