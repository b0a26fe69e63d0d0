# SPDX-License-Identifier: Apache-2.0
"""The host's own addresses and routes, from the kernel's /proc/net, and their overlaps with a network's subnet."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.base import files
from kubenode.ipam.address import BITS, Address, parse_address
from kubenode.ipam.ranges import Subnet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ON_THE_LAN = frozenset(["macvlan", "ipvlan", "host-device", "sriov"])  # plugins whose pods share the host's subnet by design
DEFAULT_BRIDGE = "cni0"  # of the bridge plugin
REJECT = 0x200  # RTF_REJECT: a route that drops packets, as routing daemons have for announced networks
LINK_LOCAL, LINK_LOCAL_BITS = 0xFE80 << 112, 10
NO_DEVICE = frozenset(["*", "lo"])


class Route(NamedTuple):
    """A route; `via`: it has a gateway."""

    destination: Subnet
    device: str
    via: bool


def routes() -> list[Route]:
    """Return the main table's routes but rejecting ones (proc_pid_net(5))."""
    found = []
    for line in _lines("/proc/net/route")[1:]:
        device, destination, gateway, flags, _, _, _, mask, *_ = line.split()
        if not int(flags, 16) & REJECT and device not in NO_DEVICE:
            number, bits = _swapped(destination), _swapped(mask).bit_count()
            found.append(Route(Subnet(4, number, bits), device, int(gateway, 16) != 0))
    for line in _lines("/proc/net/ipv6_route"):
        fields = line.split()
        subnet, device = Subnet(6, int(fields[0], 16), int(fields[1], 16)), fields[9]
        if not int(fields[8], 16) & REJECT and device not in NO_DEVICE and not _is_link_local(subnet):
            found.append(Route(subnet, device, int(fields[4], 16) != 0))
    return found


def addresses() -> list[tuple[Address, str]]:
    """Return the host's own addresses, and the device if the kernel names it."""
    local = re.findall(r"\|-- ([\d.]+)\n +/32 host LOCAL", "\n".join(_lines("/proc/net/fib_trie")))
    found = {address: "" for text in local if (address := parse_address(text))}
    for line in _lines("/proc/net/if_inet6"):
        number, *_, device = line.split()
        found[Address(6, int(number, 16))] = device
    return list(found.items())


def conflicts(
    netconf: dict[str, Any], subnet: Subnet, gateway: Address | None, known: Sequence[Route], own: Sequence[tuple[Address, str]]
) -> Iterator[str]:
    """Yield the host's addresses and routes that overlap a subnet, but for those that the network itself has created."""
    kind = netconf.get("type")
    if kind in ON_THE_LAN:
        return
    bridge = str(netconf.get("bridge") or DEFAULT_BRIDGE) if kind == "bridge" else ""
    for route in known:
        to_all = route.destination.prefix == 0
        wider = route.destination.prefix < subnet.prefix and route.via  # such as a route to all pods of the cluster
        to_a_pod = kind != "bridge" and route.destination.prefix == BITS[subnet.version]
        if subnet.overlaps(route.destination) and not (to_all or wider or to_a_pod or route.device == bridge):
            yield f"the host's route to {route.destination} by {route.device}"
    for address, device in own:
        if subnet.holds(address) and address != gateway and (device != bridge or not device):
            yield f"the host's own address {address}" + (f" on {device}" if device else "")


def _lines(path: str) -> list[str]:
    try:
        return files.read(path).decode(errors="replace").splitlines()
    except OSError:  # a kernel without IPv6
        return []


def _swapped(text: str) -> int:
    """Return a number that the kernel prints in network byte order."""
    number: int = struct.unpack("!I", struct.pack("=I", int(text, 16)))[0]
    return number


def _is_link_local(subnet: Subnet) -> bool:
    return subnet.number >> 128 - LINK_LOCAL_BITS in {LINK_LOCAL >> 128 - LINK_LOCAL_BITS, 0xFF00 << 112 >> 128 - LINK_LOCAL_BITS}
