"""A fitted detector and networks that nobody labelled → how suspect each is, and what the detector was trained to see.

In:  a detector that `analyze backdoors` kept, one safetensors file with its JSON; a zoo, or a state dict of one network in safetensors.
Out: for each network a score, a chance calibrated on networks that nothing was learned from, and the share of clean ones as suspect.

The chance is for as many trojaned networks as clean ones, of the kind that the words name: of another kind a low score is no proof.
No weights are taken that do not fit the layout the detector knows, and no file is unpickled.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.analysis.backdoors.detectors import Detector
from zoo_datasets.analysis.backdoors.linear import two
from zoo_datasets.analysis.backdoors.population import Population, scanned
from zoo_datasets.analysis.backdoors.study import FALSE_ALARMS
from zoo_datasets.baselines import saved
from zoo_datasets.baselines.interface import MixedLayoutsError
from zoo_datasets.core import command, files
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.zoo import open_zoo

MOST_BYTES = 1 << 30  # of a state dict: no network of a zoo is near it
SHOWN = 20  # networks, the most suspect first
LEAST_SLOPE = 1e-6  # a calibration never turns the order round


@dataclasses.dataclass
class Scanner:
    """A detector, its calibration, and what it was trained to see."""

    detector: Detector
    architectures: tuple[Architecture, ...]  # that it learned from
    words: str
    slope: float
    intercept: float
    clean: np.ndarray  # scores of clean networks that were not learned from, ascending
    auc: Mapping[str, Any]  # of the test split, with its interval

    def predict(self, networks: Population) -> dict[str, np.ndarray]:
        """Of n networks: `score`, `chance`, and `as_suspect`, the share of clean networks with at least that score."""
        score = self.detector.score(networks)
        reached = len(self.clean) - np.searchsorted(self.clean, score, side="left")
        return {
            "score": score, "chance": two(self.slope * score + self.intercept)[:, 1],
            "as_suspect": (1 + reached) / (1 + len(self.clean)),
        }  # fmt: skip

    def rebuild(self) -> None:
        """Take up what was read from a file."""
        self.detector.rebuild()


def calibrated(detector: Detector, held: Population, auc: Mapping[str, Any], words: str) -> Scanner:
    """The detector with a calibration from networks that it did not learn from: a logistic curve that rises."""
    score, y = detector.score(held), held.trojaned
    slope, intercept = _curve(score, y)
    used = tuple(held.architectures[i] for i in np.unique(held.architecture))
    return Scanner(detector, used, words, slope, intercept, np.sort(score[~y]), dict(auc))


def _curve(score: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of log odds, each class weighing one half, by Newton's steps with a small ridge on the slope."""
    center, spread = float(np.median(score)), float(score.std()) or 1.0
    x = np.column_stack([(score - center) / spread, np.ones(len(score))])
    weight = np.where(y, 0.5 / max(1, y.sum()), 0.5 / max(1, (~y).sum()))
    at, ridge = np.zeros(2), np.diag([1e-3, 1e-9])
    for _ in range(50):
        p = two(x @ at)[:, 1]
        gradient = x.T @ (weight * (p - y)) + ridge @ at
        step = np.linalg.solve((x * (weight * p * (1 - p))[:, None]).T @ x + ridge, gradient)
        at = at - np.clip(step, -2.0, 2.0)  # parted classes would send the slope to infinity at once
    slope = max(float(at[0]) / spread, LEAST_SLOPE)
    return slope, float(at[1]) - slope * center


def words_of(p: Population, zoos: list[str], kind: str) -> str:
    """What a detector was trained to see, in a sentence or two."""
    train = (p.split == "train") & p.works
    mine = p.take(train & p.trojaned)

    def between(name: str) -> str:
        levels = sorted(set(mine.factors[name].astype(str)), key=lambda v: (len(v), v))
        numbers = [float(v) for v in levels if v.replace(".", "", 1).isdigit()]
        return f"{min(numbers):g} to {max(numbers):g}" if len(numbers) == len(levels) and numbers else ", ".join(levels)

    return (
        f"{kind}, learned from {int((train & ~p.trojaned).sum()):,} clean and {len(mine):,} trojaned networks of "
        f"{', '.join(zoos)} whose attack works: triggers on {between('rate')} of the training images of {between('source')}, "
        f"opacity {between('opacity')}, to one of {len(set(mine.factors['target']))} targets. It knows no other kind of backdoor."
    )


# ── command line ──────────────────────────────────────────────────────────────────────


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("detector", metavar="DETECTOR", type=Path, help="a file that `analyze backdoors` kept")
    parser.add_argument(
        "networks", metavar="NETWORKS", help="a zoo (folder or owner/name), or a state dict in safetensors"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="all networks with their scores, as Parquet")


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows by falling score. Raises ZooError, IntegrityError."""
    scanner = load(options.detector)
    path = Path(options.networks)
    networks = of_state_dict(path, scanner) if path.is_file() else scanned(open_zoo(options.networks))
    _check_layouts(networks, scanner)
    found = scanner.predict(networks)
    rows: list[dict[str, Any]] = [
        {"model_id": str(networks.model[i]), **{k: float(v[i]) for k, v in found.items()}}
        for i in np.argsort(-found["score"], kind="stable")
    ]
    for row in rows:
        row["flagged"] = row["as_suspect"] <= FALSE_ALARMS
    if options.out is not None:
        with files.atomic(options.out) as out:
            pq.write_table(pa.Table.from_pylist(rows), out)
    return rows


def tell(options: argparse.Namespace) -> int:
    """Print what was found."""
    scanner = load(options.detector)
    rows = run(options)
    command.say(scanner.words)
    command.say(
        f"On its own test networks: AUC {scanner.auc['value']:.3f}; {len(scanner.clean):,} clean networks to compare with"
    )
    for row in rows[:SHOWN]:
        flag = "suspect" if row["flagged"] else ""
        command.say(
            f"{row['model_id']}\t{row['score']:+.3f}\t{row['chance']:.3f}\t{row['as_suspect']:.3f}\t{flag}".rstrip()
        )
    if len(rows) > SHOWN:
        command.say(
            f"… and {len(rows) - SHOWN:,} less suspect" + ("" if options.out else "; --out FILE keeps them all")
        )
    command.say(
        f"{sum(r['flagged'] for r in rows):,} of {len(rows):,} networks score as at most {FALSE_ALARMS:.0%} of clean ones do"
    )
    return 0


def load(path: Path) -> Scanner:
    """The scanner of a file. Raises ZooError where there is none, IntegrityError where it is something else."""
    if not path.is_file():
        raise ZooError(
            f"There is no detector at {path}. `analyze backdoors` keeps them in its folder: detectors/….safetensors."
        )
    found: Any = saved.load(path)
    if not isinstance(found, Scanner):
        raise IntegrityError(f"{path} holds a baseline of the benchmark, and no detector of backdoors.")
    return found


def of_state_dict(path: Path, scanner: Scanner) -> Population:
    """The one network of a file, its tensors named and shaped as those of a layout that the scanner knows. Raises ZooError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        tensors = from_bytes(files.read_bounded(path, MOST_BYTES))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} is no safetensors file, or damaged: {error}.") from None
    shapes = {name: tuple(np.shape(t)) for name, t in tensors.items()}
    for place, architecture in enumerate(scanner.architectures):
        if shapes == {e.name: e.shape for e in architecture.layout}:
            vector = np.concatenate([tensors[e.name].astype(np.float32).ravel() for e in architecture.layout])
            return Population.of_weights(scanner.architectures, np.array([place]), [vector], [path.name])
    wanted = {e.name: list(e.shape) for e in scanner.architectures[0].layout}
    raise MixedLayoutsError(
        f"{path} holds tensors of another layout than the detector knows: {json.dumps({k: list(v) for k, v in shapes.items()})[:400]}; "
        f"it needs {json.dumps(wanted)[:400]}."
    )


def _check_layouts(networks: Population, scanner: Scanner) -> None:
    known = {a.layout_id for a in scanner.architectures}
    strange = [
        a for a in (networks.architectures[i] for i in np.unique(networks.architecture)) if a.layout_id not in known
    ]
    if strange:
        raise MixedLayoutsError(
            f"A network has {strange[0].n_params:,} weights in layout {strange[0].layout_id}, and the detector learned from "
            f"{' and '.join(sorted(known))}; take a detector of that layout."
        )
