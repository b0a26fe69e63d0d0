# SPDX-License-Identifier: Apache-2.0
"""Networks for the plugins' tests."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import Network
from wanting import want
from ways import activated, binaries, pytest_generate_tests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from apiserver import RealApiServer
    from callplugin import NetworkMaker, ViewWriter
    from ways import ActivatedAgent

__all__ = ["activated", "binaries", "pytest_generate_tests"]


@pytest.fixture(params=["embedded", "host-local"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """Return a CNI_PATH without host-local, and one with the reference's."""
    directory = tmp_path / "cni-bin"
    directory.mkdir()
    if request.param == "host-local":
        cni_bin: Path = request.getfixturevalue("cni_bin")
        (directory / "host-local").symlink_to(cni_bin / "host-local")
    return [directory]


@pytest.fixture
def network(binaries: Path, activated: ActivatedAgent | None, tmp_path: Path, path: list[Path]) -> NetworkMaker:
    """Return a function that makes a network of a plugin, with these keys in `ipam`; the reference's host-local gives, or our allocator."""

    def make(plugin: str = "kube-node", /, version: str = "1.1.0", **ipam: Any) -> Network:
        if not activated and any(path[0].iterdir()):
            ipam.setdefault("delegate", "host-local")
        if activated and "kubeconfig" in ipam:
            activated.kubeconfig = ipam["kubeconfig"]
        return Network(binaries / plugin, tmp_path / "networks", ipam, path, version)

    return make


@pytest.fixture
def embedded(binaries: Path, activated: ActivatedAgent | None, tmp_path: Path) -> NetworkMaker:
    """Return a function that makes a network of a plugin where CNI_PATH is empty."""

    def make(plugin: str = "kube-node", /, version: str = "1.1.0", **ipam: Any) -> Network:
        if activated and "kubeconfig" in ipam:
            activated.kubeconfig = ipam["kubeconfig"]
        return Network(binaries / plugin, tmp_path / "networks", ipam, [], version)

    return make


@pytest.fixture
def view(run_dir: Path) -> ViewWriter:
    """Return a function that writes a Node view by hand, for Node `n`."""

    def write(*pod_cidrs: str, annotations: Mapping[str, str] | None = None) -> None:
        manifest = {"kind": "Node", "metadata": {"name": "n", "annotations": annotations or {}}, "spec": {"podCIDRs": pod_cidrs}}
        (run_dir / "node.json").write_text(json.dumps(manifest))

    return write


@pytest.fixture
def node(api_server: RealApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a Node at the real API server, which $NODE_NAME says is ours. It has both podCIDRs."""
    name = f"node-{secrets.token_hex(4)}"
    api_server.create_node(name, ["11.0.1.0/24", "1100:0:0:1::/64"])
    monkeypatch.setenv("NODE_NAME", name)
    yield name
    api_server.delete_node(name)


@pytest.fixture
def machine_id() -> str:
    """Return what this machine's Node has as its machineID."""
    want("machine-id")
    return Path("/etc/machine-id").read_text().strip()


@pytest.fixture
def kubeconfig(api_server: RealApiServer, tmp_path: Path, get_nodes: str) -> str:
    """Return the path of a kubeconfig whose user may `get` nodes and nothing else."""
    return str(api_server.kubeconfig(tmp_path / "kubeconfig", get_nodes))


@pytest.fixture(scope="session")
def get_nodes(api_server: RealApiServer) -> str:
    """Return the name of a user who may `get` nodes and nothing else."""
    api_server.grant("get-nodes", "get")
    return "get-nodes"
