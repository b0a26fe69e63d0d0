# SPDX-License-Identifier: Apache-2.0
"""Our NamedTuple is, as far as we use it, typing.NamedTuple."""

from __future__ import annotations

import typing

import pytest

from kubenode.base import record


class Ours(record.NamedTuple):
    a: int
    b: str = "x"

    @property
    def both(self) -> str:
        return f"{self.a}{self.b}"


class Theirs(typing.NamedTuple):
    a: int
    b: str = "x"

    @property
    def both(self) -> str:
        return f"{self.a}{self.b}"


CALLS = [((1,), {}), ((1, "y"), {}), ((), {"a": 1}), ((1,), {"b": "y"}), ((), {"b": "y", "a": 2})]


@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_a_record(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Fields by position and name, defaults, equality, order, hash, properties, _replace, text."""
    ours, theirs = Ours(*args, **kwargs), Theirs(*args, **kwargs)  # type: ignore[arg-type]
    assert tuple(ours) == tuple(theirs)
    assert (ours.a, ours.b, ours.both, hash(ours)) == (theirs.a, theirs.b, theirs.both, hash(theirs))
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert tuple(ours._replace(a=7)) == tuple(theirs._replace(a=7))
    assert ours == Ours(*args, **kwargs)  # type: ignore[arg-type]
    assert ours != Ours(9)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, "y", 3), {}), ((), {"b": "y"}), ((1,), {"c": 3}), ((1, "y"), {"b": "z"})])
def test_a_wrong_record(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Too few fields, too many, unknown, twice: TypeError."""
    for kind in (Ours, Theirs):
        with pytest.raises(TypeError):
            kind(*args, **kwargs)  # type: ignore[arg-type]


def test_a_record_does_not_change() -> None:
    """A field cannot be assigned."""
    with pytest.raises(AttributeError):
        Ours(1).a = 2  # type: ignore[misc]
