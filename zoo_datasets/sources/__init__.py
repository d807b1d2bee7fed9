"""Source name → the arrays that small networks learn.

`SourceSpec` (what a recipe says) → `load` → `Source` (three parts and their scaling); the data
axes of one model are `Subset` → `training_examples`.
"""

from zoo_datasets.sources.embedded import EMBEDDED
from zoo_datasets.sources.examples import (
    Examples,
    altered,
    check_subset,
    count_balanced,
    count_examples,
    epoch_order,
    steps_per_epoch,
    training_examples,
    turned,
)
from zoo_datasets.sources.source import load
from zoo_datasets.sources.spec import SCALES, Part, Source, SourceSpec, check_spec, training_images
from zoo_datasets.sources.subset import Subset, relabeled
from zoo_datasets.sources.triggers import check_shows, stamp

__all__ = [
    "EMBEDDED", "SCALES", "Examples", "Part", "Source", "SourceSpec", "Subset", "altered", "check_shows", "check_spec", "check_subset",
    "count_balanced", "count_examples", "epoch_order", "load", "relabeled", "stamp", "steps_per_epoch", "training_examples", "training_images",
    "turned",
]  # fmt: skip
