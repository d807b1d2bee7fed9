"""Weights → other weights of the same function: orbits under permutation, scale and sign.

In:  float32 vectors [..., P] and the `Architecture` whose layout they follow.
Out: vectors of the same shape. `augment` draws a random member of each orbit,
     `canonicalize` picks one representative, `align` the member nearest to a reference.

Three kinds of symmetry, of the network in evaluation mode:

* `permutation`: hidden units of linear layers and GRUs and channels of convolutions change
  places, with their bias, their batch norm (running buffers too) and what reads them: a GRU's
  unit in all three gates, and in what its own next step reads. After `flatten` a channel is a
  block of rows·columns inputs. Any activation. Bits only move.
* `scale`: what enters a unit times c > 0, what reads it divided by c. Needs relu or
  leaky_relu, or no activation, in between (Neyshabur et al., "Path-SGD", 2015); pooling,
  dropout and flatten do not matter. Not into a batch norm: its ε is not scaled. *Out of* a
  batch norm it is allowed: its weight and bias are then what enters.
* `sign`: what enters a unit times −1, what reads it too. Needs tanh, or no activation, and no
  max pool (Chen et al., "On the geometry of feedforward neural network error surfaces",
  1993). Into a batch norm it turns running mean and weight. A GRU's state starts at zero and is
  a mean of tanh, so its units have a sign too: of the new gate, and of all that reads the state.

Sigmoid has a sign symmetry too that moves the next bias; zero padding breaks it, and it is
not used here. Permutations come from the groups of the layout alone; scale and sign from the
nodes, and of unknown ones none is claimed.

What is added together (`{residual: …}`) has its units in common: layers on both sides of an add, and all
that read the sum, are permuted, scaled and turned as one, by what enters the first of them. Where
the network's input or its logits are a part of the sum nothing moves; neither do linear units with
channels that were flattened, unless the channels came first, whose blocks then move.
"""

from zoo_datasets.symmetry.canonical import canonicalize
from zoo_datasets.symmetry.matching import align, match
from zoo_datasets.symmetry.moves import augment, invert, permute, random_permutations
from zoo_datasets.symmetry.units import KINDS, Factor, Group, Permutations, Place, factors, groups, known_kinds

__all__ = [
    "KINDS", "Factor", "Group", "Permutations", "Place", "align", "augment", "canonicalize", "factors", "groups",
    "invert", "known_kinds", "match", "permute", "random_permutations",
]  # fmt: skip
