"""What the allocator needs of a store of reservations. `host.datadir.DiskStore` is the one on disk."""

from __future__ import annotations

from kubenode.base.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from kubenode.ipam.address import Address
    from kubenode.ipam.index import Index

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

        def dead(self) -> list[Reservation]:
            """Return what was reserved before this boot for certain; nothing where this boot is noted, or where there is any doubt."""

        def note_boot(self) -> None:
            """Note this boot of the host."""


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
