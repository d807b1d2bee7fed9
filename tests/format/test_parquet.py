"""Tables of a split in several Parquet files: the same zoo to all that read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from resealed import write_manifest

from zoo_datasets import audit, cli, variation
from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import check
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import SPLITS, ZooPaths
from zoo_datasets.format.tables import read_table
from zoo_datasets.hub import croissant, lookup, publish
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("reader_fixtures",)
MOST_ROWS = 5  # of a file


@pytest.fixture
def parted(tiny_copy: Path) -> Path:
    """The tiny zoo with its tables cut into files of five rows."""
    paths = ZooPaths(tiny_copy)
    for config in ("models", "snapshots"):
        for split in SPLITS:
            whole = pq.read_table(paths.table(config, split), partitioning=None)
            paths.table(config, split).unlink()
            parts = [whole.slice(at, MOST_ROWS) for at in range(0, len(whole), MOST_ROWS)]
            for number, part in enumerate(parts):
                pq.write_table(part, paths.table(config, split, number, len(parts)), write_page_checksum=True)
    _sign(tiny_copy)
    return tiny_copy


def _sign(root: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    manifest = json.loads((root / "manifest.json").read_bytes())
    kept = [e for e in manifest["files"] if not e["path"].startswith("data/")]
    found = [files.record(root, p) for p in sorted((root / "data").rglob("*.parquet"))]
    manifest["files"] = sorted([*kept, *found], key=lambda e: e["path"])
    change(manifest)
    write_manifest(root / "manifest.json", manifest)


@pytest.mark.slow
def test_a_zoo_of_many_files_is_whole_and_the_same(parted: Path, zoo: Zoo) -> None:
    assert len(list((parted / "data/models").iterdir())) == 2 + 1 + 1
    assert check.check(parted).problems == []
    opened = open_zoo(parted, verify=True)
    assert opened.models == zoo.models
    assert opened.snapshots == zoo.snapshots
    assert opened.weights[:].tobytes() == zoo.weights[:].tobytes()
    for wanted in ({"activation": "tanh", "epoch": 2}, {"subset_frac": 0.5}, {"split": "test"}):
        assert opened.select(**wanted).snapshots == zoo.select(**wanted).snapshots
    assert opened.evaluate().largest() == 0
    assert variation.pairs(opened, "subset") == variation.pairs(zoo, "subset")
    assert str(opened.effect("subset")) == str(zoo.effect("subset"))
    assert str(audit.audit(None, opened)) == str(audit.audit(None, zoo))


@pytest.mark.slow
def test_strangers_read_all_files(parted: Path, zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish.dress(lookup.locate(parted), "weightzoo/tiny")
    assert cli.main(["show", str(parted)]) == 0
    assert "16 models, 48 snapshots" in capsys.readouterr().out
    datasets.disable_progress_bars()
    for config, table in (("models", zoo.models), ("snapshots", zoo.snapshots)):
        found = datasets.load_dataset(str(parted), config, cache_dir=str(tmp_path / config))
        ids = [i for split in zoo.manifest.counts.of(config) for i in found[split]["model_id"]]
        assert sorted(ids) == sorted(table["model_id"].to_pylist())
    described = json.loads((parted / "croissant.json").read_text())
    objects = [d for d in described["distribution"] if d.get("encodingFormat") == croissant.PARQUET]
    assert len([d for d in objects if d["@type"] == "cr:FileObject"]) == 4 + 6 + 3 + 2


@pytest.mark.slow
def test_a_file_too_few_or_too_many_rows_are_found(parted: Path) -> None:
    for config in ("models", "snapshots"):
        first = ZooPaths(parted).table(config, "train", 1, {"models": 2, "snapshots": 6}[config])
        whole = first.read_bytes()
        first.unlink()
        _sign(parted)
        with pytest.raises(IntegrityError, match=f"data/{config}/train-00000.* rows, the manifest says"):
            read_table(parted, Manifest.read(parted), config)
        with pytest.raises(IntegrityError, match=f"data/{config}/train-.* rows, the manifest says"):
            open_zoo(parted)
        first.write_bytes(whole)
        _sign(parted)
    assert check.check(parted).problems == []


@pytest.mark.slow
def test_files_of_other_columns_are_refused(parted: Path) -> None:
    path = ZooPaths(parted).table("models", "train", 1, 2)
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.rename_columns(["other" if n == "lr" else n for n in table.column_names]), path)
    _sign(parted)
    assert "has other columns than the other files of models" in check.check(parted).problems[0]
    with pytest.raises(IntegrityError, match="has other columns than"):
        open_zoo(parted)
