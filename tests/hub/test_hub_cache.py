"""A zoo in the Hugging Face cache: its links are read, and what the cache holds needs no Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hub_server import NAME, LoopbackHub, tree_of

from zoo_builder import verify
from zoo_datasets import cli
from zoo_datasets.errors import IntegrityError, ZooError
from zoo_datasets.format import check
from zoo_datasets.hub import client, publish
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


def test_load_dataset_reads_a_snapshot_as_it_reads_a_folder(snapshot: Path, tiny_dressed: Path, tmp_path: Path) -> None:
    import datasets

    rows = {
        path: datasets.load_dataset(str(path), split="train", cache_dir=str(tmp_path / name))
        for path, name in ((snapshot, "one"), (tiny_dressed, "two"))
    }
    assert rows[snapshot]["model_id"][:] == rows[tiny_dressed]["model_id"][:]


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


def test_the_hubs_cache_is_not_written_to(snapshot: Path, published: LoopbackHub) -> None:
    before = tree_of(snapshot)
    with pytest.raises(ZooError, match=r"belongs to the Hub's cache, where nothing is written. `python -m zoo_dat"):
        publish.publish(snapshot, "weightzoo/other")
    assert tree_of(snapshot) == before
    assert list(published.repos) == [NAME]
