"""Runs → cohorts: what is trained together, by which engine. Pure.

In:  runs in plan order, and what their sources say about shapes and numbers of images.
Out: cohorts in plan order. Runs of one cohort have the same architecture, batch schedule
(batch size and number of training images), loss, augmentation, source and trigger patch;
everything else may differ. A cohort's size is a constant of the recipe, so that membership
never depends on the hardware, and its id is a hash of everything its numbers depend on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from zoo_builder.engines.contract import Augmentation
from zoo_builder.grid import RECIPE_VERSION
from zoo_builder.planning import runs as runs_module
from zoo_builder.planning.runs import Run
from zoo_datasets import sources
from zoo_datasets.core import streams
from zoo_datasets.errors import GridError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.layers import build_architecture


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Runs trained together: an execution detail that no result may depend on."""

    id: str  # SHA-256 of everything below
    runs: tuple[Run, ...]
    architecture: Architecture
    n_train: int  # training images of each model
    engine: str
    device: str  # "cpu" or "cuda": which numbers come out, never how many devices there are
    source_sha256: str

    @property
    def batch_size(self) -> int:
        return int(self.runs[0].settings["batch_size"])

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.n_train // self.batch_size)

    @property
    def stream_step(self) -> int:
        """Where the streams of these models stand when they begin: 0, or where their parents' were."""
        start = self.runs[0].start
        return start.passes * self.steps_per_epoch + start.inside if start else 0

    @property
    def steps(self) -> list[int]:
        """The budget of each run, in updates."""
        return [runs_module.total_steps(r, self.n_train) for r in self.runs]


def group(
    planned: list[Run],
    size: int,
    source_of: Callable[[sources.SourceSpec], sources.Source],
    choose: Callable[[Architecture, str, Augmentation], str],
    device: str,
) -> list[Cohort]:
    """Cohorts in the plan order of their first runs. Raises GridError where shapes do not fit."""
    members: dict[str, list[Run]] = {}
    facts: dict[str, tuple[Architecture, int, str]] = {}
    known: dict[str, tuple[str, tuple[Architecture, int, str]]] = {}
    for run in planned:
        # What is alike does not depend on the stream keys or the optimizer: work it out once.
        shape = streams.digest([run.settings.get(name) for name in _SHAPE])
        if shape not in known:
            source = source_of(run.source)
            sources.check_subset(run.subset, source.n_classes, source.train.labels, source.input_shape)
            found = (architecture(run, source), n_train(run, source), source.sha256)
            _check_batch_norm(run, *found[:2])
            _check_stop_rule(run, source)
            known[shape] = (streams.digest([*map(str, found[1:]), found[0].id, *_alike(run)]), found)
        key, found = known[shape]
        if run.start is not None:
            _check_start(run, *found[:2])
            key = streams.digest([key, run.start.passes, run.start.inside])
        facts[key] = found
        members.setdefault(key, []).append(run)
    made = []
    for key, group_runs in members.items():
        for start in range(0, len(group_runs), size):
            chunk = tuple(group_runs[start : start + size])
            arch, n, sha = facts[key]
            loss, augmentation = chunk[0].settings["loss"], augmentation_of(chunk[0], source_of(chunk[0].source))
            made.append(make(chunk, arch, n, choose(arch, loss, augmentation), device, sha))
    order = {run.id: i for i, run in enumerate(planned)}
    return sorted(made, key=lambda c: order[c.runs[0].id])


_DATA = ("source", "source_config", "source_train", "source_validation", "source_test", "scale", "source_mean",
         "source_std", "resize", "channels", "image_column", "label_column", "source_features",
         "source_split_seed")  # fmt: skip
_AUGMENT = ("augment_shift", "augment_crop", "augment_flip", "augment_noise_std")
_PATCH = ("trigger_size", "trigger_value", "trigger_position", "rotate_degrees")
_SHAPE = (*_DATA, *_AUGMENT, *_PATCH, "architecture", "activation", "batch_size", "loss", "subset_frac",
          "subset_classes", "subset_relabel", "label_noise_frac", "trigger_frac", "trigger_target")  # fmt: skip


def _alike(run: Run) -> list[Any]:
    """What all runs of a cohort share besides architecture, number of images and source."""
    relabelled = run.settings["subset_classes"] if run.settings["subset_relabel"] else None
    return [relabelled, *(run.settings.get(k) for k in (*_DATA, *_AUGMENT, *_PATCH, "batch_size", "loss"))]


def make(chunk: tuple[Run, ...], arch: Architecture, n: int, engine: str, device: str, source_sha256: str) -> Cohort:
    """A cohort of these runs in this order, with its id."""
    spec = {
        "recipe_version": RECIPE_VERSION,
        "runs": [[r.id, dict(r.keys)] for r in chunk],
        "architecture": arch.id,
        "layout": arch.layout_id,
        "n_train": n,
        "engine": engine,
        "device": device,
        "source_sha256": source_sha256,
    }
    return Cohort(streams.digest(spec), chunk, arch, n, engine, device, source_sha256)


def architecture(run: Run, source: sources.Source) -> Architecture:
    """The run's architecture on its source. Raises GridError naming layer and shapes."""
    s = run.settings
    n_classes = len(s["subset_classes"]) if s["subset_relabel"] and s["subset_classes"] else source.n_classes
    return build_architecture(s["architecture"], source.input_shape, n_classes, s["activation"])


def n_train(run: Run, source: sources.Source) -> int:
    """Training images of the run. Raises GridError where its data axes do not fit the source."""
    labels = source.train.labels
    return len(sources.training_examples(labels, source.n_classes, run.subset, run.keys["subset"]).rows)


def _check_batch_norm(run: Run, arch: Architecture, n: int) -> None:
    """Raises GridError where a batch would hold one value per channel: it has no variance."""
    batch = run.settings["batch_size"]
    if min(batch, n) > 1 and n % batch != 1:
        return
    for node in arch.nodes:
        if node.op == "batch_norm" and math.prod(node.shape[1:]) == 1:
            raise GridError(
                f"{node.name}: {n} training images in batches of {batch} leave a last batch of one, and batch norm over "
                f"shape {node.shape} needs two. Use another `batch_size` or number of training images."
            )


def _check_start(run: Run, arch: Architecture, n: int) -> None:
    """Raises GridError where a run cannot go on from its parent's snapshot."""
    start = run.start
    assert start is not None
    assert start.place is not None
    if start.place[1] != arch.layout_id:
        raise GridError(
            f"Model {start.model_id} of {start.zoo} has weights of layout {start.place[1]}; this recipe's architecture on "
            f"{run.settings['source']} has layout {arch.layout_id} ({arch.n_params:,} values). Both must have the same "
            "layers with weights, in the same sizes."
        )
    if start.inside and start.batches != (n, run.settings["batch_size"]):
        raise GridError(
            f"Model {start.model_id} of {start.zoo} stands inside an epoch of {start.batches}  images and batch size, and "
            f"this run has ({n}, {run.settings['batch_size']}). Start at the end of an epoch, or keep both."
        )


def _check_stop_rule(run: Run, source: sources.Source) -> None:
    """Raises GridError where a stop rule would have no validation image to look at."""
    for name in ("target_loss", "patience"):
        if run.settings[name] is not None and not len(source.validation.labels):
            raise GridError(f"`{name}` looks at validation images, and the source has none; ask for some.")


def augmentation_of(run: Run, source: sources.Source) -> Augmentation:
    """The run's augmentation in scaled units. Raises GridError where it does not fit the input."""
    s = run.settings
    shape = source.input_shape
    moves = s["augment_shift"] or s["augment_crop"] or s["augment_flip"]
    if moves and len(shape) != 3:
        raise GridError(f"Augmentation shift, crop and flip need images; the source {s['source']} has shape {shape}.")
    if moves and max(s["augment_shift"], s["augment_crop"]) >= min(shape[1:]):
        raise GridError(
            f"Augmentation moves by up to {max(s['augment_shift'], s['augment_crop'])} pixels; {shape} has fewer."
        )
    # scaled = (raw / peak − mean) / std: black is −mean/std, and noise on 0–1 grows by 1/std.
    pairs = list(zip(source.mean, source.std, strict=True))
    noise = tuple(s["augment_noise_std"] / std for _, std in pairs) if s["augment_noise_std"] else ()
    fill = tuple(-mean / std for mean, std in pairs)
    return Augmentation(s["augment_shift"], s["augment_crop"], s["augment_flip"], noise, fill)
