# SPDX-License-Identifier: Apache-2.0
"""`kube-node nodes`: every node of a cluster, and how full it is by the pods that the API server knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import forked
import pytest
from corner import APIS, GROUP
from population import Population

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import ApiServer

pytestmark = pytest.mark.servers("real")
TIME = "2026-01-02T03:04:05Z"
AGENT = {"app.kubernetes.io/name": "kube-node", "app.kubernetes.io/component": "agent"}


@pytest.fixture
def people(crds: ApiServer, tmp_path: Path) -> Iterator[Population]:
    """Return a cluster whose node b is fuller than a, and which has a pool."""
    found = Population(crds, tmp_path)
    try:
        found.node("a", "10.64.0.0/24", "fd64::/64", key="172.24.1.0/28 of 172.24.0.0/16 via 172.24.0.1")
        found.node("b", "10.64.1.0/29", key="172.24.2.0/24, 172.24.3.0/24 closing")
        found.corner.pool("net", [{"cidr": "172.24.0.0/16", "nodePrefix": 24}])
        found.pod("agent-a", "a", "192.0.2.1", host=True, labels=AGENT, image="registry.example/kube-node:1.0")
        for number in range(2, 5):
            found.pod(f"web-{number}", "b", f"10.64.1.{number}")
        found.pod("multi", "a", "10.64.0.7", "fd64::7", networks=[{"name": "tenant/net1", "interface": "net1", "ips": ["172.24.1.7"]}])
        yield found
    finally:
        found.clear()


def nodes(people: Population, *arguments: str) -> list[dict[str, Any]]:
    """Return this test's nodes, in their order."""
    done = forked.run(["nodes", "-o", "json", *arguments], {"KUBECONFIG": str(people.kubeconfig)})
    assert done.code == 0, done.stderr
    return [one for one in json.loads(done.stdout)["nodes"] if one["node"].endswith(people.id)]


def test_used_and_total(people: Population) -> None:
    """Each network of a node has what its pods have, and what its subnets or its block can give; what is closing gives nothing."""
    b, a = nodes(people)
    assert (a["node"], b["node"]) == (people.name("a"), people.name("b"))
    told = {(one["network"], one["family"]): (one["used"], one["total"], one["subnets"]) for one in a["networks"]}
    assert told == {
        ("podCIDRs", "IPv4"): (1, 253, ["10.64.0.0/24"]),
        ("podCIDRs", "IPv6"): (1, 2**64 - 2, ["fd64::/64"]),
        (people.name("net"), "IPv4"): (1, 16, ["172.24.1.0/28"]),
    }
    told = {(one["network"], one["family"]): (one["used"], one["total"], one["subnets"]) for one in b["networks"]}
    assert told == {
        ("podCIDRs", "IPv4"): (3, 5, ["10.64.1.0/29"]),
        (people.name("net"), "IPv4"): (0, 253, ["172.24.2.0/24", "172.24.3.0/24"]),
    }
    assert a["agent"] == {"pod": f"{people.namespace}/agent-a", "image": "registry.example/kube-node:1.0", "ready": True}
    assert b["agent"] is None


def test_order(people: Population) -> None:
    """The fullest comes first, or what --sort says."""
    names = {sort: [one["node"][0] for one in nodes(people, f"--sort={sort}")] for sort in ("full", "name", "used", "free")}
    assert names == {"full": ["b", "a"], "name": ["a", "b"], "used": ["a", "b"], "free": ["b", "a"]}


@pytest.mark.parametrize("by", ["pool", "key"])
def test_network(people: Population, by: str) -> None:
    """--network names a pool or an annotation; one that no node has is an error which names those that are there."""
    wanted = people.name("net") if by == "pool" else people.key
    assert {one["source"] for node in nodes(people, f"--network={wanted}") for one in node["networks"]} == {f"annotation {people.key}"}
    done = forked.run(["nodes", "--network=zzz"], {"KUBECONFIG": str(people.kubeconfig)})
    assert (done.code, "no node has a network zzz" in done.stderr, people.name("net") in done.stderr) == (69, True, True)


def test_text(people: Population) -> None:
    """The text has a line for each network of a node; wide, also subnets and both families."""
    short, wide = (forked.run(["nodes", *more], {"KUBECONFIG": str(people.kubeconfig)}).stdout for more in ([], ["-o", "wide"]))
    (line,) = [line for line in short.splitlines() if people.name("b") in line]
    assert line.split()[1:] == ["podCIDRs", "█" * 9 + "░" * 7, "60", "%", "3", "5", "-"]
    assert "fd64::/64" not in short
    assert "fd64::/64" in wide
    assert "kube-node:1.0" in short


def report(people: Population, node: str, **status: Any) -> None:
    """Write the report of a node's agent."""
    name = people.name(node)
    people.create(f"{APIS}/nodeaddresses", {"apiVersion": f"{GROUP}/v1alpha1", "kind": "NodeAddresses", "metadata": {"name": name}})
    people.patch(f"{APIS}/nodeaddresses/{name}/status", {"status": {"version": "1.2", "suspectedLeaks": 0, "time": TIME, **status}})


def test_reports_come_first(people: Population) -> None:
    """An agent's report counts what is reserved, leaks included; a node or a family without one is counted by its pods."""
    items = [{"cidr": "10.64.1.0/29", "used": 5, "total": 5}, {"cidr": "10.64.9.9/32", "used": 1, "total": 1, "outside": True}]
    closing = [{"cidr": "172.24.2.0/24", "used": 2, "total": 253}, {"cidr": "172.24.3.0/24", "used": 1, "total": 253, "closing": True}]
    networks = [{"name": "k8snet", "items": items}, {"name": "net", "annotation": people.key, "observed": "x", "items": closing}]
    report(people, "b", networks=networks, suspectedLeaks=2)
    b, a = nodes(people)
    told = {one["network"]: (one["used"], one["total"], one["countedBy"]) for one in b["networks"]}
    assert told == {"podCIDRs": (5, 5, "agent"), people.name("net"): (3, 253, "agent")}
    assert b["report"] == {"version": "1.2", "time": TIME, "suspectedLeaks": 2}
    assert a["report"] is None
    assert {one["countedBy"] for one in a["networks"]} == {"pods"}
    text = forked.run(["nodes"], {"KUBECONFIG": str(people.kubeconfig)}).stdout
    (line,) = [line for line in text.splitlines() if people.name("b") in line]
    assert line.split()[-6:-3] == ["5", "1.2", "2"]
    assert line.endswith("ago")
