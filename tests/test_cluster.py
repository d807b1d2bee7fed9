"""A build on a Ray cluster that exists already, at RAY_ADDRESS."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]

# A head and a second node, until standard input closes.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """The environment that reaches a cluster of two nodes on this machine."""
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env={**os.environ, **secret},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield {**secret, "RAY_ADDRESS": process.stdout.readline().strip()}
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(60)


def test_a_cluster_that_exists_builds_the_same_zoo(
    cluster: dict[str, str], run_builder: Callable[..., Any], tiny_grid: Path, tiny_zoo: Path, tmp_path: Path,
    tree_hash: Callable[[Path], dict[str, str]],
) -> None:  # fmt: skip
    ended = run_builder("--grid", tiny_grid, "--out", tmp_path / "zoo", **cluster)
    assert ended.code == 0, ended.err
    assert tree_hash(tmp_path / "zoo") == tree_hash(tiny_zoo)
