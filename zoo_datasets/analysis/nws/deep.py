"""The deep meta-classifier on a population: learned once for each question, kept on disk, asked about any window.

In:  a `Population`, properties, a `Division`, the size of the window. Out: `Learned`, and predictions (n, W, …) about
     W windows of each of n networks.

An epoch is one window of one random snapshot of each network; the published one is a window of each snapshot of the second
half. The epoch that validation networks like best is kept.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load, save

from zoo_datasets import split_files
from zoo_datasets.analysis.nws.divisions import Division
from zoo_datasets.analysis.nws.population import Population
from zoo_datasets.analysis.nws.properties import Property
from zoo_datasets.baselines import meta_classifier
from zoo_datasets.baselines.heads import Heads
from zoo_datasets.baselines.interface import Targets
from zoo_datasets.baselines.learning import Learned, Training, learn
from zoo_datasets.baselines.meta_classifier import MetaClassifier, Rows
from zoo_datasets.core import files, meters, streams

log = logging.getLogger("zoo_datasets")

# Raised with every change of how a meta-classifier learns: what was kept before is learned again.
VERSION = 1
VALIDATED = 4  # windows of each validation network, of random snapshots, that epochs are compared by
BATCH = 64  # windows of one network that are asked about together, as published


@dataclasses.dataclass(frozen=True)
class Deep:
    """How meta-classifiers are learned here, and where they are kept."""

    of: Population
    epochs: int
    batch: int
    folder: Path
    precision: str = "float32"  # of products

    def learned(
        self, properties: Sequence[Property], at: Division, window: int, seed: int, *, published: bool = False
    ) -> Learned:
        """One trunk with a head for each property."""
        values = np.stack([p.values for p in properties], 1)  # (M, K)
        targets = Targets(tuple(p.target for p in properties), values)
        training = self._training
        path = self.folder / f"{self._key(targets, at, window, seed, published, training)}.safetensors"
        choices = [self._choices(n, published) for n in at.train.tolist()]
        train = at.train if not published else np.repeat(at.train, list(map(len, choices)))
        if (known := _kept(path, targets.take(train), window, training, self.precision)) is not None:
            return known
        rows, rng = self.rows, streams.generator("nws validation", seed)
        each = choices if not published else [row[None] for c in choices for row in c]
        own = np.array([rng.choice(self._choices(n, published)) for n in np.repeat(at.validation, VALIDATED).tolist()])
        starts = rows.random(own, window, rng)
        what = f"meta-classifier of {window:,} weights, {at.name}, seed {seed}"
        with meters.track(what, self.epochs, "epochs") as meter:

            def tell(done: int, _of_all: int, score: float) -> None:
                meter.done = done
                log.debug("%s: epoch %d, validation %.4f", what, done, score)

            found, record = learn(
                lambda outputs: MetaClassifier(window, outputs, self.precision),
                (meta_classifier.drawn(rows, each, window), targets.take(train)),
                (meta_classifier.fixed(rows, own, starts, window), targets.take(np.repeat(at.validation, VALIDATED))),
                training, seed, progress=tell,
            )  # fmt: skip
        log.info("%s: best after epoch %d, validation %.4f", what, record["epoch"], record["score"])
        files.write_atomic(path, save({name: v.contiguous() for name, v in found.network.state_dict().items()}))
        return found

    def said(
        self, learned: Learned, snapshots: np.ndarray, starts: np.ndarray, window: int, batch_statistics: str = "",
        rows: Rows | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Property → (n, W) numbers or (n, W, classes) probabilities of the windows at `starts` (n, W).

        `batch_statistics`: "network" for batches of one network's windows, "mixed" for batches of windows of several.
        """
        n, count = starts.shape
        own, at = np.repeat(snapshots, count), starts.ravel()
        order = np.arange(len(own))
        if batch_statistics == "mixed":
            order = streams.permutation(streams.stream_key(["nws batches", len(own)]), len(own))
        batch = count if batch_statistics == "network" else BATCH
        inputs = meta_classifier.fixed(rows or self.rows, own[order], at[order], window)
        found = meta_classifier.ask(learned, inputs, len(own), batch, bool(batch_statistics))
        back = np.argsort(order)
        return {name: v[back].reshape(n, count, *v.shape[1:]) for name, v in found.items()}

    @property
    def rows(self) -> Rows:
        return Rows(self.of.vectors, self.of.orders)

    def steps(self, at: Division, published: bool = False) -> int:
        """Of one fit: an epoch meets each network once, or each snapshot of its second half."""
        windows = sum(len(self._choices(n, True)) for n in at.train.tolist()) if published else len(at.train)
        return self.epochs * -(-windows // self.batch)

    @property
    def _training(self) -> Training:
        return dataclasses.replace(meta_classifier.PUBLISHED, epochs=self.epochs, batch=self.batch)

    def _choices(self, network: int, published: bool) -> np.ndarray:
        own = self.of.snapshots[network]
        return own[len(own) // 2 :] if published else own

    def _key(self, targets: Targets, at: Division, window: int, seed: int, published: bool, training: Training) -> str:
        """What the file of a fit is called: all that it depends on."""
        zoos = [split_files.zoo_digest(z) for z in self.of.zoos]
        sides = [[self.of.ids[i] for i in side.tolist()] for side in (at.train, at.validation)]
        known = targets.values[np.concatenate([at.train, at.validation])]
        values = [[None if np.isnan(x) else float(x) for x in row] for row in known]
        asked = [[t.name, t.classes] for t in targets.of]
        how = dataclasses.asdict(training) | {"precision": self.precision}
        return streams.digest(["nws", VERSION, zoos, sides, asked, values, window, seed, published, how])[:24]


def _kept(path: Path, targets: Targets, window: int, training: Training, precision: str) -> Learned | None:
    """What was learned before; None where it was not, or its file is damaged."""
    if not path.exists():
        return None
    heads = Heads(targets, training.bounded, training.numbers)
    network = MetaClassifier(window, heads.outputs, precision)
    try:
        network.load_state_dict(load(path.read_bytes()))
    except Exception as error:  # whatever a damaged file raises: it is learned again
        log.warning("%s cannot be read (%s); it is learned again.", path, type(error).__name__)
        return None
    return Learned(network.eval(), heads, training.batch)


def moved(rows: Rows, vectors: Mapping[int, np.ndarray]) -> Rows:
    """The same snapshots, some of them with other vectors."""
    return Rows([vectors.get(i, v) for i, v in enumerate(rows.vectors)], rows.orders)
