# SPDX-License-Identifier: Apache-2.0
"""Work queue: a key is in it once, only one worker has it at a time, and it returns later if it failed or is not due yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from random import SystemRandom
from typing import TypeAlias

Key: TypeAlias = tuple[str, str]  # kind and name

SHORTEST, LONGEST = 0.25, 30.0  # seconds until the second try; each further one waits twice as long
DOUBLINGS = 7


class WorkQueue:
    """Queue of keys for several workers."""

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._wanted: dict[Key, float] = {}  # time since which each key is wanted
        self._active: dict[Key, float] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._more = asyncio.Event()
        self._random = SystemRandom()

    def __len__(self) -> int:
        """Return the number of keys that are wanted now, in work, or waiting after a failure."""
        return len(self._wanted.keys() | self._active.keys() | self._failures.keys())

    def add(self, key: Key) -> None:
        """Add a key now; one that failed, after its pause."""
        if key in self._failures and key in self._later:
            return
        if key not in self._wanted:
            self._wanted[key] = time.monotonic()
            if key not in self._active:
                self._put(key)

    def add_later(self, key: Key, seconds: float) -> None:
        """Add a key after `seconds`, or earlier if it is already due earlier; one that failed, after its pause."""
        planned = self._later.get(key)
        if planned is None or (key not in self._failures and planned.when() > asyncio.get_running_loop().time() + seconds):
            self._plan(key, seconds)

    async def get(self) -> Key:
        """Wait for the next key, and return it; `done` must follow."""
        while not self._ready:
            self._more.clear()
            await self._more.wait()
        key = self._ready.popleft()
        self._active[key] = self._wanted.pop(key)
        return key

    def since(self, key: Key) -> float:
        """Return the time since which a key in work was wanted."""
        return self._active[key]

    def done(self, key: Key) -> None:
        """Let other workers have the key again."""
        self._active.pop(key, None)
        if key in self._wanted:
            self._put(key)

    def succeeded(self, key: Key) -> None:
        """Reset the key's pause."""
        self._failures.pop(key, None)

    def failed(self, key: Key, at_least: float = 0.0) -> None:
        """Add the key after a pause and not before: changes meanwhile may come from the failed attempt itself."""
        self._wanted.pop(key, None)
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(LONGEST, SHORTEST * 2 ** min(failures - 1, DOUBLINGS)) * self._random.uniform(0.5, 1)
        self._plan(key, max(pause, at_least))

    def clear(self) -> None:
        """Empty the queue."""
        for handle in self._later.values():
            handle.cancel()
        for book in (self._ready, self._wanted, self._active, self._later, self._failures):
            book.clear()

    def _plan(self, key: Key, seconds: float) -> None:
        if planned := self._later.get(key):
            planned.cancel()
        self._later[key] = asyncio.get_running_loop().call_later(seconds, self._due, key)

    def _put(self, key: Key) -> None:
        # Pools are few, and their status must not wait until thousands of nodes are done.
        if key[0] == "pool":
            self._ready.appendleft(key)
        else:
            self._ready.append(key)
        self._more.set()

    def _due(self, key: Key) -> None:
        del self._later[key]
        self.add(key)
