# SPDX-License-Identifier: Apache-2.0
"""The work queue: each key once, by one at a time, later where it failed."""

from __future__ import annotations

import asyncio

import giventime
import pytest

from kubenode.controller.queue import LONGEST, SHORTEST, WorkQueue

A, B, POOL = ("node", "a"), ("node", "b"), ("pool", "p")


def test_order() -> None:
    """Nodes come in the order in which they changed, each once; pools come before them."""

    async def run() -> None:
        queue = WorkQueue()
        for key in (A, B, A, POOL):
            queue.add(key)
        assert len(queue) == 3
        assert [await queue.get() for _ in range(3)] == [POOL, A, B]

    giventime.run(run())


def test_by_one_at_a_time() -> None:
    """A key that changes while it is looked at is looked at again afterwards, not at the same time."""

    async def run() -> None:
        queue = WorkQueue()
        queue.add(A)
        assert await queue.get() == A
        queue.add(A)
        queue.add(B)
        assert await queue.get() == B
        queue.done(A)
        assert await queue.get() == A
        queue.done(A)
        queue.done(B)
        assert len(queue) == 0

    giventime.run(run())


def test_later() -> None:
    """What is due sooner wins; what failed waits longer each time, half a minute at most."""

    async def run() -> None:
        clock = asyncio.get_running_loop().time
        queue = WorkQueue()
        began = clock()
        for seconds in (30, 5, 20):
            queue.add_later(A, seconds)
        assert await queue.get() == A
        assert clock() - began == pytest.approx(5)
        for number in range(12):
            began = clock()
            queue.failed(A)
            queue.done(A)
            queue.add(A)  # a change is not looked at before
            assert await queue.get() == A
            longest = min(LONGEST, SHORTEST * 2**number)
            assert longest / 2 - 0.001 <= clock() - began <= longest + 0.001
        began = clock()
        queue.failed(A, 50)
        queue.done(A)
        await queue.get()
        assert clock() - began == pytest.approx(50)
        queue.clear()

    giventime.run(run())


@pytest.mark.parametrize("soon", [0.1, 1.0])
def test_a_pause_is_not_cut_short(soon: float) -> None:
    """What failed waits for all of its pause, such as a server's Retry-After, whatever is wanted meanwhile, or was wanted before."""

    async def run() -> None:
        clock = asyncio.get_running_loop().time
        queue = WorkQueue()
        began = clock()
        queue.add_later(POOL, soon)  # while it is looked at
        queue.failed(POOL, 50)
        queue.done(POOL)
        for _ in range(20):
            queue.add_later(POOL, soon)
            await asyncio.sleep(1)
        await queue.get()
        assert clock() - began == pytest.approx(50)
        queue.succeeded(POOL)
        queue.add_later(POOL, soon)
        queue.done(POOL)
        await queue.get()
        assert clock() - began == pytest.approx(50 + soon)
        queue.clear()

    giventime.run(run())


def test_what_failed_counts() -> None:
    """The queue is not empty while a key waits after a failure, so that an alert can tell of one that fails for ever."""

    async def run() -> None:
        queue = WorkQueue()
        queue.add(A)
        for change, left in ((queue.failed, 1), (queue.failed, 1), (queue.succeeded, 0)):
            await queue.get()
            assert len(queue) == 1
            change(A)
            queue.done(A)
            assert len(queue) == left

    giventime.run(run())
