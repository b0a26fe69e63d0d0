"""PURE. Subnets that two have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.inspection.cluster.census import Examples

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kubenode.inspection.cluster.parts import Part


def overlaps(parts: Iterable[Part], keys: Collection[str]) -> tuple[Examples, Examples]:
    """Return the overlaps of what is known to be subnets, and those with an annotation that nothing names: it may mean another thing.

    Each subnet comes once, with the nearest that it collides with: a thousand nodes with one subnet make half a million pairs.
    """
    known, guessed = Examples(), Examples()
    around: list[Part] = []  # the subnets that the one at hand begins in, largest first
    for part in sorted(parts, key=lambda one: (one.subnet.version, one.subnet.number, one.subnet.prefix, one.is_claim)):
        while around and not around[-1].subnet.overlaps(part.subnet):
            around.pop()
        other = next((one for one in reversed(around) if _collide(one, part)), None)
        if other:
            certain = all(not one.key or one.key in keys for one in (other, part))
            if certain or other.node != part.node:
                (known if certain else guessed).note(f"{_told(other)} and {_told(part)} overlap")
        around.append(part)
    return known, guessed


def _collide(one: Part, other: Part) -> bool:
    """Tell whether two subnets are two that should not be: a NodeSubnet and its Node's annotation are one."""
    return one.node != other.node or (one.source != other.source and not one.is_claim and not other.is_claim)


def _told(part: Part) -> str:
    return f"{part.subnet} of node {part.node} ({part.source})"
