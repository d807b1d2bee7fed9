"""What a page holds is what the zoo holds: columns to the last bit, maps, neighbors, filters, twins, and what is missing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_pages import external, made, retabled, unpacked

from zoo_datasets import symmetry, variation
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.page import columns, effects, geometry, payload
from zoo_datasets.page.principal import principal
from zoo_datasets.reading.weights import Weights
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("reader_fixtures",)
Header = dict[str, Any]
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tiny_page(zoo: Zoo) -> tuple[Header, Arrays]:
    return made(zoo)


def test_columns_are_those_of_the_zoo_to_the_last_bit(zoo: Zoo, tiny_page: tuple[Header, Arrays]) -> None:
    header, arrays = tiny_page
    assert header["ids"] == zoo.models["model_id"].to_pylist()
    names = [c["name"] for c in header["columns"]]
    assert {"activation", "subset", "subset_frac", "test_accuracy", "test_loss", "split"} <= set(names)
    for i, column in enumerate(header["columns"]):
        stored = zoo.models[column["name"]].to_pylist()
        if "levels" in column:
            assert [None if k < 0 else column["levels"][k] for k in arrays[f"column:{i}"]] == stored
        else:
            assert [None if math.isnan(v) else v for v in arrays[f"column:{i}"].tolist()] == stored
    assert not {n for n in names if n.endswith(("_key", "_sha256"))}
    assert header["settings"]["lr"] == 0.01
    assert not set(header["settings"]) & set(names)


def test_the_same_zoo_gives_the_same_bytes(zoo: Zoo, tiny_zoo: Path) -> None:
    assert payload.make(zoo, zoo.name) == payload.make(open_zoo(tiny_zoo), zoo.name)


def test_the_map_is_the_principal_components_of_the_last_weights(zoo: Zoo, tiny_page: tuple[Header, Arrays]) -> None:
    header, arrays = tiny_page
    last = zoo.final().weights[:].astype(np.float64)
    center = last.mean(axis=0)
    _, singular, directions = np.linalg.svd(last - center, full_matrices=False)
    shares = singular**2 / (singular**2).sum()
    assert header["maps"][0]["explained"] == pytest.approx(shares[:2].tolist(), rel=1e-5)
    xy = arrays["xy"].reshape(-1, 2)
    owner, step = arrays["owner"], arrays["step"]
    for model in (0, 7, 15):
        for row in np.flatnonzero(owner == model):
            vector = zoo.vector(header["ids"][model], int(step[row]))
            wanted = (vector - center) @ directions[:2].T
            assert np.abs(xy[row]) == pytest.approx(np.abs(wanted), abs=1e-4)
    assert np.bincount(owner).tolist() == [3] * 16
    assert all((np.diff(step[owner == m]) > 0).all() for m in range(16))


def test_principal_components_settle_where_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo_datasets.page.principal.SMALL", 10)
    draw = np.random.default_rng(3)
    x = (draw.standard_normal((90, 5)) * [9, 6, 4, 2, 1]) @ draw.standard_normal((5, 70)) + draw.standard_normal(
        (90, 70)
    )
    found = principal(x.astype(np.float32), 2)
    assert found is not None
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
    assert found.shares == pytest.approx((singular**2 / (singular**2).sum())[:2], rel=1e-4)
    assert np.abs(found.project(x.astype(np.float32))).max(axis=0) == pytest.approx(
        np.abs((x - x.mean(0)) @ found.directions).max(axis=0), rel=1e-3
    )
    assert principal(np.ones((5, 4), np.float32), 2) is None


def test_each_snapshot_is_read_once(tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    get = Weights.__getitem__
    monkeypatch.setattr(Weights, "__getitem__", lambda s, i: (found := get(s, i), read.append(len(found)))[0])
    made(open_zoo(tiny_zoo))
    assert sum(read) == 48


def test_neighbors_are_the_nearest_canonical_forms_of_the_same_architecture(
    zoo: Zoo, tiny_page: tuple[Header, Arrays]
) -> None:
    header, arrays = tiny_page
    forms, kinds = [], []
    for model in header["ids"]:
        architecture = zoo.architecture(model)
        assert isinstance(architecture, Architecture)
        kinds.append(architecture.id)
        forms.append(symmetry.canonicalize(zoo.vector(model), architecture).astype(np.float64))
    x = np.stack(forms)
    near = arrays["neighbors"].reshape(16, -1)
    far = arrays["distances"].reshape(16, -1)
    for i in range(16):
        distance = np.linalg.norm(x - x[i], axis=1) / np.sqrt((x**2).sum(1) + (x[i] ** 2).sum())
        others = [j for j in np.argsort(distance, kind="stable") if j != i and kinds[j] == kinds[i]]
        assert near[i].tolist() == others[: near.shape[1]]
        assert far[i] == pytest.approx(distance[near[i]], abs=1e-4)


def test_a_permuted_copy_is_the_nearest_neighbor(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((5, 6), np.float32)
    vectors[4] = vectors[1].reshape(3, 2)[[2, 0, 1]].reshape(-1)  # units change places
    _, arrays = made(external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3, 0.4, 0.5]}, weights=vectors))
    near = arrays["neighbors"].reshape(5, -1)
    assert (near[4, 0], near[1, 0]) == (1, 4)
    assert arrays["distances"].reshape(5, -1)[4, 0] == pytest.approx(0, abs=1e-3)
    assert (near[:, 4:] == -1).all()


def test_filters_are_the_first_weights(zoo: Zoo, tiny_page: tuple[Header, Arrays]) -> None:
    header, arrays = tiny_page
    (told,) = header["filters"]
    assert (told["count"], told["rows"], told["columns"], told["channels"]) == (8, 8, 8, 1)
    for model in (0, 9):
        start = arrays["filter_start"][model]
        scale = float(arrays["filter_scales"][model])
        found = arrays["filters"][start : start + 512].astype(np.float64) / 127 * scale
        first = zoo.vector(header["ids"][model])[:512]
        assert np.abs(found - first).max() <= scale / 254 + 1e-6


def test_twins_are_the_pairs_of_the_zoo(zoo: Zoo, tiny_page: tuple[Header, Arrays]) -> None:
    header, arrays = tiny_page
    assert header["twins"] == ["subset"]
    group = arrays["twins:0"]
    found = {
        frozenset((header["ids"][i], header["ids"][j])) for i in range(16) for j in range(i) if group[i] == group[j]
    }
    assert found == {frozenset((p.a, p.b)) for p in variation.pairs(zoo, "subset")}


def test_effects_and_audit_are_there(tiny_page: tuple[Header, Arrays]) -> None:
    header, _ = tiny_page
    assert [e["factor"] for e in header["effects"]] == sorted(
        ["activation", "subset"],
        key=lambda f: next(e["value"] for e in header["effects"] if e["factor"] == f),
        reverse=True,
    )
    assert next(e for e in header["effects"] if e["factor"] == "subset")["with_it"] == ["subset_frac"]
    assert all(0 <= e["low"] <= e["value"] <= e["high"] <= 1 for e in header["effects"])
    assert header["audit"][0].startswith("split stored of weightzoo/tiny: 10 train, 4 validation, 2 test")
    assert any("near-duplicates: none" in line for line in header["audit"])
    assert header["digest"].startswith("sha256:")
    assert header["citation"].startswith("@misc{weightzoo-tiny,")
    assert "paired:\n- subset" in header["recipe"] or "paired: [subset]" in header["recipe"]
    assert header["missing"] == []


def test_layouts_have_maps_of_their_own(mixed_zoo: Zoo) -> None:
    header, arrays = made(mixed_zoo)
    assert sorted(m["n_models"] for m in header["maps"]) == [6, 12]
    names = mixed_zoo.models["layout"].to_pylist()
    assert [header["maps"][k]["layout"] for k in arrays["layout"]] == names
    near = arrays["neighbors"].reshape(18, -1)
    kinds = mixed_zoo.models["architecture_id"].to_pylist()
    assert all(kinds[i] == kinds[j] for i in range(18) for j in near[i] if j >= 0)
    assert np.isfinite(arrays["xy"]).all()


# ── what is missing, and the rest ──


def test_one_model_has_no_map_and_says_so(tmp_path: Path) -> None:
    header, arrays = made(external(tmp_path / "z", {"lr": [0.1]}, metrics={"test_accuracy": [0.5]}))
    assert header["ids"] == ["model-00000"]
    assert header["settings"]["test_accuracy"] == 0.5
    assert np.isnan(arrays["xy"]).all()
    assert any("There is no map of weights: no layout has 3 models that differ" in m for m in header["missing"])


def test_no_metrics_are_said(tmp_path: Path) -> None:
    header, arrays = made(external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3]}))
    assert (header["target"], header["effects"], header["curves"]) == (None, [], [])
    assert any("no metrics" in m for m in header["missing"])
    assert np.isfinite(arrays["xy"]).all()


def test_layouts_without_a_common_map_are_said(tmp_path: Path) -> None:
    header, _ = made(external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3, 0.4]}, widths=[4, 6, 8, 10]))
    assert {m["note"] for m in header["maps"]} == {"fewer than three models"}
    assert any("(4 layouts)" in m for m in header["missing"])


def test_models_alone_in_their_layout_are_counted_beside_a_map(tmp_path: Path) -> None:
    header, arrays = made(external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3, 0.4]}, widths=[4, 4, 4, 10]))
    assert any("1 models are on no map" in m for m in header["missing"])
    assert np.isnan(arrays["xy"].reshape(-1, 2)[:, 0]).tolist() == [False, False, False, True]


def test_names_are_not_binned_with_their_neighbors() -> None:
    """Twenty-five automata that decide accuracy decide all of it; as a quantity in bins they would seem to decide little."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(25.0), 8)
    metric = columns.Column("test_accuracy", "number", "metric", rng.permutation(25)[number.astype(int)] / 25)
    of = [columns.Column(name, "integer", "axis", number) for name in ("automaton", "automaton_states")]
    shares, _ = effects.shares(metric, of[:1], np.arange(200))
    assert (shares[0].n_levels, shares[0].binned, round(shares[0].interval.value, 6)) == (25, False, 1.0)
    binned, _ = effects.shares(metric, of[1:], np.arange(200))
    assert binned[0].binned
    assert binned[0].interval.value < 0.9


@pytest.mark.slow
def test_two_hundred_axes_are_kept_and_effects_of_some_shown(tmp_path: Path) -> None:
    axes = {f"axis_{k}": [float((i >> (k % 3)) & 1) + k for i in range(8)] for k in range(200)}
    header, _ = made(external(tmp_path / "z", axes, metrics={"test_accuracy": [i / 8 for i in range(8)]}))
    assert sum(c["role"] == "axis" for c in header["columns"]) == 200
    assert any("Effects of 60 of 200 factors" in m for m in header["missing"])
    assert len(header["effects"]) == 3  # the others move with these


@pytest.mark.slow
def test_ten_thousand_levels_and_long_names_are_kept_as_text(tmp_path: Path) -> None:
    long = "x" * 1000
    levels = [f"<b>{i}</b>" for i in range(10_000)]
    zoo = external(tmp_path / "z", {long: levels}, widths=[2] * 10_000)
    header, _ = made(zoo)
    (column,) = (c for c in header["columns"] if c["role"] == "axis")
    assert (column["name"], sorted(column["levels"])) == (long, sorted(levels))
    assert header["effects"] == []


def test_levels_beyond_all_measure_are_left_out_and_said(tmp_path: Path) -> None:
    header, _ = made(external(tmp_path / "z", {"note": ["a" * 600_000, "b" * 600_000, "c"], "lr": [0.1, 0.2, 0.3]}))
    assert [c["name"] for c in header["columns"] if c["role"] == "axis"] == ["lr"]
    assert any("note is not shown: its 3 levels have 1,200,007 characters" in m for m in header["missing"])


def test_nan_metrics_are_no_number_and_no_end(tmp_path: Path) -> None:
    accuracy = [0.1, float("nan"), 0.3, None, 0.5, float("inf"), 0.7, 0.8]
    header, arrays = made(external(tmp_path / "z", {"lr": [0.1, 0.2] * 4}, metrics={"test_accuracy": accuracy}))
    at = [c["name"] for c in header["columns"]].index("test_accuracy")
    assert np.isfinite(arrays[f"column:{at}"]).tolist() == [True, False, True, False, True, False, True, True]
    assert header["target"] == "test_accuracy"


def test_metrics_that_are_all_nan_do_not_vary(tmp_path: Path) -> None:
    header, _ = made(external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3]}, metrics={"test_accuracy": [float("nan")] * 3}))
    assert header["effects"] == []


def test_a_hub_that_went_away_leaves_the_tables(tiny_copy: Path, tiny_page: tuple[Header, Arrays]) -> None:
    """The shards are gone when they are read: the same as a Hub that stops answering after the tables came."""
    opened = open_zoo(tiny_copy)
    assert len(opened.models) == 16
    for shard in (tiny_copy / "weights").iterdir():
        shard.unlink()
    header, arrays = made(opened)
    assert any(m.startswith("Weights could not be read: ") for m in header["missing"])
    assert (header["audit"], np.isnan(arrays["xy"]).all()) == (None, True)
    assert header["columns"] == tiny_page[0]["columns"]
    assert header["curves"] == tiny_page[0]["curves"]


def test_of_too_many_models_a_sample_by_their_ids_is_shown(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MOST_MODELS", 10)
    header, arrays = made(zoo)
    assert header["shown"] == {"models": 10, "snapshots": 30}
    assert any(m.startswith("10 of 16 models are shown") for m in header["missing"])
    assert set(header["ids"]) < set(zoo.models["model_id"].to_pylist())
    assert arrays["neighbors"].max() < 10
    whole = open_zoo(zoo.root).select(activation="tanh").whole
    assert made(whole)[0]["ids"] == header["ids"]


def test_long_trajectories_keep_their_ends(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MOST_SNAPSHOTS", 40)
    header, arrays = made(zoo)
    assert any("32 of 48 snapshots are shown: at most 2 of each model" in m for m in header["missing"])
    assert [arrays["step"][arrays["owner"] == m].tolist() for m in (0, 15)] == [
        [s[0], s[-1]]
        for s in (sorted(zoo.select(model_id=header["ids"][m]).column("step").to_pylist()) for m in (0, 15))
    ]


def test_more_weights_than_memory_are_thinned_and_said(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MOST_FINAL_BYTES", 16 * 610 * 4 // 3)
    header, arrays = made(zoo)
    assert any("every 3th weight" in m or "every 4th weight" in m for m in header["missing"])
    assert np.isfinite(arrays["xy"]).all()
    assert header["audit"] is None


def test_filters_without_room_are_left_out_and_said(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MOST_FILTER_BYTES", 100)
    header, arrays = made(zoo)
    assert (header["filters"], len(arrays["filters"])) == ([], 0)
    assert any("First-layer filters of layout" in m for m in header["missing"])
    monkeypatch.setattr(geometry, "MOST_FILTER_BYTES", 16 * 64 * 3)
    assert made(zoo)[0]["filters"][0]["count"] == 3


def test_columns_beyond_the_room_are_named(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_CELLS", 16 * 3)
    header, _ = made(zoo)
    assert len(header["columns"]) == 3
    assert any("columns are not on this page, which has room for 3" in m for m in header["missing"])


def test_whole_numbers_beyond_doubles_are_left_out(tmp_path: Path) -> None:
    header, _ = made(external(tmp_path / "z", {"key": [2**60, 2**60 + 1, 5], "lr": [0.1, 0.2, 0.3]}))
    assert any("key is not shown: it holds whole numbers beyond 2^53" in m for m in header["missing"])


# ── networks that diverged, and numbers at the ends of what doubles hold ──


@pytest.mark.slow
def test_a_network_that_diverged_is_alone_on_the_map_and_far_from_all(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((420, 450), np.float32)
    vectors[3] *= np.float32(1e20)
    lr = {"lr": [0.1, 0.2] * 210}
    header, arrays = made(external(tmp_path / "z", lr, widths=[450] * 420, weights=vectors))
    assert header["maps"][0]["explained"][0] == pytest.approx(1)
    xy = arrays["xy"].reshape(-1, 2)
    assert np.isfinite(xy).all()
    assert np.abs(xy[3]).max() > 1e20
    assert arrays["distances"].reshape(420, -1)[3] == pytest.approx(1)


def test_near_copies_have_their_own_distance(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((8, 600), np.float32)
    vectors[5] = vectors[2]
    vectors[5, :300] *= np.float32(1 + 1e-4)
    header, arrays = made(external(tmp_path / "z", {"lr": [0.1, 0.2] * 4}, widths=[600] * 8, weights=vectors))
    a, b = vectors[2].astype(np.float64), vectors[5].astype(np.float64)
    wanted = np.linalg.norm(a - b) / np.sqrt(a @ a + b @ b)
    assert arrays["neighbors"].reshape(8, -1)[5, 0] == 2
    assert arrays["distances"].reshape(8, -1)[5, 0] == pytest.approx(wanted, rel=1e-3)
    assert header["maps"][0]["n_models"] == 8


def test_a_metric_whose_variance_is_beyond_doubles_has_no_effects_and_says_so(tmp_path: Path) -> None:
    metrics = {"test_accuracy": [1e200 * k for k in range(6)]}
    header, _ = made(external(tmp_path / "z", {"lr": [0.1, 0.2] * 3}, metrics=metrics))
    assert header["effects"] == []
    assert "No effect of lr is shown: the variance of test_accuracy is no number" in header["missing"]


def test_a_factor_of_too_many_levels_is_said_to_have_no_effect(tmp_path: Path) -> None:
    names = [f"run {i}" for i in range(60)]
    header, _ = made(
        external(
            tmp_path / "z", {"name": names}, metrics={"test_accuracy": [i / 60 for i in range(60)]}, widths=[2] * 60
        )
    )
    assert any("No effect of name is shown: its 60 levels tell" in m for m in header["missing"])


# ── tables of strangers ──


def test_models_without_init_groups_are_groups_of_their_own(tmp_path: Path) -> None:
    zoo = external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3]}, metrics={"test_accuracy": [0.1, 0.2, 0.4]})
    header, arrays = made(retabled(zoo, "models", lambda t: t.drop_columns(["init_group", "architecture_id"])))
    assert sorted(arrays["group"].tolist()) == [0, 1, 2]
    assert any("no column init_group" in m for m in header["missing"])
    assert header["target"] == "test_accuracy"
    assert np.isfinite(arrays["xy"]).all()


def test_snapshots_without_epochs_have_curves_by_step(tmp_path: Path) -> None:
    metrics = {"test_accuracy": [0.1, 0.2, 0.4]}
    zoo = external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3]}, metrics=metrics, steps=2)
    for config in ("snapshots", "models"):
        zoo = retabled(zoo, config, lambda t: t.drop_columns(["epoch"]))
    header, arrays = made(zoo)
    assert any(m.startswith("Epochs are not shown: ") for m in header["missing"])
    assert np.isnan(arrays["epoch"]).all()
    assert (header["curves"], arrays["step"].tolist()) == (["test_accuracy"], [0, 10] * 3)


def test_a_list_with_nan_is_left_out_and_said(tmp_path: Path) -> None:
    zoo = external(tmp_path / "z", {"lr": [0.1, 0.2, 0.3]})
    lists = pa.array([[1.0], [math.nan], [2.0]], pa.list_(pa.float64()))
    header, _ = made(retabled(zoo, "models", lambda t: t.append_column("rates", lists)))
    assert any(m.startswith("rates is not shown: it holds list<") for m in header["missing"])
    assert [c["name"] for c in header["columns"] if c["role"] == "axis"] == ["lr"]


@pytest.mark.slow
def test_twins_by_a_factor_that_is_not_there_are_left_out_and_said(tiny_copy: Path) -> None:
    header, arrays = made(retabled(open_zoo(tiny_copy), "models", lambda t: t.drop_columns(["activation"])))
    assert header["twins"] == []
    assert any("Twins along subset are not shown: " in m and "'activation'" in m for m in header["missing"])
    assert np.isfinite(arrays["xy"]).all()


# ── memory ──


def test_every_layout_has_a_map_of_more_than_one_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "MOST_FINAL_BYTES", 4 * 4 * 40)
    header, _ = made(external(tmp_path / "z", {"lr": [0.1, 0.2] * 4}, widths=[40] * 4 + [38] * 4))
    assert [m["note"] for m in header["maps"]] == ["", ""]
    assert all(m["explained"][1] > 0 for m in header["maps"])


def test_filters_without_room_are_never_held() -> None:
    """Of 20,000 networks of 32 × 3,072 first weights nothing is held before it is known that none has room."""
    assert geometry._room_for((512, 3, 32, 32), 20_000, geometry.MOST_FILTER_BYTES) == 0
    assert geometry._room_for((512, 1, 8, 8), 100, geometry.MOST_FILTER_BYTES) == 32
    assert geometry._room_for((512, 3, 64, 64), 1, geometry.MOST_FILTER_BYTES) == 0


def test_the_revision_that_was_opened_is_in_what_the_code_is_made_of(tmp_path: Path) -> None:
    zoo = external(tmp_path / "z", {"lr": [0.1, 0.2]})
    assert unpacked(payload.make(zoo, zoo.name, "v1"))[0]["revision"] == "v1"
    assert made(zoo)[0]["revision"] is None
