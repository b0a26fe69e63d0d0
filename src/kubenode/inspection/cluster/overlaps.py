# SPDX-License-Identifier: Apache-2.0
"""PURE. Subnets that overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.inspection.cluster.census import Examples

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kubenode.inspection.cluster.parts import Part


def overlaps(parts: Iterable[Part], keys: Collection[str]) -> tuple[Examples, Examples]:
    """Return the overlaps of known subnets, and the overlaps with annotations that no network names: those may mean something else.

    Each subnet comes once, with the nearest one that overlaps it: a thousand nodes with one subnet have half a million pairs.
    """
    known, guessed = Examples(), Examples()
    around: list[Part] = []  # the subnets that contain the begin of the present one, largest first
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
    """Say whether two subnets may not overlap: a NodeSubnet and its Node's annotation are the same."""
    return one.node != other.node or (one.source != other.source and not one.is_claim and not other.is_claim)


def _told(part: Part) -> str:
    return f"{part.subnet} of node {part.node} ({part.source})"
