"""What objects say of themselves in a notebook: short, and a stranger's names are text."""

from __future__ import annotations

import dataclasses
import re

import pytest

from zoo_datasets import audit, views
from zoo_datasets.core import notebook
from zoo_datasets.variation import Effects
from zoo_datasets.zoo import Zoo

pytest_plugins = ("reader_fixtures",)


def test_a_table_escapes_and_ends() -> None:
    found = notebook.table("<b>", ("a",), [["<script>alert(1)</script>\u202e"], *([["x" * 500]] * 40)], "n<")
    assert "<script>" not in found
    assert "&lt;script&gt;" in found
    assert "\\u202e" in found
    assert f"{notebook.MOST_ROWS} of 41 rows" in found
    assert max(map(len, re.findall(r"<td>(.*?)</td>", found))) <= notebook.MOST_CELL + 1


@pytest.mark.slow
def test_a_zoo_and_its_effects_are_tables(zoo: Zoo) -> None:
    assert "<td>activation</td><td>tanh, relu</td>" in zoo._repr_html_()
    effects = zoo.effect("subset")
    assert isinstance(effects, Effects)
    assert repr(effects[0]) == str(effects[0])
    assert "full → frac=0.5" in effects._repr_html_()
    assert effects[0]._repr_html_() == effects._repr_html_()
    hostile = dataclasses.replace(effects[0], levels=("<img src=x>", "b"))
    assert "<img" not in hostile._repr_html_()


def test_graphs_and_tokens_are_a_line_each(zoo: Zoo) -> None:
    architecture = zoo.architecture(zoo.models["model_id"][0].as_py())
    graph = views.graph(zoo.weights[:3], architecture)
    assert repr(graph) == "Graph: 82 nodes of 1 values, 592 edges of 1, 3 layers, 3 networks"
    assert "<td>linear1</td><td>8</td><td>512</td>" in graph._repr_html_()
    tokens = views.tokens(zoo.weights[0], architecture.layout, "neuron")
    assert repr(tokens) == "Tokens: 18 of up to 65 values, 2 layers, 610 values each"
    assert "<td>1</td><td>10</td><td>9</td>" in tokens._repr_html_()


def test_an_audit_and_an_evaluation_are_short(zoo: Zoo) -> None:
    report = audit.audit(None, zoo)
    assert repr(report) == "Audit of split stored of weightzoo/tiny: no leak of 8 kinds looked for"
    assert "<td>near-duplicates</td><td>none</td><td>16</td>" in report._repr_html_()
    pytest.importorskip("torch")
    found = zoo.evaluate(zoo.models["model_id"].to_pylist()[:2])
    assert repr(found).startswith("Evaluation of 2 snapshots on 80 test examples")
    assert found._repr_html_().count("<tr>") == 3
