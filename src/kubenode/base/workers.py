# SPDX-License-Identifier: Apache-2.0
"""Threads for blocking work of many networks: waiting for one network's lock does not delay another's pods.

A few threads work. The place of one that waits for something slow is taken by another, so a slow network costs a thread for as long as it
is slow, and a quick one costs none.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from kubenode.base.log import Log

K = TypeVar("K")
T = TypeVar("T")

AT_ONCE = 8  # threads, without those of slow jobs
SLOW = 0.05  # seconds after which a job is slow
MOST = 128  # threads: with so many slow networks the others wait
IDLE = 10.0  # seconds without work after which a thread ends


class Workers:
    """Worker threads: jobs with the same key run in order, jobs with different keys in parallel."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[Hashable, deque[Callable[[], None]]] = {}  # waiting ones, of the keys with a job that waits or runs
        self._ready: deque[Hashable] = deque()  # keys with a waiting job and without a running one
        self._began: dict[int, float] = {}  # begin of the running jobs, by thread
        self._threads = 0

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        """Queue a job, which must not raise. Raises RuntimeError if there is no thread, and the system cannot start one."""
        with self._changed:
            if (jobs := self._jobs.get(key)) is not None:
                jobs.append(job)
                return
            self._jobs[key] = deque([job])
            self._ready.append(key)
            try:
                self._add_threads()
            except RuntimeError:
                if not self._threads:
                    del self._jobs[key]
                    self._ready.remove(key)
                    raise
            self._changed.notify()

    def relieve(self) -> None:
        """Start threads in place of those with a slow job, if others wait. Raises RuntimeError if the system cannot."""
        with self._changed:
            self._add_threads()

    def _add_threads(self) -> None:
        slow = None
        while len(self._ready) > self._threads - len(self._began):
            if slow is None:
                now = time.monotonic()
                slow = sum(now - began > SLOW for began in self._began.values())
            if self._threads >= min(AT_ONCE + slow, MOST):
                return
            # Daemons: a thread that waits for a lock for ever must not keep the agent running.
            threading.Thread(target=self._work, daemon=True, name="worker").start()
            self._threads += 1

    def _work(self) -> None:
        while (key := self._next()) is not None:
            try:
                self._jobs[key].popleft()()
            finally:
                self._done(key)

    def _next(self) -> Hashable:
        """Wait for a key with a job; None if this thread is not needed."""
        with self._changed:
            is_spare = self._threads - len(self._began) > AT_ONCE
            if not self._ready and (is_spare or not self._changed.wait_for(lambda: self._ready, IDLE)):
                self._threads -= 1
                return None
            self._began[threading.get_ident()] = time.monotonic()
            return self._ready.popleft()

    def _done(self, key: Hashable) -> None:
        with self._changed:
            del self._began[threading.get_ident()]
            if self._jobs[key]:
                self._ready.append(key)
                self._changed.notify()
            else:
                del self._jobs[key]


class Round:
    """Questions to several networks, which do not wait for each other. Late answers are left out.

    A question is not repeated while it is pending: behind a lock that is held for hours nothing piles up.
    """

    def __init__(self, workers: Workers, log: Log, patience: float) -> None:
        self._workers = workers
        self._log = log
        self._patience = patience
        self._mutex = threading.Lock()
        self._asked: dict[tuple[str, Hashable], Future[object]] = {}  # pending ones

    def gather(self, questions: Mapping[K, Callable[[], T]], what: str = "") -> dict[K, T]:
        """Return the answers that arrive in time, by key. Callers with the same question (`what`) share one answer.

        A question that raises is logged and has no answer.
        """
        asked = {key: self._ask(what, key, question) for key, question in questions.items()}
        self._wait(set(asked.values()))
        return {key: future.result() for key, future in asked.items() if future.done() and not future.exception()}  # type: ignore[misc]

    def _wait(self, pending: set[Future[object]]) -> None:
        end = time.monotonic() + self._patience
        while pending and (left := end - time.monotonic()) > 0:
            pending = wait(pending, min(left, SLOW)).not_done
            try:
                self._workers.relieve()
            except RuntimeError as error:
                self._log.error("cannot start a thread", of=f"{len(pending)} networks", error=str(error))
                wait(pending, end - time.monotonic())
                return

    def _ask(self, what: str, key: Hashable, question: Callable[[], object]) -> Future[object]:
        with self._mutex:
            if before := self._asked.get((what, key)):
                return before
            future = self._asked[what, key] = Future()
        try:
            self._workers.submit(key, partial(self._answer, future, (what, key), question))
        except RuntimeError as error:
            self._log.error("cannot start a thread", of=str(key), error=str(error))
            self._asked.pop((what, key))
            future.set_exception(error)
        return future

    def _answer(self, future: Future[object], asked: tuple[str, Hashable], question: Callable[[], object]) -> None:
        answer, problem = None, None
        try:
            answer = question()
        except Exception as error:  # noqa: BLE001 -- an error must not end the network's thread
            self._log.error("internal error", of=str(asked[1]), error=repr(error))
            problem = error
        self._asked.pop(asked)  # before the answer: who has it can ask again
        if problem:
            future.set_exception(problem)
        else:
            future.set_result(answer)
