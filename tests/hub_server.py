"""A small Hugging Face Hub on loopback: datasets with commits, tags and large files, in memory.

It speaks what `huggingface_hub`, `datasets` and `zoo_datasets` ask of the real one: create,
preupload, LFS batch, commit, tag, refs, tree, paths-info, resolve with ranges. It binds
127.0.0.1 on a free port and lives in threads of the test's own process:

    with LoopbackHub() as hub:
        subprocess.run(..., env={"HF_ENDPOINT": hub.endpoint, **QUIET})

What a test may turn: `cdn` (large files are redirected to another host name, as on the real
Hub), `cut_bytes` (every body of a file breaks off after so many), `down` (503 to all), `instead`
(what is sent, byte by byte as it is, in place of an answer).
What a test may read: `log`, one `Request` each.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# For processes that talk to it: no proxies, no Xet (a protocol of its own), no telemetry.
from resealed import write_manifest

QUIET = {
    "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_loopback",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), ""),
    "NO_PROXY": "*", "no_proxy": "*",
}  # fmt: skip
NAME = "weightzoo/tiny"  # of the zoo that tests put there
LARGE = (".parquet", ".safetensors", ".png")


@dataclasses.dataclass(frozen=True)
class Request:
    """One request as it was answered: `sent` bytes of body."""

    method: str
    path: str
    status: int
    sent: int
    range: str | None = None
    token: bool = False


@dataclasses.dataclass
class Repo:
    """Commits by hash, each a whole tree {path: sha256}; names of revisions."""

    trees: dict[str, dict[str, str]]
    order: list[tuple[str, str]]  # (commit, message), the newest last
    branches: dict[str, str]
    tags: dict[str, str]

    def commit(self, revision: str) -> str | None:
        named = {**self.tags, **self.branches}
        return named.get(revision) or (revision if revision in self.trees else None)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # clients hang up when they like
            super().handle_error(request, client_address)


class LoopbackHub:
    """The server; a context manager that starts and ends it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.log: list[Request] = []
        self.cdn = False
        self.cut_bytes: int | None = None
        self.cuts_left = 1 << 30
        self.instead: Callable[[str, str | None], Iterable[bytes] | None] | None = None  # of a path and its range
        self.down = False
        self.down_after: int | None = None  # so many cut bodies, and then nobody answers
        self.commits_left: int | None = None  # after so many commits, the next are refused
        self.conflicts = 0  # so many commits find that somebody else was faster
        self.forbidden = False  # nothing may be written
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = _Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> LoopbackHub:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):  # kept alive by clients, they would go on being served
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.thread.join()

    def create(self, name: str) -> Repo:
        repo = self.repos.setdefault(name, Repo({}, [], {}, {}))
        if not repo.order:
            self.add(repo, {".gitattributes": self.keep(b"")}, "initial commit")
        return repo

    def keep(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def add(self, repo: Repo, tree: dict[str, str], message: str) -> str:
        commit = hashlib.sha1(json.dumps([tree, message, len(repo.order)]).encode()).hexdigest()
        repo.trees[commit] = tree
        repo.order.append((commit, message))
        repo.branches["main"] = commit
        return commit

    def put(self, name: str, files: dict[str, bytes]) -> str:
        """Commit files behind everyone's back; the commit."""
        repo = self.create(name)
        return self.add(
            repo, {**repo.trees[repo.branches["main"]], **{p: self.keep(d) for p, d in files.items()}}, "put"
        )

    def tree(self, name: str, revision: str = "main") -> dict[str, bytes]:
        repo = self.repos[name]
        return {path: self.blobs[d] for path, d in repo.trees[repo.commit(revision) or ""].items()}

    def sent(self, what: str = "") -> int:
        """Bytes of bodies served for paths that hold `what`."""
        return sum(r.sent for r in self.log if what in r.path)


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file under a folder by its relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def edit_manifest(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a zoo's manifest in place, whatever comes of it."""
    manifest = json.loads((root / "manifest.json").read_bytes())
    change(manifest)
    write_manifest(root / "manifest.json", manifest)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms each with it

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _route(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        body = self._body()
        if self.hub.instead and (raw := self.hub.instead(self.path, self.headers.get("Range"))) is not None:
            return self._raw(raw)
        if self.hub.down:
            return self._error(503, "", "down")
        if self.hub.forbidden and self.command not in ("GET", "HEAD"):
            return self._error(403, "", "Forbidden")
        for method, pattern, action in ROUTES:
            if self.command in method and (match := re.fullmatch(pattern, url.path)):
                arguments = {k: unquote(v or "") for k, v in match.groupdict().items()}
                with self.hub.lock:
                    answer = action(self, body=body, **arguments)
                if isinstance(answer, _Blob):
                    self._blob(answer)
                elif answer is not None:
                    self._json(answer)
                return None
        return self._error(404, "", f"no such endpoint: {self.command} {url.path}")

    def _raw(self, pieces: Iterable[bytes]) -> None:
        self.close_connection = True
        sent = 0
        try:
            for piece in pieces:
                self.wfile.write(piece)
                sent += len(piece)
        finally:
            self.hub.log.append(
                Request(self.command, self.path, 0, sent, self.headers.get("Range"), "Authorization" in self.headers)
            )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        keep = b"" if self.command == "HEAD" else body
        self.hub.log.append(Request(self.command, self.path, status, len(keep), self.headers.get("Range")))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(keep)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": message}, json.dumps({"error": message}).encode())

    def _blob(self, blob: _Blob) -> None:
        data, status, headers = blob.data, 200, {**blob.headers, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            begin, end = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
            if begin >= len(data):
                return self._error(416, "", "range not satisfiable")
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            data, status = data[begin : end + 1], 206
        cut = self.hub.cut_bytes
        if cut is not None and len(data) > cut and self.command == "GET" and self.hub.cuts_left > 0:
            self.hub.cuts_left -= 1
            if self.hub.down_after is not None:
                self.hub.down_after -= 1
                self.hub.down = self.hub.down_after <= 0
            self._send_cut(status, {**headers, "Content-Length": str(len(data))}, data[:cut])
            return None
        return self._send(status, headers, data)

    def _send_cut(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._send(status, headers, body)
        self.wfile.flush()
        self.close_connection = True

    # ── what the endpoints do ──

    def _repo(self, name: str, revision: str = "main") -> tuple[Repo, str] | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._error(404, "RepoNotFound", "Repository not found")
            return None
        commit = repo.commit(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo, commit

    def create(self, body: bytes) -> Any:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.repos:
            return self._json({"url": f"{self.hub.endpoint}/datasets/{name}", "error": "exists"}, 409)
        self.hub.create(name)
        return {"url": f"{self.hub.endpoint}/datasets/{name}", "name": name}

    def yaml(self, body: bytes) -> Any:
        return {"errors": [], "warnings": []}

    def whoami(self, body: bytes) -> Any:
        return {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}}

    def listing(self, body: bytes) -> Any:
        owner = self.query.get("author", [""])[0]
        return [self._about(n, r, r.branches["main"]) for n, r in self.hub.repos.items() if n.split("/")[0] == owner]

    def _about(self, name: str, repo: Repo, commit: str) -> dict[str, Any]:
        card = self.hub.blobs.get(repo.trees[commit].get("README.md", ""), b"").decode()
        head = card.split("---\n")[1] if card.startswith("---\n") else ""
        tags = (
            re.findall(r"^- (.*)$", head.partition("\ntags:\n")[2].partition("\n\n")[0], re.M)
            if "\ntags:\n" in head
            else []
        )
        return {
            "_id": name, "id": name, "author": name.split("/")[0], "sha": commit, "private": False, "disabled": False,
            "gated": False, "downloads": 0, "likes": 0, "tags": tags, "lastModified": "2024-01-01T00:00:00.000Z",
            "createdAt": "2024-01-01T00:00:00.000Z", "siblings": [{"rfilename": p} for p in sorted(repo.trees[commit])],
        }  # fmt: skip

    def info(self, body: bytes, name: str, revision: str = "") -> Any:
        found = self._repo(name, revision or "main")
        return self._about(name, *found) if found else None

    def refs(self, body: bytes, name: str) -> Any:
        if not (found := self._repo(name)):
            return None
        shown = {"branches": ("heads", found[0].branches), "tags": ("tags", found[0].tags)}
        return {"converts": [], **{k: [{"name": n, "ref": f"refs/{p}/{n}", "targetCommit": c} for n, c in named.items()]
                for k, (p, named) in shown.items()}}  # fmt: skip

    def commits(self, body: bytes, name: str, revision: str) -> Any:
        if not (found := self._repo(name, revision)):
            return None
        return [{"id": c, "title": m, "message": "", "authors": [], "date": "2024-01-01T00:00:00.000Z"}
                for c, m in reversed(found[0].order)]  # fmt: skip

    def tree(self, body: bytes, name: str, revision: str, folder: str = "") -> Any:
        if not (found := self._repo(name, revision)):
            return None
        paths = found[0].trees[found[1]]
        folder = folder.strip("/")
        prefix = f"{folder}/" if folder else ""
        below = [p for p in sorted(paths) if p.startswith(prefix)]
        if folder and not below:
            return self._error(404, "EntryNotFound", f"{folder} does not exist")
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folders = {
            prefix + "/".join(p[len(prefix) :].split("/")[:i])
            for p in below
            for i in range(1, p[len(prefix) :].count("/") + 1)
        }
        listed = [self._entry(paths, p) for p in below if deep or "/" not in p[len(prefix) :]]
        return [{"type": "directory", "oid": "0" * 40, "size": 0, "path": f} for f in sorted(folders)
                if deep or "/" not in f[len(prefix) :]] + listed  # fmt: skip

    def _entry(self, paths: dict[str, str], path: str) -> dict[str, Any]:
        data = self.hub.blobs[paths[path]]
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        large = {"lfs": {"oid": paths[path], "size": len(data), "pointerSize": 134}} if path.endswith(LARGE) else {}
        return {"type": "file", "oid": oid, "size": len(data), "path": path, **large}

    def paths_info(self, body: bytes, name: str, revision: str) -> Any:
        if not (found := self._repo(name, revision)):
            return None
        paths = found[0].trees[found[1]]
        if self.headers.get("Content-Type", "").startswith("application/json"):
            asked = json.loads(body)["paths"]
        else:
            asked = parse_qs(body.decode()).get("paths", [])
        shown = [self._entry(paths, p) for p in asked if p in paths]
        return shown + [{"type": "directory", "oid": "0" * 40, "path": p} for p in asked
                        if any(k.startswith(f"{p}/") for k in paths)]  # fmt: skip

    def preupload(self, body: bytes, name: str, revision: str) -> Any:
        if not (found := self._repo(name, revision)):
            return None
        paths = found[0].trees[found[1]]
        asked = [f["path"] for f in json.loads(body)["files"]]
        return {"files": [
            {"path": p, "uploadMode": "lfs" if p.endswith(LARGE) else "regular", "shouldIgnore": False,
             "oid": self._entry(paths, p)["oid"] if p in paths else None}
            for p in asked
        ]}  # fmt: skip

    def batch(self, body: bytes, name: str) -> Any:
        def action(o: dict[str, Any]) -> dict[str, Any]:
            if o["oid"] in self.hub.blobs:
                return o
            return {**o, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{o['oid']}"}}}

        return {"transfer": "basic", "objects": [action(o) for o in json.loads(body)["objects"]]}

    def upload(self, body: bytes, oid: str) -> Any:
        if self.hub.keep(body) != oid:
            return self._error(400, "", "checksum differs")
        return {}

    def commit(self, body: bytes, name: str, revision: str) -> Any:
        if not (found := self._repo(name, revision)):
            return None
        if self.hub.commits_left is not None:
            if self.hub.commits_left == 0:
                return self._error(400, "", "the commit was refused on purpose")
            self.hub.commits_left -= 1
        if self.hub.conflicts:
            self.hub.conflicts -= 1
            self.hub.put(name, {})
            found = self._repo(name, revision) or found
        repo, parent = found
        tree = dict(repo.trees[parent])
        message = ""
        for line in body.decode().splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, parent):
                    return self._error(412, "", "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                tree[value["path"]] = self.hub.keep(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    return self._error(400, "", f"{value['path']}: its content was not uploaded")
                tree[value["path"]] = value["oid"]
            elif key == "deletedFile":
                tree.pop(value["path"], None)
            elif key == "deletedFolder":
                tree = {p: d for p, d in tree.items() if not p.startswith(value["path"].rstrip("/") + "/")}
        commit = self.hub.add(repo, tree, message)
        return {
            "success": True,
            "commitOid": commit,
            "commitUrl": f"{self.hub.endpoint}/datasets/{name}/commit/{commit}",
            "hookOutput": "",
        }

    def tag(self, body: bytes, name: str, revision: str) -> Any:
        if not (found := self._repo(name, revision)):
            return None
        tag = json.loads(body)["tag"]
        if tag in found[0].tags:
            return self._error(409, "", f"tag {tag} exists")
        found[0].tags[tag] = found[1]
        return {}

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> Any:
        if not (found := self._repo(name, revision)):
            return None
        digest = found[0].trees[found[1]].get(path)
        if digest is None:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[1]}, b"Entry not found")
        data, headers = self.hub.blobs[digest], {"X-Repo-Commit": found[1], "ETag": f'"{digest}"'}
        if self.hub.cdn and path.endswith(LARGE):
            linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{digest}"'}
            return self._send(
                302, {**headers, **linked, "Location": f"http://localhost:{self.hub.port}/cdn/{digest}"}, b""
            )
        return _Blob(data, headers)

    def content(self, body: bytes, oid: str) -> Any:
        if self.headers.get("Authorization"):
            return self._error(400, "", "a token was sent to the content server")
        return _Blob(self.hub.blobs[oid], {"ETag": f'"{oid}"'})


@dataclasses.dataclass(frozen=True)
class _Blob:
    data: bytes
    headers: dict[str, str]


_ID = r"(?P<name>[^/]+/[^/]+)"
_REV = r"(?P<revision>[^/]+)"
ROUTES = (
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.yaml),
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("GET",), "/api/datasets", _Handler.listing),
    (("GET",), f"/api/datasets/{_ID}", _Handler.info),
    (("GET",), f"/api/datasets/{_ID}/revision/{_REV}", _Handler.info),
    (("GET",), f"/api/datasets/{_ID}/refs", _Handler.refs),
    (("GET",), f"/api/datasets/{_ID}/commits/{_REV}", _Handler.commits),
    (("GET",), f"/api/datasets/{_ID}/tree/{_REV}(?P<folder>/.*)?", _Handler.tree),
    (("POST",), f"/api/datasets/{_ID}/paths-info/{_REV}", _Handler.paths_info),
    (("POST",), f"/api/datasets/{_ID}/preupload/{_REV}", _Handler.preupload),
    (("POST",), f"/datasets/{_ID}\\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (("POST",), f"/api/datasets/{_ID}/commit/{_REV}", _Handler.commit),
    (("POST",), f"/api/datasets/{_ID}/tag/{_REV}", _Handler.tag),
    (("GET", "HEAD"), f"/datasets/{_ID}/resolve/{_REV}/(?P<path>.+)", _Handler.resolve),
    (("GET", "HEAD"), "/cdn/(?P<oid>[0-9a-f]{64})", _Handler.content),
)
