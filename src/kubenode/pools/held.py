"""PURE. Subnets with a value each, found by what they overlap. What is asked is as quick with sixty thousand as with ten."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, Generic, TypeVar

from kubenode.ipam.address import BITS
from kubenode.ipam.ranges import Subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class _Level(Generic[T]):
    """The subnets of one family and one prefix length. Few lengths are in use at a time, so all of them can be looked through."""

    __slots__ = ("numbers", "values")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.values: dict[int, T] = {}


class Held(Generic[T]):
    """A mapping from subnets to values that knows overlaps."""

    def __init__(self) -> None:
        self._levels: dict[tuple[int, int], _Level[T]] = {}

    def __iter__(self) -> Iterator[tuple[Subnet, T]]:
        for (version, prefix), level in self._levels.items():
            for number in level.numbers:
                yield Subnet(version, number, prefix), level.values[number]

    def __len__(self) -> int:
        return sum(len(level.values) for level in self._levels.values())

    def get(self, subnet: Subnet) -> T | None:
        level = self._levels.get((subnet.version, subnet.prefix))
        return level.values.get(subnet.number) if level else None

    def put(self, subnet: Subnet, value: T) -> None:
        level = self._levels.setdefault((subnet.version, subnet.prefix), _Level())
        if subnet.number not in level.values:
            insort(level.numbers, subnet.number)
        level.values[subnet.number] = value

    def remove(self, subnet: Subnet) -> T | None:
        level = self._levels.get((subnet.version, subnet.prefix))
        if level is None or subnet.number not in level.values:
            return None
        del level.numbers[bisect_left(level.numbers, subnet.number)]
        value = level.values.pop(subnet.number)
        if not level.values:
            del self._levels[subnet.version, subnet.prefix]
        return value

    def overlapping(self, subnet: Subnet) -> Iterator[tuple[Subnet, T]]:
        """Yield what has an address in common with `subnet`, also what equals it."""
        for (version, prefix), level in self._levels.items():
            if version != subnet.version:
                continue
            if prefix <= subnet.prefix:
                host = BITS[version] - prefix
                number = subnet.number >> host << host
                if number in level.values:
                    yield Subnet(version, number, prefix), level.values[number]
            else:
                for number in level.numbers[bisect_left(level.numbers, subnet.number) : bisect_right(level.numbers, subnet.last)]:
                    yield Subnet(version, number, prefix), level.values[number]

    def within(self, subnet: Subnet) -> int:
        """Count the subnets that lie in `subnet` whole."""
        return sum(
            bisect_right(level.numbers, subnet.last) - bisect_left(level.numbers, subnet.number)
            for (version, prefix), level in self._levels.items()
            if version == subnet.version and prefix >= subnet.prefix
        )
