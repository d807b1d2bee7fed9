"""A download's target may be any folder, or none that can be: then one sentence says why."""

from __future__ import annotations

import os
import re
import resource
import shutil
from pathlib import Path

import pytest
from hub_server import NAME, LoopbackHub, tree_of

from zoo_datasets import cli
from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.hub.download import download

pytest_plugins = ("hub_fixtures",)

SHARD = "weights/train-00000-of-00001.safetensors"
Said = pytest.CaptureFixture[str]


@pytest.mark.parametrize("left", [(), (".DS_Store", "._x")])
@pytest.mark.slow
def test_the_current_folder_becomes_the_zoo_and_stays_the_same_folder(
    left: tuple[str, ...], published: LoopbackHub, tiny_dressed: Path, capsys: Said
) -> None:
    for name in left:
        Path(name).touch()
    before = os.stat(".").st_ino
    assert cli.main(["download", NAME, "."]) == 0
    assert capsys.readouterr().out.startswith(".: ")
    assert os.stat(".").st_ino == before == os.stat(Path.cwd()).st_ino
    assert tree_of(Path()) == {**tree_of(tiny_dressed), **dict.fromkeys(left, b"")}
    published.log.clear()
    assert cli.main(["download", NAME, "."]) == 0
    assert capsys.readouterr().out == ".: already there, whole\n"
    assert published.sent("/resolve/") == 0


@pytest.mark.slow
def test_a_download_into_the_current_folder_goes_on_where_it_was_cut(
    published: LoopbackHub, tiny_dressed: Path
) -> None:
    size = (tiny_dressed / SHARD).stat().st_size
    published.cut_bytes, published.cuts_left, published.down_after = size - 1, 1, 1
    with pytest.raises(ZooError, match="What came is kept"):
        download(NAME, Path())
    assert [p.name for p in Path().iterdir()] == [".scratch-download"]
    published.down, published.down_after = False, None
    # Killed between two of the last renames: some files are in their places, and no manifest yet.
    for path in ("data/models/test-00000-of-00001.parquet", "data/models/train-00000-of-00001.parquet"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        (Path(".scratch-download") / path).replace(path)
    Path("data/models/train-00000-of-00001.parquet").write_bytes(b"torn")
    published.log.clear()
    download(NAME, Path())
    assert tree_of(Path()) == tree_of(tiny_dressed)
    assert published.sent("data/models/test") == 0
    assert (
        published.sent("data/models/train")
        == (tiny_dressed / "data/models/train-00000-of-00001.parquet").stat().st_size
    )
    assert published.sent(SHARD) == 1


@pytest.mark.slow
def test_the_manifest_is_the_last_file_that_comes_into_a_folder(
    published: LoopbackHub, tiny_dressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that the zoo is whole: killed before it, the folder holds none."""
    move, placed = Path.replace, list[str]()

    def replace(path: Path, target: Path) -> Path:
        if Path(target).resolve().is_relative_to(Path.cwd()):
            placed.append(Path(target).resolve().relative_to(Path.cwd()).as_posix())
        return move(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    download(NAME, Path())
    own = [p for p in placed if not p.startswith(files.SCRATCH)]
    assert sorted(own) == sorted(tree_of(tiny_dressed))
    assert own[-1] == "manifest.json"


@pytest.mark.slow
@pytest.mark.parametrize("left", ["weights/other", SHARD])
def test_what_else_was_begun_in_the_same_place_is_not_mixed_in(
    left: str, published: LoopbackHub, tiny_dressed: Path, tmp_path: Path
) -> None:
    """Another zoo, and another version of this one, whose shards have the same size."""
    for staging in (tmp_path / ".scratch-got", tmp_path / "empty/.scratch-download"):
        (staging / left).parent.mkdir(parents=True)
        (staging / left).write_bytes(bytes((tiny_dressed / SHARD).stat().st_size))
    for folder in (tmp_path / "got", tmp_path / "empty"):
        download(NAME, folder)
        assert tree_of(folder) == tree_of(tiny_dressed)


@pytest.mark.slow
def test_a_card_that_came_in_part_is_not_kept_and_a_missing_one_is_brought(
    published: LoopbackHub, tiny_dressed: Path, tmp_path: Path
) -> None:
    card = (tiny_dressed / "README.md").read_bytes()
    published.instead = lambda path, _: [b"HTTP/1.1 200 OK\r\n\r\n", card[:300]] if path.endswith("README.md") else None
    got = tmp_path / "got"
    with pytest.raises(ZooError, match=r"README\.md .* came otherwise than the Hub lists it \(300 of [\d,]+ bytes\)"):
        download(NAME, got)
    assert not got.exists()
    published.instead = None
    download(NAME, got)
    (got / "README.md").unlink()
    assert download(NAME, got) == (got, len(card))
    assert tree_of(got) == tree_of(tiny_dressed)


def test_a_folder_that_holds_something_else_beside_a_cut_download_is_left_alone(
    published: LoopbackHub, tmp_path: Path
) -> None:
    (tmp_path / "got/.scratch-download").mkdir(parents=True)
    (tmp_path / "got/mine").touch()
    with pytest.raises(ZooError, match="holds something other than"):
        download(NAME, tmp_path / "got")


@pytest.mark.slow
def test_a_target_that_is_a_link_is_the_folder_it_leads_to(
    published: LoopbackHub, tiny_dressed: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    for link, target in (("one", "real"), ("two", "not-yet")):
        (tmp_path / link).symlink_to(tmp_path / target)
        download(NAME, tmp_path / link)
        assert (tmp_path / link).is_symlink()
        assert tree_of(tmp_path / target) == tree_of(tiny_dressed)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file", r"file is a file, and a zoo is a folder\. Name another, or remove it\."),
        ("file/below", r"/file.* cannot be written: (Not a directory|File exists)\. Choose another folder"),
        ("a" * 300, r" cannot be written: File name too long\. Choose another folder"),
        ("circle", r"circle.* (is no path of a folder|cannot be written): .*loop"),
        ("/proc/zoo", r"/proc/\S+ cannot be written: .*\. Choose another folder"),
    ],
)
def test_a_target_that_cannot_be_is_said_in_a_sentence(
    target: str, message: str, published: LoopbackHub, capsys: Said
) -> None:
    Path("file").touch()
    Path("circle").symlink_to("circle")
    assert cli.main(["download", NAME, target]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert re.match(f"error: .*{message}", said.err)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_said_and_what_came_is_kept(
    published: LoopbackHub, tiny_dressed: Path, tmp_path: Path
) -> None:
    size = (tiny_dressed / SHARD).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, before[1]))
    try:
        with pytest.raises(ZooError, match=r"cannot be written: File too large\. Choose another folder, or make room"):
            download(NAME, tmp_path / "got")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    published.log.clear()
    download(NAME, tmp_path / "got")
    assert tree_of(tmp_path / "got") == tree_of(tiny_dressed)
    assert published.sent(SHARD) == 1000


def test_a_folder_is_copied_like_a_zoo_of_the_hub(
    tiny_dressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["download", str(tiny_dressed), "copy"]) == 0
    assert tree_of(tmp_path / "copy") == tree_of(tiny_dressed)
    broken = Path(shutil.copytree(tiny_dressed, tmp_path / "broken"))
    with (broken / SHARD).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(IntegrityError, match="has other contents than were sealed"):
        download(broken, tmp_path / "of-broken")
    assert not (tmp_path / "of-broken").exists()


def test_what_the_disk_refuses_is_a_sentence_and_our_own_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=rf"{tmp_path} cannot be written: Is a directory\. Do that\."):
        with files.writing(tmp_path, "Do that."):
            tmp_path.open("wb")
    with pytest.raises(ZooError, match=r"there cannot be written: no words\. Do that\."):
        with files.writing(Path("there"), "Do that."):
            raise OSError("no words")
    with pytest.raises(IntegrityError, match="ours"):
        with files.writing(tmp_path, "Do that."):
            raise IntegrityError("ours")


@pytest.mark.parametrize("verb", ["check", "show", "list", "publish"])
def test_a_path_that_cannot_be_looked_at_is_said_by_every_command(
    verb: str, loopback: LoopbackHub, capsys: Said
) -> None:
    assert cli.main([verb, "a" * 300, *([NAME] if verb == "publish" else [])]) == 2
    assert re.fullmatch(r"error: a+ cannot be looked at: File name too long\.\n", capsys.readouterr().err)
