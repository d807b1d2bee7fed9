"""A Hub that answers whatever it likes → a zoo that is opened, read and downloaded, or a `ZooError`.

A true answer is mended or marred by the trial's random numbers: its status, headers and body, where it ends, how
fast it comes, where it sends to. What is accepted in spite of it must be what was published.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from tests.hub_server import NAME, QUIET, LoopbackHub, tree_of
from zoo_datasets.errors import ZooError

RECIPE = """\
zoo: weightzoo/tiny
source: {id: digits, train: 100, validation: 30, test: 40}
architecture: [flatten, {linear: 4}, activation, {linear: classes}]
axes: {activation: [tanh, relu]}
replicates: 4
training: {epochs: 1, batch_size: 32, lr: 1e-2}
snapshots: {epochs: [0, 1]}
"""
COMMIT = "0123456789" * 4
# Seconds for an answer (HF_HUB_DOWNLOAD_TIMEOUT, 10 by default, does the same for a user): trials are many.
PATIENCE_S = 1.0
EDGES = (None, True, -1, 0, 2**31, 2**63, 1e308, "", "../../x", "/etc/passwd", "a\0b", "\ud800", "\x1b[2J", "x" * 70_000,
         [], {}, [[]], {"sha": 5})  # fmt: skip
STATUSES = (
    100,
    101,
    200,
    201,
    204,
    206,
    299,
    301,
    302,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    409,
    416,
    429,
    500,
    503,
    999,
)
CODES = ("RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo", "", "x" * 9_000)

Reply = tuple[int, dict[str, str], bytes]  # status, headers, body
_hubs: dict[Path, LoopbackHub] = {}  # one a process


def prepare(folder: Path) -> None:
    """A tiny zoo in `folder/zoo`."""
    from zoo_builder import grid, plan
    from zoo_builder.build import build

    (folder / "tiny.yaml").write_text(RECIPE)
    build(plan.plan(grid.load(folder / "tiny.yaml")), folder / "zoo", workers=0)
    shutil.rmtree(folder / "zoo/.build", ignore_errors=True)
    (folder / "zoo/README.md").write_text("a card\n")


def trial(rng: np.random.Generator, folder: Path) -> str:
    """ "refused" or "held": one Hub, one to three calls to it."""
    from zoo_datasets.hub import download, listing
    from zoo_datasets.zoo import open_zoo

    hub, files = _hub(folder), tree_of(folder / "zoo")
    marred = _marred(rng)
    hub.instead = lambda path, asked: marred(path, _true(files, hub.endpoint, path, asked), hub.endpoint)
    for name in ("cache", "got", ".scratch-got"):
        shutil.rmtree(folder / name, ignore_errors=True)

    def read() -> None:
        zoo = open_zoo(NAME, *(["v1"] if rng.random() < 0.2 else []), cache_dir=folder / "cache")
        for path in zoo.manifest.files:
            assert path not in files or zoo.location.path(path).read_bytes() == files[path]
        assert zoo.table().num_rows == len(zoo)

    def rows() -> None:
        zoo = open_zoo(NAME, cache_dir=folder / "cache")
        assert np.array_equal(zoo.weights[:3], open_zoo(folder / "zoo").weights[:3])

    def fetch() -> None:
        download.download(NAME, folder / "got")
        # The manifest itself, and the card outside its seal, are whatever the Hub says.
        got = {p: d for p, d in tree_of(folder / "got").items() if p not in ("README.md", "manifest.json")}
        assert all(files[p] == d for p, d in got.items() if p in files)

    calls: list[Callable[[], Any]] = [read, rows, fetch, lambda: listing.zoos_of("weightzoo")]
    outcome = "held"
    for i in rng.integers(0, len(calls), rng.integers(1, 4)):
        try:
            calls[int(i)]()
        except ZooError as error:
            outcome = "refused"
            if len(str(error)) > 2_000:
                raise AssertionError(f"a message of {len(str(error)):,} characters") from error
    hub.log.clear()
    return outcome


def _hub(folder: Path) -> LoopbackHub:
    """The Hub of this process, to which the libraries talk; caches in `folder`."""
    if folder not in _hubs:
        os.environ.update(QUIET, HF_HOME=str(folder / "hf"))
        os.environ.pop("HF_HUB_CACHE", None)
        from huggingface_hub import constants

        from zoo_datasets.hub import remote

        hub = LoopbackHub()
        hub.__enter__()
        constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DOWNLOAD_TIMEOUT = (
            hub.endpoint,
            False,
            PATIENCE_S,
        )
        remote.PAUSE_S = 0.01
        _hubs[folder] = hub
    return _hubs[folder]


# ── what a Hub says ──


def _true(files: dict[str, bytes], endpoint: str, path: str, asked: str | None) -> Reply:
    url = urlsplit(path)
    where = unquote(url.path)
    if where.endswith("/refs"):
        return _json({"tags": [{"name": "v1", "targetCommit": COMMIT}], "branches": [], "converts": []})
    if "/tree/" in where:
        return _json([{"type": "file", "path": p, "size": len(d), "oid": "0" * 40} for p, d in files.items()])
    if where == "/api/datasets":
        return _json([{"id": NAME, "sha": COMMIT, "tags": ["weightzoo"]}])
    if where.startswith("/api/"):
        return _json({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": p} for p in files]})
    data = files.get(where.partition(f"/resolve/{COMMIT}/")[2])
    if data is None:
        return 404, {"X-Error-Code": "EntryNotFound", "Content-Length": "0"}, b""
    span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "")
    if not span:
        return 200, {"Content-Length": str(len(data))}, data
    begin, end = int(span[1]), min(int(span[2]), len(data) - 1)
    part = data[begin : end + 1]
    return 206, {"Content-Length": str(len(part)), "Content-Range": f"bytes {begin}-{end}/{len(data)}"}, part


def _json(value: Any) -> Reply:
    body = json.dumps(value).encode()
    return 200, {"Content-Length": str(len(body)), "Content-Type": "application/json"}, body


# ── what this one says ──


def _marred(rng: np.random.Generator) -> Callable[[str, Reply, str], Iterable[bytes]]:
    """A Hub's bytes for a path and its true answer: of some paths others, and some of the time."""
    what = str(rng.choice(["", "/api/", "manifest.json", "data/", "weights/", "/tree/", "author="]))
    share, salt = float(rng.choice([0.3, 1.0])), int(rng.integers(2**31))
    steps = [STEPS[int(i)] for i in rng.integers(0, len(STEPS), rng.integers(1, 4))]
    count = itertools.count()

    def answer(path: str, reply: Reply, endpoint: str) -> Iterable[bytes]:
        # Requests come from several threads: each has random numbers of its own.
        digest = hashlib.sha256(f"{salt} {path} {next(count)}".encode()).digest()
        own = np.random.default_rng(list(digest))
        if what not in path or own.random() > share:
            return [_raw(reply)]
        made: Reply | Iterable[bytes] = reply
        for step in steps:
            if isinstance(made, tuple):
                made = step(own, made, endpoint)
        return [_raw(made)] if isinstance(made, tuple) else made

    return answer


def _raw(reply: Reply) -> bytes:
    status, headers, body = reply
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode("latin-1", "replace") + body


def _status(rng: np.random.Generator, reply: Reply, _: str) -> Reply:
    return int(rng.choice(STATUSES)), {**reply[1], "X-Error-Code": str(rng.choice(CODES))}, reply[2]


def _header(rng: np.random.Generator, reply: Reply, endpoint: str) -> Reply:
    name = str(rng.choice(["Content-Length", "Content-Range", "Transfer-Encoding", "Content-Encoding", "Link", "Retry-After",
                           "X-Error-Code", "X-Error-Message", "Connection", "Set-Cookie", "Location", "X" * 200]))  # fmt: skip
    value = str(rng.choice(["", "0", "1", "-1", str(2**63), "1" * 5_000, "chunked", "gzip", "close", "bytes 0-9/10", "bytes */5",
                            f"<{endpoint}/api/datasets?author=x>; rel=\"next\"", "\xe9\xff", "x" * 90_000, "a=b; Path=/"]))  # fmt: skip
    headers = {n: v for n, v in reply[1].items() if n != name}
    return reply[0], headers if rng.random() < 0.2 else {**headers, name: value}, reply[2]


def _redirect(rng: np.random.Generator, reply: Reply, endpoint: str) -> Reply:
    place = str(rng.choice([endpoint + "/api/datasets/x/y", "/", "", "//", "http://[::1", "http://127.0.0.1:1/x", "ftp://x/",
                            "file:///etc/passwd", "http://localhost:99999", "https://127.0.0.1:1/", "\x00", "http://" + "a" * 9_000,
                            endpoint.replace("127.0.0.1", "localhost") + "/elsewhere"]))  # fmt: skip
    status = int(rng.choice([301, 302, 303, 307, 308]))
    return status, {"Location": place, "Content-Length": str(len(reply[2]))}, reply[2]


def _body(rng: np.random.Generator, reply: Reply, _: str) -> Reply:
    status, headers, body = reply
    data = bytearray(body or b"x")
    kind = int(rng.integers(7))
    if kind == 0:
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            data[int(at)] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[int(rng.integers(len(data))) :]
    elif kind == 2:
        data += rng.bytes(int(rng.integers(1, 5_000)))
    elif kind == 3:
        data[:] = bytes([int(rng.choice(list(b'[{"0 <\xff')))]) * int(rng.choice([1, 1_000, 100_000]))
    elif kind == 4:
        data[:] = b"<!DOCTYPE html><title>Log in</title>"
    elif kind == 5:
        headers, data[:] = {**headers, "Content-Encoding": "gzip"}, gzip.compress(bytes(10**7), 1)
    else:
        with contextlib.suppress(ValueError):
            data[:] = json.dumps(_node(rng, json.loads(body))).encode()
    told = headers if rng.random() < 0.2 else {**headers, "Content-Length": str(len(data))}
    return status, told, bytes(data)


def _node(rng: np.random.Generator, value: Any) -> Any:
    """The value with one node of it replaced, left out, or renamed."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return EDGES[int(rng.integers(len(EDGES)))]
    key = list(value)[int(rng.integers(len(value)))] if isinstance(value, dict) else int(rng.integers(len(value)))
    changed = value.copy()
    if rng.random() < 0.2:
        del changed[key]
    elif isinstance(changed, dict) and rng.random() < 0.1:
        changed[str(rng.choice(["x", "", "\ud800", "type"]))] = changed.pop(key)
    else:
        changed[key] = _node(rng, changed[key])
    return changed


def _cut(rng: np.random.Generator, reply: Reply, _: str) -> Iterable[bytes]:
    raw = _raw(reply)
    return [raw[: int(rng.integers(len(raw) + 1))]]


def _flips(rng: np.random.Generator, reply: Reply, _: str) -> Iterable[bytes]:
    raw = bytearray(_raw(reply))
    for at in rng.integers(0, min(len(raw), int(rng.choice([40, 300, 10**9]))), rng.integers(1, 9)):
        raw[int(at)] ^= 1 << int(rng.integers(8))
    return [bytes(raw)]


def _endless(rng: np.random.Generator, reply: Reply, _: str) -> Iterable[bytes]:
    kind = int(rng.integers(4))
    if kind == 0:  # a body until the line is closed
        return itertools.chain([_raw((reply[0], {}, b""))], itertools.repeat(b" " * 100_000))
    if kind == 1:
        begin = _raw((reply[0], {"Transfer-Encoding": "chunked"}, b""))
        return itertools.chain([begin], itertools.repeat(b"186A0\r\n" + b" " * 100_000 + b"\r\n"))
    if kind == 2:
        return itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X-More: 5\r\n" * 1_000))
    return itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000)


def _slow(rng: np.random.Generator, reply: Reply, _: str) -> Iterator[bytes]:
    raw = _raw(reply)
    at = int(rng.integers(len(raw) + 1))
    yield raw[:at]
    for i in range(at, len(raw)):
        time.sleep(0.03)
        yield raw[i : i + 1]


# Slow ones cost PATIENCE_S each, and are few.
COMMON = (_status, _header, _header, _redirect, _body, _body, _body, _cut, _flips)
STEPS: tuple[Callable[..., Reply | Iterable[bytes]], ...] = (*COMMON * 3, _endless, _slow)
