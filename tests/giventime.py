# SPDX-License-Identifier: Apache-2.0
"""An event loop whose time is given: it goes on to the next timer as soon as there is nothing else to do, and waits for none."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class GivenTime(asyncio.SelectorEventLoop):
    """For code that asks no other clock, and waits for nothing but timers: without any it would go round for ever."""

    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=GivenTime) as runner:
        return runner.run(main)
