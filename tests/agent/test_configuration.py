# SPDX-License-Identifier: Apache-2.0
"""The agent and the runtime's configuration: a node gets pods once the agent serves them, and a Node without podCIDRs gets none."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, write_node
from ourprocess import KUBE_NODE
from patience import eventually
from wanting import want

from kubenode.installer import held

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

COMMON = {"cniVersion": "1.0.0", "name": "k8snet"}
CONFLIST: dict[str, Any] = {**COMMON, "plugins": [{"type": "bridge", "ipam": {"type": "kube-node"}}, {"type": "portmap"}]}


class Place:
    """A runtime's directory, in which install has left a configuration for the agent."""

    def __init__(self, base: Path) -> None:
        self.directory = base / "net.d"
        self.directory.mkdir()
        self.conflist = self.directory / "10-k8snet.conflist"
        self.waiting = self.directory / f"10-k8snet.conflist{held.SUFFIX}"
        self.node = base / "node.json"

    def hold(self, content: object = CONFLIST) -> None:
        self.waiting.write_text(json.dumps(content))

    def agent(self, run_dir: Path) -> AgentProcess:
        return AgentProcess(run_dir, f"--node-file={self.node}", f"--cni-config={self.directory}")

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_network_comes_when_pods_can_have_addresses(place: Place, run_dir: Path, tmp_path: Path) -> None:
    """What waits stays unseen by the runtime until the agent listens and knows its Node; the first pod has its address at once."""
    plugin = {"type": "bridge", "ipam": {"type": "kube-node", "dataDir": str(tmp_path / "networks")}}
    conflist, conf = {**COMMON, "plugins": [plugin]}, {**COMMON, **plugin}
    place.hold(conflist)
    with place.agent(run_dir) as agent:
        for _ in range(5):
            assert agent.get("/readyz")[0] == 503
            assert place.names() == [place.waiting.name]
        write_node(place.node, "10.0.0.0/24")
        eventually(place.conflist.exists, "the network does not come")
        assert agent.add(conf) == ["10.0.0.2"]
        assert agent.said("network configuration written")["path"] == str(place.conflist)
    assert json.loads(place.conflist.read_text()) == conflist
    assert place.names() == [place.conflist.name]


def test_a_node_without_pod_cidrs(place: Place, run_dir: Path) -> None:
    """Where every ADD would fail the agent is not ready, /readyz, metric and log say why, and what waits waits on; until they come."""
    place.hold()
    write_node(place.node)
    with place.agent(run_dir) as agent:
        told = eventually(lambda: told if "podCIDRs" in (told := agent.get("/readyz")[1]) else None, "it does not say why")
        assert agent.get("/readyz")[0] == 503
        assert told.startswith("Node node-1 has no spec.podCIDRs yet (the controller manager assigns them")
        assert "kubenode_ready 0.0" in agent.get("/metrics")[1]
        assert place.names() == [place.waiting.name]
        status = subprocess.run([KUBE_NODE, "status"], check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
        assert f"! {told.strip()}" in status.stdout
        assert agent.said("not ready")["why"] == told.strip()
        assert len(agent.lines("not ready")) == 1
        write_node(place.node, "10.0.0.0/24")
        eventually(place.conflist.exists, "the network does not come")
        eventually(lambda: agent.get("/readyz") == (200, "ok\n"), "it does not get ready")
        assert "kubenode_ready 1.0" in agent.get("/metrics")[1]


def test_pod_cidrs_that_nobody_needs(place: Place, run_dir: Path) -> None:
    """Where all networks take their subnets from annotations a Node without podCIDRs is as good as any."""
    plugin = {"type": "macvlan", "ipam": {"type": "kube-node", "annotation": "example.com/net"}}
    place.conflist.write_text(json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}))
    write_node(place.node, example_com="10.1.0.0/24")
    with place.agent(run_dir) as agent:
        eventually(lambda: agent.get("/readyz") == (200, "ok\n"), "it does not get ready")


def test_each_network_waits_for_what_it_needs(place: Place, run_dir: Path) -> None:
    """A network with an annotation does not wait for podCIDRs that another one lacks."""
    place.hold({**COMMON, "plugins": [{"type": "bridge", "ipam": {"type": "kube-node", "annotation": "example.com/net"}}]})
    (place.directory / "99-old.conflist").write_text(json.dumps(CONFLIST))
    write_node(place.node, example_com="10.1.0.0/24")
    with place.agent(run_dir) as agent:
        eventually(place.conflist.exists, "the network does not come")
        assert agent.get("/readyz")[0] == 503


def test_what_is_not_ours_stays(place: Place, run_dir: Path) -> None:
    """Another's file under a like name, a link and a named pipe stay as they are, and keep the agent from nothing."""
    place.hold()
    others = ["05-other.conflist.held", "06.conflist~", held.SUFFIX]
    for name in others:
        (place.directory / name).write_text(json.dumps(CONFLIST))
    (place.directory / f"07-link.conflist{held.SUFFIX}").symlink_to("05-other.conflist.held")
    for name in ("08-pipe.conflist", f"09-pipe.conflist{held.SUFFIX}"):
        os.mkfifo(place.directory / name)
    before = place.names()
    write_node(place.node, "10.0.0.0/24")
    with place.agent(run_dir) as agent:
        eventually(place.conflist.exists, "the network does not come")
        eventually(lambda: agent.get("/readyz") == (200, "ok\n"), "it does not get ready")
    assert place.names() == sorted({*before, place.conflist.name} - {place.waiting.name})


def test_a_network_that_is_there_already(place: Place, run_dir: Path) -> None:
    """A configuration that somebody else has put there meanwhile is not overwritten."""
    place.hold()
    place.conflist.write_text("{}")
    write_node(place.node, "10.0.0.0/24")
    with place.agent(run_dir) as agent:
        agent.said("network configuration exists")
        eventually(lambda: place.names() == [place.conflist.name], "what waited stays")
    assert place.conflist.read_text() == "{}"


def test_a_directory_that_cannot_be_written(place: Place, run_dir: Path) -> None:
    """Where the agent cannot put the network in place it says so once, with what to do, and goes on as soon as it can."""
    want("the right to mount")
    place.hold()
    write_node(place.node, "10.0.0.0/24")
    subprocess.run(["mount", "--bind", "--options=ro", place.directory, place.directory], check=True)
    subprocess.run(["mount", "--options=remount,bind,ro", place.directory], check=True)
    try:
        with place.agent(run_dir) as agent:
            told = agent.said("cannot be renamed")
            assert str(place.conflist) in told["msg"]
            assert "Read-only file system" in told["msg"]
            assert agent.get("/readyz") == (503, f"{told['msg']}\n")
            subprocess.run(["umount", place.directory], check=True)
            eventually(place.conflist.exists, "the network does not come")
            assert len(agent.lines("cannot be renamed")) == 1
    finally:
        subprocess.run(["umount", place.directory], check=False, capture_output=True)
