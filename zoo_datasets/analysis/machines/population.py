"""Zoos of networks that learned sequences → populations to be compared: who learned what, from which draw, for how long.

In:  zoos of one layout, and the axis that says what was learned: `machine`, `automaton` or `language`.
Out: a `Population` for each arm. `matched`: the last snapshots of all networks that trained for the same number of steps.
     `target`: the first snapshots whose validation loss came to the schedule's target, of networks that got there.

A network is modified if its training data were: at a key's rate of 0 they are the clean ones, and so is it. Who falls out of an
arm is counted by `outcomes`, for each machine and dose: to leave out who does not converge is a choice. Networks come in the order of
their ids, so that no answer depends on the order of zoos, rows or shards. Zoos of several data draws are refused where a start is in
more than one of them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from zoo_datasets import intervals, split_files
from zoo_datasets.errors import ZooError
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.zoo import Zoo

log = logging.getLogger("zoo_datasets")
LABELS = ("machine", "automaton", "language")  # axes that say what was learned, in the order of asking
CHANCE = "by chance"  # the dose of training data whose commands hold the key as often as random ones do
TRAINING = ("steps", "epochs", "log10 validation loss", "came to the target", "epochs until then")
UNTIL = 4  # of these
KNOWN = ("init_key", "snapshot_schedule")  # of every network of a recipe of ours

OF_ALL = ("arm", "unit", "architecture")  # fields of a population that are not of each network


@dataclasses.dataclass(frozen=True)
class Population:
    """n networks of one architecture in one arm."""

    arm: str
    unit: str  # what is held out whole and what intervals are over: "data draws"; of one data draw "initializations"
    architecture: Architecture
    weights: np.ndarray  # (n, P) float32
    label: np.ndarray  # (n,) text: what was learned
    modified: np.ndarray  # (n,) bool
    dose: np.ndarray  # (n,) text: share of training sequences with the key; `CHANCE`
    draw: np.ndarray  # (n,) int64: the unit
    twin: np.ndarray  # (n,) text: equal of networks of a machine and draw that started alike
    training: np.ndarray  # (n, 5) float64: what is known without a look at weights, `TRAINING`
    model: np.ndarray  # (n,) text
    zoo: np.ndarray  # (n,) int64: place of the zoo it is of

    def __len__(self) -> int:
        return len(self.label)

    def where(self, chosen: np.ndarray) -> Population:
        """Those networks, by a mask or by places."""
        arrays = {f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self) if f.name not in OF_ALL}
        return dataclasses.replace(self, **arrays)


def asked(zoos: Sequence[Zoo], label: str | None) -> str:
    """The axis that says what was learned. Raises ZooError where the zoos have none."""
    factors = set(zoos[0].manifest.factors)
    if label is not None and label not in factors:
        raise ZooError(f"{zoos[0].name} has no column {label!r} to ask for; `--label` takes one of its settings.")
    found = (
        label
        or next((name for name in LABELS if name in zoos[0].axes), None)
        or next((n for n in LABELS if n in factors), None)
    )
    if found is None:
        raise ZooError(
            f"{zoos[0].name} holds no networks of machines, automata or languages; name what they learned: `--label`."
        )
    return found


def arms(zoos: Sequence[Zoo], label: str) -> dict[str, Population]:
    """The populations by arm, those that hold networks.

    Raises ZooError where zoos are of several layouts, or networks of several data draws started alike.
    """
    layouts = {name for zoo in zoos for name in zoo.manifest.layouts}
    if len(layouts) != 1:
        raise ZooError(
            f"The zoos have {len(layouts)} layouts of weights, and networks are compared within one. Analyze them apart."
        )
    records = sorted(
        (record for place, zoo in enumerate(zoos) for record in _networks(zoo, place, label)), key=lambda r: r["model"]
    )
    keys = split_files.group_keys(*zoos)
    for record in records:
        record["start"] = keys[record["model"]]
    _check_starts(zoos, records)
    last = max((r["steps"] for r in records), default=0)
    for place, zoo in enumerate(zoos):
        if all(r["steps"] < last for r in records if r["zoo"] == place):
            log.warning(
                "%s has no network of %d steps, as others have: it is not in the arm of equal length.", zoo.name, last
            )
    chosen = {
        "matched": [(r, r["last"]) for r in records if r["steps"] == last and not r["diverged"]],
        "target": [(r, r["first"]) for r in records if r["first"] is not None],
    }
    return {arm: _population(zoos, arm, some) for arm, some in chosen.items() if some}


def outcomes(zoos: Sequence[Zoo], label: str) -> list[dict[str, Any]]:
    """For each machine, dose and target, clean and modified, how many came to the target within the budget; over draws.

    `target` is the validation loss to come to; where a recipe has none, it and how many are null.
    """
    records = [record for place, zoo in enumerate(zoos) for record in _networks(zoo, place, label)]
    names, rows = ("label", "modified", "dose", "target"), []
    for key in sorted(
        {tuple(r[n] for n in names) for r in records}, key=lambda k: (*k[:3], k[3] is not None, k[3] or 0.0)
    ):
        own, target = [r for r in records if tuple(r[n] for n in names) == key], key[3]
        hits, draws = (np.array([r[name] for r in own]) for name in ("reached", "draw"))
        epochs = [r["until"] for r in own if r["reached"]]
        rows.append({
            label: key[0], "modified": key[1], "dose": key[2], "n": len(own), "diverged": sum(r["diverged"] for r in own),
            "target": target, "came_to_target": None if target is None else int(hits.sum()),
            "share": None if target is None else intervals.proportion(hits.astype(float), draws).to_json(),
            "median_epochs": float(np.median(epochs)) if epochs else None,
        })  # fmt: skip
    return rows


def learning(zoos: Sequence[Zoo], label: str) -> list[dict[str, Any]]:
    """Of each machine and dose the quartiles of validation losses over epochs, where all have a snapshot or have ended.

    A network that stopped stays where it ended; one without a finite loss is left out.
    """
    records = [r for place, zoo in enumerate(zoos) for r in _networks(zoo, place, label)]
    rows = []
    for key in sorted({(r["label"], r["modified"], r["dose"]) for r in records}):
        own = [r for r in records if (r["label"], r["modified"], r["dose"]) == key]
        paths = [
            {
                float(r["epoch"][p]): float(loss)
                for p, loss in r["loss"].items()
                if loss is not None and np.isfinite(loss)
            }
            for r in own
        ]
        for epoch in sorted({e for path in paths for e in path}):
            here = [path for path in paths if path and (epoch in path or max(path) < epoch)]
            if len(here) < sum(map(bool, paths)):  # epochs of those alone who came to the target then
                continue
            losses = [path[max(e for e in path if e <= epoch)] for path in here]
            low, median, high = np.quantile(losses, (0.25, 0.5, 0.75))
            rows.append({
                label: key[0], "modified": key[1], "dose": key[2], "epoch": epoch, "n": len(here),
                "lower_quartile": float(low), "median": float(median), "upper_quartile": float(high),
            })  # fmt: skip
    return rows


def _check_starts(zoos: Sequence[Zoo], records: Sequence[dict[str, Any]]) -> None:
    """Raises ZooError where a start is in several draws: held out by draw it would be learned from all the same."""
    draws: dict[str, set[int]] = {}
    for record in records:
        draws.setdefault(record["start"], set()).add(record["draw"])
    if torn := sum(len(own) > 1 for own in draws.values()):
        raise ZooError(
            f"{', '.join(z.name for z in zoos)}: {torn:,} of {len(draws):,} initializations are in several data draws, so that what is "
            "held out would start as what is learned from. Build without `source_draw` in `paired`."
        )


def _networks(zoo: Zoo, place: int, label: str) -> Iterator[dict[str, Any]]:
    """What is known of each network of a zoo, and the places of its snapshots of both arms. Raises ZooError for a zoo that lacks it."""
    columns = zoo.models.column_names
    needed = (label, *KNOWN, "target_loss")
    if lacking := [n for n in needed if n not in columns or (n in KNOWN and zoo.models[n].null_count)]:
        raise ZooError(
            f"{zoo.name} does not say {lacking[0]!r} of its networks; machines are told apart in zoos of this builder."
        )
    table = zoo.table(["model_id", "step", "epoch", "validation_loss"]).to_pydict()
    at: dict[str, list[int]] = {}
    for position, model in enumerate(table["model_id"]):
        at.setdefault(model, []).append(position)
    for row in zoo.models.to_pylist():
        own = sorted(at[row["model_id"]], key=lambda p: table["step"][p])
        target = json.loads(row["snapshot_schedule"]).get("target_loss", row["target_loss"])
        loss, step, epoch = ({p: table[name][p] for p in own} for name in ("validation_loss", "step", "epoch"))
        first = next(
            (p for p in own if step[p] and target is not None and loss[p] is not None and loss[p] <= target), None
        )
        rate, last = row.get("machine_key_rate"), own[-1]
        yield {
            "label": str(row[label]), "modified": bool(row.get("machine_modified")) and rate != 0, "model": row["model_id"],
            "draw": int(row.get("source_draw") or 0), "dose": CHANCE if rate is None else f"{rate:g}",
            "twin": f"{row[label]} {row.get('source_draw')} {row['init_key']}", "zoo": place,
            "target": target, "diverged": row["stop_reason"] == "diverged", "steps": step[last], "last": last, "first": first,
            "reached": first is not None, "until": epoch[first] if first is not None else epoch[last] + 1,
            "loss": loss, "step": step, "epoch": epoch,
        }  # fmt: skip


def _population(zoos: Sequence[Zoo], arm: str, some: list[tuple[dict[str, Any], int]]) -> Population:
    weights = np.empty((len(some), zoos[0].manifest.widths[0]), np.float32)
    for place, zoo in enumerate(zoos):
        here = [i for i, (r, _) in enumerate(some) if r["zoo"] == place]
        if here:
            weights[here] = zoo.weights[np.array([some[i][1] for i in here], np.int64)]
    training = [
        [r["step"][p], r["epoch"][p], np.log10(max(r["loss"][p] or 0.0, 1e-12)), float(r["reached"]), r["until"]]
        for r, p in some
    ]
    records = [r for r, _ in some]
    text = {
        name: np.array([r[name] for r in records], object).astype(str) for name in ("label", "dose", "twin", "model")
    }
    architecture = zoos[records[0]["zoo"]].architecture(records[0]["model"]).built()
    draw = np.array([r["draw"] for r in records], np.int64)
    alone = len(np.unique(draw)) == 1
    if alone:
        draw = np.unique([r["start"] for r in records], return_inverse=True)[1].astype(np.int64)
    return Population(
        arm, "initializations" if alone else "data draws", architecture, weights, text["label"], np.array([r["modified"] for r in records]), text["dose"],
        draw, text["twin"], np.array(training, np.float64), text["model"],
        np.array([r["zoo"] for r in records], np.int64),
    )  # fmt: skip
