"""The page of settings from weights: its words follow from intervals and corrected tests, and one command asks for all of it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zoo_datasets.analysis.nws import pictures, run

Row = dict[str, Any]


def benchmark(name: str) -> ModuleType:
    """A module of benchmarks/, which finds its neighbors there as a script does."""
    if (folder := str(Path(__file__).resolve().parents[2] / "benchmarks")) not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def read(property: str, method: str, low: float, q: float | None, **more: Any) -> Row:
    """A reading of a property whose chance is one half."""
    return {
        "property": property, "method": method, "kind": "training", "n": 40, "chance": 0.5, "value": 0.7, "low": low, "high": 0.9,
        "q": q, "first": method == "svm",
    } | more  # fmt: skip


# ── when ──


def test_when_a_property_is_read_follows_the_corrected_tests() -> None:
    """Above chance by its interval alone is one of many; and what is lost again was not read from then on."""
    page, tables = benchmark("nws_page"), benchmark("nws_tables")
    rows = [
        read("lr", "svm", low, q, place=place, of=4, by_seed=[0.7])
        for place, (low, q) in enumerate([(0.6, 0.01), (0.4, 0.5), (0.6, 0.04), (0.6, 0.01)])
    ]
    assert tables.read_from(rows) == {("lr", "svm"): 2}
    rows[2]["q"] = 0.06
    assert tables.read_from(rows) == {("lr", "svm"): 3}
    (said,) = page._early(rows, 44)
    assert said.endswith("44 tests of snapshots, properties and methods: `lr` 3.")
    rows[3]["q"] = 0.06
    assert tables.read_from(rows) == {}


def test_without_a_meta_classifier_snapshots_are_drawn_and_told_by_statistics() -> None:
    rows = [
        read(name, method, 0.6, 0.01, place=place, of=3)
        for name, method in (("lr", "svm"), ("width", "svm, windows")) for place in range(3)
    ]  # fmt: skip
    ((name, figure),) = pictures.figures({"when": rows})
    assert name == "when"
    assert {line.get_label() for ax in figure.axes for line in ax.lines} == {"svm", "svm, windows", "chance"}
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"svm", "svm, windows", "chance"}
    (said,) = benchmark("nws_page")._early(rows, 6)
    assert "a support vector machine on statistics reads" in said
    assert said.endswith("`lr` 0, `width` 0.")


def test_each_who_reads_has_a_sentence_of_its_own() -> None:
    rows = [read("lr", method, 0.6, 0.01, place=0, of=1) for method in ("svm", "meta-classifier")]
    said = list(benchmark("nws_page")._early(rows, 2))
    assert [s.split(" reads")[0].split("which on ")[1] for s in said] == [
        "the meta-classifier",
        "a support vector machine on statistics",
    ]


def test_a_window_is_enough_where_every_larger_one_is() -> None:
    rows = [
        read("lr", "svm, windows", least, None, size=size, all=size == 900)
        for size, least in ((100, 0.6), (300, 0.4), (900, 0.6))
    ] + [read("width", "svm, windows", 0.4, None, size=size, all=False) for size in (100, 300, 900)]
    (said,) = benchmark("nws_page")._enough(rows, {})
    assert "of 3, from 100 to 900 values" in said
    assert said.endswith("not corrected: `lr` 900.")
    (said,) = benchmark("nws_page")._enough(rows, {"median_length": 3600.0})
    assert said.endswith(
        "`lr` 900. The largest is the shortest vector, 25% of the median one: of all weights nothing is said."
    )


def test_what_positions_say_of_an_architecture_stands_apart_and_gains_where_the_length_decides_are_none() -> None:
    page = benchmark("nws_page")
    rows = [
        read("width", "positions", 0.5, 0.01, kind="architecture"), read("width", "svm, windows", 0.6, 0.01, kind="architecture"),
        read("lr", "positions", 0.3, 0.5, kind="training"),
    ]  # fmt: skip
    (said,) = page._positions(rows)
    assert "`width`" in said
    assert "`lr`" not in said
    gains = [
        read("width", "svm, windows", 0.1, 0.01, over=over, arm="all", verdict=verdict, first=True)
        for over, verdict in (("metadata", "told by length"), ("positions", "undecided"))
    ]
    found = list(page.findings({"gain": gains, "gain_tests": {"n": 2}}))
    assert any("Beyond where the windows lie" in f and "Undecided: `width`" in f for f in found)
    assert any("Beyond metadata" in f and "nothing to gain: `width`" in f and "Readable: none" in f for f in found)


# ── levels never seen, other coordinates, children ──


def test_what_is_read_of_a_childs_parent_is_said_by_snapshot() -> None:
    rows = [
        read(name, "svm", least, None, zoo="a/young", whose=whose, place=place, of=3)
        for name, whose, by_place in (("lr", "parent's", (0.6, 0.6)), ("optimizer", "parent's", (0.6, 0.4)), ("optimizer", "child's own", (0.4, 0.6)),
                                      ("init", "both", (0.6, 0.6)))
        for place, least in zip((0, 2), by_place, strict=True)
    ]  # fmt: skip
    (said,) = benchmark("nws_page")._grown(rows)
    assert said.endswith("of 0 to 2: at 0 `lr`, `optimizer`; at 2 `lr`. Of `lr`, `optimizer`.")
    assert "(a/young)" in said


def test_losses_of_levels_never_seen_are_counted_by_their_intervals_and_stand_by_level() -> None:
    rows = [
        read("lr", method, 0.4, None, axis="source", level=level, n_train=30, within=0.8, within_n_train=40, lost=0.1, lost_low=least,
             lost_high=most)
        for method in ("svm", "boosting") for level, least, most in (("a/one", 0.02, 0.2), ("a/two", -0.2, 0.3), ("b", -0.01, 0.04))
    ]  # fmt: skip
    rows.append(read("lr", "meta-classifier", 0.4, None, axis="source", level="b", n_train=30))  # not learned in folds
    (said,) = benchmark("nws_page")._never_seen(rows)
    assert "statistics named beforehand read" in said
    assert "for `source` 1 of 3 (pairs" in said
    assert said.endswith("Not worse by 0.05: `source` 1 of 3.")
    lines = [line for line in benchmark("nws_tables").tables({"transfer": {"held_out": rows}}) if line.startswith("|")]
    assert lines[0].count("learned from 30; within 40") == 3
    assert "| `source` one (n 40, " in lines[0]
    assert lines[2].split(" | ")[1] == "0.70, chance 0.50; lost +0.10 [+0.02, +0.20]"
    assert lines[3:] == [
        "| property | `source` b (n 40, learned from 30) |",
        "|---|---|",
        "| `lr` | 0.70, chance 0.50 |",
    ]


def test_every_null_of_a_property_stands_in_its_row() -> None:
    null = {"chance": 0.5, "leak": False}
    found = {
        "shuffled": [read("lr", "svm", 0.4, 0.5, shuffles=3, by_shuffle=[0.6, 0.8], **null),
                     read("width", "svm, windows", 0.4, 0.01, shuffles=3, **(null | {"leak": True}))],
        "step_0": [read("lr", "svm", 0.4, 1.0, **null)], "gain": [],
    }  # fmt: skip
    head, _, lr, width = [line for line in benchmark("nws_tables").tables({"null": found}) if line.startswith("|")]
    assert head == "| property | kind | svm, shuffled labels | svm, first snapshot |"
    assert lr.split(" | ")[2] == "0.70 [0.40, 0.90]; 0.60 to 0.80 of 40, chance 0.50, q 0.5"
    assert "q 0.01: **a leak**" in width


def test_a_gain_is_beside_what_others_gain_and_bold_where_it_is_told() -> None:
    rows = [
        read("lr", method, 0.1, q, over=over, arm=arm, verdict="readable", first=method == "svm", known=0.4, with_weights=0.5)
        for over in ("metadata", "metadata and updates")
        for method, arm, q in (("svm", "all", 0.01), ("boosting", "all", 0.2), ("meta-classifier", "test networks", 0.2))
    ]  # fmt: skip
    lines = [line for line in benchmark("nws_tables").tables({"gain": rows}) if line.startswith("|")]
    assert len(lines) == 6  # two tables of one row
    assert lines[0].endswith("| metadata | with weights | gain | q | verdict | boosting | meta-classifier |")
    assert lines[2].split(" | ")[3:] == [
        "0.40", "0.50", "**+0.700 [0.10, 0.90]**", "0.01", "readable", "+0.700 [0.10, 0.90]", "+0.700 [0.10, 0.90] of 40 |",
    ]  # fmt: skip


def moved(property: str, low: float | None, high: float | None) -> Row:
    return read(
        property,
        "meta-classifier",
        0.6,
        None,
        move="both",
        n_moved=20,
        before=0.8,
        lost=0.1,
        lost_low=low,
        lost_high=high,
    )


def test_what_is_lost_in_other_coordinates_is_said_by_its_interval() -> None:
    page = benchmark("nws_page")
    rows = [
        moved("lr", 0.02, 0.2),
        moved("optimizer", -0.2, 0.3),
        moved("width", -0.02, 0.03),
        moved("source", None, None),
    ]
    rows += [read(n, "meta-classifier", 0.6, 0.01, move="as they are") for n in ("lr", "optimizer", "width", "source")]
    rows += [moved("init", -0.01, 0.01), read("init", "meta-classifier", 0.4, 0.9, move="as they are")]
    (said,) = page._coordinates(rows)
    assert "as they are: `lr`. Not worse by 0.05: `width`. Undecided: `optimizer`, `source`." in said
    assert said.endswith("Not surely read above chance as they are: `init`.")


# ── what ──


def test_a_property_counts_as_read_by_its_corrected_test_on_page_and_picture() -> None:
    rows = [read("lr", "svm", 0.6, 0.2), read("optimizer", "svm", 0.6, 0.01), read("lr", "boosting", 0.6, 0.01)]
    assert pictures._above(rows) == "1 of 2 properties are read above chance by a support vector machine"
    (said,) = benchmark("nws_page").findings({"accuracy": rows, "tests": {"n": 3}})
    assert "on statistics reads 1 of 2 properties above chance: `optimizer`. Corrected over 3 tests." in said


def test_ways_that_are_the_published_ones_have_sentences_of_their_own() -> None:
    found = {
        "meta-classifier": 0.9,
        "meta-classifier, batch statistics of many": 0.01,
        "meta-classifier, batch statistics of a network": 0.9,
        "meta-classifier, published epochs": 0.01,
        "meta-classifier of lr alone": 0.01,
    }
    rows = [read("lr", method, 0.6, q, first=False) for method, q in found.items()]
    said = list(benchmark("nws_page").findings({"accuracy": rows, "tests": {"n": 3}}))
    assert [(s.split(", ")[0], "reads 1 of 1" in s) for s in said] == [
        ("**What.** The meta-classifier reads 0 of 1 properties above chance. Corrected over 3 tests.", False),
        ("**What.** With the statistics of each batch", False),
        ("**What.** With the statistics of each batch", True),
        ("**What.** After epochs as published", True),
    ]


def test_the_headline_of_gains_counts_the_verdicts_that_were_named_beforehand() -> None:
    rows = [
        read("lr", method, 0.1, 0.01, over="metadata", arm="all", verdict="readable", first=first)
        for method, first in (("svm", False), ("boosting", False))
    ]

    def headline() -> str:
        ((_, figure),) = pictures.figures({"gain": rows})
        return figure.get_suptitle()

    assert headline() == "Weights say more than metadata of 0 of 1 properties"
    rows[0]["first"] = True
    assert headline() == "Weights say more than metadata of 1 of 1 properties"


def test_inside_thirds_the_methods_named_beforehand_are_shown() -> None:
    rows = [
        read("lr", method, 0.6, None, bin="inside", first=first, by_seed=[0.7])
        for method, first in (("svm", True), ("boosting", False), ("metadata", False), ("meta-classifier", False))
    ]
    for value, r in zip((0.61, 0.62, 0.63, 0.64), rows, strict=True):
        r["value"] = value
    head, _, line = [line for line in benchmark("nws_tables").tables({"by_accuracy": rows}) if line.startswith("|")]
    assert head.strip("| ").split(" | ")[4:] == ["metadata", "statistics", "meta-classifier"]
    assert [cell[:4] for cell in line.strip("| ").split(" | ")[4:]] == ["0.63", "0.61", "0.64"]


def test_a_window_of_all_weights_has_a_name_of_its_own() -> None:
    own = read("lr", "meta-classifier", 0.6, 0.01)
    rows = run._features({"accuracy": [own], "how_much": [own | {"all": False}, own | {"all": True}]})
    assert [(r["method"], r["reads"]) for r in rows] == [("meta-classifier", "many local"), (run.WHOLE, "global")]
    assert run.WHOLE in pictures.LOCAL


# ── the command, and what it costs ──


@pytest.mark.parametrize(
    ("given", "run_with"),
    [
        ("zoo --pictures", "zoo --pictures -- --single source optimizer batch_size --published-epoch --deep-folds --deep-transfer"),
        ("zoo -- --no-deep", "zoo -- --no-deep"),
        ("zoo -- --single lr --no-deep-folds",
         "zoo -- --single source optimizer batch_size --published-epoch --deep-folds --deep-transfer --single lr --no-deep-folds"),
    ],
)  # fmt: skip
def test_one_command_asks_for_the_whole_table_unless_told_otherwise(given: str, run_with: str) -> None:
    assert benchmark("nws").with_defaults(given.split()) == run_with.split()


def test_what_stands_behind_two_dashes_goes_to_the_analysis() -> None:
    """Also where the first option has no value, and would be taken as one more zoo."""
    of = benchmark("nws")
    for given, more in (
        ("a b -- --no-deep", ["--no-deep"]),
        ("a b --sizes 3 --pictures -- --no-deep --sizes 5 6", ["--sizes", "3", "--no-deep", "--sizes", "5", "6"]),
    ):
        options, rest = of.studies.told(of.STUDY, "", of.with_defaults(given.split()))
        assert (options.zoo, rest) == (["a", "b"], more)


def test_the_last_option_counts() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    run.arguments(parser)
    _, _, *more = benchmark("nws").with_defaults("zoo -- --single lr --no-published-epoch".split())
    found = parser.parse_args(more)
    assert (found.single, found.published_epoch, found.deep_folds) == (["lr"], False, True)


def test_the_cost_sums_one_measurement_of_each_published_recipe() -> None:
    of = benchmark("nws_cost")
    r = {"networks": 10, "steps": 4000, "examples": 256_000, "cpu_s": 360.0, "in_recipe": 3000, "cpu": "a core"}
    others = {"nws/fixed training.epochs=5": r | {"networks": 99}, "nws/as-published": r}
    assert "All 3,000 of `nws/fixed` take 30 CPU-hours" in "\n".join(of.section({"nws/fixed": r} | others))
    said = "\n".join(of.section({"nws/main a=1": r, "nws/main a=2": r | {"networks": 20}} | others))
    assert "All 6,000 of `nws/main a=2` and `nws/fixed training.epochs=5` take" in said
