"""Block `snapshots` of a recipe → when snapshots of a model are taken.

In:  what YAML has: `every_epoch`, or one of `epochs`, `steps`, `log_steps`, `evenly` with numbers; beside it
     `optimizer`, `evaluation`, `target_loss` and `attack_per_class`.
Out: a `SnapshotSchedule`, which gives the steps for a length of training; the last step is always
among them. Its JSON is part of every run's id and a column of `models`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from zoo_builder.recipe import bounds
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.format.paths import SPLITS

LISTS, COUNTS = ("epochs", "steps"), ("log_steps", "evenly")
SCHEDULE_KINDS = (*LISTS, *COUNTS, "every_epoch")
MOST_LOSS = 1e30  # far above any, and a float64 whatever number it was written as
BESIDE = ("optimizer", "evaluation", "target_loss", "attack_per_class")  # keys that are no schedule


@dataclasses.dataclass(frozen=True)
class SnapshotSchedule:
    """The steps at which a model is published, whether its optimizer's state goes with it, and how it is scored."""

    kind: str  # of SCHEDULE_KINDS
    at: tuple[float, ...] = ()  # epochs, or whole steps, ascending
    count: int = 0  # how many, of `log_steps` and `evenly`
    keep_optimizer: bool = False
    evaluation: tuple[tuple[str, int], ...] = ()  # part → images scored before the last snapshot; else all of them
    target_loss: float | None = None  # one more at the first end of an epoch whose validation loss is this or less
    attack_per_class: bool = False  # attacks are counted by class, and beside what goes to the target anyway

    def to_json(self) -> dict[str, Any]:
        """As a recipe has it: what ids are made of."""
        value = list(self.at) if self.kind in LISTS else self.count if self.kind in COUNTS else True
        kept = {"optimizer": True} if self.keep_optimizer else {}
        reached = {} if self.target_loss is None else {"target_loss": self.target_loss}
        thinned = {"evaluation": dict(self.evaluation)} if self.evaluation else {}
        by_class = {"attack_per_class": True} if self.attack_per_class else {}
        return {self.kind: value} | kept | thinned | reached | by_class

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SnapshotSchedule:
        """The schedule that `to_json` wrote."""
        ((kind, numbers),) = ((k, v) for k, v in value.items() if k not in BESIDE)
        keep = bool(value.get("optimizer", False))
        counts = value.get("evaluation") or {}
        evaluation = tuple((part, counts[part]) for part in SPLITS if part in counts)
        more: dict[str, Any] = {
            "keep_optimizer": keep,
            "evaluation": evaluation,
            "target_loss": value.get("target_loss"),
            "attack_per_class": bool(value.get("attack_per_class", False)),
        }
        if kind in LISTS:
            return cls(kind, at=tuple(numbers), **more)
        return cls(kind, count=numbers if kind in COUNTS else 0, **more)

    def steps(self, steps_per_epoch: int, total: int, *, open_end: bool = False) -> list[int]:
        """The steps asked for in so many updates, ascending, the last one always among them.

        With `open_end` a stop rule may end it before: `evenly` keeps every epoch then, and `thinned`
        chooses among those that came.
        """
        if self._by_epoch(open_end):
            steps = list(range(0, total + 1, steps_per_epoch))
        elif self.kind in LISTS:
            steps = [self._step(n, steps_per_epoch) for n in self.at]
        elif self.kind == "log_steps":
            exponents = [i / (self.count - 2) for i in range(self.count - 1)] if self.count > 2 else []
            steps = [0, *(round(total**e) for e in exponents)]
        else:
            steps = evenly(self.count, total)
        return sorted({s for s in steps if 0 <= s <= total} | {total})

    def kept(self, steps_per_epoch: int, total: int, *, open_end: bool) -> list[int]:
        """Those of them that are published where training takes all its updates."""
        steps = self.steps(steps_per_epoch, total, open_end=open_end)
        return [steps[i] for i in self.thinned(len(steps))] if open_end else steps

    def most(self, steps_per_epoch: int, total: int, *, open_end: bool = False) -> int:
        """How many snapshots these are at most, without making a list of them."""
        if self._by_epoch(open_end):
            return total // steps_per_epoch + 2
        return min(
            total + 1, (self.count if self.kind in COUNTS else len(self.at) + 1) + (self.target_loss is not None)
        )

    def _by_epoch(self, open_end: bool) -> bool:
        return self.kind == "every_epoch" or (self.kind == "evenly" and open_end)

    def thinned(self, count: int) -> list[int]:
        """Which of `count` snapshots of a model with an open end are published."""
        if self.kind != "evenly" or count <= self.count:
            return list(range(count))
        return sorted(set(evenly(self.count, count - 1)))

    def beyond(self, steps_per_epoch: int, total: int) -> list[float]:
        """The epochs or steps asked for that lie after the end of training."""
        return [n for n in self.at if self._step(n, steps_per_epoch) > total]

    def _step(self, number: float, steps_per_epoch: int) -> int:
        return round(number * steps_per_epoch) if self.kind == "epochs" else int(number)


def evenly(count: int, last: int) -> list[int]:
    """`count` whole numbers from 0 to `last`, at distances as equal as they can be."""
    return [(i * last + (count - 1) // 2) // (count - 1) for i in range(count)]


def parse(value: Any, where: str) -> SnapshotSchedule:
    """The schedule that a recipe's value means. Raises GridError."""
    if isinstance(value, str):
        value = {value: True}
    keep: Any = False
    evaluation: Any = None
    target: Any = None
    attack: Any = False
    if isinstance(value, dict):
        keep, evaluation, target, attack = (
            value.get(k, d) for k, d in zip(BESIDE, (False, None, None, False), strict=True)
        )
        value = {k: v for k, v in value.items() if k not in BESIDE}
        if not isinstance(keep, bool):
            raise GridError(f"{where}: `optimizer` is {keep!r}; `true` keeps the optimizer's state at each snapshot.")
        if not isinstance(attack, bool):
            raise GridError(
                f"{where}: `attack_per_class` is {attack!r}; `true` counts attacks by class at each snapshot."
            )
        _check_evaluation(evaluation, where)
        number = isinstance(target, (int, float)) and not isinstance(target, bool)
        if target is not None and not (number and 0 <= target <= MOST_LOSS):
            raise GridError(f"{where}: `target_loss` is {target!r}; a validation loss ≥ 0 is needed, like 1e-4.")
    if not isinstance(value, dict) or len(value) != 1:
        raise GridError(f"{where}: `snapshots` is {value!r}; one of {', '.join(SCHEDULE_KINDS)} is needed.")
    ((kind, numbers),) = value.items()
    if kind not in SCHEDULE_KINDS:
        raise GridError(unknown("snapshot schedule", kind, SCHEDULE_KINDS, where))
    if kind == "every_epoch" and numbers is not True:
        raise GridError(f"{where}: `every_epoch` is {numbers!r}; write `snapshots: every_epoch`, or list `epochs`.")
    if kind in COUNTS and (isinstance(numbers, bool) or not isinstance(numbers, int) or numbers < 2):
        raise GridError(f"{where}: `{kind}` is {numbers!r}; a number of snapshots ≥ 2 is needed.")
    if kind in COUNTS and numbers > bounds.MOST_SNAPSHOTS:
        raise GridError(
            f"{where}: `{kind}` is {numbers:,} snapshots of one model; at most {bounds.MOST_SNAPSHOTS:,}, like `{{{kind}: 100}}`."
        )
    if kind in LISTS:
        numbers = _ascending(kind, numbers, where)
    if target is not None and kind == "evenly":
        raise GridError(
            f"{where}: `target_loss` is one more snapshot, and `evenly` says how many there are. List `epochs`."
        )
    target = None if target is None else float(target)
    beside = dict(zip(BESIDE, (keep, evaluation, target, attack), strict=True))
    return SnapshotSchedule.from_json({kind: numbers} | beside)


def _check_evaluation(value: Any, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise GridError(
            f"{where}: `evaluation` is {value!r}; numbers of images are needed, like {{train: 1000, validation: 0}}."
        )
    for part, count in value.items():
        if part not in SPLITS:
            raise GridError(unknown("part of `evaluation`", part, SPLITS, where))
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise GridError(f"{where}: `evaluation` of {part} is {count!r}; a whole number of images ≥ 0 is needed.")


def _ascending(kind: str, numbers: Any, where: str) -> list[float]:
    def fits(n: Any) -> bool:
        number = isinstance(n, (int, float)) and not isinstance(n, bool) and n >= 0
        return number and (kind == "epochs" or n == int(n))

    if not isinstance(numbers, list) or not numbers or not all(map(fits, numbers)):
        raise GridError(f"{where}: `{kind}` is {numbers!r}; a list of numbers ≥ 0 is needed, like [0, 1, 2, 5].")
    if max(numbers) > bounds.MOST_UPDATES:
        raise GridError(f"{where}: `{kind}` has {max(numbers):,}; numbers up to {bounds.MOST_UPDATES:,} are taken.")
    if len(numbers) > bounds.MOST_SNAPSHOTS:
        raise GridError(
            f"{where}: `{kind}` has {len(numbers):,} numbers; a model has at most {bounds.MOST_SNAPSHOTS:,} snapshots."
        )
    return sorted({float(n) if kind == "epochs" else int(n) for n in numbers})
