"""Numbers, tables and figures → the files of an analysis.

Everything of one analysis lies in one folder: `numbers.json`, one Parquet file per table,
each figure as PNG and SVG. The JSON records what was analyzed, with which settings, seed and
versions: the same call on the same zoo gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.core import files, libraries
from zoo_datasets.core.jsonable import jsonable
from zoo_datasets.zoo import Zoo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERSIONS = ("numpy", "scipy", "scikit-learn", "matplotlib", "umap-learn", "CMGDB")
UNFINISHED = "unfinished.json"
DPI = 150  # of PNG files: 1,200 pixels across a figure of eight inches


class Results:
    """The folder an analysis writes to, with what it found so far in `numbers`."""

    def __init__(self, analysis: str, zoos: list[Zoo], settings: Mapping[str, Any], out: Path | None = None) -> None:
        # By default one folder per zoo and analysis, where the user works.
        self.folder = out or Path("analysis", zoos[0].name, analysis)
        self.written: list[Path] = []
        self.numbers: dict[str, Any] = {
            "analysis": analysis,
            "zoos": [identity(z) for z in zoos],
            "settings": dict(settings),
            "versions": libraries.versions(VERSIONS),
        }

    def table(self, name: str, table: pa.Table) -> None:
        """Keep a table as `name`.parquet."""
        with files.atomic(self._path(f"{name}.parquet")) as out:
            pq.write_table(table, out)

    def figure(self, name: str, figure: Figure) -> None:
        """Keep a figure as `name`.png and `name`.svg."""
        import matplotlib

        # Neither date nor random ids: the same figure, the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": name}):
            for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                with files.atomic(self._path(f"{name}.{kind}")) as out:
                    figure.savefig(out, format=kind, dpi=DPI, bbox_inches="tight", metadata=metadata)

    def save(self) -> None:
        """Write what is known so far to `unfinished.json`, which a study leaves that ends before its pictures."""
        files.write_json(self.folder / UNFINISHED, jsonable(self.numbers))

    def close(self) -> None:
        """Write `numbers.json`, last: it means that the rest is there. What is no finite number is null in it."""
        self.numbers = jsonable(self.numbers)
        files.write_json(self._path("numbers.json"), self.numbers)
        (self.folder / UNFINISHED).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = self.folder / name
        self.written.append(path)
        return path


def identity(zoo: Zoo) -> dict[str, Any]:
    """Name and digests: which bytes a number is of, wherever they lie."""
    return {"name": zoo.name, "digests": dict(zoo.manifest.digests)}


def flat(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table: an interval as its value and bounds."""
    flat = []
    for row in rows:
        out: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, Mapping) and "method" in value:
                out |= {
                    name: value["value"],
                    f"{name}_low": value["low"],
                    f"{name}_high": value["high"],
                    f"{name}_note": value["note"],
                }
            elif isinstance(value, Mapping):
                out |= {f"{name} {k}": v for k, v in value.items()}
            else:
                out[name] = value
        flat.append(out)
    names = list(dict.fromkeys(n for row in flat for n in row))
    return pa.table({n: pa.array([row.get(n) for row in flat]) for n in names})
