"""Zoos, tasks, splits and baselines, as a person names them → result files and tables: the verb `bench`.

In:  options of the command line. Out: in a folder the result files, the trained baselines, `leaderboard.md` and
     `leaderboard.parquet`; the tables on stdout. Killed anywhere, the same command goes on from what is there.

What cannot be asked of one zoo is one sentence, and the others go on; the exit code says that something failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets import (
    audit,
    fresh,
    intervals,
    leaderboard,
    lineage,
    nulls,
    protocols,
    ranking,
    results,
    solving,
    targets,
    task_splits,
    tasks,
)
from zoo_datasets.baselines import known
from zoo_datasets.baselines.interface import Target
from zoo_datasets.core import command, files
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.errors import ZooError
from zoo_datasets.ranking import Row
from zoo_datasets.solving import Cell
from zoo_datasets.targets import TaskError
from zoo_datasets.tasks import Problem
from zoo_datasets.zoo import Zoo, once, open_zoo

log = logging.getLogger("zoo_datasets")

TRANSFER = "transfer"
MOST = 1 << 62
MAIN = "test_accuracy"  # what dear baselines learn by itself, and are asked on held-out splits
PROGRESS = "progress"


def arguments(verb: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    verb.add_argument("zoos", metavar="ZOO", nargs="+", help="folders, or owner/name on the Hub")
    verb.add_argument(
        "--tasks", default=MAIN, metavar="NAMES",
        help="targets, by commas: test_accuracy (default), generalization_gap, progress, settings of the recipe; or all; "
        "same_lineage and parent on pairs, of a zoo and one that goes on from it",
    )  # fmt: skip
    verb.add_argument(
        "--baselines", default="statistics,statistics-ridge,metadata+statistics", metavar="NAMES",
        help="by commas, or controls, cheap, dear, all; mean, metadata-ridge and metadata come with them",
    )  # fmt: skip
    verb.add_argument(
        "--split", default="iid", metavar="NAMES",
        help="by commas: iid (by init group), AXIS=LEVEL to hold that level out, AXIS for each in turn, from:AXIS=LEVEL "
        "to learn on one, transfer to ask each zoo's baselines of the others",
    )  # fmt: skip
    verb.add_argument("--seeds", type=command.count, default=5, help="of every baseline that draws (default: 5)")
    verb.add_argument(
        "--limit", type=command.count, metavar="N", help="only the first N models of each zoo, by plan order"
    )
    verb.add_argument(
        "--networks", type=_counts, metavar="NUMBERS", default=(None,),
        help="learn from so many at most; several by commas give a learning curve (default: all of the training side)",
    )  # fmt: skip
    verb.add_argument(
        "--shuffles", type=command.from_zero, default=0, metavar="N",
        help="fit N times on shuffled targets of the first task, cheap baselines (default: 0; 100 give an interval)",
    )  # fmt: skip
    verb.add_argument(
        "--dear-shuffles",
        type=command.from_zero,
        default=0,
        metavar="N",
        help="the same of those that take minutes (default: 0)",
    )
    verb.add_argument(
        "--tune", action="store_true",
        help="choose settings of dear baselines on the first population, by validation; kept in chosen.json for all",
    )  # fmt: skip
    verb.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("bench"), help="result files and tables (default: bench/)"
    )
    verb.add_argument(
        "--fresh", nargs=2, type=command.count, metavar=("SEED", "N"),
        help="build N networks by each zoo's recipe from a new seed, and ask the saved baselines of them too",
    )  # fmt: skip
    verb.add_argument(
        "--protocol", choices=protocols.PROTOCOLS,
        help="nfn: ZOO is a folder of the Small CNN Zoo, split as Zhou et al. (2023) published it",
    )  # fmt: skip
    verb.add_argument("--commit", metavar="ID", help="of the code, for the result files")


def run(options: argparse.Namespace) -> int:
    """Solve what has no result yet, and show all tables."""
    names = known.named(options.baselines.split(","))
    bench = _Bench(options, names)
    text = bench.text()
    if text.strip():  # else the tables that are there stay
        files.write_atomic(options.out / "leaderboard.md", text)
    if bench.tasks:
        value = {"kind": "tasks", "tasks": bench.tasks}
        files.write_atomic(options.out / "tasks.json", json.dumps(jsonable(value), indent=1) + "\n")
        for sentence in results.unasked(options.out, {t["name"] for t in bench.tasks}):
            log.warning("%s", sentence)
    if bench.lines:
        whole, out = pa.concat_tables(bench.lines), io.BytesIO()
        pq.write_table(whole, out, compression="zstd")
        files.write_atomic(options.out / "leaderboard.parquet", out.getvalue())
    command.say(text)
    for sentence in dict.fromkeys(bench.failed):
        log.error("%s", sentence)
    return 1 if bench.failed else 0


@dataclasses.dataclass(frozen=True)
class _Solved:
    """A problem with all that was found of it."""

    found: Problem
    cells: Sequence[Cell]
    nulls: Mapping[str, Any]
    audit: str
    kept: dict[tuple[str, str], list[Row]] = dataclasses.field(default_factory=dict)  # intervals take a second a row

    def rows(self, target: str, where: str = "") -> list[Row]:
        of = next((t for t in self.found.train.targets.of if t.name == target), None)
        if of is None:
            return []
        if (target, where) not in self.kept:
            self.kept[target, where] = ranking.rows(self.found, self.cells, of, where, self.nulls)
        return self.kept[target, where]


class _Bench:
    """One call of the verb."""

    def __init__(self, options: argparse.Namespace, names: Sequence[str]) -> None:
        self.options, self.names = options, names
        self.failed: list[str] = []  # sentences
        self.lines: list[pa.Table] = []
        self.tasks: list[Mapping[str, Any]] = []  # what each asks
        self.splits = list(dict.fromkeys(options.split.split(",")))
        asked = list(dict.fromkeys(options.tasks.split(",")))
        self.pairs = [t for t in asked if t in lineage.TASKS]
        self.asked = [t for t in asked if t not in lineage.TASKS]

    @property
    def _asked(self) -> Iterator[list[str]]:
        """Targets of one population each: `progress` is of all snapshots, the others of the last ones."""
        if rest := [t for t in self.asked if t != PROGRESS]:
            yield rest
        if PROGRESS in self.asked:
            yield [PROGRESS]

    def text(self) -> str:
        """All tables."""
        if self.options.protocol:
            return "\n".join(self._protocol())
        zoos: list[Zoo] = []
        for name in self.options.zoos:
            with self._said(""):
                zoos = once([*zoos, open_zoo(name)])
                if [z.name for z in zoos].count(zoos[-1].name) > 1:
                    raise TaskError(f"{name} is left out: another zoo here is called {zoos.pop().name} too.")
        if TRANSFER in self.splits and len(zoos) < 2:
            self.failed.append("The split transfer asks the baselines of one zoo about others; name at least two zoos.")
        pages = list(self._pairs(zoos)) if self.pairs else []
        transfers: dict[tuple[bool, str], _Solved] = {}
        learned_from = [z for z in zoos if not tasks.asked_alone(z)]
        if self.asked and zoos and not learned_from:
            names = ", ".join(z.name for z in zoos)
            self.failed.append(
                f"{names}: all of its own split is test. Name a zoo to learn from, and the split transfer."
            )
        for zoo, asked in itertools.product(learned_from, self._asked):
            for split in self._splits(zoo):
                held: dict[str, _Solved] = {}
                for one in split[1]:
                    counts: list[int | None] = []
                    for networks in sorted(
                        self.options.networks, key=lambda n: -(n or MOST)
                    ):  # choices are made with most
                        with self._said(f"{zoo.name}, split {one}: "):
                            done = self._solved(zoo, one, networks, zoos, asked)
                            if done.found.networks in counts:
                                continue  # more than there are is all, which stands here already
                            counts.append(done.found.networks)
                            pages.append(self._page(done))
                            held.setdefault(one, done)
                            if one == "iid":
                                transfers.setdefault((asked == [PROGRESS], zoo.name), done)
                if len(held) > 1:
                    pages.append(_over_levels(zoo.name, split[0], held))
        for alone in (False, True):
            some = {name: done for (of, name), done in transfers.items() if of is alone}
            if TRANSFER in self.splits and len(some) > 1:
                pages.append(transfer_tables(some))
        return "\n".join(pages)

    def _protocol(self) -> Iterator[str]:
        """Tables of published populations, split as published. Raises ZooError for options that mean nothing there."""
        given = ("limit", "shuffles", "dear_shuffles", "tune", "fresh")
        idle = [f"--{n.replace('_', '-')}" for n in given if getattr(self.options, n)]
        idle += [f"--{n}" for n, default in (("tasks", MAIN), ("split", "iid")) if getattr(self.options, n) != default]
        if idle:
            raise ZooError(f"A published protocol fixes its networks and settings: leave out {' and '.join(idle)}.")
        for name in self.options.zoos:
            for networks in self.options.networks:
                with self._said(f"{name}: "):
                    found = protocols.published(Path(name), networks=networks)
                    frozen = results.choose(found, [], self.options.out)
                    self._run(found, self.names, frozen, known.CONTROLS)
                    cells = results.read(found, self.options.out, self.failed)
                    self.failed += sorted({f"{c.task}, {c.baseline}: {c.error}" for c in cells if c.error})
                    both = found.split.rule["row_0_on"]
                    said = f"Split as published; row 0 stands twice, on {' and '.join(both)}." if both else ""
                    yield self._page(_Solved(found, cells, {}, said))

    def _pairs(self, zoos: Sequence[Zoo]) -> Iterator[str]:
        """Tables of the tasks on pairs, of every zoo here that goes on from another one here."""
        related = [(a, b) for a in zoos for b in zoos if a.name in (b.manifest.identity.parents or {})]
        if not related:
            self.failed.append(
                f"{', '.join(self.pairs)}: none of the zoos goes on from another; name the parents' zoo and one that starts from it."
            )
        for parents, children in related:
            for task in self.pairs:
                with self._said(""):
                    options = self.options
                    kept = lineage.solved(
                        parents, children, task, options.out, options.shuffles, options.limit, options.commit
                    )
                    self.lines.append(pa.Table.from_pylist(lineage.lines(kept), leaderboard.SCHEMA))
                    self.tasks.append(lineage.asked(kept))
                    yield lineage.markdown(kept)

    def _splits(self, zoo: Zoo) -> Iterator[tuple[str, list[str]]]:
        """A split as it was named, and what it means in a zoo."""
        for split in dict.fromkeys("iid" if s == TRANSFER else s for s in self.splits):
            with self._said(""):
                yield split, list(task_splits.expand(zoo, split))

    def _said(self, where: str) -> _Said:
        return _Said(self.failed, where)

    def _solved(
        self, zoo: Zoo, split: str, networks: int | None, zoos: Sequence[Zoo], wanted: Sequence[str]
    ) -> _Solved:
        options = self.options
        asked = wanted if wanted != ["all"] else [t for t in targets.known(zoo) if t != PROGRESS]
        others = [z for z in zoos if z is not zoo] if TRANSFER in self.splits and split == "iid" else []
        new = []
        if options.fresh and split == "iid":
            seed, count = options.fresh
            new = [fresh.build(zoo, seed, count, options.out)]
        found = tasks.problem(zoo, asked, split, others=others, fresh=new, limit=options.limit, networks=networks)
        beside = {z.name for z in (*others, *new)}
        self.failed += [
            f"{zoo.name}, {split}: {why}" for what, why in found.refused.items() if wanted != ["all"] or what in beside
        ]
        report = audit.audit(found.split, tasks.prefix(zoo, options.limit))
        # Draws of data that networks on both sides learned from are there by design, and the report counts them.
        if torn := [f"{f.count:,} {f.kind}" for f in report.leaks if f.kind != audit.SUBSETS]:
            raise TaskError(f"{zoo.name}: the split {split} leaks ({', '.join(torn)} on two sides), and is not asked.")
        dear = [n for n in self.names if n not in known.NO_DRAWS]
        learned = [found.only(some) for some in self._together([t.name for t in found.train.targets.of], split)]
        frozen = (
            results.choose(learned[0], dear, options.out)
            if dear and options.tune and learned
            else results.choose(found, [], options.out)
        )
        cheap = [n for n in self.names if n in known.NO_DRAWS]
        self._run(found, cheap, frozen, known.CONTROLS)
        for narrow in learned if dear else []:
            self._foretell(narrow, dear, frozen)
            self._run(narrow, dear, frozen, controls=())
        read = functools.partial(results.read, folder=options.out, seeds=options.seeds, frozen=frozen)
        cells = [c for c in read(found, wrong=self.failed) if c.baseline not in dear]
        for narrow in learned:
            cells += [c for c in read(narrow, wrong=[]) if c.baseline in dear]
        first = found.only([found.train.targets.of[0].name])
        for some, shuffles in ((cheap, options.shuffles), (dear, options.dear_shuffles)):
            if split == "iid" and shuffles:
                wanted = [*(known.CONTROLS if some is cheap else ()), *some]
                for name in nulls.run(first, list(dict.fromkeys(wanted)), shuffles, options.out, cells, frozen):
                    log.info("%s: %s, shuffled", zoo.name, name)
        self.failed += sorted({f"{c.task}, {c.baseline}: {c.error}" for c in cells if c.error})
        return _Solved(found, cells, nulls.read(first, [*known.CONTROLS, *self.names], options.out), str(report))

    def _together(self, names: Sequence[str], split: str) -> Iterator[list[str]]:
        """The targets that a dear baseline learns in one fit: accuracy alone, which controls choose for too, then all others.

        A trunk of many heads serves each of them worse. Where a split is not `iid`, accuracy is all that it is asked.
        """
        if MAIN in names:
            yield [MAIN]
        if split == "iid" and (rest := [n for n in names if n != MAIN]):
            yield rest

    def _foretell(self, found: Problem, dear: Sequence[str], frozen: Mapping[str, Any]) -> None:
        """Say what the fits that are missing will cost."""
        total, fits = 0.0, 0
        for name in dear:
            missing = [
                s for s in range(self.options.seeds) if not results.path_of(found, name, s, self.options.out).exists()
            ]
            if missing:
                total += len(missing) * solving.estimate(found, name, frozen.get(name))
                fits += len(missing)
        if fits:
            log.info("%s, %s: about %.1f CPU-min for %d fits", found.zoo, found.split_name, total / 60, fits)

    def _run(self, found: Problem, names: Sequence[str], frozen: Mapping[str, Any], controls: Sequence[str]) -> None:
        options = self.options
        work = results.run(found, names, options.seeds, options.out, options.commit, frozen, controls)
        for name, seed, there in work:
            log.info("%s, %s: %s, seed %d%s", found.zoo, found.split_name, name, seed, " (was there)" if there else "")

    def _page(self, done: _Solved) -> str:
        found = done.found
        for where in found.tests:
            pairs = [(t, done.rows(t.name, where)) for t in found.train.targets.of]
            self.lines.append(leaderboard.as_table(found, pairs, where))
            self.tasks += [_task(found, t, where) for t, table in pairs if table]
        text = leaderboard.markdown(found, done.cells, done.nulls, done.rows)
        if self.options.fresh and (new := f"{found.zoo}-fresh-{self.options.fresh[0]}") in found.tests:
            text += "\n" + _beside_fresh(done, new)
        return f"{text}\nThe split, audited:\n\n```\n{done.audit}\n```\n"


def _task(found: Problem, target: Target, where: str) -> dict[str, Any]:
    """A task as a file says it."""
    kind = "class" if target.classes else "number"
    return (
        {"name": found.name_of(target.name, where)}
        | tasks.asked(found, target, where)
        | {"metrics": [*ranking.SHOWN[kind], *ranking.MORE[kind]]}
    )


class _Said:
    """A context in which a ZooError is one more sentence, and the rest goes on."""

    def __init__(self, sentences: list[str], where: str) -> None:
        self.sentences, self.where = sentences, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, ZooError):
            return False
        said = str(error)
        self.sentences.append(said if said.startswith(self.where.split(",")[0] or "\0") else self.where + said)
        return True


# ── tables over several problems ──────────────────────────────────────────────────────


def _beside_fresh(done: _Solved, fresh_zoo: str) -> str:
    """Each baseline on the test side and on networks that were built after it, side by side, and what it loses there."""
    found, pages = done.found, []
    for target in found.train.targets.of:
        metrics = ranking.SHOWN["class" if target.classes else "number"][:2]
        tables = [done.rows(target.name, where) for where in ("", fresh_zoo)]
        heads = [f"{ranking.WORDS[m]}, {kind}" for m in metrics for kind in ("test", "fresh", "fresh − test")]
        lines = [f"### {target.name}: the test side, and {len(found.tests[fresh_zoo]):,} networks built since", ""]
        lines += [f"| baseline | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
        later = {r.baseline: r for r in tables[1] if not r.error}
        for row in (r for r in tables[0] if r.baseline in later and not r.error):
            both = (row, later[row.baseline])
            cells = []
            for m in metrics:
                old, new = (r.scores[m] for r in both)
                cells += [leaderboard.in_words(old), leaderboard.in_words(new)]
                cells.append(leaderboard.in_words(intervals.apart(old, new), sign="+"))
            lines.append(f"| {row.baseline} | {' | '.join(cells)} |")
        pages.append("\n".join([*lines, ""]))
    return "\n".join(pages)


def _over_levels(zoo: str, axis: str, held: Mapping[str, _Solved]) -> str:
    """Every level held out in turn: baselines × levels, and the mean over levels."""
    first = next(iter(held.values()))
    pages = []
    for target in first.found.train.targets.of:
        kind = "class" if target.classes else "number"
        for metric in ranking.SHOWN[kind][:2]:
            tables = {level: done.rows(target.name) for level, done in held.items()}
            title = f"{zoo}/{target.name}, each level of {axis} held out"
            pages.append(leaderboard.over_units_markdown(title, tables, metric, "level"))
    return "\n".join(pages)


def transfer_tables(solved: Mapping[str, _Solved]) -> str:
    """For each target and baseline: learned on (rows) × asked of (columns)."""
    targets_of = [{t.name: t for t in s.found.train.targets.of} for s in solved.values()]
    shared = [t for n, t in targets_of[0].items() if all(n in of for of in targets_of)]
    pages = []
    for target in shared:
        for metric in ranking.SHOWN["class" if target.classes else "number"][:2]:
            value: dict[tuple[str, str, str], float] = {}
            for source, done in solved.items():
                for asked_of in solved:
                    where = "" if asked_of == source else asked_of
                    if where and where not in done.found.elsewhere:
                        continue
                    for row in done.rows(target.name, where):
                        if metric in row.scores:
                            value[row.baseline, source, asked_of] = row.scores[metric].value
            names = list(dict.fromkeys(b for b, *_ in value))
            lines = [f"### {target.name}: {ranking.WORDS[metric]}, learned on one source and asked of another", ""]
            columns = [f"{a.split('/')[-1]} → {b.split('/')[-1]}" for a in solved for b in solved]
            lines += [f"| baseline | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
            for name in names:
                shown = [value.get((name, a, b)) for a in solved for b in solved]
                lines.append(f"| {name} | {' | '.join('–' if v is None or v != v else f'{v:.3f}' for v in shown)} |")
            few = f"{len(solved)} sources: " if len(solved) < 5 else ""
            lines += ["", f"{few}the unit is the source, and an interval over sources needs five." if few else "", ""]
            pages.append("\n".join(lines))
    return "\n".join(pages)


def _counts(text: str) -> tuple[int | None, ...]:
    return tuple(None if word == "all" else command.count(word) for word in text.split(","))
