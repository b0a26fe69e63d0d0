# SPDX-License-Identifier: Apache-2.0
"""PURE. A network of a pool: its division into nodes' subnets, and the annotation's item for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.ipam.address import BITS, DIGITS, Address, parse_address
from kubenode.ipam.ranges import NO_GATEWAY, RangeError, Subnet, parse_subnet
from kubenode.nodes.items import Item, first_address, parse_gateway

if TYPE_CHECKING:
    from collections.abc import Mapping

TOO_SMALL = 2  # bits: a subnet has a network address, a gateway and an address for a pod
FIRST, LAST = "first", "last"  # gateways, beside NO_GATEWAY and an address


class Block(NamedTuple):
    """A network, divided into a subnet for each node; if `shared`, into a block for each node, of one network of all nodes."""

    cidr: Subnet
    node_prefix: int
    exclude: tuple[Subnet, ...] = ()
    shared: bool = False
    gateway: str = FIRST

    @property
    def total(self) -> int:
        """The number of subnets."""
        return 1 << self.node_prefix - self.cidr.prefix

    @property
    def form(self) -> tuple[object, ...]:
        """The properties that overlapping networks must share, so that no subnet of one has an address that the other keeps."""
        return (self.node_prefix, self.cidr, self.item(self.cidr).gateway) if self.shared else (self.node_prefix,)

    def item(self, subnet: Subnet) -> Item:
        """Return a subnet's item for the annotation of a node."""
        network = self.cidr if self.shared else subnet
        if self.gateway == NO_GATEWAY:
            return Item(subnet, network, None)
        if self.gateway == FIRST:
            return Item(subnet, network, first_address(network))
        if self.gateway == LAST:
            return Item(subnet, network, Address(network.version, network.last - (1 if network.version == 4 else 0)))  # noqa: PLR2004
        return Item(subnet, network, parse_address(self.gateway))

    def holds(self, subnet: Subnet) -> bool:
        return subnet.prefix >= self.cidr.prefix and self.cidr.overlaps(subnet)

    def cuts(self, subnet: Subnet) -> bool:
        """Say whether a subnet is one of the network's parts."""
        return subnet.prefix == self.node_prefix and self.holds(subnet)

    def around(self, subnet: Subnet) -> Subnet:
        """Return the part that contains a smaller subnet; a larger one as it is."""
        host = BITS[subnet.version] - self.node_prefix
        return subnet if subnet.prefix < self.node_prefix else Subnet(subnet.version, subnet.number >> host << host, self.node_prefix)

    def writes(self, item: Item) -> bool:
        """Say whether an item of an annotation equals this network's item for the same subnet."""
        return self.holds(item.block) and self.item(item.block) == item._replace(closing=False)

    def is_covered_by(self, subnet: Subnet) -> bool:
        """Say whether a subnet that is larger than a node's contains the whole network, so that nothing is left beside it."""
        return subnet.prefix < self.node_prefix and subnet.prefix <= self.cidr.prefix

    def offers(self, subnet: Subnet) -> bool:
        """Say whether a node may get a subnet: it is in the network, not excluded, and has addresses for pods."""
        if not self.holds(subnet) or any(subnet.overlaps(excluded) for excluded in self.exclude):
            return False
        return not self.item(subnet).is_empty if self.shared else subnet.prefix <= BITS[subnet.version] - TOO_SMALL

    def without_empty(self) -> Block:
        """Return the network with those subnets excluded that have no address for pods, only network, broadcast and gateway address."""
        host = BITS[self.cidr.version] - self.node_prefix
        numbers = {address.number >> host << host for address, _ in self.item(self.cidr).reserved() if self.cidr.holds(address)}
        empty = [one for number in sorted(numbers) if self.item(one := Subnet(self.cidr.version, number, self.node_prefix)).is_empty]
        return self._replace(exclude=(*self.exclude, *empty))


def parse_block(entry: Mapping[str, Any], others: list[Block]) -> Block:
    """Parse an item of `cidrs`. Raises RangeError."""
    cidr, node_prefix, shared = parse_subnet(str(entry.get("cidr", ""))), entry.get("nodePrefix"), bool(entry.get("shared"))
    largest = BITS[cidr.version] - (0 if shared else TOO_SMALL)
    if not isinstance(node_prefix, int) or not cidr.prefix <= node_prefix <= largest:
        raise RangeError(f"nodePrefix of {cidr} has to be from {cidr.prefix} to {largest}")
    for other in others:
        if cidr.overlaps(other.cidr):
            raise RangeError(f"{cidr} and {other.cidr} of the same pool overlap")
    exclude = tuple(network(str(text)) for text in entry.get("exclude") or ())
    for excluded in exclude:
        if not excluded.overlaps(cidr):
            raise RangeError(f"exclude {excluded} is not in {cidr}")
    block = Block(cidr, node_prefix, exclude, shared, _gateway(str(entry.get("gateway") or FIRST), cidr, shared=shared))
    return block.without_empty() if shared else block


def _gateway(text: str, cidr: Subnet, *, shared: bool) -> str:
    if text in (FIRST, LAST, NO_GATEWAY):
        return text
    if parse_address(text) is None:
        raise RangeError(f"gateway '{text}' of {cidr} is neither an address, first, last nor none")
    if not shared:
        raise RangeError(f"gateway {text} of {cidr} is one address: where the network is not shared it has to be first, last or none")
    return str(parse_gateway(text, cidr))


def network(text: str) -> Subnet:
    """Parse an address or a network of any size. Raises RangeError."""
    address_text, slash, prefix_text = text.partition("/")
    address = parse_address(address_text)
    if address is None or (slash and not (prefix_text and DIGITS.issuperset(prefix_text) and int(prefix_text) <= BITS[address.version])):
        raise RangeError(f"{text!r} is neither an address nor a network")
    host = BITS[address.version] - int(prefix_text) if slash else 0
    number = address.number >> host << host
    if number != address.number:
        raise RangeError(f"{text} has host bits set; the network is {Address(address.version, number)}/{prefix_text}")
    return Subnet(address.version, number, BITS[address.version] - host)
