"""Split and zoos → a report of what leaks across its sides, and how far metadata alone gets.

In:  a split of `split_files.py` (or the stored ones), and the zoos it is for.
Out: an `Audit`: for each kind of leak how many were found, within and across zoos; and the R²
     of a small model that never sees a weight.

What is not found is said too: copies that were permuted and trained on, and pairs beyond a sample's size.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets import errors, intervals, near_duplicates
from zoo_datasets.core import meters, notebook, plain_text, streams
from zoo_datasets.core.arrow import floats_of
from zoo_datasets.errors import GridError, IntegrityError
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.near_duplicates import Member, Pair
from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.sources.rows import NAMES
from zoo_datasets.split_files import Split, ZooLike, group_keys, zoo_name

SUBSETS = "training subsets"  # what is found of them: networks may share data by design
MOST_EXAMPLES = 5  # of one kind in a report
MOST_SHOWN = 120  # characters of each


# Of models: what must not stand on two sides, and what says which weights can be compared.
KEYS = ("model_id", "init_key", "init_group", "parent_id", "lineage_root")
COMPARED = (*KEYS, "split", "layout")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of thing that was looked for: how many were found on more than one side."""

    kind: str
    count: int
    across_zoos: int  # of them, found in more than one zoo
    looked_at: int
    text: str
    examples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, repr=False)
class Audit:
    """What an audit found. `leaks` empty: nothing of what was looked for is on two sides."""

    split: str
    zoos: tuple[str, ...]
    counts: Mapping[str, int]  # models per split
    unassigned: int  # models of the zoos that take no part
    findings: tuple[Finding, ...]
    metadata: intervals.Interval | None  # R² of the target from the factors alone, on test
    metadata_note: str  # how, or why not

    @property
    def leaks(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.count)

    def to_json(self) -> dict[str, Any]:
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **record, "zoos": list(self.zoos), "counts": dict(self.counts),
            "findings": [{**dataclasses.asdict(f), "examples": list(f.examples)} for f in self.findings],
            "metadata": None if self.metadata is None else self.metadata.to_json(),
        }  # fmt: skip

    def __str__(self) -> str:
        counts = ", ".join(f"{n:,} {s}" for s, n in self.counts.items())
        lines = [f"split {self.split} of {', '.join(self.zoos)}: {counts}, {self.unassigned:,} without a side"]
        for f in self.findings:
            examples = ", ".join(e if len(e) <= MOST_SHOWN else f"{e[:MOST_SHOWN]}…" for e in f.examples)
            state = f"LEAK {f.count:,} ({f.across_zoos:,} across zoos): {examples}" if f.count else "none"
            lines.append(f"  {f.kind}: {state} — {f.text}, {f.looked_at:,} looked at")
        value = f"{self.metadata}; " if self.metadata else ""
        # Names are a stranger's: one with a line break would say something of its own.
        return "\n".join(map(plain_text.line, [*lines, f"  metadata alone: {value}{self.metadata_note}"]))

    def __repr__(self) -> str:
        found = ", ".join(f"{f.count:,} {f.kind}" for f in self.leaks) or "no leak"
        return (
            f"Audit of split {self.split} of {', '.join(self.zoos)}: {found} of {len(self.findings)} kinds looked for"
        )

    def _repr_html_(self) -> str:
        rows = [(f.kind, f"{f.count:,}" if f.count else "none", f"{f.looked_at:,}", f.text) for f in self.findings]
        value = f"{self.metadata}; " if self.metadata else ""
        note = f"metadata alone: {value}{self.metadata_note}"
        return notebook.table(repr(self), ("kind", "on two sides", "looked at", "what"), rows, note)


def audit(
    split: Split | None, *zoos: ZooLike, target: str = "test_accuracy", near: float = near_duplicates.NEAR,
    most_models: int = 20_000, seed: int = 0,
) -> Audit:  # fmt: skip
    """What lies on more than one side of a split, within and across zoos.

    With `split=None` each zoo's stored splits are the sides: two zoos that are used together
    (trained on one, tested on the other) are compared by them. Looked for: model ids, hashes of
    the weights of all snapshots, init keys, init groups, lineages, draws of training subsets, noise and
    triggers; pairs of models of one layout on different sides whose last weights are near or
    copies up to a symmetry (`near_duplicates.py` says what is not found). Their number grows with the
    square of the models: 2,000 of 2,464 weights take some seconds, and above `most_models` of a
    layout a sample by hash of the id is compared.

    Metadata alone: a random forest on the factor columns and on how long was trained (updates, examples,
    training images), fitted on train, scored on test as R² against the training mean, with an
    interval over groups (needs scikit-learn). A method that reads weights has to beat it. Raises
    IntegrityError where the split is for other zoos, GridError where the target is no numeric column.
    """
    for zoo in zoos:
        for name in COMPARED:
            if name not in zoo.models.column_names:
                raise IntegrityError(
                    f"models of {zoo_name(zoo)} has no column {name!r}: the zoo is damaged. Fetch or build it again."
                )
    if not zoos:
        raise ValueError("audit needs at least one zoo: audit(split, zoo).")
    if not near > 0:
        raise ValueError(f"`near` is {near}; it is a distance above 0.")
    if most_models < 2:
        raise ValueError(f"`most_models` is {most_models}; a pair takes two.")
    if split is not None:
        split.check(*zoos)
    side = [_codes_of(z, split) for z in zoos]  # int8 [models] each, −1 without a side
    models = _together(zoos, side, KEYS)
    findings = [
        _shared("model ids", "the same model", models, "model_id"),
        _hashes(zoos, side),
        _shared("init keys", "the same initial weights", models, "init_key"),
        _shared("init groups", "models that share an initialization", models, "init_group"),
        _lineages(models),
        _subsets(zoos, side),
        *_near_duplicates(zoos, side, near, most_models, seed),
    ]
    with meters.track("predicting from metadata alone"):
        metadata, note = _metadata_alone(zoos, side, target, seed)
    codes = np.concatenate(side)
    return Audit(
        "stored" if split is None else f"{split.name} v{split.version}", tuple(zoo_name(z) for z in zoos),
        {s: int((codes == k).sum()) for k, s in enumerate(SPLITS) if (codes == k).any()}, int((codes < 0).sum()),
        tuple(findings), metadata, note,
    )  # fmt: skip


def _codes_of(zoo: ZooLike, split: Split | None) -> np.ndarray:
    """The side of every model of a zoo as its place in `paths.SPLITS`, int8 [models]; −1 without."""
    column = zoo.models["split"].combine_chunks() if split is None else split.column(zoo.models)
    return _place(column, SPLITS).astype(np.int8)


def _place(values: Any, among: Any) -> np.ndarray:
    return np.asarray(pc.fill_null(pc.index_in(values, pa.array(among)), -1))


@dataclasses.dataclass(frozen=True)
class _Table:
    """Columns of all zoos one after another, with the side and the zoo of every row."""

    columns: dict[str, pa.Array]
    side: np.ndarray
    zoo: np.ndarray


def _together(zoos: Collection[ZooLike], side: Collection[np.ndarray], names: Collection[str]) -> _Table:
    columns = {
        n: pa.chunked_array([c.cast(pa.string()) for z in zoos for c in z.models[n].chunks], pa.string()) for n in names
    }
    return _Table(
        {n: pa.concat_arrays(c.chunks) if c.num_chunks else pa.array([], pa.string()) for n, c in columns.items()},
        np.concatenate(list(side)),
        np.repeat(np.arange(len(side)), [len(s) for s in side]),
    )


def _shared(kind: str, text: str, table: _Table, name: str) -> Finding:
    return _finding(kind, text, table.columns[name], table.side, table.zoo)


def _finding(kind: str, text: str, values: pa.Array, side: np.ndarray, zoo: np.ndarray) -> Finding:
    """Values that occur on more than one side."""
    encoded = values.dictionary_encode()
    code = np.asarray(pc.fill_null(encoded.indices, -1))
    n = len(encoded.dictionary)
    keep = (code >= 0) & (side >= 0)

    def distinct(labels: np.ndarray) -> np.ndarray:  # of each value, int [n]
        total = np.zeros(n, np.int64)
        for label in np.unique(labels[keep]):
            total += np.bincount(code[keep & (labels == label)], minlength=n) > 0
        return total

    torn = distinct(side) > 1
    examples = tuple(encoded.dictionary.take(np.flatnonzero(torn)[:MOST_EXAMPLES]).to_pylist())
    return Finding(kind, int(torn.sum()), int((torn & (distinct(zoo) > 1)).sum()), n, text, examples)


# Columns of what is drawn of the training data, and the value at which nothing is.
DRAWS_NOTHING = {"subset_frac": 1.0, "subset_class_shares": None, "label_noise_frac": 0.0, "trigger_frac": 0.0}


def _subsets(zoos: Collection[ZooLike], side: Collection[np.ndarray]) -> Finding:
    """Draws of training images, noisy labels or poisoned images that models on several sides learned from."""
    values: list[str | None] = []
    for zoo in zoos:
        columns = {
            n: zoo.models[n].to_pylist() for n in zoo.models.column_names if n in DRAWS_NOTHING or n == "subset_key"
        }
        keys = columns.pop("subset_key", [None] * len(zoo.models))
        drawn = [any(v not in (None, DRAWS_NOTHING[n]) for n, v in zip(columns, row, strict=True))
                 for row in zip(*columns.values(), strict=True)] or [False] * len(keys)  # fmt: skip
        values += [key if used else None for key, used in zip(keys, drawn, strict=True)]
    owner = np.repeat(np.arange(len(side)), [len(s) for s in side])
    text = "one draw of training images, label noise or triggers"
    return _finding(SUBSETS, text, pa.array(values, pa.string()), np.concatenate(list(side)), owner)


def _hashes(zoos: Collection[ZooLike], side: Collection[np.ndarray]) -> Finding:
    values, sides, owner = [], [], []
    for number, (zoo, codes) in enumerate(zip(zoos, side, strict=True)):
        row = _place(zoo.snapshots["model_id"].combine_chunks(), zoo.models["model_id"].combine_chunks())
        values += [c.cast(pa.string()) for c in zoo.snapshots["weights_sha256"].chunks]
        sides.append(np.where(row >= 0, codes[row], -1) if len(codes) else np.full(len(row), -1))
        owner.append(np.full(len(row), number))
    hashes = pa.concat_arrays(values) if values else pa.array([], pa.string())
    return _finding("weights", "snapshots with the same bytes", hashes, np.concatenate(sides), np.concatenate(owner))


def _lineages(table: _Table) -> Finding:
    """Ancestors whose descendants, or they themselves, are on more than one side."""
    parts = [table.columns[n] for n in ("parent_id", "lineage_root", "model_id")]
    ancestors = pc.unique(pa.concat_arrays(parts[:2])).drop_null()
    themselves = pc.if_else(pc.is_in(parts[2], ancestors), parts[2], pa.scalar(None, pa.string()))
    return _finding(
        "lineages", "models that continue another, and the other", pa.concat_arrays([*parts[:2], themselves]),
        np.tile(table.side, 3), np.tile(table.zoo, 3),
    )  # fmt: skip


# ── near-duplicates ───────────────────────────────────────────────────────────────────


def _near_duplicates(
    zoos: Collection[ZooLike], side: Collection[np.ndarray], near: float, most_models: int, seed: int
) -> tuple[Finding, Finding]:
    members: dict[str, list[Member]] = {}  # by layout
    for number, (zoo, codes) in enumerate(zip(zoos, side, strict=True)):
        rows, known = zip(codes.tolist(), _last_rows(zoo).tolist(), strict=True), _architectures(zoo)
        models, layouts = zoo.models["model_id"].to_pylist(), zoo.models["layout"].to_pylist()
        for (code, row), model, layout, architecture in zip(rows, models, layouts, known, strict=True):
            if code >= 0 and row >= 0:
                members.setdefault(layout, []).append(Member(number, row, code, model, architecture))
    found: tuple[list[Pair], list[Pair]] = ([], [])
    looked_at, notes = 0, ""
    nearer: list[float] = []  # limits of layouts of whose few weights strangers come nearer
    apart = 0  # models of layouts in which nothing is near
    permuted = fixed = 0  # models of which permutations alone are known, and those of which not even these
    for layout, those in members.items():
        if len(those) > most_models:
            notes += f"; {most_models:,} of {len(those):,} models of layout {layout} drawn"
            those = sorted(those, key=lambda m: streams.digest([m.model, seed]))[:most_models]
        pairs_of = near_duplicates.find(list(zoos), those, near)
        found[0].extend(pairs_of.near)
        found[1].extend(pairs_of.copies)
        if pairs_of.limit <= 0:  # exact copies alone
            apart += len(those)
            continue
        looked_at += len(those)
        unbuilt = [m.architecture for m in those if not isinstance(m.architecture, Architecture)]
        movable = sum(a is not None and any(g for e in a.layout for g in e.groups) for a in unbuilt)
        permuted, fixed = permuted + movable, fixed + len(unbuilt) - movable
        if pairs_of.limit < near:
            nearer.append(pairs_of.limit)
    limits = (
        f"; within {min(nearer):.2g} or more for {len(nearer):,} layouts, of whose few weights strangers come nearer"
        if nearer
        else ""
    )
    limits += (
        f"; {apart:,} models hardly differ but in one direction, in which all are near: of them exact copies alone"
        if apart
        else ""
    )
    texts = (
        f"kernels of the last weights within {near:g} of each other{limits}",
        "last weights that are permuted, sign-flipped or rescaled ones of another model"
        + (f"; of {permuted:,} models permuted ones alone, for their layers are not known" if permuted else "")
        + (f"; {fixed:,} models are of layouts that say of no units that they may change places" if fixed else ""),
    )
    kinds = ("near-duplicates", "symmetric copies")
    first, second = (
        Finding(
            kind, len(pairs), sum(p.across_zoos for p in pairs), n, f"{text}, pairs{notes}",
            tuple(f"{p.a}–{p.b} ({p.distance:.3g})" for p in sorted(pairs, key=lambda p: p.distance)[:MOST_EXAMPLES]),
        )
        for kind, text, pairs, n in zip(kinds, texts, found, (looked_at, looked_at - fixed), strict=True)
    )  # fmt: skip
    return first, second


def _architectures(zoo: ZooLike) -> list[Architecture | External | None]:
    """Of every model; where its layers cannot be built here the layout alone, and None where that is not written down."""
    layouts, names = zoo.models["layout"].to_pylist(), [None] * len(zoo.models)
    if "architecture_id" in zoo.models.column_names:
        names = zoo.models["architecture_id"].to_pylist()
    made: dict[tuple[str, str | None], Architecture | External | None] = {}
    for key in zip(layouts, names, strict=True):
        if key not in made:
            layout = zoo.manifest.layouts.get(key[0])
            made[key] = None if layout is None else External(layout)
            with contextlib.suppress(errors.ZooError):
                made[key] = zoo.manifest.architecture(str(key[1])) if key[1] is not None else made[key]
    return [made[key] for key in zip(layouts, names, strict=True)]


def _last_rows(zoo: ZooLike) -> np.ndarray:
    """The row in `snapshots` of each model's last snapshot, int64 [models]; −1 where it has none."""
    model = _place(zoo.snapshots["model_id"].combine_chunks(), zoo.models["model_id"].combine_chunks())
    order = np.argsort(zoo.snapshots["step"].to_numpy(), kind="stable")
    last = np.full(len(zoo.models), -1, np.int64)
    order = order[model[order] >= 0]
    last[model[order]] = order  # ascending steps: the last one written stays
    return last


# ── metadata alone ────────────────────────────────────────────────────────────────────

MOST_NUMBER = 3e38  # that scikit-learn takes, whose trees have float32
# Columns for the levels of one factor; a label with more is an identifier rather than a factor.
MOST_LEVELS_OF_A_FACTOR = 200
# How long a model was trained: no factor says it where a stop rule or the size of its set does.
LENGTHS = ("n_train", "step", "examples_seen")


def _metadata_alone(
    zoos: Collection[ZooLike], side: Collection[np.ndarray], target: str, seed: int
) -> tuple[intervals.Interval | None, str]:
    """R² on test of a forest on the factors, and one line on how; None and why where it cannot be."""
    for zoo in zoos:
        if target not in zoo.models.column_names:
            raise GridError(errors.unknown("target", target, zoo.models.column_names, zoo_name(zoo)))
        kind = zoo.models[target].type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise GridError(f"The target {target!r} of {zoo_name(zoo)} is of type {kind}; a number is needed.")
    y = np.concatenate([floats_of(z.models[target]) for z in zoos])
    finite = np.isfinite(y)
    codes = np.concatenate(list(side))
    train, test = (finite & (codes == SPLITS.index(s)) for s in ("train", "test"))
    keys = group_keys(*zoos)
    groups = np.array([keys[i] for z in zoos for i in z.models["model_id"].to_pylist()])
    if train.sum() < 2 or len(set(groups[test])) < 2:
        return (
            None,
            f"not computed: {int(train.sum())} models to fit on and {len(set(groups[test]))} test groups are too few",
        )
    names = [n for n in dict.fromkeys(f for z in zoos for f in (*z.manifest.factors, *LENGTHS)) if n != target]
    x, used = _design(zoos, names, train)
    if not used:
        return None, "not computed: no factor varies in train"
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError:
        return None, "not computed: needs scikit-learn (pip install scikit-learn)"
    forest = RandomForestRegressor(n_estimators=100, random_state=seed, n_jobs=1).fit(x[train], y[train])
    interval = intervals.score(
        "r2", y[test], forest.predict(x[test]), groups[test], seed=seed, baseline=float(y[train].mean())
    )
    return (
        interval,
        f"{target} from {', '.join(used)} by a random forest, {int(train.sum()):,} models to {int(test.sum()):,}",
    )


def _design(zoos: Collection[ZooLike], names: Collection[str], train: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Factors that vary in train, as numbers (null is NaN) or one-hot over their levels: [models, columns], and names."""
    blocks, used = [], []
    for name in names:
        values = [
            v
            for z in zoos
            for v in (z.models[name].to_pylist() if name in z.models.column_names else [None] * len(z.models))
        ]
        labels = np.array([streams.level_json(v) for v in values], object)
        levels = sorted(set(labels[train]))
        if len(levels) < 2:
            continue
        used.append(name)
        if name not in NAMES and all(v is None or isinstance(v, (int, float)) for v in values):
            numbers = np.array([[np.nan if v is None else float(v)] for v in values])
            blocks.append(np.clip(numbers, -MOST_NUMBER, MOST_NUMBER))  # trees ask for the order alone
        else:
            blocks.append(
                np.stack([labels == level for level in levels[:MOST_LEVELS_OF_A_FACTOR]], axis=1).astype(np.float64)
            )
    return (np.concatenate(blocks, axis=1) if blocks else np.zeros((len(train), 0))), used
