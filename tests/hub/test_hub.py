"""A zoo is found here or on the Hub, and nothing that comes from elsewhere is believed unchecked."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import NAME, LoopbackHub, edit_manifest, tree_of
from hypothesis import given
from hypothesis import strategies as st

from zoo_datasets.core import files
from zoo_datasets.core.ranges import Span
from zoo_datasets.errors import FormatVersionError, IntegrityError, ZooNotFoundError
from zoo_datasets.format.manifest import seal
from zoo_datasets.format.tables import read_table
from zoo_datasets.hub import client, lookup, remote
from zoo_datasets.reading import columns
from zoo_datasets.reading.location import MOST_GAP_BYTES, coalesce

pytest_plugins = ("hub_fixtures",)

SHARD = "weights/train-00000-of-00001.safetensors"
SPANS = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 100)), max_size=20)


# ── spans ──


@given(SPANS)
def test_coalesced_spans_cover_the_asked_ones_in_at_most_twice_their_bytes(spans: list[Span]) -> None:
    merged = coalesce(spans)
    covered = {i for offset, length in spans for i in range(offset, offset + length)}
    moved = [i for offset, length in merged for i in range(offset, offset + length)]
    assert covered <= set(moved)
    assert moved == sorted(set(moved))
    assert len(moved) <= 2 * len(covered)


def test_a_wide_gap_is_asked_around_however_long_the_spans() -> None:
    wide = 3 * MOST_GAP_BYTES
    assert len(coalesce([(0, wide), (wide + MOST_GAP_BYTES + 1, wide)])) == 2
    assert len(coalesce([(0, wide), (wide + MOST_GAP_BYTES, wide)])) == 1


@given(spans=SPANS)
def test_ranges_of_a_local_zoo_are_the_bytes_of_the_file(tiny_zoo: Path, spans: list[Span]) -> None:
    data = (tiny_zoo / SHARD).read_bytes()
    assert lookup.locate(tiny_zoo).ranges(SHARD, spans) == [data[a : a + n] for a, n in spans]


def test_a_span_beyond_the_end_is_refused(tiny_zoo: Path) -> None:
    size = (tiny_zoo / SHARD).stat().st_size
    with pytest.raises(IntegrityError, match=f"has {size:,} bytes; 2 at {size - 1:,} are not in it"):
        lookup.locate(tiny_zoo).ranges(SHARD, [(size - 1, 2)])


# ── a local folder ──


def test_a_folder_is_found_by_path_and_by_its_id_from_the_folder_above(
    tiny_zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_zoo.parents[1])
    for name in (tiny_zoo, str(tiny_zoo), "weightzoo/tiny"):
        found = lookup.locate(name)
        assert (found.name, found.root, found.is_local) == ("weightzoo/tiny", tiny_zoo.resolve(), True)
        assert found.path(SHARD) == tiny_zoo.resolve() / SHARD


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", r"No folder nowhere .*an id of the Hub, which reads `owner/name`"),
        ("./no/where", "No folder ./no/where"),
        ("a/b/c", "No folder a/b/c"),
        (Path("weightzoo/x"), "No folder weightzoo/x"),
        ("README.md", "README.md is a file; a zoo is a folder"),
        ("empty", "holds no zoo: it has no manifest.json"),
        ("building", "is not finished: run its build command again"),
    ],
)
def test_what_is_no_zoo_is_said_to_be_none(
    name: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README.md").touch()
    Path("empty").mkdir()
    Path("building/.build").mkdir(parents=True)
    with pytest.raises(ZooNotFoundError, match=message):
        lookup.locate(name)


def test_a_revision_of_a_local_folder_is_refused_with_the_way_around(tiny_zoo: Path) -> None:
    with pytest.raises(
        ZooNotFoundError, match=r"is a local folder, which has no revisions \(asked for 'v1'\).*hf://datasets/"
    ):
        lookup.locate(tiny_zoo, "v1")


def test_a_newer_format_is_refused(tiny_copy: Path) -> None:
    edit_manifest(tiny_copy, lambda m: m.update(format_version=2))
    with pytest.raises(
        FormatVersionError, match=r"has format version 2; this library reads up to 1. Upgrade weightzoo"
    ):
        lookup.locate(tiny_copy)


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "data/../../outside", ""])
def test_a_manifest_that_leaves_the_folder_is_refused(path: str, tiny_copy: Path) -> None:
    edit_manifest(tiny_copy, lambda m: m["files"][3].update(path=path))
    with pytest.raises(IntegrityError, match="leaves the folder"):
        lookup.locate(tiny_copy)


def test_a_link_in_the_place_of_a_file_is_refused(tiny_copy: Path, tmp_path: Path) -> None:
    (tiny_copy / SHARD).rename(tmp_path / "elsewhere")
    (tiny_copy / SHARD).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="is a symbolic link"):
        lookup.locate(tiny_copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": -1}, r"`files\[3\].bytes` is -1, not a whole number of 0 or more"),
        ({"bytes": "12"}, r"`files\[3\].bytes` is '12', not a whole number"),
        ({"sha256": "00"}, "false entry"),
        ({"sha256": None}, r"`files\[3\].sha256` is None, not a string"),
        ({"path": None}, r"`files\[3\].path` is None, not a string"),
        ({"path": "grid.yaml"}, "false entry for 'grid.yaml'"),
        ({"path": "data//x"}, "false entry"),
        ({"path": "README.md"}, "false entry"),
        ({"path": "d/" * 3_000 + "x"}, "false entry"),
        ({"path": ".git/hooks/post-checkout"}, "false entry"),
    ],
)
def test_a_false_entry_of_a_manifest_is_refused(change: dict[str, Any], message: str, tiny_copy: Path) -> None:
    edit_manifest(tiny_copy, lambda m: m["files"][3].update(change))
    with pytest.raises(IntegrityError, match=message):
        lookup.locate(tiny_copy)


@pytest.mark.parametrize("missing", ["files", "counts", "zoo"])
def test_a_manifest_without_its_parts_is_refused(missing: str, tiny_copy: Path) -> None:
    edit_manifest(tiny_copy, lambda m: m.pop(missing))
    with pytest.raises(IntegrityError, match=f"is damaged or hostile: it has no `{missing}`. Fetch or build"):
        lookup.locate(tiny_copy)


def test_a_parquet_bomb_is_refused_before_it_is_opened(tiny_copy: Path) -> None:
    edit_manifest(tiny_copy, lambda m: m["counts"]["snapshots"].update(train=10**12))
    with pytest.raises(
        IntegrityError, match=r"claims 1,000,000,000,000 rows of snapshots in [\d,]+ bytes of Parquet: a bomb"
    ):
        lookup.locate(tiny_copy)


def test_rows_are_compared_with_the_manifest_before_they_are_read(tiny_copy: Path) -> None:
    edit_manifest(tiny_copy, lambda m: m["counts"]["models"].update(train=3))
    location = lookup.locate(tiny_copy)
    with pytest.raises(IntegrityError, match="rows, the manifest says 3"):
        read_table(tiny_copy, location.manifest, "models")


def test_a_truncated_or_missing_file_is_found_on_first_touch(tiny_copy: Path) -> None:
    data = (tiny_copy / SHARD).read_bytes()
    (tiny_copy / SHARD).write_bytes(data[:-1])
    location = lookup.locate(tiny_copy)
    with pytest.raises(IntegrityError, match=r"bytes, the manifest says .* Fetch or build the zoo again"):
        location.path(SHARD)
    (tiny_copy / SHARD).unlink()
    with pytest.raises(IntegrityError, match="is missing: the zoo is damaged"):
        location.ranges(SHARD, [(0, 4)])


def test_an_unknown_file_is_named_with_its_nearest(tiny_zoo: Path) -> None:
    location = lookup.locate(tiny_zoo)
    with pytest.raises(
        IntegrityError, match=r"Unknown file 'weights/train.safetensors'.*Did you mean `weights/train-0"
    ):
        location.path("weights/train.safetensors")


# ── the Hub ──


def test_a_local_folder_wins_and_the_prefix_passes_it_by(published: LoopbackHub, tiny_zoo: Path) -> None:
    shutil.copytree(tiny_zoo, NAME)
    assert lookup.locate(NAME).is_local
    assert not published.log
    assert not lookup.locate(f"hf://datasets/{NAME}").is_local


def test_a_file_from_the_hub_is_whole_verified_and_fetched_once(published: LoopbackHub, tiny_dressed: Path) -> None:
    location = lookup.locate(NAME, "v1")
    assert location.path(SHARD).read_bytes() == (tiny_dressed / SHARD).read_bytes()
    assert location.path("manifest.json").read_bytes() == (tiny_dressed / "manifest.json").read_bytes()
    before = len(published.log)
    assert pickle.loads(pickle.dumps(location)).path(SHARD).is_file()  # noqa: S301
    assert location.ranges(SHARD, [(0, 8)])[0] == (tiny_dressed / SHARD).read_bytes()[:8]
    assert len(published.log) == before


@pytest.mark.some(1)
@pytest.mark.parametrize("cdn", [False, True])
@pytest.mark.slow
def test_64_rows_of_a_big_shard_move_at_most_twice_their_bytes(cdn: bool, loopback: LoopbackHub) -> None:
    rows, row_bytes = 2_000, 4 * 2_464
    data = random.Random(0).randbytes(rows * row_bytes)
    loopback.put("weightzoo/big", _bare(SHARD, data))
    loopback.cdn = cdn
    location = lookup.locate("weightzoo/big")
    for seed in range(3):
        asked = [(i * row_bytes, row_bytes) for i in random.Random(seed).sample(range(rows), 64)]
        loopback.log.clear()
        assert location.ranges(SHARD, asked) == [data[a : a + n] for a, n in asked]
        assert 64 * row_bytes <= loopback.sent() <= 2 * 64 * row_bytes
        assert len(loopback.log) <= 64 + cdn  # one redirect serves them all
    loopback.log.clear()
    assert location.ranges(SHARD, [(i * row_bytes, row_bytes) for i in range(100, 164)])
    assert [r.sent for r in loopback.log if r.sent] == [64 * row_bytes]


def _bare(path: str, data: bytes, **rows: int) -> dict[str, bytes]:
    """The least that is a zoo to `locate`: a manifest of one file."""
    import hashlib

    entry = {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {
        "format_version": 1, "zoo": "z/z", "files": [entry], "counts": {"models": rows, "snapshots": dict.fromkeys(rows, 0)}, "axes": {},
        "factors": [], "identity": {"document": {}}, "digests": {}, "architectures": {}, "layouts": {}, "sources": [],
        "weights_dtype": "float32",
    }  # fmt: skip
    return {path: data, "manifest.json": json.dumps(manifest).encode()}


@pytest.mark.slow
def test_a_column_of_a_large_table_comes_without_the_weights_beside_it(
    loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    accuracy = pa.array([i / 500 for i in range(500)])
    weights = pa.FixedSizeListArray.from_arrays(pa.array(range(500 * 1_000), pa.float32()), 1_000)
    ids = pa.array(map(str, range(500)))
    table = pa.table({"model_id": ids, "split": ids, "test_accuracy": accuracy, "weights": weights})
    name, sink = "data/models/train-00000-of-00001.parquet", pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none")
    data = sink.getvalue().to_pybytes()
    loopback.put(NAME, _bare(name, data, train=500))
    monkeypatch.setattr(columns, "MOST_FETCHED_BYTES", len(data) - 1)
    location = lookup.locate(NAME)
    loopback.log.clear()
    assert columns.Columns(location, "models").column("test_accuracy").combine_chunks().equals(accuracy)
    assert loopback.sent() < len(data) // 10
    assert not (location.root / name).exists()


def test_a_missing_zoo_a_wrong_revision_and_no_zoo_are_told_apart(published: LoopbackHub) -> None:
    with pytest.raises(
        ZooNotFoundError, match=r"No zoo 'weightzoo/none': no such folder under .*, no such dataset on the Hub"
    ):
        lookup.locate("weightzoo/none")
    with pytest.raises(ZooNotFoundError, match=r"has no revision 'v2'. It has: v1, main"):
        lookup.locate(NAME, "v2")
    published.create("weightzoo/other")
    with pytest.raises(
        ZooNotFoundError, match=r"has no manifest.json: it is not a zoo, or its publishing was not finished"
    ):
        lookup.locate("weightzoo/other")


@pytest.mark.slow
def test_without_a_hub_the_ways_out_are_named_and_what_was_seen_is_served(published: LoopbackHub) -> None:
    first = lookup.locate(NAME, "v1")
    first.path(SHARD)
    published.down = True
    again = lookup.locate(NAME, "v1")
    assert again == first
    assert again.path(SHARD).is_file()
    with pytest.raises(
        ZooNotFoundError, match=r"not in the cache .*, and the Hub does not answer .*Connect, set HF_ENDPOINT"
    ):
        lookup.locate(NAME)  # main was never seen
    with pytest.raises(ZooNotFoundError, match="The connection to the Hub broke at 0 of"):
        first.path("grid.yaml")
    with pytest.raises(ZooNotFoundError, match="The connection to the Hub broke while"):
        first.ranges("grid.yaml", [(0, 1)])


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://hub.example/datasets/a/b/resolve/main/x", True),
        ("https://hub.example:443/x", False),  # another port as it is written
        ("https://hub.example.evil/x", False),
        ("https://hub.example@evil/x", False),
        ("https://hub.examplez/x", False),
        ("http://hub.example/x", False),
        ("https://HUB.example/x", True),
    ],
)
def test_only_the_hubs_own_host_is_given_the_token(monkeypatch: pytest.MonkeyPatch, url: str, own: bool) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    assert client.is_the_hub(url) is own


def test_an_answer_longer_than_the_span_is_not_read_to_its_end() -> None:
    read = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield b"x" * 1000

    assert len(remote._at_most(2500, endless())) == 2501
    assert len(read) == 3


def test_a_refused_connection_and_offline_mode_are_said_at_once(
    loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ZooNotFoundError, match=r"the Hub does not answer \(.*refused\)"):
            lookup.locate(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZooNotFoundError, match=r"the Hub does not answer \(.*offline mode"):
        lookup.locate(NAME)


def test_a_pinned_revision_stays_and_equal_releases_share_their_files(
    published: LoopbackHub, tiny_dressed: Path
) -> None:
    old = lookup.locate(NAME, "v1")
    published.put(NAME, {"README.md": b"another card"})
    assert lookup.locate(NAME).root == old.root  # type: ignore[comparison-overlap]
    manifest = json.loads((tiny_dressed / "manifest.json").read_bytes())
    published.put(NAME, {"manifest.json": json.dumps(seal({**manifest, "zoo": "weightzoo/newer"})).encode()})
    assert lookup.locate(NAME).manifest.zoo == "weightzoo/newer"
    assert lookup.locate(NAME, "v1").manifest.zoo == "weightzoo/tiny"
    assert lookup.locate(NAME, "v1").root == old.root


def test_a_flipped_shard_on_the_hub_is_refused_and_nothing_is_kept(published: LoopbackHub, tiny_dressed: Path) -> None:
    data = bytearray((tiny_dressed / SHARD).read_bytes())
    data[len(data) // 2] ^= 1
    published.put(NAME, {SHARD: bytes(data)})
    location = lookup.locate(NAME)
    with pytest.raises(
        IntegrityError, match=r"does not have the bytes that the zoo's manifest names.*Nothing was kept"
    ):
        location.path(SHARD)
    assert not [p for p in location.root.parent.rglob("*") if p.is_file() and p.suffix in (".part", ".safetensors")]


@pytest.mark.parametrize("size", [-100, 100])
def test_a_shard_of_another_length_on_the_hub_is_refused(size: int, published: LoopbackHub, tiny_dressed: Path) -> None:
    data = (tiny_dressed / SHARD).read_bytes()
    published.put(NAME, {SHARD: data[:size] if size < 0 else data + bytes(size)})
    location = lookup.locate(NAME)
    with pytest.raises(IntegrityError, match=r"has other bytes than were sealed"):
        location.ranges(SHARD, [(0, 8)])
    with pytest.raises(IntegrityError, match=r"has other bytes than were sealed"):
        location.path(SHARD)
    assert not [p for p in location.root.parent.rglob("*") if p.is_file() and p.suffix in (".part", ".safetensors")]


def test_a_cut_download_leaves_no_half_file_and_goes_on_behind_what_came(
    published: LoopbackHub, tiny_dressed: Path
) -> None:
    size = (tiny_dressed / SHARD).stat().st_size
    location = lookup.locate(NAME)
    published.cut_bytes, published.cuts_left = size // 3, 1
    published.down_after = 1
    with pytest.raises(
        ZooNotFoundError, match=f"broke at {size // 3:,} of {size:,} bytes .*the same call goes on from there"
    ):
        location.path(SHARD)
    assert not (location.root / SHARD).exists()
    published.down, published.down_after = False, None
    published.log.clear()
    assert location.path(SHARD).read_bytes() == (tiny_dressed / SHARD).read_bytes()
    assert [(r.range, r.sent) for r in published.log] == [(f"bytes={size // 3}-{size - 1}", size - size // 3)]
    assert not list(location.root.parent.rglob("*.part"))


def test_a_connection_that_breaks_again_and_again_still_brings_the_file(
    published: LoopbackHub, tiny_dressed: Path
) -> None:
    size = (tiny_dressed / SHARD).stat().st_size
    location = lookup.locate(NAME)
    published.cut_bytes = size // 7
    assert location.path(SHARD).read_bytes() == (tiny_dressed / SHARD).read_bytes()
    assert published.sent(SHARD) == size


def test_a_part_that_a_crash_tore_is_fetched_anew(published: LoopbackHub, tiny_dressed: Path) -> None:
    location = lookup.locate(NAME)
    assert isinstance(location, remote.HubRepository)
    location.incoming.mkdir()
    (location.incoming / f"{files.sha256(tiny_dressed / SHARD)}.part").write_bytes(b"torn" * 10)
    assert location.path(SHARD).read_bytes() == (tiny_dressed / SHARD).read_bytes()


def test_a_hostile_manifest_from_the_hub_writes_nothing_outside(
    published: LoopbackHub, dressed: Path, tmp_path: Path
) -> None:
    edit_manifest(dressed, lambda m: m["files"][3].update(path="../../../../outside"))
    published.put(NAME, tree_of(dressed))
    with pytest.raises(IntegrityError, match="leaves the folder"):
        lookup.locate(NAME)
    assert not list(tmp_path.rglob("outside"))


def test_a_cached_manifest_that_changed_is_removed_and_fetched_again(published: LoopbackHub) -> None:
    root = lookup.locate(NAME).root
    (root / "manifest.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"changed on the disk; it is removed. Try again"):
        lookup.locate(NAME)
    assert lookup.locate(NAME).root == root


@pytest.mark.slow
def test_importing_the_hub_side_brings_no_heavy_library() -> None:
    code = (
        "import sys, zoo_datasets.hub.remote, zoo_datasets.hub.publish, zoo_datasets.cli\n"
        "print([m for m in ('torch', 'ray', 'datasets', 'huggingface_hub', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    root = Path(lookup.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
