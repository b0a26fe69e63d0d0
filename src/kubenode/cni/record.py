"""`NamedTuple` without `typing`: to a type checker it is `typing.NamedTuple`, to the interpreter thirty lines.

Importing `typing` costs more than the whole of an ADD.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple  # noqa: PLC0414 -- mypy takes it for ours to export
else:
    try:
        from _collections import _tuplegetter  # what `collections.namedtuple` gives its fields
    except ImportError:
        from operator import itemgetter

        def _tuplegetter(index, doc):
            return property(itemgetter(index), doc=doc)

    class NamedTuple(tuple):
        """A tuple whose items have the names that the class body annotates, with the defaults that it assigns."""

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
