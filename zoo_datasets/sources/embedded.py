"""`digits` and `iris`, which come with scikit-learn → their splits."""

from __future__ import annotations

import numpy as np

from zoo_datasets.errors import GridError, ZooNotFoundError, unknown
from zoo_datasets.sources import image_sets
from zoo_datasets.sources.spec import PublishedSplit, SourceSpec


def embedded(spec: SourceSpec) -> tuple[tuple[str, ...], dict[str, PublishedSplit], float]:
    for name in ("config", "image_column", "label_column"):
        if getattr(spec, name) is not None:
            raise GridError(f"Source {spec.id!r} comes with scikit-learn and takes no {name}.")
    if spec.id == "iris" and (spec.resize or spec.channels):
        raise GridError("Source 'iris' is a table; resize and channels are for images.")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ZooNotFoundError(
            f"Source {spec.id!r} comes with scikit-learn, which is not installed: pip install scikit-learn."
        ) from error
    bunch = datasets.load_digits() if spec.id == "digits" else datasets.load_iris()
    if spec.features is not None and spec.id != "iris":
        raise GridError(f"Source {spec.id!r} has images; features are columns of a table.")
    class_names = tuple(str(name) for name in bunch.target_names)
    labels = bunch.target.astype(np.int64)
    if spec.id == "iris":
        values = bunch.data[:, _columns(spec, bunch.feature_names)].astype(np.float32)
        return class_names, {"train": PublishedSplit(labels, lambda rows: values[rows])}, 1.0
    gray = bunch.images.astype(np.uint8)  # whole numbers, 0 to 16

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([image_sets.pixels(image_sets.gray(g), spec.channels, spec.resize) for g in gray[rows]])

    return class_names, {"train": PublishedSplit(labels, read)}, 16.0


def _columns(spec: SourceSpec, names: list[str]) -> list[int]:
    """Which columns of a table the spec takes: "petal length" is "petal length (cm)", "2" the third."""
    plain = [name.split(" (")[0] for name in names]
    if spec.features is None:
        return list(range(len(names)))
    found = []
    for wanted in spec.features:
        known = [i for i, name in enumerate(plain) if wanted in (name, names[i], str(i))]
        if not known:
            raise GridError(unknown("feature", wanted, plain, f"source {spec.id!r}"))
        found += known
    if len(set(found)) < len(found):
        raise GridError(f"Source {spec.id!r} has a feature twice: {', '.join(spec.features)}.")
    return found
