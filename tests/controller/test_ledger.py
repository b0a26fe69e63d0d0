# SPDX-License-Identifier: Apache-2.0
"""Decisions that the model does not show in numbers: what is counted, how long it takes, what a purge takes."""

from __future__ import annotations

import pytest
from counting import calls_of
from hypothesis import given
from hypothesis import strategies as st
from settled import at, pool, settle

from kubenode.ipam.ranges import Subnet, parse_subnet
from kubenode.pools.ledger import Ledger
from kubenode.pools.purge import purge
from kubenode.pools.records import NodeMetadata, NodeSubnet, parse_pool
from kubenode.pools.status import Reserved, status
from kubenode.pools.timing import GOOD_FOR
from kubenode.pools.writes import Annotate, CreateClaim, Outcome, UpdateClaim


@given(
    st.lists(
        st.sampled_from(["10.0.0.0/25", "10.0.0.0/26", "10.0.0.64/28", "10.0.0.66/31", "10.0.0.128/27", "10.0.0.200", "10.0.0.0/8"]),
        max_size=4,
        unique=True,
    ),
    st.lists(
        st.sampled_from(["10.0.0.0/28", "10.0.0.16/30", "10.0.0.16/28", "10.0.0.128/26", "10.0.0.32/30", "10.0.0.36/30"]), unique=True
    ),
)
def test_free_is_what_can_be_given(exclude: list[str], held: list[str]) -> None:
    """As many subnets as are said to be free are given, then none; none of them overlaps what is excluded or held."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", {"cidr": "10.0.0.0/24", "nodePrefix": 28, "exclude": exclude})))
    for number, text in enumerate(held):
        ledger.set_node(NodeMetadata(f"h{number}", f"u{number}", "1", {}, {"p": text}))
    settle(ledger)
    had = {name: node.annotations["p"] for name, node in ledger.nodes.items()}
    free = status(ledger, ledger.pools["p"], 0.0)["cidrs"][0]["free"]
    for number in range(20):
        ledger.set_node(NodeMetadata(f"n{number:02}", f"v{number}", "1", {}, {}))
    settle(ledger)
    given_ = [parse_subnet(node.annotations["p"]) for name, node in ledger.nodes.items() if name not in had and node.annotations]
    assert len(given_) == free
    taken = [*map(parse_subnet, had.values()), *ledger.pools["p"].blocks[0].exclude]
    assert not any(one.overlaps(other) for one in given_ for other in taken)
    assert {name: ledger.nodes[name].annotations["p"] for name in had} == had


def first_pass(count: int) -> tuple[Ledger, int]:
    """Give so many nodes subnets of two pools and two families; return the ledger, and how many calls that took."""
    ledger = Ledger()
    for name, number in (("net1", 64), ("net2", 128)):
        cidrs = ({"cidr": f"10.{number}.0.0/10", "nodePrefix": 26}, {"cidr": f"fd00:{number}::/48", "nodePrefix": 64})
        ledger.set_pool(parse_pool(pool(name, *cidrs)))
    for number in range(count):
        ledger.set_node(NodeMetadata(f"n{number:05}", f"u{number}", "1", {}, {}))

    def give() -> None:
        for name in sorted(ledger.changed):
            for write in ledger.plan(name, at(0.0)).writes:
                assert isinstance(write, CreateClaim)
                ledger.set_claim(write.claim._replace(uid="c", version="1"))
                ledger.recent_writes.add(write.claim.subnet, 0.0)
            (annotate,) = ledger.plan(name, at(0.0)).writes
            assert isinstance(annotate, Annotate)
            ledger.set_node(annotate.node._replace(annotations={key: str(value) for key, value in annotate.values.items()}))

    return ledger, calls_of(give)


@pytest.mark.slow
def test_many_nodes() -> None:
    """Eight times the nodes take about eight times as much work, a second pass writes nothing, a change is looked at alone.

    benchmarks/controller.py says what 15,000 nodes take.
    """
    ledger, took = first_pass(2000)
    assert took < 10 * first_pass(250)[1]
    writes: list[object] = []
    again = calls_of(lambda: writes.extend(write for name in sorted(ledger.changed) for write in ledger.plan(name, at(0.0)).writes))
    assert writes == []
    assert again < took
    ledger.changed.clear()

    def change() -> None:
        ledger.set_node(NodeMetadata("new", "u", "1", {}, {}))
        assert ledger.changed == {"new"}
        writes.extend(ledger.plan("new", at(0.0)).writes)

    assert calls_of(change) < took / 20
    assert len(writes) == 4


@pytest.mark.parametrize(("quicker", "reasons"), [("a", ["SubnetOverlap"]), ("b", [])])
def test_an_overlap_with_what_is_not_yet_claimed(quicker: str, reasons: list[str]) -> None:
    """An annotation that overlaps with what is about to be claimed for another node is no conflict before that has been claimed."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", {"cidr": "10.0.0.0/24", "nodePrefix": 28})))
    ledger.set_node(NodeMetadata("a", "ua", "1", {}, {}))
    (create,) = ledger.plan("a", at(0.0)).writes
    assert isinstance(create, CreateClaim)
    ledger.set_node(NodeMetadata("b", "ub", "1", {}, {"p": str(create.claim.subnet)}))
    assert ledger.plan("b", at(0.0)) == Outcome([], [], 1.0)
    if quicker == "b":  # by another controller
        ledger.withdraw(create.claim)
    ledger.set_claim(create.claim._replace(node=quicker, node_uid=f"u{quicker}", uid="c", version="2"))
    assert [conflict.reason for conflict in ledger.plan("b", at(1.0)).conflicts] == reasons


def test_reserved_networks() -> None:
    """A pool that overlaps the service network or a podCIDR says so, and still serves."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", {"cidr": "10.96.0.0/16", "nodePrefix": 24})))
    said = status(ledger, ledger.pools["p"], 0.0, [Reserved(Subnet(4, 10 << 24 | 96 << 16, 12), "the service network")])
    conditions = {condition["type"]: condition for condition in said["conditions"]}
    assert conditions["Conflict"]["reason"] == "ReservedOverlap"
    assert conditions["Conflict"]["message"] == "10.96.0.0/16 overlaps 10.96.0.0/12, the service network"
    assert conditions["Ready"]["status"] == "True"


def test_a_status_that_stays_is_equal() -> None:
    """The time of a condition changes only with it, so that a status which stays is not written again."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", {"cidr": "10.96.0.0/16", "nodePrefix": 24})))
    first = status(ledger, ledger.pools["p"], 1.0)
    ledger.set_pool(ledger.pools["p"]._replace(status=first))
    assert status(ledger, ledger.pools["p"], 100.0) == first


def test_a_large_network() -> None:
    """An IPv6 network may have more subnets than a number in a status can say."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", {"cidr": "fd00::/8", "nodePrefix": 126})))
    assert status(ledger, ledger.pools["p"], 1.0)["cidrs"][0]["free"] == (1 << 63) - 1


def test_purge() -> None:
    """A purge takes from annotations what the deleted pool gave, leaves what stood there by hand, and takes all its claims."""
    own, adopted = parse_subnet("10.0.0.0/24"), parse_subnet("10.0.1.0/24")
    claims = [NodeSubnet(own, "p", "k", "a", "u"), NodeSubnet(adopted, "p", "k", "b", "u", adopted=True)]
    claims.append(NodeSubnet(parse_subnet("10.0.2.0/24"), "q", "k", "a", "u"))
    nodes = {
        "a": NodeMetadata("a", "u", "1", {}, {"k": "10.0.0.0/24,10.0.2.0/24"}),
        "b": NodeMetadata("b", "u", "1", {}, {"k": "10.0.1.0/24"}),
    }
    annotate, delete = purge("p", claims, nodes)
    assert [(write.node.name, write.values) for write in annotate] == [("a", {"k": "10.0.2.0/24"})]
    assert [write.claim.subnet for write in delete] == [own, adopted]


def test_a_pool_moves_from_an_annotation_whose_other_pool_is_deleted() -> None:
    """What the annotation of a deleted pool holds stays the node's, also what another pool, which writes elsewhere now, gave to it."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("four", {"cidr": "10.0.0.0/26", "nodePrefix": 28}, annotation="old")))
    ledger.set_pool(parse_pool(pool("six", {"cidr": "fd00::/61", "nodePrefix": 64}, annotation="old")))
    ledger.set_node(NodeMetadata("n", "u", "1", {}, {}))
    settle(ledger)
    ledger.set_pool(parse_pool(pool("six", {"cidr": "10.0.1.0/26", "nodePrefix": 28}, annotation="new")))
    ledger.drop_pool("four")
    settle(ledger)  # an update would be a release
    assert ledger.nodes["n"].annotations == {"old": "10.0.0.0/28,fd00::/64", "new": "10.0.1.0/28"}
    assert [(str(subnet), claim.released) for subnet, claim in sorted(ledger.claims)] == [
        ("10.0.0.0/28", None),
        ("10.0.1.0/28", None),
        ("fd00::/64", None),
    ]


def test_what_is_known_of_a_claim_is_checked_before_it_is_annotated() -> None:
    """A claim found without annotation is written as it is, which is refused where it is not so any more; then its node gets it."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", {"cidr": "10.0.0.0/24", "nodePrefix": 28})))
    ledger.set_node(NodeMetadata("n", "u", "1", {}, {}))
    claim = NodeSubnet(parse_subnet("10.0.0.32/28"), "p", "p", "n", "u", uid="c", version="1")
    ledger.set_claim(claim)
    assert ledger.plan("n", at(100.0)).writes == [UpdateClaim(claim)]
    ledger.recent_writes.add(claim.subnet, 100.0)
    (write,) = ledger.plan("n", at(101.0)).writes
    assert isinstance(write, Annotate)
    assert write.values == {"p": "10.0.0.32/28"}
    assert ledger.plan("n", at(100.0 + GOOD_FOR)).writes == [UpdateClaim(claim)]


def test_what_a_node_holds() -> None:
    """A claim is its node's where an annotation has it, or cannot be read."""
    ledger = Ledger()
    ledger.set_pool(parse_pool(pool("p", {"cidr": "10.0.0.0/24", "nodePrefix": 28})))
    claim = NodeSubnet(parse_subnet("10.0.0.32/28"), "deleted", "old", "n", "u", uid="c", version="1")
    ledger.set_claim(claim)
    for texts, held in (({}, False), ({"p": "10.0.0.0/28"}, False), ({"old": "10.0.0.32/28"}, True), ({"p": "?"}, True)):
        assert ledger.holds(claim, NodeMetadata("n", "u", "1", {}, texts)) is held
