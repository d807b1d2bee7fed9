"""A problem and baselines → result files: predictions on test networks, what they cost, and what was tried.

In:  a `tasks.Problem`, names of baselines, seeds. Out: in a folder a JSON file for each baseline and seed (so that every score can
     be computed again), the trained baselines beside it (`trained/`), and read back `Cell`s.

A baseline is fitted once a seed, with one head for each target; whatever else is asked of it later (another zoo, new
networks) is answered by the saved one. What fails is a cell that says why. Files of others are checked on the way in: they
name the networks they are about, by digest.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets import tasks
from zoo_datasets.baselines import saved
from zoo_datasets.baselines.interface import Baseline, Target, Targets
from zoo_datasets.baselines.known import BASELINES, CONTROLS, NO_DRAWS, baseline
from zoo_datasets.core import files, meters, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import IntegrityError, ZooError, shown
from zoo_datasets.tasks import Part, Problem

log = logging.getLogger(__name__)

FORMAT = 2
MOST_BYTES = 256 << 20  # of a result file
MOST_PREDICTION = 1e30  # in size: sums of its square, over any number of networks, are numbers yet
DIGITS = 7  # of a prediction: fewer would tie networks that a baseline tells apart


@dataclasses.dataclass(frozen=True)
class Cell:
    """A baseline on a task under one seed: what was predicted of each test network, and what it cost."""

    task: str
    baseline: str
    seed: int
    predictions: np.ndarray  # (n,) or (n, classes) float64, in the order of the networks asked about
    cpu_s: float  # of the fit, which serves all targets
    parameters: int
    chosen: Any
    error: str | None = None
    asked: str = ""  # digest of the networks that were asked about
    predict_cpu_s: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether nothing was predicted at all: another try may do better."""
        return self.error is not None and not np.isfinite(self.predictions).any()


# ── solving ───────────────────────────────────────────────────────────────────────────


def solve(found: Problem, name: str, seed: int, settings: Mapping[str, Any] | None = None) -> list[Cell]:
    """Fit a baseline once, for all targets of the problem, and ask it. Where it cannot, cells that say why."""
    return _solved(found, name, seed, settings)[1]


def _solved(
    found: Problem, name: str, seed: int, settings: Mapping[str, Any] | None
) -> tuple[Baseline | None, list[Cell]]:
    started = time.process_time()
    try:
        solver = baseline(name, settings)
        with meters.track(f"{name}, seed {seed}", 0, "epochs") as meter:
            if hasattr(solver, "progress"):
                solver.progress = functools.partial(_tell, meter)
            solver.fit((found.train.view, found.train.targets), (found.validation.view, found.validation.targets), seed)
    except Exception as error:  # a baseline is anybody's code, and its failure is a cell of its own
        return None, [c for where in found.tests for c in _failure(found, where, name, seed, error)]
    spent = time.process_time() - started
    return solver, [c for where in found.tests for c in answers(found, where, solver, name, seed, spent)]


def _tell(meter: meters.Meter, done: int, of_all: int, _: float) -> None:
    meter.total, meter.done = of_all, done


def estimate(found: Problem, name: str, settings: Mapping[str, Any] | None = None) -> float:
    """CPU seconds that one fit will take, from two of its steps; 0 of what takes seconds or cannot be fitted."""
    try:
        solver = baseline(name, settings)
        if not hasattr(solver, "estimate"):
            return 0.0
        return float(
            solver.estimate((found.train.view, found.train.targets), (found.validation.view, found.validation.targets))
        )
    except Exception as error:  # a baseline is anybody's code; its own cells will say so
        log.debug("%s cannot be estimated", name, exc_info=error)
        return 0.0


def answers(found: Problem, where: str, solver: Baseline, name: str, seed: int, spent: float) -> list[Cell]:
    """What a trained baseline says of the networks called `where`, a cell for each target."""
    part, started = found.tests[where], time.process_time()
    try:
        predictions = solver.predict(part.view)
        size, chosen = solver.parameters, dict(solver.chosen)
    except Exception as error:  # as above: layouts it does not know, inputs that are not at hand
        return _failure(found, where, name, seed, error)
    cost = time.process_time() - started
    cells = []
    for target in part.targets.of:
        values, problem = _checked(target, predictions, len(part))
        own = chosen.get(target.name, {k: v for k, v in chosen.items() if k not in _names(part.targets)})
        cells.append(
            Cell(found.name_of(target.name, where), name, seed, values, spent, size, own, problem, part.digest, cost)
        )
    return cells


def _names(of: Targets) -> set[str]:
    return {t.name for t in of.of}


def _checked(target: Target, predictions: Mapping[str, np.ndarray], n: int) -> tuple[np.ndarray, str | None]:
    """(n,) or (n, classes), and what is wrong with it."""
    wanted = (n, target.classes) if target.classes else (n,)
    if target.name not in predictions:
        return np.full(wanted, np.nan), "it gives no prediction"
    values = np.asarray(predictions[target.name], np.float64)
    if values.shape != wanted:
        return np.full(wanted, np.nan), f"its predictions have shape {values.shape}, not {wanted}"
    return values, _not_numbers(values)


def _not_numbers(values: np.ndarray) -> str | None:
    """What is wrong with predictions that no score can be made of."""
    if wrong := int((~np.isfinite(values)).sum()):
        return f"{wrong} of {values.size} predictions are not finite"
    wrong = int((np.abs(values) > MOST_PREDICTION).sum())
    return f"{wrong} of {values.size} predictions are beyond ±{MOST_PREDICTION:g}" if wrong else None


def _failure(found: Problem, where: str, name: str, seed: int, error: Exception) -> list[Cell]:
    said = str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"
    log.debug("%s failed", name, exc_info=error)
    part = found.tests[where]
    return [
        Cell(
            found.name_of(t.name, where), name, seed, np.full((len(part), t.classes) if t.classes else len(part), np.nan),
            0.0, 0, None, _line(said), part.digest,
        )
        for t in part.targets.of
    ]  # fmt: skip


def _line(said: str) -> str:
    """What a baseline said, as a line of a table and a result file may hold it."""
    text = " ".join(said.replace("|", "/").split())[:MOST_TEXT] or "it failed without a word"
    return "".join(c if c.isprintable() else "�" for c in text)


# ── files ─────────────────────────────────────────────────────────────────────────────


def run(
    found: Problem, names: Sequence[str], seeds: int, out: Path, commit: str | None = None,
    frozen: Mapping[str, Mapping[str, Any]] | None = None, controls: Sequence[str] = CONTROLS,
) -> Iterator[tuple[str, int, bool]]:  # fmt: skip
    """Solve and write what has no result file yet, `controls` first; gives (baseline, seed, whether it was there).

    `frozen` are settings of baselines that were chosen before (`choose`), on another population perhaps.
    """
    names = list(dict.fromkeys([*controls, *names]))
    for name in names:
        baseline(name)  # an unknown name is said before anything is computed
    work = [(name, seed) for name in names for seed in range(1 if name in NO_DRAWS else seeds)]
    for name, seed in meters.over(work, f"{found.zoo}, {found.split_name}", "fits"):
        yield name, seed, _one(found, name, seed, out, commit, (frozen or {}).get(name))


def _one(
    found: Problem, name: str, seed: int, out: Path, commit: str | None, settings: Mapping[str, Any] | None
) -> bool:
    """Whether all was there."""
    path = path_of(found, name, seed, out)
    kept = trained(found, name, seed, out)
    good = [c for c in _there(found, path) if not c.failed and _with(c, settings)]
    missing = [w for w in found.tests if not any(c.asked == found.tests[w].digest for c in good)]
    if not missing:
        return True
    solver = _loaded(kept) if good else None
    if solver is not None:
        new = [c for w in missing for c in answers(found, w, solver, name, seed, good[0].cpu_s)]
    else:
        made, new = _solved(found, name, seed, settings)
        good = []
        if made is not None:
            try:
                saved.save(made, kept)
            except ZooError as error:  # of a class that is not ours
                log.debug("%s is not kept: %s", name, error)
    files.write_atomic(path, _to_json(found, [*good, *new], commit))
    return False


def _there(found: Problem, path: Path) -> Sequence[Cell]:
    """The cells of a file of ours; none where it is damaged or about something else, so that it is made again."""
    if not path.exists():
        return []
    try:
        value = _file(path)
        if value is None or _differs(value["about"], tasks.describe(found)):
            return []
        return _cells_of(path, found, value)
    except IntegrityError as error:
        log.warning("%s It is made again.", error)
        return []


def _loaded(path: Path) -> Baseline | None:
    """The saved baseline; None where there is none, or it is damaged and has to be fitted again."""
    if not path.exists():
        return None
    try:
        return saved.load(path)
    except IntegrityError as error:
        log.warning("%s It is fitted again.", error)
        return None


def _with(cell: Cell, settings: Mapping[str, Any] | None) -> bool:
    """Whether a cell was made with those settings, where some were chosen."""
    if not settings:
        return True
    return isinstance(cell.chosen, Mapping) and all(
        jsonable(cell.chosen.get(k)) == jsonable(v) for k, v in settings.items()
    )


def choose(found: Problem, names: Sequence[str], out: Path) -> dict[str, dict[str, Any]]:
    """The settings of each baseline that has trials, chosen once and kept in `chosen.json`: later calls only read.

    At most four trials each, at a third of the epochs, by validation of the first population that is given; what was tried
    is in the file. Baselines that are tuned in every fit are not here.
    """
    path = out / "chosen.json"
    kept: dict[str, Any] = {}
    if path.exists():
        try:
            kept = json.loads(files.read_bounded(path, MOST_BYTES))["baselines"]
            for name in kept:
                dict(kept[name]["settings"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise IntegrityError(
                f"{path} is no record of chosen settings. Take it away, and they are chosen again."
            ) from None
    for name in names:
        solver = baseline(name)
        if name in kept or not hasattr(solver, "tune"):
            continue
        try:
            chosen, tried = solver.tune(
                (found.train.view, found.train.targets), (found.validation.view, found.validation.targets), 0
            )
        except Exception as error:  # its own cells will say so
            log.debug("%s cannot be tuned", name, exc_info=error)
            continue
        n = {"train": len(found.train), "validation": len(found.validation)}
        targets = [t.name for t in found.train.targets.of]
        kept[name] = {
            "settings": chosen,
            "tried": tried,
            "on": found.zoo,
            "split": found.split_name,
            "n": n,
            "targets": targets,
        }
        files.write_json(path, jsonable({"kind": "chosen", "baselines": kept}))
    return {name: dict(kept[name]["settings"]) for name in kept}


def key_of(found: Problem, name: str, seed: int) -> str:
    """What the files of a fit are called."""
    return streams.digest([found.digest, name, seed])[:16]


def path_of(found: Problem, name: str, seed: int, out: Path) -> Path:
    """Where the result of a fit lies."""
    return out / f"{key_of(found, name, seed)}.json"


def trained(found: Problem, name: str, seed: int, out: Path) -> Path:
    """Where the trained baseline of a result lies."""
    return out / "trained" / f"{key_of(found, name, seed)}.safetensors"


def _to_json(found: Problem, cells: Sequence[Cell], commit: str | None) -> bytes:
    head = {
        "format": FORMAT, "about": tasks.describe(found), "commit": commit,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }  # fmt: skip
    rows = [dataclasses.asdict(c) | {"predictions": rounded(c.predictions)} for c in cells]
    lines = ",\n ".join(json.dumps(jsonable(r), separators=(",", ":")) for r in rows)
    return (json.dumps(jsonable(head))[:-1] + ',\n"cells": [\n ' + lines + "\n]}\n").encode()


def rounded(values: np.ndarray) -> list[Any]:
    """To `DIGITS` significant digits, as lists."""
    if values.ndim > 1:
        return [rounded(row) for row in values]
    return [float(f"{x:.{DIGITS}g}") for x in values]


# ── reading ───────────────────────────────────────────────────────────────────────────


def read(found: Problem, folder: Path, wrong: list[str] | None = None) -> list[Cell]:
    """The cells of the problem among a folder's result files, ours or others', one for each task, baseline and seed.

    Of several, those that were learned with the same targets come first. A file that was made from other bytes than the
    zoo's, or does not hold a prediction for each test network, is a sentence in `wrong`, and the others are read; without
    `wrong` it raises IntegrityError.
    """
    cells: dict[tuple[str, str, int], Cell] = {}
    own = tasks.describe(found)
    asked_first: list[Sequence[Cell]] = []
    others: list[Sequence[Cell]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            value = _file(path)
            if value is None or _differs(value["about"], own):
                continue
            same = value["about"].get("targets") == own["targets"]
            (asked_first if same else others).append(_ours(path, found, value))
        except IntegrityError as error:
            if wrong is None:
                raise
            wrong.append(str(error))
    for cell in itertools.chain(*asked_first, *others):
        cells.setdefault((cell.task, cell.baseline, cell.seed), cell)
    return list(cells.values())


def _differs(about: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a file is about another problem."""
    return any(about.get(k) != own[k] for k in ("zoo", "split", "limit", "networks"))


def _ours(path: Path, found: Problem, value: Mapping[str, Any]) -> Sequence[Cell]:
    """The cells of a file, whose name says which fit it is where a baseline of ours is named. Raises IntegrityError."""
    about, own = value["about"], tasks.describe(found)
    if any(about.get(k) != own[k] for k in ("zoo_digest", "split_digest", "version")):
        raise IntegrityError(
            f"{path} was made from other bytes than {found.zoo}'s, another split, or an older version of the tasks. Take it out "
            "of the folder, or open the zoo that it names."
        )
    cells = _cells_of(path, found, value)
    learned = about.get("targets")
    learned = learned if isinstance(learned, list) and all(isinstance(t, str) for t in learned) else []
    for cell in cells:
        name = f"{streams.digest([found.digest_of(learned), cell.baseline, cell.seed])[:16]}.json"
        if cell.baseline in BASELINES and path.name != name:
            raise IntegrityError(
                f"{path} calls a result {cell.baseline!r}, which is a baseline of this package, whose own would be in {name}. "
                "Give it a name of its own."
            )
    return cells


def _file(path: Path) -> dict[str, Any] | None:
    """The parts of a result file, checked; None for other JSON of ours that lies beside. Raises IntegrityError."""
    try:
        value = json.loads(files.read_bounded(path, MOST_BYTES))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and value.get("kind") in OTHER_KINDS:
        return None
    good = isinstance(value, dict) and value.get("format") == FORMAT and isinstance(value.get("about"), dict)
    if not good or not isinstance(value.get("cells"), list):
        raise IntegrityError(f"{path} is no result file of this version. Take it out of the folder.")
    return dict(value)


OTHER_KINDS = ("null", "chosen", "pairs")


def _cells_of(path: Path, found: Problem, value: Mapping[str, Any]) -> list[Cell]:
    """The cells of a file that answer a task of the problem. Raises IntegrityError."""
    wanted = {found.name_of(t.name, w): (t, part) for w, part in found.tests.items() for t in part.targets.of}
    cells = []
    for row in value["cells"]:
        if not isinstance(row, dict) or not isinstance(row.get("task"), str) or row["task"] not in wanted:
            continue
        cells.append(_cell(path, row, *wanted[row["task"]]))
    return cells


def _cell(path: Path, row: Mapping[str, Any], of: Target, part: Part) -> Cell:
    missing = [f.name for f in dataclasses.fields(Cell) if f.name not in row]
    if missing:
        raise IntegrityError(f"{path}: a cell of {row['task']} lacks {', '.join(missing)}.")
    if row["asked"] != part.digest:
        raise IntegrityError(
            f"{path}: {row['task']} was asked of other networks than those of {part.zoo} here. Take the file out of the "
            "folder, or open the zoo that it is about."
        )
    try:
        values = np.array([[np.nan if x is None else x for x in np.atleast_1d(p)] for p in row["predictions"]], float)
    except (TypeError, ValueError, OverflowError):
        raise IntegrityError(f"{path}: predictions of {row['task']} are no numbers.") from None
    wanted = (len(part), max(1, of.classes))
    if values.shape != wanted:
        raise IntegrityError(f"{path}: predictions of {row['task']} have shape {values.shape}, not {wanted}.")
    for name, good in LEGAL.items():
        if not good(row[name]):
            raise IntegrityError(f"{path}: {name} of {row['task']} is {shown(row[name])}.")
    error = row["error"] or _not_numbers(values)
    known = {f.name: row[f.name] for f in dataclasses.fields(Cell)}
    return Cell(**known | {"predictions": values if of.classes else values[:, 0], "error": error})


MOST_NUMBER = (1 << 63) - 1
MOST_TEXT = 1000  # characters of a name or an error, which stand in a line of a table


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_NUMBER


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_NUMBER


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_TEXT and value.isprintable() and "|" not in value


LEGAL: Mapping[str, Callable[[Any], bool]] = {
    "baseline": _text, "seed": _whole, "cpu_s": _seconds, "predict_cpu_s": _seconds, "parameters": _whole,
    "error": lambda value: value is None or _text(value),
    "chosen": lambda value: value is None or isinstance(value, dict),
}  # fmt: skip
