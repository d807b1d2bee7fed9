"""Recipe and receipt of each released zoo: they belong together, and the zoo can be built again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zoo_builder import grid, verify
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.networks.layout import by_id

FOLDERS = sorted(p.parent for p in (Path(__file__).resolve().parents[2] / "manifests").rglob("manifest.json"))


def test_there_are_receipts_of_the_released_zoos() -> None:
    assert {f.name for f in FOLDERS} == {
        "digits-mlp",
        "mnist-cnn",
        "mnist-smallcnn",
        "mnist-smallcnn-wide",
        "cifar10-smallcnn",
        "cifar10-wild",
        "fashion-smallcnn",
        "mlds-ds1",
        "mlds-ds2",
        "mlds-automata",
        "mlds-doses",
        "mlds-hard",
        "mlds-large",
        "mlds-ds4",
        "backdoors-yardstick",
        "backdoors-wrong-labels",
        "backdoors-mntd",
        "backdoors-as-published",
        "backdoors-poor-data",
        "backdoors-cue",
        "nws-fixed",
        "nws-fixed-children",
        "nws-main",
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_a_receipt_is_of_the_recipe_beside_it(folder: Path) -> None:
    assert (
        grid.load(folder / "grid.yaml").digest == json.loads((folder / "manifest.json").read_bytes())["recipe_sha256"]
    )


def _at(document: Any, where: str) -> dict[str, Any]:
    for key in where.split("."):
        document = document.get(key, {})
    return dict(document)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_what_a_layout_lets_move_may_move_in_every_network_of_it(folder: Path) -> None:
    manifest = Manifest.read(folder)
    assert manifest.layouts == by_id(manifest.architecture(name).layout for name in manifest.architectures)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
@pytest.mark.slow
def test_a_recipe_is_still_the_one_in_grids(folder: Path) -> None:
    """Or the first networks of it, with some of its levels, as `--limit` and `--set axes.…` build them."""
    (recipe,) = [
        p for p in (folder.parents[2] / "grids").rglob("*.yaml") if grid.load(p).zoo.split("/")[-1] == folder.name
    ]
    document, changes = grid.load(folder / "grid.yaml").document, []
    for where in ("axes", "sample.axes"):
        built, whole = (_at(d, where) for d in (document, grid.load(recipe).document))
        fewer = {name: levels for name, levels in built.items() if levels != whole[name]}
        assert all(level in whole[name] for name, levels in fewer.items() for level in levels)
        changes += [f"{where}.{name}={json.dumps(levels)}" for name, levels in fewer.items()]
    assert grid.load(recipe, changes, document.get("limit")).digest == grid.load(folder / "grid.yaml").digest


@pytest.mark.slow
def test_the_digits_zoo_is_built_again_and_compared_with_its_receipt() -> None:
    (folder,) = [f for f in FOLDERS if f.name == "digits-mlp"]
    report = verify.rebuild(folder, workers=0)
    assert report.problems == []
    assert any(line.startswith("equal: all content digests") for line in report.lines), report.lines
