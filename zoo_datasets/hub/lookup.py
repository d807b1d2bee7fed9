"""Path or id of a zoo → a `Location`: where its files lie, and how their bytes are got.

In:  a folder, or `owner/name` with a revision of the Hugging Face Hub.
Out: whole files, verified against the manifest, and byte ranges of files: from the disk, or
over HTTP with a cache (`hub/remote.py`).

A folder `owner/name` under the working directory wins over the Hub, as in
`datasets.load_dataset`; `hf://datasets/owner/name` is always the Hub.
"""

from __future__ import annotations

import os
from pathlib import Path

from zoo_datasets.errors import ZooNotFoundError
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.paths import ZOO_ID
from zoo_datasets.reading.location import LocalFolder, Location

REMOTE = "hf://datasets/"


def locate(path_or_id: str | Path, revision: str | None = None, cache_dir: Path | None = None) -> Location:
    """Where a zoo is: a folder, or on the Hub at a revision (a tag, branch or commit).

    `cache_dir` holds what the Hub gave (default: `default_cache()`).
    Raises ZooNotFoundError, FormatVersionError, IntegrityError.
    """
    text, path = str(path_or_id), Path(path_or_id)
    if not text.startswith(REMOTE):
        if is_folder(path):
            if revision is not None:
                raise ZooNotFoundError(
                    f"{text} is a local folder, which has no revisions (asked for {revision!r}). Leave the revision "
                    f"out, or ask for {REMOTE}{text} to pass the folder by."
                )
            manifest = Manifest.read(path)
            return LocalFolder(manifest.zoo, path.resolve(), manifest)
        if os.path.isfile(path):
            raise ZooNotFoundError(f"{text} is a file; a zoo is a folder with a manifest.json.")
    name = text.removeprefix(REMOTE).rstrip("/")
    if isinstance(path_or_id, Path) or not ZOO_ID.fullmatch(name):
        raise ZooNotFoundError(
            f"No folder {text} (from {Path.cwd()}), and it is not an id of the Hub, which reads `owner/name`."
        )
    from zoo_datasets.hub import remote

    return remote.find(name, revision, cache_dir or default_cache(), hub_cache())


def is_folder(path: Path) -> bool:
    """Whether a folder is there. Raises ZooNotFoundError where the system does not let us look."""
    try:
        return path.is_dir()
    except OSError as error:
        raise ZooNotFoundError(f"{str(path)[:200]} cannot be looked at: {error.strerror}.") from None


def default_cache() -> Path:
    """The folder for zoos of the Hub: `zoos` in $HF_HUB_CACHE where that is set and can be written, else in $HF_HOME."""
    shared = hub_cache()
    if shared != _home() / "hub":
        zoos = shared / "zoos"
        if zoos.is_dir() or not shared.exists() or os.access(shared, os.W_OK):
            return zoos
    return _home() / "zoos"


def hub_cache() -> Path:
    """Where `snapshot_download` and `load_dataset` keep what they fetched."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(named)).expanduser() if named else _home() / "hub"


def _home() -> Path:
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.path.expandvars(home)).expanduser()
