"""A subnet as cells, each an address or a block of them. No I/O.

Of a subnet that is larger than what is in use the beginning is shown that holds all of it: of a /64 nobody wants to see all the free ones.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.address import BITS, Address
from kubenode.ipam.ranges import Subnet
from kubenode.ipam.search import segments_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from kubenode.ipam.ranges import Range

SMALLEST = 8  # bits of the smallest part that is shown: 256 addresses


class Kind(Enum):
    """What an address is, or a node's subnet; a block is FREE or HELD, by how much of it is in use, or as the worst in it."""

    FREE = "free"
    HELD = "held"
    LEAKED = "leaked?"
    GATEWAY = "gateway"
    EXCLUDED = "excluded"
    OUTSIDE = "not to be given"
    RELEASED = "waits to be free"
    CONFLICT = "in conflict"


class Cell(NamedTuple):
    """From `first` on so many addresses that can be given or are held (`size`), of which `held` are."""

    first: Address
    kind: Kind
    held: int
    size: int

    @property
    def part(self) -> float:
        return self.held / self.size if self.size else 0.0


class Picture(NamedTuple):
    """`shown` is the beginning of `subnet` that holds all that is in use; a cell is a block of so many addresses.

    `total` is how many of the subnet can be given. `unit`: what it is a picture of, one and many.
    """

    subnet: Subnet
    shown: Subnet
    block: int
    cells: list[Cell]
    total: int
    unit: tuple[str, str] = ("an address", "addresses")


def draw(ranges: Sequence[Range], exclude: Collection[Subnet], held: Iterable[Address], leaked: Collection[Address], most: int) -> Picture:
    """Return the picture of one subnet's ranges, of `most` cells at the most, a power of two."""
    subnet = ranges[0].subnet
    numbers = sorted(address.number for address in held if subnet.holds(address))
    shown = _shown(subnet, numbers)
    bits = BITS[subnet.version] - shown.prefix
    block = max(1, (1 << bits) // most)
    segments = sorted(segment for one in ranges for segment in segments_of(one, exclude))
    if block == 1:
        taken, lost = set(numbers), {address.number for address in leaked}
        gateways = {one.gateway.number for one in ranges}
        cells = [
            _address(Address(subnet.version, n), taken, lost, gateways, segments, exclude) for n in range(shown.number, shown.last + 1)
        ]
    else:
        cells = [_block(Address(subnet.version, n), block, numbers, segments) for n in range(shown.number, shown.last + 1, block)]
    return Picture(subnet, shown, block, cells, sum(last - first + 1 for first, last in segments))


def _shown(subnet: Subnet, numbers: Sequence[int]) -> Subnet:
    farthest = numbers[-1] - subnet.number if numbers else 0
    bits = min(max(farthest.bit_length(), SMALLEST), BITS[subnet.version] - subnet.prefix)
    return Subnet(subnet.version, subnet.number, BITS[subnet.version] - bits)


def _address(
    address: Address,
    taken: Collection[int],
    lost: Collection[int],
    gateways: Collection[int],
    segments: Iterable[tuple[int, int]],
    exclude: Iterable[Subnet],
) -> Cell:
    number = address.number
    if number in taken:
        return Cell(address, Kind.LEAKED if number in lost else Kind.HELD, 1, 1)
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
