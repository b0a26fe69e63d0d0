"""Which address is next, and whose is which: host-local's order (its `allocator.go`), decided before anything is written.

Each function takes the store's lock once, for all of its work. An address is taken when its file can be made, and only then; what is
known of other files can cost time but never give an address twice.
"""

from __future__ import annotations

from kubenode.cni.errors import DUPLICATE_ALLOCATION, RANGE_FULL, REQUESTED_ADDRESS, CNIError
from kubenode.cni.record import NamedTuple
from kubenode.ipam.address import Address
from kubenode.ipam.store import Attachment, Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from kubenode.ipam.ranges import Range, RangeSet, Subnet
    from kubenode.ipam.store import Store

    Exclusions = Collection[Subnet]


class Allocation(NamedTuple):
    """An address for a pod, and the range that it is of."""

    range_set: RangeSet
    range: Range
    address: Address


class Usage(NamedTuple):
    """How many addresses a range set can give, and how many of them are taken."""

    range_set: RangeSet
    total: int
    used: int


def allocate(
    store: Store, sets: Sequence[RangeSet], attachment: Attachment, requested: Sequence[Address] = (), exclude: Exclusions = ()
) -> list[Allocation]:
    """Reserve one address of each range set, or none at all. Raises CNIError."""
    with store.lock():
        found = list(store.reservations())
        _heal(store, found)
        taken = {entry.address for entry in found if entry.attachment and entry.address}
        wanted = dict.fromkeys(requested)
        given: list[Allocation] = []
        try:
            for range_set in sets:
                try:
                    request = next((address for address in wanted if range_set.range_of(address)), None)
                    wanted.pop(request, None)  # type: ignore[arg-type]
                    if request is None:
                        _refuse_duplicate(found, range_set, attachment)
                    given.append(_reserve(store, range_set, attachment, request, taken=taken, exclude=exclude))
                except CNIError as error:
                    raise CNIError(error.code, f"failed to allocate for range {range_set.id}: {error.msg}", error.details) from None
            _refuse_leftovers(wanted, sets)
            for allocation in given:
                store.set_last_reserved(allocation.range_set.id, allocation.address)
        except BaseException:  # all or nothing, also when the deadline's signal comes in between
            for allocation in given:
                store.release(Reservation(str(allocation.address), allocation.address, attachment))
            raise
        return given


def release(store: Store, attachment: Attachment) -> list[Reservation]:
    """Release all that is reserved for an attachment, or else, as old host-locals wrote it, for its container."""
    with store.lock():
        mine = _find(store.reservations(), attachment)
        for entry in mine:
            store.release(entry)
        return mine


def find(store: Store, attachment: Attachment) -> list[Reservation]:
    """Return what is reserved for an attachment."""
    with store.lock():
        return _find(store.reservations(), attachment)


def collect(store: Store, valid: Collection[Attachment]) -> list[Reservation]:
    """Release what belongs to no valid attachment (SPEC.md, "GC"). An old file is kept while its container has any."""
    containers = {attachment.container_id for attachment in valid}

    def _is_valid(owner: Attachment) -> bool:
        return owner in valid if owner.ifname else owner.container_id in containers

    with store.lock():
        stale = [entry for entry in store.reservations() if entry.address and (entry.attachment is None or not _is_valid(entry.attachment))]
        for entry in stale:
            store.release(entry)
        return stale


def usage(store: Store, sets: Iterable[RangeSet], exclude: Exclusions = ()) -> list[Usage]:
    """Count what each range set can give and what of it is taken."""
    with store.lock():
        taken = [entry.address for entry in store.reservations() if entry.attachment and entry.address]
    counted = []
    for range_set in sets:
        segments = [segment for r in range_set.ranges for segment in _segments(r, exclude)]
        used = sum(a.version == range_set.version and any(s <= a.number <= e for s, e in segments) for a in taken)
        counted.append(Usage(range_set, sum(end - start + 1 for start, end in segments), used))
    return counted


def _find(entries: Iterable[Reservation], attachment: Attachment) -> list[Reservation]:
    found = list(entries)
    return [e for e in found if e.belongs_to(attachment)] or [e for e in found if e.is_old_and_belongs_to(attachment.container_id)]


def _heal(store: Store, found: Iterable[Reservation]) -> None:
    """Release what nobody owns: whoever makes a file writes it under the lock that we hold."""
    for entry in found:
        if entry.address and entry.attachment is None:
            store.release(entry)


def _refuse_duplicate(found: Iterable[Reservation], range_set: RangeSet, attachment: Attachment) -> None:
    """Raise CNIError for a second ADD without a DEL between, which the specification forbids (SPEC.md, "ADD")."""
    for entry in found:
        mine = entry.belongs_to(attachment) or entry.is_old_and_belongs_to(attachment.container_id)
        if mine and entry.address and range_set.range_of(entry.address):
            raise CNIError(
                DUPLICATE_ALLOCATION,
                f"{entry.address} has been allocated to {attachment.container_id}, duplicate allocation is not allowed",
                f"interface {attachment.ifname} has its address already; the runtime must call DEL before another ADD",
            )


def _refuse_leftovers(wanted: Iterable[Address], sets: Sequence[RangeSet]) -> None:
    if left := " ".join(map(str, wanted)):
        raise CNIError(
            REQUESTED_ADDRESS,
            f"failed to allocate all requested IPs: {left}",
            "each requested address must lie in a range set of its own: " + "; ".join(map(str, sets)),
        )


def _reserve(
    store: Store, range_set: RangeSet, attachment: Attachment, request: Address | None, *, taken: set[Address], exclude: Exclusions
) -> Allocation:
    if request is not None:
        return _reserve_requested(store, range_set, attachment, request, exclude)
    for range_, start, end in _from_last_reserved(range_set, store.last_reserved(range_set.id), exclude):
        number = start
        while number <= end:
            address = Address(range_set.version, number)
            if address not in taken and store.reserve(address, attachment):
                return Allocation(range_set, range_, address)
            number += 1
    raise CNIError(
        RANGE_FULL, f"no IP addresses available in range set: {range_set}", "delete pods of this node, or give it another subnet"
    )


def _reserve_requested(store: Store, range_set: RangeSet, attachment: Attachment, address: Address, exclude: Exclusions) -> Allocation:
    range_ = range_set.range_of(address)
    assert range_ is not None  # noqa: S101 -- the caller has looked
    if address == range_.gateway:
        raise CNIError(REQUESTED_ADDRESS, f"requested ip {address} is subnet's gateway", f"request another address of {range_}")
    if any(subnet.holds(address) for subnet in exclude):
        raise CNIError(REQUESTED_ADDRESS, f"requested ip {address} is excluded", "the network configuration's exclude has it")
    if not store.reserve(address, attachment):
        raise CNIError(
            REQUESTED_ADDRESS,
            f"requested IP address {address} is not available in range set {range_set}",
            "another container has it; request another, or wait for that one's DEL",
        )
    return Allocation(range_set, range_, address)


def _from_last_reserved(range_set: RangeSet, last: Address | None, exclude: Exclusions) -> Iterator[tuple[Range, int, int]]:
    """Iterate over all that the set can give, from the one after the last reserved round to that one itself.

    A crash-looping container so sees an address again only after all others.
    """
    segments = [(r, start, end) for r in range_set.ranges for start, end in _segments(r, exclude)]
    last_range = range_set.range_of(last) if last else None
    if last is None or last_range is None:
        yield from segments
        return
    index = range_set.ranges.index(last_range)
    rank = [range_set.ranges.index(r) for r, _, _ in segments]
    after = [(r, max(s, last.number + 1) if i == index else s, e) for (r, s, e), i in zip(segments, rank, strict=True) if i >= index]
    before = [(r, s, min(e, last.number) if i == index else e) for (r, s, e), i in zip(segments, rank, strict=True) if i <= index]
    yield from (segment for segment in after + before if segment[1] <= segment[2])


def _segments(range_: Range, exclude: Exclusions) -> Iterator[tuple[int, int]]:
    """Cut the gateway and the exclusions out of a range: first and last number of each piece, in order."""
    version = range_.subnet.version
    holes = sorted((subnet.number, subnet.last) for subnet in exclude if subnet.version == version)
    if range_.holds(range_.gateway):
        holes = sorted([*holes, (range_.gateway.number, range_.gateway.number)])
    start = range_.start
    for first, last in holes:
        if start <= first - 1:
            yield start, min(first - 1, range_.end)
        start = max(start, last + 1)
        if start > range_.end:
            return
    yield start, range_.end
