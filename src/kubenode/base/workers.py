# SPDX-License-Identifier: Apache-2.0
"""Threads for blocking work, one per network: waiting for one network's lock does not delay another's pods."""

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

IDLE = 60.0  # seconds without work after which a thread ends


class Workers:
    """Worker threads: jobs with the same key run in order, jobs with different keys in parallel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[Hashable, queue.SimpleQueue[Callable[[], None]]] = {}

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        """Queue a job, which must not raise. Raises RuntimeError if the system cannot start a thread."""
        with self._lock:
            jobs = self._queues.get(key)
            if jobs is None:
                jobs = queue.SimpleQueue()
                # Daemons: a thread that waits for a lock for ever must not keep the agent running.
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
    """Questions to several networks, each on its own thread. Late answers are left out.

    A question is not repeated while it is pending: behind a lock that is held for hours nothing piles up.
    """

    def __init__(self, workers: Workers, log: Log, patience: float) -> None:
        self._workers = workers
        self._log = log
        self._patience = patience
        self._mutex = threading.Lock()
        self._asked: dict[tuple[str, Hashable], Future[object]] = {}

    def gather(self, questions: Mapping[K, Callable[[], T]], what: str = "") -> dict[K, T]:
        """Return the answers that arrive in time, by key. Callers with the same question (`what`) share one answer.

        A question that raises is logged and has no answer.
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
        except Exception as error:  # noqa: BLE001 -- an error must not end the network's thread
            self._log.error("internal error", of=str(key), error=repr(error))
            future.set_exception(error)
