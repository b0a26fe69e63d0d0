# SPDX-License-Identifier: Apache-2.0
"""How long tests wait. A machine that has other things to do, or stands still for a while, must not fail a test."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0  # seconds
TRIES = 5


def eventually(condition: Callable[[], Any], why: object = "", patience: float = PATIENCE) -> Any:
    """Wait until something is so, and return what it then is. `why` is what is said where it is not, or is called for that."""
    end = time.monotonic() + patience
    pause = 0.001
    while not (found := condition()):
        assert time.monotonic() < end, why() if callable(why) else why
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)
    return found


def at_best(action: Callable[[], object], limit: float) -> float:
    """Return how many seconds something takes: it is done again, a few times, where that is not less than a limit."""
    for _ in range(TRIES):
        began = time.monotonic()
        action()
        took = time.monotonic() - began
        if took < limit:
            break
    return took
