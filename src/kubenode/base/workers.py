"""Threads that do what may block, one a network: who waits for one network's lock does not keep another's pods waiting."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from kubenode.base.log import Log

K = TypeVar("K")
T = TypeVar("T")

IDLE = 60.0  # seconds after which a thread without work ends


class Workers:
    """Jobs of one key are done in their order, those of different keys side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[Hashable, queue.SimpleQueue[Callable[[], None]]] = {}

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        """Let a job be done; it must not raise. Raises RuntimeError where the system gives no thread for it."""
        with self._lock:
            jobs = self._queues.get(key)
            if jobs is None:
                jobs = queue.SimpleQueue()
                # Daemons: one that waits for a lock for ever must not keep the agent from ending.
                threading.Thread(target=self._work, args=(key, jobs), daemon=True, name=f"worker {key}").start()
                self._queues[key] = jobs
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


class Round:
    """Questions to several networks, each on its own thread. An answer that comes too late is left out.

    Nobody is asked again before the last answer is there: behind a lock that somebody holds for hours nothing piles up.
    """

    def __init__(self, workers: Workers, log: Log, patience: float) -> None:
        self._workers = workers
        self._log = log
        self._patience = patience
        self._mutex = threading.Lock()
        self._asked: dict[tuple[str, Hashable], Future[object]] = {}

    def gather(self, questions: Mapping[K, Callable[[], T]], what: str = "") -> dict[K, T]:
        """Return the answers that are there in time, also those to the same question (`what`) of somebody else.

        A question that raises has no answer, and is logged.
        """
        asked = {key: self._ask(what, key, question) for key, question in questions.items()}
        wait(asked.values(), self._patience)
        return {key: future.result() for key, future in asked.items() if future.done() and not future.exception()}  # type: ignore[misc]

    def _ask(self, what: str, key: Hashable, question: Callable[[], object]) -> Future[object]:
        with self._mutex:
            before = self._asked.get((what, key))
            if before and not before.done():
                return before
            future = self._asked[what, key] = Future()
        try:
            self._workers.submit(key, partial(self._answer, future, key, question))
        except RuntimeError as error:
            self._log.error("cannot start a thread", of=str(key), error=str(error))
            future.set_exception(error)
        return future

    def _answer(self, future: Future[object], key: Hashable, question: Callable[[], object]) -> None:
        try:
            future.set_result(question())
        except Exception as error:  # noqa: BLE001 -- a fault here must not take the network's thread away
            self._log.error("internal error", of=str(key), error=repr(error))
            future.set_exception(error)
