# SPDX-License-Identifier: Apache-2.0
"""IP addresses as family and number, and their text as in Go's `net` package: host-local's files have it as names.

`ipaddress` is not used: its import takes as long as the interpreter's start. An IPv4-mapped IPv6 address is its IPv4 address.
"""

from __future__ import annotations

from kubenode.base.record import NamedTuple, remembered

BITS = {4: 32, 6: 128}
MAPPED = 0xFFFF << 32  # ::ffff:0:0/96 (RFC 4291, section 2.5.5.2)
DIGITS = frozenset("0123456789")
HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
GROUPS, GROUP_DIGITS, OCTETS, OCTET_DIGITS, OCTET_MAX, PREFIX_DIGITS = 8, 4, 4, 3, 255, 3


class Address(NamedTuple):
    """IP address: family (4 or 6) and number."""

    version: int
    number: int

    def __str__(self) -> str:
        """Return the text of RFC 5952; for IPv6 without a dotted tail."""
        return _text(self)


@remembered
def _text(address: Address) -> str:
    number = address.number
    if address.version == 4:  # noqa: PLR2004 -- the IP version
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    groups = [number >> shift & 0xFFFF for shift in range(112, -16, -16)]
    start, length = _longest_run_of_zeros(groups)
    if length == 0:
        return ":".join([f"{group:x}" for group in groups])
    head, tail = groups[:start], groups[start + length :]
    return f"{':'.join([f'{group:x}' for group in head])}::{':'.join([f'{group:x}' for group in tail])}"


def _longest_run_of_zeros(groups: list[int]) -> tuple[int, int]:
    """Return start and length of the part that "::" replaces: the first of the longest runs of at least two groups."""
    best = (0, 0)
    start = 0
    for index, group in enumerate([*groups, 1]):
        if group:
            if index - start > max(best[1], 1):
                best = (start, index - start)
            start = index + 1
    return best


@remembered
def parse_address(text: str) -> Address | None:
    """Parse an address (RFC 4291, section 2.2); None if it is not one. No zone, no leading zeros in IPv4, no blanks."""
    if ":" not in text:
        number = _parse_ipv4(text)
        return None if number is None else Address(4, number)
    number = _parse_ipv6(text)
    if number is None:
        return None
    return Address(4, number & 0xFFFFFFFF) if number >> 32 == MAPPED >> 32 else Address(6, number)


def address_of(name: str) -> Address | None:
    """Return the address in a file's name; None unless we and host-local would write it like that."""
    address = parse_address(name)
    return address if address and str(address) == name else None


def parse_cidr(text: str) -> tuple[Address, int] | None:
    """Parse an address with prefix length; None if it is not one. An IPv4-mapped one gets the prefix length of the IPv4 address."""
    address_text, slash, prefix_text = text.partition("/")
    address = parse_address(address_text)
    if address is None or not slash or not prefix_text or not DIGITS.issuperset(prefix_text) or len(prefix_text) > PREFIX_DIGITS:
        return None
    written_bits, prefix = BITS[6 if ":" in address_text else 4], int(prefix_text)
    return (address, max(0, prefix - written_bits + BITS[address.version])) if prefix <= written_bits else None


def _parse_ipv4(text: str) -> int | None:
    octets = text.split(".")
    if len(octets) != OCTETS:
        return None
    number = 0
    for octet in octets:
        if (
            not octet
            or len(octet) > OCTET_DIGITS
            or not DIGITS.issuperset(octet)
            or (octet[0] == "0" and octet != "0")
            or int(octet) > OCTET_MAX
        ):
            return None
        number = number << 8 | int(octet)
    return number


def _parse_ipv6(text: str) -> int | None:
    head, elision, tail = text.partition("::")
    before, after = _groups(head, last=not elision), _groups(tail, last=True)
    if before is None or after is None:
        return None
    missing = GROUPS - len(before) - len(after)
    if missing < (1 if elision else 0) or (missing and not elision):
        return None
    number = 0
    for group in [*before, *[0] * missing, *after]:
        number = number << 16 | group
    return number


def _groups(text: str, *, last: bool) -> list[int] | None:
    """Parse the groups between colons; the last part of an address may end in dotted IPv4."""
    if not text:
        return []
    groups: list[int] = []
    parts = text.split(":")
    for index, part in enumerate(parts):
        if "." in part and last and index == len(parts) - 1:
            ipv4 = _parse_ipv4(part)
            if ipv4 is None:
                return None
            groups += [ipv4 >> 16, ipv4 & 0xFFFF]
        elif not part or len(part) > GROUP_DIGITS or not HEX_DIGITS.issuperset(part):
            return None
        else:
            groups.append(int(part, 16))
    return groups
