"""`digits` and `iris`, which come with scikit-learn → their splits."""

from __future__ import annotations

import numpy as np

from zoo_datasets.core import libraries
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.sources import image_sets
from zoo_datasets.sources.spec import PublishedSplit, SourceSpec, check_resized

# Source → scikit-learn's function for it. A new one is a line here.
EMBEDDED = {"digits": "load_digits", "iris": "load_iris"}

# Fields that speak of files, columns and splits of a dataset.
PUBLISHED_ONLY = (
    "config", "image_column", "label_column", "image_columns", "image_layout", "unlabeled", "train_split",
    "validation_split", "test_split", "revision",
)  # fmt: skip


def embedded(spec: SourceSpec) -> tuple[tuple[str, ...], dict[str, PublishedSplit], float, tuple[str, ...]]:
    """Class names, the one split, the peak of raw values, and of a table the names of its features. Raises GridError, MissingLibraryError."""
    for name in PUBLISHED_ONLY:
        if getattr(spec, name) != getattr(SourceSpec, name):
            raise GridError(f"Source {spec.id!r} comes with scikit-learn and takes no {name}.")
    with libraries.needed():
        from sklearn import datasets
    bunch = getattr(datasets, EMBEDDED[spec.id])()
    class_names, labels = tuple(str(name) for name in bunch.target_names), bunch.target.astype(np.int64)
    if "images" not in bunch:
        if spec.resize or spec.channels:
            raise GridError(f"Source {spec.id!r} is a table; resize and channels are for images.")
        chosen = _columns(spec, bunch.feature_names)
        values, names = bunch.data[:, chosen].astype(np.float32), _plain(bunch.feature_names)
        splits = {"train": PublishedSplit(labels, lambda rows: values[rows])}
        return class_names, splits, 1.0, tuple(names[i] for i in chosen)
    if spec.features is not None:
        raise GridError(f"Source {spec.id!r} has images; features are columns of a table.")
    gray = bunch.images.astype(np.uint8)  # whole numbers, 0 to 16

    def read(rows: np.ndarray) -> np.ndarray:
        if spec.resize:
            check_resized(spec.id, len(rows), spec.channels or 1, spec.resize, *gray.shape[1:])
        return np.stack(
            [image_sets.pixels(image_sets.picture(g[None]), spec.channels, spec.resize) for g in gray[rows]]
        )

    return class_names, {"train": PublishedSplit(labels, read)}, float(gray.max()), ()


def _plain(names: list[str]) -> list[str]:
    """Without their units."""
    return [name.split(" (")[0] for name in names]


def _columns(spec: SourceSpec, names: list[str]) -> list[int]:
    """Which columns of a table the spec takes: "petal length" is "petal length (cm)", "2" the third."""
    plain = _plain(names)
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
