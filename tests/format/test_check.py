"""What `check` takes for damage, and what it lets lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resealed import write_manifest

from zoo_datasets import open_zoo
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import check


@pytest.mark.some(1)
@pytest.mark.parametrize("name", [".DS_Store", "._train-00000-of-00001.parquet", "Thumbs.db", "desktop.ini"])
def test_what_a_file_manager_left_is_a_warning(tiny_copy: Path, name: str) -> None:
    (tiny_copy / "data" / "models" / name).write_bytes(b"\0\0")
    report = check.check(tiny_copy)
    assert report.problems == []
    assert f"data/models/{name}" in report.warnings[-1]


def test_any_other_file_is_damage(tiny_copy: Path) -> None:
    (tiny_copy / "data" / "models" / "more.parquet").write_bytes(b"\0\0")
    assert check.check(tiny_copy).problems == ["data/models/more.parquet does not belong to the zoo"]


def test_an_architecture_that_is_not_its_id_is_damage(tiny_copy: Path) -> None:
    """One bit makes another network of it: the id is a hash of all its layers."""
    path = tiny_copy / "manifest.json"
    write_manifest(path, json.loads(path.read_text().replace('"op": "tanh"', '"op": "relu"')))
    problems = check.check(tiny_copy).problems
    assert len(problems) == 1
    assert "by its layers" in problems[0]
    zoo = open_zoo(tiny_copy)
    changed = zoo.models["model_id"][zoo.models["activation"].to_pylist().index("tanh")].as_py()
    with pytest.raises(IntegrityError, match="by its layers"):
        zoo.architecture(changed)
