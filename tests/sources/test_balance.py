"""Balanced epochs: as many images of each class as there are of the rarest, drawn anew each time."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zoo_builder import engines, verify, worker
from zoo_builder.build import build
from zoo_builder.engines.contract import Window
from zoo_builder.training.inputs import data_of, epoch_order, job_of
from zoo_builder.training.trainer import Trainer
from zoo_datasets import sources
from zoo_datasets.core import streams
from zoo_datasets.errors import BuildError
from zoo_datasets.sources import Subset

KEY = "0123456789abcdef" * 2
LABELS = np.array([0] * 50 + [1] * 7 + [2] * 20)
ROWS = np.arange(len(LABELS))


def order(epoch: int, rows: np.ndarray = ROWS, key: str = KEY) -> np.ndarray:
    return sources.epoch_order(key, epoch, len(LABELS), rows, LABELS[rows])


@pytest.mark.parametrize("rows", [ROWS, ROWS[::2], ROWS[3:]])
def test_an_epoch_has_equally_many_of_each_class_and_none_twice(rows: np.ndarray) -> None:
    least = min(Counter(LABELS[rows].tolist()).values())
    shown = order(3, rows)
    assert Counter(LABELS[rows[shown]].tolist()) == dict.fromkeys(range(3), least)
    assert len(set(shown.tolist())) == len(shown)


def test_each_epoch_draws_others_and_in_time_all_come() -> None:
    epochs = [set(order(e).tolist()) for e in range(100)]
    assert len({frozenset(e) for e in epochs}) == 100
    assert set.union(*epochs) == set(ROWS.tolist())
    assert all({*range(50, 57)} <= e for e in epochs)  # of the rarest, every one each time


def test_who_is_drawn_and_in_which_order_are_two_streams_of_one_key() -> None:
    drawn = streams.words(KEY, len(LABELS), (5, 0, streams.BALANCE))
    wanted = {int(i) for c in range(3) for i in sorted(np.flatnonzero(LABELS == c), key=lambda i: drawn[i])[:7]}
    assert set(order(5).tolist()) == wanted
    place = {row: i for i, row in enumerate(streams.permutation(KEY, len(LABELS), 5).tolist())}
    assert [place[i] for i in order(5).tolist()] == sorted(place[i] for i in wanted)
    assert set(order(5, key="f" * 32).tolist()) != wanted


def test_classes_that_are_equal_already_are_shown_whole_in_the_plain_order() -> None:
    labels = np.arange(60) % 3
    rows = np.arange(60)
    plain = sources.epoch_order(KEY, 2, 60, rows)
    assert (sources.epoch_order(KEY, 2, 60, rows, labels) == plain).all()


def test_the_number_of_images_follows_from_labels_and_fraction_alone() -> None:
    for subset, wanted in ((Subset(), 21), (Subset(frac=0.5), 12), (Subset(classes=(0, 2)), 40)):
        assert sources.count_balanced(LABELS, 3, subset) == wanted
        seen = sources.training_examples(LABELS, 3, subset, KEY).rows
        assert len(order(0, seen)) == wanted


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_every_engine_is_shown_the_balanced_images(
    make_plan: Callable[..., Any], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = make_plan(
        "axes={subset: [full, {label_noise_frac: 0.3}]}", "paired=[]", "replicates=1", "splits={train: 1}",
        "training={balance_classes: true, epochs: 2, batch_size: 32}", "snapshots=every_epoch", engine=engine,
    )  # fmt: skip
    (cohort,), (source,) = planned.cohorts, planned.sources.values()
    least = np.bincount(source.train.labels).min()
    assert cohort.n_train == 10 * least < len(source.train.labels)
    data = data_of(cohort, source)
    trainer = Trainer(
        cohort, source, data, engines.open_backend(cohort.engine, job_of(cohort, source, data), cohort.device)
    )
    seen: list[Window] = []
    advance = trainer.backend.advance
    monkeypatch.setattr(trainer.backend, "advance", lambda window: seen.append(window) or advance(window))
    snapshots, _ = trainer.run()
    assert [s.examples_seen for s in snapshots if s.model == 0] == [0, cohort.n_train, 2 * cohort.n_train]
    assert [s.epoch for s in snapshots if s.model == 1] == [0, 1, 2]
    for epoch, window in enumerate(seen):
        for m, run in enumerate(cohort.runs):
            places = epoch_order(run, epoch, source, data.examples[m])
            assert (window.rows[m] == data.rows[m][places]).all()
            assert (window.targets[m] == data.labels[m][places]).all()
            classes = data.clean[m][places]  # what the source says, not what noise made of it
            assert Counter(classes.tolist()) == dict.fromkeys(range(10), least)
    counts = snapshots[-1].metrics["train_count_per_class"]
    assert sum(counts) == len(source.train.labels)  # scored on all that may be drawn


@pytest.mark.slow
def test_a_balanced_zoo_is_verified_and_its_count_held_to_its_images(
    make_plan: Callable[..., Any], tmp_path: Any
) -> None:
    planned = make_plan("axes={}", "paired=[]", "replicates=2", "splits={train: 1}", "training.balance_classes=true")
    report = verify.verify(build(planned, tmp_path / "z", workers=0).root, retrain=9)
    assert report.problems == []


@pytest.mark.slow
def test_models_of_equal_epochs_and_unequal_sets_train_apart(make_plan: Callable[..., Any], tmp_path: Any) -> None:
    source = next(iter(make_plan("axes={}", "paired=[]", "replicates=1", "splits={train: 1}").sources.values()))
    most = int(np.bincount(source.train.labels).argmax())
    shares = [0.9 if c == most else 1.0 for c in range(10)]  # fewer of the commonest: the rarest is what it was
    planned = make_plan(
        f"axes={{subset: [full, {{class_shares: {shares}}}]}}", "paired=[]", "replicates=1", "splits={train: 1}",
        "training.balance_classes=true",
    )  # fmt: skip
    assert len({c.n_train for c in planned.cohorts}) == 1
    sizes = [{len(e.rows) for e in data_of(c, source).examples} for c in planned.cohorts]
    assert sorted(map(len, sizes)) == [1, 1]
    assert sizes[0] != sizes[1]
    with pytest.raises(BuildError, match=r"balanced"):
        dataclasses.replace(planned.cohorts[0], runs=planned.runs)
    assert verify.verify(build(planned, tmp_path / "z", workers=0).root, retrain=9).problems == []


def test_a_balanced_model_is_another_than_the_plain_one(make_plan: Callable[..., Any]) -> None:
    change = ("axes={}", "paired=[]", "replicates=1", "splits={train: 1}")
    plain, balanced = (make_plan(*change, *more) for more in ((), ("training.balance_classes=true",)))
    assert plain.runs[0].keys == balanced.runs[0].keys
    last = [worker.train(p.cohorts[0], next(iter(p.sources.values())))[0][-1] for p in (plain, balanced)]
    assert last[0].sha256 != last[1].sha256
