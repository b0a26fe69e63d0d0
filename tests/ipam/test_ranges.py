# SPDX-License-Identifier: Apache-2.0
"""Ranges with host-local's defaults, checks and messages."""

from __future__ import annotations

import pytest

from kubenode.ipam.address import Address, parse_address
from kubenode.ipam.ranges import RangeError, check_overlap, make_range, make_set, parse_subnet


def address(text: str) -> Address:
    found = parse_address(text)
    assert found
    return found


@pytest.mark.parametrize(
    ("subnet", "text", "gateway"),
    [
        ("10.0.0.0/24", "10.0.0.1-10.0.0.254", "10.0.0.1"),
        ("10.0.0.0/30", "10.0.0.1-10.0.0.2", "10.0.0.1"),
        ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff", "fd00::1"),
        ("fd00::/126", "fd00::1-fd00::3", "fd00::1"),
        ("::a00:0/120", "::a00:1-::a00:ff", "::a00:1"),
        ("0.0.0.0/0", "0.0.0.1-255.255.255.254", "0.0.0.1"),
    ],
)
def test_defaults(subnet: str, text: str, gateway: str) -> None:
    """From the first address to the last, IPv4 without broadcast; the first is the gateway."""
    found = make_range(parse_subnet(subnet))
    assert (str(found), str(found.gateway)) == (text, gateway)


@pytest.mark.parametrize(
    ("subnet", "message"),
    [
        ("10.0.0.0/31", "Network 10.0.0.0/31 too small to allocate from"),
        ("fd00::/127", "Network fd00::/127 too small to allocate from"),
        ("10.0.0.1/24", "Network has host bits set. For a subnet mask of length 24 the network address is 10.0.0.0"),
        ("fd00::1/64", "Network has host bits set. For a subnet mask of length 64 the network address is fd00::"),
        ("::ffff:10.0.0.0/120", "IPNet IP and Mask version mismatch"),
        ("10.0.0.0", "invalid CIDR address: 10.0.0.0"),
        ("10.0.0.0/", "invalid CIDR address: 10.0.0.0/"),
        ("10.0.0.0/33", "invalid CIDR address: 10.0.0.0/33"),
        ("10.0.0.0/-1", "invalid CIDR address: 10.0.0.0/-1"),
        ("10.0.0.0/²", "invalid CIDR address: 10.0.0.0/²"),
        ("/24", "invalid CIDR address: /24"),
    ],
)
def test_subnets_that_cannot_be_used(subnet: str, message: str) -> None:
    """Each fault has host-local's message."""
    with pytest.raises(RangeError) as error:
        parse_subnet(subnet)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("10.0.1.1", None, "RangeStart 10.0.1.1 not in network 10.0.0.0/24"),
        (None, "10.0.1.1", "RangeEnd 10.0.1.1 not in network 10.0.0.0/24"),
        ("10.0.0.9", "10.0.0.8", "RangeStart 10.0.0.9 not in network 10.0.0.0/24"),
        ("fd00::1", None, "RangeStart fd00::1 not in network 10.0.0.0/24"),
    ],
)
def test_ends_that_cannot_be_used(start: str | None, end: str | None, message: str) -> None:
    """Start and end lie in the subnet, in this order."""
    with pytest.raises(RangeError) as error:
        make_range(parse_subnet("10.0.0.0/24"), start and address(start), end and address(end))  # type: ignore[arg-type]
    assert str(error.value) == message


def test_explicit_ends_may_be_network_and_broadcast() -> None:
    """What is asked for explicitly is taken."""
    subnet = parse_subnet("10.0.0.0/24")
    assert str(make_range(subnet, address("10.0.0.0"), address("10.0.0.255"))) == "10.0.0.0-10.0.0.255"


def test_sets() -> None:
    """A set has ranges, of one family, without overlap; sets have no address in common."""
    v4, other, v6 = (make_range(parse_subnet(text)) for text in ("10.0.0.0/24", "10.0.1.0/24", "fd00::/64"))
    for ranges, message in (([], "empty range set"), ([v4, v6], "mixed address families")):
        with pytest.raises(RangeError, match=message):
            make_set(0, ranges)
    with pytest.raises(RangeError) as error:
        make_set(0, [v4, other, v4])
    assert str(error.value) == "subnets 10.0.0.1-10.0.0.254 and 10.0.0.1-10.0.0.254 overlap"
    with pytest.raises(RangeError, match="range set 0 overlaps with 2"):
        check_overlap([make_set(0, [v4]), make_set(1, [v6]), make_set(2, [other, v4])])
    check_overlap([make_set(0, [v4, other]), make_set(1, [v6])])
