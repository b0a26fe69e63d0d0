# SPDX-License-Identifier: Apache-2.0
"""`typing.NamedTuple` and `functools.lru_cache` without `typing` and `functools`, whose import takes longer than a whole ADD.

A type checker sees the original `NamedTuple`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414 -- an explicit export for mypy
    from typing import TypeVar

    F = TypeVar("F", bound=Callable[..., object])

    def remembered(function: F, most: int = ...) -> F: ...
else:
    try:
        from _collections import _tuplegetter  # field type of `collections.namedtuple`
        from _functools import _lru_cache_wrapper  # wrapper type of `lru_cache`
    except ImportError:
        from functools import lru_cache
        from operator import itemgetter

        def _tuplegetter(index, doc):
            return property(itemgetter(index), doc=doc)

        def _lru_cache_wrapper(function, most, _typed, _info):
            return lru_cache(most)(function)

    class NamedTuple(tuple):
        """Tuple whose fields are the annotated names of the class body, with its assigned values as defaults."""

        __slots__ = ()
        _fields = ()

        def __init_subclass__(cls):
            cls._fields = tuple(cls.__annotations__)
            cls._defaults = {field: cls.__dict__[field] for field in cls._fields if field in cls.__dict__}
            for index, field in enumerate(cls._fields):
                setattr(cls, field, _tuplegetter(index, field))

        def __new__(cls, *args, **kwargs):
            if not kwargs and len(args) == len(cls._fields):
                return tuple.__new__(cls, args)
            if len(args) < len(cls._fields):
                given = {**cls._defaults, **kwargs}
                args += tuple(given[field] for field in cls._fields[len(args) :] if field in given)
            elif kwargs:
                args += tuple(kwargs)
            if len(args) != len(cls._fields) or not kwargs.keys() <= set(cls._fields):
                raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
            return tuple.__new__(cls, args)

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{f}={v!r}' for f, v in zip(self._fields, self, strict=True))})"

        def _replace(self, **changes):
            values = [changes.pop(field, value) for field, value in zip(self._fields, self, strict=True)]
            if changes:
                raise TypeError(f"{type(self).__name__} has no {', '.join(changes)}")
            return tuple.__new__(type(self), values)

    def remembered(function, most=1024):
        """Cache the last `most` results of a pure function with hashable arguments. Exceptions are not cached."""
        return _lru_cache_wrapper(function, most, False, tuple)  # noqa: FBT003 -- its own signature
