"""Residual adds: `{residual: [layers]}` → what its layers give, plus what they are given (He et al. 2016).

In a list of layers a block is one element; in an `Architecture` it is the nodes of its layers and, behind
them, an `add` of two inputs: the last of those nodes, and the node before the block.
"""

from __future__ import annotations

from zoo_datasets.networks.operations.operation import Layer, Node, Operation, Tensors, Torch, Value

SKIP = "skip"  # among a layer's own tensors: the value of its second input


def _batched(t: Torch, node: Node) -> Layer:
    """The two may lie in different forms: images that all networks share come stacked, for one network."""

    def layer(own: Tensors, x: Value, training: bool) -> Value:
        skip = own[SKIP]
        if x.dim() == skip.dim() != 4:
            return x + skip
        wide, other = sorted((t.grouped(x), t.grouped(skip)), key=lambda v: -int(v.shape[1]))
        # (B, m·C, H, W) and, of what all networks share, (B, C, H, W). The first decides how the sum lies.
        return (
            wide + other if wide.shape == other.shape else wide + other.repeat(1, wide.shape[1] // other.shape[1], 1, 1)
        )

    return layer


OPERATIONS = (
    Operation(
        name="add", inputs=2, batched=_batched, homogeneous=True, odd=True, kernel=16,
        module=lambda t, node, shape, dropout: t.Add(),
    ),
)  # fmt: skip
