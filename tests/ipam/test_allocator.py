# SPDX-License-Identifier: Apache-2.0
"""The allocator: host-local's order, all or nothing, nothing twice, nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import locked
import pytest
from effort import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from memorystore import MemoryStore

from kubenode.cni.errors import CNIError
from kubenode.ipam.address import Address, parse_address
from kubenode.ipam.ranges import Subnet, make_range, make_set, parse_subnet
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from kubenode.ipam.ranges import RangeSet


def sets(*texts: str) -> list[RangeSet]:
    """Make a range set of each text, which has subnets with blanks between."""
    return [make_set(index, [make_range(parse_subnet(part)) for part in text.split()]) for index, text in enumerate(texts)]


def address(text: str) -> Address:
    found = parse_address(text)
    assert found
    return found


def owner(number: int) -> Attachment:
    return Attachment(f"c{number}", "eth0")


def add(store: MemoryStore, ranges: list[RangeSet], number: int, *requested: str, exclude: tuple[Subnet, ...] = ()) -> list[str]:
    return [str(a.address) for a in locked.allocate(store, ranges, owner(number), [address(r) for r in requested], exclude).given]


def fails(store: MemoryStore, ranges: list[RangeSet], number: int, *requested: str) -> CNIError:
    """Add, which has to fail and to leave the store as it was."""
    before = dict(store.files)
    with pytest.raises(CNIError) as error:
        add(store, ranges, number, *requested)
    assert store.files == before
    return error.value


def test_round_robin() -> None:
    """Addresses come in turn through all ranges of a set, the gateway left out, the last given one tried last."""
    store, ranges = MemoryStore(), sets("10.0.0.0/29 10.0.1.0/30")
    expected = [f"10.0.0.{n}" for n in range(2, 7)] + ["10.0.1.2"]
    for turn in range(2):
        for number, text in enumerate(expected):
            assert add(store, ranges, number) == [text], turn
            locked.release(store, owner(number))
    for number in range(6):
        add(store, ranges, number)
    locked.release(store, owner(3))
    assert add(store, ranges, 7) == ["10.0.0.5"]
    locked.release(store, owner(7))
    assert add(store, ranges, 8) == ["10.0.0.5"]


def test_a_full_set_names_its_ranges() -> None:
    """The error of a full set shows its position and its ranges; nothing stays of the other family."""
    store, ranges = MemoryStore(), sets("fd00::/64", "10.0.0.0/30 10.0.1.0/30")
    for number in range(2):
        add(store, ranges, number)
    error = fails(store, ranges, 2)
    assert (error.code, error.msg) == (
        110,
        "failed to allocate for range 1: no IP addresses available in range set: 10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.2",
    )


def test_turns_are_the_familys() -> None:
    """Pods with one family and pods with both, in any order, do not disturb each other's turns."""
    store = MemoryStore()
    both, v6, v4 = sets("10.0.0.0/24", "fd00::/64"), sets("fd00::/64"), sets("10.0.0.0/24")
    got = []
    for number, ranges in enumerate([v6, both, v6, both, v4, both, v6, v4]):
        got.append(add(store, ranges, number))
        locked.release(store, owner(number))
    assert [text for pair in got for text in pair if ":" in text] == [f"fd00::{n}" for n in range(2, 8)]
    assert [text for pair in got for text in pair if "." in text] == [f"10.0.0.{n}" for n in range(2, 7)]


def test_requested_addresses() -> None:
    """A requested address is given if it is free, and is what its set gives; otherwise nothing is."""
    store, ranges = MemoryStore(), sets("10.0.0.0/24", "fd00::/64")
    assert add(store, ranges, 1, "fd00::99", "10.0.0.77") == ["10.0.0.77", "fd00::99"]
    assert add(store, ranges, 2) == ["10.0.0.78", "fd00::9a"]
    for requested, message in (
        ("10.0.0.1", "failed to allocate for range 0: requested ip 10.0.0.1 is subnet's gateway"),
        ("10.0.0.77", "failed to allocate for range 0: requested IP address 10.0.0.77 is not available in range set 10.0.0.1-10.0.0.254"),
        ("192.0.2.1", "failed to allocate all requested IPs: 192.0.2.1"),
    ):
        error = fails(store, ranges, 3, requested)
        assert (error.code, error.msg) == (112, message)


def test_excluded_addresses() -> None:
    """What is excluded is never given, in turn or on request; a set of which all is excluded is full."""
    store, ranges = MemoryStore(), sets("10.0.0.0/29")
    exclude = (Subnet(4, address("10.0.0.2").number, 31), Subnet(4, address("10.0.0.5").number, 32), parse_subnet("fd00::/64"))
    assert [add(store, ranges, n, exclude=exclude) for n in range(2)] == [["10.0.0.4"], ["10.0.0.6"]]
    with pytest.raises(CNIError, match="no IP addresses available"):
        add(store, ranges, 2, exclude=exclude)
    with pytest.raises(CNIError, match=r"requested ip 10\.0\.0\.5 is excluded"):
        add(store, ranges, 2, "10.0.0.5", exclude=exclude)
    assert [tuple(u)[1:] for u in locked.usage(store, ranges, exclude)] == [(2, 2)]


def test_a_second_add() -> None:
    """One container's interface gets no second address of a set; another interface of it does."""
    store, ranges = MemoryStore(), sets("10.0.0.0/24")
    add(store, ranges, 1)
    error = fails(store, ranges, 1)
    assert (error.code, error.msg) == (
        111,
        "failed to allocate for range 0: 10.0.0.2 has been allocated to c1, duplicate allocation is not allowed",
    )
    assert locked.allocate(store, ranges, Attachment("c1", "net1")).given[0].address == address("10.0.0.3")


def test_old_files() -> None:
    """A file with a container ID alone belongs to that container where nothing newer does; GC keeps it with the container."""
    store, ranges = MemoryStore(), sets("10.0.0.0/24")
    store.files = {"10.0.0.2": Attachment("c1", ""), "10.0.0.3": Attachment("c2", "")}
    assert fails(store, ranges, 1).code == 111
    assert [entry.name for entry in locked.find(store, owner(1))] == ["10.0.0.2"]
    assert locked.collect(store, {Attachment("c1", "net1")})[0].name == "10.0.0.3"
    assert [entry.name for entry in locked.release(store, owner(1))] == ["10.0.0.2"]
    assert store.files == {}


def test_what_nobody_owns_is_free() -> None:
    """A file of which nobody can be the owner does not eat the range; what is not named by an address stays."""
    store, ranges = MemoryStore(), sets("10.0.0.0/30")
    store.files = {"10.0.0.2": None, "notes": None}
    addition = locked.allocate(store, ranges, owner(1))
    assert [str(a.address) for a in addition.given] == ["10.0.0.2"]
    assert [entry.name for entry in addition.ownerless] == ["10.0.0.2"]
    assert store.files == {"10.0.0.2": owner(1), "notes": None}


def test_gc_takes_addresses_alone() -> None:
    """A file in the directory that is named by no address stays, though what it holds could be a container's ID."""
    store = MemoryStore()
    store.files = {"10.0.0.2": owner(1), "VERSION": Attachment("5", ""), "notes": None}
    assert [entry.name for entry in locked.collect(store, set())] == ["10.0.0.2"]
    assert store.files == {"VERSION": Attachment("5", ""), "notes": None}


def test_an_obstacle_is_passed_by() -> None:
    """An address whose name something else has is not given, and the next one is."""
    store, ranges = MemoryStore(), sets("10.0.0.0/29")
    store.obstacles = {address("10.0.0.2"), address("10.0.0.3")}
    assert add(store, ranges, 1) == ["10.0.0.4"]


def test_reboot() -> None:
    """After a reboot everything is released, once, by whatever comes first of ADD and GC."""
    store, ranges = MemoryStore(), sets("10.0.0.0/24")
    add(store, ranges, 1)
    store.boot = 2
    dead, _ = locked.add(store, ranges, owner(1))
    assert [entry.name for entry in dead] == ["10.0.0.2"]
    assert list(store.files) == ["10.0.0.3"]
    store.boot = 3
    assert [entry.name for entry in locked.collect(store, {owner(1)})] == ["10.0.0.3"]
    add(store, ranges, 1)
    assert locked.release_from_earlier_boot(store) == []
    assert len(store.files) == 1


def test_a_set_that_was_full_before_the_reboot() -> None:
    """What the next ADD will release keeps no set full: STATUS would refuse that ADD for ever."""
    store, ranges = MemoryStore(), sets("10.0.0.0/30")
    add(store, ranges, 1)
    assert [one.used for one in locked.usage(store, ranges)] == [1]
    store.boot = 2
    assert [one.used for one in locked.usage(store, ranges)] == [0]
    assert list(store.files) == ["10.0.0.2"]
    assert add(store, ranges, 2) == ["10.0.0.2"]


@pytest.mark.slow
@pytest.mark.parametrize("free", ["10.1.0.2", "10.1.128.7", "10.1.255.254"])
def test_the_one_free_address_of_a_16(free: str) -> None:
    """The only free address of a /16 is found wherever it lies, without trying all others."""
    store, ranges = MemoryStore(), sets("10.1.0.0/16")
    first = address("10.1.0.2").number
    taken = {str(Address(4, number)): owner(number) for number in range(first, first + 65_533)}
    del taken[free]
    store.files = dict(taken)
    store.turns = {0: address("10.1.77.1")}
    tried: list[Address] = []

    class Counting(MemoryStore):
        def reserve(self, address: Address, attachment: Attachment) -> bool:
            tried.append(address)
            return super().reserve(address, attachment)

    counting = Counting()
    counting.__dict__.update(store.__dict__)
    assert add(counting, ranges, 0) == [free]
    assert tried == [address(free)]
    assert [tuple(u)[1:] for u in locked.usage(counting, ranges)] == [(65_533, 65_533)]


class Model(RuleBasedStateMachine):
    """Pods come and go, plugins crash, hosts reboot, people drop files: what must hold holds."""

    RANGES = sets("10.0.0.0/29 10.0.1.0/30", "fd00::/125")
    EXCLUDE = (Subnet(4, address("10.0.0.3").number, 32), Subnet(6, address("fd00::4").number, 127))
    CONTAINERS = st.integers(0, 9)

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.given: dict[int, set[str]] = {}

    @rule(number=CONTAINERS, wanted=st.sampled_from(["", "10.0.0.4", "10.0.0.3", "10.0.0.1", "fd00::2", "1.1.1.1"]))
    def allocate(self, number: int, wanted: str) -> None:
        before = dict(self.store.files)
        try:
            got = add(self.store, self.RANGES, number, *([wanted] if wanted else []), exclude=self.EXCLUDE)
        except CNIError as error:
            owned = {name for name, attachment in self.store.files.items() if attachment}
            assert owned == {name for name, attachment in before.items() if attachment}
            if error.code == 110:
                assert len([name for name in owned if ":" in name]) == 4 or len([name for name in owned if "." in name]) == 5
            elif error.code == 111:
                assert number in self.given
            else:
                assert (error.code, bool(wanted)) == (112, True)
        else:
            assert number not in self.given or wanted
            assert not set(got) & {text for texts in self.given.values() for text in texts}
            self.given.setdefault(number, set()).update(got)

    @rule(number=CONTAINERS)
    def release(self, number: int) -> None:
        freed = {entry.name for entry in locked.release(self.store, owner(number))}
        assert freed == self.given.pop(number, set())

    @rule(valid=st.sets(CONTAINERS))
    def collect(self, valid: set[int]) -> None:
        locked.collect(self.store, {owner(number) for number in valid})
        self.given = {number: texts for number, texts in self.given.items() if number in valid}

    @rule(name=st.sampled_from(["10.0.0.4", "fd00::2", "10.9.9.9", "note"]))
    def crash_leaves_an_empty_file(self, name: str) -> None:
        self.store.files.setdefault(name, None)

    @rule()
    def reboot(self) -> None:
        self.store.boot += 1
        locked.release_from_earlier_boot(self.store)
        self.given = {}

    @rule(turn=st.sampled_from([0, 1, 2]), text=st.sampled_from(["10.0.0.6", "10.0.1.2", "fd00::7", "192.0.2.1", "10.0.0.3"]))
    def somebody_elses_turn(self, turn: int, text: str) -> None:
        self.store.turns[turn] = address(text)

    @invariant()
    def holds(self) -> None:
        owned = {name: attachment for name, attachment in self.store.files.items() if attachment}
        assert owned == {text: owner(number) for number, texts in self.given.items() for text in texts}
        for text in owned:
            assert any(r.range_of(address(text)) for r in self.RANGES)
            assert text not in {"10.0.0.1", "10.0.1.1", "fd00::1", "10.0.0.3", "fd00::4", "fd00::5"}


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
