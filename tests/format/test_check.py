"""What `check` takes for damage, and what it lets lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo_datasets.format import check


@pytest.mark.parametrize("name", [".DS_Store", "._train-00000-of-00001.parquet", "Thumbs.db", "desktop.ini"])
def test_what_a_file_manager_left_is_a_warning(tiny_copy: Path, name: str) -> None:
    (tiny_copy / "data" / "models" / name).write_bytes(b"\0\0")
    report = check.check(tiny_copy)
    assert report.problems == []
    assert f"data/models/{name}" in report.warnings[-1]


def test_any_other_file_is_damage(tiny_copy: Path) -> None:
    (tiny_copy / "data" / "models" / "more.parquet").write_bytes(b"\0\0")
    assert check.check(tiny_copy).problems == ["data/models/more.parquet does not belong to the zoo"]
