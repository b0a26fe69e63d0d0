# SPDX-License-Identifier: Apache-2.0
"""An agent that serves a Node manifest, and what its networks look like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import HURRIED, AgentProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    NetConfMaker = Callable[..., dict[str, Any]]


@pytest.fixture
def node_file(tmp_path: Path) -> Path:
    """Return a Node manifest with podCIDRs of both families, and the same in annotations, for more than one network."""
    path = tmp_path / "node.json"
    annotations = dict.fromkeys(["net0", "net1", "net2", "net3", "other"], "10.1.0.0/16, fd01::/64")
    metadata = {"name": "n", "uid": "1", "annotations": annotations}
    path.write_text(json.dumps({"kind": "Node", "metadata": metadata, "spec": {"podCIDRs": ["10.1.0.0/16", "fd01::/64"]}}))
    return path


@pytest.fixture
def agent(run_dir: Path, node_file: Path) -> Iterator[AgentProcess]:
    with AgentProcess(run_dir, f"--node-file={node_file}") as process:
        yield process


@pytest.fixture
def hurried_agent(run_dir: Path, node_file: Path) -> Iterator[AgentProcess]:
    """Return an agent that gives a call 4 s."""
    with AgentProcess(run_dir, f"--node-file={node_file}", wrap=HURRIED) as process:
        yield process


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "networks"


@pytest.fixture
def netconf(data_dir: Path) -> NetConfMaker:
    """Return a function that makes a network configuration; keyword arguments go into `ipam`."""

    def make(plugin: str = "kube-node", name: str = "net", version: str = "1.1.0", **ipam: Any) -> dict[str, Any]:
        return {"cniVersion": version, "name": name, "type": "bridge", "ipam": {"type": plugin, "dataDir": str(data_dir), **ipam}}

    return make
