# SPDX-License-Identifier: Apache-2.0
"""Allocation and release of addresses; `search` finds the next one.

The caller holds the store's lock. An address is reserved only by creating its file. A wrong index costs time, but never assigns an address
twice.
"""

from __future__ import annotations

try:
    from _bisect import bisect_left, bisect_right
except ImportError:
    from bisect import bisect_left, bisect_right

import time

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import REQUESTED_ADDRESS, CNIError
from kubenode.ipam.search import Search, segments_of
from kubenode.ipam.store import RESTING, Index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from kubenode.ipam.address import Address
    from kubenode.ipam.ranges import RangeSet
    from kubenode.ipam.search import Allocation, Exclusions
    from kubenode.ipam.store import Attachment, Reservation, Store


NOTHING: dict[int, list[int]] = {4: [], 6: []}


class Addition(NamedTuple):
    """Result of an ADD: addresses, and the reservations without readable owner that were released."""

    given: list[Allocation]
    ownerless: list[Reservation]


class Usage(NamedTuple):
    """Number of addresses of a range set, and of the reserved ones; without closing ranges."""

    range_set: RangeSet
    total: int
    used: int


def allocate(
    store: Store,
    sets: Sequence[RangeSet],
    attachment: Attachment,
    requested: Sequence[Address] = (),
    exclude: Exclusions = (),
    pod: str = "",
) -> Addition:
    """Reserve one address of each range set, or none. An address that rests for `pod`, NAMESPACE/NAME, comes first. Raises CNIError."""
    index = _index_for(store, attachment)
    ownerless = _release_ownerless(store, index)
    had = index.of(attachment)
    rests = None
    if index.resting and not had and not index.of_container(attachment.container_id):
        from kubenode.ipam.resting import Rests  # few networks have any

        rests = Rests(store, index, attachment.ifname, pod, exclude)
    search = Search(store, attachment, index, exclude)
    wanted = dict.fromkeys(requested)
    given: list[Allocation] = []
    try:
        for range_set in sets:
            request = next((address for address in wanted if range_set.range_of(address)), None)
            if request is not None:
                del wanted[request]
            given.append(rests.reserve(search, range_set, request) if rests else search.reserve(range_set, request))
        _refuse_leftovers(wanted, sets)
        search.note_turns()
        return Addition(given, ownerless)
    except BaseException:  # all or none, also if the deadline's signal comes in between
        for entry in store.index().of(attachment):
            if entry not in had:
                store.release(entry)
        if rests:
            rests.put_back()
        raise


def release_from_earlier_boot(store: Store) -> list[Reservation]:
    """Release the reservations that are certainly from an earlier boot: their containers are gone. Then note this boot."""
    if store.is_of_this_boot():
        return []
    dead = _release_all(store, store.from_earlier_boot())
    store.note_boot()  # last: if we are killed before, the next call does the work
    return dead


def release(store: Store, attachment: Attachment, rest: Attachment | None = None) -> list[Reservation]:
    """Release an attachment's reservations, or those of its container in the form of host-local before 0.8.0.

    `rest`: owner of the addresses while they rest.
    """
    released = _release_found(store, lambda index: _find(index, attachment))
    if rest:
        from kubenode.ipam.resting import rest_again

        for entry in released:
            rest_again(store, entry._replace(attachment=rest))
    return released


def release_rested(store: Store) -> list[Reservation]:
    """Release what has rested for as long as it should."""
    index = store.index()
    return _release_all(store, _rested(index)) if index.resting else []


def find(store: Store, attachment: Attachment) -> list[Reservation]:
    """Return an attachment's reservations."""
    return _find(_index_for(store, attachment), attachment)


def collect(store: Store, valid: Collection[Attachment]) -> list[Reservation]:
    """Release the reservations of attachments that are not valid (SPEC.md, "GC"). One without interface stays with its container."""
    containers = {attachment.container_id for attachment in valid}
    now = time.time()

    def is_stale(entry: Reservation) -> bool:
        owner = entry.attachment
        if owner is None or entry.address is None:  # a file whose name is not an address may not belong to a container: a note of one word
            return entry.address is not None and store.is_abandoned(entry)
        if owner.container_id.startswith(RESTING):
            from kubenode.ipam.resting import rest_of  # few networks have any

            if rest := rest_of(owner):
                return rest.until <= now
        return owner not in valid if owner.ifname else owner.container_id not in containers

    released: list[Reservation] = []
    try:
        released += release_from_earlier_boot(store)
    finally:
        released += _release_found(store, lambda index: [entry for entry in index if is_stale(entry)])
    return released


def usage(store: Store, sets: Iterable[RangeSet], exclude: Exclusions = ()) -> list[Usage]:
    """Count the addresses of each range set, and the reserved ones, by file names.

    In a set that seems full owners and boot count, too: the next ADD releases reservations without owner, from an earlier boot, or resting.
    """
    counted = _count(store.taken(), sets, exclude)
    if all(one.used < one.total for one in counted):
        return counted
    index, dead = store.index(), {*store.from_earlier_boot()}
    living = Index(entry for entry in index if entry not in dead and entry.name not in index.resting) if dead or index.resting else index
    return _count(living.taken, sets, exclude)


def unused(sets: Iterable[RangeSet], exclude: Exclusions = ()) -> list[Usage]:
    """Count the addresses of each range set without any reservations."""
    return _count(NOTHING, sets, exclude)


def _count(taken: Mapping[int, Sequence[int]], sets: Iterable[RangeSet], exclude: Exclusions) -> list[Usage]:
    counted = []
    for range_set in sets:
        segments = [segment for r in range_set.ranges if not r.closing for segment in segments_of(r, exclude)]
        numbers = taken[range_set.version]
        used = sum(bisect_right(numbers, end) - bisect_left(numbers, start) for start, end in segments)
        counted.append(Usage(range_set, sum(end - start + 1 for start, end in segments), used))
    return counted


def _rested(index: Index) -> list[Reservation]:
    if not index.resting:
        return []
    from kubenode.ipam.resting import resting

    now = time.time()
    return [entry for rest, entry in resting(index) if rest.until <= now]


def _find(index: Index, attachment: Attachment) -> list[Reservation]:
    return index.of(attachment) or index.of_container(attachment.container_id)


def _index_for(store: Store, attachment: Attachment) -> Index:
    """Return an index with this attachment's current reservations: a file may be rewritten in place."""
    index = store.index()
    had = index.of(attachment) + index.of_container(attachment.container_id)
    return index if all(store.has(entry) for entry in had) else store.index()


def _release_ownerless(store: Store, index: Index) -> list[Reservation]:
    """Release files without owner whose writer is dead, even if the lock's file is new: no DEL can ever match them."""
    return _release_all(store, [entry for entry in index.ownerless() if store.is_abandoned(entry)])


def _release_found(store: Store, find: Callable[[Index], list[Reservation]]) -> list[Reservation]:
    """Release the result of `find`; repeat if a file differs from the index: after DEL its record is gone, so there is no later chance."""
    found = find(store.index())
    released = _release_all(store, found)
    if len(released) < len(found):
        released += _release_all(store, find(store.index()))
    return released


def _release_all(store: Store, entries: Iterable[Reservation]) -> list[Reservation]:
    """Release all entries that can be released, and return them. Raises the first OSError at the end."""
    released = []
    failure = None
    for entry in entries:
        try:
            if store.release(entry):
                released.append(entry)
        except OSError as error:
            failure = failure or error
    if failure:
        raise failure
    return released


def _refuse_leftovers(wanted: Iterable[Address], sets: Sequence[RangeSet]) -> None:
    if left := " ".join(map(str, wanted)):
        raise CNIError(
            REQUESTED_ADDRESS,
            f"failed to allocate all requested IPs: {left}",
            "each requested address must lie in a range set of its own: " + "; ".join(map(str, sets)),
        )
