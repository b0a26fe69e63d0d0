# SPDX-License-Identifier: Apache-2.0
"""PURE. The plan for one node: its annotations, its claims and the pools that serve it, one annotation after the other.

A deleted node has only claims left.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

from kubenode.nodes.node import CLOSED
from kubenode.pools.agreement import Agreement
from kubenode.pools.growth import fits
from kubenode.pools.records import NodeSubnet
from kubenode.pools.reported import reported
from kubenode.pools.texts import adoptable, note_closed, text_of
from kubenode.pools.timing import RETURNED_AFTER
from kubenode.pools.writes import (
    DIFFERENT,
    FOREIGN,
    OUTSIDE,
    OVERLAP,
    UNREADABLE,
    Annotate,
    Conflict,
    CreateClaim,
    DeleteClaim,
    Outcome,
    UpdateClaim,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.ipam.ranges import Subnet
    from kubenode.nodes.items import Item
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import NodeMetadata, SubnetPool
    from kubenode.pools.reports import AgentReport
    from kubenode.pools.timing import Now
    from kubenode.pools.writes import Write


SETTLED_AFTER = 1.0  # seconds; by then the API server has created the claim, or refused it


class NodePlan:
    """Needs of a node. `keys`: the annotations that pools write to, and those that its claims name, as their pool may name another now.

    `values`: the new texts of its annotations; they are written after all their claims exist.
    """

    def __init__(self, ledger: Ledger, node: NodeMetadata, keys: Iterable[str], now: Now) -> None:
        self.node = node
        self.writes: list[Write] = []
        self.conflicts: list[Conflict] = []
        self.values: dict[str, str | None] = {}
        self.waits_for: set[str] = set()
        self._kept: dict[str, tuple[Item, ...]] = {}  # the present items of annotations that change, as they will be
        self.again: float | None = None
        self._ledger = ledger
        self._now = now
        self.agreement = Agreement(ledger, node, now)
        self._texts = {key: text_of(node, key) for key in keys}
        self._has = {subnet for text in self._texts.values() for subnet in text.subnets}
        self._doubt = any(text.problem for text in self._texts.values())  # then the node may have all its claims

    def plan_annotation(self, key: str, pools: list[SubnetPool], claims: list[NodeSubnet]) -> None:
        """Plan one annotation: `pools` write to it, `claims` are the node's own that name it."""
        serving = [pool for pool in pools if pool.serves(self.node)]
        text = self.node.annotations.get(key)
        if text is None and not serving and not claims:
            return
        items, problem = self._texts[key]
        if problem:
            self._conflict(key, pools, UNREADABLE, f"annotation {key} of Node {self.node.name} is {text!r}: {problem}")
            for claim in claims:
                self._keep(claim)
            return
        coming = adoptable(self.node, self._texts[key], pools, self._ledger.claims)
        subnets = [item.block for item in items]
        for subnet in subnets:
            self._ledger.growth.returned.pop(subnet, None)  # the write was refused, or the node has got it again
        by_hand = [item for item in items if not self._is_ours(item, key, pools, coming.get(item.block))]
        # A person may have moved a subnet to another annotation; then that annotation's plan handles it.
        spare = [claim for claim in claims if claim.subnet not in self._has]
        missing = set() if by_hand else {block.cidr.version for pool in serving for block in pool.blocks} - {s.version for s in subnets}
        added = [taken for version in sorted(missing) if (taken := self._take(version, serving, items, key, spare))]
        kept = items
        if not by_hand:
            kept, more = self.agreement.grown(key, serving, items, partial(self._take, key=key, spare=spare))
            added += more
        for claim in claims if self._doubt else spare:
            if claim.subnet not in subnets and claim not in added:
                (self._keep if self._doubt else self._release)(claim)
        confirmed = [self._confirm_anew(claim, key) for claim in added]
        if all(confirmed) and (added or kept != items):
            there = [text.strip()] if kept == items and text and text.strip() else map(str, kept)
            self.values[key] = ",".join([*there, *map(self._written, added)])
            self._kept[key] = kept
            for subnet in set(subnets) - {item.block for item in kept}:
                self._ledger.growth.returned[subnet] = self.values[key] or ""

    def outcome(self) -> Outcome:
        """Return the writes and conflicts, after all annotations."""
        self.conflicts += reported(self._ledger, self.node, self._has)
        if self._kept or CLOSED in self.node.annotations:
            self.values |= note_closed(self.node, self._texts, self._kept)
        annotating = [Annotate(self.node, self.values, self.agreement.relied_on)] if self.values else []
        if self.agreement.again is not None:
            self._look_again(self.agreement.again)
        return Outcome([*self.writes, *self.agreement.demand(), *annotating], self.conflicts, self.again)

    def _written(self, claim: NodeSubnet) -> str:
        """Return the annotation's text for a claim."""
        return str(self._ledger.pools[claim.pool].item(claim.subnet) or claim.subnet)

    def _is_ours(self, item: Item, key: str, pools: list[SubnetPool], pool: SubnetPool | None) -> bool:
        """Handle an item of the annotation, adopting it for `pool` if given; say whether the controller has written it."""
        subnet = item.block
        claim = self._ledger.claims.get(subnet)
        elsewhere = self._elsewhere(subnet, key)
        if claim is not None and claim.node == self.node.name and not elsewhere:
            self._confirm(claim, key)
            self._tell_of_form(item, key, [pool for pool in pools if pool.name == claim.pool])
            return not claim.adopted
        if self._ledger.space.is_open(subnet, self.node.name):
            self._look_again(self._now.steady + SETTLED_AFTER)
            return False
        rival = elsewhere or self._ledger.space.rival(subnet, self.node.name, *([] if pool else [key]))
        if rival is None and pool is not None:
            self._create(NodeSubnet(subnet, pool.name, key, self.node.name, self.node.uid, adopted=True))
        elif pools:
            self._tell(item, key, pools, rival)
        return False

    def _tell_of_form(self, item: Item, key: str, pools: list[SubnetPool]) -> bool:
        """Report an item if the pools have its subnet with another network or gateway."""
        of = [pool for pool in pools if pool.item(item.block)]
        if not of or any(block.writes(item) for pool in of for block in pool.blocks):
            return False
        said = f"'{item}' in annotation {key} of Node {self.node.name}"
        self._conflict(key, of, DIFFERENT, f"{said} is '{of[0].item(item.block)}' by {_names(of)}")
        return True

    def _tell(self, item: Item, key: str, pools: list[SubnetPool], rival: str | None) -> None:
        """Report why an item is not taken over."""
        subnet = item.block
        of = [pool for pool in pools if any(block.holds(subnet) for block in pool.blocks)]
        what = f"{subnet} in annotation {key} of Node {self.node.name}"
        if rival is not None:
            self._conflict(key, of or pools, OVERLAP, f"{what} overlaps with what {rival} has")
        elif not of:
            self._conflict(key, pools, OUTSIDE, f"{what} is in no SubnetPool with this annotation")
        elif not any(block.cuts(subnet) for pool in of for block in pool.blocks):
            sizes = sorted({f"/{block.node_prefix}" for pool in of for block in pool.blocks if block.holds(subnet)})
            self._conflict(key, of, FOREIGN, f"{what} is not taken over: a node gets a {' or a '.join(sizes)} of {_names(of)}")
        elif self._tell_of_form(item, key, of):
            pass
        elif not any(pool.serves(self.node) for pool in of):
            self._conflict(key, of, FOREIGN, f"{what} is not taken over: {_names(of)} does not serve this node")
        else:
            self._conflict(key, of, FOREIGN, f"{what} is not taken over: the node has one of {_names(of)} already")

    def _elsewhere(self, subnet: Subnet, key: str) -> str | None:
        """Return another annotation of the node that has a claim on addresses of a subnet and still holds them."""
        for held, claim in self._ledger.claims.overlapping(subnet):
            other = claim.annotation
            if claim.node == self.node.name and other != key and other in self._texts and held in self._texts[other].subnets:
                return f"its annotation {other}"
        return None

    def _take(
        self, version: int, pools: list[SubnetPool], items: tuple[Item, ...], key: str, spare: Iterable[NodeSubnet]
    ) -> NodeSubnet | None:
        """Return a claim of a family for the node, beside the `items` of its annotation: an existing one, or a new one."""
        pools = [pool for pool in pools if self._is_open(pool)]
        taken = {item.block for item in items}
        # Not a claim of a pool that no longer serves the node or no longer offers the subnet: so a node moves to another subnet.
        serving = {pool.name for pool in pools}
        for claim in spare:
            if (
                claim.subnet.version == version
                and claim.pool in serving
                and claim.subnet not in self._has
                and claim.subnet not in taken
                and not self._is_outside_pool(claim)
                and not self._ledger.is_lost(claim.subnet, key, self.node.name)
            ):
                return claim
        offering = [pool for pool in pools if any(block.cidr.version == version for block in pool.blocks)]
        for pool in offering:
            subnet = self._ledger.space.lowest_free(pool, version, lambda item: not items or fits(items, item))
            if subnet is not None:
                claim = NodeSubnet(subnet, pool.name, key, self.node.name, self.node.uid)
                self._ledger.enter(claim)
                return claim
        self.waits_for.update(pool.name for pool in offering)
        return None

    def _is_open(self, pool: SubnetPool) -> bool:
        """Say whether a pool gives subnets now: one that grows waits for the nodes' reports."""
        opens = self._ledger.growth.open_at
        if not pool.growth.min_free or opens <= self._now.steady:
            return True
        if opens < inf:
            self._look_again(opens)
        return False

    def _is_outside_pool(self, claim: NodeSubnet) -> bool:
        return claim.subnet in self._ledger.outside_pool.get(claim.pool, ())

    def _create(self, claim: NodeSubnet) -> None:
        self._ledger.enter(claim)
        self.writes.append(CreateClaim(claim))

    def _confirm(self, claim: NodeSubnet, key: str) -> bool:
        """Say whether the API server has the claim as it should be; else plan the write."""
        wanted = claim._replace(node_uid=self.node.uid, annotation=key, released=None)
        if not claim.uid:
            self.writes.append(CreateClaim(wanted))
        elif wanted != claim:
            self.writes.append(UpdateClaim(wanted))
        else:
            return True
        return False

    def _confirm_anew(self, claim: NodeSubnet, key: str) -> bool:
        """Confirm a claim before it is annotated: our copy may be old, and another controller may be deleting it."""
        if not self._confirm(claim, key):
            return False
        if not self._ledger.recent_writes.cover(claim.subnet, self._now.steady):
            self.writes.append(UpdateClaim(claim))  # unchanged: the API server refuses it if our copy is old
            return False
        return True

    def _keep(self, claim: NodeSubnet) -> None:
        """Handle a claim that the node may have: it is not released."""
        if claim.uid:
            self._confirm(claim, claim.annotation)
        else:
            self._ledger.withdraw(claim)

    def _release(self, claim: NodeSubnet) -> None:
        """Handle a claim that the node neither has nor needs: write the time of its release, and delete it later."""
        if not claim.uid:
            self._ledger.withdraw(claim)
            return
        agreed = self.agreement.releases(claim)
        if agreed is False:
            self._keep(claim)
            return
        report = self.agreement.report if agreed else None
        after = RETURNED_AFTER if agreed and self.agreement.is_returned(claim) else self._ledger.reclaim_after(claim.pool)
        write, left = reclaim(self._ledger, claim, self._now, after, orphan=False, report=report)
        self.writes += write
        if left > 0:
            self._look_again(self._now.steady + left)

    def _look_again(self, when: float) -> None:
        self.again = when if self.again is None else min(self.again, when)

    def _conflict(self, key: str, pools: Iterable[SubnetPool], reason: str, message: str) -> None:
        names = tuple(pool.name for pool in pools)
        self.conflicts.append(Conflict(self.node.name, self.node.uid, key, reason, message, names))


def _names(pools: Iterable[SubnetPool]) -> str:
    return "SubnetPool " + ", ".join(pool.name for pool in pools)


def reclaim(
    ledger: Ledger, claim: NodeSubnet, now: Now, after: float, *, orphan: bool, report: AgentReport | None = None
) -> tuple[list[Write], float]:
    """Mark a claim as released, or delete it `after` seconds later; return the writes and the seconds left."""
    if claim.released is None:
        return [UpdateClaim(claim._replace(released=now.wall))], after
    left = ledger.released.left(claim, after, now)
    return [DeleteClaim(claim, orphan, report)] if left <= 0 else [], left


def plan_departed(ledger: Ledger, claims: Iterable[NodeSubnet], now: Now) -> Outcome:
    """Plan the release of a deleted node's claims."""
    writes: list[Write] = []
    waits: list[float] = []
    for claim in claims:
        write, left = reclaim(ledger, claim, now, ledger.reclaim_after(claim.pool), orphan=True)
        writes += write
        waits += [left] if left > 0 else []
    return Outcome(writes, [], now.steady + min(waits) if waits else None)
