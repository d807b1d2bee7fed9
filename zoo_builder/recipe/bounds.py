"""How much a recipe may ask for, said before any of it is worked out.

In:  numbers: levels and points, replicates, updates, snapshots, values of a network.
Out: nothing, or a GridError with the number, the most there may be, and the way out.

The bounds are constants and no machine's: the same recipe is a recipe everywhere. Each is far above
what a population of small networks takes, and low enough that a plan of it fits in 1 GB.
"""

from __future__ import annotations

from zoo_datasets.errors import GridError

MOST_POINTS = 1_000_000  # crossed: they are sorted by a hash of each, whatever the limit
MOST_MODELS = 150_000  # of one zoo: a plan takes 0.2 ms and 3 kB of each, in all half a minute and 0.5 GB
MOST_UPDATES = 1_000_000_000  # of one model: days, at 100 µs each
MOST_SNAPSHOTS = 50_000  # of one model: all of them are kept until it is trained
MOST_HASHED = 1_000_000_000  # characters: every model's id is a hash of its whole recipe
MOST_COHORT_BYTES = 8 << 30  # what a worker holds of its cohort; workers share a machine


def check_points(where: str, axes: dict[str, int]) -> int:
    """The number of crossed points of axes with so many levels. Raises GridError."""
    points = 1
    for levels in axes.values():
        points *= levels
    if points > MOST_POINTS:
        raise GridError(
            f"{where}: the axes cross to {points:,} points ({' × '.join(map(str, axes.values()))} levels); at most "
            f"{MOST_POINTS:,}. Use fewer levels, or draw points at random: `sample: {{models: 1000, axes: …}}`."
        )
    return points


def check_models(where: str, points: int, replicates: int, limit: int | None, characters: int) -> None:
    """Raises GridError where a zoo would have too many models. `characters`: of the recipe, as JSON."""
    models = min(points * replicates, limit or points * replicates)
    if models > MOST_MODELS:
        raise GridError(
            f"{where}: the recipe asks for {models:,} models ({points:,} points, {replicates:,} replicates); a zoo has "
            f"at most {MOST_MODELS:,}. Ask for fewer, build the first of them with `--limit N`, or make several zoos, "
            "each with a `seed` of its own."
        )
    if models * characters > MOST_HASHED:
        raise GridError(
            f"{where}: {models:,} models of a recipe of {characters:,} characters are too many, because each keeps its "
            "whole recipe. Shorten its lists, or build the first of them with `--limit N`."
        )


def check_updates(updates: int, what: str = "Training") -> None:
    """Raises GridError where a model would be trained for years."""
    if updates > MOST_UPDATES:
        raise GridError(f"{what} is {updates:,} updates of one model; at most {MOST_UPDATES:,}. Lower the budget.")


def check_snapshots(snapshots: int, schedule: str) -> None:
    """Raises GridError where a model would have too many snapshots."""
    if snapshots > MOST_SNAPSHOTS:
        raise GridError(
            f"`snapshots: {schedule}` is {snapshots:,} snapshots of one model; at most {MOST_SNAPSHOTS:,}. Take fewer, "
            "like `{evenly: 100}`."
        )


def check_cohort(models: int, values: int, copies: int, inputs: int, activations: int, logits: int) -> None:
    """Raises GridError where a worker could not hold a cohort: its weights, their snapshots, batches, rows and answers.

    `values` of each network, of which `copies` are kept; `inputs` it trains on; `activations` of a batch; `logits` that are scored at once.
    """
    size = models * (4 * values * copies + 40 * inputs + 4 * activations + 4 * logits)
    if size > MOST_COHORT_BYTES:
        raise GridError(
            f"A cohort of {models:,} models takes {size / 1e9:,.1f} GB while it trains ({values:,} values each, "
            f"{copies:,} copies with their snapshots, {activations:,} outputs of layers in a batch, {logits:,} outputs "
            f"to be scored); at most {MOST_COHORT_BYTES / 1e9:.1f} GB. Lower `cohort_size` or `batch_size`, or take smaller layers, fewer "
            "snapshots or fewer examples."
        )
