"""Weights → arrays and graphs: pure functions with declared shapes.

In:  float32 vectors [..., P] (or [S, P]) and the layout or the architecture they follow.
Out: `flat`, `statistics`, `tokens`, `window`, `graph`, `trajectories`, `to_nws`; `untokens`, `ungraph`
     and `from_nws` give the vectors back, bit for bit.

A view is an index into the flat vector wherever it can be, so it costs one gather for any
number of snapshots. Needs numpy and pyarrow; `Graph.to_pyg` needs torch_geometric.
Every function raises ValueError with both shapes where weights and layout do not fit.
"""

from zoo_datasets.views.graphs import Graph, graph, ungraph
from zoo_datasets.views.nws import from_nws, nws_order, to_nws
from zoo_datasets.views.per_tensor import EILERTSEN_2020, UNTERTHINER_2020, flat, statistic_names, statistics
from zoo_datasets.views.sequences import Trajectories, trajectories
from zoo_datasets.views.tokenization import Tokens, tokens, untokens, window

__all__ = [
    "EILERTSEN_2020", "UNTERTHINER_2020", "Graph", "Tokens", "Trajectories", "flat", "from_nws", "graph", "nws_order",
    "statistic_names", "statistics", "to_nws", "tokens", "trajectories", "ungraph", "untokens", "window",
]  # fmt: skip
