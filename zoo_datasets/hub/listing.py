"""A question about datasets of the Hub → what it says, each part checked.

In:  an id and a revision, or an owner.
Out: commits, revisions, files with their sizes and hashes: typed values.

The Hub's library asks the same of the same addresses, and reads answers of any size, pace and shape.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urljoin

from zoo_datasets.core import records
from zoo_datasets.core.records import Mismatch
from zoo_datasets.errors import ZooNotFoundError
from zoo_datasets.hub import answers, client
from zoo_datasets.hub.client import NoAnswer

COMMIT = re.compile("[0-9a-f]{40}")
TAG = "weightzoo"  # of every zoo's card
MOST_ENTRIES = 200_000  # the Hub advises fewer than 100,000 files
NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of a dataset: its path, size and the hashes the Hub knows; a large file has the second alone."""

    path: str
    size: int
    git_sha1: str
    sha256: str | None

    def holds(self, data: bytes) -> bool:
        """Whether the file has this content."""
        from huggingface_hub.utils.sha import git_hash

        if self.sha256 is not None:
            return hashlib.sha256(data).hexdigest() == self.sha256
        return bool(git_hash(data) == self.git_sha1)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset as a search finds it."""

    id: str
    sha: str | None = None
    tags: tuple[str, ...] = ()
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit of a revision (default: the newest), or None of an empty dataset. Raises NoAnswer, ZooNotFoundError."""
    at = "" if revision is None else f"/revision/{quote(revision, safe='')}"
    value, _ = answers.get_json(f"{_about(name)}{at}")
    sha = value.get("sha", "") if isinstance(value, dict) else ""
    if sha is not None and not (isinstance(sha, str) and COMMIT.fullmatch(sha)):
        raise NoAnswer("what comes names no commit", None)
    return sha


def refs(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """Tags and branches, each with its commit. Raises NoAnswer, ZooNotFoundError."""
    value, _ = answers.get_json(f"{_about(name)}/refs")
    try:
        tags, branches = (
            {r["name"]: r["targetCommit"] for r in value[kind] if COMMIT.fullmatch(r["targetCommit"])}
            for kind in ("tags", "branches")
        )
    except (KeyError, TypeError):
        raise NoAnswer("what comes is no list of revisions", None) from None
    return {str(n): c for n, c in tags.items()}, {str(n): c for n, c in branches.items()}


def tree(name: str, commit: str) -> list[Entry]:
    """Every file of a dataset at a commit. Raises NoAnswer, ZooNotFoundError."""
    found = []
    for value in _pages(f"{_about(name)}/tree/{quote(commit, safe='')}?recursive=true&expand=false"):
        if isinstance(value, dict) and value.get("type") == "directory":
            continue
        try:
            large = value.get("lfs")
            sha256 = None if large is None else records.decode(str, large.get("oid"))
            found.append(Entry(
                records.decode(str, value.get("path")), records.decode(int, value.get("size")),
                records.decode(str, value.get("oid")), sha256,
            ))  # fmt: skip
        except (Mismatch, AttributeError):
            raise NoAnswer("what comes is no list of files", None) from None
    return found


def zoos_of(owner: str) -> list[tuple[str, str]]:
    """(id, commit) of every dataset of an owner that carries our tag. Raises ZooNotFoundError."""
    try:
        listed = list(_pages(f"{client.api().endpoint}/api/datasets?{urlencode({'author': owner, 'full': 'true'})}"))
        datasets = records.decode(tuple[Dataset, ...], listed)
    except (NoAnswer, Mismatch) as error:
        raise ZooNotFoundError(
            f"No folder {owner!r}, and the Hub does not list datasets of that owner ({error})."
        ) from error
    return sorted((d.id, d.sha or "") for d in datasets if TAG in d.tags)


def _about(name: str) -> str:
    """The address of a dataset. Raises ZooNotFoundError for what is no id."""
    with client.talking():
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # handed on without __all__

        validate_repo_id(name)
    return f"{client.api().endpoint}/api/datasets/{quote(name)}"


def _pages(url: str) -> Iterator[Any]:
    """The entries of a list that may come in pages. Raises NoAnswer."""
    ends, count = time.monotonic() + answers.MOST_SMALL_S, 0
    while url:
        value, headers = answers.get_json(url, ends)
        if not isinstance(value, list):
            raise NoAnswer("what comes is no list", None)
        yield from value
        count += len(value) + 1  # an empty page counts: there may be no end of them
        if count > MOST_ENTRIES:
            raise NoAnswer(f"the list has more than {MOST_ENTRIES:,} entries", None)
        found = NEXT.search(headers.get("Link", ""))
        url = urljoin(url, found[1]) if found else ""
        if url and not client.is_the_hub(url):
            raise NoAnswer(f"the list goes on at {url[:100]!r}, which is not the Hub", None)
