"""Random streams: pinned for ever by golden values, and statistically what they say."""

from __future__ import annotations

import hashlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from zoo_datasets.core import streams
from zoo_datasets.networks import augment
from zoo_datasets.networks.augmentation import Augmentation

KEY = "000102030405060708090a0b0c0d0e0f"
GOLDEN_INTEGERS = [0, 1, 2, 666, 296232699]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def sha(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


# --- keys ------------------------------------------------------------------------------


def test_keys_are_pinned() -> None:
    value = {"b": [2.5, "é"], "a": 1}
    assert streams.canonical_json(value) == '{"a":1,"b":[2.5,"é"]}'
    assert streams.stream_key(value) == "993a596f85e69c98594dbfaf7b03559e"
    assert streams.digest(value)[:32] == streams.stream_key(value)
    assert streams.key_words(KEY).tolist() == [0x0706050403020100, 0x0F0E0D0C0B0A0908]


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), JSON, max_size=5), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_digest_is_blind_to_the_order_of_keys_and_to_json(value: dict, random: object) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert streams.digest(dict(items)) == streams.digest(value) == streams.digest(json.loads(json.dumps(value)))


def test_a_tuple_is_a_list_and_one_is_not_true() -> None:
    assert streams.digest((1, 2)) == streams.digest([1, 2])
    assert len({streams.digest(v) for v in (1, 1.0, True, "1", None, [1])}) == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_is_no_json_number_has_no_digest(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        streams.digest(value)


# --- golden values ---------------------------------------------------------------------


def test_whole_numbers_are_pinned_and_below_their_bounds() -> None:
    below = np.array([1, 2, 10, 1000, 2**32 - 1])
    values = streams.integers(KEY, below)
    assert values.tolist() == GOLDEN_INTEGERS
    assert (values < below).all()
    top = streams.words(KEY, 5) >> np.uint64(32)
    assert values.tolist() == [int(t) * int(b) >> 32 for t, b in zip(top, below, strict=True)]
    counts = np.bincount(streams.integers(KEY, np.full(60_000, 6)))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_generator_depends_on_all_that_names_it() -> None:
    first = streams.generator("folds", 0).random(4)
    np.testing.assert_array_equal(streams.generator("folds", 0).random(4), first)
    assert not (streams.generator("folds", 1).random(4) == first).any()
    assert not (streams.generator("nulls", 0).random(4) == first).any()
    assert (
        np.random.Generator(np.random.Philox(key=streams.key_words(streams.stream_key(["folds", 0])))).random()
        == first[0]
    )


def test_words_are_pinned() -> None:
    assert streams.words(KEY, 6).tolist() == [
        0xC6B0E3774462A515, 0xF6118BF3E5642A4A, 0x4414049353C4384C, 0xAAB9ECCF6716022E,
        0x11A826FC4F64F289, 0xEF1B30ADAB1032DB,
    ]  # fmt: skip
    assert streams.words(KEY, 5, (3, 2, 1)).tolist() == [
        0xD5B2E8B0954DF37E, 0xB6E5C6E3B56CF1FC, 0x7829C2F4A05CD0FA, 0x40D7DD6D356645F1, 0x8455F1369787D45C,
    ]  # fmt: skip
    assert sha(streams.words(KEY, 1000, (1, 2, 3)).astype("<u8")) == (
        "edd2985341663c0233d44ccce36cc945ee2872beedeb1e7560197bd48551734d"
    )


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10, from the paper: what an implementation in another language does."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [b >> 64 ^ c[1] ^ k[0], b & 2**64 - 1, a >> 64 ^ c[3] ^ k[1], a & 2**64 - 1]
        k = [(k[0] + 0x9E3779B97F4A7C15) % 2**64, (k[1] + 0xBB67AE8584CAA73B) % 2**64]
    return c


def test_blocks_are_philox_of_the_counters_the_docstring_says() -> None:
    key = streams.key_words(KEY).tolist()
    expected = [word for block in (1, 2, 3) for word in philox([block, 3, 2, 1], key)]
    assert streams.words(KEY, 12, (3, 2, 1)).tolist() == expected


def test_uniforms_are_pinned() -> None:
    assert [x.hex() for x in streams.uniforms(KEY, 4).tolist()] == [
        "0x1.8d61c60000000p-1", "0x1.ec23160000000p-1", "0x1.1050100000000p-2", "0x1.5573d80000000p-1",
    ]  # fmt: skip
    assert sha(streams.uniforms(KEY, 1000).astype("<f8")) == (
        "154686cf1ed3be2dfd419a74c4cfef9645c6943b1cec155d603ca01fb50588f8"
    )


def test_normals_are_pinned() -> None:
    assert [x.hex() for x in streams.normals(KEY, 5).tolist()] == [
        "0x1.84b73500ffe9dp-1", "0x1.c3ccffe58f2ffp+0", "-0x1.40160046dcbc8p-1", "0x1.b9b87594f4479p-2",
        "-0x1.7bc60af50a701p+0",
    ]  # fmt: skip
    assert sha(streams.normals(KEY, 100_000).astype("<f8")) == (
        "baa502fb7abb1f2407779f3e44f3a9a5641110bd66e6930b230751ac56175680"
    )


def test_permutations_are_pinned() -> None:
    assert streams.permutation(KEY, 12).tolist() == [4, 7, 2, 8, 10, 6, 3, 11, 0, 9, 5, 1]
    assert streams.permutation(KEY, 12, 1).tolist() == [10, 5, 4, 7, 11, 0, 1, 6, 3, 9, 2, 8]
    assert sha(streams.permutation(KEY, 1000, 4).astype("<i8")) == (
        "d0b65f9a660637a463b4802ab3f3cd19405a1c80a473ef65e6a159b89412e90f"
    )


def test_dropout_is_pinned() -> None:
    assert streams.dropout_keep(KEY, 0.5, 7, 3, 3, 20).astype(int).tolist() == [
        [0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1],
        [0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0],
    ]
    assert sha(np.packbits(streams.dropout_keep(KEY, 0.25, 9, 1, 33, 50))) == (
        "c5857f95ce8d1d637629ba5510ed99c152d074675dd0aed2772c4c207991ef61"
    )


def test_augmentation_maps_are_pinned() -> None:
    everything = Augmentation(shift=2, crop=3, flip=True, noise=(0.5,))
    rows, columns = augment.maps(everything, KEY, 5, 3, 6, 6)
    assert rows.tolist() == [[-1, 0, 1, 2, 3, 2], [3, 2, 1, 0, 1, 2], [-1, 0, 1, 2, 3, 2]]
    assert columns.tolist() == [[2, 3, 4, 5, -1, -1], [3, 4, 5, -1, -1, -1], [3, 2, 1, 2, 3, 4]]
    assert [float(x).hex() for x in augment.noise(everything, KEY, 5, (1, 1, 2, 2)).ravel()] == [
        "0x1.f0d3300000000p-6", "-0x1.5909c20000000p-2", "-0x1.65b93e0000000p-2", "0x1.65b9540000000p-1",
    ]  # fmt: skip


# --- what they promise -----------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 50), st.integers(0, 50), st.tuples(*[st.integers(0, 2**64 - 1)] * 3))
def test_more_words_begin_with_the_fewer(few: int, more: int, hi: tuple[int, int, int]) -> None:
    n = min(few, more)
    np.testing.assert_array_equal(streams.words(KEY, few, hi)[:n], streams.words(KEY, more, hi)[:n])
    assert len(streams.words(KEY, few, hi)) == few


def test_keys_turns_and_uses_give_other_words() -> None:
    other = streams.stream_key("other")
    drawn = [
        streams.words(KEY, 4), streams.words(other, 4), streams.words(KEY, 4, (1, 0, 0)),
        streams.words(KEY, 4, (0, 1, 0)), streams.words(KEY, 4, (0, 0, streams.DROPOUT)),
        streams.words(KEY, 4, (0, 0, streams.AUGMENT)),
    ]  # fmt: skip
    assert len(set(np.concatenate(drawn).tolist())) == 24


def test_uniforms_are_exact_in_float32_and_uniform() -> None:
    u = streams.uniforms(KEY, 20_000)
    np.testing.assert_array_equal(u.astype(np.float32), u)
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01


def test_normals_are_the_inverse_normal_of_mid_points() -> None:
    random = np.random.default_rng(0).integers(0, 2**52, 5000).astype(np.float64)
    top53 = np.concatenate([random, 2.0 ** np.arange(52), [0, 2**52 - 2]])  # the lower half, exact as a probability
    z = streams._inverse_normal(top53)
    np.testing.assert_allclose(z, special.ndtri((2 * top53 + 1) * 2.0**-54), rtol=2e-15, atol=0)
    np.testing.assert_array_equal(streams._inverse_normal(2.0**53 - 1 - top53), -z)


def test_normals_are_normal() -> None:
    assert stats.kstest(streams.normals(KEY, 20_000), "norm").pvalue > 0.01


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 300), st.integers(0, 5))
def test_a_permutation_has_everything_once(n: int, turn: int) -> None:
    order = streams.permutation(KEY, n, turn)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_a_samples_dropout_depends_on_its_place_alone(units: int, batch: int, step: int) -> None:
    whole = streams.dropout_keep(KEY, 0.5, step, 2, batch + 3, units)
    np.testing.assert_array_equal(streams.dropout_keep(KEY, 0.5, step, 2, batch, units), whole[:batch])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
def test_dropout_drops_its_rate_and_more_where_the_rate_is_higher(rate: float) -> None:
    keep = streams.dropout_keep(KEY, rate, 0, 0, 100, 1000)
    deviation = (rate * (1 - rate) / keep.size) ** 0.5
    assert abs(1 - keep.mean() - rate) <= 4 * deviation + 2**-17
    assert not (streams.dropout_keep(KEY, 0.9995, 0, 0, 100, 1000) & ~keep).any()  # nested


def test_dropout_threshold_is_the_nearest_65536th() -> None:
    assert [streams.dropout_threshold(r) for r in (0.0, 0.5, 0.1, 1.0)] == [0, 32768, 6554, 65536]


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 12), st.integers(0, 11), st.integers(0, 11), st.booleans(), st.integers(0, 1000))
def test_augmentation_reads_pixels_of_the_image_or_the_fill(
    n: int, shift: int, crop: int, flip: bool, step: int
) -> None:
    shift, crop = min(shift, n - 1), min(crop, n - 1)
    rows, columns = augment.maps(Augmentation(shift, crop, flip), KEY, step, 7, n, n)
    for at in (rows, columns):
        assert at.shape == (7, n)
        assert at.min() >= -1
        assert at.max() < n
    if not shift:
        assert min(rows.min(), columns.min()) >= 0  # crop reflects, nothing is filled


def test_augmentation_of_zero_reach_leaves_every_pixel() -> None:
    rows, columns = augment.maps(Augmentation(), KEY, 0, 4, 5, 6)
    assert (rows == np.arange(5)).all()
    assert (columns == np.arange(6)).all()


def test_augmentation_moves_by_every_distance_and_flips_half() -> None:
    rows, _ = augment.maps(Augmentation(shift=2), KEY, 0, 500, 9, 9)
    assert np.unique(4 - rows[:, 4], return_counts=True)[0].tolist() == [-2, -1, 0, 1, 2]
    _, columns = augment.maps(Augmentation(flip=True), KEY, 0, 500, 9, 9)
    assert 200 < (columns[:, 0] == 8).sum() < 300


def test_a_stream_of_uniforms_gives_those_of_one_call() -> None:
    n = 3 * streams.UNIFORMS_AT_ONCE + 5
    assert list(itertools.islice(streams.uniform_stream(KEY), n)) == streams.uniforms(KEY, n).tolist()
