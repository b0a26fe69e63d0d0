# SPDX-License-Identifier: Apache-2.0
"""PURE. Free space of pools: the lowest free subnet, how many are free, and who holds the rest. Subnets are found by what they overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

from kubenode.ipam.address import BITS
from kubenode.ipam.ranges import Subnet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kubenode.nodes.items import Item
    from kubenode.pools.blocks import Block
    from kubenode.pools.records import NodeSubnet, SubnetPool


T = TypeVar("T")
TRIES = 256  # free subnets; few of them have an address that another item of an annotation keeps


class _Level(Generic[T]):
    """The subnets of one family and one prefix length. Few lengths are in use, so a search through all lengths is cheap."""

    __slots__ = ("numbers", "values")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.values: dict[int, T] = {}


class SubnetMap(Generic[T]):
    """A mapping from subnets to values that finds overlaps."""

    def __init__(self) -> None:
        self._levels: dict[tuple[int, int], _Level[T]] = {}

    def __iter__(self) -> Iterator[tuple[Subnet, T]]:
        for (version, prefix), level in self._levels.items():
            for number in level.numbers:
                yield Subnet(version, number, prefix), level.values[number]

    def __len__(self) -> int:
        return sum(len(level.values) for level in self._levels.values())

    def get(self, subnet: Subnet) -> T | None:
        """Return the value of exactly this subnet, or None."""
        level = self._levels.get((subnet.version, subnet.prefix))
        return level.values.get(subnet.number) if level else None

    def put(self, subnet: Subnet, value: T) -> None:
        """Add a subnet, or replace its value."""
        level = self._levels.setdefault((subnet.version, subnet.prefix), _Level())
        if subnet.number not in level.values:
            insort(level.numbers, subnet.number)
        level.values[subnet.number] = value

    def remove(self, subnet: Subnet) -> T | None:
        """Remove a subnet and return its value; None if it is missing."""
        level = self._levels.get((subnet.version, subnet.prefix))
        if level is None or subnet.number not in level.values:
            return None
        del level.numbers[bisect_left(level.numbers, subnet.number)]
        value = level.values.pop(subnet.number)
        if not level.values:
            del self._levels[subnet.version, subnet.prefix]
        return value

    def overlapping(self, subnet: Subnet) -> Iterator[tuple[Subnet, T]]:
        """Yield all subnets that overlap `subnet` or equal it, with their values."""
        for (version, prefix), level in self._levels.items():
            if version != subnet.version:
                continue
            if prefix <= subnet.prefix:
                host = BITS[version] - prefix
                number = subnet.number >> host << host
                if number in level.values:
                    yield Subnet(version, number, prefix), level.values[number]
            else:
                for number in level.numbers[bisect_left(level.numbers, subnet.number) : bisect_right(level.numbers, subnet.last)]:
                    yield Subnet(version, number, prefix), level.values[number]

    def within(self, subnet: Subnet) -> int:
        """Count the subnets that lie entirely in `subnet`."""
        return sum(
            bisect_right(level.numbers, subnet.last) - bisect_left(level.numbers, subnet.number)
            for (version, prefix), level in self._levels.items()
            if version == subnet.version and prefix >= subnet.prefix
        )


def holder_of(node: str) -> str:
    """Return a node's name as a holder, and in messages."""
    return f"Node {node}"


def node_of(holder: str) -> str:
    """Return the node's name of a holder."""
    return holder.removeprefix(holder_of(""))


EVERYWHERE = ""  # instead of an annotation: the subnet is taken in all pools


def outside(key: str) -> str:
    """Return the place, instead of an annotation, of what a report has outside of its items: addresses in use, however large it is."""
    return f"outside of {key}"


class Space:
    """The subnets that are not free: claims, and subnets held without a claim.

    `_unclaimed`: by annotation, with the holders. A subnet that is about to be claimed is taken EVERYWHERE. A subnet in conflict is taken
    only in the pools of its own annotation, and not in a network that it contains whole; but addresses in use are taken there, too.
    """

    def __init__(self, claims: SubnetMap[NodeSubnet]) -> None:
        self._claims = claims
        self._unclaimed: defaultdict[str, SubnetMap[set[str]]] = defaultdict(SubnetMap)
        self.overlaps: dict[str, list[str]] = {}  # pool: its overlaps with other pools, as messages
        self.blocked: dict[tuple[str, Block], str] = {}  # a pool and its block that gives no subnets: the reason
        self._lowest: dict[tuple[str, Block], int] = {}  # by annotation and network: nothing is free below

    def note(self, subnet: Subnet, holder: str, key: str = EVERYWHERE) -> None:
        """Add a holder without a claim."""
        holders = self._unclaimed[key].get(subnet)
        if holders is None:
            self._unclaimed[key].put(subnet, {holder})
        else:
            holders.add(holder)

    def forget(self, subnet: Subnet, holder: str, key: str = EVERYWHERE) -> None:
        """Remove a holder without a claim."""
        holders = self._unclaimed[key].get(subnet)
        if holders is not None:
            holders.discard(holder)
            if not holders:
                self._unclaimed[key].remove(subnet)

    def unclaimed(self, subnet: Subnet, *keys: str) -> Iterator[tuple[Subnet, set[str]]]:
        """Yield the subnets that overlap `subnet` and are held without a claim, everywhere or in the given annotations, with holders."""
        for key in (EVERYWHERE, *keys, *map(outside, keys)):
            yield from self._unclaimed[key].overlapping(subnet)

    def freed(self, subnet: Subnet) -> None:
        """Let the next search look at `subnet` again."""
        for (key, block), lowest in self._lowest.items():
            if block.cidr.overlaps(subnet):
                host = BITS[block.cidr.version] - block.node_prefix
                self._lowest[key, block] = min(lowest, max(block.cidr.number, subnet.number >> host << host))

    def pools_changed(self, pools: Iterable[SubnetPool]) -> None:
        """Recompute the overlaps of pools."""
        self._lowest = {}
        self.overlaps, self.blocked = {}, {}
        ordered = sorted(pools, key=lambda pool: (pool.created, pool.name))
        for index, younger in enumerate(ordered):
            for older in ordered[:index]:
                for mine in younger.blocks:
                    for other in older.blocks:
                        if mine.cidr.overlaps(other.cidr):
                            self._overlap(older, other, younger, mine)

    def _overlap(self, older: SubnetPool, other: Block, younger: SubnetPool, mine: Block) -> None:
        self.overlaps.setdefault(older.name, []).append(f"{other.cidr} overlaps {mine.cidr} of SubnetPool {younger.name}")
        self.overlaps.setdefault(younger.name, []).append(f"{mine.cidr} overlaps {other.cidr} of SubnetPool {older.name}")
        if mine.form != other.form:
            # Subnets of two lengths have two names, so the API server would not refuse the second of two that overlap.
            # And one pool would give the addresses that the other keeps for network and gateway.
            what = "nodePrefix" if mine.node_prefix != other.node_prefix else "cidr, shared or gateway"
            self.blocked[younger.name, mine] = (
                f"{mine.cidr} overlaps {other.cidr} of SubnetPool {older.name}, which is older and has another {what}: "
                f"it gives no subnets; make them equal, or choose another network"
            )

    def is_open(self, subnet: Subnet, node: str) -> bool:
        """Say whether a claim on `subnet` for another node is about to be created: the API server may still refuse it."""
        return any(claim.node != node and not claim.uid for _, claim in self._claims.overlapping(subnet))

    def rival(self, subnet: Subnet, node: str, *keys: str) -> str | None:
        """Return another holder of an address of `subnet` that has priority over `node`: it has a claim, or its name sorts first.

        Only conflicts in the annotations `keys` count.
        """
        for _, claim in self._claims.overlapping(subnet):
            if claim.node != node:
                return holder_of(claim.node)
        mine = holder_of(node)
        return min((holder for _, holders in self.unclaimed(subnet, *keys) for holder in holders if holder < mine), default=None)

    def lowest_free(self, pool: SubnetPool, version: int, fits: Callable[[Item], bool]) -> Subnet | None:
        """Return the lowest free subnet of the first block of a family that has one that `fits`."""
        for block in pool.blocks:
            if block.cidr.version == version and (pool.name, block) not in self.blocked:
                for subnet in islice(self._free_of(pool.annotation, block), TRIES):
                    if fits(block.item(subnet)):
                        return subnet
        return None

    def free(self, key: str, block: Block) -> int:
        """Count the free subnets of a block, for a pool with this annotation."""
        unit = BITS[block.cidr.version] - block.node_prefix
        spans = [
            (max(held.number, block.cidr.number) - block.cidr.number >> unit, min(held.last, block.cidr.last) - block.cidr.number >> unit)
            for held in self._taken(block.cidr, key, block)
        ]
        taken, end = 0, -1
        for first, last in sorted(spans):
            taken += max(0, last - max(first, end + 1) + 1)
            end = max(end, last)
        return block.total - taken

    def _free_of(self, key: str, block: Block) -> Iterator[Subnet]:
        """Yield the free subnets of a block."""
        size = 1 << BITS[block.cidr.version] - block.node_prefix
        number, is_lowest = self._lowest.get((key, block), block.cidr.number), True
        while number <= block.cidr.last:
            subnet = Subnet(block.cidr.version, number, block.node_prefix)
            last = max((held.last for held in self._taken(subnet, key, block)), default=None)
            if last is None:
                if is_lowest:
                    self._lowest[key, block], is_lowest = number, False
                yield subnet
                last = number
            # A larger one ends at the end of a subnet; a smaller one takes the rest of its subnet with it.
            number = max(number + size, last + 1)
        if is_lowest:
            self._lowest[key, block] = number

    def _taken(self, subnet: Subnet, key: str, block: Block) -> Iterator[Subnet]:
        """Yield all that overlaps `subnet`, a part of a block of a pool with this annotation."""
        yield from (excluded for excluded in block.exclude if excluded.overlaps(subnet))
        yield from (held for held, _ in self._claims.overlapping(subnet))
        yield from (held for held, _ in self.unclaimed(subnet))
        yield from (held for held, _ in self._unclaimed[outside(key)].overlapping(subnet))
        yield from (held for held, _ in self._unclaimed[key].overlapping(subnet) if not block.is_covered_by(held))
