"""Zoos → what can be read from a few consecutive weights, and what settings and accuracy give away without any.

In:  zoos whose networks differ in their settings, pooled. Out: a `Results`: for each setting the accuracy of meta-classifiers,
     of statistics and of metadata beside chance; when in training, where in the vector, from how many weights,
     of how accurate networks; what weights add to metadata; nulls; transfer. It is saved after every question: a study that was
     stopped, called again alike with the same code, goes on with the question it was at.

After Eilertsen et al., "Classifying the classifier: dissecting the weight space of neural networks" (ECAI 2020), with the
controls that it has not. All snapshots of a network, and all networks that share an initialization, are on one side.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from zoo_datasets.analysis import testing
from zoo_datasets.analysis.nws import divisions, nulls, pictures, population, questions, scoring, transfer
from zoo_datasets.analysis.nws.kept import Answers
from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import TRAINING, Property
from zoo_datasets.analysis.nws.questions import Rows
from zoo_datasets.analysis.nws.study import DEEP, ONE, POSITIONS, PUBLISHED, Study, askable, told_by_length
from zoo_datasets.analysis.results import Results, flat
from zoo_datasets.errors import ZooError, unknown
from zoo_datasets.zoo import once, open_zoo

log = logging.getLogger("zoo_datasets")

PRECISIONS = ("float32", "bfloat16")
WINDOW = 5000  # consecutive weights, as published
SIZES = (500, 1500, 5000, 15_000)
BATCH = 16  # of some hundred networks, 64 windows a step are too few steps for ten million parameters
QUESTIONS = {
    "accuracy": "each property, by every method, beside chance",
    "by-accuracy": "by how accurate the networks are",
    "gain": "what weights add to settings, accuracy and length",
    "when": "by snapshot, from initialization to the end",
    "where": "by place in the vector and by layer",
    "how-much": "by size of the window",
    "features": "local against global: windows, layers, the whole vector",
    "null": "labels shuffled, the first snapshot, and gains by the weights of others",
    "transfer": "levels never seen, other coordinates, children",
}
# Beside the accuracy, which they are made of.
FROM_ACCURACY = ("by-accuracy", "features")
WHOLE = "meta-classifier, whole vector"  # where that is one window, beside the one of smaller windows
TABLES = ("accuracy", "by_accuracy", "gain", "when", "how_much", "features")
GROUPS = ("where", "null", "transfer")  # of several tables each


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--questions", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="Q",
        help="; ".join(f"{name}: {what}" for name, what in QUESTIONS.items()) + " (default: all)",
    )  # fmt: skip
    parser.add_argument("--properties", nargs="+", metavar="P", help="settings to be read (default: all that vary)")
    parser.add_argument(
        "--window", type=int, metavar="K",
        help=f"consecutive weights (default: {WINDOW}, or the shortest vector where that is shorter)",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="K",
        help="windows of `how-much` (default: 500, 1500, 5000, 15000 as far as they fit, and the shortest vector)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of each meta-classifier (default: 3)")
    parser.add_argument("--epochs", type=int, default=50, metavar="N", help="of each meta-classifier (default: 50)")
    parser.add_argument(
        "--batch", type=int, default=BATCH, metavar="N",
        help=f"windows of a step (default: {BATCH}; published with 64, of 30 times as many networks)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0],
        help="of the meta-classifier's products (default: float32); bfloat16 is faster where the CPU multiplies it (AMX)",
    )  # fmt: skip
    parser.add_argument("--windows", type=int, default=64, metavar="N", help="that are averaged (default: 64)")
    parser.add_argument("--no-deep", action="store_true", help="statistics and metadata alone, no meta-classifier")
    parser.add_argument(
        "--deep-folds", action=argparse.BooleanOptionalAction, default=False,
        help="the meta-classifier in all five folds of `gain` and of `transfer`",
    )  # fmt: skip
    parser.add_argument(
        "--single",
        nargs="+",
        default=[],
        metavar="P",
        help="properties that get a meta-classifier of their own, one seed",
    )
    parser.add_argument(
        "--published-epoch",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="once more with epochs of all snapshots of the second half, one seed",
    )
    parser.add_argument(
        "--held-out", nargs="+", default=None, metavar="P",
        help="properties of `transfer` whose levels are left out in turn (default: source, optimizer and widths that vary)",
    )  # fmt: skip
    parser.add_argument(
        "--deep-transfer", action=argparse.BooleanOptionalAction, default=False,
        help="a meta-classifier for each level left out",
    )  # fmt: skip
    parser.add_argument(
        "--children", nargs="+", default=[], metavar="ZOO", help="zoos that went on from these networks"
    )
    parser.add_argument(
        "--shuffles", type=int, default=nulls.SHUFFLES, metavar="N",
        help=f"of the labels, each learned anew by statistics (default: {nulls.SHUFFLES}; the meta-classifier has one a seed)",
    )  # fmt: skip
    parser.add_argument("--permutations", type=int, default=20_000, metavar="N", help="of each test (default: 20000)")
    parser.add_argument("--no-pictures", action="store_true", help="numbers and tables alone")


def run(options: argparse.Namespace) -> Results:
    """The whole analysis. Raises ZooError where the zoos hold nothing that could be read."""
    zoos, younger = once(map(open_zoo, options.path)), once(map(open_zoo, options.children))
    _check(options)
    of = population.read(zoos, options.properties)
    window = _window(of, options.window)
    sizes = [_window(of, k, "--sizes") for k in options.sizes] if options.sizes else _sizes(of)
    names = (
        "seed", "seeds", "epochs", "batch", "windows", "questions", "properties", "single", "published_epoch", "deep_folds",
        "no_deep", "held_out", "deep_transfer", "shuffles", "permutations", "precision",
    )  # fmt: skip
    settings = {name: getattr(options, name) for name in names} | {"window": window, "sizes": sizes}
    results = Results("nws", [*zoos, *younger], settings, options.out)
    at = divisions.sealed(of)
    deep = None
    if not options.no_deep:
        from zoo_datasets.analysis.nws.deep import Deep
        from zoo_datasets.baselines.meta_classifier import stages

        for k in {window, *(sizes if "how-much" in options.questions else ())}:
            stages(k)  # a window that is too short is said before anything is learned
        deep = Deep(of, options.epochs, options.batch, results.folder / "trained", options.precision)
    study = Study(of, at, window, options.seeds, options.windows, options.seed, options.permutations, deep)
    if not _asked(study):
        raise ZooError(
            f"No property of {of.names} has two levels among the {len(at.train):,} networks that are learned from. Build more."
        )
    for child in younger:  # a mistake in the call is told before the long part
        transfer.grown(of, child)
    single, held_out = _single(study, options.single), _held_out(of, options.held_out)
    results.numbers["population"] = describe(study)
    results.numbers["properties"] = [_property(p, of) for p in of.properties]
    results.numbers["refused"] = of.refused
    asked, answers = set(options.questions), Answers(results)
    if asked & {"accuracy", *FROM_ACCURACY}:
        log.info("%d networks, %d properties, windows of %s weights", len(of), len(of.properties), f"{window:,}")
        more: list[tuple[str, Sequence[Property], bool]] = [
            (f"meta-classifier of {p.name} alone", [p], False) for p in single
        ]
        if options.published_epoch:
            more.append((PUBLISHED, [p for p in of.properties if p in _asked(study)], True))
        answers.ask("accuracy", lambda: _accuracy(study, more, "by-accuracy" in asked))
    if "gain" in asked:
        answers.ask("gain", lambda: _gain(study, options.deep_folds))
    if "when" in asked:
        answers.ask("when", lambda: _when(study))
    if "where" in asked:
        answers.ask("where", lambda: {"where": questions.where(study)})
    if "how-much" in asked:
        answers.ask("how-much", lambda: {"how_much": questions.how_much(study, sizes)})
    if "features" in asked:
        results.numbers["features"] = _features(results.numbers)
    if "null" in asked:
        found = {
            name: answers.answer(f"null: {name}", ask) for name, ask in nulls.asked(study, options.shuffles).items()
        }
        results.numbers |= _null(found, results.numbers.get("when", ()))
    if "transfer" in asked:
        unlike: dict[str, Callable[[], Rows]] = {
            "held_out": lambda: transfer.held_out(study, held_out, options.deep_transfer, options.deep_folds),
            "symmetry": lambda: transfer.symmetries(study, options.deep_folds),
            "children": lambda: transfer.children(study, younger, options.deep_folds),
        }
        results.numbers["transfer"] = {name: answers.answer(f"transfer: {name}", ask) for name, ask in unlike.items()}
    for name in TABLES:
        if rows := results.numbers.get(name):
            results.table(name, _table(rows))
    for group in GROUPS:
        for name, rows in (results.numbers.get(group) or {}).items():
            if rows:
                results.table(f"{group}_{name}", _table(rows))
    if not options.no_pictures:
        for name, figure in pictures.figures(results.numbers):
            results.figure(name, figure)
    results.close()
    return results


# ── what was asked ────────────────────────────────────────────────────────────────────


def _check(options: argparse.Namespace) -> None:
    """Raises ZooError for counts that are none."""
    for name in ("seeds", "epochs", "windows", "shuffles", "permutations"):
        if getattr(options, name) < 1:
            raise ZooError(f"--{name} {getattr(options, name)} is none; the least is 1.")
    if options.batch < 2:
        raise ZooError(f"--batch {options.batch}: batch norm needs two windows in a step, or more.")
    for name in ("single", "published_epoch", "deep_folds", "deep_transfer"):
        if options.no_deep and getattr(options, name):
            raise ZooError(
                f"--{name.replace('_', '-')} asks for a meta-classifier, and --no-deep leaves it out. Drop one of them."
            )


def _window(of: Population, asked: int | None, option: str = "--window") -> int:
    """The size of windows. Raises ZooError where it fits no window into the shortest vector."""
    shortest = int(of.lengths.min())
    if asked is not None and asked > shortest:
        raise ZooError(
            f"A window of {asked:,} weights is longer than the shortest vector of {of.names}, {shortest:,}. "
            f"Take at most {option} {shortest}."
        )
    if asked is not None and asked < 1:
        raise ZooError(f"A window of {asked} weights is none; the least is 1.")
    return min(WINDOW, shortest) if asked is None else asked


def _sizes(of: Population) -> list[int]:
    shortest = int(of.lengths.min())
    return [*(k for k in SIZES if k < shortest), shortest]


def _named(of: Population, names: Sequence[str]) -> list[Property]:
    known = {p.name: p for p in of.properties}
    for name in names:
        if name not in known:
            raise ZooError(unknown("property", name, known, of.names))
    return [known[name] for name in names]


def _single(study: Study, names: Sequence[str]) -> list[Property]:
    """Raises ZooError for a property that nothing could be learned of."""
    found = _named(study.of, names)
    for p in found:
        if not askable(p, study.at):
            raise ZooError(
                f"--single {p.name}: the {len(study.at.train):,} networks that are learned from have one level of it, or those asked "
                f"about have none. Leave it out."
            )
    return found


def _held_out(of: Population, names: Sequence[str] | None) -> list[str]:
    if names is not None:
        asked = _named(of, names)
        for p in asked:
            if not p.target.classes:
                raise ZooError(f"--held-out {p.name}: it is a number, and has no levels to leave out.")
        return [p.name for p in asked]
    likely = ("source", "dataset", "optimizer")
    return [
        p.name
        for p in of.properties
        if p.target.classes and p.name == p.column and (p.name in likely or "width" in p.name)
    ]


def _asked(study: Study) -> list[Property]:
    return [p for p in study.of.properties if askable(p, study.at)]


# ── what was found ────────────────────────────────────────────────────────────────────


def describe(study: Study) -> dict[str, Any]:
    """The population in numbers, with the updates of each batch size, which tell undertrained networks from others."""
    of = study.of
    sides = {name: len(getattr(study.at, name)) for name in ("train", "validation", "test")}
    found = {
        "n_models": len(of), "n_groups": len(np.unique(of.groups)), "n_snapshots": len(of.vectors), "n_places": of.n_places,
        "n_architectures": len(of.architectures), "lengths": [int(of.lengths.min()), int(of.lengths.max())],
        "n_layouts": len({of.architectures[i].layout_id for i in np.unique(of.architecture)}), "median_length": float(np.median(of.lengths)),
        "sides": sides, "groups": {n: len(np.unique(of.groups[getattr(study.at, n)])) for n in sides},
        "with_start": int(of.starts.sum()), "published_order": of.published_order,
        "updates": _quartiles(of.updates), "accuracy": _quartiles(of.accuracy[np.isfinite(of.accuracy)]),
        "constant_start": int(of.constant.sum()),
    }  # fmt: skip
    if "batch_size" in of.recipe.column_names:
        sizes = np.array(of.recipe["batch_size"].to_pylist(), object)
        found["updates_by_batch_size"] = {
            str(size): _quartiles(of.updates[sizes == size]) for size in sorted({s for s in sizes if s is not None})
        }
    return found


def _quartiles(values: np.ndarray) -> list[float]:
    """Least, quartiles, most."""
    return [float(v) for v in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])] if len(values) else []


def _property(p: Property, of: Population) -> dict[str, Any]:
    values = p.values[np.isfinite(p.values)]
    counts = {level: int((values == i).sum()) for i, level in enumerate(p.levels)}
    row: dict[str, Any] = {"name": p.name, "kind": p.kind, "n": len(values)}
    if p.target.classes:
        return row | {"levels": counts}
    return row | {"logarithm": p.logarithm, "range": _quartiles(values)}


def _accuracy(study: Study, more: Sequence[tuple[str, Sequence[Property], bool]], by_accuracy: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"accuracy": questions.accuracy(study, more)}
    found["tests"] = _corrected(found["accuracy"])
    if by_accuracy:
        found["by_accuracy"] = questions.by_accuracy(study)
    return found


def _gain(study: Study, deep_folds: bool) -> dict[str, Any]:
    rows = questions.gain(study, deep_folds)
    tests, told = _corrected(rows), {p.name for p in study.of.properties if told_by_length(study.of, p)}
    for row in rows:
        row["verdict"] = scoring.verdict(row, row["over"] != POSITIONS and row["property"] in told)
    return {"gain": rows, "gain_tests": tests}


def _when(study: Study) -> dict[str, Any]:
    """Corrected over snapshots × properties × methods."""
    rows = questions.when(study)
    return {"when": rows, "when_tests": _corrected(rows)}


def _null(asked: Mapping[str, Rows], when: Rows) -> dict[str, Any]:
    """With what was read of training at the first snapshot, test networks alone: corrected among the nulls, as each can be a leak."""
    found = {
        name: [dict(row) for row in rows] for name, rows in asked.items()
    }  # what is kept stays without their marks
    found["step_0_test"] = [
        {k: v for k, v in r.items() if k != "q"} for r in when if r["step_0"] and r["kind"] == TRAINING
    ]
    return {"null": found, "null_tests": nulls.mark([row for rows in found.values() for row in rows])}


def _features(numbers: Mapping[str, Any]) -> Rows:
    """Rows of local and global readers beside each other; a window of all weights is global, and has a name of its own."""
    of = {
        "svm, windows": "local", ONE: "local", "svm, whole vector": "global", "svm": "by layer",
        DEEP: "many local",
    }  # fmt: skip
    found = [row | {"reads": of[row["method"]]} for row in numbers["accuracy"] if row["method"] in of]
    whole = [
        row | {"reads": "global", "method": WHOLE}
        for row in numbers.get("how_much", ())
        if row["all"] and row["method"] == DEEP
    ]
    return found + whole


def _corrected(rows: Rows) -> dict[str, Any]:
    """q beside each p, over all of them, in place; the summary."""
    tested = [row for row in rows if row.get("p") is not None]
    return testing.correct([(_name(row), row) for row in tested])


def _name(row: Mapping[str, Any]) -> str:
    return ", ".join(str(row[k]) for k in ("property", "method", "over", "arm", "place") if k in row)


def _table(rows: Rows) -> pa.Table:
    return flat([r | {k: str(r[k]) for k in ("bin",) if k in r} for r in rows])
