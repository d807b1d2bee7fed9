"""Validation accuracy after each epoch → whether a model has stopped learning.

In:  the accuracies as they come, one an epoch; how many drops, epochs below the average and unchanged epochs end it.
Out: a `Trend`, which a checkpoint keeps, and the verdict.

The rules of the code of Eilertsen et al., "Classifying the classifier" (2020): validation accuracy fell 5 times without a rise
between, was 30 times in all below its running average, or stayed as it was 30 times in a row. All of it is counted from the
start, and heeded from the 20th measurement on. The first measurement there is of the initial weights; here it is of epoch 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

KEPT = 0.5  # of the running average; the rest is the new accuracy's


@dataclasses.dataclass(frozen=True)
class Trend:
    """What the accuracies so far come to; the first is the one to which the second is compared."""

    last: float | None = None
    average: float | None = None
    drops: int = 0  # without a rise between
    below: int = 0  # in all
    unchanged: int = 0  # in a row

    def after(self, accuracy: float) -> Trend:
        """With one epoch more."""
        if self.last is None or self.average is None:
            return Trend(accuracy, accuracy)
        return Trend(
            last=accuracy,
            average=KEPT * self.average + (1 - KEPT) * accuracy,
            drops=self.drops + (accuracy < self.last) if accuracy <= self.last else 0,
            below=self.below + (accuracy < self.average),
            unchanged=self.unchanged + 1 if accuracy == self.last else 0,
        )

    def ends(self, rules: Mapping[str, Any]) -> bool:
        """Whether one of a run's rules `stop_drops`, `stop_below` and `stop_unchanged` is met."""
        counted = {"stop_drops": self.drops, "stop_below": self.below, "stop_unchanged": self.unchanged}
        return any(rules.get(name) is not None and n >= rules[name] for name, n in counted.items())
