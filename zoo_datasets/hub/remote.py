"""Id of a zoo on the Hugging Face Hub → its verified cache, filled file by file.

In:  `owner/name` and a revision.
Out: a `Location` whose manifest is fetched, whose files come when asked for, and whose
byte ranges come as HTTP ranges.

    CACHE/owner--name/refs/REVISION.json      commit and manifest of a revision, as last seen
    CACHE/owner--name/MANIFEST/…              the zoo's files; MANIFEST is 16 digits of its SHA-256
    CACHE/owner--name/incoming/SHA256.part    a file on its way

A file appears in its place by rename, after its SHA-256 was found right. A cut download
keeps what came as `.part`, and the next call goes on behind it. Two commits with the same
manifest share their files. Without a network, a revision that was seen before is served
from the cache.

The library asks, finds and lists; bytes come by streams of its session. Its own downloads were
measured on the tests' loopback Hub (huggingface_hub 2.4, 30 MB) and lose what is promised above:
`hf_hub_download`, cut at 20 MB and called again, fetches all 30 once more (here the 10 that are
missing), and of a line that breaks every 4 MB it never brings the file, since its chunks of
10 MB drop what they hold; 64 rows of 9,856 bytes by `HfFileSystem.cat_ranges` move 305 MB in 130
requests (here 0.64 MB in 63). Neither takes a bound on what is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zoo_datasets.core import files, records
from zoo_datasets.errors import IntegrityError, ZooNotFoundError
from zoo_datasets.format.manifest import MOST_MANIFEST_BYTES, Manifest
from zoo_datasets.format.manifest_parts import SealedFile
from zoo_datasets.hub import client
from zoo_datasets.hub.client import NoAnswer, NoFile
from zoo_datasets.reading.location import Location, Span, pread

log = logging.getLogger("zoo_datasets")

TRIES = 3  # in a row without one new byte
PAUSE_S = 1.0  # before another try; twice that before the next
CONNECTIONS = 8  # ranges asked for at the same time
MOST_REF_BYTES = 10_000


@dataclasses.dataclass(frozen=True)
class HubRepository(Location):
    """A zoo of the Hub at one commit."""

    commit: str
    incoming: Path

    @property
    def is_local(self) -> bool:
        return False

    def path(self, relative: str) -> Path:
        if relative == "manifest.json":
            return self.root / relative
        path = files.inside(self.root, relative)
        if not self.has(relative):
            fetch(self.url(relative), path, self.entry(relative), self.incoming)
        return path

    def has(self, relative: str) -> bool:
        path = files.inside(self.root, relative)
        return path.is_file() and path.stat().st_size == self.entry(relative).bytes

    def read(self, relative: str, spans: Sequence[Span]) -> list[bytes]:
        if self.has(relative):
            return pread(files.inside(self.root, relative), spans)
        size = self.entry(relative).bytes
        if not spans:
            return []
        url = self.url(relative)
        # The Hub redirects large files to a content server; its address serves all the spans.
        first, direct = _range(url, spans[0], size)
        if len(spans) == 1:
            return [first]
        with ThreadPoolExecutor(min(CONNECTIONS, len(spans) - 1)) as pool:
            return [first, *pool.map(lambda span: _range(url, span, size, direct)[0], spans[1:])]

    def url(self, relative: str) -> str:
        """Where the Hub serves a file at this commit."""
        return f"{client.api().endpoint}/datasets/{self.name}/resolve/{self.commit}/{quote(relative)}"


def find(name: str, revision: str | None, cache: Path) -> HubRepository:
    """The zoo at a revision (default: `main`), its manifest checked.

    Raises ZooNotFoundError, quickly; FormatVersionError, IntegrityError.
    """
    folder = cache / name.replace("/", "--")
    wanted = revision or "main"
    ref = folder / "refs" / f"{quote(wanted, safe='')}.json"
    seen = _seen(ref, folder)
    try:
        commit = resolve(name, revision)
    except NoAnswer as error:
        if seen is None:
            raise ZooNotFoundError(
                f"Zoo {name!r} is not a folder under {Path.cwd()}, not in the cache {cache}, and the Hub does not answer "
                f"({error}). Connect, set HF_ENDPOINT to a Hub that answers, or put the zoo's folder there."
            ) from error
        log.warning("The Hub does not answer; %s at %s is read from the cache.", name, wanted)
        return _open(name, folder, seen)
    if seen is not None and seen.commit == commit:
        return _open(name, folder, seen)
    seen = _Seen(commit, _fetch_manifest(name, commit, wanted, folder))
    zoo = _open(name, folder, seen)
    files.write_json(ref, records.encode(seen))
    return zoo


def resolve(name: str, revision: str | None) -> str:
    """The commit of a revision. Raises ZooNotFoundError; NoAnswer where no Hub answers."""
    from huggingface_hub import errors as hub_errors

    try:
        with client.talking():
            commit = client.api().dataset_info(name, revision=revision, timeout=client.PATIENCE_S).sha
    except NoAnswer as error:
        problem = error.__cause__
        if isinstance(problem, hub_errors.GatedRepoError):
            text = f"Zoo {name!r} is gated: accept its terms on the Hub and log in (`hf auth login`)."
        elif isinstance(problem, hub_errors.RepositoryNotFoundError):
            text = (
                f"No zoo {name!r}: no such folder under {Path.cwd()}, no such dataset on the Hub ({client.api().endpoint}). "
                "Check the spelling; log in (`hf auth login`) if it is private; "
                f"`python -m zoo_datasets list {name.split('/')[0]}` lists an owner's zoos."
            )
        elif isinstance(problem, hub_errors.RevisionNotFoundError):
            names = ", ".join(_revisions(name)) or "main"
            text = f"Zoo {name!r} has no revision {revision!r}. It has: {names}; or a commit's full hash."
        else:
            raise
        raise ZooNotFoundError(text) from None
    if not commit:
        raise ZooNotFoundError(f"Zoo {name!r} is empty: nothing was published yet.")
    return str(commit)


def zoos_of(owner: str) -> list[tuple[str, str]]:
    """(id, commit) of every dataset of an owner that carries our tag. Raises ZooNotFoundError."""
    try:
        with client.talking():
            listed = list(client.api().list_datasets(author=owner, full=True))
    except NoAnswer as error:
        raise ZooNotFoundError(
            f"No folder {owner!r}, and the Hub does not list datasets of that owner ({error})."
        ) from error
    return sorted((d.id, d.sha or "") for d in listed if "weightzoo" in (d.tags or []))


def _revisions(name: str) -> list[str]:
    try:
        with client.talking():
            refs = client.api().list_repo_refs(name, repo_type="dataset")
    except NoAnswer:  # a hint inside an error message must not hide the error
        return []
    return [r.name for r in (*refs.tags, *refs.branches)]


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A revision as it was last seen."""

    commit: str
    manifest: str  # the folder of its files


def _seen(ref: Path, folder: Path) -> _Seen | None:
    """What the cache knows of a revision, if its manifest is there."""
    try:
        seen: _Seen = records.decode(_Seen, json.loads(files.read_bounded(ref, MOST_REF_BYTES)))
    except (FileNotFoundError, ValueError):  # a torn write, or none: then the Hub is asked
        return None
    return seen if (folder / seen.manifest / "manifest.json").is_file() else None


def _open(name: str, folder: Path, seen: _Seen) -> HubRepository:
    root = folder / seen.manifest
    if files.sha256(root / "manifest.json")[:16] != seen.manifest:
        (root / "manifest.json").unlink()
        raise IntegrityError(f"The cached manifest of {name} in {root} changed on the disk; it is removed. Try again.")
    return HubRepository(name, root, Manifest.read(root), seen.commit, folder / "incoming")


def _fetch_manifest(name: str, commit: str, wanted: str, folder: Path) -> str:
    try:
        data = get(f"{client.api().endpoint}/datasets/{name}/resolve/{commit}/manifest.json", MOST_MANIFEST_BYTES)
    except FileMissing:
        raise ZooNotFoundError(
            f"The dataset {name!r} at {wanted!r} has no manifest.json: it is not a zoo, or its publishing was not finished."
        ) from None
    digest = hashlib.sha256(data).hexdigest()[:16]
    files.write_atomic(folder / digest / "manifest.json", data)
    return digest


def get(url: str, most_bytes: int) -> bytes:
    """A small file. Raises FileMissing, ZooNotFoundError (the line broke), IntegrityError (larger than `most_bytes`)."""
    data = bytearray()
    try:
        with _stream(url) as response:
            for piece in response.iter_bytes():
                data += piece
                if len(data) > most_bytes:
                    raise IntegrityError(f"{url} is larger than {most_bytes:,} bytes: that is not a zoo's.")
    except NoFile:
        raise FileMissing(f"{url} is not on the Hub.") from None
    except NoAnswer as error:
        raise ZooNotFoundError(f"The Hub stopped answering while {url} came ({error}). Try again.") from error
    return bytes(data)


def fetch(url: str, path: Path, file: SealedFile, incoming: Path) -> None:
    """A sealed file under `path`: whole and verified, or not there.

    What a cut connection left is kept in `incoming` and gone on from.
    Raises ZooNotFoundError (the Hub stopped answering, or has no such file), IntegrityError.
    """
    from huggingface_hub.utils import WeakFileLock

    size, sha256 = file.bytes, file.sha256
    incoming.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = incoming / f"{sha256}.part"
    with WeakFileLock(incoming / f"{sha256}.lock"):  # one process fetches, others wait for it
        if path.is_file() and path.stat().st_size == size:
            return
        # A part that a crash tore may have good size and bad bytes: then once more from its start.
        for _ in range(2):
            resumed = part.exists()
            try:
                _append(url, part, size)
            except IntegrityError:
                part.unlink()
                raise
            if part.stat().st_size == size and files.sha256(part) == sha256:
                part.replace(path)
                files.sync_folder(path.parent)
                return
            part.unlink()
            if not resumed:
                break
    raise IntegrityError(
        f"{url} does not have the bytes that the zoo's manifest names ({size:,} bytes, SHA-256 {sha256[:16]}…). "
        "Nothing was kept. Try again, or ask the zoo's owner to publish it again."
    )


def _append(url: str, part: Path, size: int) -> None:
    """Fetch what is missing of `part`; a connection that breaks is taken up again while bytes still come."""
    part.touch()
    idle, most = 0, part.stat().st_size
    while (have := part.stat().st_size) < size:
        problem = "it ended early"
        try:
            with _stream(url, (have, size - have)) as response, part.open("ab") as out:
                if response.status_code == 206:
                    _check_total(response, url, size)
                else:
                    out.truncate(0)  # no ranges here: it began at the start
                for piece in response.iter_bytes():  # a chunk size would drop what it holds when the line breaks
                    out.write(piece)
                    if out.tell() > size:
                        return  # longer than sealed; the caller finds it false
        except NoFile:
            raise ZooNotFoundError(
                f"{url} is not there, though the zoo's manifest names it. Its publishing was not finished."
            ) from None
        except NoAnswer as error:
            problem = str(error)
        idle = 0 if part.stat().st_size > most else idle + 1
        most = max(most, part.stat().st_size)
        if idle == TRIES:
            raise ZooNotFoundError(
                f"The connection to the Hub broke at {have:,} of {size:,} bytes of {url} ({problem}). "
                "What came is kept; the same call goes on from there."
            )
        time.sleep(idle * PAUSE_S)


def _check_total(response: Any, url: str, size: int) -> None:
    stated = response.headers.get("Content-Range", "")
    if not stated.endswith((f"/{size}", "/*")):
        raise IntegrityError(f"{url} has other bytes than were sealed: {stated}, the manifest says {size:,}.")


def _range(url: str, span: Span, size: int, direct: str = "") -> tuple[bytes, str]:
    """A span's bytes, and the address that served them. `direct` is tried first; such addresses expire."""
    offset, length = span
    for attempt in range(TRIES):
        try:
            with _stream(url if attempt else direct or url, span) as response:
                if response.status_code != 206:
                    raise ZooNotFoundError(
                        f"{url} does not serve ranges. Fetch the zoo whole: `python -m zoo_datasets download`."
                    )
                _check_total(response, url, size)
                data = _at_most(length, response.iter_bytes())
            if len(data) == length:
                return data, str(response.url)
            problem: Exception = IntegrityError(f"{url}: {len(data):,} bytes came for {length:,} at {offset:,}.")
        except NoFile:
            raise ZooNotFoundError(f"{url} is not there, though the zoo's manifest names it.") from None
        except NoAnswer as error:
            problem = ZooNotFoundError(f"The connection to the Hub broke while {url} was read ({error}). Try again.")
        if attempt + 1 < TRIES:
            time.sleep((attempt + 1) * PAUSE_S)
    raise problem


def _at_most(length: int, pieces: Iterator[bytes]) -> bytes:
    """All bytes, or one more than `length` of them: an answer that never ends is not read to its end."""
    data = bytearray()
    for piece in pieces:
        data += piece[: length + 1 - len(data)]
        if len(data) > length:
            break
    return bytes(data)


class FileMissing(ZooNotFoundError):
    """The Hub has the dataset, and no such file in it."""


@contextlib.contextmanager
def _stream(url: str, span: Span | None = None) -> Iterator[Any]:
    """An open answer to a GET, of a range where one is given. Raises NoAnswer, NoFile."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    # A token is for the Hub alone; packed bytes would shift ranges.
    token = None if client.is_the_hub(url) else False
    headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}
    if span is not None:
        headers["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
    with client.talking(), get_session().stream("GET", url, headers=headers, timeout=client.PATIENCE_S) as response:
        hf_raise_for_status(response)
        yield response
