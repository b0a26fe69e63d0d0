"""Reservations for who only looks: no lock is taken, nothing is made or changed, and what goes away meanwhile is not there."""

from __future__ import annotations

import os
import stat
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from kubenode.base import files
from kubenode.host.datadir import LAST_RESERVED, LOCK, DiskStore, owner_in
from kubenode.ipam.address import address_of
from kubenode.ipam.store import Reservation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from kubenode.ipam.address import Address
    from kubenode.ipam.store import Attachment

WRITING = 0.05  # seconds in which who makes a file has written it


class Held(NamedTuple):
    """An address that has a file, and since when; no attachment: what the file holds can be nobody's."""

    address: Address
    attachment: Attachment | None
    since: float


class ReadOnlyStore(DiskStore):
    """A `DiskStore` to look at. Raises OSError where the directory is there and cannot be read."""

    def lock(self) -> AbstractContextManager[None]:  # type: ignore[override] # both are context managers of nothing
        return nullcontext()

    def reservations(self) -> Iterator[Reservation]:
        for one in self.held():
            yield Reservation(str(one.address), one.address, one.attachment)

    def taken(self) -> dict[int, list[int]]:
        return super().taken() if os.path.isdir(self.directory) else {4: [], 6: []}

    def note_boot(self) -> None:
        """Leave that to who releases."""

    def since(self) -> list[tuple[Address, float]]:
        """Return each address and when its file was made, without looking into the files."""
        found = []
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if entry.name == LOCK or entry.name.startswith(LAST_RESERVED):
                        continue
                    address = address_of(entry.name)
                    try:
                        if address and entry.is_file(follow_symlinks=False):
                            found.append((address, entry.stat(follow_symlinks=False).st_mtime))
                    except FileNotFoundError:
                        continue
        except FileNotFoundError:
            return []
        return found

    def held(self, known: list[tuple[Address, float]] | None = None) -> list[Held]:
        """Return all that is held, in no order; `known`: what `since` has just said."""
        return [one for address, since in (self.since() if known is None else known) if (one := self._look(address, since))]

    def holder(self, address: Address) -> Held | None:
        """Return who holds an address; None where nobody does."""
        try:
            status = os.lstat(os.path.join(self.directory, str(address)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._look(address, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    def _look(self, address: Address, since: float) -> Held | None:
        path = os.path.join(self.directory, str(address))
        try:
            owner = owner_in(files.read(path))
            if owner is None:  # without the lock it may be seen before it is written
                time.sleep(max(0.0, min(WRITING, since + WRITING - time.time())))
                owner = owner_in(files.read(path))
        except FileNotFoundError:
            return None
        return Held(address, owner, since)
