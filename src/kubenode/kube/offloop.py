"""A blocking function called from asyncio: reading credentials, one GET by the blocking client."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def off_loop(function: Callable[[], T]) -> T:
    """Call `function` in a thread and return what it returns. Raises what it raises, and CNIError where the system gives no thread.

    Not asyncio.to_thread: the end of a loop waits for that one's threads, and an agent that has to stop should not wait for a silent API
    server. Nor is there a pool: a hundred that hang do not keep the next from running.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not outcome.done():  # else cancelled: nobody waits any more
            set_outcome()

    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
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
