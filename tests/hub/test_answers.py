"""Whatever answers in the Hub's place costs a `ZooError` with the cause, bounded memory and bounded time."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hub_server import NAME, LoopbackHub, tree_of

from zoo_datasets import cli
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.hub import answers, listing, lookup, remote
from zoo_datasets.hub.download import download

pytest_plugins = ("hub_fixtures",)

SHARD = "weights/train-00000-of-00001.safetensors"
MANY = 1 << 40
Raw = Callable[[str, str | None], Iterable[bytes] | None]


def head(status: str = "200 OK", **headers: object) -> bytes:
    lines = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def whole(body: bytes, status: str = "200 OK", **headers: object) -> list[bytes]:
    return [head(status, Content_Length=len(body), **headers), body]


def endless(piece: bytes = b" " * 100_000) -> Iterator[bytes]:
    return itertools.repeat(piece)


def chunked() -> Iterator[bytes]:
    return endless(b"186A0\r\n" + b" " * 100_000 + b"\r\n")


def trickle(begin: bytes = b"") -> Iterator[bytes]:
    yield begin
    while True:
        time.sleep(0.05)
        yield b" "


def only(what: str, answer: Callable[[], Iterable[bytes]]) -> Raw:
    return lambda path, _: answer() if what in path else None


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1.0)


# ── what is asked about a dataset ──


@pytest.mark.some(8)
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: [], "the Hub does not answer"),
        (lambda: [b"not HTTP at all\r\n\r\n"], "the Hub does not answer"),
        (lambda: [head(Content_Length=50), b"{}"], "the Hub does not answer"),
        (lambda: [head(Content_Length="many"), b"{}"], "the Hub does not answer"),
        (lambda: [head(Content_Length=2), b"{}"], "names no commit"),
        (lambda: [head(Content_Length=MANY), *itertools.islice(endless(), 400)], "is larger than 16,000,000 bytes"),
        (lambda: itertools.chain([head(Transfer_Encoding="chunked")], chunked()), "is larger than 16,000,000 bytes"),
        (lambda: itertools.chain([head()], endless()), "is larger than 16,000,000 bytes"),
        (lambda: itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], endless()), "the Hub does not answer"),
        (lambda: whole(gzip.compress(bytes(10**8)), Content_Encoding="gzip"), r"is packed \(gzip\)"),
        (lambda: whole(b"<html>Log in to the hotel</html>"), "is no JSON: '<html>Log in to the hotel</html>'"),
        (lambda: whole(b"[" * 100_000), "is no JSON"),
        (lambda: whole(b"\xff\xfe{"), "is no JSON"),
        (lambda: whole(b"[]"), "names no commit"),
        (lambda: whole(b'{"sha": 5}'), "names no commit"),
        (lambda: whole(b'{"sha": "../../../etc"}'), "names no commit"),
        (lambda: whole(b"", "204 No Content"), "HTTP status 204"),
        (lambda: whole(b"", "304 Not Modified"), "HTTP status 304"),
        (lambda: whole(b"", "302 Found", Location="/api/datasets/a/b"), "redirects more than 5 times"),
        (lambda: whole(b"", "302 Found", Location="http://[::1"), r"redirects to 'http://\[::1', which is no address"),
        (lambda: whole(b"", "302 Found", Location="file:///etc/passwd"), "which is no address"),
        (lambda: whole(b"", "302 Found", Location="http://127.0.0.1:99999/"), "which is no address"),
        (lambda: whole(b"", "302 Found", Location=""), "the Hub does not answer"),
        (lambda: itertools.chain([head("302 Found", Location="/api/x")], endless()), "redirects more than 5 times"),
        (lambda: whole(b"", "429 Too Many", Retry_After=10**9), "429, too many requests: wait some minutes"),
        (lambda: itertools.chain([head("500 Broken")], endless()), "HTTP status 500"),
        (lambda: whole(b"[5]", "503 No", X_Error_Message="\x1b[31m down \x9b"), r"HTTP status 503: \[31m down"),
        (lambda: whole(b"{}", "404 No"), "HTTP status 404"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_an_answer_about_a_dataset_that_is_none_is_said(
    answer: Callable[[], Iterable[bytes]], message: str, loopback: LoopbackHub
) -> None:
    loopback.instead = only("/api/", answer)
    with pytest.raises(ZooNotFoundError, match=message) as raised:
        lookup.locate(NAME)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 900
    assert loopback.sent() < 300_000_000  # what lies in the buffers of sockets counts as sent


@pytest.mark.slow
@pytest.mark.parametrize("begin", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX: ", head(), head(Transfer_Encoding="chunked")])
@pytest.mark.usefixtures("hasty")
def test_a_hub_that_trickles_is_left(begin: bytes, loopback: LoopbackHub) -> None:
    loopback.instead = only("/api/", lambda: trickle(begin))
    with pytest.raises(ZooNotFoundError, match=r"the Hub does not answer \((nothing|\d+ bytes) came (within|in) 1 s"):
        lookup.locate(NAME)


@pytest.mark.slow
@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"X: 5\r\n"])
@pytest.mark.usefixtures("hasty")
def test_an_answer_that_never_begins_leaves_no_thread_that_reads_it(piece: bytes, loopback: LoopbackHub) -> None:
    def again() -> Iterator[bytes]:
        yield b"" if piece.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n"
        while True:
            time.sleep(0.001)
            yield piece

    loopback.instead = only("/api/", again)
    before = set(threading.enumerate())
    with pytest.raises(ZooNotFoundError, match="the Hub does not answer"):
        lookup.locate(NAME)
    ours = [t for t in set(threading.enumerate()) - before if "_run" in t.name]
    for thread in ours:
        thread.join(30)
    assert not [t for t in ours if t.is_alive()]


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_slow_is_told_by_bytes_and_the_readers_own_time_does_not_count(
    published: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steady() -> Iterator[bytes]:
        yield head()
        for _ in range(40):
            time.sleep(0.04)
            yield b" " * 1_000

    published.instead = only("/steady", steady)
    assert len(answers.get(f"{published.endpoint}/steady", 10**6)[0]) == 40_000  # more than a span
    with answers.answer(f"{published.endpoint}/steady") as found:
        first = next(found.pieces)
        time.sleep(1.5)
        assert len(first + b"".join(found.pieces)) == 40_000
    monkeypatch.setattr(answers, "MOST_SMALL_S", 0.2)
    with pytest.raises(answers.TooSlow, match="did not end within 0 s"):
        answers.get(f"{published.endpoint}/steady", 10**6)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (b'{"error": "no"}', "what comes is no list"),
        (b"[5]", "no list of files"),
        (b'[{"type": "file", "path": "pictures/\\ud800", "size": 1, "oid": ""}]', "no list of files"),
        (b'[{"type": "file"}]', "no list of files"),
        (b'[{"type": "file", "path": "README.md", "size": -1, "oid": ""}]', "no list of files"),
        (b'[{"type": "file", "path": "README.md", "size": 1, "oid": "", "lfs": 5}]', "no list of files"),
    ],
)
def test_a_list_of_files_that_is_none_is_said(
    entries: bytes, message: str, published: LoopbackHub, tmp_path: Path
) -> None:
    published.instead = only("/tree/", lambda: whole(entries))
    with pytest.raises(ZooNotFoundError, match=f"while files of .* were listed .*{message}"):
        download(NAME, tmp_path / "got")


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("pictures/../../../outside", False),
        ("/etc/outside", False),
        ("pictures/\0outside", False),
        ("pictures/" + "outside" * 100, False),
        ("README.md/outside", False),
        ("pictures/deep/outside.png", False),
        ("pictures/more.png", True),
    ],
)
def test_only_files_that_may_stand_beside_a_seal_are_fetched(
    path: str, kept: bool, published: LoopbackHub, tmp_path: Path
) -> None:
    published.put(NAME, {path: b"bytes"})
    named = {"type": "file", "path": path, "size": 5, "oid": hashlib.sha1(b"blob 5\0bytes").hexdigest()}
    published.instead = only("/tree/", lambda: whole(json.dumps([named]).encode()))
    folder, _ = download(NAME, tmp_path / "got")
    assert {p for p in tree_of(folder) if "outside" in p or "more" in p} == ({path} if kept else set())
    assert not [p for p in tmp_path.rglob("*outside*")]


@pytest.mark.slow
def test_a_list_without_an_end_and_one_that_goes_on_elsewhere_are_left(
    published: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_ENTRIES", 20)
    published.instead = only("author=", lambda: whole(b"[]", Link='</api/datasets?author=x>; rel="next"'))
    with pytest.raises(ZooNotFoundError, match="has more than 20 entries"):
        listing.zoos_of("x")
    published.instead = only("author=", lambda: whole(b"[]", Link='<http://localhost:1/x>; rel="next"'))
    with pytest.raises(ZooNotFoundError, match="goes on at 'http://localhost:1/x', which is not the Hub"):
        listing.zoos_of("x")
    published.instead = only("author=", lambda: whole(b'[{"id": 5}]'))
    with pytest.raises(ZooNotFoundError, match=r"`.*id` is 5, not a string"):
        listing.zoos_of("x")
    second = json.dumps([{"id": "x/b", "tags": ["weightzoo"], "sha": "c"}]).encode()
    pages = {"page=2": whole(second), "": whole(b'[{"id": "x/a"}]', Link='</api/datasets?page=2>; rel="next"')}
    published.instead = lambda path, _: next(answer for query, answer in pages.items() if query in path)
    assert listing.zoos_of("x") == [("x/b", "c")]


# ── files and ranges ──


@pytest.mark.some(3)
@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda a, b, n: [head("206 P", Content_Range=f"bytes {a}-{b}/{n}"), *endless_of(n)], IntegrityError, "."),
        (lambda a, b, n: whole(b"x", "206 P", Content_Range=f"bytes {a}-{b}/{n + 1}"), IntegrityError, "other bytes than"),
        (lambda a, b, n: whole(b"x" * (b - a + 1), "206 P", Content_Range=f"bytes {a + 1}-{b + 1}/{n}"),
         IntegrityError, r"bytes 0 to [\d,]+ were asked for, and bytes 1-\d+/\d+ came"),
        (lambda a, b, n: whole(b"x" * (b - a + 1), "206 P"), IntegrityError, "other bytes than were sealed"),
        (lambda a, b, n: whole(b"x" * (b - a + 1), "206 P", Content_Range="bytes " + "9" * 5000), IntegrityError, "other bytes"),
        (lambda a, b, n: whole(b"", "416 Out"), ZooError, "416|other bytes than were sealed"),
        (lambda a, b, n: whole(b"", "429 Too Many", Retry_After=10**9), ZooNotFoundError, "429, too many requests"),
        (lambda a, b, n: whole(b"<html>", "502 Bad Gateway"), ZooNotFoundError, "HTTP status 502"),
        (lambda a, b, n: whole(b"", "206 P", Content_Range=f"bytes {a}-{b}/{n}", Content_Encoding="gzip"),
         ZooNotFoundError, r"is packed \(gzip\)"),
    ],
)  # fmt: skip
def test_a_file_or_a_range_that_is_another_is_refused_and_not_kept(
    answer: Callable[[int, int, int], Iterable[bytes]], error: type[ZooError], message: str, published: LoopbackHub
) -> None:
    location = lookup.locate(NAME)
    size = location.entry(SHARD).bytes

    def instead(path: str, asked: str | None) -> Iterable[bytes] | None:
        begin, end = map(int, (asked or "bytes=0-0").removeprefix("bytes=").split("-"))
        return answer(begin, end, size) if "/weights/" in path else None

    published.instead = instead
    for read in (lambda: location.path(SHARD), lambda: location.ranges(SHARD, [(0, 8)])):
        with pytest.raises(error, match=message) as raised:
            read()
        assert len(str(raised.value)) < 600
    assert not [p for p in location.root.parent.rglob("*") if p.suffix == ".safetensors"]
    assert sum(p.stat().st_size for p in location.root.parent.rglob("*.part")) == 0


def endless_of(size: int) -> Iterator[bytes]:
    return itertools.repeat(b"x" * (size + 100), 1_000)


def test_a_server_without_ranges_gives_whole_files_and_says_so_of_rows(
    published: LoopbackHub, tiny_dressed: Path
) -> None:
    data = (tiny_dressed / SHARD).read_bytes()
    published.instead = lambda path, _: whole(data) if SHARD in path else None
    location = lookup.locate(NAME)
    with pytest.raises(ZooNotFoundError, match=r"does not serve ranges\. Fetch the zoo whole"):
        location.ranges(SHARD, [(0, 8)])
    assert location.path(SHARD).read_bytes() == data


@pytest.mark.slow
def test_a_server_without_ranges_that_breaks_begins_again(published: LoopbackHub, tiny_dressed: Path) -> None:
    """Its second answer begins with a piece that is smaller than what the first one left."""
    data = (tiny_dressed / SHARD).read_bytes()
    answers = iter([len(data) - 1, len(data)])

    def cut(size: int) -> Iterator[bytes]:
        yield head("200 OK", Content_Length=len(data))
        yield data[:1_000]
        time.sleep(0.2)
        yield data[1_000:size]

    published.instead = lambda path, _: cut(next(answers)) if SHARD in path else None
    assert lookup.locate(NAME).path(SHARD).read_bytes() == data


@pytest.mark.slow
def test_a_download_that_trickles_stops_and_goes_on_from_there(
    published: LoopbackHub, tiny_dressed: Path, request: pytest.FixtureRequest
) -> None:
    data = (tiny_dressed / SHARD).read_bytes()
    location = lookup.locate(NAME)
    request.getfixturevalue("hasty")  # from here on: a busy machine is slow itself

    times: list[str] = []

    def slow(asked: str) -> Iterator[bytes]:
        times.append(asked)
        begin, end = map(int, asked.removeprefix("bytes=").split("-"))
        yield head("206 P", Content_Length=end - begin + 1, Content_Range=f"bytes {begin}-{end}/{len(data)}")
        for i in range(begin, end + 1):
            time.sleep(0.02)
            yield data[i : i + 1]

    published.instead = lambda path, asked: slow(asked or "") if SHARD in path else None
    with pytest.raises(ZooNotFoundError, match=r"broke at \d+ of .* bytes came in 1 s\). What came is kept"):
        location.path(SHARD)
    with pytest.raises(ZooNotFoundError, match=r"bytes came in 1 s"):
        location.ranges(SHARD, [(0, 5_000)])
    assert len(times) == 2  # another try would bring no more
    published.instead = None
    published.log.clear()
    assert location.path(SHARD).read_bytes() == data
    # Not what the slow answers sent, which say so when their threads end.
    assert 0 < sum(r.sent for r in published.log if r.status and SHARD in r.path) < len(data)


def test_a_line_that_breaks_after_every_byte_is_left(published: LoopbackHub, tiny_dressed: Path) -> None:
    data = (tiny_dressed / SHARD).read_bytes()
    location = lookup.locate(NAME)

    def one(path: str, asked: str | None) -> Iterable[bytes] | None:
        if SHARD not in path:
            return None
        time.sleep(0.01)
        begin = int((asked or "bytes=0-").removeprefix("bytes=").split("-")[0])
        stated = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return [head("206 P", Content_Length=len(data) - begin, Content_Range=stated), data[begin : begin + 1]]

    published.instead = one
    with pytest.raises(ZooNotFoundError, match=r"broke at \d of .*What came is kept"):
        location.path(SHARD)
    assert len([r for r in published.log if SHARD in r.path]) <= 2 * remote.TRIES


def test_a_manifest_without_an_end_and_one_that_is_a_page_are_refused_and_not_kept(
    published: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MOST_MANIFEST_BYTES", 1_000_000)
    published.instead = only("manifest.json", lambda: itertools.chain([head()], endless()))
    with pytest.raises(IntegrityError, match="is larger than 1,000,000 bytes: that is not a zoo's"):
        lookup.locate(NAME)
    published.instead = only("manifest.json", lambda: whole(b"<html>Log in</html>"))
    with pytest.raises(IntegrityError, match="is not JSON"):
        lookup.locate(NAME)
    published.instead = None
    assert not list(lookup.default_cache().rglob("manifest.json"))
    assert lookup.locate(NAME).name == NAME


# ── the token ──


def test_a_token_follows_redirects_on_the_hub_and_none_away_from_it(loopback: LoopbackHub) -> None:
    seen: list[tuple[str, bool]] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def serve() -> None:
            connection, _peer = other.accept()
            with connection:
                asked = connection.recv(10_000).decode()
                seen.append((asked.split()[1], "authorization" in asked.lower()))
                connection.sendall(b"".join(whole(b"", "302 Found", Location=f"{loopback.endpoint}/back")))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def instead(path: str, _: str | None) -> Iterable[bytes]:
            there = {"/one": "/two", "/two": f"http://127.0.0.1:{port}/away"}
            return whole(b"", "302 Found", Location=there[path]) if path in there else whole(b"end")

        loopback.instead = instead
        assert answers.get(f"{loopback.endpoint}/one", 10)[0] == b"end"
    for _ in range(1000):  # the server writes its log after it has answered
        if len(loopback.log) == 3:
            break
        time.sleep(0.01)
    assert seen == [("/away", False)]
    # Of requests that follow one another fast, either may be the first to be written.
    assert sorted((r.path, r.token) for r in loopback.log) == [("/back", True), ("/one", True), ("/two", True)]


# ── the commands ──


@pytest.mark.parametrize("verb", ["show", "download", "list"])
def test_no_command_ends_in_a_traceback_on_a_hub_of_nonsense(
    verb: str, loopback: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    for answer in (whole(b"null"), whole(b"[[]]"), whole(b"", "302 Found", Location="//"), [b"HTTP/1.1 999 \r\n\r\n"]):
        loopback.instead = lambda path, _, answer=answer: answer
        assert cli.main([verb, "weightzoo" if verb == "list" else NAME]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
