"""Detectors of backdoors: on populations whose answer was planted, where there is none, and on what they must refuse."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm

from zoo_datasets import metrics, symmetry
from zoo_datasets.analysis.backdoors import cells, detectors, linear, population, reads, scan, study
from zoo_datasets.analysis.backdoors.population import FACTORS, Population
from zoo_datasets.baselines import saved
from zoo_datasets.baselines.interface import MixedLayoutsError
from zoo_datasets.baselines.known import baseline
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.networks.layers import build_architecture

LAYERS = ["flatten", {"linear": 6}, "activation", {"linear": "classes"}]
ARCHITECTURE = build_architecture(LAYERS, (1, 3, 3), 5, "relu")
LAST = next(e for e in ARCHITECTURE.layout if e.name.endswith("2.weight"))
KINDS = {k.name: k for k in detectors.KINDS}
STEPS = (0, 5, 15)
SPLITS = ("train", "train", "validation", "test", "test")


def planted(
    pairs: int = 60,
    *,
    row: float = 0.0,
    direction: float = 0.0,
    start: float = 0.3,
    accuracy: float = 0.0,
    targets: int = 5,
    seed: int = 0,
) -> Population:
    """Pairs of twins from noisy starts. A backdoor raises the target's `row` of the last layer, or moves all weights in one
    `direction`, or costs `accuracy`."""
    rng = np.random.default_rng(seed)
    toward = rng.normal(size=ARCHITECTURE.n_params)
    rows: list[dict[str, Any]] = []
    for pair in range(pairs):
        begin = start * rng.normal(size=ARCHITECTURE.n_params)
        rate, trigger, target = (0.01, 0.1)[pair % 2], pair % 6, pair % targets
        for trojaned in (True, False):
            w = begin + 0.1 * rng.normal(size=len(begin))
            if trojaned:
                w = w + direction * toward
                w[LAST.offset : LAST.end].reshape(5, 6)[target] += row
            first = begin + 0.2 * (w - begin) + 0.01 * rng.normal(size=len(w))
            rows.append({
                "w": w, "path": np.stack([begin, first, 0.5 * (begin + w)]), "trojaned": trojaned, "pair": pair, "rate": rate,
                "trigger": trigger, "target": target, "loss": [0.3, 0.9 - accuracy * trojaned + 0.01 * rng.normal()],
            })  # fmt: skip
    trojaned = np.array([r["trojaned"] for r in rows])
    text = {
        n: np.array([f"{r[n]:g}" if r["trojaned"] else "" for r in rows], object) for n in ("rate", "trigger", "target")
    }
    same = np.array(["1" if t else "" for t in trojaned], object)
    n, pair = len(rows), np.array([r["pair"] for r in rows])
    return Population(
        (ARCHITECTURE,), np.zeros(n, np.int64), [r["w"].astype(np.float32) for r in rows],
        [r["path"].astype(np.float32) for r in rows], np.ones(n, bool), trojaned, pair, pair.astype(str).astype(object),
        np.array([SPLITS[i % len(SPLITS)] for i in pair], object), np.arange(n).astype(str).astype(object),
        {name: text.get(name, same) for name in FACTORS}, np.where(trojaned, 1.0, np.nan), np.where(trojaned, 0.0, np.nan),
        np.where(trojaned, [r["rate"] for r in rows], np.nan),
        np.ones(n, bool), pa.table({"lr": rng.uniform(size=n // 2).repeat(2), "updates": np.full(n, 90)}),
        np.array([r["loss"] for r in rows]), [STEPS] * n, np.array([[r["loss"][1]] * 5 for r in rows]),
    )  # fmt: skip


def auc(name: str, p: Population, y: np.ndarray | None = None) -> float:
    y = p.trojaned if y is None else y
    train, validation, test = (p.split == s for s in ("train", "validation", "test"))
    detector = detectors.fit(KINDS[name], p.take(train), p.take(validation), 0, (y[train], y[validation]))
    return metrics.auc(y[test].astype(int), detector.score(p.take(test)))


# ── what was planted is found, by who can ──


@pytest.mark.slow
def test_a_class_that_stands_out_is_found_without_training_and_by_statistics() -> None:
    p = planted(row=1.5)
    assert auc("outlying class, weights", p) > 0.95
    assert auc("statistics, logistic", p) > 0.9
    assert auc("statistics, boosting", p) > 0.8
    assert auc("outlying class, bias", p) < 0.75  # nothing was planted there


@pytest.mark.slow
def test_the_way_from_the_start_shows_what_the_start_hides_from_the_last_weights() -> None:
    p = planted(direction=0.06, start=2.0)
    assert auc("linear on final - initial", p) > 0.95
    assert auc("linear on weights", p) < 0.8


@pytest.mark.slow
def test_weights_in_another_order_are_read_after_alignment_and_sorting() -> None:
    p = planted(direction=0.05, start=0.0)
    base = np.random.default_rng(9).normal(size=ARCHITECTURE.n_params)
    weights = np.stack([base + w for w in p.weights]).astype(np.float32)
    moved = symmetry.permute(
        weights, ARCHITECTURE.layout, symmetry.random_permutations(ARCHITECTURE.layout, len(p), "a" * 32)
    )
    p = dataclasses.replace(p, weights=list(moved))
    assert auc("linear on aligned weights", p) > 0.9
    assert auc("linear on sorted weights", p) > 0.9
    assert auc("linear on weights", p) < 0.8


@pytest.mark.slow
def test_a_longer_first_step_is_found_by_first_updates_and_by_nothing_that_sees_no_weights() -> None:
    p = planted()
    path = [
        np.concatenate([e[:2], e[2:] + 0.5 * t * (e[2:] - e[:1])]) for e, t in zip(p.earlier, p.trojaned, strict=True)
    ]
    p = dataclasses.replace(p, earlier=path)
    assert auc("first updates", p) > 0.95
    assert auc("recipe", p) == 0.5  # twins share it
    assert auc("clean accuracy", p) < 0.75


@pytest.mark.slow
def test_a_loss_that_gives_it_away_is_found_by_its_controls() -> None:
    p = planted(accuracy=0.05)
    assert auc("clean accuracy", p) > 0.95
    assert auc("test loss and accuracy", p) > 0.9
    assert auc("statistics, logistic", p) < 0.75


@pytest.mark.slow
def test_steps_that_differ_between_arms_are_found_by_the_recipe() -> None:
    p = planted()
    longer = pa.table({"updates": np.where(p.trojaned, 130, 90)})
    assert auc("recipe", dataclasses.replace(p, recipe=longer)) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MNTD", "ULP"])
def test_learned_probes_find_a_class_that_answers_to_anything(name: str) -> None:
    assert auc(name, planted(200, row=1.5, targets=1)) > 0.8


@pytest.mark.slow
def test_networks_in_another_order_are_judged_alike() -> None:
    p = planted(row=1.0)
    order = np.random.default_rng(1).permutation(len(p))
    for name in ("statistics, logistic", "linear on final - initial", "outlying class, weights"):
        train = p.split == "train"
        some = [
            detectors.fit(KINDS[name], q.take(q.split == "train"), q.take(q.split == "validation"), 0)
            for q in (p, p.take(order))
        ]
        a, b = (d.score(p.take(~train)) for d in some)
        np.testing.assert_allclose(a, b, atol=0.02 * max(1.0, float(np.abs(a).max())))


# ── the study ──


@pytest.mark.slow
def test_the_table_says_what_is_found_and_that_arms_dealt_by_coin_are_not() -> None:
    p = planted(100, row=1.5)
    kinds = [KINDS["outlying class, weights"], KINDS["clean accuracy"]]
    scales = study.scales(p, None, kinds, 0)
    null = scales["outlying class, weights"]["null"]["auc"]
    assert null["low"] < 0.5 < null["high"]
    rows, learned = study.table(p, kinds, 0, scales)
    matched = {r["detector"]: r for r in rows if r["question"] == "matched"}
    found, control = matched["outlying class, weights"], matched["clean accuracy"]
    assert (found["clean"], found["trojaned"], found["n_train"]) == (40, 40, 80)
    assert found["auc"]["value"] > 0.95
    assert found["above_chance"]
    assert found["detected"] is None
    assert found["paired"]["value"] > 0.9
    assert found["paired"]["n_groups"] == 40
    assert found["tpr"]["value"] > 0.3
    assert control["control"]
    assert not control["above_chance"]
    assert set(learned) == {k.name for k in kinds}
    doses = study.doses(p, learned, scales)
    assert {(d["detector"], d["rate"]) for d in doses} == {(k.name, r) for k in kinds for r in (0.01, 0.1)}


@pytest.mark.slow
def test_a_backdoor_counts_as_detected_above_the_yardstick_alone() -> None:
    p = planted(100, row=1.5)
    kinds = [KINDS["outlying class, weights"], KINDS["linear on final - initial"]]
    alike = dataclasses.replace(planted(100, seed=5), works=np.ones(200, bool))
    apart = planted(100, row=5.0, direction=1.0, seed=6)
    for sets, detected in ((alike, True), (apart, False)):
        rows, _ = study.table(p, kinds[:1], 0, study.scales(p, sets, kinds[:1], 0))
        row = next(r for r in rows if r["question"] == "matched")
        assert row["detected"] is detected, row
        assert row["above_chance"]


def test_detected_lies_above_chance_and_above_all_that_the_yardstick_may_be() -> None:
    scale = {"null": {"auc": {"high": 0.6}}, "yardstick": {"auc": {"value": 0.42, "high": None}}}
    assert study._verdict({"low": 0.45}, scale) == {"above_chance": False, "yardstick": 0.42, "detected": False}
    assert study._verdict({"low": 0.55}, scale) == {"above_chance": True, "yardstick": 0.42, "detected": True}
    scale["yardstick"]["auc"]["high"] = 0.6
    assert study._verdict({"low": 0.55}, scale) == {"above_chance": True, "yardstick": 0.42, "detected": False}
    assert study._verdict({"low": 0.61}, scale) == {"above_chance": True, "yardstick": 0.42, "detected": True}


@pytest.mark.slow
def test_the_share_that_is_found_is_bounded_as_far_as_the_threshold_is_known() -> None:
    """The threshold is the tested clean networks' own: bounds that take it as given held the truth in 73 to 89 of 100."""
    truth, held = norm.sf(norm.isf(0.05) - 1.5), 0
    for turn in range(200):
        rng = np.random.default_rng(turn)
        found = study._found(rng.normal(size=130) + 1.5, rng.normal(size=130), np.arange(130))
        held += found.low <= truth <= found.high
    assert held >= 188
    strict = study._found(np.arange(30.0), np.arange(30.0) + 100, np.arange(30))
    assert (strict.value, strict.low) == (0.0, 0.0)
    assert 0 < strict.high < 1


@pytest.mark.slow
def test_a_gain_is_over_the_best_control_on_the_same_networks() -> None:
    p = planted(100, row=1.5, accuracy=0.01)
    kinds = [
        KINDS[n] for n in ("outlying class, weights", "clean accuracy", "test loss and accuracy", "all but weights")
    ]
    rows, _ = study.table(p, kinds, 0, {}, 40)
    assert list(dict.fromkeys(r["question"] for r in rows))[:2] == ["matched", cells.LIKE]
    for question, n in (("matched", 80), (cells.LIKE, 40)):
        own = {r["detector"]: r for r in rows if r["question"] == question and r["pairs_that"] == "works"}
        found = own["outlying class, weights"]
        best = max((r for r in own.values() if r["control"]), key=lambda r: r["auc"]["value"])
        assert (found["best_control"], found["n_train"]) == (best["detector"], n)
        assert found["gain"]["value"] == pytest.approx(found["auc"]["value"] - best["auc"]["value"])
        twins = max(r["paired"]["value"] for r in own.values() if r["control"])
        assert found["gain_of_twins"]["value"] == pytest.approx(found["paired"]["value"] - twins)
        assert found["gain"]["low"] > 0
        assert all("gain" not in r for r in own.values() if r["control"])


@pytest.mark.slow
def test_a_small_loss_beside_what_sources_differ_by_is_seen_by_who_knows_the_source() -> None:
    """Three sources whose accuracies are .004 apart, and trojaned twins that lose as much."""
    p = planted(300)
    rng = np.random.default_rng(0)
    source = p.pair % 3
    accuracy = np.array([0.9, 0.904, 0.908])[source] - 0.004 * p.trojaned + 0.001 * rng.normal(size=len(p))
    loss = np.stack([np.full(len(p), 0.3), accuracy], 1)
    p = dataclasses.replace(p, loss=loss, recipe=p.recipe.append_column("source", pa.array(list(map(str, source)))))
    assert auc("all but weights", p) > 0.95
    assert auc("test loss and accuracy", p) < 0.85


@pytest.mark.slow
def test_a_slope_that_is_small_from_the_start_is_found() -> None:
    """A loss of .0005 beside sources .4 apart: to a coarse tolerance the slope is none, and a control with it is blind to twins."""
    p = planted(300)
    noise = 1e-4 * np.random.default_rng(0).normal(size=len(p))
    accuracy = np.array([0.98, 0.9, 0.6])[p.pair % 3] - 0.0005 * p.trojaned + noise
    p = dataclasses.replace(p, loss=np.stack([np.full(len(p), 0.3), accuracy], 1))
    learned = detectors.fit(KINDS["clean accuracy"], p.take(p.split == "train"), p.take(p.split == "validation"), 0)
    test = p.take(p.split == "test")
    assert study.told_of(test, learned.score(test))["paired"]["value"] > 0.95


def test_many_rates_are_asked_about_in_parts_of_equal_size() -> None:
    rates = [None, 0.0, *np.linspace(0.05, 0.5, 80).tolist()]
    dose = population._doses([{"trigger_frac": r} for r in rates])
    assert np.isnan(dose[:2]).all()
    values, counts = np.unique(dose[2:], return_counts=True)
    assert len(values) == population.MOST_DOSES
    assert set(counts) == {10}
    assert (np.diff(dose[2:]) >= 0).all()
    assert population._doses([{"trigger_frac": r} for r in (0.1, 0.0, 0.2, 0.1)])[[0, 2, 3]].tolist() == [0.1, 0.2, 0.1]


@pytest.mark.slow
def test_a_bound_far_out_has_resamples_beyond_it() -> None:
    p = planted(60, row=0.5)
    kind = KINDS["outlying class, weights"]
    train, validation, test = (p.split == s for s in ("train", "validation", "test"))
    detector = detectors.fit(kind, p.take(train), p.take(validation), 0)
    usual, far, farther = (study.row_of(p, test, detector, tail) for tail in (0.025, 5e-4, 1e-4))
    assert usual is not None
    assert far is not None
    assert farther is not None
    assert far["auc"]["value"] == usual["auc"]["value"]
    assert far["auc"]["level"] == pytest.approx(0.999)
    # Of too few resamples the least one is the bound, whatever was asked for.
    assert farther["auc"]["low"] < far["auc"]["low"] - 0.005 < usual["auc"]["low"] - 0.01


@pytest.mark.slow
def test_what_cannot_read_two_layouts_is_left_out_of_questions_about_both() -> None:
    other = build_architecture(["flatten", {"linear": 7}, "activation", {"linear": "classes"}], (1, 3, 3), 5, "relu")
    p = planted(100, row=1.5)
    rng = np.random.default_rng(0)
    second = (p.pair % 2).astype(np.int64)
    weights = [
        rng.normal(size=other.n_params).astype(np.float32) if s else w for s, w in zip(second, p.weights, strict=True)
    ]
    mixed = dataclasses.replace(p, architectures=(ARCHITECTURE, other), architecture=second, weights=weights)
    places, any_layout = KINDS["linear on weights"], KINDS["statistics, logistic"]
    rows, learned = study.table(mixed, [places, any_layout], 0, {})
    assert {r["detector"] for r in rows} == set(learned) == {any_layout.name}
    assert study.smallest(mixed, [places], 0) == []
    one = mixed.take(second == 1)
    assert one.architectures == (other,)
    assert detectors.suits(places, one)


def test_who_needs_first_weights_is_left_out_where_there_are_none_and_refused_where_it_was_asked_for() -> None:
    p = planted(20)
    p = dataclasses.replace(p, starts=np.zeros(len(p), bool))
    kinds = [KINDS["linear on final - initial"], KINDS["first updates"], KINDS["clean accuracy"]]
    found, lacking = detectors.able(kinds, p, asked=False)
    assert [k.name for k in found] == ["clean accuracy"]
    assert set(lacking) == {"linear on final - initial", "first updates"}
    with pytest.raises(ZooError, match="have no initial weights"):
        detectors.able(kinds, p, asked=True)


def test_a_null_without_both_arms_says_so() -> None:
    p = planted(20)
    y = p.trojaned & (p.split != "test")
    assert study.told(KINDS["clean accuracy"], p, y, 0)["note"] == "the test split has networks of one arm alone"


def test_the_smallest_dose_is_found_where_it_was_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "SIZES", (40,))
    p, strong = planted(150), planted(150, row=1.0)
    weights = [s if r == "0.1" else w for w, s, r in zip(p.weights, strong.weights, p.factors["rate"], strict=True)]
    p = dataclasses.replace(p, weights=weights)
    kinds = [KINDS["outlying class, weights"]]
    of = {"detector": kinds[0].name, "control": False, "n": 40}
    assert study.smallest(p, kinds, 0) == [{**of, "smallest_rate": 0.1, "rates": 2, "pairs": {"0.01": 30, "0.1": 30}}]
    few = np.isin(p.pair, np.flatnonzero(np.arange(150) % 2)[::4]) | (p.factors["rate"] != "0.1")
    rare = p.take(
        p.with_twins(few & p.trojaned)
    )  # of the larger rate too few pairs to say anything: the smaller is asked about
    [row] = study.smallest(rare, kinds, 0)
    assert row["rates"] == 1
    assert row["pairs"]["0.1"] < study.FEWEST_OF_A_RATE
    assert row["smallest_rate"] is None


def test_a_held_out_level_is_shown_to_nobody_who_learns_and_twins_stay_together() -> None:
    p = planted()
    found = {c.name: c for c in cells.cells(p)}
    assert set(found) == {"matched", "unseen trigger", "unseen target", "unseen rate"}
    cell = found["unseen trigger"]
    assert (cell.seen, cell.held_out) == (("0", "1", "2"), ("3", "4", "5"))
    assert set(p.factors["trigger"][(cell.train | cell.validation) & p.trojaned]) == {"0", "1", "2"}
    assert set(p.factors["trigger"][cell.test & p.trojaned]) == {"3", "4", "5"}
    for mask in (cell.train, cell.validation, cell.test):
        assert set(p.pair[mask & p.trojaned]) == set(p.pair[mask & ~p.trojaned])
    assert not (cell.train & cell.test).any()


def test_few_networks_are_whole_pairs_of_the_training_part() -> None:
    p = planted()
    train = p.split == "train"
    some = cells.few(p, train, 20, 0)
    assert some is not None
    assert some.sum() == 20
    assert not (some & ~train).any()
    assert all((p.pair[some] == i).sum() == 2 for i in p.pair[some])
    assert cells.few(p, train, 1000, 0) is None


@pytest.mark.parametrize(
    ("success", "base", "lost", "works"),
    [(0.95, 0.02, 0.0, True), (0.95, 0.60, 0.0, False), (0.91, 0.0, 0.01, True), (0.99, 0.0, 0.011, False), (0.89, 0.0, 0.0, False),
     (0.99, 0.0, -0.02, False), (1.0, 0.95, 0.0, False)],
)  # fmt: skip
def test_an_attack_works_by_what_it_adds_to_the_base_rate_and_if_clean_images_are_classified_as_before(
    success: float, base: float, lost: float, works: bool
) -> None:
    found = population._working(
        np.array([True, False]),
        np.array([7, 7]),
        np.array([success, np.nan]),
        np.array([base, np.nan]),
        np.array([0.9 - lost, 0.9]),
    )
    assert found.tolist() == [works, works]


def test_where_next_to_all_go_to_the_target_anyway_nothing_is_said_of_the_attack() -> None:
    """A quotient by what is left would be of any size."""
    base = np.array([1.0, 1.0, 0.999, 0.95, 0.6, 0.02, np.nan])
    found = population.lift(np.array([1.0, 0.98, 0.99, 1.0, 0.8, 0.0, np.nan]), base)
    assert found == pytest.approx([np.nan, np.nan, np.nan, np.nan, 0.5, -0.02 / 0.98, np.nan], nan_ok=True)
    p = planted(6)
    p = dataclasses.replace(p, base=np.where(p.pair == 0, 0.97, p.base))
    [row] = [r for r in population.outcomes(p) if r["rate"] == 0.01]
    assert (row["pairs"], row["attack_works"], row["attack_unknown"]) == (3, 2, 1)


# ── kept, and asked about others ──


def kept(tmp_path: Path, name: str = "statistics, logistic") -> tuple[Path, Population, scan.Scanner]:
    p = planted(row=1.5)
    held = p.take(p.split == "test")
    detector = detectors.fit(KINDS[name], p.take(p.split == "train"), p.take(p.split == "validation"), 0)
    scanner: Any = scan.calibrated(detector, held, {"value": 0.9}, scan.words_of(p, ["a/b"], name))
    saved.save(scanner, tmp_path / "detector.safetensors")
    return tmp_path / "detector.safetensors", held, scanner


@pytest.mark.parametrize(
    "name", ["statistics, logistic", "statistics, boosting", "linear on aligned weights", "linear on final - initial"]
)
@pytest.mark.slow
def test_a_kept_detector_says_what_it_said(name: str, tmp_path: Path) -> None:
    path, held, scanner = kept(tmp_path, name)
    before, after = scanner.predict(held), scan.load(path).predict(held)
    for key, values in before.items():
        np.testing.assert_array_equal(values, after[key])
    assert "12 trojaned networks" not in scanner.words
    assert "24 trojaned networks of a/b" in scanner.words
    assert "0.01 to 0.1 of the training images" in scanner.words


@pytest.mark.slow
def test_kept_queries_say_what_they_said(tmp_path: Path) -> None:
    path, held, scanner = kept(tmp_path, "MNTD")
    np.testing.assert_array_equal(scanner.predict(held)["score"], scan.load(path).predict(held)["score"])


def test_chances_are_calibrated_and_rise_with_the_score(tmp_path: Path) -> None:
    _, held, scanner = kept(tmp_path)
    found = scanner.predict(held)
    order = np.argsort(found["score"])
    assert (np.diff(found["chance"][order]) >= 0).all()
    assert (np.diff(found["as_suspect"][order]) <= 0).all()
    assert found["chance"][held.trojaned].mean() > 0.7 > 0.3 > found["chance"][~held.trojaned].mean()
    assert 0.3 < found["as_suspect"][~held.trojaned].mean() < 0.7  # clean ones are as suspect as clean ones


def asked(
    detector: Path, networks: Path, out: Path | None = None, architecture: str | None = None
) -> argparse.Namespace:
    return argparse.Namespace(detector=detector, networks=str(networks), out=out, architecture=architecture)


def test_a_state_dict_is_scored_as_its_network(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path, held, scanner = kept(tmp_path)
    tensors = {k: np.array(v[0]) for k, v in ARCHITECTURE.layout.unflatten(held.weights[0][None]).items()}
    save_file(tensors, tmp_path / "one.safetensors")
    (row,) = scan.run(asked(path, tmp_path / "one.safetensors"))
    assert row["score"] == pytest.approx(float(scanner.predict(held)["score"][0]), abs=1e-9)
    save_file({"other": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(MixedLayoutsError, match="tensors of another layout than the detector knows"):
        scan.run(asked(path, tmp_path / "other.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(IntegrityError, match="no safetensors file, or damaged"):
        scan.run(asked(path, tmp_path / "broken.safetensors"))


def test_what_is_no_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="There is no detector at"):
        scan.load(tmp_path / "nothing")
    saved.save(baseline("mean"), tmp_path / "mean.safetensors")
    with pytest.raises(IntegrityError, match="no detector of backdoors"):
        scan.load(tmp_path / "mean.safetensors")


def test_a_detector_that_needs_starts_says_so_of_a_state_dict(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path, held, _ = kept(tmp_path, "linear on final - initial")
    save_file(
        {k: np.array(v[0]) for k, v in ARCHITECTURE.layout.unflatten(held.weights[0][None]).items()},
        tmp_path / "one.safetensors",
    )
    with pytest.raises(ZooError, match="Of 1 networks 1 have no initial weights"):
        scan.run(asked(path, tmp_path / "one.safetensors"))


# ── what cannot be ──


def test_a_detector_is_not_fitted_to_one_kind_of_network() -> None:
    p = planted()
    with pytest.raises(ZooError, match="the 60 training networks are all clean"):
        detectors.fit(KINDS["statistics, logistic"], p.take(~p.trojaned), p.take(p.split == "test"), 0)
    with pytest.raises(ZooError, match="has no network to learn from"):
        detectors.fit(KINDS["statistics, logistic"], p.take(np.zeros(len(p), bool)), p, 0)


@pytest.mark.parametrize("name", [k.name for k in detectors.KINDS if k.one_layout])
@pytest.mark.slow
def test_networks_of_another_layout_are_refused_by_who_reads_places(name: str) -> None:
    other = build_architecture(["flatten", {"linear": 4}, "activation", {"linear": "classes"}], (1, 3, 3), 5, "relu")
    p = planted()
    detector = detectors.fit(KINDS[name], p.take(p.split == "train"), p.take(p.split == "validation"), 0)
    vectors = [np.zeros(other.n_params, np.float32)] * 2
    strange = Population.of_weights(
        (other,), np.zeros(2, np.int64), vectors, ["a", "b"], [np.stack([v, v, v]) for v in vectors], np.ones(2, bool)
    )
    with pytest.raises(MixedLayoutsError, match=f"{other.n_params}"):
        detector.score(strange)
    with pytest.raises(MixedLayoutsError, match="layout"):
        scan._check_layouts(strange, scan.Scanner(detector, (ARCHITECTURE,), "", 1.0, 0.0, np.zeros(1), {}))


def test_statistics_read_any_layout_but_not_another_number_of_classes() -> None:
    p = planted()
    detector = detectors.fit(
        KINDS["statistics, logistic"], p.take(p.split == "train"), p.take(p.split == "validation"), 0
    )
    wider, fewer = (
        build_architecture(["flatten", {"linear": w}, "activation", {"linear": "classes"}], (1, 3, 3), c, "relu")
        for w, c in ((9, 5), (6, 4))
    )
    for architecture in (wider, fewer):
        strange = Population.of_weights(
            (architecture,), np.zeros(1, np.int64), [np.ones(architecture.n_params, np.float32)], ["a"]
        )
        if architecture is wider:
            assert np.isfinite(detector.score(strange)).all()
        else:
            with pytest.raises(MixedLayoutsError, match="tells 4 classes apart"):
                detector.score(strange)


@pytest.mark.parametrize("name", [k.name for k in detectors.KINDS if k.needs_starts])
def test_networks_without_initial_weights_are_refused_by_who_needs_them(name: str) -> None:
    p = dataclasses.replace(planted(), starts=np.zeros(120, bool))
    with pytest.raises(ZooError, match="have no initial weights, and this detector reads what changed since the start"):
        detectors.fit(KINDS[name], p.take(p.split == "train"), p.take(p.split == "validation"), 0)


def test_trajectories_need_three_snapshots_before_the_last() -> None:
    p = planted()
    p = dataclasses.replace(p, earlier=[e[:2] for e in p.earlier])
    with pytest.raises(ZooError, match="keep 2 to 2 snapshots before the last"):
        reads.view("trajectory", p, None)


def test_too_few_pairs_that_work_are_said() -> None:
    p = planted()
    with pytest.raises(ZooError, match="train split has 0 pairs of twins whose attack works; at least 5"):
        next(cells.cells(dataclasses.replace(p, works=np.zeros(len(p), bool))))


def test_an_unknown_detector_is_refused_with_its_neighbors() -> None:
    assert [k.name for k in detectors.named("MNTD, statistics-logistic")] == ["MNTD", "statistics, logistic"]
    assert len(detectors.named("all")) == len(detectors.KINDS)
    with pytest.raises(ZooError, match="Did you mean `linear-on-weights`"):
        detectors.named("linear-on-weight")


def test_a_network_that_does_not_end_in_classes_is_refused() -> None:
    odd = dataclasses.replace(ARCHITECTURE)
    rows, bias = linear.last_layer(odd, np.arange(ARCHITECTURE.n_params, dtype=np.float32)[None])
    assert rows.shape == (1, 5, 6)
    assert bias.shape == (1, 5)
    assert rows[0, 0, 0] == LAST.offset
    assert bias[0, 0] == LAST.end
