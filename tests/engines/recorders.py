"""A recorder of steps without CUDA: it does the work again from the same memory, as a graph would."""

from __future__ import annotations

from collections.abc import Callable

import torch

from zoo_builder.engines import graphs


class Again:
    """Records work by keeping it: a replay computes it anew and writes the result where the first lay."""

    def __init__(self) -> None:
        self.trials = self.recordings = self.replays = 0

    def tried(self, work: Callable[[], torch.Tensor]) -> None:
        self.trials += 1
        for _ in range(graphs.TRIALS):
            work()

    def recorded(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        self.recordings += 1
        result = torch.full_like(work(), torch.nan)  # a capture computes nothing that may be read

        def replay() -> None:
            self.replays += 1
            result.copy_(work())

        return replay, result
