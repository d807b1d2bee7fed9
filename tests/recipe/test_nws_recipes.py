"""The generated architecture `nws`: its layers, its parameters as settings, its starts, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo_builder import grid, plan, verify
from zoo_builder.build import build
from zoo_builder.planning import runs
from zoo_datasets import audit, cli, open_zoo
from zoo_datasets.errors import GridError, ZooNotFoundError
from zoo_datasets.exchange.nws.network import Numbers, read_off
from zoo_datasets.networks.generated import GENERATED
from zoo_datasets.networks.layers import build_architecture

RECIPE = """\
zoo: weightzoo/small-nws
source: {id: digits, train: 60, validation: 30, test: 40, resize: 16, channels: 3, scale: unit}
architecture: nws
sample:
  models: 12
  axes:
    lr: {uniform: [0.0002, 0.005]}
    init: [{constant: 0.1}, glorot_uniform]
    filter_size: [1, 3]
    depth_conv: [3, 4]
    width_conv: [1, 2]
    width_fc: [4, 8]
training: {epochs: 6, batch_size: 20, min_epochs: 2, stop_below: 1, balance_classes: true}
snapshots: {evenly: 3}
"""
Load = Callable[..., grid.Grid]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def read(*changes: str, limit: int | None = None) -> grid.Grid:
        (tmp_path / "grid.yaml").write_text(RECIPE)
        return grid.load(tmp_path / "grid.yaml", changes, limit)

    return read


def test_exchange_and_recipes_know_one_list_of_layers() -> None:
    """The fixed network, spelled out."""
    conv = [
        [{"conv": 8 * 2**c, "kernel": 5, "padding": 2}, "batch_norm", "activation", {"max_pool": 2}] for c in range(3)
    ]
    dense = [[{"linear": 128 >> c}, "activation", "batch_norm", {"dropout": 0.5}] for c in range(2)]
    wanted = [
        *(x for c in conv for x in c),
        "flatten",
        *(x for d in dense for x in d),
        {"linear": "classes", "outputs": 20},
    ]
    assert GENERATED["nws"]({}) == Numbers(5, 3, 2, 8, 128).layers() == wanted
    assert build_architecture(wanted, (3, 32, 32), 10).n_params == 92_868


@pytest.mark.parametrize(("depth", "blocks"), [(3, [1, 1, 1]), (4, [1, 1, 2]), (5, [1, 2, 2]), (6, [2, 2, 2])])
def test_further_convolutions_are_in_the_last_blocks(depth: int, blocks: list[int]) -> None:
    found, layers = [0], GENERATED["nws"]({"depth_conv": depth})
    for layer in layers[: layers.index("flatten")]:
        found = [*found, 0] if layer == {"max_pool": 2} else [*found[:-1], found[-1] + ("conv" in layer)]
    assert found[:3] == blocks


@pytest.mark.parametrize(("head", "said"), [
    ({"linear": "classes", "outputs": 9}, "`outputs` is 9, and the source has 10 classes"),
    ({"linear": 20, "outputs": 20}, "`outputs` stands beside `classes` alone"),
    ({"linear": "classes", "outputs": 0}, "a whole number ≥ 1"),
    ({"linear": "classes", "outputs": "many"}, "a whole number ≥ 1"),
    ({"linear": 20}, r"must give \(10,\)"),
])  # fmt: skip
def test_a_head_of_other_than_the_classes_says_so_itself(head: dict[str, Any], said: str) -> None:
    with pytest.raises(GridError, match=said):
        build_architecture(["flatten", head], (1, 8, 8), 10)
    assert build_architecture(["flatten", {"linear": "classes", "outputs": 20}], (1, 8, 8), 10).n_outputs == 20
    with pytest.raises(GridError, match="The last layer gives shape"):
        build_architecture(["flatten", {"linear": "classes", "outputs": 20}, {"linear": 12}], (1, 8, 8), 10)


@pytest.mark.parametrize(("change", "said"), [
    (("sample.axes.filter_size=[3, 5]",), r"nws \(filter_size: 5, .* does not fit \(3, 16, 16\): `filter_size` is 5, and conv3 is given 4×4"),
    (("sample.axes.filter_size=[3, 4]",), "`filter_size` is 4; it is odd"),
    (("sample.axes.width_fc=[5]",), "`width_fc` 5 cannot be halved 1 times"),
    (("sample.axes.depth_conv=[2, 3]",), "`depth_conv`"),
    (("source={id: iris, resize: 32}",), "Source 'iris' is a table; resize and channels are for images"),
    (("source={id: digits, resize: 4}",), "does not fit"),
])  # fmt: skip
def test_what_no_network_can_have_is_one_sentence(load: Load, change: tuple[str, ...], said: str) -> None:
    with pytest.raises(GridError, match=said) as caught:
        plan.plan(load(*change))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_sources_that_are_not_here_are_named_with_the_recipe_without_them(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sources = "[{id: digits, split_seed: 3}, {id: no/such, config: a}, none/there]"
    block = "source={train: 60, validation: 30, test: 40, resize: 16, channels: 3, scale: unit}"
    with pytest.raises(ZooNotFoundError, match=r"Or leave out what is not here") as caught:
        plan.plan(load(block, f"sample.axes.source={sources}", "sample.models=40"), data=str(tmp_path))
    said = str(caught.value)
    assert "(no/such, none/there)" in said or "(none/there, no/such)" in said
    change = said.split("--set '")[1].rstrip("'")
    assert change == 'sample.axes.source=[{"id": "digits", "split_seed": 3}]'
    assert {r.settings["source"] for r in runs.of(load(block, change))} == {"digits"}
    with pytest.raises(ZooNotFoundError) as caught:
        plan.plan(load("source.id=no/such"), data=str(tmp_path))
    assert "--set" not in str(caught.value)


@pytest.mark.slow
def test_a_constant_start_makes_all_of_an_architecture_one_group(load: Load) -> None:
    planned = runs.of(load("sample.models=200", "sample.axes.activation=[relu, tanh]"))
    groups: dict[Any, set[str]] = {}
    for r in planned:
        shape = tuple(r.settings[n] for n in ("filter_size", "depth_conv", "depth_fc", "width_conv", "width_fc"))
        groups.setdefault(shape if r.settings["init_kind"] == "constant" else r.id, set()).add(r.init_group)
    shapes = [k for k in groups if isinstance(k, tuple)]
    assert len(shapes) == 16  # whatever activation, rate or key
    assert all(len(g) == 1 for g in groups.values())
    assert len({g for of in groups.values() for g in of}) == len(groups)
    sides = {g: {r.split for r in planned if r.init_group == g} for of in groups.values() for g in of}
    assert all(len(s) == 1 for s in sides.values())


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nws")
    (folder / "grid.yaml").write_text(RECIPE)
    return build(
        plan.plan(grid.load(folder / "grid.yaml", ["splits={train: 0.5, test: 0.5}"])), folder / "zoo", workers=0
    ).root


@pytest.mark.slow
def test_equal_starts_are_equal_bytes_on_one_side_and_no_leak(zoo: Path) -> None:
    opened = open_zoo(zoo)
    first = opened.select(step=0)
    constant = [k == "constant" for k in first.column("init_kind").to_pylist()]
    assert 2 <= sum(constant) < len(constant)
    digests: dict[str, set[bytes]] = {}
    for i, group in enumerate(first.column("init_group").to_pylist()):
        digests.setdefault(group, set()).add(np.asarray(first.weights[i]).tobytes())
    assert all(len(d) == 1 for d in digests.values())
    found = audit.audit(None, opened)
    assert found.leaks == ()
    assert next(f for f in found.findings if f.kind == "init groups").count == 0


@pytest.mark.slow
def test_a_zoo_of_generated_networks_goes_to_their_files(zoo: Path, tmp_path: Path) -> None:
    assert verify.verify(zoo, retrain=2).problems == []
    opened = open_zoo(zoo)
    row = opened.models.to_pylist()[0]
    columns = ("filter_size", "depth_conv", "depth_fc", "width_conv", "width_fc", "batch_norm")
    read = read_off(opened.architecture(row["model_id"]))
    assert read is None  # 16×16 pixels are none of theirs
    assert all(row[c] is not None for c in columns)
    assert cli.main(["export", "nws", str(zoo), "--out", str(tmp_path / "out")]) == 1
