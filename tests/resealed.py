"""Changes to a manifest that its own digest agrees with: what a forger does, with our own functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo_datasets.core import files
from zoo_datasets.core.records import Mismatch
from zoo_datasets.format import schema
from zoo_datasets.format.manifest import Manifest, seal
from zoo_datasets.format.tables import read_table


def write_manifest(path: Path, value: Any) -> None:
    """Write a manifest's JSON value, its digest recomputed where it has one and one can be."""
    if isinstance(value, dict) and "manifest_sha256" in value:
        try:
            value = seal(value)
        except Mismatch:  # NaN and the like, which no writer could have sealed
            pass
    path.write_text(json.dumps(value))


def reseal(root: Path, **parts: Any) -> Path:
    """The zoo of a folder whose files were changed, with digests and a seal that fit them."""
    value = json.loads((root / "manifest.json").read_bytes()) | parts
    value["files"] = [files.record(root, root / e["path"]) for e in value["files"]]
    parsed = Manifest.parse(seal(value), root)
    value["digests"] = schema.digests({c: read_table(root, parsed, c) for c in ("models", "snapshots")})
    write_manifest(root / "manifest.json", value)
    return root
