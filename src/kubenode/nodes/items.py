# SPDX-License-Identifier: Apache-2.0
"""PURE. The items of a kube-node annotation: a node's addresses, their network, and the gateway of its pods.

The form is `ITEM[, ITEM…]`, and `ITEM = CIDR [of NETWORK] [via ADDRESS | via none] [closing]`. Pods never get a network's first address,
its last IPv4 address, and its gateway.
"""

from __future__ import annotations

try:
    from _bisect import bisect_left, bisect_right
except ImportError:
    from bisect import bisect_left, bisect_right

from kubenode.base.record import NamedTuple, remembered
from kubenode.ipam.address import Address, parse_address
from kubenode.ipam.ranges import NO_GATEWAY, RangeError, Subnet, parse_subnet, require_apart

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.base.jsontext import JSON

FORM = "CIDR [of NETWORK] [via ADDRESS|none] [closing]"
LINK_LOCAL = Subnet(6, 0xFE80 << 112, 10)  # an IPv6 router may have such an address in any network


class Item(NamedTuple):
    """A block of a network, or all of it. Pods get the network's prefix length and the gateway, if any.

    `closing`: no further pod gets an address.
    """

    block: Subnet
    network: Subnet
    gateway: Address | None
    closing: bool = False

    @property
    def version(self) -> int:
        """The IP version, 4 or 6."""
        return self.block.version

    @property
    def start(self) -> int:
        """The first number for pods, unless it is the gateway's."""
        return max(self.block.number, self.network.number + 1)

    @property
    def end(self) -> int:
        """The last number for pods, unless it is the gateway's."""
        return min(self.block.last, self.network.last - (1 if self.version == 4 else 0))  # noqa: PLR2004 -- the IP version

    @property
    def is_empty(self) -> bool:
        """Whether the block has no address for pods."""
        return self.start > self.end or (self.start == self.end and self.gateway == Address(self.version, self.start))

    def __str__(self) -> str:
        """Return the item as the controller writes it, without defaults."""
        text = str(self.block)
        if self.block != self.network:
            text += f" of {self.network}"
        if self.block != self.network or self.gateway != first_address(self.network):
            text += f" via {self.gateway or NO_GATEWAY}"
        return f"{text} closing" if self.closing else text

    def reserved(self) -> Iterator[tuple[Address, str]]:
        """Yield the addresses that pods never get, with the reason."""
        yield Address(self.version, self.network.number), f"the first address of {self.network}"
        if self.version == 4:  # noqa: PLR2004 -- the IP version
            yield Address(self.version, self.network.last), f"the broadcast address of {self.network}"
        if self.gateway:
            yield self.gateway, f"the gateway of {self.block}"

    def as_range(self) -> dict[str, JSON]:
        """Return the range for the allocator, with host-local's keys as far as there are such."""
        found: dict[str, JSON] = {"subnet": str(self.network)}
        if self.block != self.network:
            found["rangeStart"], found["rangeEnd"] = str(Address(self.version, self.start)), str(Address(self.version, self.end))
        if self.gateway != first_address(self.network):
            found["gateway"] = str(self.gateway or NO_GATEWAY)
        if self.closing:
            found["closing"] = True
        return found


@remembered
def parse(text: str) -> tuple[Item, ...]:
    """Parse the items of an annotation. Raises RangeError, also if an item contains an address that another item keeps."""
    found = tuple([parse_item(part.strip()) for part in text.split(",")])
    require_apart([item.block for item in found])
    if "of" in text or "via" in text:  # else each item keeps only its own addresses
        _require_kept(found)
    return found


def _require_kept(found: tuple[Item, ...]) -> None:
    """Raise RangeError if an item contains an address that another item keeps."""
    reserved = {address: what for item in found for address, what in item.reserved()}
    ordered = sorted(reserved)
    for item in found:
        begin = bisect_left(ordered, Address(item.version, item.start))
        for address in ordered[begin : bisect_right(ordered, Address(item.version, item.end))]:
            if address != item.gateway:
                raise RangeError(f"{item.block} would give {address}, {reserved[address]}")


def parse_item(text: str) -> Item:
    """Parse one item. Raises RangeError."""
    if not text:
        raise RangeError("an empty subnet: a comma too many")
    cidr, *words = text.split()
    if not words:
        plain = parse_subnet(cidr)
        return Item(plain, plain, first_address(plain), False)  # noqa: FBT003 -- by position it takes half the time
    said = {}
    for word in ("of", "via"):
        if words[:1] == [word] and words[1:]:
            said[word] = words[1]
            del words[:2]
    if words not in ([], ["closing"]):
        raise RangeError(f"{text!r} is not {FORM}")
    block = parse_subnet(cidr, 0) if "of" in said else parse_subnet(cidr)
    network = parse_subnet(said["of"]) if "of" in said else block
    if not (network.holds(Address(block.version, block.number)) and network.prefix <= block.prefix):
        raise RangeError(f"{block} is not in {network}")
    item = Item(block, network, parse_gateway(said["via"], network) if "via" in said else first_address(network), bool(words))
    if item.is_empty:
        raise RangeError(f"{block} has no address to give: the rest of {network} begins after its first address and its gateway")
    return item


def parse_gateway(text: str, network: Subnet) -> Address | None:
    """Parse the gateway of a network; "none" is None. Raises RangeError if pods could not reach it, or if it cannot be a router."""
    if text == NO_GATEWAY:
        return None
    gateway = parse_address(text)
    if gateway is None:
        raise RangeError(f"gateway {text!r} of {network} is neither an address nor {NO_GATEWAY}")
    if not network.holds(gateway) and not LINK_LOCAL.holds(gateway):
        raise RangeError(f"gateway {gateway} is not in {network}")
    if gateway.version != network.version:
        raise RangeError(f"gateway {gateway} is not of the family of {network}")
    if network.version == 4 and gateway.number in {network.number, network.last}:  # noqa: PLR2004 -- the IP version
        raise RangeError(f"gateway {gateway} is the first or the broadcast address of {network}")
    return gateway


def first_address(network: Subnet) -> Address:
    """Return the first address after the network address: the default gateway."""
    return Address(network.version, network.number + 1)
