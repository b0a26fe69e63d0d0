"""The work queue: each key once, by one at a time, later where it failed."""

from __future__ import annotations

import asyncio
import time

from patience import PATIENCE

from kubenode.controller.queue import SHORTEST, WorkQueue

A, B, POOL = ("node", "a"), ("node", "b"), ("pool", "p")


def test_order() -> None:
    """Nodes come in the order in which they changed, each once; pools come before them."""

    async def run() -> None:
        queue = WorkQueue()
        for key in (A, B, A, POOL):
            queue.add(key)
        assert len(queue) == 3
        assert [await queue.get() for _ in range(3)] == [POOL, A, B]

    asyncio.run(run())


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
        assert await asyncio.wait_for(queue.get(), PATIENCE) == A
        queue.done(A)
        queue.done(B)
        assert len(queue) == 0

    asyncio.run(run())


def test_later() -> None:
    """What is due sooner wins; what failed waits longer each time."""

    async def run() -> None:
        queue = WorkQueue()
        queue.add_later(A, 30)
        queue.add_later(A, 0.05)
        queue.add_later(A, 20)
        began = time.monotonic()
        assert await asyncio.wait_for(queue.get(), PATIENCE) == A
        assert time.monotonic() - began >= 0.04
        pauses = []
        for _ in range(3):
            began = time.monotonic()
            queue.failed(A)
            queue.done(A)
            await asyncio.wait_for(queue.get(), PATIENCE)
            pauses.append(time.monotonic() - began)
        assert pauses[2] >= 2 * SHORTEST - 0.01  # the shortest of the third; that of the first is a quarter of it
        queue.clear()

    asyncio.run(run())
