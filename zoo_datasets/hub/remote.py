"""Id of a zoo on the Hugging Face Hub → its verified cache, filled file by file.

In:  `owner/name` and a revision.
Out: a `Location` whose manifest is fetched, whose files come when asked for, and whose
byte ranges come as HTTP ranges.

    CACHE/owner--name/refs/REVISION.json      commit and manifest of a revision, as last seen
    CACHE/owner--name/MANIFEST/…              the zoo's files; MANIFEST is 16 digits of its SHA-256
    CACHE/owner--name/incoming/SHA256.part    a file on its way

A file appears in its place by rename, after its SHA-256 was found right. A cut download
keeps what came as `.part`, and the next call goes on behind it. Two commits with the same
manifest share their files. A commit that was seen before needs no network, and without one other
revisions are served as they were last seen; what `snapshot_download` brought serves as well. A
cache that is there and cannot be written is read.

Bytes come by streams of the library's session (`hub/answers.py`). Its own downloads were
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
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from zoo_datasets import errors
from zoo_datasets.core import files, meters, records
from zoo_datasets.core.ranges import Span
from zoo_datasets.errors import IntegrityError, ZooNotFoundError
from zoo_datasets.format.manifest import MOST_MANIFEST_BYTES, Manifest
from zoo_datasets.format.manifest_parts import SealedFile
from zoo_datasets.hub import answers, client, listing
from zoo_datasets.hub.client import NoAnswer, NoFile
from zoo_datasets.reading.location import LocalFolder, Location, pread

log = logging.getLogger("zoo_datasets")

TRIES = 3  # in a row without one new byte
PAUSE_S = 1.0  # before another try; twice that before the next
CONNECTIONS = 8  # ranges asked for at the same time
MOST_REF_BYTES = 10_000
WAY_OUT = "Set HF_HOME to a folder that can be written, or make room there; what came is kept."


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
            with files.writing(self.root, WAY_OUT):
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


def find(name: str, revision: str | None, cache: Path, hub_cache: Path) -> Location:
    """The zoo at a revision (default: `main`), its manifest checked.

    `hub_cache` is the Hugging Face library's own, which is only read.
    Raises ZooNotFoundError, quickly; FormatVersionError, IntegrityError; ZooError where the cache cannot be written.
    """
    folder = cache / name.replace("/", "--")
    wanted = revision or "main"
    ref = folder / "refs" / f"{quote(wanted, safe='')}.json"
    pinned = _here(name, wanted, folder, hub_cache) if listing.COMMIT.fullmatch(wanted) else None
    if pinned is not None:  # a commit never changes: nobody needs to be asked
        return pinned
    seen = _seen(ref, folder)
    try:
        commit = resolve(name, revision)
    except NoAnswer as error:
        there = _open(name, folder, seen) if seen is not None else _snapshot(name, wanted, hub_cache, whole=False)
        if there is None:
            raise ZooNotFoundError(
                f"Zoo {name!r} is not a folder under {Path.cwd()}, not in the cache {cache}, and the Hub does not answer "
                f"({error}). Connect, set HF_ENDPOINT to a Hub that answers, or put the zoo's folder there."
            ) from error
        log.warning("The Hub does not answer; %s at %s is read from the cache.", name, wanted)
        return there
    found = _here(name, commit, folder, hub_cache)
    if found is None:
        with files.writing(cache, WAY_OUT):
            seen = _Seen(commit, _fetch_manifest(name, commit, wanted, folder))
            found = _open(name, folder, seen)
    elif not isinstance(found, HubRepository) or (seen is not None and seen.commit == commit):
        return found
    with contextlib.suppress(OSError):  # a cache that cannot be written holds what is needed now
        files.write_json(ref, records.encode(_Seen(commit, found.root.name)))
    return found


def _here(name: str, commit: str, folder: Path, hub_cache: Path) -> Location | None:
    """A commit that lies on this machine: its manifest in our cache, or all of it in the library's."""
    known = (_seen(ref, folder) for ref in sorted((folder / "refs").glob("*.json")))
    for seen in known:
        if seen is not None and seen.commit == commit:
            return _open(name, folder, seen)
    return _snapshot(name, commit, hub_cache, whole=True)


def _snapshot(name: str, revision: str, hub_cache: Path, whole: bool) -> LocalFolder | None:
    """What `huggingface_hub` keeps of a revision; with `whole`, only if no file of the zoo is missing."""
    repository = hub_cache / f"datasets--{name.replace('/', '--')}"
    commit = revision
    try:
        if not listing.COMMIT.fullmatch(revision):
            kept = files.inside(repository / "refs", revision)
            commit = files.read_bounded(kept, MOST_REF_BYTES).decode("ascii").strip()
        if not listing.COMMIT.fullmatch(commit):
            return None
        root = (repository / "snapshots" / commit).resolve()
        manifest = Manifest.read(root)
        if whole:
            for file in manifest.files.values():
                file.find(root)
    except (OSError, ValueError):  # no such thing, or damaged: then the Hub is asked
        return None
    return LocalFolder(name, root, manifest)  # as it was asked for: the zoo may have been published under another name


def resolve(name: str, revision: str | None) -> str:
    """The commit of a revision. Raises ZooNotFoundError; NoAnswer where no Hub answers."""
    try:
        commit = listing.commit_of(name, revision)
    except NoAnswer as error:
        if error.code == "GatedRepo":
            text = f"Zoo {name!r} is gated: accept its terms on the Hub and log in (`hf auth login`)."
        elif error.code == "RepoNotFound":
            text = (
                f"No zoo {name!r}: no such folder under {Path.cwd()}, no such dataset on the Hub ({client.api().endpoint}). "
                "Check the spelling; log in (`hf auth login`) if it is private; "
                f"`python -m zoo_datasets list {name.split('/')[0]}` lists an owner's zoos."
            )
        elif error.code == "RevisionNotFound":
            text = f"Zoo {name!r} has no revision {revision!r}. It has: {_revisions(name)}; or a commit's full hash."
        else:
            raise
        raise ZooNotFoundError(text) from None
    if not commit:
        raise ZooNotFoundError(f"Zoo {name!r} is empty: nothing was published yet.")
    return commit


def _revisions(name: str) -> str:
    try:
        tags, branches = listing.refs(name)
    except NoAnswer:  # a hint inside an error message must not hide the error
        return "main"
    return ", ".join([*tags, *branches][: errors.MOST_ALTERNATIVES]) or "main"


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A revision as it was last seen."""

    commit: str
    manifest: str  # the folder of its files


def _seen(ref: Path, folder: Path) -> _Seen | None:
    """What the cache knows of a revision, if its manifest is there."""
    try:
        seen: _Seen = records.decode(_Seen, json.loads(files.read_bounded(ref, MOST_REF_BYTES)))
    except (FileNotFoundError, ValueError, RecursionError):  # a torn write, or none: then the Hub is asked
        return None
    there = re.fullmatch("[0-9a-f]{16}", seen.manifest) and os.path.isfile(folder / seen.manifest / "manifest.json")
    return seen if there else None


def _open(name: str, folder: Path, seen: _Seen) -> HubRepository:
    root = folder / seen.manifest
    data = files.read_bounded(root / "manifest.json", MOST_MANIFEST_BYTES)
    if hashlib.sha256(data).hexdigest()[:16] != seen.manifest:
        with contextlib.suppress(OSError):
            (root / "manifest.json").unlink()
        raise IntegrityError(f"The cached manifest of {name} in {root} changed on the disk; it is removed. Try again.")
    return HubRepository(name, root, Manifest.read(root), seen.commit, folder / "incoming")


def _fetch_manifest(name: str, commit: str, wanted: str, folder: Path) -> str:
    try:
        data = get(f"{client.api().endpoint}/datasets/{name}/resolve/{commit}/manifest.json", MOST_MANIFEST_BYTES)
    except NoFile:
        raise ZooNotFoundError(
            f"The dataset {name!r} at {wanted!r} has no manifest.json: it is not a zoo, or its publishing was not finished."
        ) from None
    Manifest.loads(data, f"{name} at {wanted!r}")  # refused before anything is kept
    digest = hashlib.sha256(data).hexdigest()[:16]
    path = folder / digest / "manifest.json"
    if not path.is_file():
        files.write_atomic(path, data)
    return digest


def get(url: str, most_bytes: int) -> bytes:
    """A small file. Raises NoFile, ZooNotFoundError (the line broke), IntegrityError (larger than `most_bytes`)."""
    try:
        return answers.get(url, most_bytes)[0]
    except NoFile:
        raise
    except answers.TooLarge:
        raise IntegrityError(f"{url} is larger than {most_bytes:,} bytes: that is not a zoo's.") from None
    except NoAnswer as error:
        raise ZooNotFoundError(f"The Hub stopped answering while {url} came ({error}). Try again.") from error


def fetch(url: str, path: Path, file: SealedFile, incoming: Path) -> None:
    """A sealed file under `path`: whole and verified, or not there.

    What a cut connection left is kept in `incoming` and gone on from.
    Raises ZooNotFoundError (the Hub stopped answering, or has no such file), IntegrityError.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # handed on without __all__

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
        problem, begun = "it ended early", time.monotonic()
        try:
            span = (have, size - have)
            with answers.answer(url, span) as found, part.open("ab") as out:
                if found.status == 206:
                    _check_range(found.headers, url, span, size)
                elif found.status == 200:
                    out.seek(0)  # no ranges here: it began at the start
                    out.truncate()
                else:
                    raise NoAnswer(f"HTTP status {found.status}", found.status)
                for piece in found.pieces:
                    out.write(piece)
                    meters.tell(out.tell())
                    if out.tell() > size:
                        return  # longer than sealed; the caller finds it false
        except NoFile:
            raise ZooNotFoundError(
                f"{url} is not there, though the zoo's manifest names it. Its publishing was not finished."
            ) from None
        except NoAnswer as error:
            if error.status == 416:
                raise IntegrityError(
                    f"{url} has other bytes than were sealed: it ends before {have:,}, the manifest says {size:,}."
                ) from None
            problem = str(error)
            idle = TRIES if isinstance(error, answers.TooSlow) else idle
        now, spent = part.stat().st_size, time.monotonic() - begun
        # A line that breaks after every few bytes is as slow as one that brings few.
        worth = now > most and now - have >= answers.LEAST_BYTES_A_S * spent
        idle = 0 if worth and idle < TRIES else idle + 1
        most = max(most, now)
        if idle >= TRIES and now < size:
            raise ZooNotFoundError(
                f"The connection to the Hub broke at {now:,} of {size:,} bytes of {url} ({problem}). "
                "What came is kept; the same call goes on from there."
            )
        time.sleep(idle * PAUSE_S if now < size else 0)


def _check_range(headers: Mapping[str, str], url: str, span: Span, size: int) -> None:
    """Raises IntegrityError where an answer says that it is of another range or of a file of another size."""
    stated = headers.get("Content-Range", "")
    begin, end = span[0], span[0] + span[1] - 1
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", stated.strip())
    if found is None or found[3] not in (str(size), "*"):
        raise IntegrityError(f"{url} has other bytes than were sealed: {stated[:100]}, the manifest says {size:,}.")
    if (found[1], found[2]) != (str(begin), str(end)):
        raise IntegrityError(f"{url}: bytes {begin:,} to {end:,} were asked for, and {stated[:100]} came.")


def _range(url: str, span: Span, size: int, direct: str = "") -> tuple[bytes, str]:
    """A span's bytes, and the address that served them. `direct` is tried first; such addresses expire."""
    offset, length = span
    for attempt in range(TRIES):
        try:
            with answers.answer(url if attempt else direct or url, span) as found:
                if found.status != 206:
                    raise ZooNotFoundError(
                        f"{url} does not serve ranges. Fetch the zoo whole: `python -m zoo_datasets download`."
                    )
                _check_range(found.headers, url, span, size)
                data = _at_most(length, found.pieces)
            if len(data) == length:
                return data, found.url
            problem: Exception = IntegrityError(f"{url}: {len(data):,} bytes came for {length:,} at {offset:,}.")
        except NoFile:
            raise ZooNotFoundError(f"{url} is not there, though the zoo's manifest names it.") from None
        except NoAnswer as error:
            problem = ZooNotFoundError(f"The connection to the Hub broke while {url} was read ({error}). Try again.")
            if isinstance(error, answers.TooSlow):
                break
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
