"""The splits of a dataset → which rows are which part of the source.

In:  how a recipe divides (`SourceSpec`), and of each split which rows may be used.
Out: for train, validation and test the split it is taken from, and rows of it.

Which rows are in which part is fixed by the source alone. One permutation per split of the
dataset, of `stream_key(["source", id, split])`: train takes its first rows, validation the
last ones, test the first of the test split's; in a dataset of one split, test takes the last
and validation those before them. A validation split of its own serves as one, and as test
where there is no other. Rows that may not be used are passed over; the rest keep their order.
`split_seed` divides a dataset of one split as scikit-learn's `train_test_split` does, for
comparison with published work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, alternatives, unknown
from zoo_datasets.sources.spec import SourceSpec

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


def members(name: str, known: Iterable[str]) -> list[str]:
    """The splits that `train+extra` joins; a name that a split has is that split."""
    return [name] if name in known else name.split("+")


def named(spec: SourceSpec) -> list[str]:
    """The splits that a recipe names, joined or not."""
    return [n for n in (spec.train_split, spec.validation_split, spec.test_split) if n is not None]


def roles(spec: SourceSpec, splits: list[str]) -> tuple[str, str, str]:
    """The splits that hold train, validation and test inputs; the train split where there is no other.

    Raises GridError where there is doubt, or two parts would share rows.
    """
    if not splits:
        raise GridError(f"Source {spec.id!r} has no split with labels; it cannot be learned from.")
    for name in named(spec):
        if len(set(members(name, splits))) < len(members(name, splits)):
            raise GridError(f"Source {spec.id!r} is asked for a split twice in {name!r}; its rows would count twice.")
    taken = {m for name in named(spec) for m in members(name, splits)}
    for name in taken:
        if name not in splits:
            raise GridError(unknown("split", name, splits, f"source {spec.id!r}"))
    train = spec.train_split or _train(spec, splits, taken)
    free = [name for name in splits if name not in taken | {train}]
    held_out = next((name for name in VALIDATION_NAMES if name in free), train)
    test = spec.test_split or ("test" if "test" in free else None)
    validation = spec.validation_split or (held_out if test else train)
    result = train, validation, test or held_out
    for a in result:
        for b in result:
            both = set(members(a, splits)) & set(members(b, splits))
            if a != b and both:
                raise GridError(
                    f"Source {spec.id!r} has split {min(both)!r} in {a!r} and in {b!r}: the same rows would be in two parts. "
                    "Name splits that share none."
                )
    return result


def _train(spec: SourceSpec, splits: list[str], taken: set[str]) -> str:
    if "train" in splits:
        return "train"
    rest = [name for name in splits if name not in taken] or splits
    if len(rest) > 1:
        raise GridError(
            f"Source {spec.id!r} has no split 'train'; it has {alternatives(splits)}. Name one, or several joined by +, as "
            "source.train_split."
        )
    return rest[0]


def divided(
    spec: SourceSpec, usable: Mapping[str, np.ndarray], parts: tuple[str, str, str]
) -> dict[str, tuple[str, np.ndarray]]:
    """Part → (split, rows of it), from which rows of each split may be used, (N,) bool. Raises GridError."""
    train, validation, test = parts
    lengths = {name: int(mask.sum()) for name, mask in usable.items()}
    n = lengths[train]
    default = lengths[validation] if validation not in (train, test) else max(1, lengths[validation] // 10)
    n_validation = default if spec.validation is None else spec.validation
    whole = lengths[test] - (n_validation if validation == test else 0)
    n_test = spec.test or (max(1, whole) if test != train else max(1, n // 5))
    held_out = n_validation * (validation == train) + n_test * (test == train)
    n_train = spec.train or max(1, n - held_out)
    asked = {"train": (train, n_train), "validation": (validation, n_validation), "test": (test, n_test)}
    for split in dict.fromkeys(parts):
        here = {part: count for part, (where, count) in asked.items() if where == split}
        if sum(here.values()) > lengths[split]:
            raise GridError(
                f"Source {spec.id!r} holds {lengths[split]} images in its split {split!r}; the grid needs "
                + " + ".join(f"{part} {count}" for part, count in here.items())
                + ". Ask for fewer; a count left out has its default."
            )
    if spec.split_seed is not None:
        return _as_scikit_learn(spec, parts, usable[train], n_train, n_validation, n_test)
    order = _order_of(spec, usable)
    rows = order(train)
    end = n - n_test if test == train else n
    of_test = rows[end:] if test == train else order(test)[:n_test]
    if validation == train:
        of_validation = rows[end - n_validation : end]
    elif validation == test:
        of_validation = order(test)[lengths[test] - n_validation :]
    else:
        of_validation = order(validation)[:n_validation]
    return {"train": (train, rows[:n_train]), "validation": (validation, of_validation), "test": (test, of_test)}


def _order_of(spec: SourceSpec, usable: Mapping[str, np.ndarray]) -> Callable[[str], np.ndarray]:
    def order(split: str) -> np.ndarray:
        rows = streams.permutation(streams.stream_key(["source", spec.id, split]), len(usable[split]))
        kept: np.ndarray = rows[usable[split][rows]]
        return kept

    return order


def _as_scikit_learn(
    spec: SourceSpec, parts: tuple[str, str, str], usable: np.ndarray, n_train: int, n_validation: int, n_test: int
) -> dict[str, tuple[str, np.ndarray]]:
    """Test first, then train, as `train_test_split` of this `random_state` takes them; validation the last."""
    train = parts[0]
    if len(set(parts)) > 1:
        raise GridError(f"Source {spec.id!r} has splits of its own; split_seed divides a dataset of one split.")
    # RandomState's stream is frozen by NumPy (NEP 19).
    rows = np.flatnonzero(usable)
    rows = rows[np.random.RandomState(spec.split_seed).permutation(len(rows))]
    return {
        "train": (train, rows[n_test : n_test + n_train]),
        "validation": (train, rows[len(rows) - n_validation :]),
        "test": (train, rows[:n_test]),
    }
