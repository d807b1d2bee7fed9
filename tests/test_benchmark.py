"""The verb `bench` and the page of its folders."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from bench_zoos import RECIPE, built
from resealed import reseal

from zoo_datasets import (
    cli,
    tasks,
)
from zoo_datasets.baselines import known
from zoo_datasets.baselines.tabular import Tabular

pytest_plugins = ("bench_fixtures",)
pytestmark = pytest.mark.usefixtures("few_trees")


def test_bench_from_the_command_line(bench_zoo, tmp_path):
    code = cli.main(
        ["bench", str(bench_zoo.root), "--baselines", "statistics-ridge", "--seeds", "1", "--out", str(tmp_path)]
    )
    assert code == 0
    text = (tmp_path / "leaderboard.md").read_text()
    assert "statistics-ridge" in text
    assert "The split, audited" in text
    assert cli.main(["bench", str(bench_zoo.root), "--baselines", "magic", "--out", str(tmp_path)]) == 1


def test_a_folder_that_has_tables_is_gone_on_with(bench_zoo, tmp_path, capsys, caplog):
    """Again it is the same; what cannot be asked leaves its tables; a stranger's misspelt task is said."""
    call = ["bench", str(bench_zoo.root), "--baselines", "mean", "--out", str(tmp_path)]
    assert cli.main(call) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.*")}
    assert cli.main(call) == 0
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.*")} == before
    capsys.readouterr()
    for wrong, said in (
        ([*call, "--split", "activaton"], "Unknown split 'activaton'"), ([*call, "--shuffles", "-1"], "-1 is not at least 0"),
        (["bench", str(tmp_path / "nowhere"), *call[2:]], "nowhere"), ([*call, "--networks", "1e3,x"], "'1e3' is no whole number"),
    ):  # fmt: skip
        try:
            code = cli.main(wrong)
        except SystemExit as ended:
            code = ended.code
        assert code in (1, 2)
        assert said in capsys.readouterr().err
        assert {p.name: p.read_bytes() for p in tmp_path.glob("*.*")} == before
    path = next(p for p in tmp_path.glob("*.json") if '"mean"' in p.read_text())
    theirs = path.read_text().replace('"mean"', '"theirs"').replace("/test_accuracy@1", "/test_acuracy@1")
    (tmp_path / "theirs.json").write_text(theirs)
    assert cli.main(call) == 0
    assert (
        "theirs.json answers weightzoo/bench/test_acuracy@1, which was not asked this time" in capsys.readouterr().err
    )


def test_a_zoo_is_asked_once_however_it_is_named_and_two_of_one_name_are_told_apart(
    bench_zoo, other_zoo, tmp_path, capsys
):
    call = [
        "--baselines",
        "mean",
        "--tasks",
        "lr",
        "--split",
        "transfer",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main(["bench", str(bench_zoo.root), f"{bench_zoo.root}/../{bench_zoo.root.name}", *call]) == 1
    assert "name at least two zoos" in capsys.readouterr().err
    shutil.copytree(other_zoo.root, tmp_path / "same")
    reseal(tmp_path / "same", zoo=bench_zoo.name)
    assert cli.main(["bench", str(bench_zoo.root), str(tmp_path / "same"), *call]) == 1
    assert "same is left out: another zoo here is called weightzoo/bench too" in capsys.readouterr().err


def test_several_numbers_of_networks_are_tables_and_tasks_of_their_own(bench_zoo, tmp_path):
    call = ["bench", str(bench_zoo.root), "--baselines", "mean", "--networks", "8,16", "--out", str(tmp_path)]
    assert cli.main(call) == 0
    text = (tmp_path / "leaderboard.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## weightzoo/bench, split iid, {n} networks" for n in (16, 8)
    ]
    assert "the first that reads weights" not in text  # there is none
    learned = [t["learned_from"]["networks"] for t in json.loads((tmp_path / "tasks.json").read_text())["tasks"]]
    assert learned == [16, 8]


def test_every_baseline_and_set_is_on_the_page():
    text = (Path(__file__).parents[1] / "docs" / "benchmark.md").read_text()
    assert not [n for n in (*known.BASELINES, *known.SETS) if f"`{n}`" not in text]


def page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page and its pictures are made of the folder alone."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "leaderboard", raising=False)
    out = folder / "page"
    written = folder / "benchmark.md"
    written.write_text("before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n")
    call = ["leaderboard.py", str(folder), "--out", str(out), "--pictures", str(out), "--page", str(written)]
    monkeypatch.setattr(sys, "argv", call)
    importlib.import_module("leaderboard").main()
    assert (folder / "leaderboard.md").read_text() in (out / "leaderboard.md").read_text()
    kept = out / "bench" / folder.name
    assert (kept / "leaderboard.parquet").read_bytes() == (folder / "leaderboard.parquet").read_bytes()
    monkeypatch.setattr(sys, "argv", [call[0], str(kept), *call[2:]])  # what is kept already stays
    importlib.import_module("leaderboard").main()
    assert (kept / "leaderboard.parquet").exists()
    # One of two cannot be kept: neither is.
    (kept / "leaderboard.md").write_text("kept")
    twin, half = folder / "apart" / folder.name, folder / "half"
    twin.mkdir(parents=True)
    half.mkdir()
    shutil.copyfile(folder / "leaderboard.parquet", half / "leaderboard.parquet")
    for other, said in (
        (half, "half holds no leaderboard.md: name a folder"),
        (twin, "holds no leaderboard.md and no"),
    ):
        monkeypatch.setattr(sys, "argv", [call[0], str(folder), str(other), *call[2:]])
        with pytest.raises(SystemExit, match=said):
            importlib.import_module("leaderboard").main()
    for name in ("leaderboard.md", "leaderboard.parquet"):
        shutil.copyfile(folder / name, twin / name)
    with pytest.raises(SystemExit, match="have one name"):
        importlib.import_module("leaderboard").main()
    assert (kept / "leaderboard.md").read_text() == "kept"
    shutil.copyfile(folder / "leaderboard.md", kept / "leaderboard.md")
    # Another folder beside it: the page has the tables of both, in the order of their names.
    (out / "bench" / "another").mkdir()
    for name in ("leaderboard.md", "leaderboard.parquet"):
        shutil.copyfile(kept / name, out / "bench" / "another" / name)
    monkeypatch.setattr(sys, "argv", [call[0], *call[2:]])
    importlib.import_module("leaderboard").main()
    assert (out / "leaderboard.md").read_text().count((folder / "leaderboard.md").read_text()) == 2
    text = written.read_text()
    assert "old" not in text
    assert all(f"| {zoo} |" in text for zoo in ("bench", "other"))
    assert "Learned on one zoo, asked of another" in text
    assert "A level that was never seen" in text
    assert {p.name for p in out.glob("*.svg")} == {"leaderboard-scores.svg", "leaderboard-transfer.svg"}


def test_what_two_folders_say_of_one_question_counts_once(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    once = importlib.import_module("benchmark_page").once
    line = {"zoo_digest": "d", "task": "t", "n_train": 9, "baseline": "b", "metric": "r2", "value": 0.5}
    others = [
        line | {k: v}
        for k, v in (("zoo_digest", "e"), ("task", "u"), ("n_train", 3), ("baseline", "c"), ("metric", "mae"))
    ]
    assert once([line, *others, line | {"value": 0.7}]) == [line, *others]


def test_widths_are_a_panel_for_each_parameterization_and_a_line_for_the_best_of_each_kind(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    leaderboards = importlib.import_module("leaderboard")

    def line(baseline, task, value, metric="kendall"):
        given = {
            "zoo": "o/a",
            "split": "iid",
            "target": "test_accuracy",
            "n_train": 9,
            "low": value - 0.1,
            "high": value + 0.1,
        }
        return given | {"baseline": baseline, "task": task, "value": value, "metric": metric}

    rows = [
        line(n, "o/a/test_accuracy@1", v, "r2")
        for n, v in (("metadata", 0.5), ("nfn", 0.7), ("probing", 0.8), ("statistics", 0.6))
    ]
    assert leaderboards.width(rows) is None
    for place, width in enumerate((64, 8)):
        for kind in ("mup", "standard"):
            task = f"o/a-wide/test_accuracy/from=o/a/parameterization={kind},width={width}@1"
            rows += [
                line(n, task, v + 0.1 * place)
                for n, v in (("metadata", 0.3), ("nfn", 0.1), ("probing", 0.4), ("statistics", 0.2))
            ]
    axes = leaderboards.width(rows).axes
    assert [a.get_xlabel() for a in axes] == [
        f"width of the networks asked, parameterization {k}" for k in ("mup", "standard")
    ]
    drawn = {of.get_label(): of.get_xydata().tolist() for of in axes[0].lines}
    assert set(drawn) == {"metadata", "statistics", "probing"}
    np.testing.assert_allclose(drawn["probing"], [[8, 0.5], [64, 0.4]])


@pytest.mark.slow
def test_bench_of_several_zoos_goes_on_after_what_cannot_be_asked(bench_zoo, other_zoo, tmp_path, capsys, monkeypatch):
    code = cli.main(
        [
            "bench", str(bench_zoo.root), str(other_zoo.root), "--tasks", "test_accuracy,colour", "--split",
            "transfer,activation,depth=3", "--baselines", "statistics-ridge", "--shuffles", "3", "--out", str(tmp_path),
        ]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 1
    assert "Unknown target 'colour' in weightzoo/bench" in said.err
    assert "Unknown axis 'depth' in weightzoo/other" in said.err
    assert "Traceback" not in said.err
    for text in (
        "### weightzoo/other/test_accuracy/from=weightzoo/bench@1", "over sources one permits no interval",
        "| baseline | bench → bench | bench → other | other → bench | other → other |", "2 sources: the unit is the source",
        "each level of activation held out", "(2 groups, and at least 5 are needed)", "Shuffled targets",
    ):  # fmt: skip
        assert text in said.out, text
    page(tmp_path, monkeypatch)
    tasks_there = json.loads((tmp_path / "tasks.json").read_text())["tasks"]
    (asked,) = (t for t in tasks_there if t["name"] == "weightzoo/other/test_accuracy/from=weightzoo/bench@1")
    assert asked["population"]["zoo"] == "weightzoo/bench"
    assert asked["asked_of"]["zoo"] == "weightzoo/other"
    assert asked["metrics"][:2] == ["r2", "kendall"]
    table = pq.read_table(tmp_path / "leaderboard.parquet")
    kept = table.filter((pc.field("metric") == "r2") & (pc.field("baseline") == "statistics-ridge"))
    assert len(kept) == 8  # two zoos: iid, transfer, two levels held out
    assert np.isfinite(kept["gain"].to_numpy()).all()


@pytest.mark.slow
def test_a_zoo_that_was_built_to_be_asked_is_never_learned_from(bench_zoo, tmp_path, capsys):
    text = RECIPE.replace("weightzoo/bench", "weightzoo/asked").replace("16", "4")
    built(text + "splits: {test: 1.0}\nseed: 1\n", tmp_path / "asked")
    bench = ["--baselines", "statistics-ridge", "--split", "iid,transfer", "--out", str(tmp_path / "out")]
    assert cli.main(["bench", str(bench_zoo.root), str(tmp_path / "asked"), *bench]) == 0
    said = capsys.readouterr().out
    assert "### weightzoo/asked/test_accuracy/from=weightzoo/bench@1" in said
    assert "## weightzoo/asked, split" not in said
    assert "R² is against their own mean" in said
    assert cli.main(["bench", str(tmp_path / "asked"), *bench]) == 1
    assert "weightzoo/asked: all of its own split is test. Name a zoo to learn from" in capsys.readouterr().err


@pytest.mark.slow
def test_progress_is_a_population_of_its_own_and_networks_are_counted_in_it(bench_zoo, tmp_path, capsys):
    few = tasks.problem(bench_zoo, ["progress"], networks=30)
    assert len(set(few.train.ids)) == 30
    assert len(few.train) == 60  # two snapshots each
    code = cli.main(
        ["bench", str(bench_zoo.root), "--tasks", "progress,test_accuracy", "--baselines", "mean", "--out", str(tmp_path)]
    )  # fmt: skip
    said = capsys.readouterr()
    assert (code, said.err.count("ask for it alone")) == (0, 0)
    assert "weightzoo/bench/progress@1" in said.out
    assert "weightzoo/bench/test_accuracy@1" in said.out


@pytest.mark.slow
def test_a_split_that_leaks_is_a_sentence_and_gives_no_number(bench_zoo, tmp_path, capsys):
    """A network of the test side has the bytes of one that is learned from."""
    root = Path(shutil.copytree(bench_zoo.root, tmp_path / "leaky"))
    split = tasks.problem(bench_zoo, ["test_accuracy"]).split
    for path in root.rglob("*.parquet"):
        table = pq.read_table(path)
        if "weights_sha256" in table.column_names:
            side = [split.assignment[i] for i in table["model_id"].to_pylist()]
            hashes = table["weights_sha256"].to_pylist()
            hashes[side.index("test")] = hashes[side.index("train")]
            place, field = table.schema.get_field_index("weights_sha256"), table.schema.field("weights_sha256")
            pq.write_table(table.set_column(place, field, pa.array(hashes, field.type)), path)
            break
    reseal(root)
    assert cli.main(["bench", str(root), "--baselines", "mean", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "weightzoo/bench: the split iid leaks (1 weights on two sides), and is not asked." in said.err
    assert "| mean" not in said.out


def test_accuracy_is_learned_by_itself_where_a_fit_is_dear(bench_zoo, tmp_path, monkeypatch):
    """One trunk for many heads serves each of them worse, and the controls choose for each."""
    learned: list[list[str]] = []

    class Dear(Tabular):
        def fit(self, train, validation, seed):
            learned.append([t.name for t in train[1].of])
            super().fit(train, validation, seed)

    monkeypatch.setitem(known.BASELINES, "dear-one", lambda: Dear("dear-one", "none", "mean"))
    code = cli.main(
        [
            "bench", str(bench_zoo.root), "--tasks", "lr,test_accuracy,generalization_gap", "--split", "iid,activation=relu",
            "--baselines", "dear-one", "--seeds", "1", "--out", str(tmp_path),
        ]
    )  # fmt: skip
    assert code == 0
    assert learned == [["test_accuracy"], ["lr", "generalization_gap"], ["test_accuracy"]]
    rows = pq.read_table(tmp_path / "leaderboard.parquet").to_pylist()
    assert {r["target"] for r in rows if r["baseline"] == "dear-one" and r["split"] == "iid"} == {
        "lr",
        "test_accuracy",
        "generalization_gap",
    }
