"""Changes to a manifest that its own digest agrees with: what a forger does, with our own functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zoo_datasets.core.records import Mismatch
from zoo_datasets.format.manifest import seal


def write_manifest(path: Path, value: Any) -> None:
    """Write a manifest's JSON value, its digest recomputed where it has one and one can be."""
    if isinstance(value, dict) and "manifest_sha256" in value:
        try:
            value = seal(value)
        except Mismatch:  # NaN and the like, which no writer could have sealed
            pass
    path.write_text(json.dumps(value))
