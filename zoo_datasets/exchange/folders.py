"""A folder that appears whole, or not at all: written beside its place, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from zoo_datasets.core import files
from zoo_datasets.errors import ZooError

MANIFEST = "manifest.json"  # makes a folder a zoo


@contextlib.contextmanager
def fresh(out: Path) -> Iterator[Path]:
    """A scratch folder that becomes `out` when the block ends, and is gone when it raises.

    An empty folder that is there takes what is in it, the manifest last: it may be somebody's working directory.
    Raises ZooError where `out` holds something, or the disk does not take it.
    """
    out = Path(os.path.abspath(out))  # "." has no name beside which anything could lie
    if os.path.lexists(out) and (not out.is_dir() or out.is_symlink() or any(out.iterdir())):
        raise ZooError(f"{out} is not empty, and nothing is written over. Choose another folder.")
    scratch = out.parent / f"{files.SCRATCH}{os.getpid()}-{out.name}"
    with files.writing(out, "Choose another folder."):
        shutil.rmtree(scratch, ignore_errors=True)  # of a process of this number that was killed
        scratch.mkdir(parents=True)
        try:
            yield scratch
            if out.is_dir():
                for path in sorted(scratch.iterdir(), key=lambda p: (p.name == MANIFEST, p)):
                    path.rename(out / path.name)
                scratch.rmdir()
                files.sync_folder(out)
            else:
                scratch.rename(out)
            files.sync_folder(out.parent)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
