"""PURE. One node's turn: its annotations, its claims and the pools that serve it, settled one annotation after the other.

Or what is left of a node that is gone: its claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.controller.records import NodeSubnet, noted
from kubenode.controller.writes import (
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
from kubenode.ipam.ranges import RangeError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kubenode.controller.pools import Ledger
    from kubenode.controller.records import Node, SubnetPool
    from kubenode.controller.writes import Write
    from kubenode.ipam.ranges import Subnet


SETTLED_AFTER = 1.0  # seconds; by then the API server has said whether a claim can be created


class Turn:
    """What a node needs. `keys`: the annotations that pools write to, or wrote to before they were deleted.

    `values`: what its annotations are to be; they are written once all claims of them are there.
    """

    def __init__(self, ledger: Ledger, node: Node, keys: Collection[str], now: float) -> None:
        self.node = node
        self.writes: list[Write] = []
        self.conflicts: list[Conflict] = []
        self.values: dict[str, str | None] = {}
        self.waits_for: set[str] = set()
        self.again: float | None = None
        self._ledger = ledger
        self._now = now
        self._keys = keys
        self._has = {subnet for key in keys for subnet in self._readable(key)}

    def settle(self, key: str, pools: list[SubnetPool], claims: list[NodeSubnet]) -> None:
        """Settle one annotation: `pools` write to it, `claims` are the node's own of these pools, or of one that was deleted."""
        serving = [pool for pool in pools if not pool.problems and pool.selector.matches(self.node.labels)]
        text = self.node.annotations.get(key)
        if text is None and not serving and not claims:
            return
        try:
            subnets = noted(text)
        except RangeError as error:
            # What the node has cannot be told, so nothing that it may have is touched.
            self._conflict(key, pools, UNREADABLE, f"annotation {key} of Node {self.node.name} is {text!r}: {error}")
            return
        by_hand = [subnet for subnet in subnets if not self._is_ours(subnet, key, pools)]
        # A pool may have moved on to another annotation, while the one before still holds a subnet, and belongs to another pool.
        spare = [claim for claim in claims if claim.subnet not in subnets and claim.subnet not in self._has]
        missing = set() if by_hand else {block.cidr.version for pool in serving for block in pool.blocks} - {s.version for s in subnets}
        added = [claim for version in sorted(missing) if (claim := self._take(version, key, serving, spare))]
        for claim in spare:
            if claim not in added:
                self._release(claim)
        confirmed = [self._confirm_anew(claim, key) for claim in added]
        if confirmed and all(confirmed):
            self.values[key] = ",".join([*([text.strip()] if text and text.strip() else []), *(str(claim.subnet) for claim in added)])

    def outcome(self) -> Outcome:
        """Return what there is to do once all is settled."""
        annotating = [Annotate(self.node, self.values)] if self.values else []
        return Outcome([*self.writes, *annotating], self.conflicts, self.again)

    def _is_ours(self, subnet: Subnet, key: str, pools: list[SubnetPool]) -> bool:
        """See to a subnet of the annotation; tell whether the controller has written it."""
        claim = self._ledger.claims.get(subnet)
        elsewhere = self._elsewhere(subnet, key)
        if claim is not None and claim.node == self.node.name and not elsewhere:
            self._confirm(claim, key)
            return not claim.adopted
        if self._ledger.space.is_open(subnet, self.node.name):
            self._look_again(self._now + SETTLED_AFTER)
            return False
        rival = elsewhere or self._ledger.space.rival(subnet, self.node.name)
        pool = next((pool for pool in pools if any(block.holds(subnet) for block in pool.blocks)), None)
        if rival is not None and pools:
            message = f"{subnet} in annotation {key} of Node {self.node.name} overlaps with what {rival} has"
            self._conflict(key, [pool] if pool else pools, OVERLAP, message)
        elif pool is not None:
            self._create(NodeSubnet(subnet, pool.name, key, self.node.name, self.node.uid, adopted=True))
        elif pools:
            message = f"{subnet} in annotation {key} of Node {self.node.name} is of no SubnetPool with this annotation"
            self._conflict(key, pools, OUTSIDE, message)
        return False

    def _elsewhere(self, subnet: Subnet, key: str) -> str | None:
        """Return another annotation of the node that has claimed addresses of a subnet and still holds them."""
        for held, claim in self._ledger.claims.overlapping(subnet):
            other = claim.annotation
            if claim.node == self.node.name and other != key and other in self._keys and held in self._readable(other):
                return f"its annotation {other}"
        return None

    def _readable(self, key: str) -> tuple[Subnet, ...]:
        try:
            return noted(self.node.annotations.get(key))
        except RangeError:
            return ()

    def _take(self, version: int, key: str, pools: list[SubnetPool], spare: Iterable[NodeSubnet]) -> NodeSubnet | None:
        """Return a claim of a family for the node: one that it has already, or a new one."""
        # Not those of a pool that does not serve it any more, nor what it does not offer any more: that is how a node moves on.
        serving = {pool.name for pool in pools}
        there = [claim for claim in spare if claim.subnet.version == version and claim.pool in serving and not self._is_misplaced(claim)]
        if there:
            return there[0]
        offering = [pool for pool in pools if any(block.cidr.version == version for block in pool.blocks)]
        for pool in offering:
            subnet = self._ledger.space.lowest_free(pool, version)
            if subnet is not None:
                claim = NodeSubnet(subnet, pool.name, key, self.node.name, self.node.uid)
                self._ledger.enter(claim)
                return claim
        self.waits_for.update(pool.name for pool in offering)
        return None

    def _is_misplaced(self, claim: NodeSubnet) -> bool:
        return claim.subnet in self._ledger.misplaced.get(claim.pool, ())

    def _create(self, claim: NodeSubnet) -> None:
        self._ledger.enter(claim)
        self.writes.append(CreateClaim(claim))

    def _confirm(self, claim: NodeSubnet, key: str) -> bool:
        """Tell whether the API server has the claim as it has to be; else see to it."""
        wanted = claim._replace(node_uid=self.node.uid, annotation=key, released=None)
        if not claim.uid:
            self.writes.append(CreateClaim(wanted))
        elif wanted != claim:
            self.writes.append(UpdateClaim(wanted))
        else:
            return True
        return False

    def _confirm_anew(self, claim: NodeSubnet, key: str) -> bool:
        """Confirm a claim that is about to be annotated: what is known of it may be old, and another controller may be taking it back."""
        if not self._confirm(claim, key):
            return False
        if not self._ledger.vouchers.cover(claim.subnet, self._now):
            self.writes.append(UpdateClaim(claim))  # as it is: refused unless it is
            return False
        return True

    def _release(self, claim: NodeSubnet) -> None:
        """See to a claim that the node does not have, and does not need: note since when, and forget it once that is long enough."""
        if not claim.uid:
            self._ledger.withdraw(claim)
            return
        due = (self._now if claim.released is None else claim.released) + self._ledger.reclaim_after(claim.pool)
        if claim.released is None:
            self.writes.append(UpdateClaim(claim._replace(released=self._now)))
        elif due <= self._now:
            self.writes.append(DeleteClaim(claim, orphan=False))
            return
        self._look_again(due)

    def _look_again(self, when: float) -> None:
        self.again = when if self.again is None else min(self.again, when)

    def _conflict(self, key: str, pools: Iterable[SubnetPool], reason: str, message: str) -> None:
        names = tuple(pool.name for pool in pools)
        self.conflicts.append(Conflict(self.node.name, self.node.uid, key, reason, message, names))


def leave(ledger: Ledger, claims: Iterable[NodeSubnet], now: float) -> Outcome:
    """See to the claims of a node that is gone: note since when, and forget them once that is long enough."""
    writes: list[Write] = []
    dues: list[float] = []
    for claim in claims:
        due = (now if claim.released is None else claim.released) + ledger.reclaim_after(claim.pool)
        if claim.released is None:
            writes.append(UpdateClaim(claim._replace(released=now)))
        elif due <= now:
            writes.append(DeleteClaim(claim, orphan=True))
        dues.append(due)
    return Outcome(writes, [], min((due for due in dues if due > now), default=None))
