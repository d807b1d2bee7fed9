"""A model's checkpoints beside its own history: calibrated, refused where it cannot be, and one line of an answer."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from zoo_builder import build, grid, plan
from zoo_datasets import cli
from zoo_datasets.analysis.trajectories import monitor
from zoo_datasets.core import meters
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import open_zoo

PARENTS = """\
zoo: weightzoo/monitored
source: {id: digits, train: 200, validation: 60, test: 80}
architecture: [flatten, {linear: 8}, activation, {linear: classes}]
activation: tanh
replicates: 3
training: {epochs: 40, batch_size: 20, lr: 0.1, optimizer: momentum}
snapshots: {every_epoch: true, optimizer: true}
"""
CHILDREN = """\
zoo: weightzoo/monitored-on
source: {{id: digits, train: 200, validation: 60, test: 80}}
architecture: [flatten, {{linear: 8}}, activation, {{linear: classes}}]
activation: tanh
init: {{zoo: {parents}, epoch: 40, optimizer: continue}}
axes: {{subset: [full, {{label_noise_frac: 0.3}}]}}
paired: [subset]
training: {{epochs: 1, batch_size: 20, lr: 0.1, optimizer: momentum}}
snapshots: {{epochs: [0, 1]}}
"""


def built(recipe: str, folder: Path) -> Path:
    (folder / "grid.yaml").write_text(recipe)
    loaded = grid.load(folder / "grid.yaml")
    build.build(plan.plan(loaded), folder / loaded.zoo, workers=0)
    return folder / loaded.zoo


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(PARENTS, tmp_path_factory.mktemp("parents"))


@pytest.fixture(scope="module")
def children(parents: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(CHILDREN.format(parents=parents), tmp_path_factory.mktemp("children"))


def shrinking(seed: int, n: int) -> list[np.ndarray]:
    """A path whose steps turn and shrink at random, in one way from start to end."""
    random = np.random.default_rng(seed)
    at, step, line = np.zeros(20), random.standard_normal(20), []
    for _ in range(n):
        line.append(at.copy())
        at = at + step
        step = 0.97 * np.exp(0.1 * random.standard_normal()) * (
            0.6 * step + 0.8 * np.linalg.norm(step) * random.standard_normal(20) / np.sqrt(20)
        )  # fmt: skip
    return line


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_promised() -> None:
    """One new step after 39 of a path that goes on as before: alarms at level .1 in at most a tenth, and not in none."""
    turns = 400
    alarms = 0
    for seed in range(turns):
        line = shrinking(seed, 42)
        alarms += monitor.monitor(line[:-1], line[-1:], level=0.1).retest
    # Three standard errors of a share of 400 are .045.
    assert 0.04 < alarms / turns < 0.145


@pytest.mark.slow
def test_two_new_steps_share_the_level() -> None:
    turns = 300
    alarms = sum(
        monitor.monitor(line[:-2], line[-2:], level=0.2).retest for line in (shrinking(s, 42) for s in range(turns))
    )
    assert alarms / turns < 0.27


def test_a_step_as_never_seen_is_told() -> None:
    line = shrinking(0, 60)
    last = line[-1] - line[-2]
    onward = monitor.monitor(line, [line[-1] + 0.97 * last + 0.5 * np.roll(last, 1)])
    back = monitor.monitor(line, [line[-1] - 8 * last])
    assert not onward.retest
    assert str(onward).startswith("no retest")
    assert back.retest
    assert back.steps[0].direction == pytest.approx(-1.0)
    assert back.steps[0].length == pytest.approx(8.0)
    assert str(back).startswith("retest: the model has moved as it never did")


def test_a_history_too_short_for_the_level_is_refused_with_the_number_needed() -> None:
    line = shrinking(0, 30)
    with pytest.raises(
        ZooError, match=r"12 checkpoints in the history; for 1 new ones at level 0.05 at least 21 are needed"
    ):
        monitor.monitor(line[:12], line[12:13])
    assert monitor.monitor(line[:21], line[21:22]).n_history == 19
    with pytest.raises(ZooError, match="There is no new checkpoint"):
        monitor.monitor(line, [])
    with pytest.raises(ZooError, match="step of length 0 has no direction"):
        monitor.monitor(line, [line[-1]])


def test_the_shortest_history_that_is_let_in_can_ring() -> None:
    """0.3 / 3 is less than the 1 / 10 that nine steps of history can give, in floats and not in numbers."""
    line = shrinking(0, 14)
    back = line[10] - 8 * (line[10] - line[9])
    new = [back, back + line[12] - line[11], back + line[13] - line[11]]
    found = monitor.monitor(line[:11], new, level=0.3)
    assert min(s.p for s in found.steps) == 0.1
    assert found.retest
    with pytest.raises(ZooError, match=r"for 3 new ones at level 0\.3 at least 11 are needed"):
        monitor.monitor(line[:10], new, level=0.3)
    for n in (0, 1, 2):
        with pytest.raises(ZooError, match=r"at level 0\.9 at least 3 are needed"):
            monitor.monitor(line[:n], line[2:3], level=0.9)
    for one_in in (100, 50, 20, 10, 5, 4):
        for n_new in range(1, 60):
            rare, more = (monitor.Step(1.0, 1.0, 1.0, p) for p in (1 / (n_new * one_in), 1.01 / (n_new * one_in)))
            assert monitor.Report((rare,) * n_new, n_new * one_in - 1, 1 / one_in).retest
            assert not monitor.Report((more,) * n_new, n_new * one_in - 1, 1 / one_in).retest


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert cli.main(["monitor", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_the_verb_tells_wrong_labels_from_the_same_data(
    parents: Path, children: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = open_zoo(children).models.to_pylist()
    answers: dict[str, list[str]] = {}
    for row in rows:
        line = said(capsys, f"{parents}::{row['parent_id']}", f"{children}::{row['model_id']}")
        assert len(line) == 2  # the copy of the parent's snapshot is no step
        answers.setdefault(row["subset"], []).append(line[-1].split(":")[0])
    assert answers == {"full": ["no retest"] * 3, "label_noise_frac=0.3": ["retest"] * 3}


@pytest.mark.slow
def test_files_and_snapshots_of_one_model_are_the_same(
    parents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = open_zoo(parents)
    model = zoo.models["model_id"][0].as_py()
    steps = sorted(zoo.select(model_id=model).column("step").to_pylist())
    layout = zoo.architecture(model).layout
    (tmp_path / "history").mkdir()
    for step in steps:
        vector = zoo.vector(model, step)
        tensors = {e.name: vector[e.offset : e.end].reshape(e.shape) for e in layout}
        folder = tmp_path / "history" if step < steps[-1] else tmp_path
        save_file(
            tensors | {"bn.running_mean": np.full(3, float(step), np.float32)}, folder / f"step-{step}.safetensors"
        )
    of_zoo = said(capsys, f"{parents}::{model}@0-{steps[-2]}", f"{parents}::{model}@{steps[-1]}")
    of_files = said(capsys, str(tmp_path / "history"), str(tmp_path / f"step-{steps[-1]}.safetensors"))
    assert of_files == of_zoo  # step 100 comes after step 20


class Ended(meters.Display):
    """What each meter says at its end."""

    said: tuple[str, ...] = ()

    def close(self, meter: meters.Meter) -> None:
        self.said += (meter.words(meter.started),)
        super().close(meter)


@pytest.mark.slow
def test_one_sees_how_many_checkpoints_are_read_and_how_much_of_the_history_is_described(parents: Path) -> None:
    model = open_zoo(parents).models["model_id"][0].as_py()
    with meters.shown(Ended(io.StringIO()), pulse=False) as display:
        assert cli.main(["monitor", "--quiet", f"{parents}::{model}@0-390", f"{parents}::{model}@400"]) == 0
    assert isinstance(display, Ended)
    assert display.said == (
        "reading: 41 of 41 checkpoints (100%)",
        "steps of the history: 38 of 38 steps (100%)",
    )


def broken(folder: Path, parents: Path) -> Iterator[tuple[list[str], str]]:
    (folder / "text.safetensors").write_text("no header")
    save_file({"a": np.zeros(3, np.float32)}, folder / "other.safetensors")
    model = open_zoo(parents).models["model_id"][0].as_py()
    whole = f"{parents}::{model}"
    yield [whole, str(folder / "text.safetensors")], "is no safetensors file, or damaged"
    yield [whole, str(folder / "other.safetensors")], "are not checkpoints of one model: they differ in tensor"
    yield [whole, str(folder / "missing.safetensors")], "no safetensors file and no folder of them"
    yield [str(parents), whole], "Of a zoo name a model"
    yield [whole, f"{whole}@7"], "has no snapshot at steps 7 to 7. Known: "
    yield [f"{parents}::nope", whole], "Unknown model 'nope'"
    yield [whole, f"{whole}@x"], "a model of a zoo is named ZOO::MODEL"
    yield [f"{whole}@0-390", f"{whole}@400", "--level", "2"], "a share of false alarms is between 0 and 1"


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(parents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, why in broken(tmp_path, parents):
        assert cli.main(["monitor", *arguments]) in (1, 2), arguments  # 2: what was named is not there
        assert why in capsys.readouterr().err


# ── files ──


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    for i, name in enumerate(names):
        save_file({"w": np.full(3, i, np.float32)}, path / f"{name}.safetensors")
    return path


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    orders = (
        ("epoch0.25", "epoch0.50", "epoch2.00", "epoch10.00"),
        ("epoch2", "epoch10"),
        ("ckpt.3.8", "ckpt.3.9", "ckpt.4.0"),
        ("20240101120000123", "20240101120000124"),  # floats hold no such number
    )
    for number, names in enumerate(orders):
        found = monitor.flat(monitor.checkpoints(str(folder_of(tmp_path / str(number), *names))))
        assert [v[0] for v in found] == list(range(len(names)))
    (name,) = monitor.checkpoints(str(folder_of(tmp_path / "one", "final")))
    assert name.name.endswith("final.safetensors")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("step-1", "step-2", "final"),
            r"final\.safetensors and step-2\.safetensors have 0 and 1 numbers in their names",
        ),
        (("step-1", "step-1-2"), "have 1 and 2 numbers"),
        (("a-1", "b-1"), r"which of a-1\.safetensors and b-1\.safetensors is older"),
        (("first", "last"), "is older their names do not say"),
        (("ckpt.3.9", "ckpt.3.10"), r"ckpt\.3\.(9|10)\.safetensors may be read as a decimal or as two whole numbers"),
        (("epoch0.5", "epoch0.25"), "as many digits after every point"),
        (("epoch1.1", "epoch1.10"), "is older their names do not say"),
    ],
)
def test_names_that_say_no_order_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=message):
        monitor.checkpoints(str(folder_of(tmp_path / "all", *names)))


def test_weights_of_a_type_that_is_not_read_are_named_and_counters_are_not_weights(tmp_path: Path) -> None:
    weights = {"scale": np.ones(2, np.float32), "bn.num_batches_tracked": np.array(3)}
    save_file(weights, tmp_path / "a.safetensors")
    (vector,) = monitor.flat(monitor.checkpoints(str(tmp_path / "a.safetensors")))
    assert vector.tolist() == [1, 1]
    save_file(weights | {"w": np.ones(3, np.int8)}, tmp_path / "b.safetensors")
    with pytest.raises(ZooError, match="holds w as I8, and weights are read as F16, F32, F64"):
        monitor.flat(monitor.checkpoints(str(tmp_path / "b.safetensors")))


def test_what_is_counted_beside_weights_is_no_damage_whatever_its_type(tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    weights = {"w": torch.ones(2), "bn.running_mean": torch.ones(2, dtype=torch.bfloat16)}
    save_torch(weights, tmp_path / "a.safetensors")
    with pytest.raises(ZooError, match=r"holds bn\.running_mean as BF16, and weights are read as"):
        monitor.flat(monitor.checkpoints(str(tmp_path / "a.safetensors")))
