"""The study of backdoors on zoos that were built: which attacks work, the files it leaves, a kept detector on another zoo."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from zoo_builder import grid, plan
from zoo_builder.build import build
from zoo_datasets.analysis.backdoors import population, reads
from zoo_datasets.cli import main
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import Zoo, open_zoo

POISONED = """\
zoo: mine/poisoned
source: {id: digits, train: 500, validation: 97, test: 1000, scale: standardize}
architecture: [flatten, {linear: 16}, activation, {linear: classes}]
subset: {frac: 0.8, trigger_pattern: random}
sample:
  models: 84
  axes:
    lr: {log_uniform: [3e-3, 6e-3]}
    trigger_frac: [0.06, 0.08]
    trigger_target: {integer: [0, 9]}
    trigger_seed: {integer: [1, 4]}
    trigger_size: [4]
    trigger_row: {integer: [0, 4]}
    trigger_column: {integer: [0, 4]}
  twins: {trigger_frac: 0}
paired: [trigger_frac, trigger_target, trigger_seed, trigger_size, trigger_row, trigger_column]
training: {epochs: 20}
snapshots: {steps: [0, 5, 15, 30]}
splits: {train: 0.4, validation: 0.2, test: 0.4}
"""
SETS = """\
zoo: mine/sets
source: {id: digits, train: 500, validation: 97, test: 200, scale: standardize}
architecture: [flatten, {linear: 16}, activation, {linear: classes}]
axes: {subset: [{frac: 0.5}, {frac: 0.5, skip: 0.5}]}
paired: [subset]
replicates: {init: 12}
training: {epochs: 10}
splits: {train: 0.5, validation: 0.2, test: 0.3}
"""
WRONG = """\
zoo: mine/wrong
seed: 1
source: {id: digits, train: 500, validation: 97, test: 1000, scale: standardize}
architecture: [flatten, {linear: 16}, activation, {linear: classes}]
subset: {frac: 0.8}
sample:
  models: 32
  axes: {lr: {log_uniform: [3e-3, 6e-3]}, label_noise_frac: [0.06, 0.2]}
  twins: {label_noise_frac: 0}
paired: [label_noise_frac]
training: {epochs: 20}
snapshots: {steps: [0, 5, 15, 30]}
"""
SOME = "statistics-logistic,linear-on-final-initial,outlying-class-weights,clean-accuracy"


def built(root: Path, recipe: str) -> Zoo:
    (root / "recipe.yaml").write_text(recipe)
    planned = plan.plan(grid.load(root / "recipe.yaml"))
    build(planned, root / planned.grid.zoo, workers=0)
    return open_zoo(root / planned.grid.zoo)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return built(tmp_path_factory.mktemp("poisoned"), POISONED)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return built(tmp_path_factory.mktemp("sets"), SETS)


@pytest.mark.slow
def test_pairs_are_read_with_what_their_attacks_do(poisoned: Zoo) -> None:
    p, counts = population.read([poisoned])
    assert counts == {"networks": 84, "diverged": 0, "without_accuracy": 0, "without_a_twin": 0}
    assert p.trojaned.sum() == 42
    rows = {r["model_id"]: r for r in poisoned.models.to_pylist()}
    last = {
        r["model_id"]: r for r in poisoned.final().table(["model_id", "attack_success", "test_accuracy"]).to_pylist()
    }
    for i, model in enumerate(p.model):
        assert p.trojaned[i] == (rows[model]["trigger_frac"] > 0)
        assert p.loss[i, 1] == last[model]["test_accuracy"]
        np.testing.assert_array_equal(p.weights[i], poisoned.vector(model))
        np.testing.assert_array_equal(p.earlier[i][0], poisoned.vector(model, 0))
        if p.trojaned[i]:
            assert p.success[i] == pytest.approx(last[model]["attack_success"])
            assert 0 <= p.base[i] < 0.2
            assert p.factors["trigger"][i] == str(rows[model]["trigger_seed"])
            (twin,) = np.flatnonzero((p.pair == p.pair[i]) & ~p.trojaned)
            np.testing.assert_array_equal(p.earlier[i][0], p.earlier[twin][0])
            wanted = (p.success[i] - p.base[i]) / (1 - p.base[i]) >= 0.9 and abs(
                p.loss[i, 1] - p.loss[twin, 1]
            ) <= 0.01 + 1e-9
            assert p.works[i] == p.works[twin] == wanted
    told = set(p.recipe.column_names)
    assert {"lr", "updates"} <= told
    recipe = p.recipe.to_pylist()
    for i in np.flatnonzero(p.trojaned):  # what a control is told is the same of both twins
        assert recipe[i] == recipe[np.flatnonzero((p.pair == p.pair[i]) & ~p.trojaned)[0]]
    assert "trigger_frac" not in told
    assert sum(r["pairs"] for r in population.outcomes(p)) == 42
    assert reads.view("trajectory", p, None).recipe.num_columns == 14  # seven features of two further snapshots


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return built(tmp_path_factory.mktemp("wrong"), WRONG)


@pytest.fixture(scope="module")
def study(poisoned: Zoo, sets: Zoo, wrong: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    asked = [
        "--yardstick",
        str(sets.root),
        "--decoys",
        str(wrong.root),
        "--detectors",
        SOME,
        "--out",
        str(out),
        "--quiet",
    ]
    assert main(["analyze", "backdoors", str(poisoned.root), *asked]) == 0
    return out


@pytest.mark.slow
def test_the_whole_study_leaves_numbers_tables_pictures_and_detectors(study: Path) -> None:
    out = study
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["settings"]["works"] == 0.9
    assert numbers["settings"]["margin"] == 0.01
    assert numbers["population"]["pairs"] == 42 >= numbers["population"]["working"] >= 15
    matched = {r["detector"]: r for r in numbers["table"] if r["question"] == "matched" and r["pairs_that"] == "works"}
    assert len(matched) == 4
    assert all(0 <= r["yardstick"] <= 1 and r["detected"] in (True, False) for r in matched.values())
    assert matched["clean accuracy"]["control"]
    assert {n: numbers["settings"][n]["name"] for n in ("yardstick", "decoys")} == {
        "yardstick": "mine/sets",
        "decoys": "mine/wrong",
    }
    assert str(out.parent) not in json.dumps(numbers["settings"])  # which bytes, and not where they lie
    decoys = {(r["detector"], r["wrong_labels"]): r for r in numbers["decoys"]}
    assert {side for _, side in decoys} >= {"all", "0.06", "0.2"}
    assert decoys["clean accuracy", "all"]["trojaned"] == decoys["clean accuracy", "all"]["clean"] == 16
    assert decoys["clean accuracy", "0.06"]["trojaned"] + decoys["clean accuracy", "0.2"]["trojaned"] == 16
    assert set(pq.read_table(out / "table.parquet")["question"].to_pylist()) >= {"matched", "unseen trigger"}
    for name in ("detectors", "questions", "doses", "where", "triggers"):
        assert (out / f"{name}.png").stat().st_size > 5000
    kept = {p.stem for p in (out / "detectors").iterdir()}
    assert kept == {"statistics-logistic", "linear-on-final-initial", "outlying-class-weights"}


@pytest.mark.slow
def test_the_page_has_every_table_and_its_sentences_follow_the_numbers(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    page, numbers = importlib.import_module("backdoors_page"), json.loads((study / "numbers.json").read_text())
    assert list(page.section({})) == []
    text = "\n".join(page.section({"a/poisoned": numbers}))
    matched = [r for r in numbers["table"] if (r["question"], r["pairs_that"]) == ("matched", "works")]
    best, control = (max((r for r in matched if r["control"] is kind), key=page._auc) for kind in (False, True))
    (row,) = [line for line in text.splitlines() if line.startswith("| `poisoned` |")]
    assert f"| {page._name(best)} | {page._value(best['auc'])} |" in row
    assert f"| {control['detector']} | {page._value(control['auc'])} |" in row
    for table in ("Which attacks work", "Matched:", "Held-out levels", "Dose and response"):
        assert f"**{table}" in text
    widths = [[k.count(" | ") for k in block.splitlines()] for block in text.split("\n\n") if block.startswith("| ")]
    assert len(widths) >= 4
    assert all(len(set(lines[:1] + lines[2:])) == 1 for lines in widths)

    def said(gain: float, detected: bool | None) -> str:
        for row in numbers["table"]:
            row["auc"] |= {"value": 0.85, "low": 0.75, "high": 0.95}
            row["detected"] = detected and not row["control"]
            if not row["control"]:
                row["gain"] |= {"value": gain, "low": gain - 0.1, "high": gain + 0.1}
        return next(iter(page.findings(numbers)))

    first = numbers["table"][0]["detector"]
    assert f"**Matched.** Highest of 3, {first}: 0.85 [0.75, 0.95]" in said(0.3, True)
    assert "; +0.30 [+0.20, +0.40] over the best control" in said(0.3, True)
    assert "Above the best control, uncorrected: statistics, logistic" in said(0.3, True)
    assert "Above the best control, uncorrected: none, which is no finding about weights." in said(0.05, True)
    assert "Above the yardstick's upper bound, uncorrected: statistics" in said(0.3, True)
    assert said(0.3, False).endswith("Above the yardstick's upper bound, uncorrected: none.")
    assert "yardstick" not in said(0.3, None)  # there is none, and nothing is said of it
    assert "**Wrong labels without a mark:**" in text
    for row in numbers["table"]:
        row["auc"] |= {"low": 0.6}
    for row in numbers["decoys"]:
        row["auc"] |= {"low": 0.6 if row["detector"] == "statistics, logistic" else 0.4}
    [fooled] = page._fooled(numbers)
    assert (
        "Of 3 detectors that tell backdoors above ½, 1 tells twins of which one learned wrong labels above ½ too: statistics, logistic ("
        in fooled
    )
    for row in numbers["decoys"]:
        row["auc"] |= {"low": 0.4}
    [none] = page._fooled(numbers)
    assert (
        "none tells twins of which one learned wrong labels above ½ too, the one for all zoos among them: statistics, logistic ("
        in none
    )
    doses = list(page._smallest([{**r, "n": 100} for r in numbers["smallest"]], numbers["population"]))
    assert "from 500 networks:** not asked" in doses[1]


@pytest.mark.slow
def test_a_kept_detector_scans_another_zoo_and_a_state_dict(
    poisoned: Zoo, sets: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(
        [
            "analyze",
            "backdoors",
            str(poisoned.root),
            "--detectors",
            "linear-on-final-initial,statistics-logistic",
            "--out",
            str(out),
            "--no-pictures",
            "--quiet",
        ]
    )
    capsys.readouterr()
    detector = str(out / "detectors" / "linear-on-final-initial.safetensors")
    assert main(["scan", detector, str(sets.root), "--out", str(tmp_path / "scores.parquet"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "learned from" in said
    assert " updates, whose attack works: triggers on" in said
    assert "It knows no other kind of backdoor, no other training and no other data." in said
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert scores.num_rows == 24
    assert scores["score"].to_pylist() == sorted(scores["score"].to_pylist(), reverse=True)
    assert set(scores["model_id"].to_pylist()) == set(sets.models["model_id"].to_pylist())
    model = poisoned.models["model_id"][0].as_py()
    state = {k: v.numpy() for k, v in poisoned.state_dict(model).items()}
    save_file(state, tmp_path / "one.safetensors")
    assert main(["scan", detector, str(tmp_path / "one.safetensors"), "--quiet"]) == 1
    assert "have no initial weights" in capsys.readouterr().err
    assert (
        main(
            [
                "scan",
                str(out / "detectors" / "statistics-logistic.safetensors"),
                str(tmp_path / "one.safetensors"),
                "--quiet",
            ]
        )
        == 0
    )
    assert "one.safetensors" in capsys.readouterr().out
    assert main(["scan", str(tmp_path / "scores.parquet"), str(sets.root), "--quiet"]) == 1
    assert "is no detector, or damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_zoos_of_one_start_are_divided_as_one(poisoned: Zoo, tmp_path: Path) -> None:
    """The other zoo has the same starts in another layout, and divides them in other shares."""
    recipe = POISONED.replace("mine/poisoned", "mine/wider").replace("{linear: 16}", "{linear: 20}")
    recipe = recipe.replace("train: 0.4, validation: 0.2", "train: 0.2, validation: 0.4")
    assert recipe.count("wider") == 1
    other = built(tmp_path, recipe)
    own = {
        z.name: dict(zip(*(z.models[c].to_pylist() for c in ("init_key", "split")), strict=True))
        for z in (poisoned, other)
    }
    shared = own["mine/poisoned"].keys() & own["mine/wider"].keys()
    assert any(own["mine/poisoned"][k] != own["mine/wider"][k] for k in shared)
    p, _ = population.read([poisoned, other])
    assert len(p) == 168
    sides: dict[str, set[str]] = {}
    for group, side in zip(p.group, p.split, strict=True):
        sides.setdefault(group, set()).add(side)
    assert {len(s) for s in sides.values()} == {1}
    assert set(p.split) == {"train", "validation", "test"}


@pytest.mark.slow
def test_a_network_with_two_clean_twins_is_refused(tmp_path: Path) -> None:
    recipe = SETS.replace("mine/sets", "mine/several").replace(
        "{frac: 0.5, skip: 0.5}", "{frac: 0.5, skip: 0.5}, {frac: 0.5, trigger_frac: 0.1, trigger_target: 1}"
    )
    several = built(tmp_path, recipe)
    with pytest.raises(ZooError, match="are both clean twins of the same networks"):
        population.read([several])


@pytest.mark.slow
def test_a_yardstick_whose_test_split_is_of_one_set_is_refused(sets: Zoo) -> None:
    with pytest.raises(ZooError, match=r"is no yardstick: its validation split has \d+ networks, not of both sets"):
        population.clean([sets.select(split=["train", "test"])])


@pytest.mark.slow
def test_zoos_without_twins_or_sets_are_refused(poisoned: Zoo, sets: Zoo) -> None:
    with pytest.raises(ZooError, match="mine/sets has no network with a trigger"):
        population.read([sets])
    with pytest.raises(ZooError, match="mine/poisoned is no yardstick"):
        population.clean([poisoned])
    with pytest.raises(ZooError, match="mine/poisoned has networks with a trigger; wrong labels are looked at without"):
        population.wrong_labels([poisoned])
    with pytest.raises(ZooError, match="mine/sets has no pair of twins of which one learned wrong labels"):
        population.wrong_labels([sets])
    alone = poisoned.select(trigger_frac=[0.06, 0.08])
    with pytest.raises(ZooError, match="no clean one that is a twin of one with a trigger"):
        population.read([alone])
