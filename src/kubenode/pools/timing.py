# SPDX-License-Identifier: Apache-2.0
"""PURE. Facts that hold for a time: a claim is released, or the API server has just accepted its write.

A steady clock counts the time: a stamp comes from a clock that may have been wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.records import NodeSubnet


class Now(NamedTuple):
    """The same moment by two clocks, in seconds: `wall` is written for others to read, `steady` is ours and never set."""

    wall: float
    steady: float


class Released:
    """Times when claims were first seen in their present state, by subnet."""

    def __init__(self) -> None:
        self._seen: dict[Subnet, tuple[NodeSubnet, float]] = {}

    def left(self, claim: NodeSubnet, after: float, now: Now) -> float:
        """Return the seconds for which a released claim still belongs to its node: until both clocks have counted `after`."""
        seen, since = self._seen.get(claim.subnet, (None, 0.0))
        if seen != claim:
            since = now.steady
            self._seen[claim.subnet] = (claim, since)
        stamped = now.wall if claim.released is None else claim.released
        return max(since + after - now.steady, stamped + after - now.wall)

    def forget(self, subnet: Subnet) -> None:
        """Remove a subnet, its claim being deleted."""
        self._seen.pop(subnet, None)


GOOD_FOR = 10.0  # seconds; less than any `reclaimAfter` that makes sense
# Seconds from the note of the release until the deletion, of a claim that its node's agent gave back. Another controller may just give it
# to the node again, and its last look at the claim was before that note: by then the annotation shows it.
RETURNED_AFTER = 2 * GOOD_FOR
MOST = 1000  # more than the writes in progress at any time


class RecentWrites:
    """Times of the API server's last accepted write of claims, by subnet."""

    def __init__(self) -> None:
        self._since: dict[Subnet, float] = {}

    def add(self, subnet: Subnet, now: float) -> None:
        """Note that the API server has just accepted a write of this claim."""
        self._since.pop(subnet, None)
        self._since[subnet] = now
        if len(self._since) > MOST:
            del self._since[next(iter(self._since))]  # the oldest; at worst it is confirmed again

    def cover(self, subnet: Subnet, now: float) -> bool:
        """Say whether the last write is recent enough to rely on."""
        return 0 <= now - self._since.get(subnet, -GOOD_FOR) < GOOD_FOR
