"""A log for processes that serve many: whoever logs, perhaps with a lock held, hands a line over, and one thread writes."""

from __future__ import annotations

import queue
import threading
import time

from kubenode.base.log import Output

LIMIT = 1 << 20  # bytes that wait to be written; what comes while there are more is dropped
REST = 0.02  # seconds in which the call that logs ends: a thread that writes at once competes with it for the interpreter
LAST_WORDS = 1.0  # seconds that a process may take at its end to write what waits


class LogQueue:
    """A `log.Sink` that never waits. A stuck reader of stderr stops only this thread."""

    def __init__(self) -> None:
        self._output = Output(patience=None)
        self._lines: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._size = self._refused = 0
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
        self._lines.put((path, text))

    def close(self, seconds: float) -> None:
        """Write what waits, if that takes no longer than so many seconds."""
        self._lines.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            lines = [self._lines.get()]
            time.sleep(REST)
            lines += [self._lines.get() for _ in range(self._lines.qsize())]  # nobody else takes any
            for line in lines:
                if line is None:
                    return
                self._output.write(*line)
                with self._mutex:
                    self._size -= len(line[1])
