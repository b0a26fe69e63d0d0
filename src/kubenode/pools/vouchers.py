"""PURE. What the API server has just taken from us, and so is as we know it, whatever our watch is late with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubenode.ipam.ranges import Subnet

GOOD_FOR = 10.0  # seconds; less than any `reclaimAfter` that makes sense
MOST = 1000  # as many claims are not under way at once


class Vouchers:
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
