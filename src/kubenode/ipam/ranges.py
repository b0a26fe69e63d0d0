# SPDX-License-Identifier: Apache-2.0
"""Subnets, ranges and range sets, with host-local's defaults, checks and messages (its `range.go` and `range_set.go`)."""

from __future__ import annotations

from kubenode.base.record import NamedTuple, remembered
from kubenode.ipam.address import BITS, MAPPED, Address, parse_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeVar

    from kubenode.base.jsontext import JSON

    Apart = TypeVar("Apart", "Subnet", "Range")

MINIMUM_HOST_BITS = 2  # network, gateway, broadcast and one for a pod
MOST_SUBNETS = 256  # all pairs are compared
NO_GATEWAY = "none"  # instead of a gateway's address; the reference always has one


class RangeError(ValueError):
    """Invalid subnet, range or range set; the message is for the operator.

    `reference` is host-local's message where it differs.
    """

    def __init__(self, text: str, reference: str = "") -> None:
        super().__init__(text)
        self.reference = reference or text

    def within(self, where: str) -> RangeError:
        """Return the same error with its place."""
        return RangeError(f"{where}: {self}", f"{where}: {self.reference}")


class UnreadableError(RangeError):
    """Text that is not an address or network. Host-local decodes its whole configuration at once, without naming the place."""

    def within(self, where: str) -> RangeError:
        return UnreadableError(f"{where}: {self}", self.reference)


class Subnet(NamedTuple):
    """Network in CIDR notation."""

    version: int
    number: int
    prefix: int

    @property
    def last(self) -> int:
        """Number of the last address."""
        return self.number | (1 << BITS[self.version] - self.prefix) - 1

    def __str__(self) -> str:
        return f"{Address(self.version, self.number)}/{self.prefix}"

    def holds(self, address: Address) -> bool:
        """Say whether an address is in the subnet."""
        return address.version == self.version and self.number <= address.number <= self.last

    def overlaps(self, other: Subnet) -> bool:
        """Say whether two subnets have a common address."""
        return self.version == other.version and self.number <= other.last and other.number <= self.last

    def as_range(self) -> dict[str, JSON]:
        """Return the range of the whole subnet, as in a configuration."""
        return {"subnet": str(self)}


class Range(NamedTuple):
    """Addresses from `start` to `end`, both inclusive, except the gateway. `closing`: no new address is assigned."""

    subnet: Subnet
    start: int
    end: int
    gateway: Address | None
    closing: bool = False

    def __str__(self) -> str:
        return f"{Address(self.subnet.version, self.start)}-{Address(self.subnet.version, self.end)}"

    @property
    def is_whole(self) -> bool:
        """Say whether the range is the whole subnet."""
        return self[:3] == make_range(self.subnet)[:3]

    def holds(self, address: Address) -> bool:
        """Say whether an address is in the range."""
        return address.version == self.subnet.version and self.start <= address.number <= self.end

    def overlaps(self, other: Range) -> bool:
        """Say whether two ranges have a common address."""
        return self.subnet.version == other.subnet.version and self.start <= other.end and other.start <= self.end


class RangeSet(NamedTuple):
    """Ranges of one family of which a pod gets one address. `id` is the N in `last_reserved_ip.N`."""

    id: int
    ranges: tuple[Range, ...]

    @property
    def version(self) -> int:
        """Family of the ranges."""
        return self.ranges[0].subnet.version

    def __str__(self) -> str:
        return ",".join(f"{r} closing" if r.closing else str(r) for r in self.ranges)

    def range_of(self, address: Address) -> Range | None:
        """Return the range of an address, None if it is in no range."""
        return next((r for r in self.ranges if r.holds(address)), None)


@remembered
def parse_subnet(text: str, minimum_host_bits: int = MINIMUM_HOST_BITS) -> Subnet:
    """Parse the CIDR notation of a network for addresses, or of a part of one, which may be smaller. Raises RangeError."""
    found = parse_cidr(text)
    if found is None:
        raise UnreadableError(f"invalid CIDR address: {text}")
    address, prefix = found
    if ":" in text and address.version == 4:  # noqa: PLR2004 -- the IP version
        raise RangeError(
            f"IPNet IP and Mask version mismatch: {text} is an IPv4-mapped IPv6 network ({Address(6, MAPPED)}/96); write it as IPv4",
            "IPNet IP and Mask version mismatch",
        )
    host_bits = BITS[address.version] - prefix
    network = address.number >> host_bits << host_bits
    subnet = Subnet(address.version, network, prefix)
    if host_bits < minimum_host_bits:
        raise RangeError(f"Network {address}/{prefix} too small to allocate from")
    if address.number != network:
        raise RangeError(
            f"Network has host bits set. For a subnet mask of length {prefix} the network address is {Address(address.version, network)}"
        )
    return subnet


@remembered
def make_range(subnet: Subnet, start: Address | None = None, end: Address | None = None, gateway: Address | None = None) -> Range:
    """Return a range with host-local's defaults: from the first address to the last, and the gateway is the first.

    IPv4 loses its broadcast address; IPv6 has none. Raises RangeError.
    """
    first = Address(subnet.version, subnet.number + 1)
    last = Address(subnet.version, subnet.last - (1 if subnet.version == 4 else 0))  # noqa: PLR2004 -- the IP version
    if start and (not subnet.holds(start) or (end and start.number > end.number)):
        raise RangeError(f"RangeStart {start} not in network {subnet}")
    start_ = start or first
    if end and (not subnet.holds(end) or end.number < start_.number):
        raise RangeError(f"RangeEnd {end} not in network {subnet}")
    end_ = end or last
    if start_.number > end_.number:  # the reference would continue behind the subnet
        raise RangeError(f"RangeStart {start_} is behind {end_}, the last address to give of {subnet}")
    return Range(subnet, start_.number, end_.number, gateway or first)


def make_set(set_id: int, ranges: Iterable[Range]) -> RangeSet:
    """Combine ranges. Raises RangeError if there are none, if they have two families, or overlap."""
    found = tuple(ranges)
    if not found:
        raise RangeError("empty range set")
    if len({r.subnet.version for r in found}) > 1:
        raise RangeError("mixed address families")
    require_apart(found)
    return RangeSet(set_id, found)


def require_apart(found: Sequence[Apart]) -> None:
    """Raise RangeError if two have a common address."""
    if len(found) > MOST_SUBNETS:
        raise RangeError(f"more than {MOST_SUBNETS} subnets")
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            if one.overlaps(other):
                raise RangeError(f"subnets {one} and {other} overlap")


def check_overlap(sets: Iterable[RangeSet]) -> None:
    """Raise RangeError if two range sets have a common address."""
    found = list(sets)
    for i, one in enumerate(found):
        for j, other in enumerate(found[i + 1 :], i + 1):
            if any(a.overlaps(b) for a in one.ranges for b in other.ranges):
                raise RangeError(f"range set {i} overlaps with {j}")
