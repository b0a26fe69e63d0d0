# SPDX-License-Identifier: Apache-2.0
"""Maps: a subnet as cells of one or more addresses, and a pool as cells of one or more nodes' subnets. No I/O.

A large subnet is shown only up to its last address in use: a /64 has too many free addresses.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.address import BITS, Address
from kubenode.ipam.ranges import Subnet
from kubenode.ipam.search import segments_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from kubenode.ipam.ranges import Range
    from kubenode.pools.blocks import Block
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import SubnetPool


SMALLEST = 8  # bits of the smallest part shown: 256 addresses


class Kind(Enum):
    """The kind of an address, or of a node's subnet. A block is FREE or HELD, by the share in use, or has the kind of the worst in it."""

    FREE = "free"
    HELD = "held"
    LEAKED = "leaked?"
    RESTING = "rests for a pod"
    GATEWAY = "gateway"
    EXCLUDED = "excluded"
    OUTSIDE = "not to be given"
    RELEASED = "waits to be free"
    CONFLICT = "in conflict"


class Cell(NamedTuple):
    """A cell that begins at `first`: `size` addresses are usable or held, `held` of them are held."""

    first: Address
    kind: Kind
    held: int
    size: int

    @property
    def part(self) -> float:
        """The share that is held, 0 to 1."""
        return self.held / self.size if self.size else 0.0


class Picture(NamedTuple):
    """A map. `shown` is the beginning of `subnet` that contains everything in use; a cell has `block` addresses.

    `total` is the number of usable addresses. `unit`: the words for one and for many of them.
    """

    subnet: Subnet
    shown: Subnet
    block: int
    cells: list[Cell]
    total: int
    unit: tuple[str, str] = ("an address", "addresses")


def draw(ranges: Sequence[Range], exclude: Collection[Subnet], held: Mapping[Address, Kind], most: int) -> Picture:
    """Return the map of the ranges in one window, with up to `most` cells, a power of two; `held`: the kind of each address."""
    subnet = window(ranges[0])
    numbers = sorted(address.number for address in held if subnet.holds(address))
    shown = _shown(subnet, numbers)
    bits = BITS[subnet.version] - shown.prefix
    block = max(1, (1 << bits) // most)
    segments = sorted(segment for one in ranges if not one.closing for segment in segments_of(one, exclude))
    if block == 1:
        kinds = {address.number: kind for address, kind in held.items() if address.version == subnet.version}
        gateways = {one.gateway.number for one in ranges if one.gateway}
        cells = [_address(Address(subnet.version, n), kinds, gateways, segments, exclude) for n in range(shown.number, shown.last + 1)]
    else:
        cells = [_block(Address(subnet.version, n), block, numbers, segments) for n in range(shown.number, shown.last + 1, block)]
    return Picture(subnet, shown, block, cells, sum(last - first + 1 for first, last in segments))


def window(range_: Range) -> Subnet:
    """Return the part of a subnet to map: of a large subnet that nodes share, the block that contains the range."""
    subnet = range_.subnet
    if range_.is_whole or BITS[subnet.version] - subnet.prefix <= SMALLEST:
        return subnet
    bits = (range_.start ^ range_.end).bit_length()
    return Subnet(subnet.version, range_.start >> bits << bits, BITS[subnet.version] - bits)


def _shown(subnet: Subnet, numbers: Sequence[int]) -> Subnet:
    farthest = numbers[-1] - subnet.number if numbers else 0
    bits = min(max(farthest.bit_length(), SMALLEST), BITS[subnet.version] - subnet.prefix)
    return Subnet(subnet.version, subnet.number, BITS[subnet.version] - bits)


def _address(
    address: Address,
    taken: Mapping[int, Kind],
    gateways: Collection[int],
    segments: Iterable[tuple[int, int]],
    exclude: Iterable[Subnet],
) -> Cell:
    number = address.number
    if number in taken:
        return Cell(address, taken[number], 1, 1)
    if number in gateways:
        return Cell(address, Kind.GATEWAY, 0, 0)
    if any(start <= number <= end for start, end in segments):
        return Cell(address, Kind.FREE, 0, 1)
    return Cell(address, Kind.EXCLUDED if any(one.holds(address) for one in exclude) else Kind.OUTSIDE, 0, 0)


def _block(first: Address, block: int, numbers: Sequence[int], segments: Iterable[tuple[int, int]]) -> Cell:
    start, end = first.number, first.number + block
    held = bisect_left(numbers, end) - bisect_left(numbers, start)
    size = sum(max(0, min(end - 1, last) - max(start, begin) + 1) for begin, last in segments)
    kind = Kind.HELD if held else Kind.FREE if size else Kind.OUTSIDE
    return Cell(first, kind, held, max(size, held))


UNIT = ("a node's subnet", "nodes' subnets")


def draw_pool(ledger: Ledger, pool: SubnetPool, block: Block, most: int) -> tuple[Picture, dict[Address, str]]:
    """Return the map, with up to `most` cells, a power of two, and the holder of each subnet in use."""
    cidr, host = block.cidr, BITS[block.cidr.version] - block.node_prefix
    taken = list(_taken(ledger, pool, block))
    farthest = max((last for _, last, _, _ in taken), default=0)
    bits = min(max(farthest.bit_length(), SMALLEST), block.node_prefix - cidr.prefix)
    each = max(1, (1 << bits) // most)
    counts: list[dict[Kind, int]] = [{} for _ in range((1 << bits) // each)]
    excluded = [(*_span(block, subnet), Kind.EXCLUDED, "") for subnet in block.exclude]
    for first, last, kind, _ in [*excluded, *taken]:
        for index in range(first // each, min(last // each, len(counts) - 1) + 1):
            start = index * each
            counts[index][kind] = counts[index].get(kind, 0) + min(last, start + each - 1) - max(first, start) + 1
    cells = [_cell(Address(cidr.version, cidr.number + (index * each << host)), each, count) for index, count in enumerate(counts)]
    names = {Address(cidr.version, cidr.number + (first << host)): who for first, _, _, who in taken}
    total = block.total - sum(last - first + 1 for first, last, _, _ in excluded)
    return Picture(cidr, Subnet(cidr.version, cidr.number, block.node_prefix - bits), each, cells, total, UNIT), names


def _cell(first: Address, each: int, count: dict[Kind, int]) -> Cell:
    size = max(0, each - count.get(Kind.EXCLUDED, 0))
    held = sum(number for kind, number in count.items() if kind is not Kind.EXCLUDED)
    if not held:
        return Cell(first, Kind.FREE if size else Kind.EXCLUDED, 0, size)
    worst = next(kind for kind in (Kind.CONFLICT, Kind.RELEASED, Kind.HELD) if kind in count)
    return Cell(first, worst, held, max(size, held))


def _span(block: Block, subnet: Subnet) -> tuple[int, int]:
    """Return the numbers of the first and the last node's subnet that overlap this one."""
    host = BITS[block.cidr.version] - block.node_prefix
    return max(0, subnet.number - block.cidr.number) >> host, min(subnet.last, block.cidr.last) - block.cidr.number >> host


def _taken(ledger: Ledger, pool: SubnetPool, block: Block) -> Iterator[tuple[int, int, Kind, str]]:
    """Yield the taken parts of a network: first and last number, kind, and holder."""
    for subnet, claim in ledger.claims.overlapping(block.cidr):
        who = f"{subnet} of Node {claim.node}"
        if not block.offers(subnet):
            yield *_span(block, subnet), Kind.CONFLICT, f"{who}, which the pool does not offer"
        elif claim.released is not None:
            yield *_span(block, subnet), Kind.RELEASED, f"{who}, which no longer has it"
        else:
            yield *_span(block, subnet), Kind.HELD, who
    for subnet, nodes in ledger.space.unclaimed(block.cidr, pool.annotation):
        yield *_span(block, subnet), Kind.CONFLICT, f"{subnet} in an annotation of Node {', '.join(sorted(nodes))}, without a NodeSubnet"
