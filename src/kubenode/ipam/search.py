# SPDX-License-Identifier: Apache-2.0
"""Search for the next address: host-local's order (its `allocator.go`), but it jumps over reserved addresses instead of trying each."""

from __future__ import annotations

try:
    from _bisect import bisect_left, bisect_right
except ImportError:
    from bisect import bisect_left, bisect_right

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import DUPLICATE_ALLOCATION, RANGE_FULL, REQUESTED_ADDRESS, CNIError
from kubenode.ipam.address import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kubenode.ipam.ranges import Range, RangeSet, Subnet
    from kubenode.ipam.store import Attachment, Index, Store

    Exclusions = Collection[Subnet]


class Allocation(NamedTuple):
    """Address of a pod, and its range."""

    range_set: RangeSet
    range: Range
    address: Address


class Search:
    """Search for the addresses of one ADD, with the lock held."""

    def __init__(self, store: Store, attachment: Attachment, index: Index, exclude: Exclusions) -> None:
        self._store = store
        self._attachment = attachment
        self._exclude = exclude
        self._turns: dict[int, Address] = {}
        self._taken = index.taken
        self._mine = index.of(attachment) + index.of_container(attachment.container_id)

    def reserve(self, range_set: RangeSet, request: Address | None) -> Allocation:
        """Reserve one address of a range set. Raises CNIError, which names the set by its position."""
        try:
            turn, last = self._last_reserved(range_set)
            allocation = self._next(range_set, last) if request is None else self._requested(range_set, request)
        except CNIError as error:
            where = f"failed to allocate for range {range_set.id}"
            raise CNIError(error.code, f"{where}: {error.msg}", error.details, f"{where}: {error.reference}") from None
        self._turns[turn] = allocation.address
        return allocation

    def note_turns(self) -> None:
        """Note the last reserved address of each set; only at the end, so that a failed ADD changes nothing."""
        for turn, address in self._turns.items():
            self._store.set_last_reserved(turn, address)

    def _last_reserved(self, range_set: RangeSet) -> tuple[int, Address | None]:
        """Return the number of the set's `last_reserved_ip` file, and the address in it.

        host-local takes the set's position as number, so a pod with only IPv6 would restart IPv4's round robin. If the file has another
        family, we use another number.
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
                number = _first_free(taken, number + 1)  # a file that is not a reservation has this name
        if all(r.closing for r in range_set.ranges):
            raise closing(str(range_set))
        raise CNIError(
            RANGE_FULL, f"no IP addresses available in range set: {range_set}", "delete pods of this node, or give it another subnet"
        )

    def _refuse_duplicate(self, range_set: RangeSet) -> None:
        """Raise CNIError for a second ADD without a DEL, which the specification forbids (SPEC.md, "ADD")."""
        for entry in self._mine:
            if entry.address and range_set.range_of(entry.address):
                raise duplicate(entry.address, self._attachment)

    def _requested(self, range_set: RangeSet, address: Address) -> Allocation:
        range_ = range_set.range_of(address)
        assert range_ is not None  # noqa: S101 -- the caller has checked
        if address == range_.gateway:
            raise CNIError(REQUESTED_ADDRESS, f"requested ip {address} is subnet's gateway", f"request another address of {range_}")
        if range_.closing:
            raise CNIError(REQUESTED_ADDRESS, f"requested ip {address} is in a closing subnet", "request one of another subnet")
        if any(subnet.holds(address) for subnet in self._exclude):
            raise CNIError(REQUESTED_ADDRESS, f"requested ip {address} is excluded", "the network configuration's exclude has it")
        if not self._store.reserve(address, self._attachment):
            is_mine = any(entry.address == address for entry in self._mine)
            raise CNIError(
                DUPLICATE_ALLOCATION if is_mine else REQUESTED_ADDRESS,
                f"requested IP address {address} is not available in range set {range_set}",
                f"interface {self._attachment.ifname} has it already; the runtime must call DEL before another ADD"
                if is_mine
                else "another container has it; request another, or wait for that one's DEL",
            )
        return Allocation(range_set, range_, address)


def duplicate(address: Address, attachment: Attachment) -> CNIError:
    """Return the error for an ADD of an attachment that already has an address."""
    return CNIError(
        DUPLICATE_ALLOCATION,
        f"{address} has been allocated to {attachment.container_id}, duplicate allocation is not allowed",
        f"interface {attachment.ifname} has its address already; the runtime must call DEL before another ADD",
    )


def closing(what: str) -> CNIError:
    """Return the error if all ranges are closing."""
    advice = "all of it is closing: give the node another subnet, or take the word closing out of its annotation"
    return CNIError(RANGE_FULL, f"no new address is given of {what}", advice)


def _first_free(taken: Sequence[int], number: int) -> int:
    """Return the first free number from this one on. Its cost grows with the logarithm of the number of reserved ones."""
    index = bisect_left(taken, number)
    if index == len(taken) or taken[index] != number:
        return number
    # In a run without gaps, a number and its place in the list grow by the same amount.
    run = bisect_right(range(len(taken)), number - index, lo=index, key=lambda place: taken[place] - place)
    return number + run - index


def _from_last_reserved(range_set: RangeSet, last: Address | None, exclude: Exclusions) -> Iterator[tuple[Range, int, int]]:
    """Iterate over all free segments of a set, from the one after the last reserved address around to that address itself.

    So a container that restarts again and again gets an address again only after all others.
    """
    segments = [(r, start, end) for r in range_set.ranges if not r.closing for start, end in segments_of(r, exclude)]
    last_range = range_set.range_of(last) if last else None
    if last is None or last_range is None:
        yield from segments
        return
    index = range_set.ranges.index(last_range)
    rank = [range_set.ranges.index(r) for r, _, _ in segments]
    after = [(r, max(s, last.number + 1) if i == index else s, e) for (r, s, e), i in zip(segments, rank, strict=True) if i >= index]
    before = [(r, s, min(e, last.number) if i == index else e) for (r, s, e), i in zip(segments, rank, strict=True) if i <= index]
    yield from (segment for segment in after + before if segment[1] <= segment[2])


def segments_of(range_: Range, exclude: Exclusions) -> Iterator[tuple[int, int]]:
    """Split a range at the gateway and the exclusions: first and last number of each piece, in order."""
    version = range_.subnet.version
    holes = sorted((subnet.number, subnet.last) for subnet in exclude if subnet.version == version)
    if range_.gateway and range_.holds(range_.gateway):
        holes = sorted([*holes, (range_.gateway.number, range_.gateway.number)])
    start = range_.start
    for first, last in holes:
        if start <= first - 1:
            yield start, min(first - 1, range_.end)
        start = max(start, last + 1)
        if start > range_.end:
            return
    yield start, range_.end
