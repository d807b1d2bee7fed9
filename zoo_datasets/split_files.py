"""Zoos → splits as versioned files: model id → train, validation or test.

In:  zoos: objects with `models` and `snapshots` (Arrow tables), `manifest`, and `weights[rows]`
     in the order of `snapshots`; a column to hold out, or nothing.
Out: a `Split`, with the rule and the digests of the zoos it was made for; a file and back.

A split assigns models, so a model's snapshots never straddle. Makers never part a *group*:
the models that share an initialization or a lineage, directly or over others, in any of the
zoos. What side a group falls on depends on its own key and levels alone: adding models
moves none.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zoo_datasets import errors
from zoo_datasets.core import files, records, streams
from zoo_datasets.errors import FormatVersionError, GridError, IntegrityError, ZooNotFoundError
from zoo_datasets.format import parquet, splits
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS

SPLIT_VERSION = 1  # of the file format
STANDARD = {"train": 0.7, "validation": 0.15, "test": 0.15}
PARQUET_KEY = b"weightzoo.split"


class ZooLike(Protocol):
    """What makers and audits need of a zoo; `open_zoo` gives it."""

    @property
    def models(self) -> pa.Table: ...
    @property
    def snapshots(self) -> pa.Table: ...
    @property
    def manifest(self) -> Manifest: ...
    @property
    def weights(self) -> Any: ...


@dataclasses.dataclass(frozen=True)
class Split:
    """Model id → split, and where it comes from. Models that are not in it take no part."""

    name: str
    version: int  # of this split; another assignment under the same name takes the next
    zoos: Mapping[str, str]  # zoo id → digest of its contents
    rule: Mapping[str, Any]  # how it was made: maker and arguments
    assignment: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the assignment alone, 64 hex digits."""
        return streams.digest(dict(self.assignment))

    @property
    def counts(self) -> dict[str, int]:
        """Models per split."""
        values = list(self.assignment.values())
        return {s: values.count(s) for s in SPLITS if s in values}

    def column(self, table: pa.Table) -> pa.Array:
        """The split of every row of a table with `model_id`, null where it takes no part: string [rows]."""
        ids, names = list(self.assignment), list(self.assignment.values())
        place = pc.index_in(table["model_id"].combine_chunks(), pa.array(ids, pa.string()))
        taken = pa.array(names, pa.string()).take(place)
        return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken

    def check(self, *zoos: ZooLike) -> None:
        """Raises IntegrityError where a zoo is not one that the split was made for, or models are missing."""
        for zoo in zoos:
            name, digest = zoo_name(zoo), zoo_digest(zoo)
            if name not in self.zoos:
                raise IntegrityError(
                    f"Split {self.name!r} v{self.version} was made for {', '.join(map(errors.shown, self.zoos))}, not for {name}."
                )
            if self.zoos[name] != digest:
                raise IntegrityError(
                    f"Split {self.name!r} v{self.version} was made for {name} with digest {self.zoos[name][:16]}…; this "
                    f"one has {digest[:16]}…. Open the revision it was made for, or make the next version of the split."
                )
        if {zoo_name(z) for z in zoos} >= set(self.zoos):
            # Of a selection all of its zoo: what was not selected is not missing.
            missing = set(self.assignment) - {
                i for z in zoos for i in getattr(z, "whole", z).models["model_id"].to_pylist()
            }
            if missing:
                raise IntegrityError(
                    f"Split {self.name!r} names {len(missing)} models that are in no zoo ({min(missing)}, …)."
                )

    def save(self, path: Path | str) -> None:
        """Write `….json` or `….parquet`, whole or not at all; the same split, the same JSON. Raises OSError, ValueError."""
        path, head = Path(path), self._head()
        if path.suffix == ".json":
            ids = {s: sorted(i for i, v in self.assignment.items() if v == s) for s in self.counts}
            files.write_json(path, {**head, "models": ids})
        elif path.suffix == ".parquet":
            rows = sorted(self.assignment.items())
            table = pa.table({"model_id": [i for i, _ in rows], "split": [s for _, s in rows]})
            out = io.BytesIO()
            pq.write_table(table.replace_schema_metadata({PARQUET_KEY: json.dumps(head)}), out, compression="zstd")
            files.write_atomic(path, out.getvalue())
        else:
            raise ValueError(f"A split is saved as .json or .parquet, not as {path.name!r}.")

    def _head(self) -> dict[str, Any]:
        return {
            "format_version": SPLIT_VERSION, "name": self.name, "version": self.version, "zoos": dict(self.zoos),
            "rule": dict(self.rule), "n_models": len(self.assignment), "sha256": self.digest,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Head:
    """What a file says of its split."""

    name: str
    version: int
    zoos: Mapping[str, str]
    rule: Mapping[str, Any]


def load_split(path: Path | str) -> Split:
    """The split of a file. Raises ZooNotFoundError, FormatVersionError, IntegrityError where it is damaged."""
    path = Path(path)
    try:
        head, pairs = _read_json(path) if path.suffix == ".json" else _read_parquet(path)
        if head["format_version"] > SPLIT_VERSION:
            raise FormatVersionError(
                f"{path} has format version {head['format_version']}; this library reads up to {SPLIT_VERSION}. Upgrade weightzoo."
            )
        about = records.decode(_Head, {key: head[key] for key in ("name", "version", "zoos", "rule")})
        split = Split(about.name, about.version, about.zoos, about.rule, dict(pairs))
        intact = head["sha256"] == split.digest and len(pairs) == len(split.assignment) == head["n_models"]
        intact &= set(split.assignment.values()) <= set(SPLITS)
    except FileNotFoundError:
        raise ZooNotFoundError(f"There is no split at {path}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
        if isinstance(error, errors.ZooError):
            raise
        raise IntegrityError(f"{path} is no split of a zoo, or damaged: {error}.") from None
    if not intact:
        raise IntegrityError(
            f"{path} is damaged: its assignment is not the one that was saved. Fetch or make it again."
        )
    return split


def _read_json(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    head = json.loads(path.read_bytes())
    return head, [(i, s) for s, ids in head.pop("models").items() for i in ids]


def _read_parquet(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    file = parquet.open_file(path, path.stat().st_size, str(path))
    head = json.loads((file.schema.metadata or {})[PARQUET_KEY])
    if file.n_rows != head["n_models"]:
        raise ValueError(f"it has {file.n_rows:,} rows, not {head['n_models']}")
    table = parquet.as_strings({c: file.read([c])[c] for c in ("model_id", "split")}, file.size, str(path))
    return head, list(zip(table["model_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def zoo_digest(zoo: ZooLike) -> str:
    """SHA-256 of a zoo's content digests: weights and rows, blind to encoding."""
    return streams.digest(dict(zoo.manifest.digests))


# ── makers ────────────────────────────────────────────────────────────────────────────


def stored(*zoos: ZooLike, name: str = "stored", version: int = 1) -> Split:
    """The split that the zoos were sealed with: by init group. Raises GridError where zoos disagree on a model or group."""
    wanted = _of_models("split", zoos)
    _refuse_straddling(wanted, group_keys(*zoos), "stored splits", "Divide them anew by `by_group`.")
    return _split(name, version, zoos, {"maker": "stored"}, wanted)


def by_group(
    *zoos: ZooLike, fractions: Mapping[str, float] | None = None, name: str = "by-group", version: int = 1
) -> Split:
    """Whole groups by the hash of their key, shares by `fractions` (they add up to 1); any zoo, any time, the same.

    With few groups the shares are uneven. Raises GridError where a split stays empty.
    """
    fractions = _fractions(fractions, SPLITS)
    keys = group_keys(*zoos)
    wanted = {i: splits.by_hash(key, fractions) for i, key in keys.items()}
    return _split(name, version, zoos, {"maker": "by_group", "fractions": fractions}, wanted)


def held_out(
    axis: str, *zoos: ZooLike, test: Collection[Any], validation: Collection[Any] = (), straddling: str = "error",
    fractions: Mapping[str, float] | None = None, name: str | None = None, version: int = 1,
) -> Split:  # fmt: skip
    """Models at the `test` levels of a column are test, at `validation` levels validation, all others train.

    `axis` is any column of `models`: a factor, or `source` for whole held-out sources (one zoo
    or several). `test` and `validation` are one level or several. Where the axis is paired, groups have models on several sides:
    `straddling="error"` refuses; `"drop"` gives *every* group to one side by the hash of its key
    (shares by `fractions`) and leaves out its models of the other sides.
    Raises GridError for unknown columns and levels, for a level on two sides, for straddling groups, for an empty split.
    """
    levels = _of_models(axis, zoos)
    known = {streams.canonical_json(_named(v)): v for v in levels.values()}
    of_lists = any(isinstance(v, list) for v in known.values())
    test, validation = _several(test, of_lists), _several(validation, of_lists)
    for level in (*test, *validation):
        if level not in known.values():
            raise GridError(errors.unknown("level", level, known.values(), f"column {axis!r}"))
        if level in test and level in validation:
            raise GridError(
                f"The level {level!r} of {axis!r} is asked for as test and as validation; a model has one side."
            )
    if straddling not in ("error", "drop"):
        raise GridError(errors.unknown("way with straddling groups", straddling, ("error", "drop")))
    sides = {i: "test" if v in test else "validation" if v in validation else "train" for i, v in levels.items()}
    keys = group_keys(*zoos)
    rule: dict[str, Any] = {
        "maker": "held_out", "axis": axis, "test": test, "validation": validation, "straddling": straddling,
    }  # fmt: skip
    if straddling == "error":
        way_out = (
            'Use straddling="drop" to leave out the models on the other sides, or hold out an axis that is not paired.'
        )
        _refuse_straddling(sides, keys, f"{axis!r} with test levels {errors.alternatives(test)}", way_out)
    else:
        used = [s for s in SPLITS if s != "validation" or validation]
        rule["fractions"] = _fractions(fractions, used)
        sides = {i: s for i, s in sides.items() if s == splits.by_hash(keys[i], rule["fractions"])}
    wanted = ["train", "test", *(["validation"] if validation else [])]
    return _split(name or f"held-out-{axis}", version, zoos, rule, sides, wanted)


# ── groups ────────────────────────────────────────────────────────────────────────────


def group_keys(*zoos: ZooLike) -> dict[str, str]:
    """Model id → key of its group: models that share an init key, an init group or a lineage, over all zoos.

    The key is the init group of the group's first ancestor (the least, were there several), so
    that children and their twins do not change it, nor whether a child's ancestors are among
    the zoos; or the name of an ancestor in no zoo whose children differ in it. It changes only where a new model joins two groups into one.
    """
    from scipy.cluster.hierarchy import DisjointSet

    groups = DisjointSet()
    rows = [r for z in zoos for r in _rows(z, ("model_id", "init_group", "init_key", "parent_id", "lineage_root"))]
    for r in rows:
        model = ("model", r["model_id"])
        groups.add(model)
        for other in (
            ("group", r["init_group"]), ("key", r["init_key"]), ("model", r["parent_id"]), ("model", r["lineage_root"]),
        ):  # fmt: skip
            if other[1] is not None:
                groups.add(other)
                groups.merge(model, other)
    ancestors = {r[c] for r in rows for c in ("parent_id", "lineage_root")}
    inside = {r["model_id"] for r in rows}
    names: dict[tuple[str, str], set[tuple[int, str]]] = {}  # (rank, name): ancestors come first
    # Children keep the init group of their ancestor: where that lies in no zoo, they have its key all the same.
    kept: dict[str, set[str]] = {}
    for r in rows:
        kept.setdefault(r["lineage_root"] or r["parent_id"] or r["model_id"], set()).add(r["init_group"])
    for r in rows:
        names_of_group = names.setdefault(groups[("model", r["model_id"])], set())
        root = r["lineage_root"] or r["parent_id"]
        if root is None:
            names_of_group.add((0 if r["model_id"] in ancestors else 1, r["init_group"]))
        elif root not in inside:
            names_of_group.add((0, r["init_group"] if len(kept[root]) == 1 else root))
    return {r["model_id"]: min(names[groups[("model", r["model_id"])]] or {(2, r["init_group"])})[1] for r in rows}


def _rows(zoo: ZooLike, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    lists = {c: zoo.models[c].to_pylist() for c in columns}
    return (dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True))


def _of_models(column: str, zoos: Collection[ZooLike]) -> dict[str, Any]:
    """Model id → its value. Raises GridError for an unknown column, and where two zoos have a model with two values."""
    result: dict[str, Any] = {}
    for zoo in zoos:
        if column not in zoo.models.column_names:
            raise GridError(errors.unknown("column", column, zoo.models.column_names, zoo_name(zoo)))
        for model, value in zip(zoo.models["model_id"].to_pylist(), zoo.models[column].to_pylist(), strict=True):
            if model in result and streams.canonical_json(_named(result[model])) != streams.canonical_json(
                _named(value)
            ):
                raise GridError(
                    f"Model {model} is in two of these zoos, with {column} {result[model]} and {value}; take one of them."
                )
            result[model] = value
    return result


def _named(value: Any) -> Any:
    """A value as JSON holds it: NaN, which equals nothing, by name."""
    return "NaN" if isinstance(value, float) and value != value else value


def _several(levels: Any, of_lists: bool) -> list[Any]:
    """One level or several as a list of plain values; where levels are lists themselves, several are a list of lists."""
    if isinstance(levels, np.ndarray | np.generic):
        levels = levels.tolist()
    elif hasattr(levels, "to_pylist"):
        levels = levels.to_pylist()
    one = isinstance(levels, str) or not isinstance(levels, Collection)
    if of_lists and not one and not all(isinstance(v, list | tuple) or v is None for v in levels):
        one = True
    plain = [levels] if one else list(levels)
    plain = [v.item() if isinstance(v, np.generic) else list(v) if isinstance(v, tuple) else v for v in plain]
    return list({streams.canonical_json(_named(v)): v for v in plain}.values())


def _fractions(fractions: Mapping[str, float] | None, used: Collection[str]) -> dict[str, float]:
    given = STANDARD if fractions is None else fractions
    for name in given:
        if name not in SPLITS:
            raise GridError(errors.unknown("split", name, SPLITS))
        if not given[name] >= 0:
            raise GridError(f"The fraction of {name} is {given[name]!r}; it is 0 or more.")
    shares = {s: given[s] for s in SPLITS if s in used and given.get(s, 0) > 0}
    total = sum(shares.values())
    if not shares or (fractions is not None and abs(total - 1) > 1e-9):
        raise GridError(
            f"The fractions {dict(given)} add up to {total:g} over {', '.join(used)}; they must add up to 1."
        )
    return {s: v / total for s, v in shares.items()}


def _refuse_straddling(sides: Mapping[str, str], keys: Mapping[str, str], what: str, way_out: str) -> None:
    seen: dict[str, set[str]] = {}
    for model, side in sides.items():
        seen.setdefault(keys[model], set()).add(side)
    torn = [k for k, s in seen.items() if len(s) > 1]
    if torn:
        raise GridError(
            f"{len(torn)} of {len(seen)} groups (models that share an init or a lineage) would fall on several sides by "
            f"{what}, such as {torn[0]} on {', '.join(sorted(seen[torn[0]]))}. {way_out}"
        )


def _split(
    name: str, version: int, zoos: Collection[ZooLike], rule: Mapping[str, Any], sides: Mapping[str, str],
    wanted: Collection[str] = (),
) -> Split:  # fmt: skip
    found = set(sides.values())
    empty = [s for s in (wanted or rule.get("fractions", ())) if s not in found]
    if empty:
        raise GridError(
            f"No model is left for {', '.join(empty)} in split {name!r}. Use more groups, or other shares or levels."
        )
    digests: dict[str, str] = {}
    for zoo in zoos:
        if digests.setdefault(zoo_name(zoo), zoo_digest(zoo)) != zoo_digest(zoo):
            raise GridError(
                f"Two of these zoos are called {zoo_name(zoo)} and are not the same; a split knows its zoos by name. Take one "
                "of them, or build one under another name."
            )
    return Split(name, version, digests, dict(rule), dict(sides))


def zoo_name(zoo: ZooLike) -> str:
    """The zoo's id, as its manifest says."""
    return zoo.manifest.zoo
