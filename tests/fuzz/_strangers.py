"""A tiny zoo, a stranger's copy of it, and everything that is done with a zoo that came from somebody else.

`prepare` builds; `copied` gives a fresh copy to change; `seal` makes the manifest agree again with the files and
with itself, as a forger would; `used` reads it in every way and says "refused" or "held".
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zoo_builder import build, grid, plan
from zoo_datasets import audit, open_zoo
from zoo_datasets.core import files
from zoo_datasets.core.records import Mismatch
from zoo_datasets.errors import ZooError
from zoo_datasets.format import check, manifest
from zoo_datasets.zoo import Zoo

RECIPE = """\
zoo: weightzoo/tiny
source: {id: digits, train: 40, validation: 20, test: 20}
axes:
  architecture:
    - [{conv: 2, kernel: 3}, batch_norm, activation, {max_pool: 2}, flatten, {linear: classes}]
    - [flatten, {linear: 3}, dropout, activation, {linear: classes}]
  subset: [full, {label_noise_frac: 0.2}]
replicates: 3
paired: [subset]
dropout: 0.2
training: {epochs: 1, batch_size: 16, lr: 1e-2}
snapshots: {epochs: [0, 1], optimizer: true}
"""
MOST_MESSAGE = 2_000  # characters; a user reads it
STEPS = 5  # of all that a reader does, in a trial: together they take a second


def prepare(folder: Path) -> None:
    """The tiny zoo: two architectures, optimizer state, three splits."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    build.build(plan.plan(grid.load(recipe)), folder / "pristine" / "weightzoo" / "tiny", workers=0)
    # What a zoo that nobody changed allows; and libraries are imported, for some seconds, before trials are timed.
    root = copied(folder)
    assert not check.check(root).problems
    for step in _reading(open_zoo(root), np.random.default_rng(0)):
        step()


def copied(folder: Path) -> Path:
    """A fresh copy of the zoo in the place of the last."""
    root = folder / "trial" / "weightzoo" / "tiny"
    shutil.rmtree(folder / "trial", ignore_errors=True)
    return Path(shutil.copytree(folder / "pristine" / "weightzoo" / "tiny", root))


def read(root: Path) -> Any:
    """The JSON value of its manifest."""
    return json.loads((root / "manifest.json").read_bytes())


def write(root: Path, value: Any, forged: bool) -> None:
    """The manifest, its digest recomputed where `forged`."""
    if forged and isinstance(value, dict):
        try:
            value = manifest.seal(value)
        except Mismatch:  # what no writer could have sealed
            pass
    (root / "manifest.json").write_text(json.dumps(value))


def seal(root: Path, digests: dict[str, str] | None = None) -> None:
    """Sizes and hashes of all files, and the manifest's own digest, as they are now."""
    value = read(root)
    value["files"] = [files.record(root, root / e["path"]) for e in value["files"]]
    value["digests"] |= digests or {}
    write(root, value, forged=True)


def used(root: Path, rng: np.random.Generator) -> str:
    """ "held" where all that a reader does worked, "refused" where our code said why not."""
    refusals: list[ZooError] = []

    def tried(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except ZooError as error:
            refusals.append(error)
            return None

    report = tried(lambda: check.check(root))
    zoo: Zoo | None = tried(lambda: open_zoo(root, verify=bool(rng.integers(2))))
    if zoo is not None:
        for step in _reading(zoo, rng)[:STEPS]:
            tried(step)
    for error in refusals:
        said = str(error)
        assert said, repr(error)
        assert len(said) < MOST_MESSAGE, said[:MOST_MESSAGE]
        said.encode()
    return "refused" if refusals or report is None or report.problems else "held"


def _reading(zoo: Zoo, rng: np.random.Generator) -> list[Callable[[], Any]]:
    """What a reader does, in the order of a draw."""

    def model() -> str:
        ids = zoo.models["model_id"].to_pylist()
        return str(ids[rng.integers(len(ids))])

    def batch() -> Any:
        return next(iter(zoo.loader(batch_size=2)), None)

    steps: list[Callable[[], Any]] = [
        lambda: repr(zoo),
        lambda: zoo.models,
        lambda: zoo.snapshots,
        lambda: zoo.weights[:],
        lambda: [zoo.weights[i] for i in rng.integers(0, max(1, len(zoo)), 3) if len(zoo)],
        lambda: [w[:] for _, w in zoo.weights.by_layout().values()],
        lambda: zoo.select(split="train").final().weights[:],
        lambda: [zoo.select(**{axis: levels[0]}) for axis, levels in zoo.axes.items() if levels],
        lambda: zoo.load_model(model()),
        lambda: zoo.state_dict(model()),
        lambda: zoo.architecture(model()),
        lambda: zoo.evaluate([model()]),
        lambda: zoo.to_hf(),
        lambda: audit.audit(None, zoo),
        batch,
    ]
    return [steps[i] for i in rng.permutation(len(steps))]
