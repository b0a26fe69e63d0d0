"""Waiting for a lock with an end: flock(2) has none, and to try again and again would come behind all who wait in it.

One thread a network waits in flock(2), however many calls wait and give up. Whoever comes next has its place in the queue.
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK = 0.5  # seconds between looks whether the call is still wanted


class Queued:
    """A place in the kernel's queue for one directory's lock."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._fd = -1  # what the thread waits with; -1: nobody waits
        self._is_wanted = False
        self._done = threading.Event()
        self._error: OSError | None = None

    def wait(self, fd: int, go_on: Callable[[], None]) -> None:
        """Make this the descriptor of a file that is locked. One call at a time. Raises what `go_on` raises, and OSError."""
        with self._mutex:
            self._is_wanted = True
            if self._fd < 0:
                self._done.clear()
                mine = os.dup(fd)
                try:
                    threading.Thread(target=self._work, args=(mine,), daemon=True, name="lock").start()
                except RuntimeError:
                    os.close(mine)
                    raise
                self._fd = mine
        try:
            while not self._done.wait(LOOK):
                go_on()
        except BaseException:
            with self._mutex:
                self._is_wanted = False
                if self._done.is_set():
                    self._leave()
            raise
        with self._mutex:
            try:
                if self._error:
                    raise self._error
                os.dup2(self._fd, fd, inheritable=False)  # a lock is the open file's, whatever its descriptors
            finally:
                self._leave()

    def _work(self, fd: int) -> None:
        error = None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as problem:
            error = problem
        with self._mutex:
            self._error = error
            if self._is_wanted:
                self._done.set()
            else:
                self._leave()

    def _leave(self) -> None:
        os.close(self._fd)
        self._fd = -1
