# SPDX-License-Identifier: Apache-2.0
"""Waiting for a lock with a limit: flock(2) has none, and repeated tries would always lose against the processes that wait in it.

Each lock has one thread that waits in flock(2), no matter how many calls wait and give up. The next call takes over its place.
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK = 0.5  # seconds between checks whether the call is still wanted


class QueuePlace:
    """Place in the queue: a thread that waits with its own descriptor, and its result."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_wanted = True
        self.done = threading.Event()
        self.error: OSError | None = None


class Queued:
    """Place in the kernel's queue for one directory's lock."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._place: QueuePlace | None = None

    def wait(self, fd: int, path: str, go_on: Callable[[], None]) -> bool:
        """Make `fd` a descriptor of the locked file; False if the file has lost its name, as others then lock another file.

        One call at a time. Raises what `go_on` raises, and OSError.
        """
        with self._mutex:
            place = self._take_place(fd)
        try:
            while not place.done.wait(LOOK):
                go_on()
                if not leads_to(path, fd):
                    self._give_up(place)
                    return False
        except BaseException:
            self._give_up(place)
            raise
        with self._mutex:
            try:
                if place.error:
                    raise place.error
                os.dup2(place.fd, fd, inheritable=False)  # the lock belongs to the open file, not to a descriptor
            finally:
                self._leave(place)
        return True

    def _take_place(self, fd: int) -> QueuePlace:
        """Return the place of an earlier call that gave up, if it waits for the same file; otherwise a new one."""
        if self._place and os.path.sameopenfile(self._place.fd, fd):
            self._place.is_wanted = True
            return self._place
        place = QueuePlace(os.dup(fd))
        try:
            threading.Thread(target=self._work, args=(place,), daemon=True, name="lock").start()
        except RuntimeError:
            os.close(place.fd)
            raise
        self._place = place
        return place

    def _work(self, place: QueuePlace) -> None:
        error = None
        try:
            fcntl.flock(place.fd, fcntl.LOCK_EX)
        except OSError as problem:
            error = problem
        with self._mutex:
            place.error = error
            if place.is_wanted:
                place.done.set()
            else:
                self._leave(place)

    def _give_up(self, place: QueuePlace) -> None:
        with self._mutex:
            place.is_wanted = False
            if place.done.is_set():
                self._leave(place)

    def _leave(self, place: QueuePlace) -> None:
        os.close(place.fd)
        if self._place is place:
            self._place = None


def leads_to(path: str, fd: int) -> bool:
    """Say whether a path leads to an open file. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
