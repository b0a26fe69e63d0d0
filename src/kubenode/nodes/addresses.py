# SPDX-License-Identifier: Apache-2.0
"""PURE. A node's use of its addresses, as in the status of its NodeAddresses: the items of each network, and addresses outside of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from kubenode.ipam.address import BITS
from kubenode.ipam.ranges import Range, RangeError, Subnet, parse_subnet
from kubenode.ipam.search import segments_of
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.nodes import items
from kubenode.nodes.items import Item, first_address

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any

    from kubenode.ipam.search import Exclusions
    from kubenode.nodes.node import Node

    Numbers = Mapping[int, Sequence[int]]  # in order, by IP version

NOTHING: Numbers = {4: (), 6: ()}
MOST_OUTSIDE = 32  # entries of a network outside of its items
LONGEST = 32768  # characters of a text; a longer one is no list of items
LARGEST = (1 << 53) - 1  # a larger number is no integer to each reader of JSON


class SubnetSource(NamedTuple):
    """Text of an annotation, or podCIDRs; a text that no plugin can read has no items."""

    text: str
    items: tuple[Item, ...]


class ItemUse(NamedTuple):
    """Use of an item, or of addresses outside of all items. `settling`: a call that began before the item was closing may still add one."""

    subnet: Subnet
    used: int
    total: int
    closing: bool = False
    settling: bool = False
    outside: bool = False

    @property
    def free(self) -> int:
        """Number of addresses for further pods."""
        return 0 if self.closing or self.outside else max(0, self.total - self.used)

    @property
    def is_given_back(self) -> bool:
        """Whether nobody uses a closing item any more, and nobody will."""
        return self.closing and not self.used and not self.settling

    def as_object(self) -> dict[str, Any]:
        """Return the entry in the status."""
        found: dict[str, Any] = {"cidr": str(self.subnet), "used": min(self.used, LARGEST), "total": min(self.total, LARGEST)}
        return {**found, **{key: True for key in ("closing", "settling", "outside") if getattr(self, key)}}


class NetworkUse(NamedTuple):
    """Use of a network in a data directory; no `annotation`: its items are podCIDRs."""

    name: str
    data_dir: str
    annotation: str
    observed: str
    uses: tuple[ItemUse, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity of the entry."""
        return self.name, self.data_dir, self.annotation

    def free(self) -> dict[int, int]:
        """Return the number of free addresses, by IP version."""
        found: dict[int, int] = {}
        for use in self.uses:
            if not use.outside:
                found[use.subnet.version] = found.get(use.subnet.version, 0) + use.free
        return found

    def as_object(self) -> dict[str, Any]:
        """Return the entry in the status."""
        found: dict[str, Any] = {"name": self.name}
        if self.data_dir != DEFAULT_DATA_DIR:
            found["dataDir"] = self.data_dir
        if self.annotation:
            found["annotation"] = self.annotation
        if self.observed:  # Kubernetes 1.20 takes an empty text for null, and refuses the object
            found["observed"] = self.observed[:LONGEST]
        return {**found, "items": [use.as_object() for use in self.uses]}


def source_of(node: Node, annotation: str) -> SubnetSource:
    """Return an annotation of a Node, or with "" its podCIDRs. The text is the API server's, the items are those of calls."""
    observed = node.annotations if node.observed is None else node.observed
    text = observed.get(annotation, "") if annotation else ",".join(node.pod_cidrs)
    try:
        if annotation:
            return SubnetSource(text, items.parse(node.annotations.get(annotation, "")))
        subnets = [parse_subnet(cidr) for cidr in node.pod_cidrs]
    except RangeError:
        return SubnetSource(text, ())
    return SubnetSource(text, tuple(Item(subnet, subnet, first_address(subnet)) for subnet in subnets))


def closing(node: Node) -> dict[str, SubnetSource]:
    """Return the annotations with a closing item, by key."""
    found = {key: source_of(node, key) for key, text in node.annotations.items() if "closing" in text}
    return {key: source for key, source in found.items() if any(item.closing for item in source.items)}


def uses(
    source: SubnetSource, taken: Numbers, exclude: Exclusions = (), blocks: Collection[Subnet] = (), *, settling: bool = False
) -> tuple[ItemUse, ...]:
    """Count the addresses of each item, and those outside of all items and `blocks`; `settling` is for the closing items."""
    counted = [
        ItemUse(item.block, count(taken, item.block), _total(item, exclude), item.closing, item.closing and settling)
        for item in source.items
    ]
    return (*counted, *_outside(taken, {*blocks, *(item.block for item in source.items)}))


def count(taken: Numbers, subnet: Subnet) -> int:
    """Return the number of taken addresses in a subnet."""
    numbers = taken[subnet.version]
    return bisect_right(numbers, subnet.last) - bisect_left(numbers, subnet.number)


def is_urgent(before: Collection[NetworkUse], now: Iterable[NetworkUse], min_free: Mapping[str, int]) -> bool:
    """Say whether a report cannot wait for a minute: another text, fewer free addresses than a power of two or `minFree`, or an item that
    can be taken.
    """
    known = {network.key: network for network in before}
    for network in now:
        earlier = known.get(network.key)
        if earlier is None or earlier.observed != network.observed:
            return True
        had, wanted = earlier.free(), min_free.get(network.annotation, 0)
        for version, free in network.free().items():
            if free.bit_length() < had.get(version, 0).bit_length() or free < wanted <= had.get(version, 0):
                return True
        returned = {use.subnet for use in earlier.uses if use.is_given_back}
        if any(use.is_given_back and use.subnet not in returned for use in network.uses):
            return True
    return False


def _total(item: Item, exclude: Exclusions) -> int:
    whole = Range(item.network, item.start, item.end, item.gateway)
    return sum(end - start + 1 for start, end in segments_of(whole, exclude))


def _outside(taken: Numbers, blocks: Collection[Subnet]) -> list[ItemUse]:
    """Return the addresses in no block, merged to networks of the longest prefix length with which they are few enough."""
    found: list[ItemUse] = []
    for version, numbers in taken.items():
        left: list[int] = []
        position = 0
        for block in sorted(block for block in blocks if block.version == version):
            left += numbers[position : bisect_left(numbers, block.number)]
            position = max(position, bisect_right(numbers, block.last))
        left += numbers[position:]
        host = 0
        while len({number >> host for number in left}) > MOST_OUTSIDE // 2:
            host += 1
        groups: dict[int, int] = {}
        for number in left:
            groups[number >> host] = groups.get(number >> host, 0) + 1
        found += [
            ItemUse(Subnet(version, group << host, BITS[version] - host), used, 1 << host, outside=True) for group, used in groups.items()
        ]
    return found
