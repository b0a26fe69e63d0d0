# SPDX-License-Identifier: Apache-2.0
"""A report that has addresses which its node was not given: they are kept from others, and the pool names the node."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from controllerprocess import until
from corner import APIS
from ourprocess import KUBE_NODE
from settled import at, pool

from kubenode.ipam.ranges import parse_subnet
from kubenode.pools.growth import HOLD
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import NodeMetadata, NodeSubnet, parse_pool
from kubenode.pools.reports import parse_report
from kubenode.pools.status import status

if TYPE_CHECKING:
    from pathlib import Path

    from controllerprocess import ControllerProcess
    from corner import Corner

FLAT = {"cidr": "172.20.0.0/24", "nodePrefix": 29, "shared": True}
OWN = "172.20.0.0/29 of 172.20.0.0/24 via 172.20.0.1"


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger with two growing pools, and two nodes, of which each has a block."""
    found = Ledger()
    found.growth.reporting = True
    found.set_pool(parse_pool(pool("p", FLAT, minFree=1)))
    found.set_pool(parse_pool(pool("q", {"cidr": "172.21.0.0/24", "nodePrefix": 29}, minFree=1)))
    for name, cidr in (("a", "172.20.0.0/29"), ("b", "172.20.0.8/29")):
        found.set_claim(NodeSubnet(parse_subnet(cidr), "p", "p", name, f"u{name}", uid="c", version="1"))
        found.set_node(NodeMetadata(name, f"u{name}", "1", {}, {"p": f"{cidr} of 172.20.0.0/24 via 172.20.0.1"}))
    return found


def said(ledger: Ledger, *cidrs: str, name: str = "p", key: str = "p") -> tuple[str, str]:
    """Return reason and message of the pool's condition Conflict after node a has reported addresses outside of its annotation."""
    items: list[dict[str, Any]] = [{"cidr": "172.20.0.0/29", "used": 1, "total": 6}]
    items += [{"cidr": cidr, "used": 1, "total": 1, "outside": True} for cidr in cidrs]
    network = {"name": "net", "annotation": key, "observed": OWN, "items": items}
    metadata = {"name": "a", "uid": "r", "resourceVersion": "1"}
    ledger.set_report(parse_report({"metadata": metadata, "spec": {"minFree": {"p": 1}}, "status": {"networks": [network]}}))
    ledger.plan("a", at(0.0))
    (found,) = [one for one in status(ledger, ledger.pools[name], 0.0)["conditions"] if one["type"] == "Conflict"]
    return found["reason"], found["message"]


def message(what: str) -> str:
    end = "which the node was not given: no other node gets them until it reports them no more"
    return f"the agent of Node a reports addresses of {what}, {end}"


@pytest.mark.parametrize(
    ("cidrs", "what"),
    [
        (["172.20.0.17/32", "172.20.0.18/32"], "172.20.0.16/29"),
        (["172.20.0.9/32"], "172.20.0.8/29 of Node b"),
        (["172.20.0.128/25"], "172.20.0.128/25"),
        (["172.20.0.0/25", "172.20.0.128/25"], "172.20.0.0/25, 172.20.0.128/25"),
        ([f"172.20.0.{8 * number + 1}/32" for number in range(2, 7)], "172.20.0.16/29, 172.20.0.24/29, 172.20.0.32/29, and 2 more"),
    ],
)
def test_the_pool_names_it(ledger: Ledger, cidrs: list[str], what: str) -> None:
    """The condition says which node holds which subnets of the pool, and whose they are."""
    assert said(ledger, *cidrs) == ("SubnetReported", message(what))
    assert said(ledger)[0] == "NoConflict"


def test_other_pools(ledger: Ledger) -> None:
    """A pool is not concerned by addresses beside its networks, or of another annotation."""
    for cidr, key in (("172.21.0.9/32", "p"), ("10.0.0.1/32", "p"), ("172.20.0.17/32", "q")):
        assert [said(ledger, cidr, name=name, key=key)[0] for name in "pq"] == ["NoConflict"] * 2


def test_what_the_annotation_has(ledger: Ledger) -> None:
    """An item that a person wrote is in conflict by itself, once."""
    ledger.set_node(NodeMetadata("a", "ua", "2", {}, {"p": f"{OWN}, 172.20.0.16/28"}))
    assert said(ledger, "172.20.0.16/28")[0] == "SubnetNotAdopted"
    assert len(ledger.conflicts["a"]) == 1


@pytest.mark.parametrize(("flags", "left"), [({"outside": True}, None), ({}, "172.20.0.16/29")])
def test_a_network_around_the_pool(ledger: Ledger, flags: dict[str, bool], left: str | None) -> None:
    """An agent merges many addresses outside of its items to networks. One may contain all of a pool, and hides no address in it.

    An item that a person wrote takes the pool from nobody.
    """
    for more in ({}, flags):
        large = {"cidr": "172.20.0.0/16", "used": 20, "total": 65533, **more}
        network = {"name": "net", "annotation": "p", "observed": OWN, "items": [{"cidr": "172.20.0.0/29", "used": 1, "total": 6}, large]}
        ledger.set_report(parse_report({"metadata": {"name": "a", "uid": "r", "resourceVersion": "1"}, "status": {"networks": [network]}}))
    found = ledger.space.lowest_free(ledger.pools["p"], 4, lambda _: True)
    assert (found and str(found)) == left
    ledger.drop_report("a")
    assert str(ledger.space.lowest_free(ledger.pools["p"], 4, lambda _: True)) == "172.20.0.16/29"


def test_who_is_looked_at_again(ledger: Ledger) -> None:
    """A subnet that becomes free concerns those who report addresses of it, but not each node with such a conflict."""
    said(ledger, "172.20.0.9/32")
    for free, names in (("172.20.0.64/29", {"b"}), ("172.20.0.8/29", {"a", "b"})):
        ledger.set_claim(NodeSubnet(parse_subnet(free), "p", "p", "b", "ub", uid="c", version="2"))
        ledger.changed.clear()
        ledger.drop_claim(parse_subnet(free))
        assert ledger.changed == names
    ledger.plan("a", at(0.0))
    assert [conflict.message for conflict in ledger.conflicts["a"]] == [message("172.20.0.8/29")]


def test_all_of_it_is_held(ledger: Ledger) -> None:
    """Nobody gets what is reported, however much that is: a truthful agent may report it after a restore."""
    said(ledger, *(f"172.20.0.{8 * number + 1}/32" for number in range(2, 32)))
    assert ledger.space.lowest_free(ledger.pools["p"], 4, lambda _: True) is None


@pytest.mark.slow
@pytest.mark.servers("real")
def test_what_a_person_sees(corner: Corner, impatient_controller: ControllerProcess, admin: Path) -> None:
    """Condition, Event, `kube-node pools` and `doctor --cluster` name the node; without its object the pool is whole again."""
    controller = impatient_controller
    name, node = corner.pool("net", [{**FLAT, "cidr": "172.20.0.0/28"}], minFree=1), corner.node("a")
    until(lambda: corner.annotation(node), HOLD + 40, controller.log)
    corner.report(node, {"172.20.0.9/32": 1})
    until(lambda: corner.condition(name, "Conflict")[1] == "SubnetReported", 20, controller.log)
    until(lambda: "SubnetReported" in [event["reason"] for event in corner.events(node)], 20, controller.log)
    for command in (["pools", name], ["doctor", "--cluster"]):
        line = [str(KUBE_NODE), *command, f"--kubeconfig={admin}"]
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "COLUMNS": "400"}, check=False)
        assert f"the agent of Node {node} reports addresses of 172.20.0.8/29" in done.stdout, done
    other = corner.node("b")
    until(lambda: corner.condition(name, "Exhausted")[0] == "True", 20, controller.log)
    corner.server.request("DELETE", f"{APIS}/nodeaddresses/{node}")
    until(lambda: corner.annotation(other), 20, controller.log)
    until(lambda: corner.condition(name, "Conflict")[0] == "False", 20, controller.log)
