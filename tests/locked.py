# SPDX-License-Identifier: Apache-2.0
"""The allocator's functions for tests: each with the store's lock, which its callers hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.ipam import allocator

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from kubenode.ipam.address import Address
    from kubenode.ipam.allocator import Addition, Usage
    from kubenode.ipam.ranges import RangeSet
    from kubenode.ipam.search import Exclusions
    from kubenode.ipam.store import Attachment, Reservation, Store


def allocate(
    store: Store, sets: Sequence[RangeSet], attachment: Attachment, requested: Sequence[Address] = (), exclude: Exclusions = ()
) -> Addition:
    """Do what an ADD does: release what is of an earlier boot, then allocate."""
    with store.lock():
        allocator.release_from_earlier_boot(store)
        return allocator.allocate(store, sets, attachment, requested, exclude)


def add(store: Store, sets: Sequence[RangeSet], attachment: Attachment) -> tuple[list[Reservation], Addition]:
    """Do the same; return what was released, too."""
    with store.lock():
        return allocator.release_from_earlier_boot(store), allocator.allocate(store, sets, attachment)


def release_from_earlier_boot(store: Store) -> list[Reservation]:
    with store.lock():
        return allocator.release_from_earlier_boot(store)


def release(store: Store, attachment: Attachment) -> list[Reservation]:
    with store.lock():
        return allocator.release(store, attachment)


def find(store: Store, attachment: Attachment) -> list[Reservation]:
    with store.lock():
        return allocator.find(store, attachment)


def collect(store: Store, valid: Collection[Attachment]) -> list[Reservation]:
    with store.lock():
        return allocator.collect(store, valid)


def usage(store: Store, sets: Iterable[RangeSet], exclude: Exclusions = ()) -> list[Usage]:
    with store.lock():
        return allocator.usage(store, sets, exclude)
