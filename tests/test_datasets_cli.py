"""`python -m zoo_datasets`: data on stdout, the rest on stderr, and an exit code that tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_server import NAME, LoopbackHub, tree_of
from markdown_it import MarkdownIt
from resealed import write_manifest

from zoo_datasets import cli, split_files
from zoo_datasets.format import card
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.tables import read_table
from zoo_datasets.hub import download, lookup
from zoo_datasets.zoo import open_zoo

pytest_plugins = ("hub_fixtures",)

SHARD = "weights/train-00000-of-00001.safetensors"
# huggingface_hub 2.4 sends its commits in a way that its HTTP library discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Said = pytest.CaptureFixture[str]


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_has_help(verb: str, capsys: Said) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"python -m zoo_datasets {verb}" in capsys.readouterr().out


@pytest.mark.slow
def test_it_runs_as_a_module_and_an_unknown_verb_is_a_mistake() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zoo_datasets", "frobnicate"], cwd=Path(lookup.__file__).parents[2], capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid choice: 'frobnicate'" in done.stderr


@pytest.mark.slow
def test_check_tells_whole_from_damaged(tiny_copy: Path, capsys: Said) -> None:
    assert cli.main(["check", str(tiny_copy)]) == 0
    assert "sizes and SHA-256" in capsys.readouterr().out
    (tiny_copy / SHARD).write_bytes(b"short")
    assert cli.main(["check", str(tiny_copy)]) == 1
    assert "error: weights/train-00000-of-00001.safetensors has 5 bytes" in capsys.readouterr().err
    assert cli.main(["check", str(tiny_copy / "nowhere")]) == 2
    assert "`download` fetches one" in capsys.readouterr().err


def test_show_says_what_is_there(tiny_zoo: Path, capsys: Said) -> None:
    assert cli.main(["show", str(tiny_zoo)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("weightzoo/tiny: 16 models, 48 snapshots, ")
    assert "splits: train 10, validation 4, test 2\n" in out
    assert "axis activation: " in out
    accuracy = open_zoo(tiny_zoo).models["test_accuracy"].to_numpy()
    said = f"test accuracy: {accuracy.min():.3f} to {accuracy.max():.3f}, median {np.median(accuracy):.3f}\n"
    assert said in out


@pytest.mark.slow
def test_audit_ends_with_1_where_something_leaks(tiny_zoo: Path, tmp_path: Path, capsys: Said) -> None:
    assert cli.main(["audit", str(tiny_zoo)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("split stored of weightzoo/tiny: 10 train, 4 validation, 2 test, 0 without a side\n")
    assert ("LEAK" in said.out, said.err) == (False, "")

    zoo = open_zoo(tiny_zoo)
    torn = dict(zip(zoo.models["model_id"].to_pylist(), zoo.models["split"].to_pylist(), strict=True))
    torn[min(i for i, side in torn.items() if side == "test")] = "train"  # its twin stays
    made = split_files.stored(zoo)
    split_files.Split("torn", 1, made.zoos, {"maker": "hand"}, torn).save(tmp_path / "torn.json")
    given = ["audit", str(tiny_zoo), "--split", str(tmp_path / "torn.json"), "--target", "test_loss"]
    assert cli.main(given) == 1
    out = capsys.readouterr().out
    assert out.startswith("split torn v1 of weightzoo/tiny: 11 train")
    assert "init groups: LEAK 1 (0 across zoos): " in out
    assert cli.main(["audit", str(tiny_zoo), str(tiny_zoo), "--target", "subset"]) == 1
    assert "The target 'subset' of weightzoo/tiny is of type string" in capsys.readouterr().err
    assert cli.main(["audit", str(tiny_zoo), "--split", str(tmp_path / "none.json")]) == 2
    assert "There is no split at" in capsys.readouterr().err


HOSTILE = "\x1b]0;owned\x07<script>alert(1)</script>`|\n| forged | row |\u202e"


def renamed(zoo: Path) -> Path:
    """The zoo with a level, an engine and a source that a terminal or a page would obey."""
    path = zoo / "manifest.json"
    record = json.loads(path.read_text())
    record["axes"]["activation"][0] = HOSTILE
    record["engines"][0]["version"] = HOSTILE
    record["sources"][0]["id"] = HOSTILE
    record["identity"]["document"]["license"] = HOSTILE
    write_manifest(path, record)
    return zoo


@pytest.mark.slow
def test_names_of_a_stranger_are_shown_and_not_obeyed(tiny_copy: Path, capsys: Said) -> None:
    zoo = renamed(tiny_copy)
    assert cli.main(["show", str(zoo)]) == 0
    cli.main(["check", str(zoo)])
    cli.main(["list", str(zoo.parent)])
    said = capsys.readouterr()
    described = repr(open_zoo(zoo))
    assert r"axis activation: \x1b]0;owned\x07<script>" in said.out
    for text in (said.out, said.err, described):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\n| forged" not in text


@pytest.mark.slow
def test_the_card_of_a_stranger_shows_names_as_text(tiny_copy: Path) -> None:
    zoo = renamed(tiny_copy)
    manifest = Manifest.read(zoo)
    text = card.render(manifest, read_table(zoo, manifest, "models"))
    head, body = text.split("---\n", 2)[1:]
    assert yaml.safe_load(head)["license"] == "other"
    assert "\x1b" not in body
    assert "\n| forged" not in body
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<script" not in html
    assert html.count("<table>") == 2
    assert "forged</td>" not in html


def test_list_finds_zoos_below_a_folder_and_warns_of_bad_ones(
    tiny_copy: Path, tmp_path: Path, capsys: Said, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/manifest.json").write_text("{")
    assert cli.main(["list", str(tmp_path / "copy")]) == 0
    assert capsys.readouterr().out.split("\t")[:2] == ["weightzoo/tiny", "16 models"]
    assert cli.main(["list", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("weightzoo/tiny\t")
    assert "broken/manifest.json is not JSON" in said.err
    (tmp_path / "receipt").mkdir()
    shutil.copy(tiny_copy / "manifest.json", tmp_path / "receipt")
    assert cli.main(["list", str(tmp_path / "receipt")]) == 0
    assert "weightzoo/tiny\ta receipt: `python -m zoo_builder verify --rebuild` builds it" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    assert cli.main(["list", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().err == f"No zoos under {tmp_path / 'none'}.\n"
    assert cli.main(["list", "weightzoo/nowhere"]) == 2
    assert "on the Hub name an owner, like `weightzoo`" in capsys.readouterr().err


@pytest.mark.slow
def test_publish_list_show_and_download_over_the_hub(
    loopback: LoopbackHub, dressed: Path, tmp_path: Path, capsys: Said
) -> None:
    assert cli.main(["publish", str(dressed), NAME, "--tag", "v1", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("weightzoo/tiny: 19 files, ")
    assert 'load_dataset("weightzoo/tiny", split="train")' in out
    assert cli.main(["publish", str(dressed), NAME, "--tag", "v1", "--quiet"]) == 0
    assert "nothing to upload" in capsys.readouterr().out
    loopback.put("weightzoo/no-zoo", {"README.md": b"---\ntags:\n- other\n---\n"})
    assert cli.main(["list", "weightzoo"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == [NAME]
    loopback.log.clear()
    assert cli.main(["show", NAME, "--revision", "v1"]) == 0
    assert "test accuracy: 0." in capsys.readouterr().out
    assert loopback.sent("/weights/") == 0
    assert cli.main(["download", NAME, str(tmp_path / "got"), "--revision", "v1"]) == 0
    assert capsys.readouterr().out.endswith("fetched, every file verified\n")
    assert tree_of(tmp_path / "got") == tree_of(dressed)
    assert cli.main(["download", NAME, str(tmp_path / "got")]) == 0
    assert capsys.readouterr().out.endswith("already there, whole\n")


def test_what_is_not_there_is_a_mistake_in_the_call(loopback: LoopbackHub, capsys: Said) -> None:
    for call in (["show", "weightzoo/none"], ["download", "weightzoo/none"], ["publish", "nowhere", NAME]):
        assert cli.main(call) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: No ")


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "download", interrupted)
    assert cli.main(["download", NAME]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
