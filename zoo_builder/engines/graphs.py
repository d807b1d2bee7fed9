"""One training step → the same step as a CUDA graph, replayed with other inputs.

A graph reads and writes fixed memory. What a step is given is copied to where the capture read it;
what it changes (weights, slots, running statistics) is the caller's own memory, and is put back as
it was before the capture, whose trial steps no model may see.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Protocol

from zoo_datasets.core import libraries

with libraries.needed():
    import torch

Tensors = dict[str, torch.Tensor]
TRIALS = 3  # libraries set themselves up in the first calls, which no capture allows


class Recorder(Protocol):
    """Who records work on a device: CUDA, or a test that only runs it again."""

    def tried(self, work: Callable[[], torch.Tensor]) -> None:
        """Do the work `TRIALS` times, as a capture would find it."""
        ...

    def recorded(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """What does the work again, and where its result lies each time."""
        ...


class Cuda:
    """CUDA graphs of one engine. They share a pool of memory: none runs while another does.

    A pool ends with its last graph, and PyTorch takes no other into it: then there is a new one.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._alive: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def tried(self, work: Callable[[], torch.Tensor]) -> None:
        side = _side_stream(torch.cuda.current_device())
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(TRIALS):
                work()
        torch.cuda.current_stream().wait_stream(side)

    def recorded(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        if not self._alive:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._alive.add(graph)
        with torch.cuda.graph(graph, pool=self._pool):
            result = work()
        return graph.replay, result


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """One for all trials of the process: cuBLAS keeps a workspace of 32 MB for every stream it has met."""
    return torch.cuda.Stream(device)


class Graph:
    """A recorded step: `graph(given)` is `step(given)`, for inputs of the same shapes."""

    def __init__(
        self, step: Callable[[Tensors], torch.Tensor], given: Tensors, state: list[torch.Tensor], recorder: Recorder
    ) -> None:
        self._given = {name: t.clone() for name, t in given.items()}
        kept = [t.clone() for t in state]
        recorder.tried(lambda: step(self._given))
        self._replay, self._result = recorder.recorded(lambda: step(self._given))
        for tensor, value in zip(state, kept, strict=True):
            tensor.copy_(value)

    def __call__(self, given: Tensors) -> torch.Tensor:
        """The step's result, in memory that the next call writes over."""
        for name, tensor in given.items():
            self._given[name].copy_(tensor)
        self._replay()
        return self._result
