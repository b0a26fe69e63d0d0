# SPDX-License-Identifier: Apache-2.0
"""Blocking functions called from asyncio: reading credentials, one GET with the blocking client."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def off_loop(function: Callable[[], T]) -> T:
    """Call `function` in a thread and return its result. Raises its errors, and CNIError if the system cannot start a thread.

    asyncio.to_thread does not fit: the loop's end waits for its threads, and a stopping agent should not wait for a silent API server.
    A pool does not fit either: a hundred hanging calls must not block the next one.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not outcome.done():  # otherwise the caller was cancelled
            set_outcome()

    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 (raised again by the caller)
            later = _bound(outcome.set_exception, error)
        else:
            later = _bound(outcome.set_result, result)
        try:
            loop.call_soon_threadsafe(settle, later)
        except RuntimeError:  # the loop has ended
            pass

    try:
        threading.Thread(target=call, daemon=True).start()
    except RuntimeError as error:
        raise CNIError(TRY_AGAIN_LATER, str(error), "raise the limit of tasks, of the service or the container") from None
    return await outcome


V = TypeVar("V")


def _bound(function: Callable[[V], None], value: V) -> Callable[[], None]:
    return lambda: function(value)
