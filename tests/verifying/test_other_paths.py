"""A zoo of a PyTorch engine whose libraries took another path: equal within rounding, and no forgery passes for it.

The stand-in for another library is another engine: the native one's weights and metrics under the torch engine's name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forger import Change, Model, opened, perfect, sealed, swap_last

from zoo_builder import verify
from zoo_builder.build import build
from zoo_builder.engines import devices
from zoo_builder.plan import Plan
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.networks import kernels

pytestmark = pytest.mark.skipif(kernels.missing() is not None, reason="needs two engines")


@pytest.fixture(scope="module")
def torch_zoo(make_plan: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(make_plan(engine="torch_loop"), tmp_path_factory.mktemp("torch") / "tiny", workers=0).root


@pytest.fixture
def elsewhere_made(torch_zoo: Path, tiny_zoo: Path, tmp_path: Path) -> Callable[..., Path]:
    """The torch zoo as other libraries would have made it, then changed."""

    def make(change: Change = lambda models: None, **parts: Any) -> Path:
        theirs = {m["model_id"]: m["snapshots"] for m in opened(tiny_zoo)}
        models: list[Model] = opened(torch_zoo)
        for model in models:
            model["snapshots"] = theirs[model["model_id"]]
        change(models)
        return sealed(torch_zoo, tmp_path / "elsewhere", models, **parts)

    return make


@pytest.mark.slow
def test_a_torch_zoo_of_this_machine_is_bit_for_bit(torch_zoo: Path) -> None:
    report = verify.verify(torch_zoo, retrain=16)
    assert report.problems == []
    assert sum("bit for bit, with every metric" in line for line in report.lines) == 4


@pytest.mark.slow
def test_other_bits_under_equal_columns_are_equal_within_rounding(elsewhere_made: Callable[..., Path]) -> None:
    root = elsewhere_made()
    report = verify.verify(root, retrain=16)
    assert report.problems == []
    assert sum("models equal within rounding, as other engines, libraries" in line for line in report.lines) == 4
    assert not any("bit for bit" in line for line in report.lines)


@pytest.mark.slow
def test_other_columns_are_named(elsewhere_made: Callable[..., Path], torch_zoo: Path) -> None:
    (engine,) = Manifest.read(torch_zoo).engines
    named = [{"engine": engine.engine, "version": engine.version, "isa": "VSX"}]
    root = elsewhere_made(lambda z: [m.update(isa="VSX") for m in z], engines=named)
    report = verify.verify(root, retrain=4)
    assert report.problems == []
    assert any("VSX); here torch_loop" in line for line in report.lines)


def other_start(models: list[Model]) -> None:
    """One weight in three of an early snapshot is off by more than rounding."""
    models[0]["snapshots"][1]["weights"][::3] += 1e-3


def off_by_much(models: list[Model]) -> None:
    models[0]["snapshots"][1]["weights"][0] += 5.0


def better(name: str) -> Change:
    def change(models: list[Model]) -> None:
        s = models[0]["snapshots"][-1]
        s[name] /= 2
        s["gap_loss"] = s["train_loss"] - s["test_loss"]

    return change


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda z: [perfect(m) for m in z], "`test_accuracy` is 1.0, and"),
        (better("test_loss"), "`test_loss` is"),
        (better("validation_loss"), "`validation_loss` is"),
        (better("train_loss_clean"), "`train_loss_clean` is"),
        (lambda z: z[0]["snapshots"][0].update(attack_success=1.0), "`attack_success` is 1.0, and None"),
        (swap_last, "are of another model"),
        (other_start, "weights after"),
        (off_by_much, "weights after"),
    ],
)
@pytest.mark.slow
def test_what_rounding_cannot_do_is_found(elsewhere_made: Callable[..., Path], change: Change, finding: str) -> None:
    problems = verify.verify(elsewhere_made(change), retrain=16).problems
    assert any(finding in p for p in problems), problems


def test_isa_names_what_the_environment_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in devices.PATH_VARIABLES["cpu"]:
        monkeypatch.delenv(name, raising=False)
    usual = devices.isa("torch_loop", "cpu")
    assert "=" not in usual
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "all")
    assert devices.isa("torch_loop", "cpu") == usual
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert devices.isa("torch_loop", "cpu") == f"{usual}, MKL_CBWR=COMPATIBLE, ONEDNN_MAX_CPU_ISA=AVX2"
    assert devices.isa("native", "cpu") == "fma"


@pytest.mark.slow
def test_a_torch_zoo_is_verified_under_another_path_of_its_libraries(
    torch_zoo: Path, run_builder: Callable[..., Any]
) -> None:
    paths = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}
    ended = run_builder("verify", torch_zoo, "--retrain", 16, **paths)
    assert ended.code == 0, ended.err
    assert ended.out.count("models equal within rounding") + ended.out.count("bit for bit, with every metric") == 4
