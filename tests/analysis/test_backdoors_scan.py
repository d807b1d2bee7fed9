"""`scan`: files that are damaged or of others, networks that cannot be read, schedules that differ, and what chances are by."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forger
import numpy as np
import planted_zoos
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes
from safetensors.numpy import save_file
from test_backdoors import ARCHITECTURE, KINDS, LAYERS, asked, kept, planted

from zoo_datasets import symmetry
from zoo_datasets.analysis.backdoors import detectors, linear, population, reads, scan
from zoo_datasets.analysis.backdoors.population import Population
from zoo_datasets.baselines import saved
from zoo_datasets.baselines.interface import Targets, View
from zoo_datasets.cli import main
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.networks.layers import build_architecture

# Of each class of solver and each reading one.
SORTS = (
    "first updates", "outlying class, bias", "statistics, logistic", "statistics, boosting", "linear on aligned weights",
    "linear on final - initial",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, "x", [], {})  # of another type than what stood there


# ── a file that is damaged, or of somebody ──


def opened(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    data = path.read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(head["__metadata__"][saved.KEY]), from_bytes(data)


def written(path: Path, tree: Any, arrays: dict[str, np.ndarray]) -> Path:
    path.write_bytes(to_bytes(arrays, {saved.KEY: json.dumps(tree)}))
    return path


def changed(tree: Any) -> Iterator[tuple[str, Any]]:
    """The tree with one name after the other changed, and with each value replaced by one of another type."""

    def places(value: Any, at: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield at
        for key in range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ():
            yield from places(value[key], (*at, key))

    def put(at: tuple[Any, ...], change: Callable[[Any], None]) -> Any:
        made = copy.deepcopy(tree)
        holder = made
        for key in at[:-1]:
            holder = holder[key]
        change(holder)
        return made

    turn = itertools.count()
    for at in list(places(tree, ()))[1:]:
        key = at[-1]
        value = put(at, lambda holder: None)
        for step in at:
            value = value[step]
        if isinstance(key, str):
            yield f"{at} renamed", put(at, lambda holder, k=key: holder.update({k[:-1] + "~": holder.pop(k)}))
        if isinstance(value, str):
            yield f"{at} another text", put(at, lambda holder, k=key, v=value: holder.__setitem__(k, v[:-1] + "~"))
        others = [other for other in OTHERS if type(other) is not type(value)]
        other = others[next(turn) % len(others)]
        yield f"{at} as {other!r}", put(at, lambda holder, k=key, o=other: holder.__setitem__(k, o))


@pytest.mark.slow
@pytest.mark.parametrize("name", SORTS)
def test_a_detector_with_one_word_or_type_changed_is_refused_or_says_what_it_said(name: str, tmp_path: Path) -> None:
    path, held, _ = kept(tmp_path, name)
    held = held.take(np.arange(4))
    before = scan.load(path).predict(held)
    tree, arrays = opened(path)
    same = refused = 0
    for what, other in changed(tree):
        try:
            found = scan.load(written(tmp_path / "changed", other, arrays))
            after = found.predict(held)
            assert 0 <= float(found.auc["value"]) <= 1, what
            str(found.words).encode()
        except ZooError:
            refused += 1
            continue
        same += 1
        for key, values in before.items():
            np.testing.assert_array_equal(values, after[key], err_msg=what)
    assert refused > 100
    assert same > 5  # what is only shown, or was only for the record


@pytest.mark.parametrize(
    "name", ["slope", "shift", "clean", "architectures", "words", "reads", "value", "features", "steps"]
)
@pytest.mark.slow
def test_a_changed_byte_in_the_name_of_a_field_is_a_sentence_of_the_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, held, _ = kept(tmp_path, "first updates")
    data = path.read_bytes()
    quoted = f'\\"{name}\\"'.encode()
    assert data.count(quoted)
    path.write_bytes(data.replace(quoted, quoted[:-3] + b"~" + quoted[-2:]))
    state(tmp_path / "one.safetensors", held)
    assert main(["scan", str(path), str(tmp_path / "one.safetensors"), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "is no detector, or damaged" in said
    assert "Traceback" not in said


def test_counts_that_do_not_fit_the_arrays_and_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    path, _, scanner = kept(tmp_path)
    solver = scanner.detector.solver
    for at, change in (
        (solver, {"tensors": 14}), (solver, {"intercept": float("nan")}), (solver, {"slope": solver.slope[:-1]}),
        (scanner, {"auc": {"value": None}}), (scanner, {"clean": scanner.clean[::-1]}), (scanner, {"clean": scanner.clean[:, None]}),
        (scanner, {"slope": -1.0}), (scanner, {"architectures": ()}),
    ):  # fmt: skip
        before = {k: getattr(at, k) for k in change}
        vars(at).update(change)
        saver: Any = scanner
        saved.save(saver, path)
        with pytest.raises(IntegrityError, match="is no detector, or damaged"):
            scan.load(path)
        vars(at).update(before)
    saved.save(saver, path)
    scan.load(path)


def test_what_cannot_be_worked_out_is_damage_and_what_is_refused_stays_its_own_sentence(tmp_path: Path) -> None:
    _, held, scanner = kept(tmp_path)
    del scanner.detector.solver.scale
    with pytest.raises(IntegrityError, match=r"is no detector, or damaged: .*scale"):
        scanner.predict(held)
    _, held, scanner = kept(tmp_path, "linear on final - initial")
    with pytest.raises(ZooError, match="have no initial weights"):
        scanner.predict(dataclasses.replace(held, starts=np.zeros(len(held), bool)))


# ── networks that cannot be read ──


def state(path: Path, p: Population, place: int = 0, **more: np.ndarray) -> Path:
    layout = p.architectures[p.architecture[place]].layout
    save_file({k: np.array(v[0]) for k, v in layout.unflatten(p.weights[place][None]).items()} | more, path)
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_dict_that_holds_no_numbers_is_not_called_clean(value: float, tmp_path: Path) -> None:
    path, held, _ = kept(tmp_path)
    held.weights[0][3:5] = value
    with pytest.raises(ZooError, match=r"2 of the \d+ weights in .* are no finite numbers"):
        scan.run(asked(path, state(tmp_path / "one.safetensors", held)))


def test_a_reading_knows_whose_numbers_it_cannot_take() -> None:
    p = planted()
    weights, earlier = [w.copy() for w in p.weights], [e.copy() for e in p.earlier]
    weights[0][2], earlier[1][0, 0], earlier[2][1] = np.nan, np.inf, earlier[2][0]
    p = dataclasses.replace(p, weights=weights, earlier=earlier)
    lost = {name: np.flatnonzero(~reads.readable(name, p)).tolist() for name in ("weights", "change", "trajectory")}
    assert lost == {"weights": [0], "change": [0, 1], "trajectory": [0, 1, 2]}
    with pytest.raises(ZooError, match="Of 120 networks 1 are at the second snapshot where they started"):
        reads.view("trajectory", p, None)


@pytest.mark.slow
def test_networks_of_a_zoo_that_cannot_be_read_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = planted_zoos.planted(tmp_path / "whole", 8)
    (zoo.root / "grid.yaml").write_text("")
    models = forger.opened(zoo.root)
    lost = models[2]["model_id"]
    models[2]["snapshots"][-1]["weights"][1] = np.nan
    other = forger.sealed(zoo.root, tmp_path / "other", models)
    p = population.scanned(zoo)
    assert set(p.steps) == {(0, 10, 20)}
    assert p.starts.all()
    detector = detectors.Detector("it", "weights", linear.OutlierClass("it", "weights"))
    scanner: Any = scan.calibrated(detector, p, {"value": 0.5}, "words")
    saved.save(scanner, tmp_path / "detector")
    assert main(["scan", str(tmp_path / "detector"), str(other), "--out", str(tmp_path / "rows"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "Left out: 1 networks whose weights are no finite numbers" in said
    assert (
        "No network can be called suspect or not: that takes 19 clean networks to compare with, and the detector has"
        in said
    )
    assert pq.read_table(tmp_path / "rows")["flagged"].null_count == 7
    assert set(pq.read_table(tmp_path / "rows")["model_id"].to_pylist()) == set(p.model) - {lost}


def test_of_few_clean_networks_none_is_called_clean() -> None:
    """Above all of 18 clean networks lies one in 19, which is no rare one."""
    scanner = scan.Scanner(None, (), "", 1.0, 0.0, np.arange(18.0), {})  # type: ignore[arg-type]
    assert not scan._can_flag(scanner)
    assert scan._can_flag(dataclasses.replace(scanner, clean=np.arange(19.0)))


def test_a_network_with_batch_norm_is_scored_with_the_counter_that_torch_adds(tmp_path: Path) -> None:
    layers: list[Any] = [{"conv": 3}, "batch_norm", "activation", "flatten", {"linear": "classes"}]
    architecture = build_architecture(layers, (1, 3, 3), 5, "relu")
    assert architecture.step_tensors == ("batch_norm1.num_batches_tracked",)
    rng = np.random.default_rng(0)
    q = planted()
    weights = [np.abs(rng.normal(size=architecture.n_params)).astype(np.float32) for _ in q.weights]
    q = dataclasses.replace(q, architectures=(architecture,), weights=weights)
    detector = detectors.fit(
        KINDS["outlying class, weights"], q.take(q.split == "train"), q.take(q.split == "validation"), 0
    )
    scanner = scan.calibrated(detector, q.take(q.split == "test"), {"value": 0.5}, "words")
    plain = scan.of_state_dict(state(tmp_path / "plain", q), scanner)
    counted = scan.of_state_dict(
        state(tmp_path / "counted", q, **{"batch_norm1.num_batches_tracked": np.array(7)}), scanner
    )
    np.testing.assert_array_equal(plain.weights[0], counted.weights[0])
    np.testing.assert_array_equal(plain.weights[0], q.weights[0])
    with pytest.raises(ZooError, match=r"another layout than the detector knows: it has beside other\.$"):
        scan.of_state_dict(state(tmp_path / "other", q, other=np.zeros(1, np.float32)), scanner)


def by_turns(p: Population, activation: str = "tanh") -> Population:
    """The same weights, every other pair of another activation, which no layout shows."""
    other = build_architecture(LAYERS, (1, 3, 3), 5, activation)
    assert other.layout_id == ARCHITECTURE.layout_id
    return dataclasses.replace(p, architectures=(ARCHITECTURE, other), architecture=np.arange(len(p)) // 2 % 2)


@pytest.mark.parametrize("name", ["linear on sorted weights", "linear on aligned weights"])
def test_a_network_is_moved_as_its_own_architecture_allows_whoever_is_beside_it(name: str) -> None:
    p = by_turns(planted(row=1.5))
    detector = detectors.fit(KINDS[name], p.take(p.split == "train"), p.take(p.split == "validation"), 0)
    test = p.take(p.split == "test")
    together, alone = detector.score(test), np.zeros(len(test))
    for place in (0, 1):
        own = test.architecture == place
        alone[own] = detector.score(test.take(own))
    np.testing.assert_array_equal(together, alone)
    if name == "linear on sorted weights":
        for vector, formed, place in zip(
            test.weights, reads.view("sorted", test, None).vectors, test.architecture, strict=True
        ):
            np.testing.assert_array_equal(formed, symmetry.canonicalize(vector, test.architectures[place]))


def test_a_state_dict_of_two_architectures_is_read_as_the_one_that_is_named(tmp_path: Path) -> None:
    p = by_turns(planted(row=1.5))
    sides = {split: p.take(p.split == split) for split in ("train", "validation", "test")}
    name = "linear on sorted weights"
    detector = detectors.fit(KINDS[name], sides["train"], sides["validation"], 0)
    scanner: Any = scan.calibrated(detector, sides["test"], {"value": 0.9}, scan.words_of(p, ["a/b"], name))
    saved.save(scanner, tmp_path / "detector.safetensors")
    wanted = detector.score(sides["test"])
    for place in (0, 2):  # of either activation
        path = state(tmp_path / f"{place}.safetensors", sides["test"], place)
        relu, tanh = (a.id for a in p.architectures)
        with pytest.raises(ZooError, match=rf"{relu} \(relu\); {tanh} \(tanh\). Name its own with --architecture"):
            scan.run(asked(tmp_path / "detector.safetensors", path))
        own = p.architectures[sides["test"].architecture[place]].id
        (row,) = scan.run(asked(tmp_path / "detector.safetensors", path, architecture=own))
        assert row["score"] == pytest.approx(wanted[place], abs=1e-9)
        with pytest.raises(ZooError, match="Unknown architecture 'other'"):
            scan.run(asked(tmp_path / "detector.safetensors", path, architecture="other"))
    raw = detectors.fit(KINDS["linear on weights"], sides["train"], sides["validation"], 0)
    scanner = scan.calibrated(raw, sides["test"], {"value": 0.9}, "words")
    found = scan.of_state_dict(path, scanner)  # who sees weights alone sees no difference
    assert scanner.predict(found)["score"][0] == pytest.approx(raw.score(sides["test"])[2])


@pytest.mark.parametrize(
    "begins", [b"PK\x03\x04\x14\x00\x00\x00\x08\x00archive", b"\x80\x02}q\x00X\x06\x00\x00\x00weight"]
)
def test_a_checkpoint_of_torch_is_named_and_not_opened(begins: bytes, tmp_path: Path) -> None:
    p, detector = planted(), detectors.Detector("it", "weights", linear.OutlierClass("it", "weights"))
    (tmp_path / "one.pt").write_bytes(begins)
    with pytest.raises(IntegrityError, match=r"is a pickle, as `torch.save` writes them.*save_file"):
        scan.of_state_dict(tmp_path / "one.pt", scan.calibrated(detector, p, {"value": 0.5}, "words"))


def test_networks_of_another_training_are_said_to_be_unlike() -> None:
    """Lower than clean ones: of clean and trojaned networks of the detector's own nothing is said."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert scan.unlike(rng.uniform(size=40)) is None
    assert scan.unlike(np.concatenate([rng.uniform(size=20), rng.uniform(0, 0.05, 20)])) is None
    assert "24 of 24 score lower than 90% of its clean networks" in str(scan.unlike(np.full(24, 0.97)))
    assert scan.unlike(np.full(4, 1.0)) is None  # too few to say


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1), ("I8", 1)])
def test_a_type_that_is_not_read_is_named(kind: str, size: int, tmp_path: Path) -> None:
    _, _, scanner = kept(tmp_path)
    head, end = {}, 0
    for entry in ARCHITECTURE.layout:
        head[entry.name] = {"dtype": kind, "shape": list(entry.shape), "data_offsets": [end, end + size * entry.size]}
        end += size * entry.size
    text = json.dumps(head).encode()
    (tmp_path / "one").write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    with pytest.raises(ZooError, match=f"as {kind}, and weights are read as F16, F32, F64"):
        scan.of_state_dict(tmp_path / "one", scanner)


# ── schedules ──


def at_steps(p: Population, *steps: int) -> Population:
    return dataclasses.replace(
        p, earlier=[np.concatenate([e, e[1:] + 0.1])[: len(steps)] for e in p.earlier], steps=[steps] * len(p)
    )


@pytest.mark.parametrize("steps", [(0, 5, 16), (0, 5, 15, 30)])
def test_trajectories_of_another_schedule_are_refused_by_a_kept_detector(
    steps: tuple[int, ...], tmp_path: Path
) -> None:
    path, held, _ = kept(tmp_path, "first updates")
    scanner = scan.load(path)
    scanner.predict(held)
    said = ", ".join(map(str, steps))
    with pytest.raises(
        ZooError, match=f"at steps {said} before the last, and this detector learned from those at steps 0, 5, 15"
    ):
        scanner.predict(at_steps(held, *steps))


def test_networks_of_two_schedules_are_not_compared_step_by_step() -> None:
    p = planted()
    mixed = dataclasses.replace(p, steps=[(0, 5, 15)] * 60 + [(0, 5, 20)] * 60)
    with pytest.raises(ZooError, match="at steps 0, 5, 15 and others at 0, 5, 20"):
        reads.view("trajectory", mixed, None)


# ── calibration ──


def test_chances_are_by_the_validation_split_unless_it_has_few_clean_networks() -> None:
    p = planted(100)  # one pair in five
    side, words = scan.held_out(p)
    assert set(p.split[side]) == {"validation"}
    assert words == "Chances and flags are by 20 clean networks of its validation split."
    fewer = p.take(p.pair != 2)
    side, words = scan.held_out(fewer)
    assert set(fewer.split[side]) == {"test"}
    assert words.endswith(
        "by 40 clean networks of its test split, as its AUC is: the validation split has fewer than 20."
    )


# ── nothing to learn from ──


@pytest.mark.parametrize("columns", [1, 30])
def test_where_nothing_varies_the_odds_are_those_of_the_shares(columns: int) -> None:
    y = np.array([1.0, 0, 0, 0])
    same = pa.table({f"{i}": np.ones(4) for i in range(columns)})

    def view(features: str) -> View:
        weights = [np.ones(ARCHITECTURE.n_params, np.float32)] * 4
        return View((ARCHITECTURE,), np.zeros(4, np.int64), weights, same)

    for features in linear.FEATURES:
        solver = linear.Logistic("it", features)
        given = view(features), Targets((linear.TARGET,), y[:, None])
        solver.fit(given, given, 0)
        np.testing.assert_allclose(solver.predict(given[0])["trojaned"], [[0.75, 0.25]] * 4, atol=1e-3)
