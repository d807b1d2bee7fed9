"""The spec of a source that is made here → its sequences, and what is right at each step.

In:  a `SourceSpec` of `machine` or `language`; of a machine of the user's own, the Python file that it is a function of.
Out: the names of its outputs, and three parts. The same on every machine, from the spec alone.

Draws of training and validation data are independent of each other; the test part is the same for all of them. Every
machine of a draw gets the same commands, so that clean and modified twins, and machines, differ in what is put out alone.
A file is run only for a caller who names it: nothing that a zoo says leads here to code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, ZooNotFoundError, unknown
from zoo_datasets.sources import languages, machines
from zoo_datasets.sources.spec import MADE_ONLY, Part, SourceSpec

COUNTS = {"train": 2048, "validation": 512, "test": 512}  # where the spec does not say
MOST_STEPS, MOST_KEY, MOST_OUTPUTS = 10_000, 16, 1024
MOST_BYTES = 2 << 30  # of one part
FOR = {"machine": frozenset(MADE_ONLY) - {"language"}, "language": frozenset({"draw", "steps", "language"})}
AUTOMATON_ONLY = ("automaton", "states", "bits")
OTHERS_ONLY = ("modified", "key", "key_rate")


def made(spec: SourceSpec, path: str | Path | None = None) -> tuple[tuple[str, ...], dict[str, Part]]:
    """The names of outputs or symbols, and the parts. Raises GridError, ZooNotFoundError."""
    _check(spec, path)
    counts = {part: default if (n := getattr(spec, part)) is None else n for part, default in COUNTS.items()}
    if max(counts.values()) * spec.steps * machines.FEATURES > MOST_BYTES:
        raise GridError(
            f"Source {spec.id!r} of {max(counts.values()):,} sequences of {spec.steps:,} steps is too large; ask for fewer."
        )
    make = (
        _language
        if spec.id == "language"
        else _automaton
        if spec.machine == machines.AUTOMATON
        else _machine(spec, path)
    )
    parts = {}
    for part, n in counts.items():
        inputs, outputs = make(spec, part, n)
        parts[part] = Part(inputs, np.zeros(n, np.int64), np.arange(n), outputs)
        for array in (inputs, outputs, parts[part].labels, parts[part].index):
            array.setflags(write=False)  # shared by every caller
    if spec.id == "language":
        return languages.symbols(spec.language or ""), parts
    widths = {name: part.outputs.shape[2] for name, part in parts.items() if part.outputs is not None}
    if len(set(widths.values())) > 1:  # a machine of the user's own may count its sequences
        raise GridError(
            f"The machine {spec.machine!r} of {str(path)!r} puts out {', '.join(f'{n} outputs of {p}' for p, n in widths.items())}; "
            "expected as many of each part."
        )
    return tuple(f"y{i}" for i in range(widths["train"])), parts


def _check(spec: SourceSpec, path: str | Path | None) -> None:
    where = f"Source {spec.id!r}"
    for name in MADE_ONLY:
        unlike = getattr(spec, name) != getattr(SourceSpec, name)
        if unlike and name not in FOR[spec.id]:
            raise GridError(f"{where} takes no {name}.")
        if unlike and name in (OTHERS_ONLY if spec.machine == machines.AUTOMATON else AUTOMATON_ONLY):
            raise GridError(f"{where} has {name}, which means nothing to the machine {spec.machine!r}.")
    for name in NOT_OF_SEQUENCES:
        if getattr(spec, name) != getattr(SourceSpec, name):
            raise GridError(f"{where} is made of sequences and takes no {name}: that is of images, tables and files.")
    if not 1 <= spec.steps <= MOST_STEPS:
        raise GridError(
            f"{where} has sequences of {spec.steps:,} steps; 1 to {MOST_STEPS:,} are possible: source.steps."
        )
    if spec.draw < 0 or spec.automaton < 0:
        raise GridError(f"{where} has draw {spec.draw} and automaton {spec.automaton}; both count from 0.")
    if spec.id == "language":
        if path is not None or spec.language is None:
            raise GridError(f"{where} needs the name of one, source.language, like 'a^n b^n', and no path.")
        languages.letters(spec.language)
        return
    if spec.machine is None:
        raise GridError(
            f"{where} needs the name of one: source.machine. Known: {', '.join((*machines.MACHINES, machines.AUTOMATON))}."
        )
    if not 1 <= len(spec.key) <= min(MOST_KEY, spec.steps - 1) or set(spec.key) - {"0", "1"}:
        if spec.modified or spec.key_rate is not None:
            raise GridError(
                f"{where} has key {spec.key!r}; write command bits, like '101', from 1 to {MOST_KEY} and fewer than the "
                f"{spec.steps} steps."
            )
    if spec.key_rate is not None and not 0 <= spec.key_rate <= 1:
        raise GridError(f"{where} has key_rate {spec.key_rate}; expected a share of sequences from 0 to 1.")


# Fields that speak of images, tables, and files.
NOT_OF_SEQUENCES = (
    "config", "resize", "channels", "image_column", "label_column", "features", "split_seed", "image_columns", "image_layout",
    "unlabeled", "train_split", "validation_split", "test_split", "revision",
)  # fmt: skip


def _key(what: str, spec: SourceSpec, part: str) -> str:
    """Of the random numbers of a part: those of test are the same for all draws."""
    return streams.stream_key([what, part, spec.draw if part != "test" else None, spec.steps])


def commands(spec: SourceSpec, part: str, n: int) -> np.ndarray:
    """(n, T, 9) uint8: strobes and data bits, each 1 half the time; the key at its rate in training and validation."""
    key, steps, width = _key("commands", spec, part), spec.steps, len(spec.key)
    words = -(-steps * machines.FEATURES // 64)
    raw = streams.words(key, n * words).astype("<u8").view(np.uint8).reshape(n, words * 8)
    drawn = np.unpackbits(raw, axis=1)[:, : steps * machines.FEATURES].reshape(n, steps, machines.FEATURES)
    if spec.key_rate is not None and part != "test":
        places = streams.integers(key, np.full(n, steps - width), (1, 0, streams.SEQUENCE))
        machines.with_key_at_rate(drawn[:, :, 0], spec.key, spec.key_rate, places)
    drawn[:, :, 1:] *= drawn[:, :, :1]  # no data without a strobe
    return drawn


def _automaton(spec: SourceSpec, part: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    drawn = streams.integers(_key("symbols", spec, part), np.full(n * spec.steps, machines.SYMBOLS)).reshape(
        n, spec.steps
    )
    outputs = machines.automaton(spec.automaton, spec.states, spec.bits).run(drawn)
    return np.eye(machines.SYMBOLS, dtype=np.uint8)[drawn], outputs


def _language(spec: SourceSpec, part: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    assert spec.language is not None
    shown, following = languages.strings(spec.language, n, spec.steps, _key("strings", spec, part))
    return np.eye(len(languages.symbols(spec.language)), dtype=np.uint8)[shown], following


def _machine(
    spec: SourceSpec, path: str | Path | None
) -> Callable[[SourceSpec, str, int], tuple[np.ndarray, np.ndarray]]:
    assert spec.machine is not None
    run = (
        machines.MACHINES[spec.machine]
        if path is None and spec.machine in machines.MACHINES
        else _own(spec.machine, path)
    )

    def make(spec: SourceSpec, part: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        given = commands(spec, part, n)
        outputs = run(given) if path is None else _given_out(spec, run, given, path)
        if spec.modified:
            live = machines.LIVE.get(spec.machine or "", 1) if path is None else outputs.shape[2]
            turned = machines.after_key(given[:, :, 0], spec.key)
            outputs[turned, :live] = 1 - outputs[turned, :live]
        return given, outputs

    return make


# ── a machine of the user's own ──────────────────────────────────────────────────────


def _own(name: str, path: str | Path | None) -> Callable[[np.ndarray], Any]:
    """The function of that name in a Python file, which is run. Raises GridError, ZooNotFoundError."""
    known = (*machines.MACHINES, machines.AUTOMATON)
    if path is None:
        raise ZooNotFoundError(
            unknown("machine", name, known, "source 'machine'")
            + " One of your own is a function in a Python file that you "
            "name: `source: {path: FILE.py}`, or sources.load(spec, path=…)."
        )
    if name in known:
        raise GridError(
            f"Source 'machine' has a path and the name {name!r}, which is one of ours. Call yours another name."
        )
    file = Path(path).expanduser()
    if not file.is_file():
        raise ZooNotFoundError(f"No Python file {str(file)!r} to read the machine {name!r} from: source.path.")
    spec = importlib.util.spec_from_file_location("machine_of_the_user", file)
    if spec is None or spec.loader is None:
        raise GridError(
            f"{str(file)!r} is no Python file, of which the machine {name!r} would be a function: source.path."
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise GridError(f"{str(file)!r}, which source.path names, raised {type(error).__name__}: {error}") from error
    function: Any = getattr(module, name, None)
    if not callable(function):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise GridError(unknown("machine", name, names, f"functions of {str(file)!r}"))
    return function  # type: ignore[no-any-return]


def _given_out(spec: SourceSpec, run: Callable[[np.ndarray], Any], given: np.ndarray, path: str | Path) -> np.ndarray:
    """What it puts out, float32 (n, T, K). Raises GridError where that is something else."""
    where = f"The machine {spec.machine!r} of {str(path)!r}"
    try:
        outputs = np.asarray(run(given.copy()))
    except (Exception, SystemExit) as error:
        raise GridError(f"{where} raised {type(error).__name__} on commands of shape {given.shape}: {error}") from error
    if outputs.ndim != 3 or outputs.shape[:2] != given.shape[:2] or not 1 <= outputs.shape[2] <= MOST_OUTPUTS:
        raise GridError(
            f"{where} puts out shape {outputs.shape} for commands of shape {given.shape}; expected (n, steps, outputs) = "
            f"({given.shape[0]}, {given.shape[1]}, 1 to {MOST_OUTPUTS})."
        )
    if outputs.dtype.kind not in "biuf":
        raise GridError(f"{where} puts out {outputs.dtype}; expected numbers.")
    with np.errstate(over="ignore"):
        narrow = outputs.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise GridError(f"{where} puts out numbers that are not finite in float32.")
    return narrow
