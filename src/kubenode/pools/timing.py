"""PURE. Facts that hold for a time: a claim is released, or the API server has just taken it from us.

Spans are counted by a steady clock: a stamp alone is the word of a clock that may have been wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kubenode.ipam.ranges import Subnet
    from kubenode.pools.records import NodeSubnet


class Now(NamedTuple):
    """The same moment by two clocks, in seconds: `wall` is what is written for others to read, `steady` is ours and never set."""

    wall: float
    steady: float


class Released:
    """When a claim was first seen as it is, by subnet."""

    def __init__(self) -> None:
        self._seen: dict[Subnet, tuple[NodeSubnet, float]] = {}

    def left(self, claim: NodeSubnet, after: float, now: Now) -> float:
        """Return for how many seconds a claim that is released is still its node's: until both clocks have counted `after`."""
        seen, since = self._seen.get(claim.subnet, (None, 0.0))
        if seen != claim:
            since = now.steady
            self._seen[claim.subnet] = (claim, since)
        stamped = now.wall if claim.released is None else claim.released
        return max(since + after - now.steady, stamped + after - now.wall)

    def forget(self, subnet: Subnet) -> None:
        self._seen.pop(subnet, None)


GOOD_FOR = 10.0  # seconds; less than any `reclaimAfter` that makes sense
MOST = 1000  # as many claims are not under way at once


class RecentWrites:
    """The API server's word for claims, by subnet."""

    def __init__(self) -> None:
        self._since: dict[Subnet, float] = {}

    def add(self, subnet: Subnet, now: float) -> None:
        """Take note that the API server has just taken this claim."""
        self._since.pop(subnet, None)
        self._since[subnet] = now
        if len(self._since) > MOST:
            del self._since[next(iter(self._since))]  # the oldest; at worst it is asked for again

    def cover(self, subnet: Subnet, now: float) -> bool:
        return 0 <= now - self._since.get(subnet, -GOOD_FOR) < GOOD_FOR
