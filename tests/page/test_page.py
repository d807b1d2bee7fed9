"""The file that holds a page: its policy, where it may lie, its command; and the bundle is what its sources give."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_pages import external, packed_in

from zoo_datasets import cli
from zoo_datasets.errors import ZooError
from zoo_datasets.format import check
from zoo_datasets.page import page
from zoo_datasets.zoo import Zoo

pytest_plugins = ("reader_fixtures",)
APP = Path(page.__file__).parent / "app"


def test_the_page_runs_one_script_by_its_hash_and_fetches_nothing(zoo: Zoo) -> None:
    text = page.render(zoo)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])  # type: ignore[index]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(scripts) == 1
    for kind, source in (("script", scripts[0]), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"unsafe|https?:|\*", policy)
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", style + scripts[0])
    assert len(scripts[0]) + len(style) < 400_000
    assert len(packed_in(text)[0]["ids"]) == 16


def test_a_title_is_text(tmp_path: Path) -> None:
    text = page.render(external(tmp_path / "z", {"lr": [0.1, 0.2]}), "a/</title><script>alert(1)</script>")
    assert "<title>a/&lt;/title&gt;&lt;script&gt;" in text


@pytest.mark.slow
def test_the_command_writes_a_page_beside_and_the_zoo_stays_whole(
    tiny_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["page", str(tiny_copy)]) == 0
    assert capsys.readouterr().out.startswith("zoo.html: ")
    assert (tmp_path / "zoo.html").read_text().startswith("<!doctype html>")
    assert cli.main(["page", str(tiny_copy), "--out", str(tiny_copy / "zoo.html")]) == 0
    report = check.check(tiny_copy)
    assert (report.problems, report.warnings) == ([], [])


@pytest.mark.parametrize("name", ["manifest.json", "grid.yaml", "weights/page.html", "other.html"])
def test_a_page_takes_no_place_inside_a_zoo_but_its_own(name: str, tiny_copy: Path) -> None:
    before = (tiny_copy / "manifest.json").read_bytes()
    assert cli.main(["page", str(tiny_copy), "--out", str(tiny_copy / name)]) == 1
    assert (tiny_copy / "manifest.json").read_bytes() == before
    assert not (tiny_copy / "other.html").exists()


def test_what_cannot_be_written_or_found_is_one_sentence(
    tiny_zoo: Path, tmp_path: Path, zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ZooError, match="is a folder; name the file"):
        page.write(zoo, tmp_path)
    (tmp_path / "file").write_text("")
    assert cli.main(["page", str(tiny_zoo), "--out", str(tmp_path / "file" / "zoo.html")]) == 1
    assert cli.main(["page", str(tmp_path / "nowhere"), "--out", str(tmp_path / "p.html")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    (tmp_path / "circle").symlink_to("circle")
    for name in (
        ("circle/x.html", "circle") if sys.version_info < (3, 13) else ("circle/x.html",)
    ):  # which takes its place
        assert cli.main(["page", str(tiny_zoo), "--out", str(tmp_path / name)]) == 1
        assert re.fullmatch(rf"error: .*{name}.*\. Name another place.*\.\n", capsys.readouterr().err)
    with pytest.raises(ZooError, match="is no path of a file: embedded null"):
        page.write(zoo, Path("a\0b"))


def test_its_sources_are_one_version_of_one_tool() -> None:
    told = json.loads((APP / "package.json").read_text())
    locked = json.loads((APP / "package-lock.json").read_text())
    assert "dependencies" not in told  # all that runs in the page is written here
    assert locked["packages"]["node_modules/esbuild"]["version"] == told["devDependencies"]["esbuild"]


@pytest.mark.slow
def test_the_bundle_is_what_its_sources_give(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine")
    shutil.copytree(APP, tmp_path / "app", ignore=shutil.ignore_patterns("node_modules"))
    got = subprocess.run([npm, "ci", "--silent"], cwd=tmp_path / "app", capture_output=True, text=True, timeout=240)
    if got.returncode:
        pytest.skip(f"npm cannot install esbuild here: {got.stderr[-200:]}")
    subprocess.run([npm, "run", "build"], cwd=tmp_path / "app", check=True, capture_output=True, timeout=120)
    for name in ("page.js", "page.css"):
        assert (tmp_path / "bundle" / name).read_text() == page.bundle(name), "build it: npm ci && npm run build"
