# SPDX-License-Identifier: Apache-2.0
"""What of the host's a subnet is in the way of."""

from __future__ import annotations

from typing import Any

import pytest

from kubenode.inspection.doctor.hostnet import Route, addresses, conflicts, routes
from kubenode.ipam.address import Address, parse_address
from kubenode.ipam.ranges import Subnet


def subnet(text: str) -> Subnet:
    address, _, prefix = text.partition("/")
    parsed = parse_address(address)
    assert parsed
    return Subnet(parsed.version, parsed.number, int(prefix))


BRIDGE = {"type": "bridge", "bridge": "cbr0"}
PTP = {"type": "ptp"}


@pytest.mark.parametrize(
    ("netconf", "route", "conflict"),
    [
        (BRIDGE, ("10.1.0.0/24", "cbr0", False), False),  # what the bridge has made
        (BRIDGE, ("10.1.0.0/24", "eth0", False), True),
        (BRIDGE, ("10.1.0.128/25", "eth0", True), True),
        (BRIDGE, ("10.1.0.0/16", "eth0", True), False),  # to all of the cluster's pods, by a router
        (BRIDGE, ("10.1.0.0/16", "eth0", False), True),  # the host's own network
        (BRIDGE, ("0.0.0.0/0", "eth0", True), False),
        (BRIDGE, ("10.2.0.0/24", "eth0", False), False),
        (PTP, ("10.1.0.7/32", "veth1", False), False),  # to a pod
        ({"type": "macvlan", "master": "eth0"}, ("10.1.0.0/24", "eth0", False), False),  # shared by design
    ],
)
def test_routes(netconf: dict[str, Any], route: tuple[str, str, bool], *, conflict: bool) -> None:
    """A route into the subnet is in its way, but for the network's own and for wider ones through a router."""
    known = [Route(subnet(route[0]), *route[1:])]
    ours = subnet("10.1.0.0/24")
    found = list(conflicts(netconf, ours, Address(4, ours.number + 1), known, []))
    assert bool(found) == conflict


@pytest.mark.parametrize(
    ("address", "device", "conflict"),
    [("10.1.0.1", "", False), ("10.1.0.7", "", True), ("10.2.0.7", "", False), ("fd01::7", "eth0", False)],
)
def test_addresses(address: str, device: str, *, conflict: bool) -> None:
    """An address of the host in the subnet is in its way, unless it is the gateway's."""
    parsed, ours = parse_address(address), subnet("10.1.0.0/24")
    assert parsed
    assert bool(list(conflicts(BRIDGE, ours, Address(4, ours.number + 1), [], [(parsed, device)]))) == conflict


def test_this_host() -> None:
    """The kernel's own lists can be read: loopback's address is among the host's, and no route by loopback is told."""
    assert parse_address("127.0.0.1") in [address for address, _ in addresses()]
    assert not any(route.device == "lo" for route in routes())
