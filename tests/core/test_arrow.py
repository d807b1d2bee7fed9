"""Arrow columns as NumPy and Python see them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from zoo_datasets.core import arrow


def test_whole_numbers_with_gaps_are_floats_and_round_beyond_what_these_hold() -> None:
    found = arrow.floats_of(pa.chunked_array([[2**60 + 1, None], [3]]))
    assert found.tolist()[::2] == [2.0**60, 3.0]
    assert np.isnan(found[1])
    assert arrow.floats_of(pa.chunked_array([], pa.int64())).tolist() == []


def test_values_that_differ_are_there_once_lists_too() -> None:
    assert arrow.distinct(pa.chunked_array([[2, None, 2], [1]])) == [2, None, 1]
    assert arrow.distinct(pa.chunked_array([[[1, 2], None, [1]], [[1, 2]]])) == [[1, 2], None, [1]]
