"""A source's labels and a model's data axes → the examples that the model sees.

In:  the labels of a source's train part, a `Subset`, the key of the subset stream.
Out: rows, labels as trained, clean labels, which images carry the trigger; the order of an epoch.

Every training image has one rank per stream, whatever the subset, so subsets of one key are
nested in their fractions. Turns of the key (golden values: tests/sources/test_sources.py):

* turn 0: subset rank. Of each class in play, the first max(1, round(frac · n_class)); with class_shares,
  frac times that of the class; with skip, after the first round(skip · n_class): parts without a common image, of classes of two or more.
* turn 1: noise rank. Of the model's own set, the first round(label_noise_frac · n).
* turn 2: the word of an image; its top 24 bits pick the wrong label among the other classes in
  play, in ascending order: (bits · (k − 1)) >> 24.
* turn 3: trigger rank. Of the set's images that are open to it (`triggers.open_to`), the first
  round(trigger_frac · n), n the size of the set. The trigger's label wins over noise.

Classes are balanced by what the source says an image shows: noise and triggers change labels, not what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, Shaped

from zoo_datasets.core import exact, streams
from zoo_datasets.errors import GridError
from zoo_datasets.sources import triggers
from zoo_datasets.sources.subset import Subset, relabeled

SUBSET_TURN, NOISE_TURN, WRONG_LABEL_TURN, TRIGGER_TURN = range(4)

TURNED_AT_ONCE = 4096  # images: float64 takes eight times their bytes


@dataclass(frozen=True)
class Examples:
    """What one model saw. `rows` are ascending positions in the source's train part."""

    rows: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]  # as trained: noise and trigger target in
    clean_labels: Int64[np.ndarray, " n"]
    poisoned: Bool[np.ndarray, " n"]  # the trigger is stamped on the image
    rotate_degrees: float = 0.0  # every image is turned by so much


def training_examples(labels: Integer[np.ndarray, " n"], n_classes: int, subset: Subset, key: str) -> Examples:
    """The examples of the model with this subset key. `labels` are those of the train part.

    Raises GridError as `check_subset` does.
    """
    check_subset(subset, n_classes, labels)
    in_play = np.array(subset.in_play(n_classes), np.int64)
    ranked = streams.permutation(key, len(labels), SUBSET_TURN)
    first = [
        of_class[subset.taken(c, len(of_class))]
        for c, of_class in zip(in_play.tolist(), _by_class(ranked, labels, in_play), strict=True)
    ]
    rows = np.sort(np.concatenate(first))
    clean = labels[rows].astype(np.int64)

    trained = clean.copy()
    noisy = _lowest(key, NOISE_TURN, len(labels), rows, round(subset.label_noise_frac * len(rows)))
    trained[noisy] = _wrong_labels(key, len(labels), in_play, rows[noisy], clean[noisy])

    poisoned = np.zeros(len(rows), bool)
    if subset.trigger_frac:
        open_to_it = np.flatnonzero(triggers.open_to(clean, subset))
        count = round(subset.trigger_frac * len(rows))
        poisoned[open_to_it[_lowest(key, TRIGGER_TURN, len(labels), rows[open_to_it], count)]] = True
        trained[poisoned] = subset.trigger_target
    return Examples(rows, relabeled(trained, subset), relabeled(clean, subset), poisoned, subset.rotate_degrees)


def count_examples(labels: Integer[np.ndarray, " n"], n_classes: int, subset: Subset) -> int:
    """How many examples these are, whatever the key. Raises GridError as `check_subset` does."""
    check_subset(subset, n_classes, labels)
    of_class = np.bincount(labels, minlength=n_classes)
    return sum(_count(subset, c, int(of_class[c])) for c in subset.in_play(n_classes))


def altered(images: Shaped[np.ndarray, " n *shape"], subset: Subset) -> Shaped[np.ndarray, " n *shape"]:
    """Raw images as models of this subset train on them, before the trigger is stamped."""
    return turned(images, subset.rotate_degrees)


def turned(images: Shaped[np.ndarray, " n *shape"], degrees: float) -> Shaped[np.ndarray, " n *shape"]:
    """Raw images (n, C, H, W) turned counterclockwise about their middle, in their own type.

    Bilinear, 0 outside, rounded to the nearest whole raw value (halves to even) where raw values are whole. float64 + − × and
    our own cosine: the same bytes on every machine. Raises GridError for a table.
    """
    if degrees == 0:
        return images
    if images.ndim != 4:
        raise GridError("Subset has rotate_degrees, which turn images; this source is a table.")
    height, width = images.shape[2:]
    at_row, at_column = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    cosine, sine = _cosine(degrees), _cosine(degrees - 90.0)
    row = (height - 1) / 2 + (at_column[None] * sine + at_row[:, None] * cosine)  # (H, W)
    column = (width - 1) / 2 + (at_column[None] * cosine - at_row[:, None] * sine)
    top, left = np.floor(row), np.floor(column)
    down, right = row - top, column - left
    corners = []  # row and column in the padded image, and weight, of the four pixels around each place
    for dy, dx, weight in (
        (0, 0, (1 - down) * (1 - right)), (0, 1, (1 - down) * right), (1, 0, down * (1 - right)), (1, 1, down * right),
    ):  # fmt: skip
        y, x = np.clip(top + dy + 1, 0, height + 1), np.clip(left + dx + 1, 0, width + 1)
        corners.append((y.astype(np.int64), x.astype(np.int64), weight))
    out = np.empty_like(images)
    for start in range(0, len(images), TURNED_AT_ONCE):
        part = slice(start, start + TURNED_AT_ONCE)
        padded = np.pad(images[part], ((0, 0), (0, 0), (1, 1), (1, 1)))  # what is outside reads the black border
        total = np.zeros(images[part].shape)  # (n, C, H, W) float64
        for y, x, weight in corners:
            total += padded[:, :, y, x] * weight
        out[part] = np.rint(total) if images.dtype.kind in "iu" else total
    return out


def _cosine(degrees: float) -> float:
    turn = abs(degrees) % 360.0 / 180.0  # in half turns, [0, 2)
    return exact.cosine_half(min(turn, 2.0 - turn))


def steps_per_epoch(n_train: int, batch_size: int) -> int:
    """Updates in one pass over a model's training examples; the last batch may be short."""
    return -(-n_train // batch_size)


def epoch_order(
    key: str, epoch: int, n_train: int, rows: Int64[np.ndarray, " n"], classes: Integer[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " k"]:
    """Positions into `rows` for one epoch: the full train part's order, filtered.

    With `classes`, those of the rows, the epoch has as many of each class as there are of the rarest: others each time.
    """
    position = np.full(n_train, -1, np.int64)
    shown = np.arange(len(rows)) if classes is None else _balanced(key, epoch, n_train, rows, classes)
    position[rows[shown]] = shown
    order = position[streams.permutation(key, n_train, epoch)]
    kept: np.ndarray = order[order >= 0]
    return kept


def count_balanced(labels: Integer[np.ndarray, " n"], n_classes: int, subset: Subset) -> int:
    """How many examples an epoch with as many of each class shows. Raises GridError as `check_subset` does."""
    check_subset(subset, n_classes, labels)
    of_class = np.bincount(labels, minlength=n_classes).tolist()
    sizes: list[int] = [_count(subset, c, of_class[c]) for c in subset.in_play(n_classes) if of_class[c]]
    return len(sizes) * min(sizes)


def _balanced(key: str, epoch: int, n_train: int, rows: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Positions into `rows`, of which each class that there is has equally many."""
    words = streams.words(key, n_train, (epoch, 0, streams.BALANCE))[rows]
    ranked = np.argsort(words, kind="stable")
    kinds, counts = np.unique(classes, return_counts=True)
    of_class = classes[ranked]
    return np.concatenate([ranked[of_class == kind][: counts.min()] for kind in kinds])


def check_subset(
    subset: Subset, n_classes: int, labels: Integer[np.ndarray, " n"], input_shape: tuple[int, ...] | None = None
) -> None:
    """Raises GridError for a subset that these training labels, or images, cannot give."""
    _check_fraction("frac", subset.frac)
    if subset.frac == 0:
        raise GridError("Subset has frac 0; expected more than 0: a model needs at least one image of each class.")
    _check_fraction("skip", subset.skip)
    if subset.skip and subset.skip + subset.frac > 1 + 1e-9:
        raise GridError(
            f"Subset has skip {subset.skip} and frac {subset.frac}, which together are more than there is; "
            f"take frac {1 - subset.skip:g} at most."
        )
    _check_fraction("label_noise_frac", subset.label_noise_frac)
    _check_fraction("trigger_frac", subset.trigger_frac)
    _check_fraction("trigger_value", subset.trigger_value)
    if subset.rotate_degrees and input_shape is not None and len(input_shape) != 3:
        raise GridError("Subset has rotate_degrees, which turn images; this source is a table.")
    _check_classes(subset, n_classes)
    of_class = np.bincount(labels, minlength=n_classes)
    for label in subset.in_play(n_classes):
        if subset.classes is not None and not of_class[label]:
            raise GridError(f"Subset asks for class {label}, of which the train part holds no image.")
    if subset.label_noise_frac and len(subset.in_play(n_classes)) < 2:
        raise GridError("Subset has label noise and one class; a wrong label needs a second class.")
    counts = {c: _count(subset, c, int(of_class[c])) for c in subset.in_play(n_classes) if of_class[c]}
    if subset.skip and (lacking := [c for c, n in counts.items() if n < 1]):
        raise GridError(
            f"Subset has skip {subset.skip} and frac {subset.frac}, which leave none of the {of_class[lacking[0]]} training examples of "
            f"class {lacking[0]}. Take a smaller skip, or more training examples."
        )
    triggers.check(subset, n_classes, counts)
    if subset.trigger_frac and input_shape is not None:
        triggers.check_fits(subset, input_shape)
        if not round(subset.trigger_frac * sum(counts.values())):
            raise GridError(
                f"Subset has trigger_frac {subset.trigger_frac}, which stamps none of {sum(counts.values())} images."
            )


def _count(subset: Subset, label: int, n: int) -> int:
    taken = subset.taken(label, n)
    return int(taken.stop - taken.start)


def _by_class(ranked: np.ndarray, labels: np.ndarray, in_play: np.ndarray) -> list[np.ndarray]:
    """The rows of each class, in the order of their ranks."""
    labels_ranked = labels[ranked]
    return [ranked[labels_ranked == label] for label in in_play]


def _lowest(key: str, turn: int, n: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Positions in the ascending `rows` of its `count` rows with the lowest ranks of this turn."""
    if not count:
        return np.zeros(0, np.int64)
    ranked = streams.permutation(key, n, turn)
    chosen = ranked[np.isin(ranked, rows, assume_unique=True)][:count]
    return np.searchsorted(rows, chosen)


def _wrong_labels(key: str, n: int, in_play: np.ndarray, rows: np.ndarray, clean: np.ndarray) -> np.ndarray:
    if not len(rows):
        return clean
    bits = streams.words(key, n, (WRONG_LABEL_TURN, 0, streams.SEQUENCE))[rows] >> np.uint64(40)
    pick = ((bits * np.uint64(len(in_play) - 1)) >> np.uint64(24)).astype(np.int64)
    own = np.searchsorted(in_play, clean)
    wrong: np.ndarray = in_play[pick + (pick >= own)]  # step over the image's own class
    return wrong


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:  # also refuses NaN
        raise GridError(f"Subset has {name} {value}; expected a fraction from 0 to 1.")


def _check_classes(subset: Subset, n_classes: int) -> None:
    if subset.class_shares is not None:
        if len(subset.class_shares) != n_classes:
            raise GridError(f"Subset has {len(subset.class_shares)} class_shares; the source has {n_classes} classes.")
        if not all(0 < share <= 1 for share in subset.class_shares):  # also refuses NaN
            raise GridError(
                f"Subset has class_shares {list(subset.class_shares)}; expected numbers above 0, and at most 1. "
                "A class is left out by `classes`."
            )
    classes = subset.classes
    if classes is None:
        if subset.relabel:
            raise GridError("Subset has relabel and no classes; name the classes that become 0, 1, ….")
        return
    if not classes:
        raise GridError("Subset has an empty list of classes; name at least one, or leave it out for all.")
    if len(set(classes)) < len(classes):
        raise GridError(f"Subset names a class twice: {list(classes)}.")
    for label in classes:
        if not 0 <= label < n_classes:
            raise GridError(f"Subset asks for class {label}; the source has classes 0 to {n_classes - 1}.")
