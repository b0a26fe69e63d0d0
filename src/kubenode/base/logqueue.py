"""A log for processes that serve many: a thread that logs, perhaps with a lock held, hands a line over, and one thread writes."""

from __future__ import annotations

import threading
from collections import deque

from kubenode.base.log import Output

LIMIT = 1 << 20  # bytes that wait to be written; what comes while there are more is dropped
PAUSE = 0.1  # seconds between looks for lines: a thread that is woken for each competes with the call that logs for the interpreter
LAST_WORDS = 1.0  # seconds that a process may take at its end to write what waits


class LogQueue:
    """A `log.Sink` that never waits. A stuck reader of stderr stops only this thread."""

    def __init__(self) -> None:
        self._output = Output(patience=None)
        self._lines: deque[tuple[str, bytes]] = deque()
        self._mutex = threading.Lock()
        self._size = self._refused = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="log")
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._refused + self._output.dropped

    def write(self, path: str, text: bytes) -> None:
        with self._mutex:
            if self._size > LIMIT:
                self._refused += 1
                return
            self._size += len(text)
        self._lines.append((path, text))

    def close(self, seconds: float) -> None:
        """Write what waits, if that takes no longer than so many seconds."""
        self._ending.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while not self._ending.wait(PAUSE):
            self._write()
        self._write()

    def _write(self) -> None:
        while self._lines:
            path, text = self._lines.popleft()
            self._output.write(path, text)
            with self._mutex:
                self._size -= len(text)
