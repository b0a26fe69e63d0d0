# SPDX-License-Identifier: Apache-2.0
"""A store of reservations in memory, for tests of the allocator."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from kubenode.ipam.address import Address, address_of
from kubenode.ipam.store import Attachment, Index, Reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class MemoryStore:
    """What `host.datadir.DiskStore` is, with a dict. Names that are no addresses may be put there by a test."""

    def __init__(self) -> None:
        self.files: dict[str, Attachment | None] = {}
        self.turns: dict[int, Address] = {}
        self.obstacles: set[Address] = set()  # names that something else has, such as a directory
        self.boot = self.noted_boot = 1
        self.young: set[str] = set()  # files that somebody may be about to write
        self.locked = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        assert not self.locked
        self.locked = True
        try:
            yield
        finally:
            self.locked = False

    def is_there(self) -> bool:
        return True

    def require_place(self) -> None:
        pass

    def if_unused(self, do: Callable[[], None]) -> bool:
        if self.files:
            return False
        do()
        return True

    def index(self) -> Index:
        assert self.locked
        return Index(Reservation(name, address_of(name), attachment) for name, attachment in self.files.items())

    def taken(self) -> dict[int, list[int]]:
        assert self.locked
        found = [address for address in map(address_of, self.files) if address]
        return {family: sorted(address.number for address in found if address.version == family) for family in (4, 6)}

    def reserve(self, address: Address, attachment: Attachment) -> bool:
        assert self.locked
        if str(address) in self.files or address in self.obstacles:
            return False
        self.files[str(address)] = attachment
        return True

    def release(self, reservation: Reservation) -> bool:
        assert self.locked
        if not self.has(reservation):
            return False
        del self.files[reservation.name]
        return True

    def last_reserved(self, set_id: int) -> Address | None:
        return self.turns.get(set_id)

    def set_last_reserved(self, set_id: int, address: Address) -> None:
        self.turns[set_id] = address

    def has(self, reservation: Reservation) -> bool:
        return reservation.name in self.files and self.files[reservation.name] == reservation.attachment

    def is_abandoned(self, reservation: Reservation) -> bool:
        return reservation.name not in self.young

    def is_of_this_boot(self) -> bool:
        return self.boot == self.noted_boot

    def from_earlier_boot(self) -> list[Reservation]:
        return [] if self.is_of_this_boot() else [entry for entry in self.index() if entry.address]

    def note_boot(self) -> None:
        self.noted_boot = self.boot
