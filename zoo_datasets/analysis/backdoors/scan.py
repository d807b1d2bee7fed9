"""A fitted detector and networks that nobody labelled → how suspect each is, and what the detector was trained to see.

In:  a detector that `analyze backdoors` kept, one safetensors file with its JSON; a zoo, or a state dict of one network in safetensors.
Out: for each network a score, a chance calibrated on networks that no weights were learned from, and the share of clean ones as suspect.

The chance is for as many trojaned networks as clean ones, of the kind that the words name: of another kind a low score is no proof.
It is calibrated on the validation split, so that the test split says nothing but how good the detector is. No weights are taken that
do not fit the layout the detector knows, or are no numbers; no file is unpickled, and a damaged one is refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.analysis.backdoors import reads
from zoo_datasets.analysis.backdoors.detectors import Detector
from zoo_datasets.analysis.backdoors.linear import two
from zoo_datasets.analysis.backdoors.population import Population, scanned
from zoo_datasets.analysis.backdoors.study import FALSE_ALARMS
from zoo_datasets.baselines import saved
from zoo_datasets.baselines.interface import MixedLayoutsError
from zoo_datasets.core import command, files
from zoo_datasets.core import tensors as saved_tensors
from zoo_datasets.errors import IntegrityError, ZooError, reason, shown, unknown
from zoo_datasets.networks import architecture
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.zoo import open_zoo

MOST_BYTES = 1 << 30  # of a state dict: no network of a zoo is near it
SHOWN = 20  # networks, the most suspect first
LEAST_SLOPE = 1e-6  # a calibration never turns the order round
LOWEST, BY_CHANCE, FEWEST_UNLIKE = 0.1, 1e-3, 5  # when scanned networks are called unlike those that the detector knows
FEWEST_CLEAN = 20  # networks, of which one is the 5 % that are called suspect
COLUMNS = pa.schema({
    "model_id": pa.string(), "score": pa.float64(), "chance": pa.float64(), "as_suspect": pa.float64(), "flagged": pa.bool_(),
})  # fmt: skip


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

    def predict(self, networks: Population, path: Path | None = None) -> dict[str, np.ndarray]:
        """Of n networks: `score`, `chance`, and `as_suspect`, the share of clean networks with at least that score.

        Raises ZooError for networks of another kind, IntegrityError where what was read from `path` is damaged.
        """
        try:
            score = self.detector.score(networks)
            if score.shape != (len(networks),) or not np.isfinite(score).all():
                raise ValueError("what it says of a network is no number")
        except ZooError:
            raise
        except saved.DAMAGE as error:
            raise IntegrityError(f"{path or 'What was read'} is no detector, or damaged: {reason(error)}.") from None
        reached = len(self.clean) - np.searchsorted(self.clean, score, side="left")
        return {
            "score": score, "chance": two(self.slope * score + self.intercept)[:, 1],
            "as_suspect": (1 + reached) / (1 + len(self.clean)),
        }  # fmt: skip

    def rebuild(self) -> None:
        """Take up what was read from a file. Raises ValueError, TypeError, … where it is none."""
        saved.check(self)
        for one in self.architectures:
            try:  # every shape follows from the layer before
                architecture.from_json(one.to_json(), one.layout, "its networks")
            except ZooError as error:
                raise ValueError(str(error)) from None
        if not self.architectures or not self.words:
            raise ValueError("it does not say what it learned from")
        value: Any = self.auc.get("value")
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ValueError(f"its AUC is {value!r}")
        if (
            self.clean.ndim != 1
            or self.clean.dtype.kind != "f"
            or not np.isfinite(self.clean).all()
            or (np.diff(self.clean) < 0).any()
        ):
            raise ValueError("its scores of clean networks are not ascending numbers")
        if not (math.isfinite(self.intercept) and LEAST_SLOPE <= self.slope < math.inf):
            raise ValueError(f"its calibration has slope {self.slope} and intercept {self.intercept}")
        self.detector.rebuild()


def held_out(p: Population) -> tuple[np.ndarray, str]:
    """Whom to calibrate on (n,) bool, and in words: the validation split, or the test split where that has few clean networks."""
    for split in ("validation", "test"):
        side = (p.split == split) & p.works
        clean = int((side & ~p.trojaned).sum())
        if clean >= FEWEST_CLEAN or split == "test":
            break
    words = f"Chances and flags are by {clean:,} clean networks of its {split} split"
    return side, words + (
        f", as its AUC is: the validation split has fewer than {FEWEST_CLEAN}." if split == "test" else "."
    )


def calibrated(
    detector: Detector, held: Population, auc: Mapping[str, Any], words: str, learned: Population | None = None
) -> Scanner:
    """The detector with a calibration from networks that it did not learn from: a logistic curve that rises.

    `learned` are those that it did learn from, whose layouts it knows; without them, those of `held`.
    """
    score, y = detector.score(held), held.trojaned
    slope, intercept = _curve(score, y)
    of = held if learned is None else learned
    used = tuple(of.architectures[i] for i in np.unique(of.architecture))
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

    trained = ""
    if "updates" in p.recipe.column_names:
        updates = [u for u, own in zip(p.recipe["updates"].to_pylist(), train, strict=True) if own]
        ends = f"{min(updates):,}" if min(updates) == max(updates) else f"{min(updates):,} to {max(updates):,}"
        trained = f" after {ends} updates"
    return (
        f"{kind}, learned from {int((train & ~p.trojaned).sum()):,} clean and {len(mine):,} trojaned networks of "
        f"{', '.join(zoos)}{trained}, whose attack works: triggers on {between('rate')} of the training images of {between('source')}, "
        f"opacity {between('opacity')}, to one of {len(set(mine.factors['target']))} targets. It knows no other kind of backdoor, "
        "no other training and no other data."
    )


# ── command line ──────────────────────────────────────────────────────────────────────


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("detector", metavar="DETECTOR", type=Path, help="a file that `analyze backdoors` kept")
    parser.add_argument(
        "networks", metavar="NETWORKS", help="a zoo (folder or owner/name), or a state dict in safetensors"
    )
    parser.add_argument(
        "--architecture", metavar="ID", help="of a state dict, where several that the detector knows have such tensors"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="all networks with their scores, as Parquet")


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows by falling score. Raises ZooError, IntegrityError."""
    return _scan(load(options.detector), options)[0]


def _scan(scanner: Scanner, options: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    """Rows by falling score, and how many networks have no row, for they cannot be read."""
    path = Path(options.networks)
    if path.suffix == ".safetensors" and not path.is_file():
        raise ZooError(f"There is no state dict at {path}.")
    if options.architecture is not None and not path.is_file():
        raise ZooError("--architecture is of a state dict; networks of a zoo have their own.")
    if path.is_file():
        networks = of_state_dict(path, scanner, options.architecture)
    else:
        networks = scanned(open_zoo(options.networks))
    _check_layouts(networks, scanner)
    readable = reads.readable(scanner.detector.reads, networks)
    networks = networks.take(readable)
    found = scanner.predict(networks, options.detector)
    rows: list[dict[str, Any]] = [
        {"model_id": str(networks.model[i]), **{k: float(v[i]) for k, v in found.items()}}
        for i in np.argsort(-found["score"], kind="stable")
    ]
    for row in rows:
        row["flagged"] = row["as_suspect"] <= FALSE_ALARMS if _can_flag(scanner) else None
    if options.out is not None:
        with files.atomic(options.out) as out:
            pq.write_table(pa.Table.from_pylist(rows, COLUMNS), out)
    return rows, int((~readable).sum())


def tell(options: argparse.Namespace) -> int:
    """Print what was found."""
    scanner = load(options.detector)
    rows, left_out = _scan(scanner, options)
    command.say(scanner.words)
    command.say(f"AUC {scanner.auc['value']:.3f} on its own test networks")
    command.say("network\tscore\tchance\tclean ones as suspect")
    for row in rows[:SHOWN]:
        flag = "suspect" if row["flagged"] else ""
        command.say(
            f"{row['model_id']}\t{row['score']:+.3f}\t{row['chance']:.3f}\t{row['as_suspect']:.3f}\t{flag}".rstrip()
        )
    if len(rows) > SHOWN:
        command.say(
            f"… and {len(rows) - SHOWN:,} with lower scores" + ("" if options.out else "; --out FILE keeps them all")
        )
    if left_out:
        command.say(
            f"Left out: {left_out:,} networks whose weights are no finite numbers, or do not move where they should"
        )
    if _can_flag(scanner):
        command.say(
            f"{sum(r['flagged'] for r in rows):,} of {len(rows):,} networks are suspect: they score as high as at most {FALSE_ALARMS:.0%} of clean "
            "ones do"
        )
    else:
        command.say(
            f"No network can be called suspect or not: that takes {math.ceil(1 / FALSE_ALARMS) - 1} clean networks to compare with, and the "
            f"detector has {len(scanner.clean)}. Let it learn from a zoo with more."
        )
    if said := unlike(np.array([r["as_suspect"] for r in rows])):
        command.say(said)
    return 0


def _can_flag(scanner: Scanner) -> bool:
    """Whether a network above all clean ones is rare enough: of few clean networks none can be."""
    return 1 / (1 + len(scanner.clean)) <= FALSE_ALARMS


def unlike(as_suspect: np.ndarray) -> str | None:
    """A sentence where networks (n,) score as neither clean nor trojaned ones of the detector's own do: lower than both.

    One in ten clean networks has nine in ten clean ones above it, and of trojaned ones fewer; many more are another training.
    """
    from scipy.stats import binom

    low = int((as_suspect >= 1 - LOWEST).sum())
    if len(as_suspect) < FEWEST_UNLIKE or binom.sf(low - 1, len(as_suspect), LOWEST) > BY_CHANCE:
        return None
    return (
        f"{low:,} of {len(as_suspect):,} score lower than {1 - LOWEST:.0%} of its clean networks do, where one in ten would: these were trained "
        "otherwise or on other data, and a low score says nothing of them"
    )


def load(path: Path) -> Scanner:
    """The scanner of a file. Raises ZooError where there is none, IntegrityError where it is something else."""
    if not path.is_file():
        raise ZooError(
            f"There is no detector at {path}. `analyze backdoors` keeps them in its folder: detectors/….safetensors."
        )
    found: Any = saved.load(path, "detector", "Take one that `analyze backdoors` kept.")
    if not isinstance(found, Scanner):
        raise IntegrityError(f"{path} holds a baseline of the benchmark, and no detector of backdoors.")
    return found


def of_state_dict(path: Path, scanner: Scanner, named: str | None = None) -> Population:
    """The one network of a file, its tensors named and shaped as those of a layout that the scanner knows.

    Tensors do not say all of a network: of several architectures that have these, `named` is the id of its own. Raises ZooError
    where it would have to be known, and is not.
    """
    steps = {t for a in scanner.architectures for t in a.step_tensors}
    tensors = saved_tensors.read(path, MOST_BYTES, steps.__contains__)
    fitting = [
        place
        for place, known in enumerate(scanner.architectures)
        if {n: tuple(np.shape(t)) for n, t in tensors.items() if n not in known.step_tensors}
        == {e.name: e.shape for e in known.layout}
    ]
    if fitting:
        layout = scanner.architectures[fitting[0]].layout
        with np.errstate(over="ignore"):
            vector = np.concatenate([tensors[e.name].astype(np.float32).ravel() for e in layout])
        if bad := int((~np.isfinite(vector)).sum()):
            raise ZooError(
                f"{bad:,} of the {len(vector):,} weights in {path} are no finite numbers: nothing can be read of them."
            )
        return _as_one_of(fitting, vector, path, scanner, named)
    shapes = {name: tuple(np.shape(t)) for name, t in tensors.items() if name not in steps}
    wanted = {e.name: e.shape for e in scanner.architectures[0].layout}
    wrong = {
        "it lacks": [n for n in wanted if n not in shapes],
        "it has beside": [n for n in shapes if n not in wanted],
        "of other shapes are": [
            f"{n} {list(s)}, not {list(wanted[n])}" for n, s in shapes.items() if wanted.get(n, s) != s
        ],
    }
    said = "; ".join(
        f"{what} {', '.join(map(shown, names[:4]))}{', …' if len(names) > 4 else ''}"
        for what, names in wrong.items()
        if names
    )
    raise MixedLayoutsError(f"{path} holds tensors of another layout than the detector knows: {said}.")


def _as_one_of(
    fitting: Sequence[int], vector: np.ndarray, path: Path, scanner: Scanner, named: str | None
) -> Population:
    """The network of these weights, and of that architecture; of any one that fits where the detector sees no difference."""
    known = {scanner.architectures[place].id: place for place in fitting}
    if named is not None and named not in known:
        raise ZooError(unknown("architecture", named, known, f"the detector, of tensors like those of {path}"))
    places = fitting if named is None else [known[named]]
    read = [Population.of_weights(scanner.architectures, np.array([at]), [vector], [path.name]) for at in places]
    if len(read) > 1 and len({float(scanner.predict(one)["score"][0]) for one in read}) > 1:
        of = [scanner.architectures[at] for at in places]
        shared = set.intersection(*({n.op for n in a.nodes} for a in of))
        listed = "; ".join(f"{a.id} ({_told_by(a, shared)})" for a in of)
        raise ZooError(
            f"{path} may be any of {len(of)} networks that the detector knows and reads differently, and tensors do not say which: {listed}. "
            "Name its own with --architecture."
        )
    return read[0]


def _told_by(architecture: Architecture, shared: Collection[str]) -> str:
    """What sets it apart: layers that others lack, or all of them in order."""
    own = [n.op for n in architecture.nodes]
    return ", ".join(dict.fromkeys(op for op in own if op not in shared)) or " ".join(own)


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
