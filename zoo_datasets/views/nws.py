"""Weights → the order in which Eilertsen et al. ("Classifying the classifier", 2020) write them, and back.

A vector of theirs has the layers in forward order, of each its weights, its biases, then what a batch norm
holds. Two things differ from ours. After the images are flattened, they have the channels of a pixel
side by side, we the pixels of a channel; a batch norm is shift, scale, mean and variance there, and here scale
and shift come first.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, Shaped

from zoo_datasets.networks.architecture import Architecture, External
from zoo_datasets.networks.layout import Entry
from zoo_datasets.networks.operations.registry import ACTIVATIONS
from zoo_datasets.views.index import range_of

# Theirs are networks of these layers alone; of another one their order says nothing.
LAYERS = ("conv", "linear", "batch_norm")
WITHOUT_VALUES = ("flatten", "dropout", "max_pool", "avg_pool", "global_avg_pool", "softmax", *ACTIVATIONS)
NORM = ("bias", "weight", "running_mean", "running_var")


def nws_order(architecture: Architecture | External) -> Int64[np.ndarray, " p"]:
    """Where each value of their vector lies in ours: `weights[..., nws_order(a)]` is theirs.

    Raises ValueError for a layer that their networks do not have; NoNetworkError where layers are not known.
    """
    architecture = architecture.built()
    pieces: list[np.ndarray] = []
    flattened: tuple[int, ...] | None = None  # the shape (C, H, W) of images that the next linear layer reads as rows
    for node in architecture.nodes:
        entries = architecture.layout.of_node(node.name)
        if node.op == "flatten":
            shape = architecture.input_shapes[node.name]
            flattened = shape if len(shape) == 3 else flattened  # what is flat already stays as it was flattened
        elif node.op == "batch_norm":
            pieces += [_values(_named(entries, name), flattened) for name in NORM]
        elif node.op == "linear":
            weight, bias = (_named(entries, name) for name in ("weight", "bias"))
            pieces += [_columns(weight, flattened), range_of(bias)]
            flattened = None
        elif node.op not in (*LAYERS, *WITHOUT_VALUES):
            raise ValueError(f"{node.name} is a layer `{node.op}`; the order is known of {', '.join(LAYERS)}.")
        else:
            pieces += [range_of(e) for e in entries]
    return np.concatenate([np.zeros(0, np.int64), *pieces])


def to_nws(
    weights: Shaped[np.ndarray, "*batch p"], architecture: Architecture | External
) -> Shaped[np.ndarray, "*batch p"]:
    """Vectors in their order. Raises ValueError, NoNetworkError."""
    return architecture.built().layout.checked(weights)[..., nws_order(architecture)]


def from_nws(
    vectors: Shaped[np.ndarray, "*batch p"], architecture: Architecture | External
) -> Shaped[np.ndarray, "*batch p"]:
    """Their vectors in our order: what `to_nws` was given, bit for bit. Raises ValueError, NoNetworkError."""
    vectors = architecture.built().layout.checked(vectors)
    weights = np.empty_like(vectors)
    weights[..., nws_order(architecture)] = vectors
    return weights


def _named(entries: list[Entry], name: str) -> Entry:
    return next(e for e in entries if e.name.rpartition(".")[2] == name)


def _values(entry: Entry, flattened: tuple[int, ...] | None) -> Int64[np.ndarray, " n"]:
    """One value a unit, of units that are a flattened image in the order (H, W, C)."""
    places = range_of(entry)
    if flattened is None:
        return places
    return places.reshape(flattened).transpose(1, 2, 0).ravel()


def _columns(weight: Entry, flattened: tuple[int, ...] | None) -> Int64[np.ndarray, " n"]:
    """A matrix [out, in] unit by unit, its inputs as their images are flattened: (H, W, C)."""
    places = range_of(weight)
    if flattened is None:
        return places
    return places.reshape(weight.shape[0], *flattened).transpose(0, 2, 3, 1).ravel()
