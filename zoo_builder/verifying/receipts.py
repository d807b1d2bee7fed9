"""Two manifests of one recipe, this machine's and a receipt → are they the same zoo?

Equal content digests are said so. Where they differ, and other engines, versions or instruction sets can be
the reason, what must be the same everywhere is compared bit for bit, and the rest within rounding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo_builder.training import fingerprint
from zoo_datasets.core.report import Report
from zoo_datasets.errors import IntegrityError
from zoo_datasets.format import schema
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.manifest_parts import EngineRecord
from zoo_datasets.format.tables import read_table
from zoo_datasets.networks import kernels

# Two builds share every initialization, so the spread over init groups is no measure of how near they come; and
# of few groups it may be anything. A hundredth is two images of the smallest test set here.
LEAST_DISTANCE = 0.01


def compare(
    ours: Manifest, theirs: Manifest, settings: Callable[[str], Mapping[str, Any]], root: Path | None = None
) -> Report:
    """What differs between a zoo built here, in `root`, and a receipt; `settings` are those of a model."""
    report = Report()
    names = list(ours.digests)
    other = [name for name in names if theirs.digest(name) != ours.digest(name)]
    here, there = _named(ours.engines), _named(theirs.engines)
    if not other:
        report.lines.append(f"equal: all content digests ({', '.join(names)}); {_trained(ours, here, there)}")
        return report
    if other == ["models_rows"] and root is not None and _as_theirs(root, ours, theirs) == theirs.digest("models_rows"):
        report.lines.append(
            f"equal: all weights, snapshots and rows, bit for bit; only the columns that name the engine differ: {here} here, "
            f"{there} in the receipt"
        )
        return report
    if ours.engines == theirs.engines and all(e.engine == "native" for e in ours.engines):
        report.problems += [
            f"content digest `{n}` is {ours.digest(n)[:16]}…, the receipt says {theirs.digest(n)[:16]}…" for n in other
        ]
        report.lines.append(f"compared: content digests ({', '.join(names)}); {_trained(ours, here, there)}")
        return report
    why = "PyTorch's libraries choose by the processor too" if ours.engines == theirs.engines else "bits cannot agree"
    report.lines.append(f"built here with {here}; the receipt is of {there}: {', '.join(other)} differ ({why})")
    _within_rounding(ours, theirs, settings, report)
    if not report.problems:
        report.lines.append("equal within rounding, as other engines, libraries or instruction sets give")
    return report


def _within_rounding(
    ours: Manifest, theirs: Manifest, settings: Callable[[str], Mapping[str, Any]], report: Report
) -> None:
    a, b = ([dataclasses.asdict(f) for f in m.fingerprints] for m in (ours, theirs))
    report.problems += fingerprint.differences(a, b, settings)
    report.lines.append(
        f"compared: initialization, examples and order of {len(b)} models bitwise, their first {fingerprint.STEPS} steps "
        "within rounding" + _tolerances(a, settings)
    )
    for name in ("axes", "factors", "counts", "layouts", "architectures", "sources"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if name == "counts":  # how many diverge, and when a rule stops them, is a matter of rounding
            mine, other = mine.models, other.models
        if mine != other:
            report.problems.append(f"`{name}` of the receipt are not what its recipe gives")
    _accuracies(ours, theirs, report)
    report.lines.append("not compared: single rows and weights, of which a receipt holds digests alone")


def _tolerances(prints: Sequence[Mapping[str, Any]], settings: Callable[[str], Mapping[str, Any]]) -> str:
    used = {settings(f["model_id"])["optimizer"]: fingerprint.allowed(settings(f["model_id"])) for f in prints}
    return "".join(f"; {optimizer}: {text}" for optimizer, text in used.items())


def _accuracies(ours: Manifest, theirs: Manifest, report: Report) -> None:
    a, b = ours.population, theirs.population
    if a is None or b is None:
        report.lines.append("not compared: mean test accuracy, which the receipt does not hold (`population`)")
        return
    error = float(np.hypot(a.standard_error or 0.0, b.standard_error or 0.0))
    bound, distance = max(3 * error, LEAST_DISTANCE), abs(a.test_accuracy - b.test_accuracy)
    report.lines.append(
        f"compared: mean test accuracy {a.test_accuracy:.4f} here, {b.test_accuracy:.4f} there, ± {error:.4f}"
    )
    if not distance <= bound:
        report.problems.append(
            f"mean test accuracies differ by {distance:.4f}, more than {bound:.4f} (three standard errors, or "
            f"{LEAST_DISTANCE:g} where these are smaller)"
        )


def _as_theirs(root: Path, ours: Manifest, theirs: Manifest) -> str | None:
    """The digest of our `models` with the engine that the receipt names, where it names one of ours under other libraries."""
    if len(theirs.engines) != 1 or {e.engine for e in ours.engines} != {theirs.engines[0].engine}:
        return None
    try:
        table = read_table(root, ours, "models")
    except IntegrityError:
        return None
    for name, value in (("engine_version", theirs.engines[0].version), ("isa", theirs.engines[0].isa)):
        at = table.column_names.index(name)
        field = table.schema.field(name)
        table = table.set_column(at, field, [[value] * len(table)])
    return schema.rows_digest(table)


def _named(engines: Sequence[EngineRecord]) -> str:
    return "; ".join(", ".join(filter(None, (e.engine, e.version, e.isa))) for e in engines) or "no engine"


def _trained(ours: Manifest, here: str, there: str) -> str:
    """Who trained what; of `native`, whose bits are the same in each, also the build of the kernels."""
    text = f"built here with {here}; the receipt is of {there}"
    if any(e.engine == "native" for e in ours.engines) and not kernels.missing():
        text += f" (kernels here: {kernels.build()}; all builds give the same bits)"
    return text
