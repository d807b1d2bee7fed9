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


def test_a_card_that_names_other_tables_is_damage_and_other_words_are_free(tiny_copy: Path) -> None:
    """`load_dataset` reads what the card's head says, and the card is outside the seal."""
    card = tiny_copy / "README.md"
    text = card.read_text()
    assert check.check(tiny_copy).problems == check.check(tiny_copy).warnings == []
    card.write_text(text + "\nMore words.\n")
    assert check.check(tiny_copy).problems == []
    (tiny_copy / "extra").mkdir()
    for forged, wrong in (
        (text.replace("path: data/models/", "path: extra/"), "`configs` name other files"),
        (
            text.replace("- config_name: snapshots", "  columns: [model_id]\n- config_name: snapshots"),
            "`configs` name other files",
        ),
        (text.replace("sha256:", "sha256:0"), "`configs` name other files"),
        (text.replace("---\n", "", 1), "`configs` name other files"),
        (text.replace("---\n", "---\n]", 1), "its head cannot be read"),
        (text.replace("---\n", "---\nx: " + "[" * 5000 + "]" * 5000 + "\n", 1), "its head cannot be read"),
        (text.replace("configs:", "dataset_info: []\nconfigs:", 1), "`dataset_info` has other columns or counts"),
    ):
        assert forged != text
        card.write_text(forged)
        (problem,) = check.check(tiny_copy).problems
        assert problem.startswith(f"README.md is not the zoo's: {wrong}")
        assert check.sealed(tiny_copy).problems == []
    card.unlink()
    assert check.check(tiny_copy).warnings == ["README.md is not there: `load_dataset` finds no tables without it"]
    card.write_text(text)
    (tiny_copy / ".huggingface.yaml").write_text("configs: []\n")
    (problem,) = check.check(tiny_copy).problems
    assert "`load_dataset` would follow it" in problem


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
