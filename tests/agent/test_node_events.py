# SPDX-License-Identifier: Apache-2.0
"""Events about the Node: what keeps pods from their addresses is told where an operator looks, and never often."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess
from patience import PATIENCE, eventually

from kubenode.agent.nodeevents import HOUR, MOST, EventPace, NodeEvents
from kubenode.base.log import ERROR, Log
from kubenode.cni.errors import RANGE_FULL, SOURCE_TAKEN, CNIError
from kubenode.kube.events import EVENTS
from kubenode.kube.refusal import refusal
from kubenode.nodes.node import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import RealApiServer
    from podnet import Answer

    from .conftest import NetConfMaker

    Start = Callable[..., AgentProcess]

NET1 = "kube-node.nordix.org/net1"


@pytest.fixture
def node(api_server: RealApiServer) -> Iterator[str]:
    """Return a Node with one address for pods, and a second name for its podCIDRs."""
    name = f"events-{secrets.token_hex(4)}"
    api_server.create_node(name, ["10.9.0.0/30"])
    yield name
    api_server.delete_node(name)


@pytest.fixture
def start(api_server: RealApiServer, node: str, run_dir: Path, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts an agent with rights on Nodes, and some on Events."""
    agents: list[AgentProcess] = []

    def start(*verbs: str, options: tuple[str, ...] = ()) -> AgentProcess:
        user = f"agent-{secrets.token_hex(4)}"
        api_server.grant(user, "get", "watch")
        if verbs:
            api_server.grant(user, *verbs, resource="events")
        kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", user)
        agent = AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", *options, env={"NODE_NAME": node})
        agents.append(agent)
        agent.start()
        eventually(lambda: "kubenode_node_view_age_seconds +Inf" not in agent.get("/metrics")[1], "the Node does not come")
        return agent

    yield start
    for agent in agents:
        agent.stop()


def events(server: RealApiServer, node: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.request("GET", f"{EVENTS}?fieldSelector=involvedObject.name={node}")["items"]
    return found


def code(answer: Answer) -> int:
    number: int = json.loads(answer.stdout)["code"]
    return number


def posts(server: RealApiServer, node: str) -> int:
    return sum(one.resource == "events" and one.verb == "create" and one.name.startswith(node) for one in server.asked())


@pytest.mark.slow
def test_a_network_that_is_full(api_server: RealApiServer, node: str, start: Start, netconf: NetConfMaker) -> None:
    """Of a full network the Node has one Event, however many pods it has turned away; it names the network and says what to do."""
    agent = start("create", "patch")
    agent.add(netconf(), "c1")
    for number in range(30):
        assert code(agent.call("ADD", netconf(), f"d{number}")) == RANGE_FULL
    (event,) = eventually(lambda: events(api_server, node), "no Event", PATIENCE)
    assert (event["reason"], event["type"], event["source"]["component"]) == ("AddressesExhausted", "Warning", "kube-node-agent")
    assert event["involvedObject"]["kind"] == "Node"
    assert "network net is full on this node" in event["message"]
    assert event["count"] >= 1
    other = netconf(name="other")
    assert code(agent.call("ADD", other, "o1")) == SOURCE_TAKEN  # told later: by then the first would be there twice
    found = eventually(lambda: len(told := events(api_server, node)) == 2 and told, "no second Event", PATIENCE)
    assert {one["reason"] for one in found} == {"AddressesExhausted", "SourceConflict"}
    assert posts(api_server, node) <= 2


@pytest.mark.slow
def test_a_node_without_subnets(api_server: RealApiServer, run_dir: Path, tmp_path: Path, netconf: NetConfMaker) -> None:
    """A Node without podCIDRs has an Event that says so, though the runtime calls no ADD; a missing annotation is one, too."""
    name = f"bare-{secrets.token_hex(4)}"
    api_server.create_node(name)
    config = tmp_path / "net.d"
    config.mkdir()
    (config / "10-net.conf").write_text(json.dumps(netconf()))
    user = f"agent-{secrets.token_hex(4)}"
    api_server.grant(user, "get", "watch")
    api_server.grant(user, "create", "patch", resource="events")
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", user)
    with AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", f"--cni-config={config}", env={"NODE_NAME": name}) as agent:
        (event,) = eventually(lambda: events(api_server, name), "no Event", PATIENCE)
        assert event["reason"] == "NoSubnets"
        assert event["message"].startswith(f"Node {name} has no spec.podCIDRs yet")
        assert agent.call("ADD", netconf(name="net1", annotation=NET1)).code == 1
        eventually(lambda: any(NET1 in one["message"] for one in events(api_server, name)), "no Event of the annotation", PATIENCE)
    api_server.delete_node(name)


@pytest.mark.slow
def test_without_the_right(api_server: RealApiServer, node: str, start: Start, netconf: NetConfMaker) -> None:
    """An agent that may not make Events says so once, with what would give the right, and serves as before."""
    agent = start()
    agent.add(netconf(), "c1")
    for number in range(3):
        agent.call("ADD", netconf(), f"d{number}")
    said = agent.said("cannot create Events about the Node")
    assert "component events" in said["details"]
    agent.call("DEL", netconf(), "c1")
    agent.add(netconf(), "c2")
    agent.call("ADD", netconf(name="other"), "o1")
    eventually(lambda: agent.lines("serves network"), "the second thing did not happen", PATIENCE)
    assert len(agent.lines("cannot create Events about the Node")) == 1
    assert events(api_server, node) == []


class Cluster:
    """An API server that keeps Events; `status`: what it answers instead."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.asked = 0
        self.status = 0

    async def create(self, _: str, manifest: dict[str, Any]) -> None:
        self.asked += 1
        name = manifest["metadata"]["name"]
        if self.status or name in self.events:
            raise refusal("https://server", "somebody", self.status or 409, b"")
        self.events[name] = manifest

    async def merge(self, path: str, patch: dict[str, Any]) -> None:
        self.events[path.rpartition("/")[2]].update(patch)

    async def aclose(self) -> None:
        pass


def told(cluster: Cluster, pace: EventPace, work: Callable[[NodeEvents], Any], until: Callable[[], bool]) -> None:
    """Let a Node's Events be made until something is so."""
    own = Node("n", "u", "", (), {})
    teller = NodeEvents(lambda: own, lambda: "", lambda: cluster, Log("agent", ERROR - 1), pace)  # type: ignore[arg-type,return-value]

    async def run() -> None:
        task = asyncio.create_task(teller.run())
        work(teller)
        await asyncio.to_thread(eventually, until, "it is not told")
        for _ in range(10):  # as many looks more
            await asyncio.sleep(pace.look)
        task.cancel()

    asyncio.run(run())


def failed(teller: NodeEvents, code: int = RANGE_FULL, network: str = "net", command: str = "ADD", times: int = 1) -> None:
    stdout = json.dumps(CNIError(code, f"full: {network}", "what to do").as_object("1.1.0")).encode()
    for _ in range(times):
        teller.called("kube-node", command, 1, stdout, 0.1)


def test_what_happens_again_is_counted() -> None:
    """The same thing is one Event, whose count is how often it has happened, also where another agent of the node had made it."""
    cluster = Cluster()
    told(cluster, EventPace(0.01, 0.0), lambda teller: failed(teller, times=3), lambda: bool(cluster.events))
    (event,) = cluster.events.values()
    assert (event["count"], event["message"]) == (3, "full: net: what to do")
    told(cluster, EventPace(0.01, 0.0), lambda teller: failed(teller, times=5), lambda: event["count"] == 5)
    assert len(cluster.events) == 1


def test_only_so_many_in_an_hour() -> None:
    """Networks by the hundred that are full are as many Events as a person reads, and no more requests than that."""
    cluster = Cluster()

    def many(teller: NodeEvents) -> None:
        for number in range(500):
            failed(teller, network=f"n{number}")

    told(
        cluster,
        EventPace(0.01, HOUR),
        many,
        lambda: len(cluster.events) == MOST,
    )
    assert cluster.asked == MOST


def test_only_an_add_that_fails_so() -> None:
    """DEL, STATUS and errors that are a pod's own make no Event, nor does an answer that is none."""
    cluster = Cluster()

    def work(teller: NodeEvents) -> None:
        failed(teller, command="STATUS")
        failed(teller, code=112)
        teller.called("kube-node", "ADD", 1, b"[", 0.1)
        teller.called("kube-node", "ADD", 1, b'{"code": 110}', 0.1)
        teller.called("kube-node", "ADD", 0, b"{}", 0.1)

    told(cluster, EventPace(0.01, HOUR), work, lambda: True)
    assert cluster.asked == 0


def test_a_right_that_is_missing_is_not_asked_for_again() -> None:
    """After a 403 the API server is left alone for an hour."""
    cluster = Cluster()
    cluster.status = 403
    told(cluster, EventPace(0.01, HOUR), failed, lambda: cluster.asked > 0)
    assert cluster.asked == 1


def test_a_message_as_long_as_a_configuration() -> None:
    """The author of a network chooses what an error names: no more is kept of it than an Event has, and what looks the same is the same."""
    cluster = Cluster()

    def work(teller: NodeEvents) -> None:
        for number in range(3):
            failed(teller, network="x" * 500_000 + str(number))

    told(cluster, EventPace(0.01, HOUR), work, lambda: bool(cluster.events))
    (event,) = cluster.events.values()
    assert event["count"] == 3
