"""`manifest.json` → what a sealed zoo says of itself, checked before anything believes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from zoo_datasets import errors
from zoo_datasets.core import files
from zoo_datasets.errors import FormatVersionError, IntegrityError, ZooNotFoundError
from zoo_datasets.format import schema
from zoo_datasets.format.paths import SPLITS, ZooPaths


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a sealed zoo. Raises ZooNotFoundError, IntegrityError, FormatVersionError."""
    path = ZooPaths(root).manifest
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        unfinished = ZooPaths(root).build.is_dir()
        what = "is not finished: run its build command again" if unfinished else "holds no zoo: it has no manifest.json"
        raise ZooNotFoundError(f"{root} {what}.") from None
    except (ValueError, UnicodeDecodeError, RecursionError):
        raise IntegrityError(f"{path} is not JSON: the zoo is damaged. Fetch or build it again.") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version < 1:
        raise IntegrityError(f"{path} names no format version: this is not the manifest of a zoo.")
    if version > schema.FORMAT_VERSION:
        raise FormatVersionError(
            f"{root} has format version {version}; this library reads up to {schema.FORMAT_VERSION}. Upgrade weightzoo."
        )
    return manifest  # type: ignore[no-any-return]


# Outside the seal: publishing may redraw them.
UNSEALED = ("README.md", "croissant.json", "pictures/")
NEVER_SEALED = (*UNSEALED, "manifest.json", ".build/", ".cache/", ".git/")
# The parts of a manifest that readers use, and what they are.
PARTS: Mapping[str, type] = {
    "zoo": str, "weights_dtype": str, "axes": Mapping, "factors": list, "identity": Mapping, "digests": Mapping,
    "architectures": Mapping, "layouts": Mapping, "sources": list,
}  # fmt: skip


def validate(manifest: Mapping[str, Any], root: Path) -> None:
    """Raises IntegrityError where a manifest is not made as a sealed zoo's, or leads out of its folder `root`.

    A Parquet table whose claimed rows outnumber its bytes is a bomb: every row of a real one
    has a weights row number and metrics of its own, which take more.
    """
    try:
        seen: dict[str, int] = {}
        for entry in manifest["files"]:
            path, size, digest = entry["path"], entry["bytes"], entry["sha256"]
            files.inside(root, path)
            plain = PurePosixPath(path).as_posix() == path and path not in seen and not path.startswith(NEVER_SEALED)
            if not plain or not isinstance(size, int) or size < 0 or not re.fullmatch("[0-9a-f]{64}", digest):
                raise IntegrityError(
                    f"The manifest of {root} has a false entry for {path!r}: it is damaged or hostile."
                )
            seen[path] = size
        for config in ("models", "snapshots"):
            for split, rows in manifest["counts"][config].items():
                if split not in SPLITS:
                    raise IntegrityError(errors.unknown("split", split, SPLITS, f"the manifest of {root}"))
                size = sum(n for path, n in seen.items() if path.startswith(f"data/{config}/{split}-"))
                if rows > size:
                    raise IntegrityError(
                        f"The manifest of {root} claims {rows:,} rows of {config} in {size:,} bytes of Parquet: "
                        "a bomb, or damaged. Nothing of it is read."
                    )
        for name, kind in PARTS.items():
            if not isinstance(manifest[name], kind):
                raise TypeError(name)
        for name, entries in manifest["layouts"].items():
            sizes = [n for e in entries for n in (e["offset"], *e["shape"])]
            if any(type(n) is not int or n < 0 for n in sizes) or not all(isinstance(e["name"], str) for e in entries):
                raise TypeError(f"layout {name}")
        if not isinstance(manifest["identity"]["document"], Mapping):
            raise TypeError("identity")
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"The manifest of {root} lacks or garbles {error}: it is damaged. Fetch it again."
        ) from None
