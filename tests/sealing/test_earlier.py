"""What `--from` promises: models that other zoos have are not trained again, and the zoo is the same, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo_builder import grid, plan, worker
from zoo_builder.build import build
from zoo_builder.cli import main
from zoo_builder.engines import native
from zoo_builder.planning.cohorts import Cohort
from zoo_datasets.errors import BuildError, ZooNotFoundError
from zoo_datasets.format.paths import ZooPaths

Make = Callable[..., plan.Plan]
Tree = Callable[[Path], dict[str, str]]
# Training ends at different steps, one model diverges at once, and the optimizer's state is kept.
VARIED = (
    "training={epochs: 9, batch_size: 32, optimizer: adam, patience: 1}",
    "axes.lr=[1e-1, 1e30]",
    "snapshots.optimizer=true",
)


ATTACKED = ("axes.subset=[full, {trigger_frac: 0.2, trigger_target: 3}]", "snapshots.attack_per_class=true")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs that are trained from here on, by the code that trains them."""
    ids: list[str] = []
    train = worker.train

    def listening(cohort: Cohort, *rest: Any, **more: Any) -> Any:
        ids.extend(run.id for run in cohort.runs)
        return train(cohort, *rest, **more)

    monkeypatch.setattr(worker, "train", listening)
    return ids


def ids_of(planned: plan.Plan) -> list[str]:
    return [run.id for run in planned.runs]


def taking(planned: plan.Plan, out: Path, *zoos: Path) -> Path:
    return build(planned, out, workers=0, earlier_zoos=zoos).root


@pytest.mark.parametrize("changes", [(), VARIED, ATTACKED], ids=["fixed", "varied", "attacked"])
def test_a_longer_prefix_trains_what_is_new_and_comes_out_the_same(
    make_plan: Make, tmp_path: Path, tree_hash: Tree, trained: list[str], changes: tuple[str, ...]
) -> None:
    short, whole = make_plan(*changes, limit=7), make_plan(*changes)
    cut = [c for c in whole.cohorts if 0 < len({r.id for r in c.runs} & set(ids_of(short))) < len(c.runs)]
    assert cut, "a cohort of which some are there"
    build(short, tmp_path / "short", workers=0)
    build(whole, tmp_path / "whole", workers=0)
    trained.clear()
    found = taking(whole, tmp_path / "found", tmp_path / "short")
    assert sorted(trained) == sorted(set(ids_of(whole)) - set(ids_of(short)))
    assert tree_hash(found) == tree_hash(tmp_path / "whole")


def test_parts_that_were_built_apart_make_one_zoo_and_nothing_is_trained(
    make_plan: Make, tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree, trained: list[str]
) -> None:
    for level in ("tanh", "relu"):
        build(make_plan(f"axes.activation=[{level}]"), tmp_path / level, workers=0)
    trained.clear()
    found = taking(tiny_plan, tmp_path / "found", tmp_path / "relu", tmp_path / "tanh", tmp_path / "relu")
    assert not trained
    assert tree_hash(found) == tree_hash(tiny_zoo)


def test_of_torch_whole_cohorts_are_taken(make_plan: Make, tmp_path: Path, tree_hash: Tree, trained: list[str]) -> None:
    pairs: Any = {"engine": "torch_batched"}
    short, whole = make_plan("cohort_size=2", limit=7, **pairs), make_plan("cohort_size=2", **pairs)
    kept = {run.id for c in whole.cohorts if c.id in {c.id for c in short.cohorts} for run in c.runs}
    assert 0 < len(kept) < 7
    build(short, tmp_path / "short", workers=0)
    build(whole, tmp_path / "whole", workers=0)
    trained.clear()
    found = taking(whole, tmp_path / "found", tmp_path / "short")
    assert set(trained) == set(ids_of(whole)) - kept
    assert tree_hash(found) == tree_hash(tmp_path / "whole")


def test_of_torch_models_of_other_cohorts_are_not_taken(make_plan: Make, tmp_path: Path) -> None:
    build(make_plan("cohort_size=4", engine="torch_batched"), tmp_path / "fours", workers=0)
    with pytest.raises(BuildError, match=r"trained by torch .* its bits are not those of torch_batched on cpu"):
        taking(make_plan("cohort_size=2", engine="torch_batched"), tmp_path / "twos", tmp_path / "fours")


def test_a_build_that_ended_goes_on_with_them_and_without(
    make_plan: Make, tiny_grid: Path, tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, tree_hash: Tree,
    elsewhere: Callable[..., Any],
) -> None:  # fmt: skip
    build(make_plan(limit=7), tmp_path / "short", workers=0)
    armed = {"ZOO_FAULT": f"after_checkpoint:{tmp_path}"}
    ended = elsewhere(build_until_dead, str(tiny_grid), str(tmp_path / "found"), str(tmp_path / "short"), env=armed)
    assert ended.code == -9
    shutil.copytree(tmp_path / "found", tmp_path / "alone")
    assert tree_hash(taking(tiny_plan, tmp_path / "found", tmp_path / "short")) == tree_hash(tiny_zoo)
    assert tree_hash(taking(tiny_plan, tmp_path / "alone")) == tree_hash(tiny_zoo)


def build_until_dead(recipe: str, out: str, short: str) -> None:
    planned = plan.plan(grid.load(recipe))
    build(planned, Path(out), workers=0, earlier_zoos=[Path(short)], checkpoint_every_s=0)


def test_damaged_weights_are_not_taken(make_plan: Make, tiny_plan: plan.Plan, tmp_path: Path) -> None:
    short = build(make_plan(limit=7), tmp_path / "short", workers=0).root
    shard = next(short.glob("weights/train-*"))
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(BuildError, match="1 of 4 cohorts failed"):
        taking(tiny_plan, tmp_path / "found", short)
    (failure,) = ZooPaths(tmp_path / "found").failed.iterdir()
    assert (
        "differs from its checksum: the zoo is damaged. Fetch or build it again, or leave it out" in failure.read_text()
    )


def test_damaged_tables_are_refused_and_nothing_is_written(
    make_plan: Make, tiny_copy: Path, tmp_path: Path, tiny_grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = next(tiny_copy.glob("data/snapshots/train-*"))
    table.write_bytes(table.read_bytes()[:-1])
    assert (
        main(["--grid", str(tiny_grid), "--out", str(tmp_path / "o"), "--from", str(tiny_copy), "--workers", "0"]) == 1
    )
    assert "data/snapshots/train-" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        (("training.lr=1e-3",), {}, "Their recipes ask for other models."),
        ((), {"engine": "torch_loop"}, "trained by native 3 on cpu (fma), cohort "),
    ],
)
def test_zoos_that_have_none_of_the_models_are_refused_and_nothing_is_written(
    make_plan: Make, tiny_zoo: Path, tmp_path: Path, changes: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(BuildError) as error:
        taking(make_plan(*changes, **options), tmp_path / "found", tiny_zoo)
    assert str(error.value).startswith(f"None of the 16 models of this plan can be taken from {tiny_zoo}. ")
    assert said in str(error.value)
    assert not (tmp_path / "found").exists()


def test_models_of_another_version_of_the_engine_are_not_taken(
    tiny_plan: plan.Plan, tiny_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "VERSION", "native 4")
    with pytest.raises(BuildError, match="trained by native 3 on cpu"):
        taking(tiny_plan, tmp_path / "found", tiny_zoo)


def test_other_images_of_the_same_name_are_not_taken(make_plan: Make, tiny_zoo: Path, tmp_path: Path) -> None:
    changed = make_plan()
    cohorts = [Cohort(c.id, c.runs, c.architecture, c.n_train, c.engine, c.device, "0" * 64) for c in changed.cohorts]
    with pytest.raises(BuildError, match="or its images are others"):
        taking(plan.Plan(changed.grid, changed.runs, cohorts, changed.sources), tmp_path / "found", tiny_zoo)


def test_what_is_no_zoo_is_refused(tiny_plan: plan.Plan, tmp_path: Path) -> None:
    with pytest.raises(ZooNotFoundError):
        taking(tiny_plan, tmp_path / "found", tmp_path / "nowhere")
    assert not (tmp_path / "found").exists()


def test_a_folder_of_a_shorter_prefix_says_how_to_go_on_from_it(
    make_plan: Make, tiny_zoo: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=f"Models that both have are not trained again with --from {tiny_zoo}"):
        taking(make_plan(limit=7), tiny_zoo)
    with pytest.raises(BuildError, match=r"`engines` is .* there") as error:  # whose models would be trained anew
        taking(make_plan(engine="torch_loop"), tiny_zoo)
    assert "--from" not in str(error.value)
