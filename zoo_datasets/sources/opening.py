"""A dataset's name → its splits, as `datasets` has them.

In:  the id of a dataset of the Hub, with a commit where it is pinned; or a folder: a copy in the
     Hub's layout, a folder of images or tables, one that `save_to_disk` wrote.
Out: the splits by name, pictures undecoded.

`datasets` caches a local folder under its name, not its content, and under HOME. So a local
copy is loaded into a temporary cache, which lives as long as `opened`: a rebuilt copy gives
its new rows, and nothing else is written. The Hub's cache is keyed by commit and is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from zoo_datasets.core import files, libraries
from zoo_datasets.errors import GridError, IntegrityError, MissingLibraryError, ZooNotFoundError
from zoo_datasets.sources.spec import SourceSpec
from zoo_datasets.sources.tables import Table

# One question to the Hub before `datasets` asks: its own retries take 23 s without a network.
PATIENCE_S = 5.0
LARGEST_LIST = 2**24  # bytes of a list of files
LONGEST_REASON = 500  # characters of what `datasets` says, which may quote a whole table
# What `datasets` refuses → what to do here.
WAYS_OUT = {
    "corresponds to no data": "Some split has no rows, and `datasets` loads none beside it: take its files away.",
    "Config name is missing": "Name it as source.config.",
    "infer the same data file format": "Write all splits in one format.",
}
SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves beside a DatasetDict, a Dataset


@contextmanager
def opened(spec: SourceSpec, folder: Path | None) -> Iterator[dict[str, Table]]:
    """The splits of the dataset by name, from `folder` or else from the Hub.

    Raises ZooNotFoundError, GridError (no such config) or IntegrityError (unreadable files).
    """
    with libraries.needed():
        import datasets

    source = spec.id
    where = f"in {str(folder)!r}" if folder else "on the Hugging Face Hub"
    with ExitStack() as stack:
        if folder:
            settings = {"path": str(folder), "cache_dir": stack.enter_context(files.temporary("zoo-source-"))}
            stack.enter_context(_no_progress_bars())
        else:
            # The prefix keeps a folder of the same name in the working directory out of it.
            settings = {"path": f"hf://datasets/{source}"} | ({"revision": spec.revision} if spec.revision else {})
            if not _hub_answers():
                stack.enter_context(_from_cache_alone())
        try:
            splits = (
                _saved(spec, folder)
                if folder and any((folder / name).is_file() for name in SAVED)
                else datasets.load_dataset(name=spec.config, **settings)
            )
        except GridError:
            raise
        except ConnectionError as error:
            raise ZooNotFoundError(_unanswered(spec)) from error
        except FileNotFoundError as error:
            pinned = f" at revision {spec.revision!r}" if spec.revision else ""
            raise ZooNotFoundError(f"No source {source!r}{pinned} {where}: {_reason(error)}") from error
        except datasets.exceptions.DatasetsError as error:
            raise IntegrityError(
                f"Source {source!r} {where} cannot be read: {_reason(error.__cause__ or error)}"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise IntegrityError(f"Source {source!r} {where} cannot be read: {_reason(error)}") from error
        except ValueError as error:  # an unknown or a missing config; the message lists them
            hint = next((f" {ours}" for theirs, ours in WAYS_OUT.items() if theirs in str(error)), "")
            said = _reason(error).split("\nExample of usage:")[0]  # by `load_dataset`, which is not the way here
            raise GridError(f"Source {source!r} {where}: {' '.join(said.split())}{hint}") from error
        except Exception as error:
            # What a stranger's files make the readers of YAML, CSV and Arrow raise is of any type.
            if isinstance(error, ModuleNotFoundError) and libraries.missing(error) is not None:
                raise MissingLibraryError(libraries.missing(error)) from error
            if isinstance(error, RuntimeError) and "script" in str(error):
                raise GridError(
                    f"Source {source!r} {where} is published as a loading script, which `datasets` ≥ 4 does not run. Load it "
                    "once with datasets<4 and write each split with `to_parquet` to data/train-00000-of-00001.parquet (and "
                    f"test-…) in a folder {source}/ under ZOO_DATA."
                ) from error
            raise IntegrityError(f"Source {source!r} {where} cannot be read: {_reason(error)}") from error
        yield dict(splits)


def _unanswered(spec: SourceSpec) -> str:
    if spec.revision:  # offline, `datasets` has no way to a revision in its cache
        return (
            f"Source {spec.id!r} is pinned to revision {spec.revision!r}, and the Hugging Face Hub does not answer. Connect "
            "to the Hub, or name a copy as source.path instead of the revision."
        )
    return (
        f"Source {spec.id!r} has no local copy and the Hugging Face Hub does not answer. "
        f"Set ZOO_DATA or --data to a folder that holds {spec.id}/, or connect to the Hub."
    )


def _saved(spec: SourceSpec, folder: Path) -> dict[str, Table]:
    """The splits that `save_to_disk` wrote; a Dataset alone is one split. Raises GridError."""
    import datasets

    if spec.config is not None:
        raise GridError(f"Source {spec.id!r} in {str(folder)!r} was saved by `save_to_disk`, and has no config.")
    try:
        splits = _json(folder, SAVED[0])["splits"]
    except FileNotFoundError:
        saved = datasets.load_from_disk(str(folder))
        return {str(saved.split or "train"): saved}
    # A split without rows has no file, and `datasets` cannot load it.
    full = [name for name in splits if _json(folder, f"{name}/{SAVED[1]}")["_data_files"]]
    return {name: datasets.load_from_disk(str(folder / name)) for name in full}


def _json(folder: Path, name: str) -> Any:
    return json.loads(files.read_bounded(folder / name, LARGEST_LIST))


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "…"


def _hub_answers() -> bool:
    """Whether the Hub can be asked: anything it says will do."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE_S)
    except Exception:  # whose type is that of requests, httpx or httpx2, as huggingface_hub's version has it
        return False
    return True


@contextmanager
def _from_cache_alone() -> Iterator[None]:
    """`datasets` does not ask the Hub, and loads what it has downloaded before."""
    from datasets import config

    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
