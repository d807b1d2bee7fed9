"""The streams below Python are those of streams.py, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from zoo_datasets.core import streams
from zoo_datasets.networks import kernels

if kernels.missing():
    pytest.skip(f"no native engine: {kernels.missing()}", allow_module_level=True)

KEY = streams.stream_key("golden")


def key_words() -> tuple[int, int]:
    return tuple(int(k) for k in streams.key_words(KEY))


def test_philox_of_zero_is_random123s_published_answer():
    # kat_vectors of Random123: philox4x64 10, counter and key all zero.
    assert kernels._kernels.philox(0, 0, 0, 0, 0, 0) == [
        0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B,
    ]  # fmt: skip


def test_words_are_numpys():
    hi = (5, 3, streams.DROPOUT)
    expected = streams.words(KEY, 40, hi).reshape(10, 4)
    for i in range(10):
        assert kernels._kernels.philox(*key_words(), i + 1, *hi) == expected[i].tolist()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 0.123456])
@pytest.mark.parametrize("units", [1, 15, 16, 17, 100])
def test_dropout_bits_are_those_of_streams(rate, units):
    expected = streams.dropout_keep(KEY, rate, 12, 3, 24, units)  # (24, units)
    for first in (0, 8, 16):
        bits = np.zeros(units, np.uint8)
        kernels._kernels.dropout_bits(*key_words(), streams.dropout_threshold(rate), 12, 3, first, bits)
        found = np.unpackbits(bits[:, None], axis=1, bitorder="little").T.astype(bool)  # (8, units)
        assert (found == expected[first : first + 8]).all()


def test_normals_are_those_of_streams():
    corners = np.array([0, 1, 2**11, 2**64 - 1, 2**63, 2**63 - 1, 2**40], np.uint64)
    words = np.concatenate([corners, streams.words(KEY, 20_000)])
    out = np.empty(len(words))
    kernels._kernels.normals(words, out)
    expected = streams._inverse_normal((words >> np.uint64(11)).astype(np.float64))
    assert out.tobytes() == expected.tobytes()
