# SPDX-License-Identifier: Apache-2.0
"""PURE. Growth of a node's part of a pool with use, and its return.

A change of an annotation here needs the agreement of the node's agent: its report, as the API server has it now, is about the present
text. So the agent has seen each text that the controller wrote, and no report about an earlier, equal text counts. A block leaves the
annotation only if the agent gives nothing of it and nothing is in use, and its claim is deleted only if the agent knows that it is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.ranges import RangeError
from kubenode.nodes.items import parse
from kubenode.pools.records import Growth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from kubenode.ipam.ranges import Subnet
    from kubenode.nodes.items import Item
    from kubenode.pools.records import SubnetPool
    from kubenode.pools.reports import ReportedNetwork

# Seconds after a start, or after etcd went back in time, before a growing pool gives anything: meanwhile agents report what they use.
HOLD = 60.0
DOUBT = 600.0  # seconds for which a block that another node uses is then taken from its holder
MARGIN = 2  # times `min_free` addresses are free without a block that is taken back, so that it is not needed again at once


class Progress:
    """Facts that only the memory of this controller has. One that starts has none of them, which is safe."""

    def __init__(self) -> None:
        self.reporting = False  # whether reports are known
        self.open_at = 0.0  # by the steady clock
        self.returned: dict[Subnet, str] = {}  # blocks that were taken out by agreement: the annotation's text without it
        self._idle: dict[str, dict[tuple[str, int], tuple[str, float]]] = {}  # node; annotation and family: its text, and since when

    def pause(self, now: float) -> None:
        """Give nothing for a while: we have just started, or etcd was restored, and nodes may use what no object says."""
        self.open_at = now + HOLD
        self.returned.clear()
        self._idle.clear()

    def is_doubtful(self, now: float) -> bool:
        """Say whether the annotation of one node may have a block that another node uses."""
        return now < self.open_at - HOLD + DOUBT

    def left(self, name: str, where: tuple[str, int], text: str, after: float, now: float) -> float:
        """Return the seconds until a node has not needed a block for `after`, with the same annotation."""
        mine = self._idle.setdefault(name, {})
        if mine.get(where, ("", 0.0))[0] != text:
            mine[where] = (text, now)
        return mine[where][1] + after - now

    def needs(self, name: str, where: tuple[str, int]) -> None:
        """Note that a node needs all its blocks."""
        if mine := self._idle.get(name):
            mine.pop(where, None)

    def forget(self, name: str) -> None:
        """Forget a node."""
        self._idle.pop(name, None)


class GrowthStep(NamedTuple):
    """The next items of a family. `lacks`: the addresses that further blocks should have; `spare`: a block to close when it is due."""

    items: tuple[Item, ...]
    lacks: int = 0
    spare: Item | None = None


class Family(NamedTuple):
    """The present items of one family of an annotation, and the rules for it. `ours`: the blocks that growing pools gave.

    `lost`: blocks that another node uses.
    """

    items: tuple[Item, ...]
    growth: Growth
    ours: AbstractSet[Subnet]
    lost: AbstractSet[Subnet]

    def free(self, uses: Iterable[ReportedNetwork], items: Iterable[Item]) -> int:
        """Return the free addresses of some items, in the network that has fewest."""
        blocks = [item.block for item in items if not item.closing and item.block not in self.lost]
        return min(sum(count.free for block in blocks if (count := use.item(block))) for use in uses)

    def step(self, uses: Sequence[ReportedNetwork]) -> GrowthStep:
        """Return what is due: open closing blocks or ask for more, else remove what is returned, and name a block to give back."""
        lacks = self.growth.min_free - self.free(uses, self.items)
        if lacks > 0:
            items, lacks = self._reopened(lacks)
            return GrowthStep(self._without_lost(items, uses), max(0, lacks))
        kept = tuple(item for item in self.items if not self._is_returned(item, uses))
        items = self._without_lost(self._exchanged(kept or self.items[:1], uses), uses)
        return GrowthStep(items, spare=self._spare(items, uses))

    def _reopened(self, lacks: int) -> tuple[tuple[Item, ...], int]:
        """Return the items with as many of the closing ones opened as the node needs, newest first, and what it still lacks."""
        found = list(self.items)
        for index in range(len(found) - 1, -1, -1):
            item = found[index]
            if lacks > 0 and item.closing and item.block in self.ours - self.lost:
                found[index] = item._replace(closing=False)
                lacks -= capacity(item)
        return tuple(found), lacks

    def _exchanged(self, items: tuple[Item, ...], uses: Sequence[ReportedNetwork]) -> tuple[Item, ...]:
        """Return the items, with a closing one that pods keep opened if an empty one can be given back in its place."""
        opened = [item for item in items if not item.closing]
        empty = [item for item in opened if item.block in self.ours and not _used(item, uses)]
        for item in items:
            if item.closing and item.block in self.ours - self.lost and _used(item, uses):
                room = min(count.total - count.used if (count := use.item(item.block)) else 0 for use in uses)
                if any(self._has_margin(uses, [other for other in opened if other != one], room) for one in empty):
                    return tuple(item._replace(closing=False) if other == item else other for other in items)
        return items

    def _without_lost(self, items: tuple[Item, ...], uses: Sequence[ReportedNetwork]) -> tuple[Item, ...]:
        """Return the items, with those closed that another node uses, and removed once they are returned."""
        lost = self.lost & self.ours
        kept = tuple(item for item in items if item.block not in lost or not self._is_returned(item, uses)) or items[:1]
        return tuple(item._replace(closing=True) if item.block in lost else item for item in kept)

    def _spare(self, items: tuple[Item, ...], uses: Sequence[ReportedNetwork]) -> Item | None:
        """Return the item to give back: the newest of the least used ones, if the others have room for its pods, too. None without."""
        opened = [item for item in items if not item.closing]
        found = [item for item in reversed(opened) if item.block in self.ours]
        for item in sorted(found, key=lambda item: _used(item, uses)):
            if self._has_margin(uses, [other for other in opened if other != item], -_used(item, uses)):
                return item  # so it is not the last one
        return None

    def _has_margin(self, uses: Sequence[ReportedNetwork], items: Iterable[Item], more: int = 0) -> bool:
        return self.free(uses, items) + more >= MARGIN * self.growth.min_free

    def _is_returned(self, item: Item, uses: Sequence[ReportedNetwork]) -> bool:
        return item.closing and item.block in self.ours and all((count := use.item(item.block)) and count.is_given_back for use in uses)


def _used(item: Item, uses: Iterable[ReportedNetwork]) -> int:
    """Return the addresses in use of an item, in the network that has most."""
    return max(count.used if (count := use.item(item.block)) else 0 for use in uses)


def rules(pools: Iterable[SubnetPool]) -> dict[int, Growth]:
    """Return the rules of growing pools that share an annotation, by family: of two the more generous."""
    found: dict[int, Growth] = {}
    for pool in pools:
        for version in {block.cidr.version for block in pool.blocks} if pool.growth.min_free else ():
            one, other = pool.growth, found.get(version, pool.growth)
            found[version] = Growth(
                max(one.min_free, other.min_free), max(one.max_blocks, other.max_blocks), max(one.shrink_after, other.shrink_after)
            )
    return found


def capacity(item: Item) -> int:
    """Return the number of addresses for pods."""
    gateway = item.gateway
    inside = gateway is not None and gateway.version == item.version and item.start <= gateway.number <= item.end
    return item.end - item.start + 1 - inside


def fits(items: Iterable[Item], item: Item) -> bool:
    """Say whether an annotation may have one more item: none has an address that another one keeps."""
    try:
        parse(",".join(map(str, [*items, item])))
    except RangeError:
        return False
    return True
