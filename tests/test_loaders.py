"""Batches: what a sample holds, how epochs are dealt out, and going on in the middle of one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_zoos import planted
from torch.utils.data import ConcatDataset, DataLoader

from zoo_datasets import loaders, weights
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


def test_whole_numbers_of_64_bits_with_gaps_are_selected_exactly_and_loaded(tmp_path: Path) -> None:
    seeds = [2**60, 2**60 + 1, None]
    zoo = planted(tmp_path / "seeds", 12, numbers=seeds)
    for seed in seeds:
        assert zoo.select(number=seed).models["number"].to_pylist() == [seed] * 4
    assert len(zoo.select(number=[2**60, None])) == 8 * 4
    with pytest.raises(ZooError, match="Unknown level of number"):
        zoo.select(number=2**60 + 2)
    assert len(zoo.select(pc.field("number") == 2**60 + 1)) == 4 * 4
    (batch,) = zoo.loader(48, ["number"], shuffle=False)
    assert batch["number"].isnan().sum() == 4 * 4


def test_lists_are_targets_where_torch_takes_them() -> None:
    """Of texts as lists; a null inside is refused by name."""
    assert loaders._target(pa.chunked_array([[["a", "b"], []]]), "names") == [["a", "b"], []]
    (numbers,) = loaders._target(pa.chunked_array([[[1, 2]]]), "numbers")
    assert numbers.tolist() == [1, 2]
    with pytest.raises(ZooError, match=r"'numbers' holds list<item: int64> with 1 nulls inside"):
        loaders._target(pa.chunked_array([[[1, None]]]), "numbers")


def test_mixed_layouts_are_lists_or_batches_of_one_layout(mixed_zoo: Zoo) -> None:
    ds = mixed_zoo.dataset(["n_params"])
    batch = ds.batch([0, 53, 20])
    assert [len(v) for v in batch["weights"]] == batch["n_params"].tolist()
    assert ds.batch([0])["weights"].shape == (1, batch["n_params"][0])
    sampler = LayoutBatches(mixed_zoo, 4, seed=1)
    batches = list(DataLoader(ds, batch_sampler=sampler, collate_fn=ds.collate))
    assert len(batches) == len(sampler)
    assert all(b["weights"].shape == (len(b["n_params"]), n) for b in batches for n in b["n_params"].tolist())
    assert sorted(seen(batches)) == sorted(v.tobytes() for v in mixed_zoo.weights[:])
    first = list(sampler)
    assert list(sampler) != first
    sampler.epoch = 1
    assert list(sampler) == first


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
    assert len(dealt[0]) == len(ranks[0]) >= 1
    batches = [seen([b]) for turn in zip(*dealt, strict=True) for b in turn]  # as the ranks see them, side by side
    full = len(zoo) // batch_size
    different = batches[: full // world_size * world_size or full if drop_last else -(-len(zoo) // batch_size)]
    assert batches[len(different) :] == different[: len(batches) - len(different)]  # dealt again
    whole = [v.tobytes() for v in zoo.weights[:]]
    found = [v for b in different for v in b]
    if drop_last:
        assert {len(b) for b in batches} == {batch_size}
        assert len(batches) == max(world_size, len(zoo) // batch_size // world_size * world_size)
        assert all(found.count(v) <= whole.count(v) for v in set(found))
    else:
        assert sorted(found) == sorted(whole)
        assert len(batches) - len(different) < world_size
    if not shuffle:
        assert found == whole[: len(found)]


def test_more_ranks_than_batches_leave_no_rank_without_one(zoo: Zoo) -> None:
    few = zoo.select(epoch=2).take(slice(0, 5))
    for drop_last in (False, True):
        for shuffle in (False, True):
            dealt = [
                list(WeightsStream(few, 4, rank=r, world_size=7, drop_last=drop_last, shuffle=shuffle))
                for r in range(7)
            ]
            assert [len(d) for d in dealt] == [1] * 7
            assert len({v for d in dealt for v in seen(d)}) == (4 if drop_last else 5)
    with pytest.raises(
        ZooError, match=r"`drop_last` leaves no batch: there are 5 rows.* batch_size=5 or drop_last=False"
    ):
        WeightsStream(few, 6, drop_last=True)
    nothing = zoo.take([])
    assert [len(list(WeightsStream(nothing, 4, drop_last=d, world_size=2))) for d in (False, True)] == [0, 0]


@pytest.mark.parametrize("shuffle", [False, True])
def test_no_row_is_left_out_for_ever(zoo: Zoo, shuffle: bool) -> None:
    some = zoo.select(epoch=[1, 2]).take(slice(0, 23))
    ranks = [WeightsStream(some, 4, rank=r, world_size=3, shuffle=shuffle, drop_last=True) for r in range(3)]
    epochs = [[v for r in ranks for v in seen(r)] for _ in range(12)]
    assert {len(e) for e in epochs} == {12}
    assert {v for e in epochs[: None if shuffle else 2] for v in e} == {v.tobytes() for v in some.weights[:]}


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
    for batch in (-1, 7):
        with pytest.raises(ZooError, match=f"at batch {batch} of an epoch of 6"):
            zoo.loader(8).load_state_dict(state | {"batch": batch})


def test_numpy_numbers_are_numbers(zoo: Zoo) -> None:
    loader, plain = zoo.loader(np.int64(8), seed=np.int64(1)), zoo.loader(8, seed=1)
    assert seen(loader) == seen(plain)
    assert json.loads(json.dumps(loader.state_dict())) == plain.state_dict()
    with pytest.raises(ZooError, match=r"batch_size 8\.0.*whole numbers are needed"):
        zoo.loader(8.0)  # type: ignore[arg-type]


def test_two_zoos_are_joined_by_torchs_own_dataset(zoo: Zoo) -> None:
    parts = [zoo.select(split=s).dataset("test_accuracy") for s in ("train", "test")]
    joined = DataLoader(ConcatDataset(parts), batch_size=len(parts[0]) + 2, collate_fn=parts[0].collate)
    assert seen(joined) == [v.tobytes() for p in parts for v in p.zoo.weights[:]]


@pytest.mark.parametrize(
    ("arguments", "message"), [({"batch_size": 0}, "batch_size is 0"), ({"batch_size": 1, "rank": 2}, "rank is 2 of 1")]
)
def test_senseless_arguments_are_refused(arguments: dict[str, Any], message: str, zoo: Zoo) -> None:
    with pytest.raises(ZooError, match=message):
        zoo.loader(**arguments)


def test_passes_are_epochs_and_a_said_epoch_stays(zoo: Zoo) -> None:
    counted, said = WeightsStream(zoo, 8), WeightsStream(zoo, 8)
    epochs = [seen(counted) for _ in range(3)]
    assert len({tuple(e) for e in epochs}) == 3
    for epoch in (2, 0, 0, 1):
        said.set_epoch(epoch)
        assert (said.epoch, seen(said), seen(said)) == (epoch, epochs[epoch], epochs[epoch])
    for sampler in (LayoutBatches(zoo, 8), LayoutBatches(zoo, 8, seed=1)):
        own = [list(sampler) for _ in range(3)]
        assert own[0] != own[1] != own[2] != own[0]
        sampler.set_epoch(1)
        assert (list(sampler), list(sampler)) == (own[1], own[1])
    for refuses in (said, sampler, zoo.loader(8)):
        with pytest.raises(ZooError, match="epoch is -1; expected 0 or more"):
            refuses.set_epoch(-1)


def test_ranks_part_batches_of_one_layout(mixed_zoo: Zoo) -> None:
    whole = list(LayoutBatches(mixed_zoo, 10))
    ranks = [LayoutBatches(mixed_zoo, 10, rank=r, world_size=4) for r in range(4)]
    dealt = [list(r) for r in ranks]
    assert {len(d) for d in dealt} == {len(ranks[0])} == {-(-len(whole) // 4)}
    flat = [b for turn in zip(*dealt, strict=True) for b in turn]
    assert (flat[: len(whole)], flat[len(whole) :]) == (whole, whole[: len(flat) - len(whole)])
    with pytest.raises(ZooError, match="rank is 4 of 4"):
        LayoutBatches(mixed_zoo, 10, rank=4, world_size=4)


def test_a_loader_goes_to_an_epoch_and_stays_in_its_middle(zoo: Zoo) -> None:
    loader, epochs = zoo.loader(8), [seen(zoo.loader(8))]
    next(iter(loader))
    loader.set_epoch(0)  # as a framework says after it has resumed
    assert seen(loader) == epochs[0][8:]
    next(iter(loader))
    loader.set_epoch(0)
    assert seen(loader) == epochs[0]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_who_counts_batches_gets_the_next_epoch_too(zoo: Zoo, workers: int) -> None:
    """Lightning stops at the length it was told, and does not ask for what comes after the last batch."""
    loader, plain = zoo.loader(8, workers=workers), zoo.loader(8)
    epochs = [seen(plain) for _ in range(3)]
    assert [seen(itertools.islice(loader, len(loader))) for _ in range(2)] == epochs[:2]
    state = loader.state_dict()
    assert state["batch"] == len(loader)
    assert seen(loader) == epochs[2]
    loader.load_state_dict(state)  # saved with the last batch: nothing is left of that epoch
    assert [seen(loader), seen(loader)] == [[], epochs[2]]


WORKERS: list[dict[str, Any]] = [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}]


@pytest.mark.slow
@pytest.mark.parametrize("options", WORKERS, ids=lambda options: "-".join(map(str, options.values())) or "none")
def test_epochs_in_a_loader_of_ones_own(zoo: Zoo, options: dict[str, Any]) -> None:
    wanted = [seen(plain) for plain in [WeightsStream(zoo, 5, seed=2)] for _ in range(4)]
    stream = WeightsStream(zoo, 5, seed=2)
    loader = DataLoader(stream, batch_size=None, **options)
    assert [seen(loader) for _ in range(2)] == wanted[:2]
    next(iter(loader))  # left in its first batch, perhaps before all workers have begun
    assert seen(loader) == wanted[3]
    for epoch in (1, 3, 3):
        stream.set_epoch(epoch)
        assert seen(loader) == wanted[epoch]
    sampler = LayoutBatches(zoo, 5, seed=2)
    ds = zoo.dataset()
    loader = DataLoader(ds, batch_sampler=sampler, collate_fn=ds.collate, **options)
    epochs = [seen(loader) for _ in range(3)]
    assert epochs[0] == seen([ds.batch(b) for b in LayoutBatches(zoo, 5, seed=2)])
    assert len({tuple(e) for e in epochs}) == 3
    sampler.set_epoch(1)
    assert seen(loader) == epochs[1]


def test_frameworks_find_what_they_call(zoo: Zoo) -> None:
    """Where they look: Lightning at `sampler` and `batch_sampler.sampler`, Accelerate at `batch_sampler` and `dataset` too."""
    ds = zoo.dataset()
    for loader in (
        DataLoader(ds, batch_sampler=LayoutBatches(zoo, 8), collate_fn=ds.collate),
        DataLoader(WeightsStream(zoo, 8), batch_size=None),
    ):
        first, second = seen(loader), seen(loader)
        batch_sampler: Any = loader.batch_sampler
        for epoch, wanted in ((1, second), (0, first)):
            (batch_sampler.sampler if batch_sampler else loader.dataset).set_epoch(epoch)
            assert seen(loader) == wanted


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


def test_a_hugging_face_dataset_of_one_layout_among_several_holds_its_matrix_alone(mixed_zoo: Zoo) -> None:
    sizes = {mixed_zoo.select(layout=name).weights.shape[1]: name for name in mixed_zoo.weights.layouts}
    assert sorted(sizes) == [98, 405]
    for n, name in sizes.items():
        part = mixed_zoo.select(layout=name).take([7, 3, 3])
        ds = part.to_hf(["step"])
        assert ds.features["weights"].length == part.weights.shape[1] == n
        assert ds.data.table["weights"].nbytes == 3 * n * 4
        assert np.array_equal(weights(ds)[:], part.weights[:])
    assert weights(mixed_zoo.take([]).to_hf()).shape[0] == 0


def test_a_hugging_face_dataset_of_weights_alone(zoo: Zoo) -> None:
    ds = zoo.select(epoch=2).to_hf([])
    assert ds.column_names == ["weights"]
    assert np.array_equal(weights(ds)[:], zoo.select(epoch=2).weights[:])
