"""`functools.lru_cache` without `functools`: what an agent works out for one pod it need not work out for the next."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    F = TypeVar("F", bound=Callable[..., object])

    def remembered(function: F, most: int = ...) -> F: ...
else:
    try:
        from _functools import _lru_cache_wrapper  # what `lru_cache` wraps a function in
    except ImportError:
        from functools import lru_cache

        def _lru_cache_wrapper(function, most, _typed, _info):
            return lru_cache(most)(function)

    def remembered(function, most=1024):
        """Let a pure function with hashable arguments remember its last `most` results. What it raises is not remembered."""
        return _lru_cache_wrapper(function, most, False, tuple)  # noqa: FBT003 -- its own signature
