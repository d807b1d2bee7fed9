"""A zoo on the Hub → a folder of this machine: every sealed file verified, and the folder whole or not there.

In:  an id, or the folder of a zoo (a snapshot in the Hugging Face cache is one), and the folder to make.
Out: that folder. A new one is renamed into its place; an empty one that is there stays the same folder, since
a shell may stand in it, and its manifest comes last. A call that was cut short is gone on from.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from zoo_datasets.core import files, meters
from zoo_datasets.core.command import size as in_words
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import check
from zoo_datasets.format.manifest_parts import MOST_UNSEALED_BYTES, PAGE, UNSEALED, SealedFile
from zoo_datasets.format.paths import ZOO_ID
from zoo_datasets.hub import client, listing, lookup, remote
from zoo_datasets.reading.location import Location

MOST_PICTURES = 100  # files beside the seal; more is not what we publish
BESIDE = re.compile(rf"README\.md|croissant\.json|{re.escape(PAGE)}|pictures/[A-Za-z0-9][A-Za-z0-9_.-]{{0,99}}")
WAY_OUT = "Choose another folder, or make room; what came is kept, and the same call goes on from there."


def download(name: str | Path, folder: Path, revision: str | None = None) -> tuple[Path, int]:
    """A zoo of the Hub as a folder, every sealed file verified; the folder and the bytes moved.

    Raises ZooNotFoundError, IntegrityError; ZooError where the folder holds something else or cannot be written.
    """
    named = isinstance(name, str) and ZOO_ID.fullmatch(name)  # a folder `owner/name` may be what it becomes
    found = lookup.locate(f"{lookup.REMOTE}{name}" if named else name, revision)
    try:
        with files.writing(folder, WAY_OUT):
            return folder, _download(found, folder.resolve())
    except (RuntimeError, ValueError) as error:  # links in a circle, a NUL
        if isinstance(error, ZooError):
            raise
        raise ZooError(f"{str(folder)!r} is no path of a folder: {error}.") from None


def _download(found: Location, folder: Path) -> int:
    if folder.exists() and not folder.is_dir():
        raise ZooError(f"{folder} is a file, and a zoo is a folder. Name another, or remove it.")
    inside = folder.is_dir()
    staging = folder / f"{files.SCRATCH}download" if inside else folder.with_name(f"{files.SCRATCH}{folder.name}")
    if inside and _holds(folder, staging, found):
        _compare(folder, found)
        shutil.rmtree(staging, ignore_errors=True)
        return _bring(found, {p: e for p, e in _beside(found).items() if not files.inside(folder, p).is_file()}, folder)
    beside = _beside(found)
    moved = 0
    with meters.track("fetching", found.manifest.files.size(), "", in_words) as meter:
        for number, file in enumerate(found.manifest.files.values()):
            meter.note = f"{number:,} of {len(found.manifest.files):,} files"
            with meters.listening(lambda amount: setattr(meter, "also", lambda: amount)):
                came = _fetch(found, file, folder, staging)
            meter.also = lambda: 0.0
            (meter.add if came else meter.skip)(file.bytes)
            moved += came
    moved += _bring(found, beside, staging)
    files.write_atomic(staging / "manifest.json", (found.root / "manifest.json").read_bytes())
    shutil.rmtree(staging / ".incoming", ignore_errors=True)
    wanted = {"manifest.json", *found.manifest.files, *beside}
    for path in [p for p in staging.rglob("*") if p.is_file() and p.relative_to(staging).as_posix() not in wanted]:
        path.unlink()  # of another zoo, whose download into the same folder was given up
    if not inside:
        staging.rename(folder)
    else:
        there = [p.relative_to(staging) for p in staging.rglob("*") if p.is_file()]
        for name in sorted(there, key=lambda p: (p.name == "manifest.json", p)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).replace(folder / name)
        shutil.rmtree(staging)
    files.sync_folder(folder.parent)
    return moved


def _holds(folder: Path, staging: Path, found: Location) -> bool:
    """Whether something lies in the folder: nothing does but what systems leave, and what an earlier call began."""
    names = {p.name for p in folder.iterdir() if not p.name.startswith(check.LEFT_BY_SYSTEMS)} - {staging.name}
    begun = {path.split("/")[0] for path in (*found.manifest.files, *UNSEALED)}
    return bool(names) and not (staging.is_dir() and names <= begun)


def _fetch(found: Location, file: SealedFile, folder: Path, staging: Path) -> int:
    """Put a sealed file in its place, verified; the bytes that came."""
    if _is_placed(staging, file) or _is_placed(folder, file):
        return 0
    path = files.inside(staging, file.path)
    path.unlink(missing_ok=True)  # of another zoo, or another version of this one, begun in the same place
    incoming = staging / ".incoming"
    if isinstance(found, remote.HubRepository) and not found.has(file.path):
        remote.fetch(found.url(file.path), path, file, incoming)
    else:
        part = incoming / f"{file.sha256}.part"
        for parent in (incoming, path.parent):
            parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found.verified(file.path), part)
        part.replace(path)
    return file.bytes


def _is_placed(folder: Path, file: SealedFile) -> bool:
    """Whether an earlier call brought this very file there."""
    try:
        return folder.is_dir() and bool(file.verify(folder))
    except IntegrityError:
        return False


def _compare(folder: Path, found: Location) -> None:
    """Returns where the folder holds this very zoo, whole; raises ZooError where it does not."""
    mine = folder / "manifest.json"
    if not mine.is_file() or files.sha256(mine) != files.sha256(found.root / "manifest.json"):
        raise ZooError(f"{folder} holds something other than {found.name}. Name another folder, or remove it.")
    report = check.sealed(folder)
    if report.problems:
        raise IntegrityError(
            f"{folder} is a damaged copy of {found.name}: {'; '.join(report.problems)}. Remove it and fetch again."
        )


def _beside(found: Location) -> dict[str, listing.Entry | None]:
    """What stands beside the seal, as the Hub lists it; only names that we publish, whatever is listed."""
    listed: dict[str, listing.Entry | None]
    if not isinstance(found, remote.HubRepository):
        names = [
            "README.md",
            "croissant.json",
            PAGE,
            *(f"pictures/{p.name}" for p in (found.root / "pictures").glob("*")),
        ]
        listed = {name: None for name in names if (found.root / name).is_file()}
    else:
        try:
            listed = {entry.path: entry for entry in listing.tree(found.name, found.commit)}
        except client.NoAnswer as error:
            raise ZooNotFoundError(
                f"The Hub stopped answering while files of {found.name} were listed ({error}). What came is kept; the same "
                "call goes on from there."
            ) from error
    pictures_last = sorted(listed, key=lambda path: (path.startswith("pictures/"), path))
    kept = [path for path in pictures_last if BESIDE.fullmatch(path)]
    return {path: listed[path] for path in kept[:MOST_PICTURES]}


def _bring(found: Location, beside: Mapping[str, listing.Entry | None], folder: Path) -> int:
    """Put files that stand beside the seal into a folder; their bytes."""
    moved = 0
    for relative, entry in beside.items():
        data = _small(found, relative, entry)
        files.write_atomic(files.inside(folder, relative), data)
        moved += len(data)
    return moved


def _small(found: Location, relative: str, entry: listing.Entry | None) -> bytes:
    """A file that stands beside the seal, whole. Raises ZooNotFoundError where it is not."""
    if not isinstance(found, remote.HubRepository) or entry is None:
        return files.read_bounded(files.inside(found.root, relative), MOST_UNSEALED_BYTES)
    try:
        data = remote.get(found.url(relative), min(entry.size, MOST_UNSEALED_BYTES))
    except client.NoFile:
        raise ZooNotFoundError(f"{relative} of {found.name} is listed on the Hub, and not there. Try again.") from None
    if not entry.holds(data):  # an answer that states no length ends wherever its line breaks
        raise ZooNotFoundError(
            f"{relative} of {found.name} came otherwise than the Hub lists it ({len(data):,} of {entry.size:,} bytes). "
            "What came is kept; the same call goes on from there."
        )
    return data
