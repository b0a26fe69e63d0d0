# SPDX-License-Identifier: Apache-2.0
"""PURE. The consequences of a node's report: permitted changes of its annotations, and the return of its claims."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from kubenode.pools.growth import Family, capacity, rules
from kubenode.pools.records import STATIC
from kubenode.pools.texts import closed_by_us
from kubenode.pools.writes import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from kubenode.ipam.ranges import Subnet
    from kubenode.nodes.items import Item
    from kubenode.pools.growth import GrowthStep
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import Growth, NodeMetadata, NodeSubnet, SubnetPool
    from kubenode.pools.reports import AgentReport, ReportedNetwork
    from kubenode.pools.timing import Now

    Take = Callable[[int, list[SubnetPool], tuple[Item, ...]], NodeSubnet | None]


class Agreement:
    """The report of a node, and what follows from it in one plan.

    `relied_on` is the report that must still be the newest when the annotations are written; None if none was needed.
    """

    def __init__(self, ledger: Ledger, node: NodeMetadata, now: Now) -> None:
        self.report = ledger.reports.get(node.name)
        self.relied_on: AgentReport | None = None
        self.is_ending = False  # whether items are closing where nothing grows any more, by our word, so that the report is needed
        self.at_most: set[str] = set()  # pools of which the node has maxBlocks and needs more
        self.again: float | None = None
        self._ledger = ledger
        self._node = node
        self._now = now
        self._min_free: dict[str, int] = {}

    def grown(self, key: str, pools: list[SubnetPool], items: tuple[Item, ...], take: Take) -> tuple[tuple[Item, ...], list[NodeSubnet]]:
        """Return the items of an annotation as they should be, and the claims to add. The pools serve the node; no item is by hand."""
        growing = [pool for pool in pools if pool.growth.min_free]
        closing = {item.block for item in items if item.closing}
        if not growing and not closing:
            return items, []
        found = rules(growing)
        ours = self._given_by(growing, items, found)
        stopped = closing & closed_by_us(self._node) - ours if closing else set()  # nothing but growth takes them back, or opens them
        if growing:
            self._min_free[key] = max(rule.min_free for rule in found.values())
        elif stopped:
            self.is_ending = True
        else:
            return items, []
        uses = self._agreed(key, items, grows=bool(growing))
        if not uses:
            return items, []
        closing &= ours | stopped  # the word at the others is a person's
        # At other times one broken node could take the blocks of all others.
        doubtful = self._ledger.growth.is_doubtful(self._now.steady)
        lost = {block for block in (closing | ours if doubtful else closing) if self._ledger.is_lost(block, key, self._node.name)}
        stopped -= lost
        if closing and not self._is_open():
            lost, stopped = lost | closing & ours, set()
        ours |= closing & lost
        kept = {item.block: item._replace(closing=item.closing and item.block not in stopped) for item in items}
        added: list[NodeSubnet] = []
        for version in sorted({item.version for item in items}):  # an annotation gets the first subnet of a family without a report
            mine, rule = tuple(item for item in kept.values() if item.version == version), found.get(version, STATIC)
            step = Family(mine, rule, ours, lost).step(uses)
            left = {item.block: item for item in self._closed(key, version, step, rule)}
            kept = {block: left.get(block, item) for block, item in kept.items() if block in left or item not in mine}
            added += self._further(version, step.lacks, rule.max_blocks - len(left), growing, tuple(kept.values()), take)
        if added or tuple(kept.values()) != items:
            self.relied_on = self.report
        return tuple(kept.values()), added

    def demand(self) -> list[Demand]:
        """Return the write of the free addresses that the node should have, if the object has others."""
        report = self.report
        if not self._ledger.growth.reporting:
            return []
        if (report.min_free if report else {}) == self._min_free:
            return []
        if report is not None and report.node_uid not in ("", self._node.uid):
            return []  # the object goes with an earlier Node of that name
        return [Demand(self._node, self._min_free, report)]

    def releases(self, claim: NodeSubnet) -> bool | None:
        """Say whether the node has agreed to lose a claim that its annotation no longer has; None if no report tells."""
        pool = self._ledger.pools.get(claim.pool)
        if self.report is None or pool is None or not pool.growth.min_free or not self.report.of(claim.annotation):
            return None
        return bool(self.report.agreed(self._node, claim.annotation)) and not self.report.holds(claim.subnet)

    def is_returned(self, claim: NodeSubnet) -> bool:
        """Say whether a released claim left the annotation by agreement, so that no time has to pass."""
        return self._ledger.growth.returned.get(claim.subnet) == self._node.annotations.get(claim.annotation, "").strip()

    def _closed(self, key: str, version: int, step: GrowthStep, rule: Growth) -> tuple[Item, ...]:
        """Return the items of a step, with the spare one closed if the node has not needed it for long enough."""
        where, growth = (key, version), self._ledger.growth
        if step.spare is None:
            growth.needs(self._node.name, where)
            return step.items
        text = self._node.annotations.get(key, "")
        left = growth.left(self._node.name, where, text, rule.shrink_after, self._now.steady)
        if left > 0:
            self.again = min(self.again or inf, self._now.steady + left)
            return step.items
        return tuple(item._replace(closing=True) if item == step.spare else item for item in step.items)

    def _agreed(self, key: str, items: tuple[Item, ...], *, grows: bool) -> tuple[ReportedNetwork, ...]:
        """Return the networks of an annotation if the agent acts on its present text, and if it knows where that grows; else none."""
        uses = self.report.agreed(self._node, key) if self.report and (not grows or key in self.report.min_free) else ()
        return uses if all(use.item(item.block) for use in uses for item in items) else ()

    def _is_open(self) -> bool:
        """Say whether the agents had the time to report what they use; else look again when they had."""
        opens = self._ledger.growth.open_at
        if self._now.steady < opens < inf:
            self.again = min(self.again or inf, opens)
        return opens <= self._now.steady

    def _given_by(self, pools: list[SubnetPool], items: tuple[Item, ...], versions: Container[int]) -> set[Subnet]:
        names, claims = {pool.name for pool in pools}, self._ledger.claims
        found = (item.block for item in items if item.version in versions)
        return {block for block in found if (claim := claims.get(block)) and claim.pool in names}

    def _further(
        self, version: int, lacks: int, room: int, pools: list[SubnetPool], items: tuple[Item, ...], take: Take
    ) -> list[NodeSubnet]:
        """Return claims with as many addresses as a node lacks, if the pools have them; at most `room`."""
        added: list[NodeSubnet] = []
        while lacks > 0 and room > len(added):
            claim = take(version, pools, items)
            item = self._ledger.pools[claim.pool].item(claim.subnet) if claim else None
            if claim is None or item is None:
                return added
            added.append(claim)
            items, lacks = (*items, item), lacks - capacity(item)
        # A closing one may be opened after the first minute: until then it is unknown whether the blocks are too few.
        if lacks > 0 and (self._is_open() or not any(item.closing for item in items if item.version == version)):
            self.at_most |= {pool.name for pool in pools}
        return added
