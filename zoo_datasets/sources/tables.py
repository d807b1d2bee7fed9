"""One split of a published dataset, as this room uses it: what we ask of `datasets.Dataset`, whose types no checker sees.

What stands in a column is a feature of `datasets`: an `Image`, a `ClassLabel`, a `Value`, lists of them. `columns` tells
which; to all others it is an `object`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Table(Protocol):
    """Rows of named columns."""

    @property
    def features(self) -> Mapping[str, object]:
        """Column → its feature. A copy at every call: ask once."""

    @property
    def column_names(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> Any:
        """The rows as the format makes them: a `pyarrow.Table`, or column → values."""

    def select_columns(self, column_names: list[str]) -> Table:
        """The same rows with these columns alone."""

    def cast_column(self, column: str, feature: object) -> Table:
        """The same rows, one column as another feature."""

    def with_format(self, type: str) -> Table:
        """The same rows, which come out as `arrow` or `numpy`."""
