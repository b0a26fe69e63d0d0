# SPDX-License-Identifier: Apache-2.0
"""Which Node is ours: a name where somebody says it, else the machine-id; never a guess."""

from __future__ import annotations

import json
import os
import secrets
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import RealApiServer
    from callplugin import NetworkMaker

pytestmark = pytest.mark.ways("standalone", "console")  # how the agent asks is in tests/agent


class Nodes:
    """Nodes that are gone after the test."""

    def __init__(self, server: RealApiServer) -> None:
        self._server = server
        self._names: list[str] = []

    def add(self, name: str, cidr: str, machine_id: str | None = None) -> str:
        self._server.create_node(name, [cidr], machine_id=machine_id)
        self._names.append(name)
        return name

    def remove(self) -> None:
        for name in self._names:
            self._server.delete_node(name)


@pytest.fixture
def nodes(api_server: RealApiServer) -> Iterator[Nodes]:
    made = Nodes(api_server)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def lister(api_server: RealApiServer) -> str:
    api_server.grant("lister", "list")
    api_server.grant("lister", "get")
    return "lister"


@pytest.fixture
def may_list(api_server: RealApiServer, lister: str, tmp_path: Path) -> str:
    return str(api_server.kubeconfig(tmp_path / "lister", lister))


def unique(name: str) -> str:
    return f"{name}-{secrets.token_hex(4)}"


def test_by_environment_first(embedded: NetworkMaker, nodes: Nodes, kubeconfig: str, run_dir: Path) -> None:
    """$NODE_NAME decides, whatever the file `nodename` says."""
    name = nodes.add(unique("by-env"), "10.1.0.0/24")
    (run_dir / "nodename").write_text("another\n")
    assert embedded(kubeconfig=kubeconfig).add(env={"NODE_NAME": name}) == ["10.1.0.2"]


def test_by_file(embedded: NetworkMaker, nodes: Nodes, kubeconfig: str, run_dir: Path) -> None:
    """The file `nodename` in the run directory says which Node is ours."""
    (run_dir / "nodename").write_text(nodes.add(unique("by-file"), "10.2.0.0/24") + "\n")
    assert embedded(kubeconfig=kubeconfig).add() == ["10.2.0.2"]


def test_a_renamed_node(embedded: NetworkMaker, nodes: Nodes, may_list: str, machine_id: str, run_dir: Path) -> None:
    """A name that an agent has noted is a guess: without such a Node, or where it is another machine's, ours is by machine-id."""
    old = unique("old")
    (run_dir / "nodename").write_text(f"{old} {machine_id}\n")
    nodes.add(unique("renamed"), "10.8.0.0/24", machine_id)
    assert embedded(kubeconfig=may_list).add() == ["10.8.0.2"]
    nodes.add(old, "10.9.0.0/24", "0" * 32)
    (run_dir / "node.json").unlink()
    assert embedded(kubeconfig=may_list).add("c2") == ["10.8.0.3"]


def test_a_name_of_another_machine(embedded: NetworkMaker, nodes: Nodes, kubeconfig: str, machine_id: str) -> None:
    """A Node that $NODE_NAME names and that is another machine's is taken, as it was said so; the log calls that an error."""
    name = nodes.add(unique("wrong"), "10.10.0.0/24", "0" * 32)
    answer = embedded(kubeconfig=kubeconfig).call("ADD", env={"NODE_NAME": name})
    assert answer.addresses == ["10.10.0.2"]
    told = [json.loads(line) for line in answer.stderr.splitlines()]
    assert [line["level"] for line in told if "0" * 32 in line["msg"] and machine_id in line["msg"]] == ["error"]


@pytest.mark.parametrize("how", ["environment", "file"])
def test_a_name_that_no_node_has(embedded: NetworkMaker, kubeconfig: str, run_dir: Path, how: str) -> None:
    """A name without a Node is an error that says who gave the name; there is no falling back to another Node."""
    (run_dir / "nodename").write_text("nobody")
    error = embedded(kubeconfig=kubeconfig).error(env={"NODE_NAME": "nobody"} if how == "environment" else {})
    source = "NODE_NAME" if how == "environment" else f"{run_dir}/nodename"
    assert (error["code"], error["msg"]) == (104, "there is no Node nobody")
    assert error["details"].startswith(f"{source} names this Node")


def test_by_host_name_with_our_machine_id(
    embedded: NetworkMaker, nodes: Nodes, api_server: RealApiServer, kubeconfig: str, machine_id: str
) -> None:
    """The host's name counts where that Node has our machine-id: `get` is enough, nothing is listed."""
    nodes.add(os.uname().nodename.lower(), "10.3.0.0/24", machine_id)
    before = len(api_server.asked())
    assert embedded(kubeconfig=kubeconfig).add() == ["10.3.0.2"]
    assert [request.verb for request in api_server.asked()[before:]] == ["get"]


def test_another_machines_node_of_our_host_name(embedded: NetworkMaker, nodes: Nodes, may_list: str, machine_id: str) -> None:
    """A Node with our host's name and another machine-id is not ours; the one with our machine-id is, whatever its name."""
    nodes.add(os.uname().nodename.lower(), "10.4.0.0/24", "0" * 32)
    nodes.add(unique("by-id"), "10.5.0.0/24", machine_id)
    assert embedded(kubeconfig=may_list).add() == ["10.5.0.2"]


def test_ambiguous_machine_ids(embedded: NetworkMaker, nodes: Nodes, may_list: str, machine_id: str) -> None:
    """Two Nodes with our machine-id are refused, both named: to take one would give two nodes the same addresses."""
    names = sorted(nodes.add(unique("clone"), cidr, machine_id) for cidr in ("10.6.0.0/24", "10.7.0.0/24"))
    error = embedded(kubeconfig=may_list).error()
    assert (error["code"], error["msg"]) == (105, f"the Nodes {names[0]}, {names[1]} have the same machineID {machine_id}")


def test_no_node_is_ours(embedded: NetworkMaker, may_list: str, machine_id: str) -> None:
    """Where no Node has our machine-id, the error says so and how to name ours."""
    error = embedded(kubeconfig=may_list).error()
    assert (error["code"], error["msg"]) == (104, f"own Node not found: no Node has machineID {machine_id}")
    assert "NODE_NAME" in error["details"]


def test_a_directory_instead_of_the_name(embedded: NetworkMaker, run_dir: Path) -> None:
    """A directory where the Node's name is looked for is named, with what to do; advice has the path that is looked at."""
    (run_dir / "nodename").mkdir()
    error = embedded(kubeconfig="/etc/hostname").error()
    assert (error["code"], error["msg"]) == (5, f"{run_dir}/nodename is a directory, not a file")
    assert error["details"].endswith(f"rmdir {run_dir}/nodename")


@pytest.mark.usefixtures("machine_id")
def test_advice_has_the_path_that_is_looked_at(embedded: NetworkMaker, may_list: str, run_dir: Path) -> None:
    """Where no Node has our machine-id, advice names the file of $KUBE_NODE_RUN_DIR."""
    error = embedded(kubeconfig=may_list).error()
    assert (error["code"], f"write the name to {run_dir}/nodename" in error["details"]) == (104, True)
