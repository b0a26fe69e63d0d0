# SPDX-License-Identifier: Apache-2.0
"""Addresses are read and written as Go's net package does it, because host-local names files so."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubenode.ipam.address import Address, parse_address

ANY = st.tuples(st.just(4), st.integers(0, 2**32 - 1)) | st.tuples(st.just(6), st.integers(0, 2**128 - 1))
SPARSE = st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF, 0xA00]), min_size=8, max_size=8).map(
    lambda g: sum(x << 16 * i for i, x in enumerate(g))
)


def written(version: int, number: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


@given(ANY | st.tuples(st.just(6), SPARSE))
def test_text(address: tuple[int, int]) -> None:
    """Text is that of RFC 5952, and is read again; what is IPv4-mapped is IPv4."""
    version, number = address
    text = str(Address(version, number))
    mapped = version == 6 and number >> 32 == 0xFFFF
    if not mapped:  # ipaddress writes those with a dotted tail
        assert text == written(version, number)
    assert parse_address(text) == (Address(4, number & 0xFFFFFFFF) if mapped else Address(version, number))


@given(st.text(alphabet="0123456789abcdefABCDEFg:./ %", max_size=40))
def test_reads_what_ipaddress_reads(text: str) -> None:
    """A text is an address for us if and only if it is for ipaddress, but for zones, which no configuration may have."""
    try:
        expected = None if "%" in text else ipaddress.ip_address(text)
    except ValueError:
        expected = None
    found = parse_address(text)
    assert (found is None) == (expected is None)
    if expected is not None:
        mapped = getattr(expected, "ipv4_mapped", None)
        assert found == Address(4, int(mapped)) if mapped else found == Address(expected.version, int(expected))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("::a00:0", Address(6, 0xA000000)),
        ("::ffff:10.0.0.1", Address(4, 0x0A000001)),
        ("4000::16.0.0.0", Address(6, 0x4000 << 112 | 0x10000000)),
        ("010.0.0.1", None),
        ("1.2.3", None),
        ("1.2.3.256", None),
        ("fe80::1%eth0", None),
        ("1::2::3", None),
        ("1:2:3:4:5:6:7:8:9", None),
        ("1:2:3:4:5:6:7::8", None),
        ("12345::", None),
        (" 10.0.0.1", None),
        ("", None),
    ],
)
def test_special_texts(text: str, address: Address | None) -> None:
    """IPv6 that fits in four bytes, mapped and dotted forms; and what Go refuses."""
    assert parse_address(text) == address
