# SPDX-License-Identifier: Apache-2.0
"""Reservations read without effect: no lock, no change; a file that disappears meanwhile is left out."""

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

WRITING = 0.05  # seconds after which a new file must have its content


class Held(NamedTuple):
    """Address with a file, and the file's time; `attachment` is None if the file names no owner."""

    address: Address
    attachment: Attachment | None
    since: float


class ReadOnlyStore(DiskStore):
    """`DiskStore` for reading only. Raises OSError if the directory exists and cannot be read."""

    def lock(self) -> AbstractContextManager[None]:  # type: ignore[override] # both are context managers of nothing
        return nullcontext()

    def reservations(self) -> Iterator[Reservation]:
        for one in self.held():
            yield Reservation(str(one.address), one.address, one.attachment)

    def taken(self) -> dict[int, list[int]]:
        return super().taken() if os.path.isdir(self.directory) else {4: [], 6: []}

    def note_boot(self) -> None:
        """Do nothing: only a store that releases notes the boot."""

    def since(self) -> list[tuple[Address, float]]:
        """Return each address with the time of its file, without opening the files."""
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
        """Return all held addresses, in no order; `known`: the result of `since`, if the caller has it."""
        return [one for address, since in (self.since() if known is None else known) if (one := self._look(address, since))]

    def holder(self, address: Address) -> Held | None:
        """Return an address with its holder, None if it is free."""
        try:
            status = os.lstat(os.path.join(self.directory, str(address)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._look(address, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    def _look(self, address: Address, since: float) -> Held | None:
        path = os.path.join(self.directory, str(address))
        try:
            owner = owner_in(files.read(path))
            if owner is None:  # without the lock it may be still empty
                time.sleep(max(0.0, min(WRITING, since + WRITING - time.time())))
                owner = owner_in(files.read(path))
        except FileNotFoundError:
            return None
        return Held(address, owner, since)
