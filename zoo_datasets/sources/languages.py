"""A formal language → strings, and the symbol that follows each: what networks of languages predict.

In:  the name of a language, like "a^n b^(n+1) c^n"; how many steps, and where its strings' random numbers come from.
Out: symbols (n, T) and those that follow them (n, T).

A string has for one n each letter so often as the name says, all of a letter together. It starts and ends with the sign
`#`, and after the end come further `#`. n is drawn evenly from 1 to the largest for which the string fits. Families of such
languages, told apart by the numbers added to n, are what Herrmann, Faccio and Schmidhuber, "Learning Useful Representations
of Recurrent Neural Network Weight Matrices" (ICML 2024), trained networks on; this is our own way to make them.
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Int64

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError

END = "#"
MOST_LETTERS, MOST_ADDED = 8, 99
_LETTER = re.compile(r"([a-z])\^(?:n|\(n\+(\d{1,2})\))")


def letters(language: str) -> list[tuple[str, int]]:
    """The letters of a language in order, and what is added to n for each. Raises GridError."""
    found = [_LETTER.fullmatch(word) for word in language.split(" ")]
    if not all(found) or len(found) > MOST_LETTERS or len({m[1] for m in found if m}) < len(found):
        raise GridError(
            f"Language {language!r} is none; write letters and how often each comes, like 'a^n b^n' or 'a^n b^(n+2) c^n': at "
            f"most {MOST_LETTERS} different letters, and up to {MOST_ADDED} added."
        )
    return [(m[1], int(m[2] or 0)) for m in found if m]


def symbols(language: str) -> tuple[str, ...]:
    """All signs of its strings; the first starts and ends them."""
    return (END, *(letter for letter, _ in letters(language)))


def strings(
    language: str, n: int, steps: int, key: str
) -> tuple[Int64[np.ndarray, "n steps"], Int64[np.ndarray, "n steps"]]:
    """n strings, shown symbol by symbol, and what follows each symbol. Raises GridError where none fits."""
    added = np.array([more for _, more in letters(language)])
    most = (steps - 1 - int(added.sum())) // len(added)  # a `#` starts it, and one follows
    if most < 1:
        least = 1 + int(added.sum()) + len(added)
        raise GridError(
            f"Language {language!r} has no string of {steps} steps; its shortest takes {least}: source.steps."
        )
    lengths = 1 + streams.integers(key, np.full(n, most))[:, None] + added  # (n, letters)
    ends = 1 + np.concatenate([np.zeros((n, 1), np.int64), np.cumsum(lengths, axis=1)], axis=1)
    at = np.arange(steps + 1)
    place = (at >= ends[:, :, None]).sum(axis=1)  # (n, T + 1): 0 the start, 1 … the letters, then the end
    whole = np.where(place > len(added), 0, place)
    return whole[:, :-1], whole[:, 1:]
