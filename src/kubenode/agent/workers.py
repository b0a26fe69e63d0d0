"""Threads that do what may block, one a network: who waits for one network's lock does not keep another's pods waiting."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

IDLE = 60.0  # seconds after which a thread without work ends


class Workers:
    """Jobs of one key are done in their order, those of different keys side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[Hashable, queue.SimpleQueue[Callable[[], None]]] = {}

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        """Let a job be done; it must not raise."""
        with self._lock:
            jobs = self._queues.get(key)
            if jobs is None:
                jobs = self._queues[key] = queue.SimpleQueue()
                # Daemons: one that waits for a lock for ever must not keep the agent from ending.
                threading.Thread(target=self._work, args=(key, jobs), daemon=True, name=f"worker {key}").start()
            jobs.put(job)

    def _work(self, key: Hashable, jobs: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                job = jobs.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if jobs.empty():
                        del self._queues[key]
                        return
            else:
                job()
