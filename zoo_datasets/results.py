"""A problem and baselines → result files: predictions on test networks, what they cost, and what was tried.

In:  a `tasks.Problem`, names of baselines, seeds. Out: in a folder a JSON file for each baseline and seed (so that every score can
     be computed again), the trained baselines beside it (`trained/`), and read back `Cell`s.

Files of others are checked on the way in: they name the networks they are about, by digest.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_datasets import solving, tasks
from zoo_datasets.baselines import saved
from zoo_datasets.baselines.interface import Baseline, Target
from zoo_datasets.baselines.known import BASELINES, CONTROLS, NO_DRAWS, ORACLE, REVISIONS, baseline, single
from zoo_datasets.core import files, libraries, meters, streams
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import IntegrityError, ZooError, shown
from zoo_datasets.solving import Cell
from zoo_datasets.tasks import Part, Problem

log = logging.getLogger(__name__)

FORMAT = 2
MOST_BYTES = 256 << 20  # of a result file
VERSIONS = ("weightzoo", "numpy", "scipy", "scikit-learn", "torch")
DIGITS = 7  # of a prediction: fewer would tie networks that a baseline tells apart


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
        commit = (_file(path) or {}).get("commit")  # of who learned it
        new = [c for w in missing for c in solving.answers(found, w, solver, name, seed, good[0].cpu_s)]
    else:
        made, new = solving.fitted(found, name, seed, settings)
        good = []
        if made is not None:
            try:
                saved.save(made, kept)
            except ZooError as error:  # of a class that is not ours
                log.debug("%s is not kept: %s", name, error)
    files.write_atomic(path, _to_json(found, [*good, *new], commit))
    return False


def _there(found: Problem, path: Path) -> Sequence[Cell]:
    """The cells of a file of ours, without those that are damaged or of networks that are others now, so that these are made again."""
    if not path.exists():
        return []
    cells = []
    try:
        value = _file(path)
        if value is None or _differs(value["about"], tasks.describe(found)):
            return []
        for row, of, part in _wanted(found, value):
            try:
                cells.append(_cell(path, row, of, part))
            except IntegrityError as error:
                log.warning("%s It is asked again.", error)
    except IntegrityError as error:
        log.warning("%s It is made again.", error)
    return cells


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
    return _key(found.digest, name, seed, REVISIONS.get(name, 1))


def _key(digest: str, name: str, seed: int, revision: int) -> str:
    return streams.digest([digest, name, seed, *([revision] if revision > 1 else [])])[:16]


def path_of(found: Problem, name: str, seed: int, out: Path) -> Path:
    """Where the result of a fit lies."""
    return out / f"{key_of(found, name, seed)}.json"


def trained(found: Problem, name: str, seed: int, out: Path) -> Path:
    """Where the trained baseline of a result lies."""
    return out / "trained" / f"{key_of(found, name, seed)}.safetensors"


def _to_json(found: Problem, cells: Sequence[Cell], commit: str | None) -> bytes:
    head = {
        "format": FORMAT, "about": tasks.describe(found), "commit": commit,
        "versions": libraries.versions(VERSIONS),
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


def read(
    found: Problem, folder: Path, wrong: list[str] | None = None, *, seeds: int | None = None,
    frozen: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Cell]:  # fmt: skip
    """The cells of the problem among a folder's result files, ours or others', one for each task, baseline and seed.

    All seeds of a row were learned with the same targets: those of the problem, or else those that most seeds have. Of baselines
    of this package, what was learned with other settings than the `frozen` ones, or by later seeds than so many, is left out. A file that was made from other bytes than the
    zoo's, or does not hold a prediction for each test network, is a sentence in `wrong`, and the others are read; without
    `wrong` it raises IntegrityError.
    """
    own = tasks.describe(found)
    learned: dict[tuple[str, str], dict[tuple[str, ...], dict[int, Cell]]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            value = _file(path)
            if value is None or _differs(value["about"], own):
                continue
            with_targets = tuple(_learned(value["about"]))
            for cell in _ours(path, found, value):
                if cell.baseline in BASELINES:
                    later = seeds is not None and cell.seed >= seeds
                    if later or not (cell.failed or _with(cell, (frozen or {}).get(cell.baseline))):
                        continue
                of = learned.setdefault((cell.task, cell.baseline), {}).setdefault(with_targets, {})
                if cell.seed in of and single(cell.baseline) not in BASELINES:
                    raise IntegrityError(
                        f"{path}: {cell.task} by {cell.baseline!r} has seed {cell.seed} twice, here or in a file before it."
                    )
                of.setdefault(cell.seed, cell)
        except IntegrityError as error:
            if wrong is None:
                raise
            wrong.append(str(error))
    same = tuple(own["targets"])
    chosen = (of[same] if same in of else max(of.values(), key=len) for of in learned.values())
    return [cell for by_seed in chosen for cell in by_seed.values()]


def unasked(folder: Path, tasks_here: Collection[str]) -> Iterator[str]:
    """A sentence for each file of others that holds answers to tasks that were not asked now: perhaps its names are misspelt."""
    for path in sorted(folder.glob("*.json")):
        try:
            value = _file(path)
        except IntegrityError:
            continue  # it has been said
        cells = [c for c in value["cells"] if isinstance(c, dict)] if value else []
        named = {str(c.get("task")) for c in cells if single(str(c.get("baseline"))) not in BASELINES} - set(tasks_here)
        if named:
            yield f"{path} answers {', '.join(sorted(named))[:MOST_SAID]}, which was not asked this time; it is in no table."


MOST_SAID = 300  # characters of names in a sentence


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
    learned = _learned(about)
    kept = []
    for cell in cells:
        now = REVISIONS.get(cell.baseline, 1)
        keys = [_key(found.digest_of(learned), cell.baseline, cell.seed, r) for r in range(now, 0, -1)]
        if single(cell.baseline) not in BASELINES or path.stem == keys[0]:
            kept.append(cell)
        elif path.stem not in keys:  # those are of what the baseline was before, and stand aside
            name = f"{keys[0]}.json"
            raise IntegrityError(
                f"{path} calls a result {cell.baseline!r}, which is a baseline of this package, whose own would be in {name}. "
                "Give it a name of its own."
            )
    return kept


def _learned(about: Mapping[str, Any]) -> list[str]:
    """The targets that a baseline learned together; none where a file of others does not say them."""
    named = about.get("targets")
    return named if isinstance(named, list) and all(isinstance(t, str) for t in named) else []


def _file(path: Path) -> dict[str, Any] | None:
    """The parts of a result file, checked; None for other JSON of ours that lies beside. Raises IntegrityError."""
    try:
        value = json.loads(files.read_bounded(path, MOST_BYTES))
    except (ValueError, RecursionError, OSError):  # a link that leads nowhere, too
        value = None
    if isinstance(value, dict) and value.get("kind") in OTHER_KINDS:
        return None
    good = isinstance(value, dict) and value.get("format") == FORMAT and isinstance(value.get("about"), dict)
    if not good or not isinstance(value.get("cells"), list):
        raise IntegrityError(f"{path} is no result file of this version. Take it out of the folder.")
    return dict(value)


OTHER_KINDS = ("null", "chosen", "pairs", "tasks")


def _cells_of(path: Path, found: Problem, value: Mapping[str, Any]) -> list[Cell]:
    """The cells of a file that answer a task of the problem. Raises IntegrityError."""
    return [_cell(path, row, of, part) for row, of, part in _wanted(found, value)]


def _wanted(found: Problem, value: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Target, Part]]:
    """What a file says of tasks of the problem, not checked yet."""
    wanted = {found.name_of(t.name, w): (t, part) for w, part in found.tests.items() for t in part.targets.of}
    for row in value["cells"]:
        if isinstance(row, dict) and isinstance(row.get("task"), str) and row["task"] in wanted:
            yield row, *wanted[row["task"]]


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
        values = np.array([[_number(x) for x in np.atleast_1d(p)] for p in row["predictions"]], float)
    except (TypeError, ValueError, OverflowError):
        raise IntegrityError(f"{path}: predictions of {row['task']} are no numbers.") from None
    wanted = (len(part), max(1, of.classes))
    if values.shape != wanted:
        raise IntegrityError(f"{path}: predictions of {row['task']} have shape {values.shape}, not {wanted}.")
    sums = values.sum(1)
    if of.classes and ((values < -ROUNDED).any() or (np.abs(sums[np.isfinite(sums)] - 1) > ROUNDED).any()):
        raise IntegrityError(
            f"{path}: predictions of {row['task']} are no probabilities: each network's are from 0 to 1 and add up to 1."
        )
    for name, (good, what) in LEGAL.items():
        if not good(row[name]):
            raise IntegrityError(f"{path}: {name} of {row['task']} is {shown(row[name])}; {what} is needed.")
    error = row["error"] or solving.not_numbers(values)
    known = {f.name: row[f.name] for f in dataclasses.fields(Cell)}
    return Cell(**known | {"predictions": values if of.classes else values[:, 0], "error": error})


MOST_NUMBER = (1 << 63) - 1


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_NUMBER


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_NUMBER


def _number(value: Any) -> float:
    """Of JSON: a number, or null for none. Raises TypeError."""
    if isinstance(value, bool | np.bool_ | str):
        raise TypeError
    return np.nan if value is None else value


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= solving.MOST_TEXT and value.isprintable() and "|" not in value


def _name(value: Any) -> bool:
    """Of a reader: none that a table would show as one of ours, as the mean of several seeds, or as the ceiling."""
    if not _text(value) or single(value) != value or value != value.strip():
        return False
    shown_as = value.casefold()
    return shown_as != ORACLE and (value in BASELINES or shown_as not in {b.casefold() for b in BASELINES})


ROUNDED = 1e-2  # of probabilities that were written with few digits
_LINE = f"a line of at most {solving.MOST_TEXT:,} characters without |"
# What a cell holds → whether a value will do, and what would.
LEGAL: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "baseline": (
        _name,
        f"{_LINE} or space at its ends, no name of ours in other letters and not “{ORACLE}”, and not the name of several seeds together,",
    ),
    "seed": (_whole, "a whole number from 0"), "cpu_s": (_seconds, "a number from 0"), "predict_cpu_s": (_seconds, "a number from 0"),
    "parameters": (_whole, "a whole number from 0"), "error": (lambda value: value is None or _text(value), f"null or {_LINE}"),
    "chosen": (lambda value: value is None or isinstance(value, dict), "null or an object"),
}  # fmt: skip
