# SPDX-License-Identifier: Apache-2.0
"""A namespace's label gives its pods IPv4, or takes it, where the configuration limits it; nobody waits for an API server for that."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess, pod_args
from patience import eventually

from kubenode.agent.labels import NamespaceLabels
from kubenode.base.log import ERROR, Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import RealApiServer

    from .conftest import NetConfMaker

    Start = Callable[..., AgentProcess]

LABEL = "kube-node.nordix.org/ipv4"
NAMESPACES = "/api/v1/namespaces"
UNKNOWN = "namespace not known: ipv4-namespaces decides"


class Namespace:
    """A namespace of one test."""

    def __init__(self, server: RealApiServer) -> None:
        self.name = f"team-{secrets.token_hex(4)}"
        self._server = server
        server.request("POST", NAMESPACES, {"metadata": {"name": self.name}})

    def label(self, value: str | None, key: str = LABEL) -> None:
        patch = {"metadata": {"labels": {key: value}}}
        self._server.request("PATCH", f"{NAMESPACES}/{self.name}", patch, "application/merge-patch+json")


@pytest.fixture
def namespace(api_server: RealApiServer) -> Namespace:
    return Namespace(api_server)


@pytest.fixture
def start(api_server: RealApiServer, run_dir: Path, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts an agent with rights on Nodes and, if said so, on namespaces."""
    name = f"label-{secrets.token_hex(4)}"
    api_server.create_node(name, ["10.9.0.0/24", "fd09::/64"])
    agents: list[AgentProcess] = []

    def start(*options: str, may_watch: bool = True) -> AgentProcess:
        user = f"agent-{secrets.token_hex(4)}"
        api_server.grant(user, "get", "watch")
        if may_watch:
            api_server.grant(user, "list", "watch", resource="namespaces")
        kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", user)
        agent = AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", *options, env={"NODE_NAME": name})
        agents.append(agent)
        agent.start()
        return agent

    yield start
    for agent in agents:
        agent.stop()
    api_server.delete_node(name)


def families(agent: AgentProcess, conf: dict[str, Any], namespace: str) -> set[int]:
    """Return the families of which a pod gets an address; the pod is gone then."""
    pod = secrets.token_hex(4)
    added = agent.add(conf, pod, args=pod_args(pod, namespace))
    agent.call("DEL", conf, pod)
    return {6 if ":" in address else 4 for address in added}


@pytest.mark.slow
def test_a_label_is_enough(start: Start, namespace: Namespace, netconf: NetConfMaker) -> None:
    """kubectl label gives the next pod IPv4, or takes it from one whose namespace is listed; without label the list decides."""
    agent = start(f"--ipv4-label={LABEL}")
    nobody, listed, everybody = netconf(**{"ipv4-namespaces": []}), netconf(**{"ipv4-namespaces": [namespace.name]}), netconf()
    eventually(lambda: families(agent, nobody, namespace.name) == {6} and not agent.lines(UNKNOWN)[1:], "not known", 4)
    assert families(agent, listed, namespace.name) == {4, 6}
    namespace.label("true")
    eventually(lambda: families(agent, nobody, namespace.name) == {4, 6}, "the label gives nothing")
    namespace.label("false")
    eventually(lambda: families(agent, listed, namespace.name) == {6}, "the label takes nothing")
    assert families(agent, everybody, namespace.name) == {4, 6}  # who limits nothing is not limited
    namespace.label(None)
    eventually(lambda: families(agent, listed, namespace.name) == {4, 6}, "the list does not decide again")
    assert families(agent, nobody, namespace.name) == {6}


@pytest.mark.slow
def test_the_api_server_is_asked_for_metadata_once(
    api_server: RealApiServer, start: Start, namespace: Namespace, netconf: NetConfMaker
) -> None:
    """However many pods come, there is one LIST and one WATCH; and with the API server away what is known goes on to decide."""
    agent = start(f"--ipv4-label={LABEL}")
    namespace.label("true")
    conf = netconf(**{"ipv4-namespaces": []})
    eventually(lambda: families(agent, conf, namespace.name) == {4, 6}, "the label gives nothing")
    for _ in range(20):
        families(agent, conf, namespace.name)
    user = next(one.user for one in reversed(api_server.asked()) if one.resource == "namespaces")
    asked = [one.verb for one in api_server.asked() if one.user == user and one.resource == "namespaces"]
    assert asked == ["list", "watch"]
    api_server.stop()
    try:
        assert families(agent, conf, namespace.name) == {4, 6}
    finally:
        api_server.start()


@pytest.mark.slow
def test_an_own_label(start: Start, namespace: Namespace, netconf: NetConfMaker) -> None:
    """The label's name is the agent's option; without it no namespace is watched, and no label counts."""
    agent = start("--ipv4-label=example.com/legacy")
    conf = netconf(**{"ipv4-namespaces": []})
    namespace.label("true")
    namespace.label("true", "example.com/legacy")
    eventually(lambda: families(agent, conf, namespace.name) == {4, 6}, "the label gives nothing")
    namespace.label(None, "example.com/legacy")
    eventually(lambda: families(agent, conf, namespace.name) == {6}, "another label gives IPv4")


@pytest.mark.slow
def test_without_the_right(api_server: RealApiServer, start: Start, namespace: Namespace, netconf: NetConfMaker) -> None:
    """An agent that may not read namespaces says so, and the configured list decides."""
    namespace.label("true")
    agent = start(f"--ipv4-label={LABEL}", may_watch=False)
    eventually(lambda: [one for one in agent.lines("watch failed") if one["resource"] == "namespaces" and "403" in one["error"]], "no 403")
    assert families(agent, netconf(**{"ipv4-namespaces": []}), namespace.name) == {6}
    assert agent.said(UNKNOWN)["label"] == LABEL
    plain = Namespace(api_server)
    assert families(agent, netconf(**{"ipv4-namespaces": [plain.name]}), plain.name) == {4, 6}


def test_without_the_option(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """An agent without the option has nothing to say of namespaces."""
    assert families(agent, netconf(**{"ipv4-namespaces": []}), "a") == {6}
    assert agent.lines("ipv4-namespaces") == []


def test_what_a_list_does_not_have_any_more_is_forgotten() -> None:
    """A namespace that was deleted while nobody watched is not known, and neither is one whose deletion is told."""
    labels = NamespaceLabels(LABEL, Log("agent", ERROR - 1))
    told: list[Any] = [json.dumps({"metadata": {"name": name, "labels": {LABEL: "true"}}}).encode() for name in "abc"]
    names = {labels.put(one) for one in told}
    log = Log("agent", ERROR - 1)
    assert [labels.of(name, log) for name in sorted(names)] == [True, True, True]
    labels.only({"a", "b"}, "7")
    labels.drop(told[1])
    assert [labels.of(name, log) for name in sorted(names)] == [True, None, None]
    labels.put(json.dumps({"metadata": {"name": "a", "labels": {LABEL: "maybe"}}}).encode())  # type: ignore[arg-type]
    assert labels.of("a", log) is None
