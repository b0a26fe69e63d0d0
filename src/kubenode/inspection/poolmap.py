"""A network of a SubnetPool as cells, each a node's subnet or a block of them. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.inspection.mapping import SMALLEST, Cell, Kind, Picture
from kubenode.ipam.address import BITS, Address
from kubenode.ipam.ranges import Subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import Block, SubnetPool

UNIT = ("a node's subnet", "nodes' subnets")


def draw(ledger: Ledger, pool: SubnetPool, block: Block, most: int) -> tuple[Picture, dict[Address, str]]:
    """Return the picture, of `most` cells at the most, a power of two, and of each subnet that somebody has, who that is."""
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
    """Return the first and the last node's subnet that has addresses of this one."""
    host = BITS[block.cidr.version] - block.node_prefix
    return max(0, subnet.number - block.cidr.number) >> host, min(subnet.last, block.cidr.last) - block.cidr.number >> host


def _taken(ledger: Ledger, pool: SubnetPool, block: Block) -> Iterator[tuple[int, int, Kind, str]]:
    """Yield from where to where a network is taken, by what and by whom."""
    for subnet, claim in ledger.claims.overlapping(block.cidr):
        who = f"{subnet} of Node {claim.node}"
        if not block.offers(subnet):
            yield *_span(block, subnet), Kind.CONFLICT, f"{who}, which the pool does not offer"
        elif claim.released is not None:
            yield *_span(block, subnet), Kind.RELEASED, f"{who}, which is without it"
        else:
            yield *_span(block, subnet), Kind.HELD, who
    for subnet, nodes in ledger.space.strange(block.cidr, pool.annotation):
        yield *_span(block, subnet), Kind.CONFLICT, f"{subnet} in an annotation of Node {', '.join(sorted(nodes))}, without a NodeSubnet"
