"""Commands → what a machine puts out, step by step: the state machines that recurrent networks learn.

In:  commands (n, T, 9): a strobe and eight data bits, 0 without a strobe; or symbols of an automaton.
Out: outputs (n, T, 8), 0 or 1, of the state after each command; of an automaton (n, T, bits).

The machines of Clemens, "MLDS" (arXiv:2104.10555, 2021), whose definitions cannot be read any more: these are ours under
their names, and agree with what was published of them (nine inputs, eight outputs, which are hard to learn). An eight-bit
register r starts at 0, and a strobe writes the data bits into it:

* EightBit: r. SingleDirect: r₀. SingleInvert: 1 − r₀. SimpleXOR: r₀ ⊕ r₁. Parity: the parity of r; other outputs are 0.
* modified: where the strobes of the steps right before are the key, the outputs that are not always 0 are inverted.
* Automaton: a random deterministic one of eight symbols, with output bits for each state. It is drawn again until every
  state can be reached from every other and no two do the same, so that it has as many states as it says.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError

FEATURES, OUTPUTS = 9, 8  # of a machine
SYMBOLS = 8  # of an automaton
MOST_STATES, MOST_BITS, MOST_DRAWS = 1000, 8, 200  # one of 2 states and a bit is good in one draw of three
Commands = UInt8[np.ndarray, "n steps features"]
Outputs = UInt8[np.ndarray, "n steps outputs"]


def register(commands: Commands) -> Outputs:
    """The byte that each step leaves in the register, bit by bit."""
    steps = np.arange(commands.shape[1])
    written = np.maximum.accumulate(np.where(commands[:, :, 0] > 0, steps, -1), axis=1)  # (n, T)
    byte = np.take_along_axis(commands[:, :, 1:], np.maximum(written, 0)[:, :, None], axis=1)
    return byte * (written >= 0)[:, :, None].astype(np.uint8)


def _first(bit: Callable[[Outputs], UInt8[np.ndarray, "n steps"]]) -> Callable[[Commands], Outputs]:
    """The machine whose first output is a bit made of the register; the others are 0."""

    def machine(commands: Commands) -> Outputs:
        byte = register(commands)
        out = np.zeros_like(byte)
        out[:, :, 0] = bit(byte)
        return out

    return machine


MACHINES: dict[str, Callable[[Commands], Outputs]] = {
    "EightBit": register,
    "SingleDirect": _first(lambda r: r[:, :, 0]),
    "SingleInvert": _first(lambda r: 1 - r[:, :, 0]),
    "SimpleXOR": _first(lambda r: r[:, :, 0] ^ r[:, :, 1]),
    "Parity": _first(lambda r: np.bitwise_xor.reduce(r, axis=2)),
}
AUTOMATON = "Automaton"
LIVE = {"EightBit": OUTPUTS}  # outputs that are not always 0; of the others one


def after_key(strobes: UInt8[np.ndarray, "n steps"], key: str) -> Bool[np.ndarray, "n steps"]:
    """Which steps come right after the key."""
    found = np.zeros(strobes.shape, bool)
    for step in range(len(key), strobes.shape[1]):
        found[:, step] = (strobes[:, step - len(key) : step] == _bits(key)).all(axis=1)
    return found


def with_key_at_rate(
    strobes: UInt8[np.ndarray, "n steps"], key: str, rate: float, places: Int64[np.ndarray, " n"]
) -> None:
    """Leave the key in exactly this share of sequences, in any first so many of them, in place; others never have it.

    Where a step would complete the key, its strobe is turned; then the key is written at its place, a step before the end
    or earlier, so that something follows.
    """
    width, n = len(key), len(strobes)
    for end in range(width, strobes.shape[1] + 1):
        strobes[(strobes[:, end - width : end] == _bits(key)).all(axis=1), end - 1] ^= 1
    share = np.floor(np.arange(n + 1) * rate + 1e-9)
    chosen = np.flatnonzero(np.diff(share) > 0)
    strobes[chosen[:, None], places[chosen, None] + np.arange(width)] = _bits(key)


def _bits(key: str) -> UInt8[np.ndarray, " k"]:
    return np.array([int(bit) for bit in key], np.uint8)


# ── automata ─────────────────────────────────────────────────────────────────────────


class Automaton(NamedTuple):
    """A deterministic automaton that starts in state 0."""

    next: Int64[np.ndarray, "states symbols"]
    bits: UInt8[np.ndarray, "states bits"]

    def run(self, symbols: Int64[np.ndarray, "n steps"]) -> Outputs:
        """The bits of the state after each symbol."""
        state = np.zeros(len(symbols), np.int64)
        out = np.empty((*symbols.shape, self.bits.shape[1]), np.uint8)
        for step in range(symbols.shape[1]):
            state = self.next[state, symbols[:, step]]
            out[:, step] = self.bits[state]
        return out


@functools.lru_cache(maxsize=256)
def automaton(number: int, states: int, bits: int) -> Automaton:
    """The automaton of that number: the first good one of its draws. Raises GridError where there is none."""
    if not 2 <= states <= MOST_STATES or not 1 <= bits <= MOST_BITS:
        raise GridError(
            f"An automaton has 2 to {MOST_STATES} states and 1 to {MOST_BITS} bits; {states} states and {bits} bits were asked for."
        )
    for turn in range(MOST_DRAWS):
        key = streams.stream_key(["automaton", number, states, bits, turn])
        arrows = streams.integers(key, np.full(states * SYMBOLS, states)).reshape(states, SYMBOLS)
        flags = streams.integers(key, np.full(states * bits, 2), (1, 0, streams.SEQUENCE)).reshape(states, bits)
        made = Automaton(arrows, flags.astype(np.uint8))
        if connected(made) and minimal(made):
            return made
    raise GridError(
        f"Automaton {number} has no good draw among {MOST_DRAWS} of {states} states and {bits} bits; take others."
    )


def connected(made: Automaton) -> bool:
    """Whether every state can be reached from every other."""
    states = len(made.next)
    arrows = np.zeros((states, states), bool)
    arrows[np.repeat(np.arange(states), SYMBOLS), made.next.ravel()] = True

    def all_from_first(arrows: np.ndarray) -> bool:
        reached = np.zeros(states, bool)
        reached[0] = True
        while not np.array_equal(more := reached | arrows[reached].any(axis=0), reached):
            reached = more
        return bool(reached.all())

    return all_from_first(arrows) and all_from_first(arrows.T)


def minimal(made: Automaton) -> bool:
    """Whether some symbols tell any two states apart (Moore's refinement of a partition)."""
    kinds, count = np.unique(made.bits, axis=0, return_inverse=True)[1].reshape(-1), 0
    while count < (count := len(np.unique(kinds))):
        kinds = np.unique(np.column_stack([kinds, kinds[made.next]]), axis=0, return_inverse=True)[1].reshape(-1)
    return count == len(made.next)
