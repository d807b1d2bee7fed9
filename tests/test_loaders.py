"""Batches: what a sample holds, how epochs are dealt out, and going on in the middle of one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from zoo_datasets import weights
from zoo_datasets.errors import ZooError
from zoo_datasets.loaders import LayoutBatches, WeightsStream
from zoo_datasets.zoo import Zoo

pytest_plugins = ("reader_fixtures",)
TARGETS = ("test_accuracy", "step", "activation", "augment_flip", "test_correct_per_class")


def seen(batches: Any) -> list[bytes]:
    return [v.numpy().tobytes() for b in batches for v in b["weights"]]


def test_a_batch_holds_weights_and_targets_in_their_types(zoo: Zoo) -> None:
    ds = zoo.dataset(TARGETS)
    [batch] = DataLoader(ds, batch_size=48, collate_fn=ds.collate)
    assert batch["weights"].numpy().tobytes() == zoo.weights[:].tobytes()
    assert batch["test_accuracy"].dtype == torch.float32
    assert batch["step"].tolist() == zoo.column("step").to_pylist()
    assert batch["activation"] == zoo.column("activation").to_pylist()
    assert batch["augment_flip"].dtype == torch.bool
    assert [t.tolist() for t in batch["test_correct_per_class"]] == zoo.column("test_correct_per_class").to_pylist()


def test_the_default_collate_gives_the_same(zoo: Zoo) -> None:
    ds = zoo.dataset(("test_accuracy", "activation"))
    ours, default = next(iter(DataLoader(ds, 8, collate_fn=ds.collate))), next(iter(DataLoader(ds, 8)))
    assert ours["activation"] == default["activation"]
    assert all(torch.equal(ours[k], default[k]) for k in ("weights", "test_accuracy"))


def test_a_missing_number_is_nan_and_a_missing_text_is_refused(zoo: Zoo) -> None:
    assert zoo.dataset(["diverged_step"])[0]["diverged_step"].isnan()
    with pytest.raises(ZooError, match="Unknown column 'accuracy'"):
        zoo.dataset(["accuracy"])


def test_mixed_layouts_are_lists_or_batches_of_one_layout(mixed_zoo: Zoo) -> None:
    ds = mixed_zoo.dataset(["n_params"])
    batch = ds.batch([0, 53, 20])
    assert [len(v) for v in batch["weights"]] == batch["n_params"].tolist()
    sampler = LayoutBatches(mixed_zoo, 4, seed=1)
    batches = list(DataLoader(ds, batch_sampler=sampler, collate_fn=ds.collate))
    assert len(batches) == len(sampler)
    assert all(len(set(b["n_params"].tolist())) == 1 for b in batches)
    assert sorted(seen(batches)) == sorted(v.tobytes() for v in mixed_zoo.weights[:])
    first = list(sampler)
    sampler.epoch = 1
    assert list(sampler) != first


@given(
    batch_size=st.integers(1, 20),
    world_size=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=40)
def test_ranks_part_an_epoch_without_overlap(
    zoo: Zoo, batch_size: int, world_size: int, shuffle: bool, drop_last: bool, seed: int
) -> None:
    options: dict[str, Any] = {"shuffle": shuffle, "drop_last": drop_last, "seed": seed, "world_size": world_size}
    ranks = [WeightsStream(zoo, batch_size, rank=r, **options) for r in range(world_size)]
    dealt = [list(r) for r in ranks]
    assert len({len(d) for d in dealt}) == 1
    assert len(dealt[0]) == len(ranks[0])
    found = [v for d in dealt for v in seen(d)]
    whole = [v.tobytes() for v in zoo.weights[:]]
    left_out = len(whole) - len(found)
    assert left_out < batch_size * world_size + (batch_size if drop_last else 0)
    assert all(found.count(v) <= whole.count(v) for v in set(found))
    if world_size == 1 and not shuffle:
        assert found == whole[: len(found)]


@given(st.integers(0, 7), st.integers(0, 2))
@settings(deadline=None, max_examples=20)
def test_a_loader_goes_on_in_the_middle_of_an_epoch(zoo: Zoo, taken: int, epoch: int) -> None:
    first = zoo.loader(7, seed=3)
    for _ in range(epoch):
        list(first)
    batches = iter(first)
    for _ in range(taken):
        next(batches)
    state = json.loads(json.dumps(first.state_dict()))
    again = zoo.loader(7, seed=3)
    again.load_state_dict(state)
    assert seen(again) == seen(batches)
    assert seen(again) == seen(first)  # and both begin the next epoch alike


def test_epochs_differ_and_repeat_by_their_seed(zoo: Zoo) -> None:
    one, two, other = zoo.loader(8), zoo.loader(8), zoo.loader(8, seed=1)
    epochs = [seen(one), seen(one)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert [seen(two), seen(two)] == epochs
    assert seen(other) != epochs[0]


def test_a_state_of_other_batches_is_refused(zoo: Zoo) -> None:
    state = zoo.loader(8).state_dict()
    with pytest.raises(ZooError, match="batch_size 8, this one has 9"):
        zoo.loader(9).load_state_dict(state)
    with pytest.raises(ZooError, match="rows"):
        zoo.select(epoch=1).loader(8).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"batch_size": 0}, "batch_size is 0"), ({"batch_size": 1, "rank": 2}, "rank is 2 of 1")]
)
def test_senseless_arguments_are_refused(arguments: dict[str, Any], message: str, zoo: Zoo) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.loader(**arguments)


@pytest.mark.slow
def test_workers_change_neither_batches_nor_their_order(zoo: Zoo) -> None:
    plain, worked = zoo.loader(5, TARGETS[:2]), zoo.loader(5, TARGETS[:2], workers=2)
    next(iter(plain)), next(iter(worked))
    assert plain.state_dict() == worked.state_dict()
    assert seen(worked) == seen(plain)


def test_a_hugging_face_dataset_shares_the_shards(zoo: Zoo) -> None:
    part = zoo.select(epoch=[0, 2])
    ds = part.to_hf(["model_id", "test_accuracy", "n_train"])
    assert ds.column_names == ["model_id", "test_accuracy", "n_train", "weights"]
    assert ds["n_train"][:] == part.column("n_train").to_pylist()
    assert np.array_equal(np.array(ds[3]["weights"], np.float32), part.weights[3])
    assert np.array_equal(weights(ds)[:], part.weights[:])
    assert np.shares_memory(weights(zoo.to_hf())[0:3], zoo.weights[0:3])


def test_a_hugging_face_dataset_of_mixed_layouts_holds_lists(mixed_zoo: Zoo) -> None:
    ds = mixed_zoo.select(epoch=1).to_hf(["model_id"])
    assert [len(v) for v in ds["weights"][:]] == mixed_zoo.select(epoch=1).column("n_params").to_pylist()
    assert all(np.array_equal(a, b) for a, b in zip(weights(ds)[:], mixed_zoo.select(epoch=1).weights[:], strict=True))
