"""Runs → cohorts: what is trained together, by which engine. Pure.

In:  runs in plan order, and what their sources say about shapes and numbers of inputs.
Out: cohorts in plan order. What an engine is given once for all models of a cohort is theirs in
common: every setting that feeds it (`settings.ALIKE`), the architecture, the number of training
inputs, the numbering of classes, and where streams that go on stand. A `Cohort` of runs that
differ in it cannot be made. Everything else may differ. A cohort's size is a constant of the
recipe, so that membership never depends on the hardware, and its id is a hash of everything its
numbers depend on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo_builder.grid import RECIPE_VERSION
from zoo_builder.planning.runs import STOP_RULES, Run, total_steps, watched
from zoo_builder.recipe import bounds, settings
from zoo_builder.recipe.generated import check_generated, described, layers_of
from zoo_datasets import sources
from zoo_datasets.core import streams
from zoo_datasets.errors import BuildError, GridError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.sources import measured
from zoo_datasets.sources.augmentation import augmentation_of
from zoo_datasets.sources.columns import first_of

OF_EXAMPLES = settings.feeding(settings.Feeds.EXAMPLES)


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Runs trained together: an execution detail that no result may depend on."""

    id: str  # SHA-256 of everything below
    runs: tuple[Run, ...]
    architecture: Architecture
    n_train: int  # training images of each model in an epoch: all it has, or a balanced part of them
    engine: str
    device: str  # "cpu" or "cuda": which numbers come out, never how many devices there are
    source_sha256: str

    def __post_init__(self) -> None:
        """Raises BuildError where runs differ in what all would take from the first of them."""
        first, *others = self.runs
        common = shared(first)
        for run in others:
            values = shared(run)
            if values != common:
                name = next(n for n in common if values[n] != common[n])
                raise BuildError(
                    f"Runs {first.id} and {run.id} of one cohort differ in `{name}` ({common[name]!r} and {values[name]!r}), "
                    "of which a cohort has one: all of it would be trained on the first run's. Train them apart."
                )

    @property
    def batch_size(self) -> int:
        return int(self.runs[0].settings["batch_size"])

    @property
    def steps_per_epoch(self) -> int:
        return sources.steps_per_epoch(self.n_train, self.batch_size)

    @property
    def stream_step(self) -> int:
        """Where the streams of these models stand when they begin: 0, or where their parents' were."""
        start = self.runs[0].start
        return start.passes * self.steps_per_epoch + start.inside if start else 0

    def seen(self, step: int) -> int:
        """Training images that each model was shown by this step of its streams."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        return epoch * self.n_train + min(inside * self.batch_size, self.n_train)

    @property
    def steps(self) -> list[int]:
        """The budget of each run, in updates."""
        return [total_steps(r, self.n_train) for r in self.runs]


def shared(run: Run) -> dict[str, Any]:
    """What a run has in common with all models of its cohort, besides architecture and number of inputs."""
    return _data(run) | {"passes and updates behind the start": _behind(run)}


def _data(run: Run) -> dict[str, Any]:
    # A balanced epoch shows as many as the rarest class has, which says nothing of how many there are.
    drawn_from = [run.settings.get(name) for name in OF_EXAMPLES] if run.settings.get("balance_classes") else None
    return {name: run.settings.get(name) for name in settings.ALIKE} | {
        "classes of the head": run.subset.head,
        "examples of balanced epochs": drawn_from,
    }


def _behind(run: Run) -> tuple[int, int] | None:
    return (run.start.passes, run.start.inside) if run.start else None


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What runs of equal data and architecture settings are, on their source."""

    architecture: Architecture
    n_train: int
    source_sha256: str
    has_validation: bool
    together: str  # equal of all that may share a cohort, but for where their streams stand
    shown: int  # training examples, and the larger of validation and test: what is scored at once


def group(
    runs: list[Run],
    size: int,
    source_of: Callable[[sources.SourceSpec], sources.Source],
    choose: Callable[[Architecture, str, Augmentation], str],
    device: str,
) -> list[Cohort]:
    """Cohorts in the plan order of their first runs. Raises GridError where shapes do not fit."""
    shape_of = _Shapes(source_of)
    for run in runs:
        shape = shape_of(run)
        _check_stop_rule(run, shape)
        _check_start(run, shape)
        _check_length(run, shape)
    made = []
    for chunk in chunks(runs, size, lambda run: shape_of(run).together):
        shape = shape_of(chunk[0])
        _check_size(chunk, shape, device)
        loss, augmentation = chunk[0].settings["loss"], augmentation_of(chunk[0].settings, source_of(chunk[0].source))
        engine = choose(shape.architecture, loss, augmentation)
        made.append(make(chunk, shape.architecture, shape.n_train, engine, device, shape.source_sha256))
    return made


def chunks(runs: list[Run], size: int, alike: Callable[[Run], str]) -> list[tuple[Run, ...]]:
    """Who trains with whom: runs that are `alike` and stand at one place of their streams, in plan order of the first."""
    members: dict[Any, list[tuple[int, Run]]] = {}
    for place, run in enumerate(runs):
        members.setdefault((alike(run), _behind(run)), []).append((place, run))
    cut = [some[start : start + size] for some in members.values() for start in range(0, len(some), size)]
    return [tuple(run for _, run in chunk) for chunk in sorted(cut, key=lambda chunk: chunk[0][0])]


class _Shapes:
    """Run → its shape. Neither stream keys nor optimizers enter one: few are worked out."""

    def __init__(self, source_of: Callable[[sources.SourceSpec], sources.Source]) -> None:
        self.source_of = source_of
        self.by_settings: dict[str, _Shape] = {}
        self.by_identity: dict[int, _Shape] = {}  # of a point's settings, which its replicates share
        self.architectures: dict[str, Architecture] = {}

    def __call__(self, run: Run) -> _Shape:
        shape = self.by_identity.get(id(run.settings))
        if shape is None:
            key = streams.digest([run.settings.get(name) for name in (*settings.ALIKE, *settings.FITTING)])
            if key not in self.by_settings:
                self.by_settings[key] = self._shape(run, self.source_of(run.source))
            shape = self.by_identity[id(run.settings)] = self.by_settings[key]
        return shape

    def _shape(self, run: Run, source: sources.Source) -> _Shape:
        subset = run.subset.numbered(source.class_names)
        _check_sequences(run, source)
        sources.check_subset(subset, source.n_classes, source.train.labels, source.input_shape)
        if subset.trigger_frac:
            sources.check_shows(source.test.inputs, subset, source.peak)
        _check_classes(subset, source)
        s, head = run.settings, run.subset.head
        key = streams.digest(
            [
                layers_of(s),
                s["activation"],
                head and len(head),
                source.input_shape,
                source.n_classes,
                *_stepwise(source),
            ]
        )
        if key not in self.architectures:
            self.architectures[key] = architecture(run, source)
        arch, n = self.architectures[key], n_train(run, source)
        alike = together(run, arch, n, source.sha256)
        held_out = [measured.count(source, part, subset, arch.n_outputs) for part in ("validation", "test")]
        if not held_out[1]:
            classes = [source.class_names[c] for c in subset.in_play(source.n_classes)]
            raise GridError(
                f"Of the {len(source.test.labels):,} test examples of source {source.spec.id!r} none is of the classes that `subset` leaves "
                f"({first_of(classes)}): nothing could be measured. Ask for more with `source.test`."
            )
        shape = _Shape(arch, n, source.sha256, held_out[0] > 0, alike, n + max(held_out))
        _check_batch_norm(run, shape)
        return shape


def _check_length(run: Run, shape: _Shape) -> None:
    """Raises GridError where a model would be trained, or looked at, without end."""
    steps = total_steps(run, shape.n_train)
    bounds.check_updates(steps)
    if run.start is not None:
        bounds.check_updates(steps + run.start.updates, "Training with what the parents have behind them")
    schedule = run.snapshots.to_json()
    bounds.check_snapshots(_most_snapshots(run, shape), ", ".join(schedule))


def _most_snapshots(run: Run, shape: _Shape) -> int:
    """Snapshots that are kept until the end of training; a stop rule may end it before, and thins them then."""
    per_epoch = sources.steps_per_epoch(shape.n_train, run.settings["batch_size"])
    return run.snapshots.most(per_epoch, total_steps(run, shape.n_train), open_end=watched(run))


def _check_size(chunk: tuple[Run, ...], shape: _Shape, device: str) -> None:
    """Raises GridError where no worker could hold a cohort. A GPU holds the outputs of layers itself, in slices that fit."""
    # Weights, their gradient and two slots of the optimizer; then a copy, or three, at each snapshot.
    kept = max(_most_snapshots(r, shape) * (3 if r.snapshots.keep_optimizer else 1) for r in chunk)
    batch = min(chunk[0].settings["batch_size"], shape.n_train)
    outputs = sum(math.prod(node.shape) for node in shape.architecture.nodes) if device == "cpu" else 0
    logits = shape.shown * shape.architecture.n_logits  # scored a part at a time, beside those of training
    bounds.check_cohort(len(chunk), shape.architecture.n_params, 4 + kept, shape.n_train, batch * outputs, logits)


def together(run: Run, arch: Architecture, n: int, source_sha256: str) -> str:
    """Equal of all runs that may share a cohort, but for where their streams stand."""
    return streams.digest([arch.id, n, source_sha256, *_data(run).values()])


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


def part(cohort: Cohort, places: Sequence[int]) -> Cohort:
    """The cohort of some of its runs."""
    runs = tuple(cohort.runs[m] for m in places)
    return make(runs, cohort.architecture, cohort.n_train, cohort.engine, cohort.device, cohort.source_sha256)


def architecture(run: Run, source: sources.Source) -> Architecture:
    """The run's architecture on its source. Raises GridError naming layer and shapes."""
    head = run.subset.head
    n_classes = source.n_classes if head is None else len(head)
    return build(run, source.input_shape, n_classes, source.output_steps)


def _stepwise(source: sources.Source) -> list[int]:
    """For how many steps the source says what is right, where it does; absent else, as in the first ids."""
    return [] if source.output_steps is None else [source.output_steps]


def build(run: Run, input_shape: tuple[int, ...], n_classes: int, steps: int | None = None) -> Architecture:
    """The run's architecture on inputs of that shape, giving outputs at so many steps. Raises GridError."""
    try:
        made = build_architecture(layers_of(run.settings), input_shape, n_classes, run.settings["activation"], steps)
        check_generated(run.settings, made)
        return made
    except GridError as error:
        if name := described(run.settings):  # whoever wrote a name knows of no layer 3
            raise GridError(f"Architecture {name} does not fit {input_shape}: {error}") from None
        raise


def n_train(run: Run, source: sources.Source) -> int:
    """Training images that the run is shown in an epoch. Raises GridError where its data axes do not fit the source."""
    count = sources.count_balanced if run.settings.get("balance_classes") else sources.count_examples
    return count(source.train.labels, source.n_classes, run.subset.numbered(source.class_names))


# Settings that speak of the labels of inputs, of which a sequence that is right step by step has none.
OF_LABELS = (
    "subset_classes", "subset_class_names", "subset_class_shares", "subset_relabel", "label_noise_frac", "trigger_frac",
    "balance_classes",
)  # fmt: skip


def _check_sequences(run: Run, source: sources.Source) -> None:
    """Raises GridError where settings of one label an input meet a source that says what is right at each step."""
    if source.output_steps is None:
        return
    s, where = run.settings, f"Source {source.spec.id!r} says what is right at each of {source.output_steps} steps"
    for name in OF_LABELS:
        if s.get(name):
            raise GridError(f"{where}, and has no labels for `{name}`. Leave it out.")
    if source.gives_values and s["loss"] != "mse":
        raise GridError(f"{where} in numbers, which `loss: {s['loss']}` cannot learn. Use `training: {{loss: mse}}`.")


def _check_classes(subset: sources.Subset, source: sources.Source) -> None:
    """Raises GridError where there is nothing to learn. One class among others that are outputs too is somebody's wish."""
    if source.output_steps is not None:
        return
    seen = np.unique(source.train.labels)
    if subset.classes is None and len(seen) < 2:
        name = source.class_names[int(seen[0])] if len(seen) else "none"
        raise GridError(
            f"Source {source.spec.id!r} has one class alone in its train part, {name!r}: there is nothing to tell it from. "
            "Name another label_column, or other splits."
        )
    if subset.head is not None and len(subset.head) < 2:
        raise GridError(
            "Subset has relabel and one class: a network of one output has nothing to learn. Name two, or no relabel."
        )


def _check_batch_norm(run: Run, shape: _Shape) -> None:
    """Raises GridError where a batch would hold one value per channel: it has no variance."""
    batch, n = run.settings["batch_size"], shape.n_train
    if min(batch, n) > 1 and n % batch != 1:
        return
    for node in shape.architecture.nodes:
        if node.op == "batch_norm" and math.prod(node.shape[1:]) == 1:
            raise GridError(
                f"{node.name}: {n} training images in batches of {batch} leave a last batch of one, and batch norm over "
                f"shape {node.shape} needs two. Use another `batch_size` or number of training images."
            )


def _check_start(run: Run, shape: _Shape) -> None:
    """Raises GridError where a run cannot go on from its parent's snapshot."""
    start, arch = run.start, shape.architecture
    if start is None:
        return
    assert start.place is not None
    if start.place[1] != arch.layout_id:
        raise GridError(
            f"Model {start.model_id} of {start.zoo} has weights of layout {start.place[1]}; this recipe's architecture on "
            f"{run.settings['source']} has layout {arch.layout_id} ({arch.n_params:,} values). Both must have the same "
            "layers with weights, in the same sizes."
        )
    ours = shape.n_train, run.settings["batch_size"]
    if start.inside and start.batches != ours:
        assert start.batches is not None
        theirs = "{} training images in batches of {}".format(*start.batches)
        raise GridError(
            f"Model {start.model_id} of {start.zoo} stands inside an epoch of {theirs}, and this run has "
            f"{ours[0]} in batches of {ours[1]}. Start at the end of an epoch, or keep both."
        )


def _check_stop_rule(run: Run, shape: _Shape) -> None:
    """Raises GridError where a stop rule would have no validation image to look at."""
    for name in STOP_RULES:
        if run.settings.get(name) is not None and not shape.has_validation:
            raise GridError(
                f"`{name}` looks at validation examples, and the source has none of this network's classes; ask for some."
            )
    if run.snapshots.target_loss is not None and not shape.has_validation:
        raise GridError(
            "`snapshots: {target_loss: …}` looks at validation examples, and the source has none of this network's classes; ask for some."
        )
