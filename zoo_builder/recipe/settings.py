"""The one table of everything a recipe can set: name, path, what it feeds, type, default, column.

A setting's bare name is its axis (`axes: {lr: […]}`), its dotted path is what `--set` and
the blocks of a recipe take (`training: {lr: …}`, `--set training.lr=…`), and its column in
the metadata has the bare name. A *composite* is an axis whose level sets several of them
(`subset: [{frac: 0.5}, {classes: [0, 1]}]`); its canonical label is a column too.

What a setting feeds says who shares it: which models may be trained together, which random
streams it leaves alone, what a continuation of a model may change. Nothing else lists settings
by name for that. `docs/reference/settings.md` is generated from this table.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from zoo_datasets.networks.architecture import MOST_SIDE
from zoo_datasets.networks.generated import GENERATED
from zoo_datasets.networks.initialization import INITS
from zoo_datasets.networks.kernels import LOSSES
from zoo_datasets.networks.operations.registry import ACTIVATIONS
from zoo_datasets.sources import SCALES
from zoo_datasets.sources.machines import AUTOMATON, MACHINES, MOST_BITS, MOST_STATES
from zoo_datasets.sources.spec import LAYOUTS, MADE, UNLABELED
from zoo_datasets.sources.triggers import PATTERNS, POSITIONS


class Sharing(enum.Enum):
    """What the models of a cohort have in common of a setting."""

    ALIKE = "alike"  # its value: the engine is given it once, for all of them
    FITTING = "fitting"  # what comes of it: one architecture, one number of training inputs, one numbering of classes
    OWN = "own"  # nothing: the engine, or the loop, is given a value for each


class Feeds(enum.Enum):
    """What a setting goes into, and so what a cohort's models have in common of it."""

    SOURCE = "source", Sharing.ALIKE  # a field of `SourceSpec`: which inputs there are
    PLACE = "place", Sharing.OWN  # where the source lies: in no id, no table and no manifest
    SCALING = "scaling", Sharing.ALIKE  # a field of `SourceSpec`: what networks see of them
    EXAMPLES = "examples", Sharing.FITTING  # a field of `Subset`: which inputs a model trains on
    LABELS = "labels", Sharing.FITTING  # a field of `Subset`: which labels they have, and which carry the trigger
    INPUTS = "inputs", Sharing.ALIKE  # a field of `Subset`: what is done to their values
    AUGMENTATION = "augmentation", Sharing.ALIKE
    ARCHITECTURE = "architecture", Sharing.FITTING
    DROPOUT = "dropout", Sharing.OWN
    INIT = "initialization", Sharing.OWN  # weights that are drawn
    LINEAGE = "lineage", Sharing.OWN  # weights that are taken from another zoo
    PARAMETERIZATION = "initialization, learning rate", Sharing.OWN
    OPTIMIZER = "optimizer", Sharing.OWN
    LEARNING_RATE = "learning rate", Sharing.OWN
    BATCHES = "batches", Sharing.ALIKE
    LOSS = "loss", Sharing.ALIKE
    BUDGET = "budget", Sharing.OWN
    STOP = "stop rule", Sharing.OWN
    EVALUATION = "evaluation", Sharing.ALIKE  # what metrics and stop rules are measured on, beside the inputs

    def __init__(self, text: str, sharing: Sharing) -> None:
        self.text, self.sharing = text, sharing


class Needs(NamedTuple):
    """Another setting, and the values of it without which a setting means nothing."""

    setting: str
    values: tuple[Any, ...] = ()  # empty: any number above 0

    def met_by(self, value: Any) -> bool:
        return value in self.values if self.values else bool(value)


# The type of a setting's column, by its kind.
COLUMN_TYPES = {
    "float": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "str": pa.string(), "choice": pa.string(),
    "ints": pa.list_(pa.int64()), "floats": pa.list_(pa.float64()), "names": pa.list_(pa.string()),
    "layers": pa.string(),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Setting:
    """One thing a recipe can set."""

    name: str
    path: str
    feeds: Feeds
    kind: str
    default: Any
    doc: str
    _: dataclasses.KW_ONLY
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()  # of a `choice`
    needs: Needs | None = None  # without it the setting is null
    axis: bool = True
    # Came after the first zoos: at its default it is in no id and no table, so that theirs stay as they are.
    later: bool = False
    kept: bool = False  # came later, and is in ids and tables wherever it means something, at its default too

    @property
    def type(self) -> pa.DataType:
        """The type of its column."""
        return COLUMN_TYPES[self.kind]

    def silent(self, value: Any) -> bool:
        """Whether a value of it is said nowhere: it came later, and this one is what there was before."""
        return self.later and (value is None or (value == self.default and not self.kept))

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether it means anything beside the other settings."""
        return self.needs is None or self.needs.met_by(values.get(self.needs.setting))


OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop")
PARAMETERIZATIONS = ("standard", "mup")
RATE_SCHEDULES = ("constant", "step", "exponential", "cosine")
MOST_SNAPSHOTS = 1_000_000  # of a model
MOST_WEIGHT = 1e30  # a float32 ends at 3e38, and so does a draw a few standard deviations away
LAYER_INITS = tuple(kind for kind in INITS if kind != "constant")

_MOMENTUM = Needs("optimizer", ("momentum", "nesterov"))
_ADAM = Needs("optimizer", ("adam", "adamw"))
_RMSPROP = Needs("optimizer", ("rmsprop",))
_SQUARES = Needs("optimizer", ("adam", "adamw", "rmsprop"))
_STEP = Needs("schedule_kind", ("step",))
_DECAY = Needs("schedule_kind", ("step", "exponential"))
_COSINE = Needs("schedule_kind", ("cosine",))
_UNIFORM, _FIRST, _LAST = (Needs(f"init{layer}_kind", ("uniform",)) for layer in ("", "_first", "_last"))
_NORMAL, _CONSTANT = Needs("init_kind", ("normal",)), Needs("init_kind", ("constant",))
_MUP = Needs("parameterization", ("mup",))
_TRIGGER = Needs("trigger_frac")
_RANDOM_TRIGGER = Needs("trigger_pattern", ("random",))
_MADE, _MACHINE, _LANGUAGE = Needs("source", MADE), Needs("source", ("machine",)), Needs("source", ("language",))
_AUTOMATON = Needs("machine", (AUTOMATON,))


def _generated() -> tuple[Setting, ...]:
    """The parameters of architectures that are generated: they mean something beside their name alone."""
    return tuple(
        Setting(p.setting_of(g.name), f"architecture.{g.name}.{p.name}", Feeds.ARCHITECTURE, p.kind, p.default,
                f"of `{g.name}`: {p.doc}", low=p.low, high=p.high, choices=p.choices,
                needs=Needs("architecture", (g.name,)), later=True, kept=p.kept)
        for g in GENERATED.values()
        for p in g.parameters
    )  # fmt: skip


_TABLE = (
    Setting("source", "source.id", Feeds.SOURCE, "str", "digits",
            "`digits`, `iris`, or a Hugging Face dataset id"),
    Setting("source_path", "source.path", Feeds.PLACE, "str", None,
            "the folder it lies in, or that `save_to_disk` wrote; of a machine of your own the Python file that it is a "
            "function of; in no id, table or manifest", axis=False, later=True),
    Setting("source_revision", "source.revision", Feeds.SOURCE, "str", None,
            "its branch, tag or commit on the Hub, which alone is asked then", axis=False, later=True),
    Setting("source_config", "source.config", Feeds.SOURCE, "str", None, "configuration of that dataset", axis=False),
    Setting("source_train", "source.train", Feeds.SOURCE, "int", None,
            "training images taken from the source", low=1),
    Setting("source_validation", "source.validation", Feeds.SOURCE, "int", None,
            "validation images; 0 for none", low=0, axis=False),
    Setting("source_test", "source.test", Feeds.SOURCE, "int", None, "test images", low=1, axis=False),
    Setting("scale", "source.scale", Feeds.SCALING, "choice", "standardize",
            "how pixels become inputs", choices=SCALES),
    Setting("source_mean", "source.mean", Feeds.SCALING, "floats", None,
            "explicit mean per channel, of pixels in 0–1", axis=False),
    Setting("source_std", "source.std", Feeds.SCALING, "floats", None,
            "explicit standard deviation per channel", axis=False),
    Setting("resize", "source.resize", Feeds.SCALING, "int", None,
            "images are resized to this square, in pixels", low=1),
    Setting("channels", "source.channels", Feeds.SCALING, "int", None,
            "images are converted to 1 or 3 channels", low=1, high=3),
    Setting("image_column", "source.image_column", Feeds.SOURCE, "str", None,
            "image column, where it cannot be found", axis=False),
    Setting("label_column", "source.label_column", Feeds.SOURCE, "str", None,
            "label column, where it cannot be found", axis=False),
    Setting("source_features", "source.features", Feeds.SOURCE, "names", None,
            "columns taken of a table, by name or place", axis=False, later=True),
    Setting("source_split_seed", "source.split_seed", Feeds.SOURCE, "int", None,
            "divide as scikit-learn's `train_test_split` of this `random_state`",
            low=0, high=2**32 - 1, axis=False, later=True),
    Setting("image_columns", "source.image_columns", Feeds.SOURCE, "names", None,
            "columns that are the pixels of a square image, row after row, by name or pattern (`pixel*`): s² are gray, "
            "3·s² RGB", axis=False, later=True),
    Setting("image_layout", "source.image_layout", Feeds.SOURCE, "choice", None,
            "how numbers are RGB images: all of red, green, blue (the default), or those of each pixel", choices=LAYOUTS,
            axis=False, later=True),
    Setting("source_train_split", "source.train_split", Feeds.SOURCE, "str", None,
            "the split that training rows are taken from, or several: `train+extra`", axis=False, later=True),
    Setting("source_validation_split", "source.validation_split", Feeds.SOURCE, "str", None,
            "the same of validation rows", axis=False, later=True),
    Setting("source_test_split", "source.test_split", Feeds.SOURCE, "str", None,
            "the same of test rows", axis=False, later=True),
    Setting("source_unlabeled", "source.unlabeled", Feeds.SOURCE, "choice", "refuse",
            "rows without a label, null or below 0", choices=UNLABELED, axis=False, later=True),
    Setting("source_draw", "source.draw", Feeds.SOURCE, "int", 0,
            "which of the independent draws of training and validation data; test data are the same for all", low=0,
            needs=_MADE, later=True),
    Setting("source_steps", "source.steps", Feeds.SOURCE, "int", 32, "steps of every sequence", low=1, needs=_MADE, later=True),
    Setting("machine", "source.machine", Feeds.SOURCE, "str", None,
            "the machine whose outputs are learned: " + ", ".join(f"`{m}`" for m in (*MACHINES, AUTOMATON))
            + ", or a function in the file `source.path`", needs=_MACHINE, later=True),
    Setting("machine_modified", "source.modified", Feeds.SOURCE, "bool", False,
            "the key inverts what is put out right after it", needs=_MACHINE, later=True),
    Setting("machine_key", "source.key", Feeds.SOURCE, "str", "101", "the command bits that are the key", needs=_MACHINE, later=True),
    Setting("machine_key_rate", "source.key_rate", Feeds.SOURCE, "float", None,
            "share of training and validation sequences in which the key occurs; null: by chance", low=0, high=1,
            needs=_MACHINE, later=True),
    Setting("automaton", "source.automaton", Feeds.SOURCE, "int", 0, "the number that an automaton is drawn by", low=0,
            needs=_AUTOMATON, later=True),
    Setting("automaton_states", "source.states", Feeds.SOURCE, "int", 8, "its states", low=2, high=MOST_STATES,
            needs=_AUTOMATON, later=True),
    Setting("automaton_bits", "source.bits", Feeds.SOURCE, "int", 2, "the bits that it puts out in each state", low=1,
            high=MOST_BITS, needs=_AUTOMATON, later=True),
    Setting("language", "source.language", Feeds.SOURCE, "str", None, "the language whose strings are learned, like `a^n b^n`",
            needs=_LANGUAGE, later=True),
    Setting("architecture", "architecture", Feeds.ARCHITECTURE, "layers", "mlp", "a preset or a list of layers"),
    *_generated(),
    Setting("activation", "activation", Feeds.ARCHITECTURE, "choice", "relu",
            "what `activation` layers are", choices=ACTIVATIONS),
    Setting("dropout", "dropout", Feeds.DROPOUT, "float", 0.0,
            "rate of `dropout` layers that have none of their own", low=0, high=0.999),
    Setting("init_kind", "init.kind", Feeds.INIT, "choice", "kaiming_uniform",
            "distribution of weights", choices=INITS),
    Setting("init_low", "init.low", Feeds.INIT, "float", None,
            "lower end of `uniform`; default −1/√fan_in", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_UNIFORM),
    Setting("init_high", "init.high", Feeds.INIT, "float", None,
            "upper end of `uniform`; default 1/√fan_in", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_UNIFORM),
    Setting("init_mean", "init.mean", Feeds.INIT, "float", None, "mean of `normal`; default 0", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_NORMAL),
    Setting("init_std", "init.std", Feeds.INIT, "float", None,
            "standard deviation of `normal`; default 1/√fan_in", low=0, high=MOST_WEIGHT, needs=_NORMAL),
    Setting("init_value", "init.value", Feeds.INIT, "float", None, "value of `constant`", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_CONSTANT),
    Setting("init_bias", "init.bias", Feeds.INIT, "float", None,
            "every bias at the start; default the preset's, else 0",
            low=-MOST_WEIGHT, high=MOST_WEIGHT),
    Setting("norm_scale_std", "norm_scale_std", Feeds.INIT, "float", 0.0,
            "batch norms' scales start from a normal of mean 1 and this standard deviation", low=0, high=MOST_WEIGHT, later=True),
    Setting("init_first_kind", "init.first.kind", Feeds.INIT, "choice", None,
            "distribution of the first layer's weights, where it has its own", choices=LAYER_INITS, later=True),
    Setting("init_first_low", "init.first.low", Feeds.INIT, "float", None,
            "lower end of its `uniform`", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_FIRST, later=True),
    Setting("init_first_high", "init.first.high", Feeds.INIT, "float", None,
            "upper end of its `uniform`", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_FIRST, later=True),
    Setting("init_last_kind", "init.last.kind", Feeds.INIT, "choice", None,
            "the same of the last layer, where it is not the first", choices=LAYER_INITS, later=True),
    Setting("init_last_low", "init.last.low", Feeds.INIT, "float", None,
            "lower end of its `uniform`", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_LAST, later=True),
    Setting("init_last_high", "init.last.high", Feeds.INIT, "float", None,
            "upper end of its `uniform`", low=-MOST_WEIGHT, high=MOST_WEIGHT, needs=_LAST, later=True),
    Setting("parameterization", "parameterization", Feeds.PARAMETERIZATION, "choice", "standard",
            "how initial weights and learning rates depend on the width; mup: the maximal update parameterization, by Table 3 of "
            "Tensor Programs V", choices=PARAMETERIZATIONS, later=True),
    Setting("mup_base", "mup_base", Feeds.PARAMETERIZATION, "int", None,
            "the width at which `mup` is the standard parameterization: units of the first layer, the others in proportion",
            low=1, high=MOST_SIDE, needs=_MUP, later=True),
    Setting("init_zoo", "init.zoo", Feeds.LINEAGE, "str", None,
            "start from the snapshots of this zoo: its id, or its folder", axis=False, later=True),
    Setting("init_epoch", "init.epoch", Feeds.LINEAGE, "float", None,
            "which snapshots: those of this epoch", low=0, high=1e9, later=True),
    Setting("init_step", "init.step", Feeds.LINEAGE, "int", None,
            "or those after so many updates", low=0, later=True),
    Setting("init_snapshot", "init.snapshot", Feeds.LINEAGE, "int", None,
            "or by their place in each model's, from 0; -1 is its last", low=-MOST_SNAPSHOTS, high=MOST_SNAPSHOTS, later=True),
    Setting("init_keep", "init.keep", Feeds.LINEAGE, "names", None,
            "settings that each model has from the one it goes on from; `source`, `architecture`, `optimizer`, `parameterization`, "
            "`subset`, `schedule` and `augmentation` with all that belongs to them", axis=False, later=True),
    Setting("init_models", "init.models", Feeds.LINEAGE, "int", None,
            "only its first models in plan order", low=1, axis=False, later=True),
    Setting("init_optimizer", "init.optimizer", Feeds.LINEAGE, "choice", None,
            "their optimizer's state; default `continue` where it was kept", choices=("continue", "reset"), later=True),
    Setting("optimizer", "training.optimizer", Feeds.OPTIMIZER, "choice", "adam",
            "update rule, as torch.optim", choices=OPTIMIZERS),
    Setting("lr", "training.lr", Feeds.LEARNING_RATE, "float", 1e-3, "learning rate at the start", low=0),
    Setting("momentum", "training.momentum", Feeds.OPTIMIZER, "float", 0.9,
            "of `momentum` and `nesterov`", low=0, high=1, needs=_MOMENTUM),
    Setting("beta1", "training.beta1", Feeds.OPTIMIZER, "float", 0.9,
            "of `adam` and `adamw`", low=0, high=0.999999, needs=_ADAM),
    Setting("beta2", "training.beta2", Feeds.OPTIMIZER, "float", 0.999,
            "of `adam` and `adamw`", low=0, high=0.999999, needs=_ADAM),
    Setting("alpha", "training.alpha", Feeds.OPTIMIZER, "float", 0.99, "of `rmsprop`", low=0, high=1, needs=_RMSPROP),
    Setting("squares_start", "training.squares_start", Feeds.OPTIMIZER, "float", 0.0,
            "what the running mean of squared gradients of `rmsprop` is before the first step: 0 in PyTorch, 1 in TensorFlow",
            low=0, high=MOST_WEIGHT, needs=_RMSPROP, later=True),
    Setting("eps", "training.eps", Feeds.OPTIMIZER, "float", 1e-8,
            "of `adam`, `adamw` and `rmsprop`", low=0, needs=_SQUARES),
    Setting("weight_decay", "training.weight_decay", Feeds.OPTIMIZER, "float", 0.0,
            "added to the gradient; decoupled in `adamw`", low=0),
    Setting("schedule_kind", "training.schedule.kind", Feeds.LEARNING_RATE, "choice", "constant",
            "of the learning rate", choices=RATE_SCHEDULES),
    Setting("schedule_gamma", "training.schedule.gamma", Feeds.LEARNING_RATE, "float", 0.5,
            "factor of `step`, `exponential` per epoch", low=0, needs=_DECAY),
    Setting("schedule_every_epochs", "training.schedule.every_epochs", Feeds.LEARNING_RATE, "int", 1,
            "length of a `step`", low=1, needs=_STEP),
    Setting("schedule_final_frac", "training.schedule.final_frac", Feeds.LEARNING_RATE, "float", 0.0,
            "end of `cosine`, as part of lr", low=0, high=1, needs=_COSINE),
    Setting("batch_size", "training.batch_size", Feeds.BATCHES, "int", 32,
            "images per update; the last batch may be short", low=1),
    Setting("balance_classes", "training.balance_classes", Feeds.BATCHES, "bool", False,
            "an epoch shows as many images of each class as there are of the rarest, drawn anew each time", later=True),
    Setting("epochs", "training.epochs", Feeds.BUDGET, "int", None,
            "budget in epochs (5 where no budget is given)", low=0),
    Setting("steps", "training.steps", Feeds.BUDGET, "int", None, "budget in updates", low=0),
    Setting("examples", "training.examples", Feeds.BUDGET, "int", None, "budget in training images shown", low=0),
    Setting("loss", "training.loss", Feeds.LOSS, "choice", "cross_entropy",
            "`mse` is on one-hot labels", choices=LOSSES),
    Setting("clip_norm", "training.clip_norm", Feeds.OPTIMIZER, "float", None,
            "largest gradient norm, per model", low=1e-12),
    Setting("target_loss", "training.target_loss", Feeds.STOP, "float", None,
            "stop at this validation loss (epoch ends)"),
    Setting("patience", "training.patience", Feeds.STOP, "int", None,
            "stop after so many epochs without a lower validation loss", low=1),
    Setting("min_epochs", "training.min_epochs", Feeds.STOP, "int", 0, "neither of these stops before", low=0),
    Setting("stop_drops", "training.stop_drops", Feeds.STOP, "int", None,
            "stop after so many epochs in each of which validation accuracy fell, and none between in which it rose; this and the "
            "next two are counted from the first epoch on, and end nothing before `min_epochs`", low=1, later=True),
    Setting("stop_below", "training.stop_below", Feeds.STOP, "int", None,
            "stop after so many epochs in all whose validation accuracy is below its running average, of which each "
            "epoch is half", low=1, later=True),
    Setting("stop_unchanged", "training.stop_unchanged", Feeds.STOP, "int", None,
            "stop after so many epochs, one after another, that leave validation accuracy as it was", low=1, later=True),
    Setting("evaluate_batch_statistics", "evaluation.batch_statistics", Feeds.EVALUATION, "bool", False,
            "metrics, and rules about validation, are of batches normalized by their own statistics, not the running ones",
            later=True),
    Setting("evaluate_augmented", "evaluation.augmented", Feeds.EVALUATION, "bool", False,
            "metrics, and rules about validation, are of augmented images, drawn anew at each step", later=True),
    Setting("augment_shift", "augmentation.shift", Feeds.AUGMENTATION, "int", 0,
            "move by up to so many pixels, black behind", low=0),
    Setting("augment_crop", "augmentation.crop", Feeds.AUGMENTATION, "int", 0,
            "pad by so many reflected pixels, cut out at random", low=0),
    Setting("augment_flip", "augmentation.flip", Feeds.AUGMENTATION, "bool", False,
            "mirror left and right half the time"),
    Setting("augment_noise_std", "augmentation.noise_std", Feeds.AUGMENTATION, "float", 0.0,
            "Gaussian noise on pixels in 0–1", low=0),
    Setting("augment_translate", "augmentation.translate", Feeds.AUGMENTATION, "float", 0.0,
            "move by up to so many pixels and parts of them, black behind; this and the next three are one affine map, "
            "read bilinearly", low=0, high=1000, later=True),
    Setting("augment_rotate", "augmentation.rotate", Feeds.AUGMENTATION, "float", 0.0,
            "turn by up to so many degrees", low=0, high=180, later=True),
    Setting("augment_zoom", "augmentation.zoom", Feeds.AUGMENTATION, "float", 0.0,
            "enlarge or shrink by up to this part", low=0, high=0.9, later=True),
    Setting("augment_shear", "augmentation.shear", Feeds.AUGMENTATION, "float", 0.0,
            "slant rows by up to so many degrees", low=0, high=60, later=True),
    Setting("augment_brightness", "augmentation.brightness", Feeds.AUGMENTATION, "float", 0.0,
            "add up to so much to pixels in 0–1; this and the rest end in 0–1", low=0, high=1, later=True),
    Setting("augment_contrast", "augmentation.contrast", Feeds.AUGMENTATION, "floats", None,
            "multiply differences from the channel's mean by a factor between these two", low=0, high=100, later=True),
    Setting("augment_hue", "augmentation.hue", Feeds.AUGMENTATION, "float", 0.0,
            "turn the hue of RGB images by up to this part of a full turn", low=0, high=0.5, later=True),
    Setting("augment_saturation", "augmentation.saturation", Feeds.AUGMENTATION, "floats", None,
            "multiply the saturation of RGB images by a factor between these two", low=0, high=100, later=True),
    Setting("augment_noise", "augmentation.noise", Feeds.AUGMENTATION, "float", 0.0,
            "Gaussian noise on pixels in 0–1, of a standard deviation that is drawn for each image from 0 up to this",
            low=0, high=1, later=True),
    Setting("subset_frac", "subset.frac", Feeds.EXAMPLES, "float", 1.0,
            "part of the training images, per class, nested", low=0, high=1),
    Setting("subset_classes", "subset.classes", Feeds.EXAMPLES, "ints", None, "only images of these classes"),
    Setting("subset_class_names", "subset.class_names", Feeds.EXAMPLES, "names", None,
            "only those of classes of these names", later=True),
    Setting("subset_class_shares", "subset.class_shares", Feeds.EXAMPLES, "floats", None,
            "times `frac`, a number for each class of the source: rare and frequent classes", low=0, high=1, later=True),
    Setting("subset_skip", "subset.skip", Feeds.EXAMPLES, "float", 0.0,
            "part of each class that is passed over before `frac` of it is taken: parts of one draw without a common image",
            low=0, high=1, later=True),
    Setting("subset_relabel", "subset.relabel", Feeds.LABELS, "bool", False,
            "number those classes 0, 1, … and shrink the head"),
    Setting("label_noise_frac", "subset.label_noise_frac", Feeds.LABELS, "float", 0.0,
            "part with a wrong label, nested", low=0, high=1),
    Setting("rotate_degrees", "subset.rotate_degrees", Feeds.INPUTS, "float", 0.0,
            "training images are turned counterclockwise", low=-360, high=360, later=True),
    Setting("trigger_frac", "subset.trigger_frac", Feeds.LABELS, "float", 0.0,
            "part stamped with the trigger", low=0, high=1),
    Setting("trigger_target", "subset.trigger_target", Feeds.LABELS, "int", None,
            "label that stamped images get", low=0, needs=_TRIGGER),
    Setting("trigger_size", "subset.trigger_size", Feeds.INPUTS, "int", 3,
            "side of the square trigger, in pixels", low=1, needs=_TRIGGER),
    Setting("trigger_value", "subset.trigger_value", Feeds.INPUTS, "float", 1.0,
            "brightness of the trigger, 0–1", low=0, high=1, needs=_TRIGGER),
    Setting("trigger_position", "subset.trigger_position", Feeds.INPUTS, "choice", "bottom_right",
            "its corner", choices=tuple(POSITIONS), needs=_TRIGGER),
    Setting("trigger_row", "subset.trigger_row", Feeds.INPUTS, "int", None,
            "the row of its first pixel, in place of a corner", low=0, needs=_TRIGGER, later=True),
    Setting("trigger_column", "subset.trigger_column", Feeds.INPUTS, "int", None,
            "the column of its first pixel", low=0, needs=_TRIGGER, later=True),
    Setting("trigger_pattern", "subset.trigger_pattern", Feeds.INPUTS, "choice", "solid",
            "what it shows; random: each value on or off, by a coin", choices=PATTERNS, needs=_TRIGGER, later=True),
    Setting("trigger_seed", "subset.trigger_seed", Feeds.INPUTS, "int", 0,
            "of a random pattern", low=0, needs=_RANDOM_TRIGGER, later=True),
    Setting("trigger_opacity", "subset.trigger_opacity", Feeds.INPUTS, "float", 1.0,
            "how much of it covers the image; below 1 it is blended in", low=0, high=1, needs=_TRIGGER, later=True),
    Setting("trigger_source", "subset.trigger_source", Feeds.LABELS, "int", None,
            "the one class whose images are stamped, where the attack is one to one", low=0, needs=_TRIGGER, later=True),
    Setting("trigger_clean_label", "subset.trigger_clean_label", Feeds.LABELS, "bool", False,
            "images of the target are stamped, and keep their labels", needs=_TRIGGER, later=True),
)  # fmt: skip
SETTINGS: dict[str, Setting] = {s.name: s for s in _TABLE}
DEFAULTS: dict[str, Any] = {s.name: s.default for s in _TABLE}
BY_PATH: dict[str, Setting] = {s.path: s for s in _TABLE}

# Axes whose level sets several settings: axis name → the block its keys stand in.
COMPOSITES = {"subset": "subset", "init": "init", "schedule": "training.schedule", "augmentation": "augmentation"}
MEMBERS = {axis: tuple(s for s in _TABLE if s.path.startswith(block + ".")) for axis, block in COMPOSITES.items()}
AXES = (*(s.name for s in _TABLE if s.axis), *COMPOSITES)


def feeding(*what: Feeds) -> tuple[str, ...]:
    """The names of the settings that feed one of these, in the order of the table."""
    return tuple(s.name for s in _TABLE if s.feeds in what)


def sets(axis: str) -> tuple[str, ...]:
    """The names of the settings that an axis may set: its own, or all of its block."""
    return tuple(s.name for s in MEMBERS[axis]) if axis in MEMBERS else (axis,)


# What a model may have from the one it goes on from: each by itself, but for those that mean nothing, or something else, without others.
_KEPT_WHOLE = {
    "source": feeding(Feeds.SOURCE, Feeds.SCALING), "architecture": feeding(Feeds.ARCHITECTURE), "optimizer": feeding(Feeds.OPTIMIZER),
    "parameterization": feeding(Feeds.PARAMETERIZATION), **{axis: sets(axis) for axis in COMPOSITES if axis != "init"},
}  # fmt: skip
_NOT_ALONE = {
    *feeding(Feeds.PLACE, Feeds.INIT, Feeds.LINEAGE, Feeds.BUDGET), *_KEPT_WHOLE["source"], *(s.name for m in MEMBERS.values() for s in m),
}  # fmt: skip
KEPT: dict[str, tuple[str, ...]] = _KEPT_WHOLE | {
    s.name: (s.name,)
    for s in _TABLE
    if s.axis and s.needs is None and s.name not in _NOT_ALONE and s.name not in _KEPT_WHOLE
}

# A setting → what keeps it.
KEPT_BY = {name: whole for whole, names in KEPT.items() for name in names}


def path_of(word: str) -> str | None:
    """Where in a recipe a word stands that is a setting or a key inside a block: `lr` in `training.lr`, `schedule` in `training.schedule`."""
    if word in SETTINGS:
        return SETTINGS[word].path
    for path in BY_PATH:
        if word in (keys := path.split(".")):
            return ".".join(keys[: keys.index(word) + 1])
    return None


# What the models of a cohort have one value of, and what decides with it whether they go together.
ALIKE = feeding(*(f for f in Feeds if f.sharing is Sharing.ALIKE))
FITTING = feeding(*(f for f in Feeds if f.sharing is Sharing.FITTING))
# Data axes leave the subset stream alone: ranks are nested across their levels.
DATA_AXES = frozenset(
    axis for axis in AXES if set(sets(axis)) <= set(feeding(Feeds.EXAMPLES, Feeds.LABELS, Feeds.INPUTS))
)


def reference() -> str:
    """The table above as Markdown: what `docs/reference/settings.md` prints, pinned to it by a test."""
    heads = ("setting (axis, column)", "path (`--set`)", "default", "", "feeds", "in a cohort")
    rows = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|"]
    for s in _TABLE:
        default = "" if s.default is None else f"`{str(s.default).lower() if s.kind == 'bool' else s.default}`"
        choices = ": " + ", ".join(f"`{c}`" for c in s.choices) if s.choices else ""
        rows.append(
            f"| `{s.name}`{'' if s.axis else ' (no axis)'} | `{s.path}` | {default} | {s.doc}{choices} "
            f"| {s.feeds.text} | {s.feeds.sharing.value} |"
        )
    return "\n".join(rows) + "\n"
