# SPDX-License-Identifier: Apache-2.0
"""Leaks with nothing faked: the agent's process, network namespaces of the kernel, pods of a real API server."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, pod_args, write_node
from patience import eventually
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import RealApiServer

pytestmark = pytest.mark.slow

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
def netns() -> Iterator[Callable[[], str]]:
    """Return a maker of network namespaces, which returns their paths."""
    want("network namespaces")
    made = []

    def make() -> str:
        name = f"knl{secrets.token_hex(4)}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        made.append(name)
        return f"/var/run/netns/{name}"

    yield make
    for name in made:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def delete(netns: str) -> None:
    subprocess.run(["ip", "netns", "del", os.path.basename(netns)], check=True)


def pod(server: RealApiServer, name: str = "", node: str = "") -> tuple[str, str]:
    """Create a pod, of this node if one is given; return its name and UID."""
    name = name or f"pod-{secrets.token_hex(4)}"
    spec = {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": False, **({"nodeName": node} if node else {})}
    with contextlib.suppress(RuntimeError):  # an earlier test has made it
        server.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    created = server.request("POST", PODS, {"metadata": {"name": name}, "spec": spec})
    return name, str(created["metadata"]["uid"])


@pytest.fixture
def conf(tmp_path: Path, run_dir: Path) -> dict[str, Any]:
    """Return a network configuration whose Node lies in a file, so that only leaks have to do with the API server."""
    node_file = write_node(tmp_path / "node.yaml", "10.7.0.0/24")
    ipam = {"type": "kube-node", "dataDir": str(tmp_path / "networks"), "nodeFile": str(node_file)}
    return {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam}


def reserved(conf: dict[str, Any]) -> list[str]:
    directory = os.path.join(conf["ipam"]["dataDir"], "net")
    return sorted(name for name in os.listdir(directory) if name[0].isdigit())


def test_leaks(api_server: RealApiServer, tmp_path: Path, run_dir: Path, conf: dict[str, Any], netns: Callable[[], str]) -> None:
    """An address is released once its namespace and its pod are gone, and neither before; `get` on pods is all the right it takes."""
    user = f"agent-{secrets.token_hex(4)}"
    api_server.grant(user, "get", resource="pods")
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", user)
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", "--grace=1", env={"NODE_NAME": "none"}) as agent:
        spaces = {name: netns() for name in ("lives", "restarted", "leaked", "replaced")}
        pods = {name: pod(api_server) for name in spaces}
        for name, path in spaces.items():
            agent.add(conf, name, netns=path, args=pod_args(pods[name][0], uid=pods[name][1]))
        for name in ("restarted", "leaked", "replaced"):
            delete(spaces[name])
        agent.said("the network namespace is gone")
        assert len(reserved(conf)) == 4
        for name in ("leaked", "replaced"):
            api_server.request("DELETE", f"{PODS}/{pods[name][0]}?gracePeriodSeconds=0")
        pod(api_server, pods["replaced"][0])
        eventually(lambda: len(reserved(conf)) == 2, "leaks are not released")
        # The file goes first; the log and the counter have it a moment later.
        eventually(lambda: 'kubenode_leaks_reclaimed_total{network="net"} 2.0' in agent.get("/metrics")[1], "leaks are not counted")
        eventually(lambda: len(agent.lines("leaked addresses released")) == 2, "leaks are not logged")
        assert sorted(line["containerID"] for line in agent.lines("leaked addresses released")) == ["leaked", "replaced"]
        assert 'kubenode_api_requests_total{result="404",verb="get"}' in agent.get("/metrics")[1]
        assert {(asked.verb, asked.resource) for asked in api_server.asked() if asked.user == user} <= {("get", "pods"), ("get", "nodes")}


def test_with_a_kubelets_credentials(
    api_server: RealApiServer, tmp_path: Path, run_dir: Path, conf: dict[str, Any], netns: Callable[[], str]
) -> None:
    """A kubelet's credentials, to which a pod that is gone is forbidden since 1.32, release what is gone, and nothing else."""
    node = f"node-{secrets.token_hex(4)}"
    api_server.create_node(node, ["10.7.0.0/24"])
    user = f"system:node:{node}"
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", api_server.certificate_user(user, "system:nodes"))
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", "--grace=0", env={"NODE_NAME": node}) as agent:
        spaces = {name: netns() for name in ("lives", "restarted", "leaked", "replaced")}
        pods = {name: pod(api_server, node=node) for name in spaces}
        for name, path in spaces.items():
            agent.add(conf, name, netns=path, args=pod_args(pods[name][0], uid=pods[name][1]))
        for name in ("leaked", "replaced"):
            api_server.request("DELETE", f"{PODS}/{pods[name][0]}?gracePeriodSeconds=0")
        pod(api_server, pods["replaced"][0], node=node)
        for name in ("restarted", "leaked", "replaced"):
            delete(spaces[name])
        eventually(lambda: len(reserved(conf)) == 2, "leaks are not released")
        eventually(lambda: len(agent.lines("leaked addresses released")) == 2, "leaks are not logged")
        assert sorted(line["containerID"] for line in agent.lines("leaked addresses released")) == ["leaked", "replaced"]
        assert agent.said("the network namespace is gone")["why_it_stays"] == "its pod still exists"
        assert "kubenode_reclaim_forbidden 0.0" in agent.get("/metrics")[1]
    asked = {(one.verb, one.resource) for one in api_server.asked() if one.user == user}
    assert asked <= {("get", "nodes"), ("watch", "nodes"), ("get", "pods"), ("list", "pods")}


def test_without_the_right(
    api_server: RealApiServer, tmp_path: Path, run_dir: Path, conf: dict[str, Any], netns: Callable[[], str]
) -> None:
    """Where the agent may not look at pods nothing is released, and the log names the rule that is missing."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", f"nobody-{secrets.token_hex(4)}")
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", "--grace=0", env={"NODE_NAME": "none"}) as agent:
        path = netns()
        agent.add(conf, netns=path, args=pod_args("never-was"))
        delete(path)
        line = agent.said("cannot ask the API server for pods")
        assert 'resources: ["pods"], verbs: ["get"]' in line["error"]
        assert len(reserved(conf)) == 1


def test_with_a_node_file(run_dir: Path, tmp_path: Path, conf: dict[str, Any], netns: Callable[[], str]) -> None:
    """With --node-file the leak is reported and stays; the runtime's late DEL takes address and record away."""
    with AgentProcess(run_dir, f"--node-file={tmp_path}/node.yaml", "--grace=0") as agent:
        path = netns()
        agent.add(conf, netns=path, args=pod_args("pod"))
        delete(path)
        assert agent.said("the network namespace is gone")["pod"] == "default/pod"
        assert len(reserved(conf)) == 1
        assert agent.call("DEL", conf).code == 0
        assert (reserved(conf), os.listdir(run_dir / "attachments")) == ([], [])
        eventually(lambda: "kubenode_leaks_suspected{" not in agent.get("/metrics")[1], "the suspect is still counted")
