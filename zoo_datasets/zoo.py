"""Path or id of a zoo → a handle: its tables, a selection of its snapshots, their weights.

In:  a folder or an id of the Hub. Opening reads the manifest and the tables' footers only.
Out: a `Zoo`: a `Selection` with the sentences of the reader's other files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_datasets.hub import lookup
from zoo_datasets.reading import hf_dataset
from zoo_datasets.reading.selection import Opened, Selection

if TYPE_CHECKING:
    from zoo_datasets import evaluate, loaders, variation


def open_zoo(
    path_or_id: str | Path, revision: str | None = None, verify: bool = False, *, cache_dir: str | Path | None = None
) -> Zoo:
    """The zoo in a folder or on the Hub, all its snapshots selected; only metadata is read.

    `revision` is a tag, branch or commit of the Hub. With `verify` tables are compared with
    their SHA-256 now, and each shard when it is first touched.

    Raises ZooNotFoundError, FormatVersionError, IntegrityError.
    """
    location = lookup.locate(path_or_id, revision, Path(cache_dir) if cache_dir else None)
    if verify:
        for file in location.manifest.files.under("data/"):
            location.verified(file.path)
    opened = Opened(location, verify)
    return Zoo(opened, np.arange(len(opened.snapshots)))


def once(zoos: Iterable[Zoo]) -> list[Zoo]:
    """Those zoos in their order, each content once: one that was named in two ways, by path and by id, would be two."""
    return list({(z.name, *sorted(z.manifest.digests.items())): z for z in zoos}.values())


class Zoo(Selection):
    """A selection of a zoo's snapshots; see `open_zoo`.

    `models` and `snapshots` are Arrow tables of the selection, `weights` its vectors in the
    order of `snapshots`. `len(zoo)` counts snapshots.
    """

    def evaluate(self, ids: Sequence[str] | None = None, **options: Any) -> evaluate.Evaluation:
        """`evaluate.evaluate`: all models again, batched, against their stored metrics."""
        from zoo_datasets import evaluate

        return evaluate.evaluate(self, ids, **options)

    def pairs(self, vary: str, levels: tuple[Any, Any] | None = None) -> list[variation.Pair]:
        """`variation.pairs`: models equal in all but one factor."""
        from zoo_datasets import variation

        return variation.pairs(self, vary, levels)

    def effect(
        self, vary: str, on: str = "test_accuracy", levels: tuple[Any, Any] | None = None, **options: Any
    ) -> Any:
        """`variation.effect`: what one factor does, from pairs, with an interval."""
        from zoo_datasets import variation

        return variation.effect(self, vary, on, levels, **options)

    def generalization_gap(self) -> np.ndarray:
        """`gap.generalization_gap`: clean training accuracy minus test accuracy on the classes in play, per snapshot."""
        from zoo_datasets import gap

        return gap.generalization_gap(self)

    def dataset(self, targets: Sequence[str] = ()) -> loaders.WeightsDataset:
        """`loaders.WeightsDataset`: a map-style torch dataset of weights and columns."""
        from zoo_datasets import loaders

        return loaders.WeightsDataset(self, targets)

    def loader(self, batch_size: int, targets: Sequence[str] = (), **options: Any) -> loaders.Loader:
        """`loaders.Loader`: batches over workers and ranks, resumable inside an epoch."""
        from zoo_datasets import loaders

        return loaders.Loader(self, batch_size, targets, **options)

    def to_hf(self, columns: Sequence[str] | None = None) -> Any:
        """`reading.hf_dataset.to_hf`: the selection as a `datasets.Dataset`, weights not copied."""
        return hf_dataset.to_hf(self, columns)
