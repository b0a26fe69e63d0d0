# SPDX-License-Identifier: Apache-2.0
"""Addresses that rest: kept after their pod's DEL for the next pod of its namespace and name.

A resting address is a reservation like any other, of a container that no runtime has: the container ID contains the pod and the end of the
rest. So every program leaves it alone, and no second file can be lost or differ. DEL releases the address and reserves it again, with the
lock held: it is free if the process dies in between.
"""

from __future__ import annotations

import time

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import RANGE_FULL, CNIError
from kubenode.cni.request import is_name
from kubenode.ipam.address import address_of
from kubenode.ipam.store import RESTING, Attachment, Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.base.jsontext import JSON
    from kubenode.ipam.address import Address
    from kubenode.ipam.ranges import RangeSet
    from kubenode.ipam.search import Allocation, Exclusions, Search
    from kubenode.ipam.store import Index, Store

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 1e9  # seconds


class Rest(NamedTuple):
    """A pod's claim to an address of an interface, and until when, in seconds since 1970."""

    until: int
    namespace: str
    name: str
    ifname: str

    @property
    def pod(self) -> str:
        return f"{self.namespace}/{self.name}"


def owner_of(pod: str, until: float, ifname: str) -> Attachment | None:
    """Return the owner of an address that rests for a pod, NAMESPACE/NAME; None if that is no name of a pod."""
    namespace, _, name = pod.partition("/")
    if not is_name(namespace) or not is_name(name) or "." in namespace or not ifname:
        return None
    return Attachment(f"{RESTING}{int(until)}.{namespace}.{name}", ifname)


def rest_of(attachment: Attachment | None) -> Rest | None:
    """Read the pod and the end of the rest from a reservation's owner; None for a container."""
    if attachment is None or not attachment.container_id.startswith(RESTING):
        return None
    until, _, pod = attachment.container_id.removeprefix(RESTING).partition(".")
    namespace, _, name = pod.partition(".")
    if not until.isdecimal() or len(until) > len(str(1 << 40)) or not namespace or not name:
        return None
    return Rest(int(until), namespace, name, attachment.ifname)


def seconds(value: JSON) -> float | None:
    """Read `stickyFor`: a number of seconds, or a text such as 90s, 1h or 1h30m; None if it is neither."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 <= value <= LONGEST else None
    if not isinstance(value, str) or not value:
        return None
    total, number = 0.0, ""
    for character in value:
        if character in UNITS and number:
            total += int(number) * UNITS[character]
            number = ""
        elif character in "0123456789" and len(number) < len(str(int(LONGEST))):
            number += character
        else:
            return None
    return total if not number and total <= LONGEST else None


class Rests:
    """Resting addresses of a store during an ADD, with the lock held. Releases those whose time is over."""

    def __init__(self, store: Store, index: Index, ifname: str, pod: str, exclude: Exclusions) -> None:
        self._store = store
        self._index = index
        self._whose = (pod, ifname)
        self._exclude = exclude
        self._ended: list[Reservation] = []
        self._left: list[tuple[Rest, Reservation]] = []  # the oldest first
        now = time.time()
        for rest, entry in resting(index):
            if rest.until <= now:
                self._end(entry)
            else:
                self._left.append((rest, entry))
        self._left.sort()
        self._ended.clear()

    def reserve(self, search: Search, range_set: RangeSet, request: Address | None) -> Allocation:
        """Reserve an address that rests for this pod, else a free one, else the one whose rest ends first. Raises CNIError."""
        for rest, entry in reversed(self._left):
            if (rest.pod, rest.ifname) == self._whose and self._fits(range_set, entry, request) and self._end(entry):
                return search.reserve(range_set, entry.address)
        try:
            return search.reserve(range_set, request)
        except CNIError as error:
            oldest = next((entry for _, entry in self._left if self._fits(range_set, entry, None)), None)
            if error.code != RANGE_FULL or oldest is None or not self._end(oldest):
                raise
        return search.reserve(range_set, oldest.address)

    def put_back(self) -> None:
        """Reserve again the resting addresses that this ADD released before it failed."""
        for entry in self._ended:
            rest_again(self._store, entry)

    def _fits(self, range_set: RangeSet, entry: Reservation, request: Address | None) -> bool:
        """Say whether a range set may give an address: the configuration may have changed."""
        address = entry.address
        range_ = range_set.range_of(address) if address else None
        if address is None or range_ is None or range_.closing or address == range_.gateway:
            return False
        if any(subnet.holds(address) for subnet in self._exclude):
            return False
        return request is None or request == address

    def _end(self, entry: Reservation) -> bool:
        self._left = [one for one in self._left if one[1] != entry]
        if not self._store.release(entry):
            return False
        self._index.remove(entry)
        self._ended.append(entry)
        return True


def resting(index: Index) -> list[tuple[Rest, Reservation]]:
    """Return all resting addresses."""
    found = [Reservation(name, address_of(name), attachment) for name, attachment in index.resting.items()]
    return [(rest, entry) for entry in found if (rest := rest_of(entry.attachment))]


def rest_again(store: Store, entry: Reservation) -> None:
    """Reserve a released address for its resting owner. It stays free if that fails."""
    try:
        if entry.address and entry.attachment:
            store.reserve(entry.address, entry.attachment)
    except OSError:  # such as a full disk: the address is free then
        pass
