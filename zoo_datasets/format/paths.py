"""Every path of a zoo: one owner of the names of its files.

In:  the zoo's folder.
Out: where its card, manifest, tables, shards and the builder's private files lie.
"""

from __future__ import annotations

import re
from pathlib import Path

ZOO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # the Hub's `owner/name`, whole
SPLITS = ("train", "validation", "test")


def optimizer_shard(shard: str) -> str:
    """The file of optimizer state beside a shard of weights: the same rows in the same order."""
    return f"optimizer/{shard.removeprefix('weights/')}"


class ZooPaths:
    """Where everything of one zoo lies. The hidden `.build` folder is the builder's own."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.card = self.root / "README.md"
        self.manifest = self.root / "manifest.json"
        self.grid = self.root / "grid.yaml"
        self.build = self.root / ".build"
        self.lock = self.build / "lock"
        self.log = self.build / "log.jsonl"
        self.recipe = self.build / "recipe.json"
        self.commits = self.build / "commits"
        self.parts = self.build / "parts"
        self.checkpoints = self.build / "checkpoints"
        self.failed = self.build / "failed"
        self.damaged = self.build / "damaged"
        self.beats = self.build / "beats"

    def table(self, config: str, split: str, number: int = 0, count: int = 1) -> Path:
        return self.root / "data" / config / f"{split}-{number:05d}-of-{count:05d}.parquet"

    def shard(self, split: str, number: int = 0, count: int = 1) -> Path:
        return self.root / "weights" / f"{split}-{number:05d}-of-{count:05d}.safetensors"

    def commit(self, cohort_id: str) -> Path:
        return self.commits / f"{cohort_id}.json"

    def checkpoint(self, cohort_id: str) -> Path:
        return self.checkpoints / f"{cohort_id}.safetensors"
