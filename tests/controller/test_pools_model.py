# SPDX-License-Identifier: Apache-2.0
"""The controller's decisions against a model of a cluster: two controllers with views that lag and clocks that are wrong, crashes, and
people who interfere.

In CI with a fixed seed, and with a fresh one each time, which `KUBE_NODE_SEED` gives again.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest
from effort import examples
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from kubenode.ipam.ranges import Subnet, parse_subnet
from kubenode.pools.blocks import Block, network
from kubenode.pools.ledger import Ledger
from kubenode.pools.records import IN, NodeMetadata, NodeSubnet, Requirement, Selector, SubnetPool, noted
from kubenode.pools.texts import read
from kubenode.pools.timing import GOOD_FOR, Now
from kubenode.pools.writes import Annotate, CreateClaim, DeleteClaim, UpdateClaim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.pools.writes import Write

pytestmark = pytest.mark.slow

RECLAIM = 60.0
NAMES = [f"n{number}" for number in range(6)]
KEYS = ["k1", "k2"]
RACK = Selector((Requirement("rack", IN, frozenset(["a"])),))
BLOCKS = [
    Block(parse_subnet("10.0.0.0/26"), 28),
    Block(parse_subnet("10.0.0.64/27"), 28, (network("10.0.0.70"),)),
    Block(parse_subnet("10.0.1.0/28"), 28),
    Block(parse_subnet("fd00::/61"), 64),
    Block(parse_subnet("fd00:0:0:10::/63"), 64, (parse_subnet("fd00:0:0:10::/64"),)),
    Block(parse_subnet("10.0.2.0/29"), 31, shared=True).without_empty(),
    Block(parse_subnet("10.0.2.0/29"), 31, shared=True, gateway="10.0.2.4").without_empty(),
    Block(parse_subnet("10.0.2.0/29"), 32, shared=True, gateway="none").without_empty(),
    Block(parse_subnet("10.0.2.8/29"), 30, gateway="last"),
]
TEXTS = [
    "10.0.0.0/28", "10.0.0.16/28,fd00::/64", "10.0.0.16/28, fd00:0:0:1::/64", "10.0.0.0/27", "10.0.0.32/29", "10.9.0.0/28",
    "10.0.0.64/28", "nonsense", "", "fd00:0:0:2::/64", "0.0.0.0/0", "10.0.0.16/28, 10.0.0.32/28", "10.0.0.0/28, nonsense",
    "10.0.2.2/31 of 10.0.2.0/29", "10.0.2.4/31 of 10.0.2.0/29 via 10.0.2.4 closing", "10.0.2.8/30", "10.0.2.8/30 via 10.0.2.10",
    "10.0.2.0/29",
]  # fmt: skip
POOLS = ["p1", "p2", "p3"]


class View:
    """A controller: its ledger, and what it has not been told yet."""

    def __init__(self, cluster: Cluster, ahead: float = 0.0) -> None:
        self.ahead = ahead  # seconds, of its clock
        self.ledger = Ledger()
        self.untold: list[tuple[str, object]] = []
        for pool in cluster.pools.values():
            self.ledger.set_pool(pool)
        for claim in cluster.claims.values():
            self.ledger.set_claim(claim)
        for node in cluster.nodes.values():
            self.ledger.set_node(node)

    def hear(self, count: int) -> None:
        for kind, value in self.untold[:count]:
            getattr(self.ledger, kind)(value)
        del self.untold[:count]


class Cluster:
    """What the API server would hold."""

    def __init__(self) -> None:
        self.pools: dict[str, SubnetPool] = {}
        self.claims: dict[Subnet, NodeSubnet] = {}
        self.nodes: dict[str, NodeMetadata] = {}
        self.version = 0

    def next(self) -> str:
        self.version += 1
        return str(self.version)


class Controllers(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.cluster = Cluster()
        self.views = [View(self.cluster), View(self.cluster)]
        self.now = 1000.0
        self.by_hand: dict[tuple[str, str], str] = {}  # what a person wrote to a node's annotation
        self.stamped: dict[Subnet, float] = {}  # when a claim was last written
        self.had: dict[tuple[str, Subnet], float] = {}  # when a node last had a subnet

    def tell(self, kind: str, value: object) -> None:
        for view in self.views:
            view.untold.append((kind, value))

    def put_node(self, node: NodeMetadata) -> None:
        self.cluster.nodes[node.name] = node
        self.tell("set_node", node)

    def put_claim(self, claim: NodeSubnet) -> NodeSubnet:
        claim = claim._replace(version=self.cluster.next())
        self.stamped[claim.subnet] = self.now
        self.cluster.claims[claim.subnet] = claim
        self.tell("set_claim", claim)
        return claim

    # People.

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), text=st.none() | st.sampled_from(TEXTS), rack=st.sampled_from("ab"))
    def add_node(self, name: str, key: str, text: str | None, rack: str) -> None:
        if name not in self.cluster.nodes:
            version = self.cluster.next()
            self.put_node(NodeMetadata(name, f"uid{version}", version, {"rack": rack}, {} if text is None else {key: text}))
            for each in KEYS:
                self.by_hand.pop((name, each), None)
            if text is not None:
                self.by_hand[name, key] = text

    @rule(name=st.sampled_from(NAMES))
    def delete_node(self, name: str) -> None:
        if self.cluster.nodes.pop(name, None):
            self.tell("drop_node", name)

    @rule(name=st.sampled_from(NAMES), rack=st.sampled_from("ab"))
    def relabel(self, name: str, rack: str) -> None:
        if node := self.cluster.nodes.get(name):
            self.put_node(node._replace(labels={"rack": rack}, version=self.cluster.next()))

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(KEYS), text=st.none() | st.sampled_from(TEXTS))
    def annotate(self, name: str, key: str, text: str | None) -> None:
        if node := self.cluster.nodes.get(name):
            annotations = {each: value for each, value in node.annotations.items() if each != key}
            if text is not None:
                annotations[key] = self.by_hand[name, key] = text
            self.put_node(node._replace(annotations=annotations, version=self.cluster.next()))

    @rule(
        name=st.sampled_from(POOLS),
        key=st.sampled_from(KEYS),
        blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=3, unique_by=lambda block: block.cidr),
        rack=st.booleans(),
    )
    def put_pool(self, name: str, key: str, blocks: list[Block], *, rack: bool) -> None:
        pool = SubnetPool(name, key, tuple(blocks), RACK if rack else Selector(), RECLAIM)
        self.cluster.pools[name] = pool
        self.tell("set_pool", pool)

    @rule(name=st.sampled_from(POOLS))
    def delete_pool(self, name: str) -> None:
        if self.cluster.pools.pop(name, None):
            self.tell("drop_pool", name)

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.note_what_nodes_have()
        self.now += seconds

    # Controllers.

    @rule(which=st.integers(0, 1), count=st.integers(1, 20))
    def hear(self, which: int, count: int) -> None:
        self.views[which].hear(count)

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        self.views[which] = View(self.cluster, self.views[which].ahead)

    @rule(which=st.integers(0, 1), ahead=st.sampled_from([-100.0, 0.0, 100.0]))
    def set_clock(self, which: int, ahead: float) -> None:
        self.views[which].ahead = ahead

    def clocks(self, view: View) -> Now:
        return Now(self.now + view.ahead, self.now)

    @rule(which=st.integers(0, 1), name=st.sampled_from(NAMES), done=st.integers(0, 9))
    def work(self, which: int, name: str, done: int) -> None:
        """Do the first `done` writes of a plan; where that is not all of them, the controller has crashed."""
        view = self.views[which]
        writes = view.ledger.plan(name, self.clocks(view)).writes
        for write in writes[:done]:
            self.write(view, write)
        if len(writes) > done:
            self.crash(which)

    @rule(which=st.integers(0, 1))
    def work_on_all(self, which: int) -> None:
        view = self.views[which]
        view.hear(1000)
        self.settle(view)

    def settle(self, view: View) -> None:
        for _ in range(20):
            names = sorted(view.ledger.changed)
            view.ledger.changed.clear()
            for name in names:
                for write in view.ledger.plan(name, self.clocks(view)).writes:
                    self.write(view, write)
            view.hear(1000)
            if not view.ledger.changed:
                return
        raise AssertionError("the controller never comes to rest")

    def write(self, view: View, write: Write) -> None:
        claims, nodes = self.cluster.claims, self.cluster.nodes
        if isinstance(write, CreateClaim):
            there = claims.get(write.claim.subnet)
            view.ledger.set_claim(there or self.put_claim(write.claim._replace(uid=f"c{self.cluster.next()}")))
            if there is None:
                view.ledger.recent_writes.add(write.claim.subnet, self.now)
        elif isinstance(write, UpdateClaim):
            if (there := claims.get(write.claim.subnet)) and there.version == write.claim.version:
                view.ledger.set_claim(self.put_claim(write.claim))
                view.ledger.recent_writes.add(write.claim.subnet, self.now)
        elif isinstance(write, DeleteClaim):
            there = claims.get(write.claim.subnet)
            if node := nodes.get(write.claim.node):
                view.ledger.set_node(node)
            kept = node and (write.orphan or view.ledger.holds(write.claim, node))
            if there and there.version == write.claim.version and not kept:
                self.check_delete(view, there)
                del claims[there.subnet]
                self.tell("drop_claim", there.subnet)
                view.ledger.drop_claim(there.subnet)
        elif (
            isinstance(write, Annotate)
            and (node := nodes.get(write.node.name))
            and (node.uid, node.version) == (write.node.uid, write.node.version)
        ):
            self.check_annotate(node, write)
            self.put_node(node._replace(annotations={**node.annotations, **write.values}, version=self.cluster.next()))  # type: ignore[dict-item]

    # What has to hold.

    def check_delete(self, view: View, claim: NodeSubnet) -> None:
        self.note_what_nodes_have()
        assert claim.released is not None
        late = any(kind == "set_node" and isinstance(node, NodeMetadata) and node.name == claim.node for kind, node in view.untold)
        assert late or self.now >= self.had.get((claim.node, claim.subnet), 0.0) + RECLAIM, "reclaimed before its time"

    def check_annotate(self, node: NodeMetadata, write: Annotate) -> None:
        for key, value in write.values.items():
            old = node.annotations.get(key, "").strip()
            assert value is not None
            assert value.startswith(old), "what a node has was taken or changed"
            for subnet in (item.block for item in noted(old)):
                claim = self.cluster.claims[subnet]
                assert claim.node == node.name
                assert not claim.adopted, "an annotation by hand was changed"
            for item in noted(value)[len(noted(old)) :]:
                subnet, claim = item.block, self.cluster.claims[item.block]
                assert (claim.node, claim.node_uid) == (node.name, node.uid), "annotated without a claim"
                assert claim.released is None or self.now - self.stamped[subnet] < GOOD_FOR, "annotated with what is being taken back"
                for other in self.cluster.nodes.values():
                    if other.name != node.name:
                        assert not any(subnet.overlaps(theirs) for theirs in self.given(other)), f"{subnet} is {other.name}'s"

    def given(self, node: NodeMetadata) -> Iterable[Subnet]:
        """Return what the controllers have given to a node, and it has."""
        for key in KEYS:
            for subnet in readable(node.annotations.get(key)):
                claim = self.cluster.claims.get(subnet)
                if claim and claim.node == node.name and not claim.adopted:
                    yield subnet

    def note_what_nodes_have(self) -> None:
        """Take note of what nodes have in the annotation that the claim names, whatever pools say, or may have, as it cannot be read."""
        for claim in self.cluster.claims.values():
            if node := self.cluster.nodes.get(claim.node):
                text = read(node.annotations.get(claim.annotation))
                if text.problem or claim.subnet in text.subnets:
                    self.had[node.name, claim.subnet] = self.now

    @invariant()
    def no_subnet_on_two_nodes(self) -> None:
        if hasattr(self, "cluster"):
            given = [(subnet, node.name) for node in self.cluster.nodes.values() for subnet in self.given(node)]
            for index, (one, of) in enumerate(given):
                assert not any(one.overlaps(other) for other, whose in given[index + 1 :] if whose != of)

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for view in self.views:
            view.hear(1000)
            view.ledger.changed.update(NAMES)
        for _ in range(4):
            self.settle(self.views[0])
            self.views[1].hear(1000)
            self.settle(self.views[1])
            self.views[0].hear(1000)
        fresh = View(self.cluster)
        for view in (*self.views, fresh):
            for name in NAMES:
                outcome = view.ledger.plan(name, self.clocks(view))
                assert outcome.writes == [], "a restart finds nothing to do"
                self.check_served(view.ledger, name)
        assert self.views[0].ledger.conflicts == fresh.ledger.conflicts
        assert self.views[0].ledger.waiting == fresh.ledger.waiting
        assert self.views[0].ledger.outside_pool.items() >= {name: s for name, s in fresh.ledger.outside_pool.items() if s}.items()

    def check_served(self, ledger: Ledger, name: str) -> None:
        node = self.cluster.nodes.get(name)
        for pool in self.cluster.pools.values() if node else ():
            assert node is not None
            if not pool.selector.matches(node.labels):
                continue
            there = readable(node.annotations.get(pool.annotation))
            missing = {block.cidr.version for block in pool.blocks} - {subnet.version for subnet in there}
            hands_off = (
                name in ledger.waiting
                or any(conflict.annotation == pool.annotation for conflict in ledger.conflicts.get(name, ()))
                or any(claim.adopted for subnet in there if (claim := self.cluster.claims.get(subnet)))
            )
            assert not missing or hands_off, f"{name} is not served"


def readable(text: str | None) -> tuple[Subnet, ...]:
    found = read(text)
    return () if found.problem else found.subnets


SEED = int(os.environ.get("KUBE_NODE_SEED") or secrets.randbelow(1 << 32))
SETTINGS = settings(max_examples=examples(1500), stateful_step_count=40, deadline=None, database=None)


@pytest.mark.timeout(1800)  # a minute of processor time
def test_by_a_fixed_seed() -> None:
    """Whatever happens, in this order: nothing is given twice or taken back too soon, all are served, and a restart finds nothing to do."""
    run_state_machine_as_test(seed(20261125)(Controllers), settings=SETTINGS)


@pytest.mark.timeout(1800)
def test_by_a_fresh_seed() -> None:
    """The same, in another order each time."""
    try:
        run_state_machine_as_test(seed(SEED)(Controllers), settings=SETTINGS)
    except BaseException as error:
        error.add_note(f"again with KUBE_NODE_SEED={SEED}")
        raise
