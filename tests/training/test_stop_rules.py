"""Rules about validation accuracy: what they count, and where they end a training."""

from __future__ import annotations

from zoo_builder.training.stop_rules import Trend


def epochs_until(accuracies: list[float], **rules: int) -> int | None:
    """After how many accuracies one of the rules ends it."""
    trend = Trend()
    for epoch, accuracy in enumerate(accuracies, 1):
        trend = trend.after(accuracy)
        if trend.ends({"stop_drops": None, **rules}):
            return epoch
    return None


def test_drops_are_counted_until_a_rise() -> None:
    assert (
        epochs_until([0.5, 0.4, 0.3, 0.3, 0.2, 0.1, 0.05], stop_drops=3) == 5
    )  # an equal one neither counts nor begins anew
    assert epochs_until([0.5, 0.4, 0.3, 0.35, 0.2, 0.1, 0.05], stop_drops=3) == 7  # a rise does
    assert epochs_until([0.5, 0.4, 0.3, 0.2], stop_drops=3) == 4
    assert epochs_until([0.4, 0.6, 0.5, 0.7] * 9, stop_drops=2) is None


def test_epochs_below_the_average_are_counted_in_all() -> None:
    # Averages: .8, .7 (.6 is below .8), .75 (.8 above), .625 (.5 below .75), .7125, .55625 (.4 below)
    assert epochs_until([0.8, 0.6, 0.8, 0.5, 0.8, 0.4], stop_below=3) == 6
    assert epochs_until([0.8, 0.6, 0.65, 0.66], stop_below=2) == 3  # .65 is below .7, and no drop
    assert epochs_until([0.1 * i for i in range(9)], stop_below=1) is None


def test_unchanged_epochs_are_counted_one_after_another() -> None:
    assert epochs_until([0.1, 0.1, 0.1, 0.1], stop_unchanged=3) == 4
    assert epochs_until([0.1, 0.1, 0.2, 0.2] * 5, stop_unchanged=2) is None


def test_without_a_rule_nothing_ends() -> None:
    assert epochs_until([0.1] * 99) is None
