# SPDX-License-Identifier: Apache-2.0
"""The agent as a process, a real kube-apiserver, and what the next ADD gets."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess
from patience import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import RealApiServer

    from .conftest import NetConfMaker

pytestmark = pytest.mark.slow

KEY = "kube-node.nordix.org/net1"
WITHIN = 1.0  # seconds until a change has to serve; the machine may have other things to do: four times that is the limit here


@pytest.fixture(scope="module")
def user(api_server: RealApiServer) -> str:
    """Return the name of a user with the agent's rights on Nodes."""
    api_server.grant("agent-nodes", "get", "list", "watch")
    return "agent-nodes"


@pytest.fixture
def node(api_server: RealApiServer) -> Iterator[str]:
    name = f"agent-{secrets.token_hex(4)}"
    api_server.create_node(name, ["11.0.1.0/24", "1100:0:0:1::/64"])
    yield name
    api_server.delete_node(name)


@pytest.fixture
def watching(api_server: RealApiServer, node: str, user: str, run_dir: Path, tmp_path: Path) -> Iterator[AgentProcess]:
    """Return an agent that watches our Node."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", user)
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", env={"NODE_NAME": node}) as agent:
        yield agent


class Pods:
    """Pods that come one after the other."""

    def __init__(self, agent: AgentProcess, conf: dict[str, Any]) -> None:
        self._agent = agent
        self._conf = conf
        self._number = 0

    def next(self) -> list[str]:
        """Return the next pod's addresses, none where it gets none; the pod is gone then."""
        self._number += 1
        answer = self._agent.call("ADD", self._conf, f"c{self._number}")
        if answer.code == 0:
            assert self._agent.call("DEL", self._conf, f"c{self._number}").code == 0
            return answer.addresses
        return []

    def within(self, prefix: str) -> float:
        """Return after how many seconds a pod gets an address that begins so."""
        begin = time.monotonic()
        eventually(lambda: any(address.startswith(prefix) for address in self.next()), f"no pod gets {prefix}", WITHIN * 4)
        return time.monotonic() - begin


def test_a_hundred_annotation_changes(api_server: RealApiServer, watching: AgentProcess, node: str, netconf: NetConfMaker) -> None:
    """Each change of an annotation serves the next ADD within a second; the agent asks no more than its one GET and one WATCH."""
    pods = Pods(watching, netconf(annotation=KEY))
    assert watching.call("STATUS", netconf()).code == 0
    took = []
    for number in range(100):
        api_server.annotate(node, {KEY: f"172.20.{number}.0/24"})
        took.append(pods.within(f"172.20.{number}."))
    assert sorted(took)[90] < WITHIN
    requests = [asked for asked in api_server.asked() if asked.name == node or f"metadata.name%3D{node}" in asked.uri]
    assert sorted(asked.verb for asked in requests) == ["get", "watch"]


def test_a_new_pod_cidr(api_server: RealApiServer, user: str, run_dir: Path, tmp_path: Path, netconf: NetConfMaker) -> None:
    """A Node without podCIDRs is error 11; once they are assigned the next ADD is served."""
    name = f"agent-{secrets.token_hex(4)}"
    api_server.create_node(name)
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", user)
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", env={"NODE_NAME": name}) as agent:
        early = agent.call("ADD", netconf())
        assert (early.json["code"], early.json["msg"]) == (11, f"Node {name} has no spec.podCIDRs yet")
        spec = {"spec": {"podCIDR": "11.0.9.0/24", "podCIDRs": ["11.0.9.0/24"]}}
        api_server.request("PATCH", f"/api/v1/nodes/{name}", spec, "application/merge-patch+json")
        Pods(agent, netconf()).within("11.0.9.")
    api_server.delete_node(name)


def test_a_node_that_comes_back(
    api_server: RealApiServer, watching: AgentProcess, node: str, netconf: NetConfMaker, data_dir: Path
) -> None:
    """A Node that is deleted and made anew with other podCIDRs: new pods get those, old addresses stay, and it is logged."""
    assert watching.add(netconf(), "old") == ["11.0.1.2", "1100:0:0:1::2"]
    api_server.delete_node(node)
    assert watching.add(netconf(), "between") == ["11.0.1.3", "1100:0:0:1::3"]
    api_server.create_node(node, ["11.0.7.0/24"])
    Pods(watching, netconf()).within("11.0.7.")
    assert (data_dir / "net/11.0.1.2").exists()
    line = watching.said("Node was recreated with another UID")
    assert (line["old_subnets"], line["new_subnets"]) == (["11.0.1.0/24", "1100:0:0:1::/64"], ["11.0.7.0/24"])
    for container in ("old", "between"):
        assert watching.call("DEL", netconf(), container).code == 0
    assert not (data_dir / "net/11.0.1.2").exists()


def test_without_an_api_server(run_dir: Path, tmp_path: Path, netconf: NetConfMaker, node_file: Path) -> None:
    """With no API server to be reached the agent serves from the Node view that is there; with none, ADD is error 11 that says why."""
    kubeconfig = tmp_path / "kubeconfig"
    entry = {"name": "x", "cluster": {"server": "https://127.0.0.1:1"}, "user": {"token": "t"}, "context": {"cluster": "x", "user": "x"}}
    kubeconfig.write_text(json.dumps({"clusters": [entry], "users": [entry], "contexts": [entry], "current-context": "x"}))
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", env={"NODE_NAME": "n"}) as agent:
        refused = agent.call("ADD", netconf())
        assert refused.json["code"] == 11
        assert "https://127.0.0.1:1" in refused.json["msg"]
        assert agent.call("DEL", netconf()).code == 0
        assert agent.get("/readyz")[0] == 503
    seen = {**json.loads(node_file.read_text()), "kube-node.nordix.org/view": {"fetched": time.time() - 9000, "by": "test"}}
    (run_dir / "node.json").write_text(json.dumps(seen))
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", env={"NODE_NAME": "n"}) as agent:
        assert agent.add(netconf()) == ["10.1.0.2", "fd01::2"]
        assert agent.get("/readyz")[0] == 200


def test_what_it_leaves_for_who_runs_without_it(watching: AgentProcess, api_server: RealApiServer, node: str, run_dir: Path) -> None:
    """The agent writes its Node's name, with the machine that it goes for, and the view, which says when it was seen."""
    api_server.set_machine_id(node, "0123")
    eventually((run_dir / "nodename").exists, "no nodename")
    assert (run_dir / "nodename").read_text() == f"{node} 0123\n"
    view = json.loads((run_dir / "node.json").read_text())
    assert view["metadata"]["name"] == node
    assert abs(view["kube-node.nordix.org/view"]["fetched"] - time.time()) < 60
    assert (run_dir / "node.json").stat().st_mode & 0o777 == 0o600
    assert watching.process
