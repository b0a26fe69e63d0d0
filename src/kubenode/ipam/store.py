# SPDX-License-Identifier: Apache-2.0
"""Store of reservations as the allocator needs it, and its index. `host.datadir.DiskStore` is the implementation on disk."""

from __future__ import annotations

try:
    from _bisect import bisect_left, insort_right
except ImportError:
    from bisect import bisect_left, insort_right

from kubenode.base.record import NamedTuple
from kubenode.ipam.address import address_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from kubenode.ipam.address import Address

    class Store(Protocol):
        """Reservations of one network. Methods need the lock, unless they say otherwise."""

        def lock(self) -> AbstractContextManager[None]:
            """Return the lock that keeps other processes out of this network's reservations."""

        def is_there(self) -> bool:
            """Say whether a place for reservations exists. Without the lock."""

        def require_place(self) -> None:
            """Raise CNIError if reservations must not be in this place. Without the lock."""

        def if_unused(self, do: Callable[[], None]) -> bool:
            """Call `do` while nobody has an address and no call holds the lock; return whether it was called. Does not wait."""

        def index(self) -> Index:
            """Return an index of all reservations."""

        def taken(self) -> Mapping[int, Sequence[int]]:
            """Return the numbers of all addresses with a file, with or without owner, in order, by family. Faster than the index."""

        def reserve(self, address: Address, attachment: Attachment) -> bool:
            """Reserve an address; False if it is reserved already."""

        def release(self, reservation: Reservation) -> bool:
            """Release a reservation; False, without effect, if it differs from the index."""

        def has(self, reservation: Reservation) -> bool:
            """Say whether a reservation is as in the index; if not, the next index is read again."""

        def is_abandoned(self, reservation: Reservation) -> bool:
            """Say whether a file without owner must be from a dead writer."""

        def last_reserved(self, set_id: int) -> Address | None:
            """Return the last reserved address of a range set, None if unknown."""

        def set_last_reserved(self, set_id: int, address: Address) -> None:
            """Note the last reserved address of a range set."""

        def is_of_this_boot(self) -> bool:
            """Say whether this boot is already noted."""

        def from_earlier_boot(self) -> list[Reservation]:
            """Return the reservations that are certainly from an earlier boot; [] if this boot is noted, or in doubt."""

        def note_boot(self) -> None:
            """Note this boot of the host."""

    from collections.abc import Iterable, Iterator


RESTING = "kube-node.resting."  # prefix of the container ID of an address that rests for a pod, and that no container has
DEFAULT_DATA_DIR = "/var/lib/cni/networks"  # host-local's default


class Attachment(NamedTuple):
    """Interface of a container, for which an address is reserved."""

    container_id: str
    ifname: str


class Reservation(NamedTuple):
    """File of the store. No `address`: its name is not an address. No `attachment`: its content names no owner.

    An attachment without `ifname` was written by a host-local before 0.8.0.
    """

    name: str
    address: Address | None
    attachment: Attachment | None

    @property
    def rests(self) -> bool:
        """Say whether no container has it: it is kept for a pod."""
        return self.attachment is not None and self.attachment.container_id.startswith(RESTING)


class Index:
    """Reservations by owner, and reserved addresses. `taken` has the numbers of addresses with owner, in order, by family (4 or 6)."""

    def __init__(self, entries: Iterable[Reservation]) -> None:
        self._names: dict[Attachment, tuple[str, ...]] = {}
        self._nobodys: dict[str, Reservation] = {}
        self.resting: dict[str, Attachment] = {}  # by the file's name
        self.taken: dict[int, list[int]] = {4: [], 6: []}
        for entry in entries:
            self._note(entry)
            if entry.attachment and entry.address:
                self.taken[entry.address.version].append(entry.address.number)
        for numbers in self.taken.values():
            numbers.sort()

    def __iter__(self) -> Iterator[Reservation]:
        yield from list(self._nobodys.values())
        for attachment in list(self._names):
            yield from self.of(attachment)

    def of(self, attachment: Attachment) -> list[Reservation]:
        """Return the reservations of exactly this attachment."""
        return [Reservation(name, address_of(name), attachment) for name in self._names.get(attachment, ())]

    def of_container(self, container_id: str) -> list[Reservation]:
        """Return a container's reservations by a host-local before 0.8.0, which noted no interface."""
        return self.of(Attachment(container_id, ""))

    def ownerless(self) -> list[Reservation]:
        """Return the files that no DEL can ever match."""
        return list(self._nobodys.values())

    def add(self, address: Address, attachment: Attachment) -> None:
        """Add a reservation."""
        self._note(Reservation(str(address), address, attachment))
        insort_right(self.taken[address.version], address.number)

    def remove(self, entry: Reservation) -> None:
        """Remove a reservation, if present."""
        if entry.attachment is None:
            self._nobodys.pop(entry.name, None)
            return
        self.resting.pop(entry.name, None)
        names = self._names.get(entry.attachment, ())
        if entry.name not in names:
            return
        if left := tuple(name for name in names if name != entry.name):
            self._names[entry.attachment] = left
        else:
            del self._names[entry.attachment]
        if entry.address:
            numbers = self.taken[entry.address.version]
            del numbers[bisect_left(numbers, entry.address.number)]

    def _note(self, entry: Reservation) -> None:
        if entry.attachment:
            self._names[entry.attachment] = (*self._names.get(entry.attachment, ()), entry.name)
            if entry.attachment.container_id.startswith(RESTING):
                self.resting[entry.name] = entry.attachment
        elif entry.address:
            self._nobodys[entry.name] = entry
