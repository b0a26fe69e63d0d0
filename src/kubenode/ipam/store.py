"""Store of reservations, as the allocator needs it, and the index of what it holds. `host.datadir.DiskStore` is the one on disk."""

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
        """Reservations of one network. Everything but what says so may only be called with the lock held."""

        def lock(self) -> AbstractContextManager[None]:
            """Keep every other process out of this network's reservations."""

        def is_there(self) -> bool:
            """Say, without the lock, whether there is a place in which anything can be reserved."""

        def require_place(self) -> None:
            """Raise CNIError where reservations must not be, without the lock."""

        def if_unused(self, do: Callable[[], None]) -> bool:
            """Do something while nothing is reserved and nobody is about to, without waiting for the lock; say whether it was done."""

        def index(self) -> Index:
            """Return all that is reserved at this moment."""

        def taken(self) -> Mapping[int, Sequence[int]]:
            """Return the numbers of the addresses that have a file, whoever owns it, in order, by family: quicker than the index."""

        def reserve(self, address: Address, attachment: Attachment) -> bool:
            """Reserve an address; False where it is taken."""

        def release(self, reservation: Reservation) -> bool:
            """Make an address free again; say no, and do nothing, where it is not reserved as the index has it."""

        def has(self, reservation: Reservation) -> bool:
            """Say whether something is reserved as the index has it; where it is not, the next index is of what is there."""

        def is_abandoned(self, reservation: Reservation) -> bool:
            """Say whether somebody must have died who has made a reservation without its owner in it."""

        def last_reserved(self, set_id: int) -> Address | None:
            """Return the address that was last reserved of a range set."""

        def set_last_reserved(self, set_id: int, address: Address) -> None:
            """Note the address that was last reserved of a range set."""

        def is_of_this_boot(self) -> bool:
            """Say whether this boot of the host is noted already."""

        def from_earlier_boot(self) -> list[Reservation]:
            """Return what was reserved before this boot for certain; nothing where this boot is noted, or where there is any doubt."""

        def note_boot(self) -> None:
            """Note this boot of the host."""

    from collections.abc import Iterable, Iterator


RESTING = "kube-node.resting."  # how the container ID begins of an address that no container has, but rests for a pod
DEFAULT_DATA_DIR = "/var/lib/cni/networks"  # where host-local keeps reservations that a configuration says no other place for


class Attachment(NamedTuple):
    """An interface of a container: what an address is reserved for."""

    container_id: str
    ifname: str


class Reservation(NamedTuple):
    """A file of the store; no `address`: it is not named by one. No `attachment`: what it holds can be nobody's.

    An attachment without `ifname` was written by a host-local before 0.8.0.
    """

    name: str
    address: Address | None
    attachment: Attachment | None


class Index:
    """Reservations by owner, and the addresses that are taken. `taken` has the numbers of owned addresses in order, by family (4 or 6)."""

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
        """Return what is reserved for exactly this attachment."""
        return [Reservation(name, address_of(name), attachment) for name in self._names.get(attachment, ())]

    def of_container(self, container_id: str) -> list[Reservation]:
        """Return what a host-local before 0.8.0 has reserved for a container, without noting an interface."""
        return self.of(Attachment(container_id, ""))

    def ownerless(self) -> list[Reservation]:
        """Return the addresses whose files no DEL can ever match."""
        return list(self._nobodys.values())

    def add(self, address: Address, attachment: Attachment) -> None:
        self._note(Reservation(str(address), address, attachment))
        insort_right(self.taken[address.version], address.number)

    def remove(self, entry: Reservation) -> None:
        """Forget a reservation; it need not be there any more."""
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
