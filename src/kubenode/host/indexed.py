# SPDX-License-Identifier: Apache-2.0
"""Reservations on disk with an index in the agent's memory.

The index is valid while the directory is the same and has the modification time that this module set, under the lock, after its last
look. Set to the nanosecond, that time differs from any that the kernel sets for another's change, even in the same clock tick. A change
that restores the time, such as from a backup, has another ctime. A file system that does not keep the time gets no index.
`DiskStore.reserve` always decides whether an address is free.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.cni.errors import CNIError
from kubenode.host.datadir import HERE, DiskStore
from kubenode.host.lockwait import LOOK, Queued

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from kubenode.host.boot import Boot
    from kubenode.host.datadir import Lock
    from kubenode.ipam.address import Address
    from kubenode.ipam.store import Attachment, Index, Reservation


class DirectoryState(NamedTuple):
    """State of a directory, which changes with every foreign change; times in nanoseconds."""

    device: int
    inode: int
    modified: int
    changed: int


class Memory:
    """The agent's knowledge of one network's directory between calls; one thread at a time uses it."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.queued = Queued()
        self.state: DirectoryState | None = None  # the directory's state when the index was valid
        self.index: Index | None = None
        self.turns: dict[int, Address | None] = {}
        self.boot_is_known = False

    def forget(self) -> None:
        """Drop the index."""
        self.state = self.index = None
        self.turns = {}


class IndexedStore(DiskStore):
    """`DiskStore` that reads the disk only after a foreign change.

    `before` is called with the lock held, and regularly while waiting for it; it raises to end the call.

    `keep`: the lock stays held after the first `with`, for the next ones, until `leave`.
    """

    def __init__(
        self, data_dir: str, network: str, memory: Memory, before: Callable[[], None], this_boot: Boot = HERE, *, keep: bool = False
    ) -> None:
        super().__init__(data_dir, network, this_boot, lambda lock, path: memory.queued.wait(lock, path, before))
        self._memory = memory
        self._before = before
        self._keep = keep
        self._held: Lock | None = None
        self._changed = False

    def lock(self) -> _Turn:  # type: ignore[override] # both are context managers of nothing
        return _Turn(self)

    def enter(self) -> None:
        """Take the thread lock, then the directory's lock."""
        if self._held:
            return
        while not self._memory.mutex.acquire(timeout=LOOK):
            self._before()
        try:
            lock = super().lock()
            lock.__enter__()
            try:
                self._begin()
            except BaseException:
                lock.__exit__(None, None, None)
                raise
        except BaseException:
            self._memory.mutex.release()
            raise
        self._held = lock

    def exit(self, error: BaseException | None) -> None:
        """End a `with`; after an error the index is dropped, as its state is unknown."""
        if error is not None and not isinstance(error, CNIError):
            self._memory.forget()
        if not self._keep:
            self.leave()

    def leave(self) -> None:
        """Release the lock."""
        if self._held:
            try:
                self._end(self._held)
            finally:
                self._held.__exit__(None, None, None)
                self._held = None
                self._memory.mutex.release()

    def require_place(self) -> None:
        if self._memory.state is None:  # otherwise the directory was checked before
            super().require_place()

    def index(self) -> Index:
        memory = self._memory
        if memory.index is None:
            memory.index = super().index()
            self._changed = True  # sets the time at the end
        return memory.index

    def taken(self) -> Mapping[int, Sequence[int]]:  # type: ignore[override] # nobody changes it
        return self.index().taken

    def reserve(self, address: Address, attachment: Attachment) -> bool:
        self._changed = True
        if not super().reserve(address, attachment):
            return False
        if self._memory.index:
            self._memory.index.add(address, attachment)
        return True

    def release(self, reservation: Reservation) -> bool:
        self._changed = True
        if not super().release(reservation):
            return False
        if self._memory.index:
            self._memory.index.remove(reservation)
        return True

    def has(self, reservation: Reservation) -> bool:
        """Say whether the file still has this owner: after a removal without the lock it may belong to another attachment."""
        if super().has(reservation):
            return True
        self._memory.forget()
        return False

    def last_reserved(self, set_id: int) -> Address | None:
        turns = self._memory.turns
        if set_id not in turns:
            turns[set_id] = super().last_reserved(set_id)
        return turns[set_id]

    def set_last_reserved(self, set_id: int, address: Address) -> None:
        super().set_last_reserved(set_id, address)
        self._memory.turns[set_id] = address

    def is_of_this_boot(self) -> bool:
        # A process ends with its boot: one look is enough.
        if not self._memory.boot_is_known:
            self._memory.boot_is_known = super().is_of_this_boot()
        return self._memory.boot_is_known

    def from_earlier_boot(self) -> list[Reservation]:
        return [] if self.is_of_this_boot() else super().from_earlier_boot()

    def is_as_indexed(self) -> bool:
        """Say whether the directory has the same names as the index: others may change it without the lock. Needs the lock."""
        index = self._memory.index
        if index is None:
            return True
        here = super().taken()
        for entry in index.ownerless():  # files of killed writers stay until the next ADD
            if entry.address and entry.address.number in here[entry.address.version]:
                here[entry.address.version].remove(entry.address.number)
        if index.taken == here:
            return True
        self._memory.forget()
        return False

    def _begin(self) -> None:
        if self._memory.state is None or self._memory.state != self._state():
            self._memory.forget()
        self._changed = False
        self._before()

    def _end(self, lock: Lock) -> None:
        if not self._changed or not self._memory.index:
            return
        now = time.time_ns()
        try:
            os.utime(self.directory, ns=(now, now))
            self._memory.state = self._state()
            is_known = self._memory.state.modified == now and lock.is_in_force()
        except OSError:  # the change on disk is done; only the index is not valid
            is_known = False
        if not is_known:
            self._memory.forget()

    def _state(self) -> DirectoryState:
        status = os.stat(self.directory)
        return DirectoryState(status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


class _Turn:
    """Lock of a store, for a `with`."""

    def __init__(self, store: IndexedStore) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._store.exit(error)
