# SPDX-License-Identifier: Apache-2.0
"""Blocks that grow with use, on an API server, with a stand-in for the agent."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from controllerprocess import until
from corner import APIS
from ourprocess import KUBE_NODE
from settled import at, pool

from kubenode.base.log import Log
from kubenode.controller.handlers import Nodes, Reports
from kubenode.ipam.ranges import parse_subnet
from kubenode.pools.growth import HOLD
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import RECLAIM_AFTER, SHRINK_AFTER, NodeMetadata, NodeSubnet, parse_pool
from kubenode.pools.reports import LARGEST, parse_report
from kubenode.pools.status import status
from kubenode.pools.timing import RETURNED_AFTER
from kubenode.pools.writes import Annotate, CreateClaim, UpdateClaim

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from controllerprocess import ControllerProcess
    from corner import Corner

    from kubenode.pools.writes import Outcome

FLAT = {"cidr": "172.20.0.0/24", "nodePrefix": 29, "shared": True}
FIRST, SECOND = "172.20.0.0/29 of 172.20.0.0/24 via 172.20.0.1", "172.20.0.8/29 of 172.20.0.0/24 via 172.20.0.1"


@pytest.mark.slow
@pytest.mark.servers("real")
def test_a_block_comes_and_goes(corner: Corner, impatient_controller: ControllerProcess, admin: Path) -> None:
    """A node gets a block when few addresses are free, and gives it back by agreement; at each step the report has to be about the text."""
    controller = impatient_controller
    pool, node = corner.pool("net", [FLAT], minFree=2, maxBlocks=2, shrinkAfter="1s"), corner.node("a")
    asked = f"{APIS}/nodeaddresses/{node}"
    until(lambda: node in [each["metadata"]["name"] for each in corner.server.request("GET", f"{APIS}/nodeaddresses")["items"]], 20)
    created = corner.server.request("GET", asked)
    assert created["spec"] == {"minFree": {corner.key: 2}}
    assert [owner["name"] for owner in created["metadata"]["ownerReferences"]] == [node]
    until(lambda: corner.annotation(node) == FIRST, HOLD + 40, controller.log)

    corner.report(node, {"172.20.0.0/29": 5}, observed="172.20.0.240/29")
    corner.report(node, {"172.20.0.0/29": 5})
    until(lambda: corner.annotation(node) == f"{FIRST},{SECOND}", 20, controller.log)
    corner.report(node, {"172.20.0.0/29": 6, "172.20.0.8/29": 7})
    until(lambda: corner.condition(pool, "Exhausted")[:2] == ("True", "MaxBlocks"), 20)
    assert node in corner.condition(pool, "Exhausted")[2]
    line = f'kubenode_controller_nodes_at_max_blocks{{pool="{pool}"}} 1.0'
    until(lambda: line in controller.get("/metrics")[1], 20)

    corner.report(node, {"172.20.0.0/29": 1, "172.20.0.8/29": 1})
    until(lambda: corner.annotation(node) == f"{FIRST},{SECOND} closing", 20, controller.log)
    command = [str(KUBE_NODE), "pools", f"--kubeconfig={admin}", pool]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}).stdout
    assert "1 closing" in shown
    found = json.loads(subprocess.run([*command, "-o", "json"], check=True, capture_output=True, text=True).stdout)
    assert [each.get("closing") for each in found["nodes"][0]["subnets"]] == [None, True]
    corner.report(node, {"172.20.0.0/29": 1, "172.20.0.8/29": 1})
    corner.report(node, {"172.20.0.0/29": 1})
    until(lambda: corner.annotation(node) == FIRST, 20, controller.log)
    assert "172.20.0.8/29" in corner.claims(), "the agent does not know yet"
    corner.report(node, {"172.20.0.0/29": 1, "172.20.0.9/32": 1})
    corner.report(node, {"172.20.0.0/29": 1})
    until(lambda: "172.20.0.8/29" not in corner.claims(), RETURNED_AFTER + 20, controller.log)

    corner.pool("net", [FLAT], minFree=0)
    until(lambda: not corner.server.request("GET", asked)["spec"].get("minFree"), 20)


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger with a growing pool of two blocks and two nodes, of which each has one."""
    found = Ledger()
    found.set_pool(parse_pool(pool("p", {**FLAT, "cidr": "172.20.0.0/28"}, minFree=1)))
    for name in "ab":
        found.set_node(NodeMetadata(name, f"u{name}", "1", {}, {}))
    return found


def report(node: str, text: str, used: int) -> dict[str, object]:
    network = {"name": "net", "annotation": "p", "observed": text, "items": [{"cidr": text.split(maxsplit=1)[0], "used": used, "total": 6}]}
    return told(node, network)


def told(node: str, network: Mapping[str, object]) -> dict[str, object]:
    return {
        "metadata": {"name": node, "uid": "r", "resourceVersion": "1"},
        "spec": {"minFree": {"p": 1}},
        "status": {"networks": [network]},
    }


def test_exhausted_names_who_needs_more(ledger: Ledger) -> None:
    """A pool that has nothing left for a node that needs more is Exhausted, and names it."""
    texts = {name: f"172.20.0.{number}/29 of 172.20.0.0/28 via 172.20.0.1" for name, number in (("a", 0), ("b", 8))}
    for name, text in texts.items():
        (created,) = ledger.plan(name, at(0.0)).writes
        assert isinstance(created, CreateClaim)
        assert str(created.claim.subnet) == text.split(maxsplit=1)[0]
        ledger.set_claim(created.claim._replace(uid="c", version="1"))
        ledger.set_node(NodeMetadata(name, f"u{name}", "2", {}, {"p": text}))
    ledger.set_report(parse_report(report("a", texts["a"], 6)))
    assert ledger.plan("a", at(0.0)).writes == []
    said = {each["type"]: each for each in status(ledger, ledger.pools["p"], 0.0)["conditions"]}
    assert (said["Exhausted"]["status"], said["Exhausted"]["message"]) == ("True", "nothing is left for 1 node: a; add a CIDR")


def test_the_first_minute(ledger: Ledger) -> None:
    """After a start, and after etcd went back in time, a pool that grows gives nothing until agents had the time to report."""
    ledger.growth.reporting = True
    ledger.growth.pause(100.0)
    outcome = ledger.plan("a", at(100.0))
    assert not any(isinstance(write, CreateClaim) for write in outcome.writes)
    assert outcome.again == 100.0 + HOLD
    ledger.set_report(parse_report(report("b", "172.20.0.0/29 of 172.20.0.0/28 via 172.20.0.1", 3)))
    (claim,) = [write.claim for write in ledger.plan("a", at(100.0 + HOLD)).writes if isinstance(write, CreateClaim)]
    assert str(claim.subnet) == "172.20.0.8/29", "another node uses the first one"


def test_a_list_of_the_past(ledger: Ledger) -> None:
    """A list that is older than what is known begins that minute, whatever its kind is; a list as usual does not."""
    Reports(ledger, lambda: None, Log("test")).only(set(), "7")
    assert ledger.growth.reporting
    ledger.growth.open_at = 0.0
    nodes = Nodes(ledger, lambda: None, Log("test"))
    nodes.only({"a", "b"}, "8")
    assert ledger.growth.open_at == 0.0
    nodes.only({"a", "b"}, "")
    assert ledger.growth.open_at > 0.0


def test_no_definition_of_node_addresses(ledger: Ledger) -> None:
    """Where the API server does not know NodeAddresses, as before an upgrade of the definitions, nodes get their first subnet as ever."""
    ledger.growth.open_at = float("inf")
    assert ledger.plan("a", at(0.0)).writes == []
    Reports(ledger, lambda: None, Log("test")).absent()
    assert [type(write) for write in ledger.plan("a", at(0.0)).writes] == [CreateClaim]


def test_a_static_pool_asks_for_nothing() -> None:
    """Without minFree reports change nothing, and no NodeAddresses are written."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", FLAT)))
    ledger.set_node(NodeMetadata("a", "u", "1", {}, {}))
    ledger.growth.reporting = True
    assert not ledger.grows
    assert [type(write) for write in ledger.plan("a", at(0.0)).writes] == [CreateClaim]


def test_a_block_that_a_person_takes(ledger: Ledger) -> None:
    """It waits for `reclaimAfter`, even if it was about to be given back before, and got into use again."""
    a, b = (f"172.20.0.{number}/29 of 172.20.0.0/28 via 172.20.0.1" for number in (0, 8))
    for text in (a, b):
        ledger.set_claim(NodeSubnet(parse_subnet(text.split()[0]), "p", "p", "a", "ua", uid="c", version="1"))

    def plan(text: str, *items: dict[str, object], now: float = 0.0) -> Outcome:
        network = {"name": "net", "annotation": "p", "observed": text, "items": list(items)}
        ledger.set_node(NodeMetadata("a", "ua", "1", {}, {"p": text}))
        ledger.set_report(parse_report(told("a", network)))
        return ledger.plan("a", at(now))

    first = {"cidr": "172.20.0.0/29", "used": 1, "total": 6}
    (given_back,) = plan(f"{a},{b} closing", first, {"cidr": "172.20.0.8/29", "used": 0, "total": 7, "closing": True}).writes
    assert isinstance(given_back, Annotate)  # it is refused: the report is not the newest one
    assert given_back.values == {"p": a}
    assert plan(f"{a},{b}", first, {"cidr": "172.20.0.8/29", "used": 1, "total": 7}).writes == []
    (released,) = plan(a, first).writes
    assert isinstance(released, UpdateClaim)
    ledger.set_claim(released.claim._replace(version="2"))
    assert plan(a, first).writes == []
    assert plan(a, first, now=RECLAIM_AFTER - 1).writes == []


def test_a_pod_stays_in_a_closing_block(ledger: Ledger) -> None:
    """If another block becomes empty meanwhile, that one goes back, and the pod's is open again: else the node would keep both."""
    a, b = (f"172.20.0.{number}/29 of 172.20.0.0/28 via 172.20.0.1" for number in (0, 8))
    for text in (a, b):
        ledger.set_claim(NodeSubnet(parse_subnet(text.split()[0]), "p", "p", "a", "ua", uid="c", version="1"))

    def plan(text: str, used_of_a: int, used_of_b: int, now: float = 0.0) -> list[str]:
        """Return the texts that are written for an annotation and its report."""
        items = [
            {"cidr": item.split()[0], "used": used, "total": total, "closing": item.endswith("closing")}
            for item, used, total in zip(text.split(","), (used_of_a, used_of_b), (6, 8), strict=True)
        ]
        network = {"name": "net", "annotation": "p", "observed": text, "items": items}
        ledger.set_node(NodeMetadata("a", "ua", "1", {}, {"p": text}))
        ledger.set_report(parse_report(told("a", network)))
        return [write.values["p"] or "" for write in ledger.plan("a", at(now)).writes if isinstance(write, Annotate)]

    assert plan(f"{a} closing,{b}", 1, 1) == [], "both are in use"
    assert plan(f"{a} closing,{b}", 5, 0) == [], "the one address that is free of it is no margin"
    assert plan(f"{a} closing,{b}", 1, 0) == [f"{a},{b}"]
    assert plan(f"{a},{b}", 6, 6) == []
    assert plan(f"{a},{b}", 6, 6, SHRINK_AFTER) == [], "one block would be enough only without these pods"
    assert plan(f"{a},{b}", 1, 0) == []
    assert plan(f"{a},{b}", 1, 0, SHRINK_AFTER) == [f"{a},{b} closing"]
    assert plan(f"{a},{b} closing", 1, 0, SHRINK_AFTER) == [a]


def test_what_a_node_reports_beside_its_claim(ledger: Ledger) -> None:
    """Many addresses outside of an annotation are reported as a network, which may contain a block of the node, too."""
    ledger.set_pool(parse_pool(pool("p", {**FLAT, "cidr": "172.20.0.0/27"}, minFree=1)))
    ledger.set_claim(NodeSubnet(parse_subnet("172.20.0.0/29"), "p", "p", "a", "ua", uid="c", version="1"))
    ledger.set_report(parse_report(report("a", "172.20.0.0/28", 20)))
    (claim,) = [write.claim for write in ledger.plan("b", at(0.0)).writes if isinstance(write, CreateClaim)]
    assert str(claim.subnet) == "172.20.0.16/29"


def test_a_report_that_no_agent_writes() -> None:
    """A report with more items than an agent counts agrees to nothing, and costs little."""
    items = [{"cidr": f"10.0.{number >> 8}.{number & 255}/32", "used": 1, "total": 1, "outside": True} for number in range(LARGEST + 9)]
    found = report("a", "172.20.0.0/28", 20)
    found["status"]["networks"] = [{"name": f"net{half}", "annotation": "p", "items": items[half::2]} for half in (0, 1)]  # type: ignore[index]
    parsed = parse_report(found)
    assert sum(len(use.counts) for use in parsed.uses) == LARGEST
    assert parsed.agreed(NodeMetadata("a", "ua", "1", {}, {}), "p") == ()
