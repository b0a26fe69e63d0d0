# SPDX-License-Identifier: Apache-2.0
"""The report of a node's addresses, and the return of closing blocks, with a real agent and a real API server."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import IMPATIENT, AgentProcess, answer, request
from callplugin import environment, execute
from corner import APIS, GROUP
from ourprocess import KUBE_NODE
from patience import PATIENCE, eventually

from kubenode import launcher
from kubenode.agent import connection, host, ownnode, service, settling
from kubenode.agent.settling import Settling
from kubenode.cni.errors import RANGE_FULL
from kubenode.ipam.ranges import Subnet
from kubenode.nodes import addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import RealApiServer

    from .conftest import NetConfMaker

    Start = Callable[..., AgentProcess]

pytestmark = [pytest.mark.slow, pytest.mark.custom_resources]
NET = "172.20.0.0/24"
A, B, C = (f"172.20.0.{number}/29 of {NET} via none" for number in (8, 16, 24))
ROOM = 8
RIGHTS = ("nodeaddresses", "nodeaddresses/status")


class Corner:
    """A Node with an annotation of its own, and its NodeAddresses."""

    def __init__(self, server: RealApiServer) -> None:
        self.server = server
        self.name = f"use-{secrets.token_hex(4)}"
        self.key = f"test.example.com/{self.name}"

    def annotate(self, *items: str) -> str:
        text = ", ".join(items)
        self.server.annotate(self.name, {self.key: text or None})
        return text

    @property
    def object(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.server.request("GET", f"{APIS}/nodeaddresses?fieldSelector=metadata.name={self.name}")["items"]
        return found[0] if found else {}

    def networks(self) -> list[dict[str, Any]]:
        return [one for one in self.object.get("status", {}).get("networks", ()) if one.get("annotation") == self.key]

    def items(self, network: str = "net") -> list[dict[str, Any]]:
        """Return the reported items of a network."""
        return [item for one in self.networks() if one["name"] == network for item in one["items"]]

    def used(self, network: str = "net") -> list[int]:
        return [item["used"] for item in self.items(network)]

    def observes(self, text: str) -> bool:
        found = self.networks()
        return bool(found) and all(one["observed"] == text for one in found)

    def returned(self) -> list[str]:
        """Return the blocks that all networks give back."""
        found = [
            {i["cidr"] for i in one["items"] if i.get("closing") and not i["used"] and not i.get("settling")} for one in self.networks()
        ]
        return sorted(set.intersection(*found)) if found else []

    def is_settling(self) -> bool:
        return any(item.get("settling") for one in self.networks() for item in one["items"])

    def grow(self, free: int) -> None:
        patch = {"spec": {"minFree": {self.key: free}}}
        self.server.request("PATCH", f"{APIS}/nodeaddresses/{self.name}", patch, "application/merge-patch+json")

    def patches(self) -> int:
        return sum(one.verb == "patch" and one.resource == "nodeaddresses" and one.name == self.name for one in self.server.asked())


@pytest.fixture
def corner(real: RealApiServer) -> Iterator[Corner]:
    found = Corner(real)
    real.create_node(found.name, [], {found.key: f"{A}, {B}"})
    yield found
    real.delete_node(found.name)


@pytest.fixture
def start(corner: Corner, run_dir: Path, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts an agent with short waits and, unless told otherwise, the right to report."""
    agents: list[AgentProcess] = []

    def start(*, may_report: bool = True) -> AgentProcess:
        user = f"agent-{secrets.token_hex(4)}"
        corner.server.grant(user, "get", "watch")
        for resource in RIGHTS if may_report else ():
            corner.server.grant(user, "get", "create", "patch", resource=resource, group=GROUP)
        kubeconfig = corner.server.kubeconfig(tmp_path / "kubeconfig", user)
        agent = AgentProcess(run_dir, f"--kubeconfig={kubeconfig}", "--node-addresses", env={"NODE_NAME": corner.name}, wrap=IMPATIENT)
        agents.append(agent)
        agent.start()
        eventually(lambda: agent.get("/readyz")[0] == 200, "the agent does not get ready")
        return agent

    yield start
    for agent in agents:
        agent.kill()


@pytest.fixture
def conf(corner: Corner, netconf: NetConfMaker) -> dict[str, Any]:
    return netconf(annotation=corner.key)


def test_the_report(corner: Corner, start: Start, conf: dict[str, Any], data_dir: Path) -> None:
    """It belongs to the Node; it is written at once where free addresses fall below a power of two, and later where they do not."""
    agent = start()
    agent.add(conf, "c0")
    eventually(lambda: corner.used() == [1, 0], lambda: corner.object)
    (network,) = corner.networks()
    found = {key: network[key] for key in ("name", "dataDir", "observed")}
    assert found == {"name": "net", "dataDir": str(data_dir), "observed": f"{A}, {B}"}
    assert network["items"][0] == {"cidr": "172.20.0.8/29", "used": 1, "total": ROOM}
    assert corner.object["status"]["suspectedLeaks"] in (0, 1)  # the pod of this test has no network namespace
    assert corner.object["status"]["version"]
    (owner,) = corner.object["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Node", corner.name)
    for number in range(1, 2 * ROOM):
        agent.add(conf, f"c{number}")
    eventually(lambda: corner.used() == [ROOM, ROOM], lambda: corner.object)
    before = corner.patches()
    for number in range(5):
        agent.call("DEL", conf, f"c{number}")
    eventually(lambda: sum(corner.used()) == 2 * ROOM - 5, lambda: corner.object)  # after a while
    assert corner.patches() - before <= 2
    agent.log()
    assert not agent.lines("cannot report")


def test_a_node_without_the_annotation(corner: Corner, start: Start) -> None:
    """The report has the network without a text, and the API server takes it: Kubernetes 1.20 reads an empty one as null."""
    corner.annotate()
    agent = start()
    eventually(lambda: corner.object, "there is no report")
    corner.grow(4)
    agent.kill()
    agent.start()  # sooner than an hour later it would not see minFree
    eventually(lambda: [one["items"] for one in corner.networks()] == [[]], lambda: corner.object)
    assert not agent.lines("cannot report")


def test_without_the_right(corner: Corner, start: Start, conf: dict[str, Any]) -> None:
    """An agent that may not report says so once, with what would give the right, and serves as before."""
    agent = start(may_report=False)
    agent.add(conf, "c0")
    assert "component node-addresses" in agent.said("cannot report addresses")["details"]
    agent.call("DEL", conf, "c0")
    agent.add(conf, "c1")
    assert len(agent.lines("cannot report addresses")) == 1
    assert corner.object == {}


def test_a_late_report_changes_nothing(corner: Corner, start: Start, conf: dict[str, Any]) -> None:
    """After somebody else's change the report is written on top of it, and `minFree` is known; a deleted object is created again."""
    agent = start()
    agent.add(conf, "c0")
    eventually(lambda: corner.used() == [1, 0], lambda: corner.object)
    corner.grow(4)
    for number in range(1, ROOM + 1):
        agent.add(conf, f"c{number}")
    eventually(lambda: sum(corner.used()) == ROOM + 1, lambda: corner.object)
    assert corner.object["spec"] == {"minFree": {corner.key: 4}}
    corner.server.request("DELETE", f"{APIS}/nodeaddresses/{corner.name}")
    for number in range(ROOM + 1, 2 * ROOM - 2):
        agent.add(conf, f"c{number}")
    eventually(lambda: sum(corner.used()) == 2 * ROOM - 2, lambda: corner.object)


def test_a_closing_block_is_given_back(corner: Corner, start: Start, conf: dict[str, Any]) -> None:
    """Only once no call can take an address of it any more, and nobody has one; a reopened one begins again."""
    agent = start()
    first = agent.add(conf, "c0")
    text = corner.annotate(f"{A} closing", B)
    eventually(lambda: corner.observes(text), lambda: corner.object)
    assert corner.is_settling()
    eventually(lambda: not corner.is_settling(), lambda: corner.object)
    assert corner.items()[0] == {"cidr": "172.20.0.8/29", "used": 1, "total": ROOM, "closing": True}
    assert corner.returned() == []
    (second,) = agent.add(conf, "c1")
    assert second.startswith("172.20.0.16")
    agent.call("DEL", conf, "c0")
    eventually(lambda: corner.returned() == ["172.20.0.8/29"], lambda: corner.object)
    text = corner.annotate(A, B)
    eventually(lambda: corner.observes(text), lambda: corner.object)
    text = corner.annotate(f"{A} closing", B)
    eventually(lambda: corner.observes(text), lambda: corner.object)
    assert corner.returned() == []
    assert corner.is_settling()
    eventually(lambda: corner.returned() == ["172.20.0.8/29"], lambda: corner.object)
    text = corner.annotate(B)
    eventually(lambda: corner.observes(text), lambda: corner.object)
    assert corner.items() == [{"cidr": "172.20.0.16/29", "used": 1, "total": ROOM}]
    assert first[0].startswith("172.20.0.")


def test_another_agent_waits_again_and_knows_all_networks(
    corner: Corner, start: Start, conf: dict[str, Any], run_dir: Path, data_dir: Path
) -> None:
    """An agent after a crash knows a network that no configuration names, and gives nothing back before a wait of its own."""
    agent = start()
    agent.add(conf, "c0")
    corner.annotate(f"{A} closing", B)
    eventually(lambda: corner.networks() and not corner.is_settling() and corner.used() == [1, 0], lambda: corner.object)
    agent.kill()
    (data_dir / "net" / "172.20.0.8").unlink(missing_ok=True)
    again = start()
    eventually(corner.is_settling, lambda: corner.object)
    eventually(lambda: corner.returned() == ["172.20.0.8/29"], lambda: (corner.object, again.log()))
    assert corner.networks()[0]["name"] == "net"
    assert run_dir.joinpath("attachments").exists()


def test_a_plugin_without_agent_comes_in_between(corner: Corner, start: Start, conf: dict[str, Any], run_dir: Path) -> None:
    """A standalone plugin's address in a closing block counts; a network unknown to all records keeps the block, too."""
    agent = start()
    agent.add(conf, "c0")
    agent.call("DEL", conf, "c0")
    last_chance = environment("ADD", container_id="s1") | {"KUBE_NODE_RUN_DIR": str(run_dir)}
    assert execute(KUBE_NODE, conf, last_chance).code == 0
    text = corner.annotate(f"{A} closing", B)
    eventually(lambda: corner.observes(text) and not corner.is_settling(), lambda: corner.object)
    assert corner.used() == [1, 0]
    assert corner.returned() == []
    assert execute(KUBE_NODE, conf, {**last_chance, "CNI_CONTAINERID": "s2"}).addresses[0].startswith("172.20.0.16")
    assert execute(KUBE_NODE, conf, {**last_chance, "CNI_COMMAND": "DEL"}).code == 0
    eventually(lambda: corner.returned() == ["172.20.0.8/29"], lambda: corner.object)


def test_a_directory_of_an_unknown_network_keeps_the_block(
    corner: Corner, start: Start, conf: dict[str, Any], run_dir: Path, data_dir: Path
) -> None:
    """With a full /run no ADD could note anything: a directory of no known source may be a network of the annotation."""
    agent = start()
    agent.add(conf, "c0")
    agent.call("DEL", conf, "c0")
    unknown = data_dir / "unknown"
    unknown.mkdir()
    (unknown / "172.20.0.9").write_text("c9\r\neth0")
    text = corner.annotate(f"{A} closing", B)
    eventually(lambda: corner.observes(text), lambda: corner.object)
    time.sleep(2 * 1.5)  # the wait of impatient.py is over
    agent.add(conf, "c1")
    assert corner.returned() == []
    assert corner.is_settling()
    shutil.rmtree(unknown)
    eventually(lambda: corner.returned() == ["172.20.0.8/29"], lambda: corner.object)


def test_a_renamed_network_and_resting_addresses(corner: Corner, start: Start, netconf: NetConfMaker) -> None:
    """A network's former directory counts, with addresses that rest for their pods, until these are released."""
    agent = start()
    before = netconf(name="before", annotation=corner.key, stickyFor="1h")
    after = netconf(name="after", annotation=corner.key)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0"
    agent.add(before, "c0", args=args)
    assert agent.call("DEL", before, "c0", args=args).code == 0
    # The source is not taken over while a count holds the former network's lock; a runtime tries again.
    eventually(partial(succeeds, agent, after, "c1"), "no address")
    corner.annotate(f"{A} closing", B)
    eventually(lambda: corner.used("before") == [1, 0] and not corner.is_settling(), lambda: corner.object)
    agent.call("DEL", after, "c1")
    eventually(lambda: corner.used("after") == [0, 0], lambda: corner.object)
    assert corner.returned() == []


def test_addresses_outside(corner: Corner, start: Start, conf: dict[str, Any]) -> None:
    """What pods have of a block that the annotation lost is told, until it is released; also of an annotation that no plugin can read."""
    agent = start()
    for number in range(3):
        agent.add(conf, f"c{number}")
    corner.annotate(B)
    # Before, all of the block is settling: a call that began earlier may still take an address.
    eventually(lambda: len(corner.items()) == 4, lambda: corner.object)
    outside = [item for item in corner.items() if item.get("outside")]
    assert outside == [{"cidr": f"172.20.0.{number}/32", "used": 1, "total": 1, "outside": True} for number in (8, 9, 10)]
    corner.annotate("nonsense")
    eventually(lambda: corner.observes("nonsense"), lambda: corner.object)
    assert sum(corner.used()) == 3
    for number in range(3):
        agent.call("DEL", conf, f"c{number}")
    corner.annotate(B)
    eventually(lambda: corner.items() == [{"cidr": "172.20.0.16/29", "used": 0, "total": ROOM}], lambda: corner.object)


def test_many_addresses_outside_are_merged() -> None:
    """At most 16 entries of a family are outside, whatever blocks overlap; each address counts once."""
    source = addresses.SubnetSource("", ())
    numbers = {4: [*range(0xAC140000, 0xAC140100, 4), 0xAC150000], 6: []}
    inside = [Subnet(4, 0xAC150000, 16), Subnet(4, 0xAC150000, 24)]
    found = addresses.uses(source, numbers, (), inside)
    assert {str(use.subnet) for use in found} == {f"172.20.0.{number}/28" for number in range(0, 256, 16)}
    assert sum(use.used for use in found) == len(numbers[4]) - 1
    assert all(use.outside for use in found)


def test_an_annotation_that_grows_without_a_network(corner: Corner, start: Start) -> None:
    """A node on which no pod has the network yet agrees, too."""
    corner.server.request(
        "POST", f"{APIS}/nodeaddresses", {"apiVersion": f"{GROUP}/v1alpha1", "kind": "NodeAddresses", "metadata": {"name": corner.name}}
    )
    corner.grow(4)
    start()
    eventually(lambda: corner.used("-") == [0, 0], lambda: corner.object)
    assert corner.object["metadata"]["ownerReferences"]
    corner.annotate(A, f"{B} closing")
    eventually(lambda: corner.returned() == ["172.20.0.16/29"], lambda: corner.object)


def test_an_add_waits_for_another_block(corner: Corner, start: Start, conf: dict[str, Any], netconf: NetConfMaker) -> None:
    """A full ADD of an annotation that grows waits, without the lock, for an address of the next block; else it says what it waited for."""
    agent = start()
    corner.annotate(A)
    eventually(lambda: corner.object, "no object")
    corner.grow(1)
    for number in range(ROOM):
        eventually(partial(succeeds, agent, conf, f"c{number}"), "no address")
    eventually(lambda: corner.used() == [ROOM], lambda: corner.object)
    began = time.monotonic()
    said = json.loads(agent.call("ADD", conf, "d0").stdout)
    assert time.monotonic() - began >= host.LONGEST_WAIT
    assert said["code"] == RANGE_FULL
    assert f"waited 5 s for another block in annotation {corner.key}" in said["details"]
    assert f"kubectl get nodeaddresses {corner.name}" in said["details"]
    with agent.connect() as waiting:
        waiting.sendall(request("kube-node", "ADD", conf, container_id="d1"))
        waiting.shutdown(1)
        began = time.monotonic()
        assert agent.call("CHECK", conf, "d2").code == 1  # the lock is free
        assert time.monotonic() - began < host.LONGEST_WAIT
        corner.annotate(A, B)
        assert answer(waiting).addresses[0].startswith("172.20.0.16")
    other = netconf(name="other", annotation="other")
    corner.server.annotate(corner.name, {"other": "172.21.0.0/30"})
    eventually(lambda: agent.call("ADD", other, "o0").code == 0, "no address")
    began = time.monotonic()
    assert json.loads(agent.call("ADD", other, "o1").stdout)["code"] == RANGE_FULL
    assert time.monotonic() - began < host.LONGEST_WAIT  # no pool of it grows


def succeeds(agent: AgentProcess, conf: dict[str, Any], name: str) -> bool:
    return agent.call("ADD", conf, name).code == 0


def test_a_new_node_of_the_same_name(corner: Corner, start: Start, conf: dict[str, Any]) -> None:
    """The object belongs to the Node that is there: it has its uid, so that it goes with this one and not with the one before."""
    agent = start()
    agent.add(conf, "c0")
    eventually(lambda: corner.used() == [1, 0], lambda: corner.object)
    corner.server.delete_node(corner.name)
    corner.server.create_node(corner.name, [], {corner.key: f"{A}, {B}"})
    uid = corner.server.request("GET", f"/api/v1/nodes/{corner.name}")["metadata"]["uid"]
    eventually(lambda: [one["uid"] for one in corner.object["metadata"]["ownerReferences"]] == [uid], lambda: corner.object, 2 * PATIENCE)


def test_the_wait_is_longer_than_any_call() -> None:
    """Without agent an ADD has its deadline, two waits for a lock and its last words; an agent ends after a drain.

    Each may begin with a text that another process has put into the view, until the agent has written the view again.
    """
    standalone = launcher.DEADLINE + 2 * launcher.LOCK_PATIENCE["ADD"] + launcher.LAST_WORDS
    assert ownnode.REFRESH + max(standalone, connection.DEADLINE + service.DRAIN) < settling.SETTLE


def test_the_wait_begins_again() -> None:
    """It counts from when the view has the text, and not while the API server is away; another text begins another wait."""
    now = 0.0
    waits = Settling(lambda: now)

    def after(seconds: float, text: str = "x closing", written: str = "x closing", *, current: bool = True) -> bool:
        nonlocal now
        now += seconds
        waits.look({"key": text}, {"key": written}, current=current)
        return waits.is_over("key")

    long = settling.SETTLE + 1
    assert not after(0, written="x")
    assert waits.left() < 1
    assert not after(long)
    assert waits.left() == settling.SETTLE
    assert after(long)
    assert not after(0, current=False)
    assert not after(long)
    assert after(long)
    assert not after(0, "y, x closing", "y, x closing")
    assert after(long, "y, x closing", "y, x closing")
    assert not waits.is_over("other")
