"""Shapes and dtypes of public borders are checked while the tests run, and each annotated module is."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from conftest import SHAPED

from zoo_builder.engines.contract import Job, Optimizers
from zoo_datasets import symmetry, views
from zoo_datasets.core import streams
from zoo_datasets.networks import scoring
from zoo_datasets.networks.augmentation import Augmentation
from zoo_datasets.networks.initialization import initialize
from zoo_datasets.networks.layers import build_architecture
from zoo_datasets.sources.examples import Subset, training_examples
from zoo_datasets.sources.spec import Part

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE = build_architecture(["flatten", {"linear": 3}, "tanh", {"linear": "classes"}], (1, 2, 2), 2)
WEIGHTS = initialize(ARCHITECTURE, "0f" * 16, "uniform")[None]


def job(**changes: np.ndarray) -> Job:
    vectors = {f.name: np.zeros(1) for f in dataclasses.fields(Optimizers)}
    vectors |= {"kind": np.zeros(1, np.int32), "nesterov": np.zeros(1, bool)}
    arrays = {"pool": np.zeros((4, 1, 2, 2), np.float32), "initial": WEIGHTS, "dropout_rate": np.zeros(1)}
    keys = ("0" * 32,)
    return Job(
        ARCHITECTURE, "mse", optimizers=Optimizers(**vectors), dropout_key=keys, augment_key=keys,
        augmentation=Augmentation(), batch_size=4, **(arrays | changes),
    )  # fmt: skip


LOGITS = np.zeros((2, 5, 3), np.float32)
WRONG: dict[str, Callable[[], object]] = {
    "a job for two models with one's weights": lambda: job(dropout_rate=np.zeros(2)),
    "images in float64": lambda: job(pool=np.zeros((4, 1, 2, 2))),
    "weights as one vector": lambda: job(initial=WEIGHTS[0]),
    "labels of other examples": lambda: scoring.scored(LOGITS, np.zeros((1, 1, 4), np.int64), "mse"),
    "a part with labels for more inputs": lambda: Part(
        np.zeros((3, 1, 2, 2), np.uint8), np.zeros(4, int), np.arange(3)
    ),
    "labels as one-hot": lambda: training_examples(np.eye(3, dtype=int), 3, Subset(), "0" * 32),
    "a single number as weights": lambda: views.flat(np.float32(1.0), ARCHITECTURE.layout),
    "numbers below which integers lie, as floats": lambda: streams.integers("0" * 32, np.ones(3)),
    "a nested list as weights": lambda: symmetry.canonicalize(WEIGHTS.tolist(), ARCHITECTURE),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_array_of_another_shape_or_dtype_is_caught(what: str) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        WRONG[what]()


def test_right_ones_pass() -> None:
    assert job().n_models == 1
    assert scoring.scored(LOGITS, np.zeros((1, 1, 5), np.int64), "mse").loss.shape == (1, 2)
    assert symmetry.canonicalize(WEIGHTS, ARCHITECTURE).shape == views.flat(WEIGHTS, ARCHITECTURE.layout).shape


def test_a_result_of_another_shape_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_uniform", lambda raw: raw[:-1].astype(np.float64))
    with pytest.raises(jaxtyping.TypeCheckError):
        streams.uniforms("0" * 32, 8)


def test_every_module_that_writes_shapes_is_checked() -> None:
    for package in ("zoo_datasets", "zoo_builder"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if re.search(r"^from jaxtyping import", path.read_text(), re.M):
                assert any(name == s or name.startswith(f"{s}.") for s in SHAPED), name
