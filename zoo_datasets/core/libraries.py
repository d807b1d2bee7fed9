"""A library that is not installed, or does not start → one sentence with the way out.

The base install reads zoos; what trains, draws and fits comes with extras, and is imported where it is used.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator

from zoo_datasets.errors import MissingLibraryError, ZooError

# Module → what `pip install` calls it.
PIP = {
    "torch": "torch", "jax": "jax", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "PyYAML",
    "ray": "ray", "matplotlib": "matplotlib", "networkx": "networkx", "CMGDB": "CMGDB", "umap": "umap-learn",
    "torch_geometric": "torch_geometric", "datasets": "datasets", "huggingface_hub": "huggingface_hub",
    "safetensors": "safetensors", "scipy": "scipy", "pyarrow": "pyarrow",
}  # fmt: skip


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """Imports of other libraries; raises MissingLibraryError where one is not installed, ZooError where one fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if isinstance(error, MissingLibraryError) or missing(error) is None:
            raise
        raise MissingLibraryError(missing(error)) from None
    except ValueError as error:  # `HF_HUB_DOWNLOAD_TIMEOUT=10s`: libraries read their variables when they are imported
        raise ZooError(f"A library does not start: {error}. Correct its variable in the environment (HF_…).") from None


def missing(error: ImportError) -> str | None:
    """The sentence for an import that failed; None where no library that this one uses is missing."""
    module = (error.name or "").split(".")[0]
    return f"{module} is not installed: pip install {PIP[module]}." if module in PIP else None


def versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those libraries that are installed, by what pip calls them."""
    installed = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
