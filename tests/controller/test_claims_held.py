# SPDX-License-Identifier: Apache-2.0
"""Which claims a node holds: what takes them from it, what does not, and when they are free again."""

from __future__ import annotations

from typing import Any

import pytest

from kubenode.ipam.ranges import Subnet, parse_subnet
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import NodeMetadata, NodeSubnet, parse_pool
from kubenode.pools.timing import Now
from kubenode.pools.writes import Annotate, CreateClaim, DeleteClaim, Demand, UpdateClaim, Write

OLD, OTHER = {"cidr": "10.0.0.0/26", "nodePrefix": 28}, {"cidr": "10.0.1.0/26", "nodePrefix": 28}

NONE = {"matchLabels": {"none": ""}}


class Cluster:
    """What the API server would have, and a controller that does all that its ledger says. A minute is `reclaimAfter`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ahead = 0.0  # seconds, of the clock that stamps
        self.ledger = Ledger()
        self._writes = 0

    def pool(self, name: str, *cidrs: dict[str, Any], annotation: str, **spec: Any) -> None:
        manifest = {"metadata": {"name": name}, "spec": {"annotation": annotation, "cidrs": list(cidrs), "reclaimAfter": "60s", **spec}}
        self.ledger.set_pool(parse_pool(manifest))

    def node(self, name: str, **annotations: str) -> None:
        self.ledger.set_node(NodeMetadata(name, f"u-{name}", "1", {}, annotations))

    def claim(self, text: str, node: str, annotation: str, *, released: float | None = None) -> None:
        subnet = parse_subnet(text)
        self.ledger.set_claim(NodeSubnet(subnet, "p", annotation, node, f"u-{node}", released=released, uid=f"c-{text}", version="1"))

    def annotations(self, name: str) -> dict[str, str]:
        return dict(self.ledger.nodes[name].annotations)

    def claims(self) -> dict[str, bool]:
        """Return the subnets that are claimed, and whether they are released."""
        return {str(subnet): claim.released is not None for subnet, claim in sorted(self.ledger.claims)}

    def plan(self, name: str) -> list[Write]:
        return self.ledger.plan(name, Now(self.now + self.ahead, self.now)).writes

    def settle(self, seconds: float = 0.0) -> None:
        """Let time pass, and do what is to be done then."""
        self.now += seconds
        self.ledger.changed.update(self.ledger.nodes, (claim.node for _, claim in self.ledger.claims))
        while self.ledger.changed:
            name = min(self.ledger.changed)
            self.ledger.changed.discard(name)
            for write in self.plan(name):
                self.write(write)

    def write(self, write: Write) -> None:
        self._writes += 1
        if isinstance(write, Annotate):
            annotations = {key: value for key, value in {**write.node.annotations, **write.values}.items() if value is not None}
            self.ledger.set_node(write.node._replace(annotations=annotations))
        elif isinstance(write, DeleteClaim):
            self.ledger.drop_claim(write.claim.subnet)
        elif not isinstance(write, Demand):
            uid = write.claim.uid or f"c{self._writes}"
            self.ledger.set_claim(write.claim._replace(uid=uid, version=str(self._writes)))
            self.ledger.recent_writes.add(write.claim.subnet, self.now)
            self.ledger.changed.add(write.claim.node)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_pool_moves_to_another_annotation(cluster: Cluster) -> None:
    """What a node has in the annotation that the pool wrote before stays its node's as long as it is there, then for `reclaimAfter`."""
    cluster.pool("p", OLD, annotation="k1")
    cluster.node("a")
    cluster.settle()
    cluster.pool("p", OLD, annotation="k2")
    cluster.node("b")
    cluster.settle(61)
    cluster.settle(61)
    assert cluster.annotations("a") == {"k1": "10.0.0.0/28", "k2": "10.0.0.16/28"}
    assert cluster.annotations("b") == {"k2": "10.0.0.32/28"}
    assert cluster.claims() == {"10.0.0.0/28": False, "10.0.0.16/28": False, "10.0.0.32/28": False}
    cluster.node("a", k2="10.0.0.16/28")
    cluster.settle(1)
    assert cluster.claims() == {"10.0.0.0/28": True, "10.0.0.16/28": False, "10.0.0.32/28": False}
    cluster.settle(59)
    assert "10.0.0.0/28" in cluster.claims()
    cluster.settle(2)
    assert "10.0.0.0/28" not in cluster.claims()


def test_a_pool_moves_to_and_fro(cluster: Cluster) -> None:
    """A pool that moves to another annotation with other networks, back and again, takes nothing (Hypothesis, seed 20261125)."""
    cluster.pool("p", OLD, annotation="k2")
    cluster.node("a")
    cluster.settle()
    cluster.pool("p", OTHER, annotation="k1")
    cluster.settle()
    cluster.settle(61)
    cluster.pool("p", OLD, annotation="k2")
    cluster.settle()
    cluster.pool("p", OTHER, annotation="k1")
    cluster.settle()
    assert cluster.annotations("a") == {"k2": "10.0.0.0/28", "k1": "10.0.1.0/28"}
    assert cluster.claims() == {"10.0.0.0/28": False, "10.0.1.0/28": False}


def test_a_claim_is_for_one_annotation(cluster: Cluster) -> None:
    """What a node had in one annotation it is not given in another before `reclaimAfter`: pods may have addresses of it."""
    cluster.pool("p", OLD, annotation="k1")
    cluster.node("a")
    cluster.settle()
    cluster.pool("p", OLD, annotation="k2")
    cluster.node("a")
    cluster.settle()
    assert cluster.annotations("a") == {"k2": "10.0.0.16/28"}
    assert cluster.claims() == {"10.0.0.0/28": True, "10.0.0.16/28": False}


@pytest.mark.parametrize("text", ["10.0.0.0/28", "10.0.0.0/28, nonsense", "nonsense"])
def test_what_is_held_again_loses_its_stamp(cluster: Cluster, text: str) -> None:
    """A claim that was released, and that its node has or may have again, counts from the start once that ends."""
    cluster.claim("10.0.0.0/28", "a", "k1", released=1000.0)
    cluster.node("a")
    cluster.settle()
    cluster.node("a", k1=text)
    cluster.settle(59)
    assert cluster.claims() == {"10.0.0.0/28": False}
    cluster.node("a")
    cluster.settle(2)
    assert cluster.claims() == {"10.0.0.0/28": True}


def test_what_was_held_in_between_counts_from_then(cluster: Cluster) -> None:
    """A claim that its node had again for a moment, in which nothing could be written, is not free before its time."""
    cluster.pool("p", OTHER, annotation="k1", nodeSelector=NONE)
    cluster.claim("10.0.0.0/28", "a", "k1", released=1000.0)
    cluster.node("a")
    cluster.settle()
    cluster.now += 50
    cluster.node("a", k1="10.0.0.0/28")
    cluster.node("a")
    cluster.settle(11)
    assert cluster.claims() == {"10.0.0.0/28": True}


def test_a_restart_after_half_of_the_work(cluster: Cluster) -> None:
    """What a crash has left, a claim that no annotation names, is not tried to be taken back for ever: a restart finds nothing to do."""
    cluster.pool("p", OLD, annotation="k1")
    cluster.node("a")
    (create,) = cluster.plan("a")
    cluster.write(create)
    (claim,) = [claim for _, claim in cluster.ledger.claims]
    again = Cluster()
    again.pool("p", OLD, annotation="k1", nodeSelector=NONE)
    again.pool("q", OTHER, annotation="k2")
    again.ledger.set_claim(claim)
    again.node("a", k2="nonsense")
    again.settle()
    fresh = Cluster()
    for pool in again.ledger.pools.values():
        fresh.ledger.set_pool(pool)
    for _, each in again.ledger.claims:
        fresh.ledger.set_claim(each)
    fresh.node("a", k2="nonsense")
    fresh.plan("a")
    fresh.now += 61
    assert fresh.plan("a") == []


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
@pytest.mark.parametrize("gone", [False, True])
def test_clocks_that_differ(cluster: Cluster, ahead: float, *, gone: bool) -> None:
    """A stamp by a clock that was wrong, or ours that is set, takes nothing early: this controller waits from when it saw the stamp."""
    cluster.pool("p", OLD, annotation="k1", nodeSelector=NONE)
    cluster.claim("10.0.0.0/28", "a", "k1", released=cluster.now + min(ahead, 0.0))
    if not gone:
        cluster.node("a")
    cluster.settle()
    cluster.ahead = max(ahead, 0.0)
    cluster.settle(59)
    assert cluster.claims() == {"10.0.0.0/28": True}
    cluster.settle(2)
    assert cluster.claims() == {}


def test_a_node_with_all_addresses(cluster: Cluster) -> None:
    """A node that annotates itself with everything is a Conflict, and the others are served; also where it comes first by its name."""
    cluster.pool("p", OLD, {"cidr": "fd00::/62", "nodePrefix": 64}, annotation="k1")
    cluster.pool("q", OTHER, annotation="k2")
    cluster.node("a", k1="0.0.0.0/0,::/0", k2="10.0.1.0/26")
    cluster.node("by-hand", k1="10.0.0.16/28,fd00::/64")
    for name in ("b", "c", "d"):
        cluster.node(name)
    cluster.settle()
    assert cluster.annotations("a") == {"k1": "0.0.0.0/0,::/0", "k2": "10.0.1.0/26"}
    assert [cluster.annotations(name)["k1"] for name in "bcd"] == [
        "10.0.0.0/28,fd00:0:0:1::/64",
        "10.0.0.32/28,fd00:0:0:2::/64",
        "10.0.0.48/28,fd00:0:0:3::/64",
    ]
    assert [cluster.annotations(name)["k2"] for name in "bcd"] == ["10.0.1.0/28", "10.0.1.32/28", "10.0.1.48/28"]
    assert {conflict.node for conflicts in cluster.ledger.conflicts.values() for conflict in conflicts} == {"a"}
    claim = cluster.ledger.claims.get(parse_subnet("10.0.0.16/28"))
    assert claim
    assert claim.adopted


@pytest.mark.parametrize(
    ("text", "says", "adopted"),
    [
        ("10.0.0.16/28", "", ["10.0.0.16/28"]),
        ("10.0.0.16/28,fd00::/64", "", ["10.0.0.16/28", "fd00::/64"]),
        ("10.0.0.16/29", "a node gets a /28 of SubnetPool p", []),
        ("10.0.0.32/27", "a node gets a /28 of SubnetPool p", []),
        ("10.0.0.16/28,10.0.0.32/28", "10.0.0.32/28 in annotation k1 of Node a is not taken over: the node has one of SubnetPool p already",
         ["10.0.0.16/28"]),
        ("10.0.0.16/28,nonsense", "nonsense", []),
    ],
)  # fmt: skip
def test_adoption(cluster: Cluster, text: str, says: str, adopted: list[str]) -> None:
    """Taken over is only what the pool itself would give, one a family; the rest is a Conflict, and nobody else is given it there."""
    cluster.pool("p", OLD, {"cidr": "fd00::/61", "nodePrefix": 64}, annotation="k1")
    cluster.pool("q", OLD, annotation="k2")
    cluster.node("a", k1=text)
    for name in ("b", "c", "d", "e"):
        cluster.node(name)
    cluster.settle()
    assert cluster.annotations("a")["k1"] == text
    told = [conflict for conflicts in cluster.ledger.conflicts.values() for conflict in conflicts]
    assert [says in conflict.message for conflict in told] == [True] * bool(says)
    assert all(conflict.pools == ("p",) for conflict in told)
    assert [str(subnet) for subnet, claim in sorted(cluster.ledger.claims) if claim.adopted] == adopted
    given = [subnet for name in "bcde" for subnet in _subnets(cluster.annotations(name).get("k1", ""))]
    assert len(given) > 3
    assert not any(one.overlaps(other) for one in given for other in _subnets(text))


def test_what_a_pool_does_not_serve_is_not_taken_over(cluster: Cluster) -> None:
    """Of a node that the pool does not select nothing is taken over, and in that pool nobody else is given it."""
    cluster.pool("p", OLD, annotation="k1", nodeSelector={"matchExpressions": [{"key": "stranger", "operator": "DoesNotExist"}]})
    cluster.ledger.set_node(NodeMetadata("a", "u", "1", {"stranger": ""}, {"k1": "10.0.0.0/28"}))
    cluster.node("b")
    cluster.settle()
    (conflict,) = cluster.ledger.conflicts["a"]
    assert conflict.reason == "SubnetNotAdopted"
    assert "does not serve" in conflict.message
    assert cluster.claims() == {"10.0.0.16/28": False}


def test_an_unreadable_annotation_keeps_its_claims(cluster: Cluster) -> None:
    """What a node was given stays its own while the annotation cannot be read, and what can be read of it nobody else is given."""
    cluster.pool("p", OLD, annotation="k1")
    cluster.node("a")
    cluster.settle()
    cluster.node("a", k1="10.0.0.16/28; 10.0.0.48/28")
    cluster.settle(61)
    cluster.node("a", k1="10.0.0.16/28, x")
    cluster.settle(61)
    cluster.node("b")
    cluster.settle(61)
    assert cluster.claims() == {"10.0.0.0/28": False, "10.0.0.32/28": False}
    assert cluster.annotations("b") == {"k1": "10.0.0.32/28"}


def test_a_doubt_elsewhere(cluster: Cluster) -> None:
    """While one annotation of a node cannot be read none of its claims is taken back, and nothing is tried again and again."""
    cluster.pool("p", OLD, annotation="k1", nodeSelector=NONE)
    cluster.pool("q", OTHER, annotation="k2")
    cluster.claim("10.0.0.0/28", "a", "k1", released=1000.0)
    cluster.node("a", k2="nonsense")
    cluster.settle(3600)
    cluster.now += 3600
    assert cluster.plan("a") == []
    assert cluster.claims() == {"10.0.0.0/28": False}


def test_half_a_node(cluster: Cluster) -> None:
    """A claim that could not be created while its annotation became unreadable is not kept for ever."""
    cluster.pool("p", OLD, annotation="k1")
    cluster.node("a")
    assert [type(write) for write in cluster.plan("a")] == [CreateClaim]
    cluster.node("a", k1="nonsense")
    cluster.settle()
    assert cluster.claims() == {}
    assert not [write for write in cluster.plan("a") if isinstance(write, UpdateClaim)]


def _subnets(text: str) -> list[Subnet]:
    return [parse_subnet(part.strip()) for part in text.split(",") if "/" in part]
