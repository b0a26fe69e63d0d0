# SPDX-License-Identifier: Apache-2.0
"""PURE. The known pools, claims and nodes, and for each node the writes that are due.

A node keeps its subnets: the controller adds to an annotation only if it wrote all of it. A claim is held as long as its node has the
subnet in the annotation that the claim names, also if its pool has changed; it is deleted `reclaimAfter` later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.pools.growth import Progress
from kubenode.pools.plan import NodePlan, plan_departed
from kubenode.pools.records import RECLAIM_AFTER, NodeSubnet, object_name
from kubenode.pools.reported import beside
from kubenode.pools.space import EVERYWHERE, Space, SubnetMap, holder_of, node_of, outside
from kubenode.pools.texts import adoptable, text_of
from kubenode.pools.timing import RecentWrites, Released
from kubenode.pools.writes import REPORTED

BROKEN = "(a broken NodeSubnet)"  # the holder of blocked subnets; sorts before every Node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.records import NodeMetadata, SubnetPool
    from kubenode.pools.reports import AgentReport
    from kubenode.pools.timing import Now
    from kubenode.pools.writes import Conflict, Outcome


class Ledger:
    """Pools, claims and nodes from the API server; `changed` and `changed_pools` collect the nodes and pools to look at.

    `plan` enters a claim before it is created, so that a concurrent plan for another node does not choose the same subnet.
    """

    def __init__(self) -> None:
        self.pools: dict[str, SubnetPool] = {}
        self.nodes: dict[str, NodeMetadata] = {}
        self.claims: SubnetMap[NodeSubnet] = SubnetMap()
        self.reports: dict[str, AgentReport] = {}  # by node
        self.growth = Progress()
        self.conflicts: dict[str, list[Conflict]] = {}
        self.waiting: dict[str, set[str]] = {}  # node: the pools that have no subnet left for it
        self.at_most: dict[str, set[str]] = {}  # node: the pools of which it has maxBlocks and needs more
        self.ending: set[str] = set()  # nodes with items that a controller closed, and that grow no more
        self.outside_pool: dict[str, set[Subnet]] = {}  # pool: allocated subnets that it no longer offers
        self.by_key: dict[str, list[SubnetPool]] = {}  # annotation: the pools that write to it
        self.changed: set[str] = set()
        self.changed_pools: set[str] = set()
        self.blocked: dict[str, Subnet] = {}  # by the name of the NodeSubnet
        self.space = Space(self.claims)
        self.recent_writes = RecentWrites()
        self.released = Released()
        self._of_node: dict[str, set[Subnet]] = {}
        self._unclaimed: dict[str, dict[tuple[Subnet, str], None]] = {}  # node: subnets without a claim, and their annotations

    @property
    def grows(self) -> bool:
        """Whether a pool grows."""
        return any(pool.growth.min_free for pool in self.pools.values())

    # News from the API server.

    def set_pool(self, pool: SubnetPool) -> None:
        """Add or replace a pool."""
        old = self.pools.get(pool.name)
        self.pools[pool.name] = pool
        self.changed_pools.add(pool.name)
        if old is None or not old.same_spec(pool):
            self._pools_changed(pool.name)

    def drop_pool(self, name: str) -> None:
        """Remove a deleted pool."""
        if self.pools.pop(name, None) is not None:
            self.changed_pools.add(name)
            self._pools_changed(name)

    def set_claim(self, claim: NodeSubnet) -> None:
        """Add or replace a claim."""
        old = self.claims.get(claim.subnet)
        if old == claim:
            return
        if old is not None and old.node != claim.node:
            self.drop_claim(claim.subnet)
        self.enter(claim)
        self._place(claim)
        self.changed.add(claim.node)
        self.changed_pools.add(claim.pool)

    def drop_claim(self, subnet: Subnet) -> None:
        """Remove a deleted claim."""
        claim = self.claims.remove(subnet)
        if claim is None:
            return
        self.released.forget(subnet)
        self.growth.returned.pop(subnet, None)
        mine = self._of_node[claim.node]
        mine.discard(subnet)
        if not mine:
            del self._of_node[claim.node]
        self.outside_pool.get(claim.pool, set()).discard(subnet)
        self.changed.add(claim.node)
        self.changed_pools.add(claim.pool)
        self._note(claim.node)
        self._freed(subnet)

    def set_node(self, node: NodeMetadata) -> None:
        """Add or replace a node."""
        old = self.nodes.get(node.name)
        self.nodes[node.name] = node
        if old is not None and (old.uid, old.labels, old.annotations) == (node.uid, node.labels, node.annotations):
            return
        for claim in self._claims_of(node.name):
            if claim.released is not None and self.holds(claim, node):
                self.released.forget(claim.subnet)
        self._note(node.name)
        self.changed.add(node.name)

    def drop_node(self, name: str) -> None:
        """Remove a deleted node."""
        if self.nodes.pop(name, None) is not None:
            self.growth.forget(name)
            self._note(name)
            self.changed.add(name)

    def set_report(self, report: AgentReport) -> None:
        """Add or replace the report of a node's agent."""
        old = self.reports.get(report.node)
        self.reports[report.node] = report
        self._reported(report.node, old, report)

    def drop_report(self, name: str) -> None:
        """Remove a deleted report."""
        old = self.reports.pop(name, None)
        if old is not None:
            self._reported(name, old, None)

    # Consequences.

    def plan(self, name: str, now: Now) -> Outcome:
        """Return the writes that are due for a node, and enter the claims that they create."""
        node, claims = self.nodes.get(name), self._claims_of(name)
        if node is None:
            self._remember(name, [], set(), set())
            self.ending.discard(name)
            return plan_departed(self, claims, now)
        keys = self._keys(claims)
        plan = NodePlan(self, node, keys, now)
        for key in keys:
            plan.plan_annotation(key, self.by_key.get(key, []), [claim for claim in claims if claim.annotation == key])
        outcome = plan.outcome()
        self._remember(name, outcome.conflicts, plan.waits_for, plan.agreement.at_most)
        (self.ending.add if plan.agreement.is_ending else self.ending.discard)(name)
        return outcome

    def enter(self, claim: NodeSubnet) -> None:
        """Enter a claim before it is created."""
        self.claims.put(claim.subnet, claim)
        self._of_node.setdefault(claim.node, set()).add(claim.subnet)
        if claim.node in self._unclaimed:
            self._note(claim.node)

    def withdraw(self, claim: NodeSubnet) -> None:
        """Remove a claim that `plan` entered and that could not be created."""
        if (entered := self.claims.get(claim.subnet)) is not None and not entered.uid:
            self.drop_claim(claim.subnet)

    def holds(self, claim: NodeSubnet, node: NodeMetadata) -> bool:
        """Say whether the claim's node has the subnet in an annotation, or may have it because an annotation is unreadable."""
        texts = [text_of(node, key) for key in self._keys([*self._claims_of(claim.node), claim])]
        return any(text.problem or claim.subnet in text.subnets for text in texts)

    def is_lost(self, subnet: Subnet, key: str, name: str) -> bool:
        """Say whether another node uses a subnet, by its report: etcd was restored."""
        others = {node_of(holder) for _, holders in self.space.unclaimed(subnet, key) for holder in holders} - {name}
        return any(report.is_in_use(subnet, key) for other in others if (report := self.reports.get(other)))

    def bar(self, subnet: Subnet) -> None:
        """Block a subnet: another object, with another content, has the name of its NodeSubnet."""
        self.blocked[object_name(subnet)] = subnet
        self.space.note(subnet, BROKEN)

    def unbar(self, name: str) -> None:
        """End the block: that object is deleted, or its content fits its name now."""
        subnet = self.blocked.pop(name, None)
        if subnet is not None:
            self.space.forget(subnet, BROKEN)
            self._freed(subnet)

    def reclaim_after(self, pool: str) -> float:
        """Return the seconds between the release of a pool's subnet and its reuse."""
        return self.pools[pool].reclaim_after if pool in self.pools else RECLAIM_AFTER

    def _claims_of(self, name: str) -> list[NodeSubnet]:
        return sorted(claim for subnet in self._of_node.get(name, ()) if (claim := self.claims.get(subnet)))

    def _keys(self, claims: Iterable[NodeSubnet]) -> dict[str, None]:
        """Return the annotations that pools write to, and those that the claims name: their pool wrote there."""
        return dict.fromkeys([*self.by_key, *(claim.annotation for claim in claims)])

    def _remember(self, name: str, conflicts: list[Conflict], waits_for: set[str], at_most: set[str]) -> None:
        old_conflicts = self.conflicts.get(name, [])
        if conflicts != old_conflicts:
            self.changed_pools.update(pool for conflict in [*conflicts, *old_conflicts] for pool in conflict.pools)
        self.conflicts.pop(name, None)
        if conflicts:
            self.conflicts[name] = conflicts
        for book, pools in ((self.waiting, waits_for), (self.at_most, at_most)):
            self.changed_pools |= pools ^ book.pop(name, set())
            if pools:
                book[name] = pools

    def _reported(self, name: str, old: AgentReport | None, new: AgentReport | None) -> None:
        if different := set(old.held() if old else ()) ^ set(new.held() if new else ()):
            self._note(name)
            self.changed.update(claim.node for subnet, *_ in different for _, claim in self.claims.overlapping(subnet))
        self.changed.add(name)

    def _note(self, name: str) -> None:
        """Note the subnets that a node has in annotations without a claim, so that no other node gets them."""
        old, holder = self._unclaimed.pop(name, {}), holder_of(name)
        for subnet, where in old:
            self.space.forget(subnet, holder, where)
        node = self.nodes.get(name)
        found = dict.fromkeys(self._without_claim(node)) if node else {}
        for subnet, where in found:
            self.space.note(subnet, holder, where)
        if found:
            self._unclaimed[name] = found
        for subnet, where in old:
            if (subnet, where) not in found:
                self._freed(subnet)

    def _without_claim(self, node: NodeMetadata) -> Iterator[tuple[Subnet, str]]:
        """Yield the subnets that a node has without a claim, and the annotation whose pools that concerns.

        It has them in an annotation, or its agent reports them.
        """
        for key, pools in self.by_key.items():
            text = text_of(node, key)
            coming = adoptable(node, text, pools, self.claims) if text.subnets else {}
            for subnet in text.subnets:
                claim = self.claims.get(subnet)
                if claim is None or claim.node != node.name:
                    yield subnet, EVERYWHERE if subnet in coming else key
        for subnet, key, is_outside in beside(self, node.name):
            yield subnet, outside(key) if is_outside else key

    def _freed(self, subnet: Subnet) -> None:
        self.space.freed(subnet)
        # Not all conflicts of reports: after a restore each node may have one, and of those only the holders' texts name the subnet.
        others = (name for name, found in self.conflicts.items() if any(one.reason != REPORTED for one in found))
        holders = {holder for _, holders in self.space.unclaimed(subnet, *self.by_key) for holder in holders}
        self.changed.update(self.waiting, others, self.nodes.keys() & set(map(node_of, holders)))

    def _pools_changed(self, name: str) -> None:
        """Recompute everything that depends on the pools."""
        self.by_key = {}
        for pool in sorted(self.pools.values()):
            self.by_key.setdefault(pool.annotation, []).append(pool)
        self.space.pools_changed(self.pools.values())
        for node in self.nodes:
            self._note(node)
        self.outside_pool.pop(name, None)
        for _, claim in self.claims:
            if claim.pool == name:
                self._place(claim)
        self.changed.update(self.nodes, self._of_node)
        self.changed_pools.update(self.pools)

    def _place(self, claim: NodeSubnet) -> None:
        pool = self.pools.get(claim.pool)
        if pool is not None and not any(block.offers(claim.subnet) for block in pool.blocks):
            self.outside_pool.setdefault(pool.name, set()).add(claim.subnet)
        else:
            self.outside_pool.get(claim.pool, set()).discard(claim.subnet)
