"""Fixtures around the loopback Hub: this process talks to it, and a tiny zoo is published there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import NAME, QUIET, LoopbackHub, tree_of

from zoo_datasets.hub import remote


@pytest.fixture
def dressed(tiny_dressed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny zoo as it is published, which a test may damage; its pictures stay as they are."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # drawing takes half a second
    return Path(shutil.copytree(tiny_dressed, tmp_path / "mine" / "tiny"))


@pytest.fixture(scope="session")
def tiny_dressed(tiny_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from zoo_datasets.hub import lookup, publish

    folder = Path(shutil.copytree(tiny_zoo, tmp_path_factory.mktemp("dressed") / "tiny", ignore=lambda *_: [".build"]))
    publish.dress(lookup.locate(folder), NAME)
    return folder


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A Hub for this test alone; the libraries of this process talk to it, with caches in `tmp_path`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    close_session()  # the shared client may have been made under other proxies
    folder = tmp_path / "work"  # no folder of a zoo's name lies here
    folder.mkdir()
    monkeypatch.chdir(folder)
    with LoopbackHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(  # made of the endpoint when the library was imported
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield server
        close_session()


@pytest.fixture
def published(loopback: LoopbackHub, tiny_dressed: Path) -> LoopbackHub:
    """The loopback Hub with the tiny zoo on it, tagged v1."""
    commit = loopback.put(NAME, tree_of(tiny_dressed))
    loopback.repos[NAME].tags["v1"] = commit
    loopback.log.clear()
    return loopback
