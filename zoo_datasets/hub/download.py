"""A zoo on the Hub → a folder of this machine: every sealed file verified, and the folder whole or not there."""

from __future__ import annotations

import shutil
from pathlib import Path

from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import check
from zoo_datasets.format.manifest_parts import UNSEALED
from zoo_datasets.hub import client, lookup, remote

# Pictures and metadata beside the seal; larger is not what we publish.
MOST_UNSEALED_BYTES = 20_000_000


def download(name: str, folder: Path, revision: str | None = None) -> tuple[Path, int]:
    """A zoo of the Hub as a folder, every sealed file verified; the folder and the bytes moved.

    Raises ZooNotFoundError, IntegrityError; ZooError where the folder holds something else.
    """
    found = lookup.locate(name if name.startswith(lookup.REMOTE) else lookup.REMOTE + name, revision)
    assert isinstance(found, remote.HubRepository)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        _compare(folder, found)
        return folder, 0
    staging = folder.with_name(f"{files.SCRATCH}{folder.name}")
    incoming = staging / ".incoming"
    moved = 0
    for file in found.manifest.files.values():
        path = files.inside(staging, file.path)
        if path.is_file() and path.stat().st_size == file.bytes:
            continue  # verified when an earlier call put it there
        remote.fetch(found.url(file.path), path, file, incoming)
        moved += file.bytes
    for relative, size in _unsealed(found).items():
        files.write_atomic(
            files.inside(staging, relative), remote.get(found.url(relative), min(size, MOST_UNSEALED_BYTES))
        )
        moved += size
    shutil.copyfile(found.root / "manifest.json", staging / "manifest.json")
    shutil.rmtree(incoming, ignore_errors=True)
    if folder.is_dir():
        folder.rmdir()  # empty
    staging.rename(folder)
    files.sync_folder(folder.parent)
    return folder, moved


def _compare(folder: Path, found: remote.HubRepository) -> None:
    """Returns where the folder holds this very zoo, whole; raises ZooError where it does not."""
    mine = folder / "manifest.json"
    if not mine.is_file() or mine.read_bytes() != (found.root / "manifest.json").read_bytes():
        raise ZooError(f"{folder} holds something other than {found.name}. Name another folder, or remove it.")
    report = check.check(folder)
    if report.problems:
        raise IntegrityError(
            f"{folder} is a damaged copy of {found.name}: {'; '.join(report.problems)}. Remove it and fetch again."
        )


def _unsealed(found: remote.HubRepository) -> dict[str, int]:
    try:
        with client.talking():
            listed = client.api().list_repo_tree(found.name, recursive=True, revision=found.commit, repo_type="dataset")
            return {e.path: e.size for e in listed if hasattr(e, "blob_id") and e.path.startswith(UNSEALED)}
    except client.NoAnswer as error:
        raise ZooNotFoundError(
            f"The Hub stopped answering while files of {found.name} were listed ({error}). What came is kept; the same "
            "call goes on from there."
        ) from error
