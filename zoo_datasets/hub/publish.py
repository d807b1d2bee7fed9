"""A sealed zoo → a dataset on the Hugging Face Hub.

Publishing refuses what `check` refuses; draws card, page, pictures and Croissant metadata
beside the seal; uploads what the Hub does not have yet; and tags a release. The manifest goes with
the last commit: a dataset without one is not a finished zoo, so an upload that was cut
short is never read, and the same call goes on from there. Publishing the same zoo twice
uploads nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from zoo_datasets.core import files, meters
from zoo_datasets.core.command import size as in_words
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import card, check
from zoo_datasets.format.manifest import CONFIGS, Manifest
from zoo_datasets.format.manifest_parts import MOST_UNSEALED_BYTES, PAGE
from zoo_datasets.format.paths import ZOO_ID
from zoo_datasets.format.tables import read_schema, read_table
from zoo_datasets.hub import answers, client, croissant, listing, lookup
from zoo_datasets.reading.location import Location

log = logging.getLogger("zoo_datasets")

MOST_FILES_A_COMMIT = 99  # the Hub advises fewer than 100
# The Hub takes up to a minute for a large commit: 12 times what it has to begin an answer are two minutes.
WRITE_PATIENCE = 12
LEAST_UPLOADED_A_S = 10_000  # bytes; a mobile line at its edge sends that
# Folders that belong to the zoo alone: what a new release does not have there is deleted.
OWN_FOLDERS = ("data/", "weights/", "optimizer/", "pictures/")


@dataclasses.dataclass(frozen=True)
class Published:
    """What a publication did: the commit that holds the zoo now, and what was uploaded for it."""

    commit: str
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]
    bytes: int
    tag: str | None


# ── publish ──


def publish(
    root: Path, name: str, *, tag: str | None = None, private: bool | None = None, replace: bool = False,
    page: Callable[[Location, str], str] | None = None,
) -> Published:  # fmt: skip
    """Make the Hub's dataset `name` hold this zoo; with a tag, the tag too.

    `replace` allows other content where an untagged other zoo, or what is none, lies. `page` makes the HTML file that shows the zoo
    (`page.page.of`), which the card then links; without it one that is there is published.
    Raises IntegrityError (damaged), ZooNotFoundError (unsealed, or no Hub), ZooError (refused).
    """
    if not ZOO_ID.fullmatch(name):
        raise ZooNotFoundError(f"{name!r} is not an id of the Hub, which reads `owner/name`.")
    if not lookup.is_folder(root):
        raise ZooNotFoundError(f"No folder {root}: only a zoo on this machine can be published.")
    location = lookup.locate(root)
    if files.is_snapshot(location.root):
        raise ZooError(
            f"{root} belongs to the Hub's cache, where nothing is written. `python -m zoo_datasets download` makes a "
            "folder of it, which can be published."
        )
    report = check.sealed(location.root)
    if report.problems:
        raise IntegrityError(f"{root} is damaged and is not published: " + "; ".join(report.problems))
    with _refusals(name):
        return _publish(location, name, tag, private, replace, page)


def dress(location: Location, name: str, page: Callable[[Location, str], str] | None = None) -> None:
    """Write what stands outside the seal: card, Croissant metadata, the page and, with matplotlib, the pictures."""
    root, manifest = location.root, location.manifest
    schemas = {c: read_schema(root, manifest, c) for c in CONFIGS}
    models = read_table(root, manifest, "models")
    drawn = _draw(root, manifest, models)
    for file, data in drawn.items():
        _keep(root, f"pictures/{file}", data)
    if page is not None:
        _keep_page(root, page(location, name).encode())
    there = [f for f in card.PICTURES if (root / "pictures" / f).is_file()]
    _keep(root, "croissant.json", (json.dumps(croissant.describe(manifest, schemas, name), indent=1) + "\n").encode())
    _keep(
        root,
        "README.md",
        card.render(manifest, models, name=name, schemas=schemas, pictures=there, page=_has_page(root)).encode(),
    )


def _keep_page(root: Path, data: bytes) -> None:
    """Write the page, or where nobody could download it take away the one that is there, and say so."""
    if len(data) <= MOST_UNSEALED_BYTES:
        _keep(root, PAGE, data)
        return
    log.warning(
        "The page has %s, and %s is the most that is downloaded with a zoo: it is published without one. "
        "`python -m zoo_datasets page` makes it as a file of its own.",
        in_words(len(data)),
        in_words(MOST_UNSEALED_BYTES),
    )
    files.inside(root, PAGE).unlink(missing_ok=True)


def _has_page(root: Path) -> bool:
    path = files.inside(root, PAGE)
    return path.is_file() and path.stat().st_size <= MOST_UNSEALED_BYTES


def _draw(root: Path, manifest: Manifest, models: pa.Table) -> dict[str, bytes]:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        log.warning(
            "No matplotlib (`pip install weightzoo[bench]`): the card has the pictures that are there, or none."
        )
        return {}
    from zoo_datasets.hub import pictures

    columns = ["model_id", "epoch", "test_accuracy"]
    return pictures.draw(models, read_table(root, manifest, "snapshots", columns), manifest.axes)


def _keep(root: Path, relative: str, data: bytes) -> None:
    """Write a file where it says something else. Raises IntegrityError where a link leads elsewhere."""
    path = files.inside(root, relative)
    if not path.is_file() or path.read_bytes() != data:
        files.write_atomic(path, data)


def _publish(
    location: Location, name: str, tag: str | None, private: bool | None, replace: bool,
    page: Callable[[Location, str], str] | None,
) -> Published:  # fmt: skip
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api = client.api()
    try:
        head, tags = listing.commit_of(name, None), listing.refs(name)[0]
    except client.NoAnswer as error:
        if error.code != "RepoNotFound":
            raise
        _written(lambda: api.create_repo(name, repo_type="dataset", private=private, exist_ok=True))
        head, tags = listing.commit_of(name, None), {}
    there = {entry.path: entry for entry in listing.tree(name, head)} if head else {}
    sealed = {path: location.root / path for path in (*location.manifest.files, "manifest.json")}
    other = {path for path, file in sealed.items() if not _same(file, there.get(path), location)}
    if tag in tags:
        if tags[tag] == head and not other:
            # The same zoo, released: a later version draws its card and page in other words, and a release does not change.
            return Published(str(head), (), (), 0, tag)
        raise ZooError(
            f"{name} has a release {tag!r} already, of other content (commit {tags[tag][:12]}). Releases do not change: "
            "choose another tag."
        )
    changed = other - {"manifest.json"}
    if "manifest.json" in there and changed and head not in tags.values() and not replace:
        raise ZooError(
            f"{name} holds another zoo, and no tag keeps it: {len(changed)} sealed files differ. Tag what is there "
            f"first, publish under another name, or say --replace."
        )
    if "manifest.json" not in there and not replace:
        kept = set(_paths(location))
        lost = {p for p in there if p in changed or (p.startswith(OWN_FOLDERS) and p not in kept)}
        lost -= {".gitattributes"}  # which the Hub makes
        _check_kept(name, [there[p] for p in sorted(lost)], tags)
    dress(location, name, page)  # only now that nothing is refused: a card under another name would stay behind
    ours = {path: location.root / path for path in _paths(location)}
    new = [p for p, file in ours.items() if (p in other if p in sealed else not _same(file, there.get(p), location))]
    gone = sorted(p for p in there if (p.startswith(OWN_FOLDERS) or (p == PAGE and page is not None)) and p not in ours)
    batches = _batches(new, gone)
    with _one_bar(), meters.track("uploading", sum(ours[p].stat().st_size for p in new), "", in_words) as meter:
        for number, (adds, deletes) in enumerate(batches):
            operations: list[Any] = [CommitOperationAdd(path_in_repo=p, path_or_fileobj=str(ours[p])) for p in adds]
            operations += [CommitOperationDelete(path_in_repo=p) for p in deletes]
            if number == 0 and len(batches) > 1 and "manifest.json" in there:
                # Between the commits old and new files are mixed: not a finished zoo for anyone.
                operations.append(CommitOperationDelete(path_in_repo="manifest.json"))
            part = f" ({number + 1} of {len(batches)})" if len(batches) > 1 else ""
            log.info("Uploading %d files to %s%s …", len(adds), name, part)
            message = f"Publish {location.name}{f' {tag}' if tag else ''}{part}"
            commit = functools.partial(
                api.create_commit, name, operations, commit_message=message, repo_type="dataset", parent_commit=head
            )
            head = _written(commit, sum(ours[p].stat().st_size for p in adds)).oid
            meter.add(sum(ours[p].stat().st_size for p in adds))
    if tag and tag not in tags:
        _written(lambda: api.create_tag(name, tag=tag, revision=head, repo_type="dataset"))
    return Published(str(head), tuple(new), tuple(gone), sum(ours[p].stat().st_size for p in new), tag)


def _check_kept(name: str, lost: list[listing.Entry], tags: Mapping[str, str]) -> None:
    """Raises ZooError where files of what is no zoo would be lost; of a release whose successor was cut short none are."""
    for commit in set(tags.values()) if lost else ():
        kept = set(listing.tree(name, commit))
        lost = [entry for entry in lost if entry not in kept]
    if lost:
        raise ZooError(
            f"{name} holds no finished zoo, and no tag keeps what is there: {len(lost)} files would be deleted or overwritten, such as "
            f"{lost[0].path}. Tag what is there first, publish under another name, or say --replace."
        )


@contextlib.contextmanager
def _one_bar() -> Iterator[None]:
    """The Hub's library draws bars of its own, over ours and where there is no terminal."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # handed on without __all__
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _written(call: Callable[[], Any], size: int = 0) -> Any:
    """What a call that writes to the Hub gives, bounded in time by the bytes that go there. Raises NoAnswer."""
    return client.within(WRITE_PATIENCE * answers.patience() + size / LEAST_UPLOADED_A_S, call)


def _paths(location: Location) -> list[str]:
    """What is published: sealed files, what stands beside the seal, and last the manifest."""
    unsealed = ["README.md", "croissant.json", PAGE, *(f"pictures/{f}" for f in card.PICTURES)]
    beside = [
        p for p in unsealed if (_has_page(location.root) if p == PAGE else files.inside(location.root, p).is_file())
    ]  # plain files: a link may lead anywhere
    return [*location.manifest.files, *beside, "manifest.json"]


def _batches(new: list[str], gone: list[str]) -> list[tuple[list[str], list[str]]]:
    """Commits of files to add and to delete; the manifest is in the last one."""
    steps = [(p, True) for p in new if p != "manifest.json"] + [(p, False) for p in gone]
    size = MOST_FILES_A_COMMIT - 1  # room for the manifest
    cut = [steps[i : i + size] for i in range(0, len(steps), size)] or [[]]
    batches = [([p for p, add in c if add], [p for p, add in c if not add]) for c in cut]
    if "manifest.json" in new or len(batches) > 1:
        batches[-1][0].append("manifest.json")
    return [b for b in batches if b[0] or b[1]]


def _same(file: Path, entry: listing.Entry | None, location: Location) -> bool:
    """Whether the Hub's entry has the file's content, from the hashes that both sides know."""
    if entry is None or entry.size != file.stat().st_size:
        return False
    sealed = location.manifest.files.get(entry.path)
    if entry.sha256 is not None and sealed is not None:
        return entry.sha256 == sealed.sha256
    return entry.holds(file.read_bytes())  # small: the Hub keeps large files with a SHA-256, and those are sealed


@contextlib.contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What the Hub refuses, as a ZooError with the way out."""
    try:
        with client.talking():
            yield
    except client.NoAnswer as error:
        if error.status in (401, 403):
            raise ZooError(
                f"The Hub does not let you write to {name} ({error.status}). Log in with a token that may: `hf auth login`."
            ) from error
        if error.status == 412:
            raise ZooError(f"Somebody else changed {name} meanwhile. Run the same command again.") from error
        raise ZooError(
            f"Publishing {name} stopped: {error}. What was uploaded is kept; the same command goes on."
        ) from error
