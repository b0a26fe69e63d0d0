# SPDX-License-Identifier: Apache-2.0
"""One question to several networks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE, eventually

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
