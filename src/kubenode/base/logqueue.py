# SPDX-License-Identifier: Apache-2.0
"""Log for processes that serve many calls: the logging thread, which may hold a lock, queues a line; one thread writes."""

from __future__ import annotations

import threading
from collections import deque

from kubenode.base.log import DirectSink

LIMIT = 1 << 20  # bytes in the queue; with more, new lines are dropped
PAUSE = 0.1  # seconds between polls: waking the thread for each line would take the interpreter from the logging call
LAST_WORDS = 1.0  # seconds at the process's end to write the queue


class LogQueue:
    """`log.Sink` that never waits. A stuck reader of stderr stops only its thread."""

    def __init__(self) -> None:
        self._direct = DirectSink(patience=None)
        self._lines: deque[tuple[str, bytes]] = deque()
        self._mutex = threading.Lock()
        self._size = self._refused = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="log")
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._refused + self._direct.dropped

    def write(self, path: str, text: bytes) -> None:
        with self._mutex:
            if self._size > LIMIT:
                self._refused += 1
                return
            self._size += len(text)
        self._lines.append((path, text))

    def close(self, seconds: float) -> None:
        """Write the queue, for at most so many seconds."""
        self._ending.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while not self._ending.wait(PAUSE):
            self._write()
        self._write()

    def _write(self) -> None:
        while self._lines:
            path, text = self._lines.popleft()
            self._direct.write(path, text)
            with self._mutex:
                self._size -= len(text)
