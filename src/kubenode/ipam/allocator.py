"""Giving and taking back addresses; `search` knows which is next.

The caller holds the store's lock. An address is taken when its file can be made, and only then; what is known of other files can cost time
but never give an address twice.
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
    """The addresses of an ADD, and what was released on the way, as it had no readable owner."""

    given: list[Allocation]
    ownerless: list[Reservation]


class Usage(NamedTuple):
    """The number of addresses that a range set can give, and of those that are taken; ranges that are closing do not count."""

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
    """Reserve one address of each range set, or none at all; what rests for this pod, NAMESPACE/NAME, first. Raises CNIError."""
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
    except BaseException:  # all or nothing, wherever the deadline's signal came in between
        for entry in store.index().of(attachment):
            if entry not in had:
                store.release(entry)
        if rests:
            rests.put_back()
        raise


def release_from_earlier_boot(store: Store) -> list[Reservation]:
    """Release what was reserved before this boot for certain: its containers are gone. This boot is noted then."""
    if store.is_of_this_boot():
        return []
    dead = _release_all(store, store.from_earlier_boot())
    store.note_boot()  # last: whoever dies before leaves the work to the next
    return dead


def release(store: Store, attachment: Attachment, rest: Attachment | None = None) -> list[Reservation]:
    """Release all that is reserved for an attachment, or else, as old host-locals wrote it, for its container.

    `rest`: the owner of the addresses from then on, if they are to rest.
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
    """Return what is reserved for an attachment."""
    return _find(_index_for(store, attachment), attachment)


def collect(store: Store, valid: Collection[Attachment]) -> list[Reservation]:
    """Release what belongs to no valid attachment (SPEC.md, "GC"). An old file is kept while its container has any."""
    containers = {attachment.container_id for attachment in valid}
    now = time.time()

    def is_stale(entry: Reservation) -> bool:
        owner = entry.attachment
        if owner is None or entry.address is None:  # a file that is not named by an address need not be of a container: a note of one word
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
    """Count what each range set can give and what of it is taken.

    Names tell that. In a set that seems full owners and boot count, too: the next ADD releases what is without owner, dead or rests.
    """
    counted = _count(store.taken(), sets, exclude)
    if all(one.used < one.total for one in counted):
        return counted
    index, dead = store.index(), {*store.from_earlier_boot()}
    living = Index(entry for entry in index if entry not in dead and entry.name not in index.resting) if dead or index.resting else index
    return _count(living.taken, sets, exclude)


def unused(sets: Iterable[RangeSet], exclude: Exclusions = ()) -> list[Usage]:
    """Count what each range set can give where nothing was ever reserved."""
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
    """Return the index, which is right in what an attachment has: a reservation may be rewritten in place."""
    index = store.index()
    had = index.of(attachment) + index.of_container(attachment.container_id)
    return index if all(store.has(entry) for entry in had) else store.index()


def _release_ownerless(store: Store, index: Index) -> list[Reservation]:
    """Release what nobody owns and nobody is about to write, though the lock's file may be a new one: no DEL can ever match it."""
    return _release_all(store, [entry for entry in index.ownerless() if store.is_abandoned(entry)])


def _release_found(store: Store, find: Callable[[Index], list[Reservation]]) -> list[Reservation]:
    """Release what `find` chooses, once more where a file was not as it is remembered: its record goes, and nobody would come again."""
    found = find(store.index())
    released = _release_all(store, found)
    if len(released) < len(found):
        released += _release_all(store, find(store.index()))
    return released


def _release_all(store: Store, entries: Iterable[Reservation]) -> list[Reservation]:
    """Release all that can be and return what was. Raises the first OSError of those that cannot, once the others are free."""
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
