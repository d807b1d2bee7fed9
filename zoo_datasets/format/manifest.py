"""`manifest.json` → a typed `Manifest`: what a sealed zoo says of itself, checked once, before anything believes it.

In:  the folder of a sealed zoo, or the JSON value of a manifest.
Out: a frozen `Manifest` whose every attribute has its type, and the JSON value back.

A manifest is data from elsewhere. Refused are other types, paths that leave the folder, tables
whose rows outnumber their bytes (a bomb), layouts wider than all files, parts that this version does
not know, but where the format keeps them (`identity`, `architectures`), and a value that differs from the manifest's own digest. Manifests
written before there was one have none; `consistency.py` finds what can be found in those.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from zoo_datasets import errors
from zoo_datasets.core import files as disk
from zoo_datasets.core import records, streams
from zoo_datasets.core.records import Mismatch
from zoo_datasets.errors import FormatVersionError, IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import schema
from zoo_datasets.format.manifest_parts import (
    VALUE_BYTES,
    ArchitectureRecord,
    Counts,
    EngineRecord,
    Files,
    Fingerprint,
    Identity,
    PopulationScore,
    SealedFile,
    SourceRecord,
    SplitRule,
)
from zoo_datasets.format.paths import SPLITS, ZooPaths
from zoo_datasets.networks.architecture import Architecture, External, from_json
from zoo_datasets.networks.layout import Layout

# The largest sensible manifest has 16,000 architectures, each with a layout of its own, in 4 kB each. Python's values
# take up to 30 times the bytes of their JSON, so their number is bounded too: at most 80 bytes each.
MOST_MANIFEST_BYTES = 128_000_000
MOST_VALUES = 10_000_000
MOST_ID = 200  # characters of the zoo's id, which stands in messages
CONFIGS = ("models", "snapshots")  # the tables
SEAL = "manifest_sha256"  # the key of a manifest's digest of all its other keys

Levels = tuple[str, ...] | Literal["sample"]  # labels of an axis' levels, or drawn at random


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sealed zoo says of itself. `Manifest.read` and `Manifest.parse` check it; `to_json` is the way back."""

    zoo: str
    identity: Identity
    axes: Mapping[str, Levels]
    factors: tuple[str, ...]
    counts: Counts
    weights_dtype: str
    architectures: Mapping[str, ArchitectureRecord]
    layouts: Mapping[str, Layout]
    sources: tuple[SourceRecord, ...]
    digests: Mapping[str, str]
    files: Files
    format_version: int = schema.FORMAT_VERSION
    inline_weights: bool = False
    optimizer_state: bool | None = None
    layer_lists: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    engines: tuple[EngineRecord, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = ()
    population: PopulationScore | None = None
    recipe_sha256: str | None = None
    splits: SplitRule | None = None
    manifest_sha256: str | None = None  # none in manifests written before there was one

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """The manifest of a sealed zoo. Raises ZooNotFoundError, IntegrityError, FormatVersionError."""
        path = ZooPaths(root).manifest
        try:
            data = disk.read_bounded(path, MOST_MANIFEST_BYTES)
        except FileNotFoundError:
            if ZooPaths(root).build.is_dir():
                what = "is not finished: run its build command again"
            elif root.is_dir():
                what = "holds no zoo: it has no manifest.json"
            else:
                what = "is no folder"
            raise ZooNotFoundError(f"{root} {what}.") from None
        manifest = cls.loads(data, root)
        for name in (path.name, *manifest.files):
            disk.inside(root, name)  # no links that lead elsewhere
        return manifest

    @classmethod
    def loads(cls, data: bytes, where: Path | str) -> Manifest:
        """The manifest of a file's bytes. Raises IntegrityError, FormatVersionError."""
        if (values := sum(map(data.count, (b",", b"[", b"{")))) > MOST_VALUES:
            raise IntegrityError(f"{where}/manifest.json holds some {values:,} values: that is no manifest.")
        try:
            value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise IntegrityError(
                f"{where}/manifest.json is not JSON: the zoo is damaged. Fetch or build it again."
            ) from None
        return cls.parse(value, where)

    @classmethod
    def parse(cls, value: Any, where: Path | str) -> Manifest:
        """The manifest of a JSON value; `where` names it in messages. Raises IntegrityError, FormatVersionError."""
        version = value.get("format_version") if isinstance(value, dict) else None
        if type(version) is not int or version < 1:
            raise IntegrityError(f"{where}/manifest.json names no format version: this is not the manifest of a zoo.")
        if version > schema.FORMAT_VERSION:
            raise FormatVersionError(
                f"{where} has format version {version}; this library reads up to {schema.FORMAT_VERSION}. Upgrade weightzoo."
            )
        try:
            manifest: Manifest = records.decode(cls, value)
            manifest._check_recipe()
            manifest._check_rows()
            manifest._check_layouts()
            if manifest.manifest_sha256 is not None and _digest(value) != manifest.manifest_sha256:
                raise Mismatch(f"it is not what was sealed, by its own `{SEAL}`")
        except Mismatch as problem:
            raise IntegrityError(
                f"The manifest of {where} is damaged or hostile: {problem}. Fetch or build the zoo again."
            ) from None
        return manifest

    def to_json(self) -> dict[str, Any]:
        """The JSON value that `files.write_json` makes manifest.json of."""
        return records.fields_json(self)

    def sealed(self) -> Manifest:
        """The same, with its digest: what a writer writes."""
        return dataclasses.replace(self, manifest_sha256=_digest(self.to_json()))

    # ── what must hold between the parts ──

    def _check_recipe(self) -> None:
        if len(self.zoo) > MOST_ID:
            raise Mismatch(f"`zoo` has {len(self.zoo):,} characters")
        document = self.identity.document
        for name, kind in (("paired", tuple[str, ...] | None), ("license", str | None)):
            try:
                records.decode(kind, document.get(name))
            except Mismatch as problem:
                raise problem.below(f"identity.document.{name}") from None
        for name, layers in self.layer_lists.items():
            if not isinstance(layers, list):
                raise Mismatch("`{at}` is no list of layers", f"layer_lists.{name}")

    def _check_rows(self) -> None:
        for config in CONFIGS:
            for split, rows in self.counts.of(config).items():
                if split not in SPLITS:
                    raise Mismatch(errors.unknown("split", split, SPLITS, f"`counts.{config}`").removesuffix("."))
                # Every row of a real table has a row number and metrics of its own, which take more than a byte.
                size = self.files.size(f"data/{config}/{split}-")
                if rows > size:
                    raise Mismatch(
                        f"it claims {rows:,} rows of {config} in {size:,} bytes of Parquet: a bomb. Nothing of it is read"
                    )
        if self.counts.models.keys() != self.counts.snapshots.keys():
            raise Mismatch("`counts` names other splits of models than of snapshots")

    def _check_layouts(self) -> None:
        held = self.files.size()
        for name, layout in self.layouts.items():
            if layout.n_params * VALUE_BYTES > held:
                raise Mismatch(f"layout {name} has {layout.n_params:,} values, more than all files can hold")
        for name, architecture in self.architectures.items():
            if architecture.layout not in self.layouts:
                raise Mismatch(f"architecture {name} has layout {architecture.layout!r}, which is not there")

    # ── what readers ask ──

    @property
    def split_names(self) -> list[str]:
        """The splits that have models, in their one order."""
        return [s for s in SPLITS if s in self.counts.models]

    @property
    def license(self) -> str | None:
        """The licence that the recipe names."""
        return self.identity.document.get("license")

    @property
    def paired(self) -> tuple[str, ...]:
        """Axes along which twins share initialization and batch order; all, where models start from another zoo's."""
        return tuple(self.axes if self.identity.parents is not None else self.identity.document.get("paired") or ())

    @property
    def parent_folder(self) -> str | None:
        """Where the recipe found the zoo that models start from."""
        init = self.identity.document.get("init")
        zoo = init.get("zoo") if isinstance(init, Mapping) else None
        return zoo if isinstance(zoo, str) else None

    def digest(self, name: str) -> str:
        """A content digest, 64 hex digits: `weights`, `models_rows` or `snapshots_rows`. Raises IntegrityError."""
        if name not in self.digests:
            raise IntegrityError(f"The manifest of {self.zoo} has no digest {name!r}: it is damaged. Fetch it again.")
        return self.digests[name]

    def width(self, layout: str) -> int:
        """P of a layout. Raises IntegrityError where there is none of that name."""
        if layout not in self.layouts:
            raise IntegrityError(f"{self.zoo}: no layout {layout!r} in the manifest; the zoo is damaged.")
        return self.layouts[layout].n_params

    @property
    def widths(self) -> list[int]:
        """P of the layouts, each once, ascending."""
        return sorted({layout.n_params for layout in self.layouts.values()})

    def architecture(self, name: str, whose: str = "a model") -> Architecture | External:
        """The layers of a network, or an imported one's layout alone; `whose` it is stands in messages.

        Raises IntegrityError, FormatVersionError where this library cannot build the kind.
        """
        if name not in self.architectures:
            raise IntegrityError(f"{self.zoo}: no architecture {name!r} in the manifest; the zoo is damaged.")
        record = self.architectures[name]
        try:
            made = from_json(records.encode(record), self.layouts[record.layout], f"{whose} of {self.zoo}")
            if isinstance(made, Architecture) and (made.id, made.layout_id) != (name, record.layout):
                raise IntegrityError(
                    f"{self.zoo}: architecture {name} is {made.id} by its layers, of layout {made.layout_id}: one of them "
                    "was changed. Fetch or build the zoo again."
                )
            return made
        except ZooError:
            raise
        except Exception as error:  # whatever layers of another's making run into
            raise IntegrityError(f"{self.zoo}: architecture {name} is damaged: {error!r}.") from None

    def tables(self, config: str) -> Iterator[tuple[str, list[SealedFile], int]]:
        """(split, its Parquet files, their rows) of `models` or `snapshots`, in the order of the splits."""
        rows = self.counts.of(config)
        return ((s, self.files.under(f"data/{config}/{s}-"), rows[s]) for s in SPLITS if s in rows)


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON value of a manifest with its own digest: SHA-256 of the canonical JSON of all its other parts."""
    return {**value, SEAL: _digest(value)}


def _digest(value: Mapping[str, Any]) -> str:
    """Raises Mismatch where there is none: numbers that are none, halves of characters, endless nesting."""
    try:
        return streams.digest({name: part for name, part in value.items() if name != SEAL})
    except (ValueError, RecursionError):
        raise Mismatch("it holds what JSON cannot write again") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of which each key is named once: of two, one reader takes the first and another the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("something in it is named twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
