"""A sealed zoo goes to a Hub whole, once, by name and tag; and comes back the same bytes."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import NAME, QUIET, LoopbackHub, edit_manifest, tree_of
from huggingface_hub import constants

from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import check
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.hub import lookup, pictures, publish
from zoo_datasets.hub.download import download

pytest_plugins = ("hub_fixtures",)

# huggingface_hub 2.4 sends its commits in a way that its HTTP library discourages.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SHARD = "weights/train-00000-of-00001.safetensors"
TABLE = "data/models/train-00000-of-00001.parquet"
PACKAGES = str(Path(lookup.__file__).parents[2])


@pytest.mark.slow
def test_what_is_published_is_the_folder_without_the_builders_own(loopback: LoopbackHub, dressed: Path) -> None:
    (dressed / ".build").mkdir()
    (dressed / ".build/log.jsonl").write_text("{}")
    (dressed / "notes.txt").write_text("mine")
    done = publish.publish(dressed, NAME, tag="v1")
    wanted = {p: d for p, d in tree_of(dressed).items() if p != "notes.txt" and not p.startswith(".build/")}
    assert loopback.tree(NAME) == loopback.tree(NAME, "v1") == wanted
    assert set(done.uploaded) == set(wanted)
    assert {"README.md", "croissant.json", "pictures/accuracy.png", "manifest.json"} <= set(wanted)


@pytest.mark.slow
def test_publishing_the_same_zoo_again_uploads_nothing(loopback: LoopbackHub, dressed: Path) -> None:
    first = publish.publish(dressed, NAME)
    loopback.log.clear()
    again = publish.publish(dressed, NAME, tag="v1")
    assert (again.commit, again.uploaded, again.deleted, again.bytes) == (first.commit, (), (), 0)
    assert [r.method for r in loopback.log if r.method != "GET"] == ["POST"]  # the tag
    assert publish.publish(dressed, NAME, tag="v1") == again


@pytest.mark.slow
def test_a_publication_that_reaches_no_hub_changes_no_file(
    loopback: LoopbackHub, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree_of(tiny_copy)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, and nobody listens
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(ZooError, match=r"Publishing me/elsewhere stopped"):
            publish.publish(tiny_copy, "me/elsewhere")
    assert tree_of(tiny_copy) == before


@pytest.mark.slow
def test_card_and_croissant_are_of_the_id_that_is_published(
    loopback: LoopbackHub, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # drawing takes half a second
    (tiny_copy / "croissant.json").unlink(missing_ok=True)
    publish.publish(tiny_copy, "me/elsewhere")
    tree = loopback.tree("me/elsewhere")
    assert b'"me/elsewhere"' in tree["README.md"]
    assert b"me/elsewhere" in tree["croissant.json"]


@pytest.mark.slow
@pytest.mark.parametrize("relative", ["README.md", "croissant.json", "pictures"])
def test_links_out_of_a_zoo_are_neither_written_nor_published(
    loopback: LoopbackHub, tiny_copy: Path, tmp_path: Path, relative: str
) -> None:
    private = tmp_path / "private"
    if relative == "pictures":
        private.mkdir()
    else:
        private.write_text("a secret")
        (tiny_copy / relative).unlink(missing_ok=True)
    (tiny_copy / relative).symlink_to(private)
    with pytest.raises(IntegrityError, match="symbolic link"):
        publish.publish(tiny_copy, "me/elsewhere")
    assert [p.name for p in private.iterdir()] == [] if private.is_dir() else private.read_text() == "a secret"
    assert not [r for r in loopback.log if "/commit/" in r.path]


@pytest.mark.slow
def test_a_picture_that_is_a_link_is_not_published_where_none_is_drawn(
    loopback: LoopbackHub, dressed: Path, tmp_path: Path
) -> None:
    (tmp_path / "private").write_text("a secret")
    (dressed / "pictures/accuracy.png").unlink()
    (dressed / "pictures/accuracy.png").symlink_to(tmp_path / "private")
    with pytest.raises(IntegrityError, match="symbolic link"):
        publish.publish(dressed, NAME)
    assert b"a secret" not in loopback.blobs.values()


@pytest.mark.slow
def test_a_tag_is_never_moved(loopback: LoopbackHub, dressed: Path) -> None:
    publish.publish(dressed, NAME, tag="v1")
    other_release(dressed)
    before = loopback.tree(NAME)
    with pytest.raises(ZooError, match=r"has a release 'v1' already, of other content .*choose another tag"):
        publish.publish(dressed, NAME, tag="v1")
    assert loopback.tree(NAME) == before
    publish.publish(dressed, NAME, tag="v2")
    assert loopback.tree(NAME, "v1") == before
    assert loopback.tree(NAME, "v2")["grid.yaml"] != before["grid.yaml"]
    with pytest.raises(ZooError, match="has a release 'v1' already"):  # nothing is new, but under that name
        publish.publish(dressed, NAME, tag="v1")


def other_release(root: Path) -> None:
    """The same zoo with one more line in its recipe, sealed again."""
    grid = root / "grid.yaml"
    grid.write_text(grid.read_text() + "# again\n")
    from zoo_datasets.core import files

    def reseal(manifest: dict) -> None:
        manifest["files"] = [files.record(root, root / e["path"]) for e in manifest["files"]]

    edit_manifest(root, reseal)


def test_levels_have_one_order_and_room_in_a_legend() -> None:
    for levels in itertools.permutations(["nan", "1", "2", "0.5", "x", "inf"]):
        assert pictures._order(list(levels)) == ["0.5", "1", "2", "inf", "nan", "x"]
    long = [f"{'architecture ' * 20}{i}" for i in range(3)]
    assert len({pictures._shown(name) for name in long}) == 3
    assert max(len(pictures._shown(name)) for name in long) <= pictures.MOST_SHOWN
    assert pictures._shown("tanh") == "tanh"


@pytest.mark.slow
def test_another_zoo_that_no_tag_keeps_is_replaced_only_on_demand(loopback: LoopbackHub, dressed: Path) -> None:
    publish.publish(dressed, NAME)
    loopback.put(NAME, {"weights/stale.safetensors": b"old", "notes.md": b"theirs"})
    other_release(dressed)
    before = {p: p.read_bytes() for p in dressed.rglob("*") if p.is_file()}
    (dressed / "README.md").write_text("ours\n")
    with pytest.raises(ZooError, match=r"holds another zoo, and no tag keeps it: 1 sealed files differ.*--replace"):
        publish.publish(dressed, NAME)
    # Nothing is dressed under a name that is refused.
    assert {p: p.read_bytes() for p in dressed.rglob("*") if p.is_file()} == before | {dressed / "README.md": b"ours\n"}
    done = publish.publish(dressed, NAME, replace=True)
    assert done.deleted == ("weights/stale.safetensors",)
    assert "notes.md" in loopback.tree(NAME)
    assert "weights/stale.safetensors" not in loopback.tree(NAME)


def test_files_of_what_is_no_zoo_are_deleted_only_on_demand(loopback: LoopbackHub, dressed: Path) -> None:
    theirs = {"data/train.parquet": b"theirs", "notes.md": b"theirs"}
    loopback.put(NAME, theirs)
    with pytest.raises(
        ZooError,
        match=r"no finished zoo, and no tag keeps what is there: 1 files .* such as data/train\.parquet.*--replace",
    ):
        publish.publish(dressed, NAME)
    assert theirs.items() <= loopback.tree(NAME).items()
    loopback.repos[NAME].tags["mine"] = loopback.repos[NAME].commit("main")
    assert publish.publish(dressed, NAME).deleted == ("data/train.parquet",)  # the tag keeps it
    assert theirs.items() <= loopback.tree(NAME, "mine").items()


@pytest.mark.slow
def test_a_release_that_was_cut_short_goes_on_over_the_one_before(
    loopback: LoopbackHub, dressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loopback.put(NAME, {f"weights/stale-{i}.safetensors": b"old" for i in range(4)})
    publish.publish(dressed, NAME, tag="v1", replace=True)
    loopback.put(NAME, {f"weights/older-{i}.safetensors": b"old" for i in range(4)})
    loopback.repos[NAME].tags["v1"] = loopback.repos[NAME].commit("main")
    other_release(dressed)
    monkeypatch.setattr(publish, "MOST_FILES_A_COMMIT", 3)
    loopback.commits_left = 1
    with pytest.raises(ZooError, match="the same command goes on"):
        publish.publish(dressed, NAME, tag="v2")
    assert "manifest.json" not in loopback.tree(NAME)
    loopback.commits_left = None
    publish.publish(dressed, NAME, tag="v2")
    assert loopback.tree(NAME, "v2") == tree_of(dressed)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda root: (root / SHARD).write_bytes(b"short"),
            IntegrityError,
            "is damaged and is not published: weights/train",
        ),
        (lambda root: (root / "manifest.json").unlink(), ZooNotFoundError, "holds no zoo"),
        (shutil.rmtree, ZooNotFoundError, "only a zoo on this machine can be published"),
    ],
)
def test_a_damaged_or_unsealed_zoo_is_refused(damage, error, message, loopback: LoopbackHub, dressed: Path) -> None:  # type: ignore[no-untyped-def]
    damage(dressed)
    with pytest.raises(error, match=message):
        publish.publish(dressed, NAME)
    assert not loopback.log


def test_a_flipped_bit_is_not_published(loopback: LoopbackHub, dressed: Path) -> None:
    data = bytearray((dressed / TABLE).read_bytes())
    data[len(data) // 2] ^= 1
    (dressed / TABLE).write_bytes(data)
    with pytest.raises(IntegrityError, match="has other contents than were sealed"):
        publish.publish(dressed, NAME)


@pytest.mark.slow
def test_a_publication_cut_short_is_no_zoo_and_goes_on(
    loopback: LoopbackHub, dressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MOST_FILES_A_COMMIT", 6)
    loopback.commits_left = 2
    with pytest.raises(ZooError, match="What was uploaded is kept; the same command goes on"):
        publish.publish(dressed, NAME, tag="v1")
    with pytest.raises(ZooNotFoundError, match="its publishing was not finished"):
        lookup.locate(NAME)
    assert not loopback.repos[NAME].tags
    kept = set(loopback.tree(NAME)) - {".gitattributes"}
    loopback.commits_left = None
    done = publish.publish(dressed, NAME, tag="v1")
    assert kept
    assert not kept & set(done.uploaded)
    assert loopback.tree(NAME, "v1") == tree_of(dressed)
    trees = [loopback.repos[NAME].trees[c] for c, _ in loopback.repos[NAME].order]
    assert ["manifest.json" in t for t in trees] == [False] * (len(trees) - 1) + [True]
    assert all(len(set(b) - set(a)) <= 6 for a, b in itertools.pairwise(trees))


@pytest.mark.slow
def test_between_the_commits_of_a_new_release_there_is_no_manifest(
    loopback: LoopbackHub, dressed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish.publish(dressed, NAME, tag="v1")
    other_release(dressed)
    loopback.put(NAME, {f"weights/stale-{i}.safetensors": b"old" for i in range(4)})
    monkeypatch.setattr(publish, "MOST_FILES_A_COMMIT", 3)
    publish.publish(dressed, NAME, tag="v2", replace=True)
    trees = [loopback.repos[NAME].trees[c] for c, _ in loopback.repos[NAME].order]
    assert ["manifest.json" in t for t in trees] == [False, True, True, False, False, True]
    assert loopback.tree(NAME) == tree_of(dressed)


@pytest.mark.slow
def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(loopback: LoopbackHub, dressed: Path) -> None:
    loopback.conflicts = 1
    with pytest.raises(ZooError, match=r"Somebody else changed .* meanwhile. Run the same command again"):
        publish.publish(dressed, NAME)
    publish.publish(dressed, NAME)


@pytest.mark.slow
def test_who_may_not_write_is_told_to_log_in(loopback: LoopbackHub, dressed: Path) -> None:
    loopback.forbidden = True
    with pytest.raises(
        ZooError, match=r"does not let you write to weightzoo/tiny \(403\). Log in with a token that may"
    ):
        publish.publish(dressed, NAME)


HEADERS, BODY = b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "begin"),
    [("/api/repos/create", HEADERS), ("/preupload/", BODY), ("objects/batch", HEADERS), ("^/lfs/", BODY),
     ("/commit/", BODY), ("/tag/", HEADERS)],
)  # fmt: skip
def test_a_hub_that_trickles_while_it_is_written_to_is_left(
    loopback: LoopbackHub, dressed: Path, monkeypatch: pytest.MonkeyPatch, what: str, begin: bytes
) -> None:
    def trickle() -> Iterator[bytes]:
        yield begin
        while True:
            time.sleep(0.02)
            yield b" "

    loopback.instead = lambda path, _: trickle() if re.search(what, path) else None
    monkeypatch.setattr(publish, "LEAST_UPLOADED_A_S", 1e9)
    monkeypatch.setattr(publish, "WRITE_PATIENCE", 0.1)
    there = set(threading.enumerate())
    with pytest.raises(ZooError, match=r"Publishing .* stopped: it did not end within 1 s\. What was uploaded is kept"):
        publish.publish(dressed, NAME, tag="v1")
    loopback.instead = None
    assert [t.name for t in set(threading.enumerate()) - there if not ended(t)] == []  # nobody reads on
    monkeypatch.setattr(publish, "WRITE_PATIENCE", 12)
    assert publish.publish(dressed, NAME, tag="v1").tag == "v1"


def ended(thread: threading.Thread) -> bool:
    if "process_request" in thread.name or thread.name == "tqdm_monitor":  # the loopback Hub's, and a bar's
        return True
    thread.join(30)
    return not thread.is_alive()


def test_an_id_without_an_owner_is_refused(dressed: Path) -> None:
    with pytest.raises(ZooNotFoundError, match="'tiny' is not an id of the Hub, which reads `owner/name`"):
        publish.publish(dressed, "tiny")


# ── back ──


@pytest.mark.slow
def test_what_comes_back_is_what_was_published(published: LoopbackHub, tiny_dressed: Path, tmp_path: Path) -> None:
    folder, moved = download(NAME, tmp_path / "got", "v1")
    assert tree_of(folder) == tree_of(tiny_dressed)
    assert moved + (folder / "manifest.json").stat().st_size == sum(map(len, tree_of(folder).values()))
    assert not check.check(folder).problems
    assert download(NAME, folder, "v1") == (folder, 0)


@pytest.mark.slow
def test_a_cut_fetch_leaves_no_folder_and_goes_on(published: LoopbackHub, tiny_dressed: Path, tmp_path: Path) -> None:
    got = tmp_path / "got"
    size = (tiny_dressed / SHARD).stat().st_size
    published.cut_bytes, published.cuts_left, published.down_after = size - 1, 1, 1
    with pytest.raises(ZooNotFoundError, match="What came is kept"):
        download(NAME, got)
    assert not got.exists()
    published.down, published.down_after = False, None
    published.log.clear()
    download(NAME, got)
    assert tree_of(got) == tree_of(tiny_dressed)
    assert published.sent("data/models/test") == 0  # came before the cut
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
def test_a_folder_with_something_else_in_it_is_left_alone(published: LoopbackHub, tmp_path: Path) -> None:
    got = tmp_path / "got"
    got.mkdir()
    (got / "mine").touch()
    with pytest.raises(ZooError, match=r"got holds something other than weightzoo/tiny. Name another folder"):
        download(NAME, got)
    (got / "mine").unlink()
    download(NAME, got)
    (got / SHARD).write_bytes(b"short")
    with pytest.raises(IntegrityError, match=r"is a damaged copy of weightzoo/tiny: .*Remove it and fetch again"):
        download(NAME, got)


# ── `datasets` itself ──

LOAD = """
import numpy, datasets
from datasets import load_dataset
datasets.disable_progress_bars()
every = load_dataset("weightzoo/tiny")
print("rows", sorted(every.num_rows.items()))
weights = every["train"].with_format("numpy")["weights"][:]
print("weights", weights.shape, weights.dtype, float(weights.astype("f8").sum()))
print("snapshots", load_dataset("weightzoo/tiny", "snapshots", split="train", revision="v1").num_rows)
rows = list(load_dataset("weightzoo/tiny", "snapshots", split="test", streaming=True))
print("streamed", len(rows), rows[0]["model_id"])
for arguments in ({"path": "weightzoo/tiny", "revision": "v9"}, {"path": "weightzoo/none"}):
    try:
        load_dataset(**arguments)
    except datasets.exceptions.DatasetNotFoundError as error:
        print("refused", error)
try:
    load_dataset("weightzoo/tiny", revision="wrong")
except datasets.exceptions.NonMatchingSplitsSizesError as error:
    print("counts", type(error).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cdn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_load_dataset_opens_it_by_its_id(cdn: bool, published: LoopbackHub, tiny_dressed: Path, tmp_path: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    published.cdn = cdn
    card = (tiny_dressed / "README.md").read_text()
    counts = Manifest.read(tiny_dressed).counts
    wrong = card.replace(f"num_examples: {counts.models['train']}\n", f"num_examples: {counts.models['train'] + 1}\n")
    assert wrong != card
    head = published.repos[NAME].branches["main"]
    published.repos[NAME].tags["wrong"] = published.put(NAME, {"README.md": wrong.encode()})
    published.repos[NAME].branches["main"] = head
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, **QUIET, "PYTHONPATH": PACKAGES, "HF_ENDPOINT": published.endpoint, "HF_HOME": str(tmp_path / "hf")},
    )  # fmt: skip
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if not line.startswith("refused"))
    weights = pq.read_table(tiny_dressed / TABLE, columns=["weights"])["weights"].combine_chunks().flatten().to_numpy()
    test_ids = pq.read_table(tiny_dressed / "data/snapshots/test-00000-of-00001.parquet")["model_id"]
    assert said["rows"] == str(sorted(counts.models.items())), done.stderr
    n = counts.models["train"]
    assert said["weights"] == f"({n}, {len(weights) // n}) float32 {weights.astype(np.float64).sum()}"
    assert said["snapshots"] == str(counts.snapshots["train"])
    assert said["streamed"] == f"{counts.snapshots['test']} {test_ids[0]}"
    assert said["counts"] == "NonMatchingSplitsSizesError"
    assert done.stdout.count("refused ") == 2
    assert (done.returncode, "Revision 'v9' doesn't exist" in done.stdout) == (0, True)


@pytest.mark.slow
def test_a_release_whose_card_and_page_a_later_version_writes_otherwise_stays(
    loopback: LoopbackHub, dressed: Path
) -> None:
    done = publish.publish(dressed, NAME, tag="v1", page=lambda *_: "<p>as 1.0 draws it")
    there = loopback.tree(NAME)
    again = publish.publish(dressed, NAME, tag="v1", page=lambda *_: "<p>as 1.1 draws it")
    assert (again.commit, again.uploaded, again.deleted, again.tag) == (done.commit, (), (), "v1")
    assert loopback.tree(NAME) == loopback.tree(NAME, "v1") == there


@pytest.mark.slow
def test_a_page_that_nobody_could_download_is_not_published_and_an_older_one_goes(
    loopback: LoopbackHub, dressed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publish.publish(dressed, NAME, page=lambda *_: "<p>small")
    assert "zoo.html" in loopback.tree(NAME)
    done = publish.publish(dressed, NAME, page=lambda *_: "x" * 20_000_001)
    assert done.deleted == ("zoo.html",)
    there = loopback.tree(NAME)
    assert "zoo.html" not in there
    assert "(zoo.html)" not in there["README.md"].decode()
    assert "it is published without one" in caplog.text
    folder, _ = download(NAME, tmp_path / "back")
    assert not (folder / "zoo.html").exists()
    (dressed / "zoo.html").write_bytes(b"x" * 20_000_001)  # by hand
    assert publish.publish(dressed, NAME).uploaded == ()


@pytest.mark.slow
def test_the_page_goes_with_the_zoo_and_its_card_links_it(loopback: LoopbackHub, dressed: Path, tmp_path: Path) -> None:
    from zoo_datasets.page import page

    done = publish.publish(dressed, NAME, page=page.of)
    assert "zoo.html" in done.uploaded
    there = loopback.tree(NAME)
    assert there["zoo.html"].decode().count(f"<title>{NAME} ") == 1
    assert "[`zoo.html`](zoo.html)" in there["README.md"].decode()
    assert publish.publish(dressed, NAME, page=page.of).uploaded == ()
    folder, _ = download(NAME, tmp_path / "back")
    assert (folder / "zoo.html").read_bytes() == there["zoo.html"]
    report = check.check(folder)
    assert (report.problems, report.warnings) == ([], [])
