"""PURE. Since when claims are released, by a clock that nobody sets: a stamp alone is the word of a clock that may have been wrong."""

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
