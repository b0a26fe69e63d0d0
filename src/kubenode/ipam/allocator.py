"""Which address is next, and whose is which: host-local's order (its `allocator.go`), decided before anything is written.

Each function takes the store's lock once, for all of its work. An address is taken when its file can be made, and only then; what is
known of other files can cost time but never give an address twice.
"""

from __future__ import annotations

from _bisect import bisect_left, bisect_right

from kubenode.cni.errors import DUPLICATE_ALLOCATION, RANGE_FULL, REQUESTED_ADDRESS, CNIError
from kubenode.cni.record import NamedTuple
from kubenode.ipam.address import Address
from kubenode.ipam.store import Reservation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from kubenode.ipam.ranges import Range, RangeSet, Subnet
    from kubenode.ipam.store import Attachment, Store

    Exclusions = Collection[Subnet]


class Allocation(NamedTuple):
    """An address for a pod, and the range that it is of."""

    range_set: RangeSet
    range: Range
    address: Address


class Addition(NamedTuple):
    """What an ADD was given, and what was released on the way: `dead` of an earlier boot, `nobodys` without a readable owner."""

    given: list[Allocation]
    dead: list[Reservation]
    nobodys: list[Reservation]


class Usage(NamedTuple):
    """How many addresses a range set can give, and how many of them are taken."""

    range_set: RangeSet
    total: int
    used: int


def allocate(
    store: Store, sets: Sequence[RangeSet], attachment: Attachment, requested: Sequence[Address] = (), exclude: Exclusions = ()
) -> Addition:
    """Reserve one address of each range set, or none at all. Raises CNIError."""
    with store.lock():
        dead = _release_dead(store)
        found = list(store.reservations())
        nobodys = _release_nobodys(store, found)
        search = _Search(store, attachment, found, exclude)
        wanted = dict.fromkeys(requested)
        given: list[Allocation] = []
        try:
            for range_set in sets:
                request = next((address for address in wanted if range_set.range_of(address)), None)
                if request is not None:
                    del wanted[request]
                given.append(search.reserve(range_set, request))
            _refuse_leftovers(wanted, sets)
            search.note_turns()
        except BaseException:  # all or nothing, also when the deadline's signal comes in between
            for allocation in given:
                store.release(Reservation(str(allocation.address), allocation.address, attachment))
            raise
        return Addition(given, dead, nobodys)


def release_dead(store: Store) -> list[Reservation]:
    """Release what was reserved before this boot: its containers are gone. Where no boot was noted yet, note this one."""
    with store.lock():
        return _release_dead(store)


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

    def is_stale(entry: Reservation) -> bool:
        owner = entry.attachment
        if owner is None:
            return entry.address is not None
        return owner not in valid if owner.ifname else owner.container_id not in containers

    with store.lock():
        stale = _release_dead(store)
        for entry in list(store.reservations()):
            if is_stale(entry):
                store.release(entry)
                stale.append(entry)
        return stale


def usage(store: Store, sets: Iterable[RangeSet], exclude: Exclusions = ()) -> list[Usage]:
    """Count what each range set can give and what of it is taken. Names tell that; owners are only read of a set that seems full."""
    with store.lock():
        counted = _count(store.addresses(), sets, exclude)
        if all(one.used < one.total for one in counted):
            return counted
        return _count([e.address for e in store.reservations() if e.attachment and e.address], sets, exclude)


def _count(taken: Iterable[Address], sets: Iterable[RangeSet], exclude: Exclusions) -> list[Usage]:
    numbers = _sorted_numbers(taken)
    counted = []
    for range_set in sets:
        segments = [segment for r in range_set.ranges for segment in _segments(r, exclude)]
        of_family = numbers[range_set.version]
        used = sum(bisect_right(of_family, end) - bisect_left(of_family, start) for start, end in segments)
        counted.append(Usage(range_set, sum(end - start + 1 for start, end in segments), used))
    return counted


def _find(entries: Iterable[Reservation], attachment: Attachment) -> list[Reservation]:
    found = list(entries)
    return [e for e in found if e.belongs_to(attachment)] or [e for e in found if e.is_old_and_belongs_to(attachment.container_id)]


def _release_dead(store: Store) -> list[Reservation]:
    if not store.is_of_another_boot():
        return []
    dead = [entry for entry in store.reservations() if entry.address]
    for entry in dead:
        store.release(entry)
    store.note_boot()  # last: whoever dies before leaves the work to the next
    return dead


def _release_nobodys(store: Store, found: Iterable[Reservation]) -> list[Reservation]:
    """Release what nobody owns: whoever makes a file writes it under the lock that we hold, and no DEL can ever match it."""
    nobodys = [entry for entry in found if entry.address and entry.attachment is None]
    for entry in nobodys:
        store.release(entry)
    return nobodys


def _refuse_leftovers(wanted: Iterable[Address], sets: Sequence[RangeSet]) -> None:
    if left := " ".join(map(str, wanted)):
        raise CNIError(
            REQUESTED_ADDRESS,
            f"failed to allocate all requested IPs: {left}",
            "each requested address must lie in a range set of its own: " + "; ".join(map(str, sets)),
        )


class _Search:
    """The search for addresses of one ADD, with the lock held."""

    def __init__(self, store: Store, attachment: Attachment, found: Iterable[Reservation], exclude: Exclusions) -> None:
        self._store = store
        self._attachment = attachment
        self._exclude = exclude
        self._turns: dict[int, Address] = {}
        owned = [entry for entry in found if entry.attachment and entry.address]
        self._taken = _sorted_numbers(entry.address for entry in owned if entry.address)
        self._mine = [e for e in owned if e.belongs_to(attachment) or e.is_old_and_belongs_to(attachment.container_id)]

    def reserve(self, range_set: RangeSet, request: Address | None) -> Allocation:
        """Reserve one address of a range set. Raises CNIError, which names the set by its position."""
        try:
            turn, last = self._last_reserved(range_set)
            allocation = self._next(range_set, last) if request is None else self._requested(range_set, request)
        except CNIError as error:
            raise CNIError(error.code, f"failed to allocate for range {range_set.id}: {error.msg}", error.details) from None
        self._turns[turn] = allocation.address
        return allocation

    def note_turns(self) -> None:
        """Note where each set's next turn begins; not before all are served, so that an ADD that fails has cost none."""
        for turn, address in self._turns.items():
            self._store.set_last_reserved(turn, address)

    def _last_reserved(self, range_set: RangeSet) -> tuple[int, Address | None]:
        """Return where the set's turns are noted, and the last one.

        host-local notes them under the set's position, so that a pod with IPv6 alone makes IPv4 start anew. Where another family's turn
        stands there, ours is elsewhere.
        """
        last = self._noted(range_set.id)
        if last is None or last.version == range_set.version:
            return range_set.id, last
        turn = 0
        while (last := self._noted(turn)) is not None and last.version != range_set.version:
            turn += 1
        return turn, last

    def _noted(self, turn: int) -> Address | None:
        return self._turns.get(turn) or self._store.last_reserved(turn)

    def _next(self, range_set: RangeSet, last: Address | None) -> Allocation:
        self._refuse_duplicate(range_set)
        taken = self._taken[range_set.version]
        for range_, start, end in _from_last_reserved(range_set, last, self._exclude):
            number = _first_free(taken, start)
            while number <= end:
                address = Address(range_set.version, number)
                if self._store.reserve(address, self._attachment):
                    return Allocation(range_set, range_, address)
                number = _first_free(taken, number + 1)  # something that is no reservation has its name
        raise CNIError(
            RANGE_FULL, f"no IP addresses available in range set: {range_set}", "delete pods of this node, or give it another subnet"
        )

    def _refuse_duplicate(self, range_set: RangeSet) -> None:
        """Raise CNIError for a second ADD without a DEL between, which the specification forbids (SPEC.md, "ADD")."""
        for entry in self._mine:
            if entry.address and range_set.range_of(entry.address):
                raise CNIError(
                    DUPLICATE_ALLOCATION,
                    f"{entry.address} has been allocated to {self._attachment.container_id}, duplicate allocation is not allowed",
                    f"interface {self._attachment.ifname} has its address already; the runtime must call DEL before another ADD",
                )

    def _requested(self, range_set: RangeSet, address: Address) -> Allocation:
        range_ = range_set.range_of(address)
        assert range_ is not None  # noqa: S101 -- the caller has looked
        if address == range_.gateway:
            raise CNIError(REQUESTED_ADDRESS, f"requested ip {address} is subnet's gateway", f"request another address of {range_}")
        if any(subnet.holds(address) for subnet in self._exclude):
            raise CNIError(REQUESTED_ADDRESS, f"requested ip {address} is excluded", "the network configuration's exclude has it")
        if not self._store.reserve(address, self._attachment):
            raise CNIError(
                REQUESTED_ADDRESS,
                f"requested IP address {address} is not available in range set {range_set}",
                "another container has it; request another, or wait for that one's DEL",
            )
        return Allocation(range_set, range_, address)


def _sorted_numbers(addresses: Iterable[Address]) -> dict[int, list[int]]:
    """Return the numbers of each family's addresses, in order."""
    numbers: dict[int, list[int]] = {4: [], 6: []}
    for address in addresses:
        numbers[address.version].append(address.number)
    for found in numbers.values():
        found.sort()
    return numbers


def _first_free(taken: Sequence[int], number: int) -> int:
    """Return the first number from this one on that is not taken. Its cost is in the logarithm of what is, however long the run."""
    index = bisect_left(taken, number)
    if index == len(taken) or taken[index] != number:
        return number
    # In a run without gaps a number and its place in the list grow alike.
    run = bisect_right(range(len(taken)), number - index, lo=index, key=lambda place: taken[place] - place)
    return number + run - index


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
