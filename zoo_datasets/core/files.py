"""Bytes → files that are either whole or not there.

Everything is written to a scratch name in the same folder, flushed to the disk and
renamed; readers never see half a file. Paths from a manifest are data: `inside` refuses
those that leave the zoo's folder, and links; those of the Hugging Face cache alone are known:

    datasets--OWNER--NAME/snapshots/COMMIT/…  → datasets--OWNER--NAME/blobs/DIGEST
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from zoo_datasets import errors

SNAPSHOT = re.compile(r"datasets--[^/]+/snapshots/[0-9a-f]{40}")  # a folder of the Hugging Face cache
# What disks say of an fsync that they do not have: network and user-space ones, above all of folders.
NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EISDIR}
SCRATCH = ".scratch-"  # prefix of names that a killed writer may leave behind


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path`, whole and on the disk, when the block ends.

    If the block raises, the old file stays and the scratch file is gone.
    """
    make_folder(path.parent)
    scratch = path.with_name(f"{SCRATCH}{os.getpid()}-{path.name}")
    try:
        with scratch.open("wb") as out:
            yield out
            out.flush()
            _sync(out.fileno())
        scratch.replace(path)
        sync_folder(path.parent)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(place: Path, way_out: str) -> Iterator[None]:
    """Raises ZooError in place of what the system says of a folder that cannot be written, or of a full disk."""
    try:
        yield
    except OSError as error:
        if isinstance(error, errors.ZooError):
            raise
        why = error.strerror or str(error)
        raise errors.ZooError(f"{error.filename or place} cannot be written: {why}. {way_out}") from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file, or leave the old one. Raises OSError."""
    with atomic(path) as out:
        out.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with sorted keys: the same value, the same bytes."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def make_folder(folder: Path) -> None:
    """The folder and those above it, made where they are missing; a power cut takes none of them from what is written there next."""
    missing = list(itertools.takewhile(lambda f: not f.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename durable, where the disk can, and where we may look into the folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def temporary(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """A new temporary folder, which goes with its context. Raises ZooError where the system has no place for one."""
    try:
        return tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    except OSError as error:
        why = error.strerror or str(error)
        raise errors.ZooError(f"There is no temporary folder: {why}. Set TMPDIR to one that is writable.") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record(root: Path, path: Path) -> dict[str, Any]:
    """How a file enters a manifest or a commit: its path under `root`, size and SHA-256."""
    return {"path": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)}


def leaves(relative: str) -> bool:
    """Whether a path, joined to a folder, may lead out of it."""
    path = Path(relative)
    unnamable = any(c == "\0" or "\ud800" <= c <= "\udfff" for c in relative)  # no file system has such names
    return path.is_absolute() or ".." in path.parts or not path.parts or unnamable


def inside(root: Path, relative: str) -> Path:
    """`root / relative`. Raises IntegrityError where that leaves `root` or passes a link.

    A file of a snapshot of the Hugging Face cache may be a link to one of that repository's blobs.
    """
    if leaves(relative):
        raise errors.IntegrityError(f"{relative!r} leaves the folder {root}: the manifest is damaged or hostile.")
    path = os.fspath(root)
    parts = Path(relative).parts
    for at, part in enumerate(parts, 1):
        path = os.path.join(path, part)
        if os.path.islink(path) and not (at == len(parts) and _is_blob(root, path)):
            raise errors.IntegrityError(f"{relative!r} under {root} is a symbolic link; a zoo holds plain files only.")
    return root / relative


def is_snapshot(root: Path) -> bool:
    """Whether a folder is a snapshot of the Hugging Face cache, which belongs to `huggingface_hub`."""
    return SNAPSHOT.fullmatch("/".join(Path(os.path.realpath(root)).parts[-3:])) is not None


def _is_blob(root: Path, link: str) -> bool:
    """Whether a link in a snapshot ends, by whatever ways, at a file of its own repository's `blobs`."""
    # Its folder by its real name: `blobs` that leads elsewhere is another folder.
    blobs = os.path.join(*Path(os.path.realpath(root)).parts[:-2], "blobs")
    return is_snapshot(root) and os.path.dirname(os.path.realpath(link)) == blobs


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """The whole of a regular file. Raises IntegrityError where it is none or larger, FileNotFoundError."""
    try:
        # A pipe would wait for a writer, and a device never end.
        there = path.stat()
        if not stat.S_ISREG(there.st_mode):
            raise errors.IntegrityError(f"{path} is no regular file.")
        with path.open("rb") as file:
            # As many bytes as are asked for are allocated before one is read, and not every file says how many it holds.
            data = file.read(1 + min(most_bytes, there.st_size))
            while len(data) <= most_bytes and (more := file.read(min(1 + most_bytes - len(data), 1 << 24))):
                data += more
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise errors.IntegrityError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > most_bytes:
        raise errors.IntegrityError(f"{path} is larger than {most_bytes:,} bytes: that is not a zoo's.")
    return data
