# SPDX-License-Identifier: Apache-2.0
"""One question to several networks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE, eventually

from kubenode.base import workers
from kubenode.base.log import INFO, Log
from kubenode.base.workers import Round, Workers

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def ask() -> Round:
    return Round(Workers(), Log("agent", INFO), 0.3)


def test_answers(ask: Round) -> None:
    """Each network's answer under its key; networks answer side by side, and none is waited for longer than all."""
    barrier = threading.Barrier(3)

    def question(number: int) -> Callable[[], int]:
        return lambda: barrier.wait(5) * 0 + number

    assert ask.gather({number: question(number) for number in range(3)}) == {0: 0, 1: 1, 2: 2}
    assert ask.gather({}) == {}


def test_who_does_not_answer(ask: Round) -> None:
    """A network that is busy is left out in time; it is asked once, however often the question comes, and answers afterwards."""
    free = threading.Event()
    asked = []

    def busy() -> bool:
        asked.append(1)
        return free.wait(10 * PATIENCE)

    def answered() -> bool:  # not at once where the machine has much else to do
        begin = time.monotonic()
        answers = ask.gather({"busy": busy, "net": lambda: True})
        assert time.monotonic() - begin < PATIENCE
        return answers == {"net": True}

    eventually(answered)
    eventually(answered)
    assert len(asked) == 1
    free.set()
    assert ask.gather({"busy": busy}) == {"busy": True}
    assert len(asked) <= 2


def test_another_question(ask: Round) -> None:
    """Who asks something else, while an answer is still to come, gets no answer that is not his."""
    free = threading.Event()
    assert ask.gather({"busy": lambda: free.wait(10 * PATIENCE)}) == {}
    threading.Timer(0.1, free.set).start()
    assert ask.gather({"busy": lambda: "mine"}, "another") == {"busy": "mine"}


def test_a_question_that_fails(ask: Round, capfd: pytest.CaptureFixture[str]) -> None:
    """A fault in a question has no answer and is logged; the network's thread goes on."""
    assert ask.gather({"net": lambda: 1 // 0, "other": lambda: 1}) == {"other": 1}
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert ask.gather({"net": lambda: 2}) == {"net": 2}


def test_no_thread_to_be_had(ask: Round, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the system gives no thread there is no answer, and the log says so; once it gives one there is."""
    usual = threading.stack_size(1 << 47)  # all that a process can have
    try:
        assert ask.gather({"net": lambda: 1, "other": lambda: 1}) == {}
    finally:
        threading.stack_size(usual)
    assert capfd.readouterr().err.count("can't start new thread") == 2
    assert ask.gather({"net": lambda: 1}) == {"net": 1}


def test_slow_networks_and_many_others() -> None:
    """Slow networks delay no other, and each has one thread; the others share a few."""
    ask, free, before = Round(Workers(), Log("agent", INFO), PATIENCE), threading.Event(), threading.active_count()
    slow = {f"slow{number}": lambda: free.wait(10 * PATIENCE) for number in range(20)}
    asking = threading.Thread(target=ask.gather, args=(slow,))
    asking.start()
    threads = []
    try:
        quick = {number: lambda: threads.append(threading.active_count() - before) for number in range(1000)}
        assert len(ask.gather(quick)) == 1000
    finally:
        free.set()
        asking.join()
    assert max(threads) <= workers.MOST
    assert ask._asked == {}

    def are_few() -> bool:
        return len(ask.gather(quick)) == 1000 and threading.active_count() - before <= workers.AT_ONCE

    eventually(are_few, "as many threads as there were slow networks stay while there is work")


@pytest.mark.slow
def test_more_slow_networks_than_threads() -> None:
    """However many networks are slow, there are not more threads than there may be; and in the end each network has its answer."""
    ask, free, before = Round(Workers(), Log("agent", INFO), 2.0), threading.Event(), threading.active_count()
    slow = {number: lambda: free.wait(10 * PATIENCE) for number in range(2 * workers.MOST)}
    try:
        for _ in range(2):
            assert ask.gather(slow) == {}
            assert threading.active_count() - before <= workers.MOST
    finally:
        free.set()
    eventually(lambda: ask._asked == {}, "a question has no answer")
    assert len(ask.gather(slow)) == 2 * workers.MOST


def test_jobs_of_a_network_are_in_order() -> None:
    """Jobs with the same key run one after the other, in the order in which they came, beside those of other keys."""
    pool, done, running, together = Workers(), [], set(), []

    def job(key: int, number: int) -> Callable[[], None]:
        def work() -> None:
            together.append(key in running)
            running.add(key)
            time.sleep(0.001)
            running.remove(key)
            done.append((key, number))

        return work

    for number in range(20):
        for key in range(20):
            pool.submit(key, job(key, number))
    eventually(lambda: len(done) == 400, "not all have run")
    assert not any(together)
    assert all([number for key, number in done if key == one] == list(range(20)) for one in range(20))


def test_threads_without_work_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread without work ends, and a new one serves the next question."""
    monkeypatch.setattr(workers, "IDLE", 0.05)
    ask, before = Round(Workers(), Log("agent", INFO), PATIENCE), threading.active_count()
    for _ in range(2):
        assert len(ask.gather({number: lambda: 1 for number in range(50)})) == 50
        eventually(lambda: threading.active_count() <= before, "threads stay")
