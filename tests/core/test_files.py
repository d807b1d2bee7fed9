"""Files are whole or not there, and paths stay inside their folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.format.paths import ZooPaths


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file"
    with files.atomic(path) as out:
        out.write(b"first ")
        assert not path.exists()
        out.write(b"second")
    assert path.read_bytes() == b"first second"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_failed_write_leaves_the_old_file_and_no_scratch(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    files.write_atomic(path, "old")

    def write() -> None:
        with files.atomic(path) as out:
            out.write(b"half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_scratch_file_of_a_killed_writer_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / f"{files.SCRATCH}{os.getpid()}-file").write_bytes(b"left by a process of the same number")
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_scratch_file_lies_in_the_same_folder(tmp_path: Path) -> None:
    with files.atomic(tmp_path / "file"):
        names = [p.name for p in tmp_path.iterdir()]
    assert len(names) == 1
    assert names[0].startswith(files.SCRATCH)


def test_a_folder_in_the_place_of_the_file_is_an_error_without_scratch(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomic(tmp_path / "file", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_equal_values_are_equal_bytes_of_json(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"b": [1, "é"], "a": None})
    files.write_json(tmp_path / "b", {"a": None, "b": [1, "é"]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_text(encoding="utf-8") == '{\n "a": null,\n "b": [\n  1,\n  "é"\n ]\n}\n'
    assert json.loads((tmp_path / "a").read_bytes()) == {"a": None, "b": [1, "é"]}


def test_a_record_is_path_size_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "weights" / "x"
    files.write_atomic(path, b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert files.sha256(path) == digest
    assert files.record(tmp_path, path) == {"path": "weights/x", "bytes": 3, "sha256": digest}


@pytest.mark.parametrize("relative", ["a", "data/models/x.parquet", "./a", "a/./b", "...", "a..b"])
def test_paths_inside_are_given_back(tmp_path: Path, relative: str) -> None:
    assert files.inside(tmp_path, relative) == tmp_path / relative


@pytest.mark.parametrize("relative", ["../a", "a/../../b", "a/..", "..", "/etc/passwd", "", ".", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, relative: str) -> None:
    with pytest.raises(IntegrityError, match=r"leaves the folder .* damaged or hostile"):
        files.inside(tmp_path, relative)


@pytest.mark.parametrize("link", ["data", "data/models", "data/models/x"])
def test_links_on_the_way_are_refused(tmp_path: Path, link: str) -> None:
    (tmp_path / "outside" / "models").mkdir(parents=True)
    root = tmp_path / "zoo"
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(tmp_path / "outside")
    with pytest.raises(IntegrityError, match="is a symbolic link; a zoo holds plain files only"):
        files.inside(root, "data/models/x")


SNAPSHOT = "datasets--a--b/snapshots/" + "0123456789" * 4


@pytest.mark.parametrize(
    ("root", "link", "target", "held"),
    [
        (SNAPSHOT, "data/x", "../../../blobs/d", True),
        (SNAPSHOT, "x", "../../blobs/d", True),
        (SNAPSHOT, "x", "y", True),  # which is a link to a blob itself
        (SNAPSHOT, "x", "../../../blobs/d", False),  # beside the repository
        (SNAPSHOT, "x", "../../blobs/away", False),  # a blob that is a link out
        (SNAPSHOT, "x", "../../blobs/deep/d", False),
        (SNAPSHOT, "x", "../../refs/main", False),
        (SNAPSHOT, "x", "/etc/passwd", False),
        (SNAPSHOT, "data", "../../blobs", False),  # a folder
        ("models--a--b/snapshots/" + "0" * 40, "x", "../../blobs/d", False),
        ("datasets--a--b/snapshots/main", "x", "../../blobs/d", False),
        ("datasets--a--b/other/" + "0" * 40, "x", "../../blobs/d", False),
        ("zoo/tiny/here", "x", "../../blobs/d", False),
    ],
)
@pytest.mark.parametrize("linked", [False, True])
def test_links_of_the_hubs_cache_to_its_own_blobs_are_followed_and_no_others(
    tmp_path: Path, root: str, link: str, target: str, held: bool, linked: bool
) -> None:
    folder = tmp_path / root
    for name in ("blobs/deep", "refs"):
        (folder.parents[1] / name).mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    for path in (tmp_path / "blobs/d", *(folder.parents[1] / f for f in ("blobs/d", "blobs/deep/d", "refs/main"))):
        path.write_bytes(b"bytes")
    (folder.parents[1] / "blobs/away").symlink_to(tmp_path / "blobs/d")
    folder.mkdir(parents=True)
    (folder / "y").symlink_to("../../blobs/d")
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(target)
    relative = "data/d" if link == "data" else link
    if linked:
        (tmp_path / "short").symlink_to(folder)
        folder = tmp_path / "short"
    if held:
        assert files.inside(folder, relative).read_bytes() == b"bytes"
    else:
        with pytest.raises(IntegrityError, match="is a symbolic link; a zoo holds plain files only"):
            files.inside(folder, relative)


def test_a_repository_whose_blobs_are_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / SNAPSHOT).mkdir(parents=True)
    (tmp_path / "away").mkdir()
    (tmp_path / "away/d").touch()
    (tmp_path / "datasets--a--b/blobs").symlink_to(tmp_path / "away")
    (tmp_path / SNAPSHOT / "x").symlink_to("../../blobs/d")
    with pytest.raises(IntegrityError, match="is a symbolic link"):
        files.inside(tmp_path / SNAPSHOT, "x")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert files.inside(tmp_path / "link", "a") == tmp_path / "link" / "a"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_fsync_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Network disks and those of user space refuse it, of folders above all."""

    def refused(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    files.write_atomic(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        files.write_atomic(tmp_path / "file", b"lost")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_no_temporary_folder_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with files.temporary("x-") as folder:
        assert Path(folder).is_dir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(
        ZooError, match=r"There is no temporary folder: No such .* Set TMPDIR to one that is writable\."
    ):
        files.temporary("x-")


def test_paths_of_a_zoo_are_those_of_the_format() -> None:
    paths = ZooPaths("zoo")
    assert paths.table("models", "train", 0, 2) == Path("zoo/data/models/train-00000-of-00002.parquet")
    assert paths.shard("test") == Path("zoo/weights/test-00000-of-00001.safetensors")
    assert (paths.card, paths.manifest, paths.grid) == (
        Path("zoo/README.md"),
        Path("zoo/manifest.json"),
        Path("zoo/grid.yaml"),
    )
    assert paths.build in paths.commit("c").parents
    assert paths.build in paths.checkpoint("c").parents


def test_a_folder_that_may_be_written_and_not_read_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refused(path: Any, flags: int, *more: Any) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "no")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refused)
    files.write_atomic(tmp_path / "new" / "file", b"x")
    assert (tmp_path / "new" / "file").read_bytes() == b"x"


def test_new_folders_are_on_the_disk_before_what_is_written_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's own entry lies in its parent: a power cut could leave a manifest and take the tables."""
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    files.write_atomic(tmp_path / "a" / "b" / "file", b"x")
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    files.write_atomic(tmp_path / "a" / "b" / "other", b"x")
    assert synced == [tmp_path / "a" / "b"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux alone has files that say they are empty")
def test_a_file_that_says_it_is_empty_is_read_whole_and_is_bounded() -> None:
    path = Path("/proc/self/maps")
    assert path.stat().st_size == 0
    found = files.read_bounded(path, 1 << 24)
    assert len(found) > 1000
    assert found.endswith(b"\n")
    with pytest.raises(IntegrityError, match="is larger than 100 bytes"):
        files.read_bounded(path, 100)
