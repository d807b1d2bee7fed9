"""`manifest.json` → a typed `Manifest`: what a sealed zoo says of itself, checked once, before anything believes it.

In:  the folder of a sealed zoo, or the JSON value of a manifest.
Out: a frozen `Manifest` whose every attribute has its type, and the JSON value back.

A manifest is data from elsewhere. Refused are other types, paths that leave the folder, tables
whose rows outnumber their bytes (a bomb), and layouts wider than all files. Keys that this
version does not know are kept.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from zoo_datasets import errors
from zoo_datasets.core import files as disk
from zoo_datasets.core import records
from zoo_datasets.core.records import Mismatch
from zoo_datasets.errors import FormatVersionError, IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import schema
from zoo_datasets.format.paths import SPLITS, ZooPaths
from zoo_datasets.networks.architecture import Architecture, External, from_json
from zoo_datasets.networks.layout import Layout

# The largest sensible manifest names 100,000 files in 200 bytes each; layouts add little.
MOST_MANIFEST_BYTES = 256_000_000
# Outside the seal: publishing may redraw them.
UNSEALED = ("README.md", "croissant.json", "pictures/")
NEVER_SEALED = (*UNSEALED, "manifest.json", ".build/", ".cache/", ".git/")
CONFIGS = ("models", "snapshots")  # the tables
MOST_PATH = 1_000  # characters; a zoo's longest has 44, and each folder on the way is looked at
VALUE_BYTES = 4  # of a float32 weight

Levels = tuple[str, ...] | Literal["sample"]  # labels of an axis' levels, or drawn at random


@dataclasses.dataclass(frozen=True)
class SealedFile:
    """One sealed file: its path in the zoo, size and SHA-256."""

    path: str
    bytes: int
    sha256: str

    def find(self, root: Path) -> Path:
        """The plain file of this size under `root`. Raises IntegrityError."""
        path = disk.inside(root, self.path)
        try:
            size = path.stat().st_size
            if not path.is_file():
                raise IntegrityError(f"{self.path} of {root} is no file: the zoo is damaged. Fetch or build it again.")
        except (FileNotFoundError, NotADirectoryError):
            raise IntegrityError(
                f"{self.path} is missing: the zoo is damaged. Fetch or build it again ({root})."
            ) from None
        except OSError as error:
            raise IntegrityError(f"{self.path} of {root} cannot be read: {error.strerror}.") from None
        if size != self.bytes:
            raise IntegrityError(
                f"{self.path} has {size:,} bytes, the manifest says {self.bytes:,}. Fetch or build the zoo again ({root})."
            )
        return path

    def verify(self, root: Path) -> Path:
        """The same, its contents compared with the SHA-256. Raises IntegrityError."""
        path = self.find(root)
        try:
            digest = disk.sha256(path)
        except OSError as error:
            raise IntegrityError(f"{self.path} of {root} cannot be read: {error.strerror}.") from None
        if digest != self.sha256:
            raise IntegrityError(
                f"{self.path} has other contents than were sealed. Fetch or build the zoo again ({root})."
            )
        return path


class Files(dict[str, SealedFile]):
    """The sealed files by path, in the order of the manifest."""

    @classmethod
    def of(cls, *files: SealedFile) -> Files:
        return cls({file.path: file for file in files})

    @classmethod
    def from_json(cls, value: Any) -> Files:
        """Raises Mismatch where an entry is false, or leads out of the zoo's folder."""
        found = cls()
        for file in records.decode(tuple[SealedFile, ...], value):
            if disk.leaves(file.path):
                raise Mismatch(f"{file.path!r} leaves the folder")
            plain = PurePosixPath(file.path).as_posix() == file.path and len(file.path) <= MOST_PATH
            plain &= file.path not in found
            if not plain or file.path.startswith(NEVER_SEALED) or not re.fullmatch("[0-9a-f]{64}", file.sha256):
                raise Mismatch(f"it has a false entry for {reprlib.repr(file.path)}")
            found[file.path] = file
        return found

    def to_json(self) -> list[Any]:
        return records.encode(tuple(self.values()))  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        return Files, (dict(self),)

    def under(self, prefix: str) -> list[SealedFile]:
        """Those whose path begins so."""
        return [file for path, file in self.items() if path.startswith(prefix)]

    def size(self, prefix: str = "") -> int:
        """Bytes of those together."""
        return sum(file.bytes for file in self.under(prefix))


@dataclasses.dataclass(frozen=True)
class Counts:
    """Rows of the tables by split, and what else was counted."""

    models: Mapping[str, int]
    snapshots: Mapping[str, int]
    init_groups: int | None = None
    cohorts: int | None = None
    diverged: int | None = None

    @property
    def n_models(self) -> int:
        return sum(self.models.values())

    @property
    def n_snapshots(self) -> int:
        return sum(self.snapshots.values())

    def of(self, config: str) -> Mapping[str, int]:
        """Rows by split of `models` or `snapshots`."""
        return {"models": self.models, "snapshots": self.snapshots}[config]


@dataclasses.dataclass(frozen=True)
class Identity:
    """What was built: the recipe's document, and everything else a rebuild must agree with."""

    document: Mapping[str, Any]
    recipe: int | None = None
    models: int | None = None
    cohorts: int | None = None
    engines: tuple[str, ...] | None = None  # like "native on cpu"
    sources: tuple[str, ...] | None = None  # checksums
    parents: Mapping[str, Mapping[str, str]] | None = None  # content digests of the zoos that models start from
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SourceRecord:
    """Data that models learned, as it was: its checksum, sizes, and the map from raw values to inputs."""

    id: str
    images: Mapping[str, int]  # examples by part
    sha256: str
    spec: Mapping[str, Any]
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    peak: float


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """An engine that trained models of the zoo."""

    engine: str
    version: str | None  # nobody knows of an imported network
    isa: str | None


@dataclasses.dataclass(frozen=True)
class PopulationScore:
    """Mean test accuracy of the published models, and its standard error over init groups."""

    test_accuracy: float
    standard_error: float | None  # of one group none, which is said: null
    init_groups: int


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What another machine must agree with about one model; `weights` is base64 of float32."""

    model_id: str
    init_sha256: str
    examples_sha256: str
    order_sha256: str
    steps: int
    weights: str

    @classmethod
    def from_json(cls, value: Any) -> Fingerprint:
        """Raises Mismatch."""
        found: Fingerprint = records.decode_fields(cls, value)
        try:
            whole = len(base64.b64decode(found.weights, validate=True)) % VALUE_BYTES == 0
        except ValueError:
            whole = False
        if not whole:
            raise Mismatch("`{at}` is no base64 of float32", "weights")
        return found


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """How models were assigned to splits."""

    fractions: Mapping[str, float]
    rule: str


@dataclasses.dataclass(frozen=True)
class ArchitectureRecord:
    """The layers of a network as JSON, and the id of its layout."""

    kind: str
    layout: str
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


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
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """The manifest of a sealed zoo. Raises ZooNotFoundError, IntegrityError, FormatVersionError."""
        path = ZooPaths(root).manifest
        try:
            value = json.loads(disk.read_bounded(path, MOST_MANIFEST_BYTES))
        except FileNotFoundError:
            unfinished = ZooPaths(root).build.is_dir()
            what = (
                "is not finished: run its build command again"
                if unfinished
                else "holds no zoo: it has no manifest.json"
            )
            raise ZooNotFoundError(f"{root} {what}.") from None
        except (ValueError, RecursionError) as error:
            if isinstance(error, ZooError):
                raise
            raise IntegrityError(f"{path} is not JSON: the zoo is damaged. Fetch or build it again.") from None
        manifest = cls.parse(value, root)
        for name in (path.name, *manifest.files):
            disk.inside(root, name)  # no links that lead elsewhere
        return manifest

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
        except Mismatch as problem:
            raise IntegrityError(
                f"The manifest of {where} is damaged or hostile: {problem}. Fetch or build the zoo again."
            ) from None
        return manifest

    def to_json(self) -> dict[str, Any]:
        """The JSON value that `files.write_json` makes manifest.json of."""
        return records.fields_json(self)

    # ── what must hold between the parts ──

    def _check_recipe(self) -> None:
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
        for name, layout in self.layouts.items():
            if layout.n_params * VALUE_BYTES > self.files.size():
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
