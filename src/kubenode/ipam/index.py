"""All reservations of one network, arranged so that no question has to look at each of them.

The store that reads the disk for each call makes one each time; the agent keeps one and changes it along with the disk.
"""

from __future__ import annotations

try:
    from _bisect import bisect_left, insort_right
except ImportError:
    from bisect import bisect_left, insort_right

from kubenode.ipam.address import address_of
from kubenode.ipam.store import Attachment, Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubenode.ipam.address import Address


class Index:
    """Who has what, and which addresses are taken. `taken` has the numbers of owned addresses in order, by family (4 or 6)."""

    def __init__(self, entries: Iterable[Reservation]) -> None:
        self._names: dict[Attachment, tuple[str, ...]] = {}
        self._nobodys: dict[str, Reservation] = {}
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

    def nobodys(self) -> list[Reservation]:
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
        elif entry.address:
            self._nobodys[entry.name] = entry
