"""The folder of a build → whether it may be written, by whom, and what is wrong where it cannot be.

In:  the paths of a zoo, its plan, an error of the system.
Out: nothing, or a BuildError with the way out: another recipe's zoo or other files there, somebody who builds there now, a zoo that lost
     files since it was sealed, a path that could never be sealed; a lock; whether an error means that the output takes no more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from typing import IO, Any

from zoo_builder.plan import Plan
from zoo_builder.recipe import document
from zoo_datasets.core import records
from zoo_datasets.errors import BuildError, FormatVersionError, IntegrityError
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZooPaths

log = logging.getLogger("zoo_builder")
# What an output may refuse, whatever is written, and the way out. The next cohort would be trained for nothing.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
    errno.EROFS: "make the folder writable",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.EIO: "look after the disk",
    errno.ENAMETOOLONG: "move the folder to a shorter path",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.ENFILE: "close other programs' files",
}
# These say something of the output only where they name a file of it: somebody took it away.
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENXIO, errno.ENODEV}
LOCK_TRIES = 20  # in a second


def refuse_name(paths: ZooPaths) -> None:
    """Raises BuildError where sealing would fail, when all is trained: a path that is no UTF-8, private folders that are links."""
    try:
        str(paths.root.absolute()).encode()
    except UnicodeEncodeError:
        raise BuildError(
            f"{str(paths.root)!r} is no UTF-8, and Arrow cannot write there. Choose another folder with --out."
        ) from None
    for folder in (paths.build, paths.parts, paths.commits, paths.checkpoints):
        if folder.is_symlink():
            raise BuildError(
                f"{folder} is a symbolic link, and a zoo holds plain files only. Remove it; to build on another disk, build there with "
                "--out and move the zoo when it is sealed."
            )


def refuse_incomplete(paths: ZooPaths) -> None:
    """Raises BuildError where a sealed zoo lacks files, or has them in other sizes: to say that it is there would be false."""
    try:
        manifest = Manifest.read(paths.root)
        if not any((paths.root / f.path).exists() for f in manifest.files.under("data/")):
            raise BuildError(
                f"{paths.root} is the receipt of a zoo, whose files are elsewhere. Build into another folder with --out; to compare with "
                f"it, `python -m zoo_builder verify --rebuild {paths.root}`."
            )
        for file in manifest.files.values():
            file.find(paths.root)
    except (IntegrityError, FormatVersionError) as error:
        raise BuildError(
            f"{paths.root} was sealed, and is not whole any more: {error} Remove the folder and run the same command again, or build "
            "into another one with --out."
        ) from None


def refuse_other(paths: ZooPaths, planned: Plan) -> None:
    """Raises BuildError where the folder belongs to another recipe: it is never overwritten."""
    try:
        theirs = json.loads(paths.recipe.read_bytes())
    except FileNotFoundError:
        if paths.manifest.exists():
            theirs = _sealed_identity(paths)
        elif paths.root.is_dir() and any(p.name != ".build" for p in paths.root.iterdir()):
            raise BuildError(f"{paths.root} holds other files and no zoo. Choose an empty folder with --out.") from None
        else:
            return
    except ValueError:
        if not paths.manifest.exists():
            return  # a power cut in the very first write; nothing was built yet
        theirs = _sealed_identity(paths)
    except OSError as error:  # a file of that name, or a folder that is not ours to read
        raise BuildError(f"Cannot use {paths.root}: {error.strerror}. Choose another folder with --out.") from None
    ours = planned.identity
    if theirs != ours:
        raise BuildError(
            f"{paths.root} holds the zoo of another recipe: {document.difference(ours, theirs)}. "
            "Build into another folder with --out, or remove that one yourself."
            + (
                f" Models that both have are not trained again with --from {paths.root}."
                if paths.manifest.exists() and theirs.get("engines") == ours["engines"]  # others' are trained anew
                else ""
            )
        )


def is_sealed(paths: ZooPaths, planned: Plan) -> bool:
    """Whether the manifest is of this recipe and every file it seals is whole; only then may private parts go."""
    try:
        manifest = Manifest.read(paths.root)
        if records.encode(manifest.identity) != planned.identity:
            raise IntegrityError(f"{paths.manifest} is of another recipe.")
        for file in manifest.files.values():
            file.verify(paths.root)
    except (IntegrityError, FormatVersionError) as error:
        log.warning("%s It is set aside, and the build goes on from its commits.", error)
        return False
    return True


def _sealed_identity(paths: ZooPaths) -> Any:
    try:
        return records.encode(Manifest.read(paths.root).identity)
    except IntegrityError:
        raise BuildError(
            f"{paths.manifest} is damaged, or no zoo's. Choose another folder with --out, or remove that one yourself."
        ) from None


def _take(file: IO[str]) -> None:
    """Lock the file; tried for a second, since `status` looks by holding it for a moment. Raises BlockingIOError, OSError."""
    for attempt in range(LOCK_TRIES):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 == LOCK_TRIES:
                raise
            time.sleep(1 / LOCK_TRIES)


@contextlib.contextmanager
def lock(paths: ZooPaths) -> Iterator[None]:
    """Hold the output; the kernel lets go of the lock when the process dies."""
    with paths.lock.open("a+") as file:
        try:
            _take(file)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise BuildError(f"{paths.root} is being built by process {owner}. Wait for it, or end it.") from None
        except OSError as error:
            raise BuildError(
                f"Cannot lock {paths.lock}: {error.strerror}. Choose a folder on a disk with file locks with --out."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_of(error: OSError, paths: ZooPaths) -> bool:
    """Whether the output takes no more files, so that there is no use in going on."""
    if error.errno in _REMEDIES:
        return True
    if error.errno not in _GONE:
        return False
    # Arrow names no file: then what is gone is of the output where a folder of it is.
    return str(error.filename).startswith(str(paths.root.absolute())) if error.filename else not paths.recipe.exists()


def message(paths: ZooPaths, error: OSError) -> str:
    remedy = _REMEDIES.get(error.errno or 0, "bring the folder back")
    if error.errno not in _REMEDIES and not paths.recipe.exists():
        return (
            f"{paths.root} was taken away while it was built, and what was finished with it. Bring the folder back, or start anew: run the same "
            "command again."
        )
    return (
        f"Cannot write to {paths.root}: {error.strerror}. What was finished is kept; {remedy} and run the same "
        "command again."
    )
