"""The parts of a `manifest.json` as typed records: files, counts, sources, engines, and what else a zoo says of itself.

In:  JSON values, by `core/records.py`; the folder in which a sealed file lies.
Out: frozen records, each sound in itself, and the JSON values back. What must hold between them is `manifest.py`.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from zoo_datasets.core import files as disk
from zoo_datasets.core import records
from zoo_datasets.core.records import Mismatch
from zoo_datasets.errors import IntegrityError

# Outside the seal: publishing may redraw them.
PAGE = "zoo.html"  # `zoo_datasets page` makes it
UNSEALED = ("README.md", "croissant.json", "pictures/", PAGE)
MOST_UNSEALED_BYTES = 20_000_000  # of one of them: publishing leaves a larger one out, and downloading does not read it
NEVER_SEALED = (*UNSEALED, "manifest.json", ".build/", ".cache/", ".git/")
MOST_PATH = 1_000  # characters; a zoo's longest has 44, and each folder on the way is looked at
VALUE_BYTES = 4  # of a float32 weight


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
    feature_names: tuple[str, ...] | None = None  # of a table, in the order of its inputs


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
