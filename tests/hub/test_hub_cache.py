"""A zoo in the Hugging Face cache: its links are read, and what the cache holds needs no Hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import NAME, QUIET, LoopbackHub, tree_of

from zoo_builder import verify
from zoo_datasets import cli
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import check
from zoo_datasets.hub import client, download, lookup, publish
from zoo_datasets.zoo import open_zoo

pytest_plugins = ("hub_fixtures",)

SHARD = "weights/train-00000-of-00001.safetensors"
Said = pytest.CaptureFixture[str]


@pytest.fixture
def snapshot(published: LoopbackHub, tmp_path: Path) -> Path:
    """The tiny zoo as `snapshot_download` leaves it: links to the blobs of the cache."""
    folder = Path(client.api().snapshot_download(NAME, repo_type="dataset", cache_dir=tmp_path / "cache"))
    assert (folder / SHARD).is_symlink()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("reached", ["itself", "a link", "a folder that is a link"])
def test_a_snapshot_of_the_hubs_library_is_a_zoo_like_any_other(
    reached: str, snapshot: Path, tiny_dressed: Path, tmp_path: Path, capsys: Said
) -> None:
    if reached == "a link":
        (tmp_path / "zoo").symlink_to(snapshot)
        folder = tmp_path / "zoo"
    elif reached == "itself":
        folder = snapshot
    else:
        (tmp_path / "above").symlink_to(snapshot.parent)
        folder = tmp_path / "above" / snapshot.name
    found, mine = open_zoo(folder, verify=True), open_zoo(tiny_dressed)
    assert found.table().equals(mine.table())
    assert (found.weights[:] == mine.weights[:]).all()
    assert found.to_hf(["model_id"]).num_rows == len(mine)
    assert check.check(folder).problems == []
    assert verify.verify(folder, retrain=1).problems == []
    for call in (["check", folder], ["show", folder], ["list", folder.parent], ["audit", folder]):
        assert cli.main(list(map(str, call))) == 0
    assert "weightzoo/tiny\t16 models\t48 snapshots\t" in capsys.readouterr().out


@pytest.mark.slow
def test_load_dataset_reads_a_snapshot_as_it_reads_a_folder(snapshot: Path, tiny_dressed: Path, tmp_path: Path) -> None:
    import datasets

    rows = {
        path: datasets.load_dataset(str(path), split="train", cache_dir=str(tmp_path / name))
        for path, name in ((snapshot, "one"), (tiny_dressed, "two"))
    }
    assert rows[snapshot]["model_id"][:] == rows[tiny_dressed]["model_id"][:]


@pytest.mark.slow
def test_a_snapshot_with_another_link_or_a_missing_blob_is_refused(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes((snapshot / SHARD).read_bytes())
    blob = (snapshot / SHARD).resolve()
    (snapshot / SHARD).unlink()
    (snapshot / SHARD).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="is a symbolic link"):
        open_zoo(snapshot)
    (snapshot / SHARD).unlink()
    (snapshot / SHARD).symlink_to(blob)
    blob.unlink()
    with pytest.raises(IntegrityError, match="is missing: the zoo is damaged"):
        open_zoo(snapshot).weights[:]


def test_a_manifest_that_is_a_link_is_read_in_the_cache_alone(tiny_copy: Path, tmp_path: Path) -> None:
    shutil.move(tiny_copy / "manifest.json", tmp_path / "manifest.json")
    (tiny_copy / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(IntegrityError, match=r"'manifest.json' under .* is a symbolic link"):
        open_zoo(tiny_copy)


@pytest.mark.slow
def test_the_hubs_cache_is_not_written_to(snapshot: Path, published: LoopbackHub) -> None:
    before = tree_of(snapshot)
    with pytest.raises(ZooError, match=r"belongs to the Hub's cache, where nothing is written. `python -m zoo_dat"):
        publish.publish(snapshot, "weightzoo/other")
    assert tree_of(snapshot) == before
    assert list(published.repos) == [NAME]


# ── without a Hub ──


@pytest.mark.slow
def test_a_commit_that_was_seen_under_any_name_needs_no_hub(published: LoopbackHub) -> None:
    first = open_zoo(NAME)
    commit = published.repos[NAME].branches["main"]
    for path in first.manifest.files:
        first.location.path(path)
    published.log.clear()
    for again in (open_zoo(NAME, commit), open_zoo(f"hf://datasets/{NAME}", commit)):
        assert (again.weights[:] == first.weights[:]).all()
    assert published.log == []
    published.down = True
    assert len(open_zoo(NAME)) == len(first)
    with pytest.raises(ZooNotFoundError, match=r"not in the cache .*, and the Hub does not answer"):
        open_zoo(NAME, "v1")  # a name that was never asked for
    with pytest.raises(ZooNotFoundError, match=r"not in the cache .*, and the Hub does not answer"):
        open_zoo(NAME, "0" * 40)


def test_a_zoo_is_called_as_it_was_asked_for_wherever_it_lies(
    loopback: LoopbackHub, tiny_dressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest has the name that it was built under; code to copy and citations name the dataset that exists."""
    loopback.put("me/z", tree_of(tiny_dressed))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert open_zoo("me/z").name == "me/z"
    shutil.rmtree(tmp_path / "hub")
    folder = client.api().snapshot_download("me/z", repo_type="dataset", cache_dir=tmp_path / "hub")
    found = open_zoo("me/z")
    assert (found.name, found.location.root) == ("me/z", Path(folder).resolve())


@pytest.mark.some(1)
@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.slow
def test_what_snapshot_download_brought_is_found_without_a_hub(
    offline: bool, published: LoopbackHub, tiny_dressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    fetch = client.api().snapshot_download
    for revision in ("main", "v1"):
        folder = Path(fetch(NAME, revision=revision, repo_type="dataset", cache_dir=tmp_path / "hub"))
    published.log.clear()
    assert (
        open_zoo(NAME).location.root == folder.resolve()
    )  # the Hub is asked for the newest commit, and for nothing else
    assert [r.path for r in published.log] == [f"/api/datasets/{NAME}"]
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    published.down = True
    for revision in (None, "v1", folder.name):
        found = open_zoo(NAME, revision)
        assert found.location.root == folder.resolve()
        assert (found.weights[:] == open_zoo(tiny_dressed).weights[:]).all()
    with pytest.raises(ZooNotFoundError, match="and the Hub does not answer"):
        open_zoo(NAME, "../v1")
    made, moved = download.download(NAME, tmp_path / "made")
    assert tree_of(made) == tree_of(tiny_dressed)
    assert not [p for p in made.rglob("*") if p.is_symlink()]
    assert moved
    (folder / SHARD).unlink()  # a snapshot that is not whole still gives what it has
    assert len(open_zoo(NAME)) == 48
    published.down = offline
    if not offline:  # and with a Hub the rest comes from there
        for revision in (folder.name, None):
            assert (open_zoo(NAME, revision).weights[:] == open_zoo(tiny_dressed).weights[:]).all()
        return
    with pytest.raises(IntegrityError, match="is missing"):
        open_zoo(NAME).weights[:]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"HF_HOME": "h"}, "h/zoos"),
        ({"HF_HOME": "h", "HF_HUB_CACHE": "c"}, "c/zoos"),
        ({"HF_HUB_CACHE": "$PLACE/c", "PLACE": "p"}, "p/c/zoos"),
        ({"XDG_CACHE_HOME": "x"}, "x/huggingface/zoos"),
        ({"HF_HOME": "h", "HF_HUB_CACHE": "file"}, "h/zoos"),
    ],
)
def test_zoos_are_kept_where_the_environment_says(
    named: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value if value[0] == "$" else str(tmp_path / value))
    if "file" in named.values():
        (tmp_path / "file").touch(0o400)
        monkeypatch.setattr(os, "access", lambda *_: False)  # who may everything is refused nothing
    assert lookup.default_cache() == tmp_path / expected


# A warm cache on a file system that cannot be written, and one that is full.
ON_OTHER_DISKS = """
import json, subprocess, sys
from pathlib import Path
from zoo_datasets import cli
from zoo_datasets.errors import ZooError
from zoo_datasets.zoo import open_zoo
name, disk = sys.argv[1], Path(sys.argv[2])
said = []
def attempt(call):
    try:
        said.append(call())
    except ZooError as error:
        said.append(str(error))
def whole(revision, cache):
    zoo = open_zoo(name, revision, cache_dir=disk / cache)
    for path in zoo.manifest.files:
        zoo.location.path(path)
    return float(zoo.weights[:].sum())
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
whole(None, "cache")
commit = open_zoo(name, cache_dir=disk / "cache").location.commit
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
for revision in (None, "v1", commit):
    attempt(lambda: whole(revision, "cache"))
attempt(lambda: whole(None, "cold"))
cli.main(["download", name, str(disk / "new")])
subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
subprocess.run(["rm", "-r", str(disk / "cache")], check=True)
(disk / "empty").mkdir()
subprocess.run(["mount", "-o", "remount,size=100k", str(disk)], check=True)
attempt(lambda: whole(None, "full"))
for folder in ("new", "empty"):
    cli.main(["download", name, str(disk / folder)])
subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
attempt(lambda: whole(None, "full"))
for folder in ("new", "empty"):
    assert cli.main(["download", name, str(disk / folder)]) == 0
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_read_only_warm_cache_is_read_and_a_full_disk_is_said(
    published: LoopbackHub, tiny_dressed: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no `unshare` to make a small disk with")
    inside = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--mount", "--map-root-user"]
    if subprocess.run([*inside, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    (tmp_path / "disk").mkdir()
    command = [*inside, sys.executable, "-c", ON_OTHER_DISKS, NAME, str(tmp_path / "disk")]
    more = {**environment, **QUIET, "HF_ENDPOINT": published.endpoint}
    done = subprocess.run(command, cwd=tmp_path / "work", env=more, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    total = float(open_zoo(tiny_dressed).weights[:].sum())
    *warm, cold, full, more_room = json.loads(done.stdout.splitlines()[-1])
    assert warm == [total] * 3
    assert re.fullmatch(r"/\S+ cannot be written: Read-only file system. Set HF_HOME to a folder .*", cold)
    assert re.fullmatch(r"/\S+ cannot be written: No space left on device. Set HF_HOME to a folder .*", full)
    assert more_room == total
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert "new cannot be written: Read-only file system. Choose another folder" in errors[0].replace(".scratch-", "")
    assert all("cannot be written: No space left on device. Choose another folder" in e for e in errors[1:])
    assert "fetched, every file verified" in done.stdout
