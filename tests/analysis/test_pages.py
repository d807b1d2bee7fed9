"""The pages of studies: what stands between their markers is what the result files say, and no measured number stands elsewhere."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from zoo_datasets import lineage

ROOT = Path(__file__).resolve().parents[2]


# What is generated: the module under benchmarks/ that writes it, and the page that it is part of. The module's results have the name
# of the section.
SECTIONS = {
    "trajectories": ("trajectories_page", "trajectories"), "monitor": ("monitor", "trajectories"),
    "dynamics": ("dynamics_page", "dynamics"), "guidance": ("guidance", "dynamics"),
    "nws": ("nws_page", "nws"), "nws-cost": ("nws_cost", "nws"), "mlds": ("machines_page", "machines"), "recurrent": ("recurrent", "machines"),
    "backdoors": ("backdoors_page", "backdoors"), "representation": ("representation_page", "backdoors"),
    "rates": ("rates", "reference/zoos"), "benchmark": ("benchmark_page", "benchmark"),
}  # fmt: skip
PAGES = ("trajectories", "dynamics", "nws", "machines", "backdoors", "benchmark")


def benchmark(name: str) -> ModuleType:
    """A module of benchmarks/, which finds its neighbors there as a script does."""
    if (folder := str(ROOT / "benchmarks")) not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(SECTIONS[name][0])


def text_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text()


def inside(name: str) -> str:
    """What is generated of a section."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    return text_of(SECTIONS[name][1]).split(begin)[1].split(end)[0]


def outside(page: str) -> str:
    """What is written by hand on a page."""
    text = text_of(page)
    for name, (_, of) in SECTIONS.items():
        if of == page:
            text = text.replace(f"<!-- {name} -->\n{inside(name)}", "")
    return text


def generated(name: str) -> str:
    said = benchmark(name).section(results(name))
    return said if isinstance(said, str) else "\n".join(said) + "\n"


def measured(text: str) -> list[str]:
    """Decimal numbers and percentages of a page's prose; code, links, arXiv numbers and exponents are no measurements."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    text = re.sub(r"`[^`]*`|\[[\d.]+\]\([^)]*\)|\]\([^)]*\)|arXiv[: \d.]*", "", text)
    return re.findall(r"\d*\.\d+|\d+ ?%", text)


# Numbers that are settings or arithmetic, and not results.
SETTINGS = {
    "trajectories": {".025", "0.91"},
    "dynamics": {"95 %", "0.05"},
    "nws": {"0.05", "0.95"},
    "machines": {"99.1"},
    "benchmark": {"5 %"},
    "backdoors": {"0.5", "20 %", "50 %", "1 %", "5 %"},
}


@pytest.mark.parametrize("name", SECTIONS)
def test_what_stands_between_the_markers_is_what_the_results_say(name: str) -> None:
    assert inside(name) == generated(name), f"python benchmarks/{name}.py …"


@pytest.mark.parametrize(
    ("name", "zoos"),
    [
        ("trajectories", ["weightzoo/trajectories-digits", "weightzoo/trajectories-mnist-cnn"]),
        ("dynamics", ["doodl3-iris-epochs", "doodl3-mnist-layers"]),
    ],
)
def test_a_zoo_that_was_not_run_with_this_version_is_named_and_has_no_numbers(name: str, zoos: list[str]) -> None:
    found = results(name)
    done = (
        set(found)
        if name == "trajectories"
        else {f"doodl3-{r['family']}" for r in found["populations"] + found["accuracies"]}
    )
    named = inside(name).partition("Nothing below")[0]
    for zoo in zoos:
        assert (f"`{zoo}`" in named) == (zoo not in done)


@pytest.mark.parametrize("page", PAGES)
def test_no_measured_number_is_typed(page: str) -> None:
    assert set(measured(outside(page))) <= SETTINGS[page]


def test_a_typed_number_would_be_found() -> None:
    assert measured("purity is .925 in 19 % of 24, and `0.5` of [it](x.1) at 0.3") == [".925", "19 %", "0.3"]


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text_of(page))
    assert links
    assert [k for k in links if not k.startswith("http") and not (ROOT / "docs" / k).exists()] == []


def results(name: str) -> Any:
    if name == "benchmark":
        return benchmark_lines()
    name = "rates" if name == "nws-cost" else name
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def benchmark_lines() -> list[dict[str, Any]]:
    """Of every folder of `bench` that is kept."""
    kept = sorted((ROOT / "benchmarks" / "results" / "bench").glob("*/leaderboard.parquet"))
    return [line for path in kept for line in pq.read_table(path).to_pylist()]


def test_the_cost_of_neural_weight_space_counts_its_recipes_alone() -> None:
    """Twice the seconds are twice the hours; a recipe of another family changes nothing."""
    of = benchmark("nws-cost")
    assert "Nothing has been measured" in "".join(of.section({"mlds/ds1": {}}))
    r = {"networks": 10, "steps": 4000, "examples": 256_000, "cpu_s": 360.0, "in_recipe": 3000, "cpu": "a core"}
    said = "\n".join(of.section({"nws/fixed": r, "mlds/ds1": {}}))
    assert "| `nws/fixed` | 10 | 400 | 25,600 | 36.0 | 0.0278 | 3,000 | 30 |" in said
    assert "take 30 CPU-hours" in said
    assert "take 60 CPU-hours" in "\n".join(of.section({"nws/fixed": r | {"cpu_s": 720.0}}))


def test_sentences_of_trajectories_follow_the_numbers() -> None:
    """A result turned around turns the sentence: words are not typed beside the numbers."""
    of = benchmark("trajectories")
    if not (found := results("trajectories")):
        pytest.skip("not run with this version, as the page says")
    numbers = found["weightzoo/trajectories-digits"]
    said = " ".join(of.findings(numbers))
    for found in numbers["detection"]:
        for row in found["rows"]:
            if row["detector"] == "all":
                row["low"], row["high"], row["auc"] = 0.4, 0.6, 0.5
    turned = " ".join(of.findings(numbers))
    assert turned != said
    assert re.search(r"first in the weights for 0 of \d+|weights for 0 of \d+ conditions", turned)


def test_runs_are_found_down_to_the_rung_above_the_first_that_loses_one() -> None:
    of = benchmark("trajectories")
    rows = [
        {
            "metric": "euclidean",
            "linkage": "single",
            "dimensions": d,
            "purity": p,
            "n_trajectories": 40,
            "separation": 2.0,
        }
        for d, p in ((2410, 1.0), (1205, 1.0), (602, 0.8), (3, 1.0))
    ]
    assert "finds all 40 training runs down to 1,205 of 2,410 dimensions; in 3 its purity is 1.00" in of._whose(rows)
    assert "puts 80.0% of snapshots with their own run" in of._whose(rows[2:])


def test_what_siblings_differ_in_is_what_their_zoo_varies() -> None:
    of = benchmark("trajectories")
    found = {"zoo": "weightzoo/not-reordered", "n_families": 4, "siblings": [2], "rows": []}
    assert of._siblings(found, None).endswith("They differ in the order of their data alone.")
    assert of._siblings(found, "subset").endswith("They differ in their data.")
    assert of._siblings(found, "lr").endswith("They differ in `lr`.")


def test_every_p_value_of_the_tests_is_in_the_results() -> None:
    found = results("dynamics")
    if not found["populations"]:
        pytest.skip("not run with this version, as the page says")
    for family, test in found["tests"].items():
        assert len(test["tests"]) == test["n"], family
        assert test["findings"] == sum(t["q"] < test["level"] for t in test["tests"])
        promising = [t["n_permutations"] for t in test["tests"] if t["p"] <= 0.1]
        assert all(n >= test["permutations_needed"] for n in promising), family


def line(baseline: str, value: float, **changes: Any) -> dict[str, Any]:
    """A line of a table of `bench`, with an interval of .05 to both sides."""
    given = {
        "zoo": "weightzoo/a", "zoo_digest": "0", "split": "iid", "target": "test_accuracy", "task": "weightzoo/a/test_accuracy@1",
        "metric": "r2", "n_train": 100, "n": 50, "error": None, "seeds": 3, "parameters": 10, "cpu_s": 1.0, "gain": None, "gain_low": None,
        "gain_high": None,
    }  # fmt: skip
    return given | {"baseline": baseline, "value": value, "low": value - 0.05, "high": value + 0.05} | changes


def benchmark_page(*lines: dict[str, Any]) -> str:
    return "\n".join(benchmark("benchmark").section(lines))


def test_the_benchmark_says_what_the_weights_leave_of_what_the_recipe_leaves() -> None:
    known = line("metadata", 0.6)
    left = {
        "left": 0.25,
        "left_low": 0.2,
        "left_high": 0.3,
        "left_least_seed": 0.22,
        "left_most_seed": 0.41,
        "seeds": 3,
    }
    said = benchmark_page(known, line("nfn", 0.9, **left))
    assert "it leaves 0.25 [0.20, 0.30] of what the recipe leaves, at most a third; by seed 0.22 to 0.41" in said
    assert "a third lies inside these bounds" in benchmark_page(known, line("nfn", 0.9, **left | {"left_high": 0.35}))
    assert "more than a third" in benchmark_page(known, line("nfn", 0.9, **left | {"left_low": 0.34, "left_high": 0.5}))
    beyond = {"beyond": 0.2, "beyond_low": 0.1, "beyond_high": 0.3, "beyond_over": "statistics", "metric": "kendall"}
    assert "+0.200 [+0.100, +0.300] over statistics on the same networks: above" in benchmark_page(
        known, line("nfn", 0.9, **beyond)
    )
    for bounds, word in (((-0.1, 0.3), "not told apart"), ((-0.3, -0.1), "below"), ((None, None), "no interval")):
        changed = beyond | dict(zip(("beyond_low", "beyond_high"), bounds, strict=True))
        assert f"on the same networks: {word}" in benchmark_page(known, line("nfn", 0.9, **changed))


def test_the_benchmark_shows_what_fewer_networks_leave_where_there_are_several_numbers() -> None:
    left = {"left": 0.25, "left_low": 0.2, "left_high": 0.3, "left_least_seed": 0.22, "left_most_seed": 0.41}
    many, few = (
        line("nfn", 0.9, **left),
        line("nfn", 0.7, n_train=10, **left | {"left": 1.5, "left_low": 1.0, "left_high": 2.0}),
    )
    other = line("probing", 0.8, n_train=10, **left)  # best of few, and not asked about: the best of most is
    text = benchmark_page(line("metadata", 0.6), many, few, other).partition("Learned from fewer")[2].partition("**")[2]
    assert "| a | nfn | 10 | 0.700 [0.650, 0.750] | 1.50 [1.00, 2.00] |" in text
    assert "| a | nfn | 100 | 0.900 [0.850, 0.950] | 0.25 [0.20, 0.30] |" in text
    assert "probing" not in text.partition("\n\n**")[0]
    assert "Learned from fewer" not in benchmark_page(line("metadata", 0.6), many)


def test_the_recipe_that_is_shown_is_the_one_that_gains_are_over() -> None:
    """Validation chose it; another may be better on the networks that are asked."""
    gain = {"gain": 0.4, "gain_low": 0.3, "gain_high": 0.5, "gain_over": "metadata"}
    text = benchmark_page(line("metadata", 0.5), line("metadata-ridge", 0.6), line("nfn", 0.9, **gain))
    assert "the recipe alone (metadata, tuned) 0.500" in text
    assert "0.500 [0.450, 0.550] metadata |" in text
    assert "0.600 [0.550, 0.650] metadata-ridge |" not in text


def test_the_benchmark_shows_nulls_and_says_which_lie_above_chance() -> None:
    null = {"metric": "kendall", "null_low": -0.1, "null_high": 0.1, "shuffles": 100}
    calm = benchmark_page(line("metadata", 0.6), line("nfn", 0.9, **null))
    assert "None of these is above chance" in calm
    assert "| nfn | a | [-0.100, 0.100] | 100 |" in calm
    assert "Above chance: nfn on a." in benchmark_page(
        line("metadata", 0.6), line("nfn", 0.9, **null | {"null_low": 0.01})
    )


def test_the_benchmark_keeps_levels_training_sizes_and_fresh_networks_apart() -> None:
    known = line("metadata", 0.6)
    few = benchmark_page(known, line("nfn", 0.9, n_train=100), line("nfn", 0.97, n_train=10))
    assert "0.970" not in few
    level = {"split": "lr=0.1", "task": "weightzoo/a/test_accuracy/lr=0.1@1"}
    learned = {"split": "from:lr=0.1", "task": "weightzoo/a/test_accuracy/from:lr=0.1@1"}
    shown = benchmark_page(known, line("nfn", 0.3, **level), line("nfn", 0.99, **learned)).partition("never seen")[2]
    assert "0.300" in shown
    assert "0.990" not in shown
    other = {"task": "weightzoo/b/test_accuracy/from=weightzoo/a@1"}
    since = {"task": "weightzoo/a-fresh-7/test_accuracy/from=weightzoo/a@1"}
    text = benchmark_page(known, line("nfn", 0.4, **other), line("nfn", 0.5, **since))
    before, _, after = text.partition("asked of another")[2].partition("built since")
    assert ("0.400" in before, "0.500" in before, "0.500" in after) == (True, False, True)


def test_the_benchmark_shows_pairs_by_their_own_baselines() -> None:
    pair = {
        "zoo": "weightzoo/b",
        "split": "lineages",
        "target": "parent",
        "task": "weightzoo/b/parent@1",
        "n": 608,
        "n_groups": 19,
    }
    asked = [line(b, 0.5 + k / 10, **pair | {"metric": "auc"}) for k, b in enumerate(lineage.BASELINES)]
    other = [line(b, 0.123, **pair | {"metric": "accuracy"}) for b in lineage.BASELINES]
    text = benchmark_page(line("metadata", 0.6), *other, *asked)
    assert "| `parent` | b | 608 | 19 | 0.500 [0.450, 0.550] | 0.600 [0.550, 0.650] | 0.700 [0.650, 0.750] |" in text
    assert "0.123" not in text
    assert "Pairs" not in benchmark_page(line("metadata", 0.6))


def test_the_benchmark_page_lives_without_bounds_gains_and_controls() -> None:
    assert "No population" in benchmark_page(line("oracle", 0.99))
    bare = {"low": None, "high": None, "gain": float("nan")}
    text = benchmark_page(line("metadata", 1.0), line("nfn", -0.2, **bare), line("oracle", 0.99, n=None))
    assert "nan" not in text
    assert "-0.200 nfn" in text
    ranked = [line(b, 0.4, metric="kendall", beyond=None) for b in ("flat", "statistics")]
    assert "order." not in benchmark_page(line("metadata", 1.0), *ranked)
    assert "reads the weights themselves (nfn)" in benchmark_page(
        line("metadata", 1.0), *ranked, line("nfn", 0.5, metric="kendall", beyond=None)
    )
