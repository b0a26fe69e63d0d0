"""PURE. Which node gets which subnet: all that is known of pools, claims and nodes, and for each node what has to be written.

What a node has is never taken from it: an annotation is added to only where all that stands there came from the controller, and a claim
goes only after its node has been without it for `reclaimAfter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.controller.held import Held
from kubenode.controller.records import RECLAIM_AFTER, NodeSubnet, noted, object_name
from kubenode.controller.space import Space, holder_of
from kubenode.controller.turn import Turn, leave
from kubenode.controller.vouchers import Vouchers
from kubenode.ipam.ranges import RangeError

BROKEN = "(a broken NodeSubnet)"  # the holder of what is barred; comes before every Node

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.controller.records import Node, SubnetPool
    from kubenode.controller.writes import Conflict, Outcome
    from kubenode.ipam.ranges import Subnet


class Ledger:
    """Fed with what the API server tells; `changed` and `changed_pools` collect whom that concerns, until they are taken.

    `plan` enters what it is about to create at once, so that plans for other nodes, made meanwhile, do not choose the same.
    """

    def __init__(self) -> None:
        self.pools: dict[str, SubnetPool] = {}
        self.nodes: dict[str, Node] = {}
        self.claims: Held[NodeSubnet] = Held()
        self.conflicts: dict[str, list[Conflict]] = {}
        self.waiting: dict[str, set[str]] = {}  # node: the pools that have nothing left for it
        self.misplaced: dict[str, set[Subnet]] = {}  # pool: what it has given and would not give any more
        self.by_key: dict[str, list[SubnetPool]] = {}  # annotation: who writes to it
        self.changed: set[str] = set()
        self.changed_pools: set[str] = set()
        self.barred: dict[str, Subnet] = {}  # by the name that its NodeSubnet would have
        self.space = Space(self.claims)
        self.vouchers = Vouchers()
        self._of_node: dict[str, set[Subnet]] = {}
        self._strange: dict[str, tuple[Subnet, ...]] = {}  # node: what its annotations hold without a claim of its own

    # What the API server tells.

    def set_pool(self, pool: SubnetPool) -> None:
        old = self.pools.get(pool.name)
        self.pools[pool.name] = pool
        self.changed_pools.add(pool.name)
        if old is None or not old.same_spec(pool):
            self._pools_changed(pool.name)

    def drop_pool(self, name: str) -> None:
        if self.pools.pop(name, None) is not None:
            self.changed_pools.add(name)
            self._pools_changed(name)

    def set_claim(self, claim: NodeSubnet) -> None:
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
        claim = self.claims.remove(subnet)
        if claim is None:
            return
        mine = self._of_node[claim.node]
        mine.discard(subnet)
        if not mine:
            del self._of_node[claim.node]
        self.misplaced.get(claim.pool, set()).discard(subnet)
        self.changed.add(claim.node)
        self.changed_pools.add(claim.pool)
        self._note(claim.node)
        self._freed(subnet)

    def set_node(self, node: Node) -> None:
        old = self.nodes.get(node.name)
        self.nodes[node.name] = node
        if old is not None and (old.uid, old.labels, old.annotations) == (node.uid, node.labels, node.annotations):
            return
        self._note(node.name)
        self.changed.add(node.name)

    def drop_node(self, name: str) -> None:
        if self.nodes.pop(name, None) is not None:
            self._note(name)
            self.changed.add(name)

    # What follows from it.

    def plan(self, name: str, now: float) -> Outcome:
        """Return what has to be written for a node, and enter what that creates."""
        node, claims = self.nodes.get(name), self._claims_of(name)
        if node is None:
            self._remember(name, [], set())
            return leave(self, claims, now)
        keys = self._keys(claims)
        turn = Turn(self, node, keys, now)
        for key in keys:
            turn.settle(key, self.by_key.get(key, []), [claim for claim in claims if self._key_of(claim) == key])
        self._remember(name, turn.conflicts, turn.waits_for)
        return turn.outcome()

    def enter(self, claim: NodeSubnet) -> None:
        """Enter a claim that is to be created."""
        self.claims.put(claim.subnet, claim)
        self._of_node.setdefault(claim.node, set()).add(claim.subnet)
        if claim.node in self._strange:
            self._note(claim.node)

    def withdraw(self, claim: NodeSubnet) -> None:
        """Take back what `plan` entered, as it could not be created."""
        if (entered := self.claims.get(claim.subnet)) is not None and not entered.uid:
            self.drop_claim(claim.subnet)

    def holds(self, claim: NodeSubnet) -> bool:
        """Tell whether the claim's node has it in an annotation."""
        node = self.nodes.get(claim.node)
        if node is None:
            return False
        for key in self._keys(self._claims_of(claim.node)):
            try:
                if claim.subnet in noted(node.annotations.get(key)):
                    return True
            except RangeError:
                return True  # what the node has cannot be told
        return False

    def bar(self, subnet: Subnet) -> None:
        """Do not give a subnet: the name of its NodeSubnet is taken by an object that says something else."""
        self.barred[object_name(subnet)] = subnet
        self.space.note(subnet, BROKEN)

    def unbar(self, name: str) -> None:
        """Take note that there is no such object any more, or that it says what its name does."""
        subnet = self.barred.pop(name, None)
        if subnet is not None:
            self.space.forget(subnet, BROKEN)
            self._freed(subnet)

    def reclaim_after(self, pool: str) -> float:
        return self.pools[pool].reclaim_after if pool in self.pools else RECLAIM_AFTER

    def _claims_of(self, name: str) -> list[NodeSubnet]:
        return sorted(claim for subnet in self._of_node.get(name, ()) if (claim := self.claims.get(subnet)))

    def _keys(self, claims: Iterable[NodeSubnet]) -> dict[str, None]:
        """Return the annotations that pools write to, and those of deleted pools that a node with these claims may still have."""
        return dict.fromkeys([*self.by_key, *(claim.annotation for claim in claims if claim.pool not in self.pools)])

    def _key_of(self, claim: NodeSubnet) -> str:
        """Return the annotation that a claim is for: its pool's, or where the pool is gone, what that was."""
        pool = self.pools.get(claim.pool)
        return claim.annotation if pool is None else pool.annotation

    def _remember(self, name: str, conflicts: list[Conflict], waits_for: set[str]) -> None:
        old_conflicts, old_pools = self.conflicts.get(name, []), self.waiting.get(name, set())
        if conflicts != old_conflicts:
            self.changed_pools.update(pool for conflict in [*conflicts, *old_conflicts] for pool in conflict.pools)
        self.changed_pools |= waits_for ^ old_pools
        self.conflicts.pop(name, None)
        self.waiting.pop(name, None)
        if conflicts:
            self.conflicts[name] = conflicts
        if waits_for:
            self.waiting[name] = waits_for

    def _note(self, name: str) -> None:
        """Take note of what a node's annotations hold without a claim of its own, so that nobody else is given it."""
        old, holder = self._strange.pop(name, ()), holder_of(name)
        for subnet in old:
            self.space.forget(subnet, holder)
        node, found = self.nodes.get(name), []
        for annotation in [node.annotations.get(key) for key in self.by_key] if node else ():
            try:
                subnets = noted(annotation)
            except RangeError:
                continue
            for subnet in subnets:
                claim = self.claims.get(subnet)
                if claim is None or claim.node != name:
                    self.space.note(subnet, holder)
                    found.append(subnet)
        if found:
            self._strange[name] = tuple(found)
        for subnet in old:
            if subnet not in found:
                self._freed(subnet)

    def _freed(self, subnet: Subnet) -> None:
        self.space.freed(subnet)
        self.changed.update(self.waiting, self.conflicts)

    def _pools_changed(self, name: str) -> None:
        """Begin anew with all that depends on what pools there are."""
        keys = set(self.by_key)
        self.by_key = {}
        for pool in sorted(self.pools.values()):
            self.by_key.setdefault(pool.annotation, []).append(pool)
        self.space.pools_changed(self.pools.values())
        if keys != set(self.by_key):
            for node in self.nodes:
                self._note(node)
        self.misplaced.pop(name, None)
        for _, claim in self.claims:
            if claim.pool == name:
                self._place(claim)
        self.changed.update(self.nodes, self._of_node)
        self.changed_pools.update(self.pools)

    def _place(self, claim: NodeSubnet) -> None:
        pool = self.pools.get(claim.pool)
        if pool is not None and not any(block.offers(claim.subnet) for block in pool.blocks):
            self.misplaced.setdefault(pool.name, set()).add(claim.subnet)
        else:
            self.misplaced.get(claim.pool, set()).discard(claim.subnet)
