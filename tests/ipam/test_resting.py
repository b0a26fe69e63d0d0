# SPDX-License-Identifier: Apache-2.0
"""Addresses that rest for a pod: its next one gets them, others leave them alone, none is ever lost or given twice."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import locked
import pytest
from effort import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from memorystore import MemoryStore

from kubenode.cni.errors import RANGE_FULL, REQUESTED_ADDRESS, CNIError
from kubenode.ipam import allocator
from kubenode.ipam.address import parse_address
from kubenode.ipam.ranges import make_range, make_set, parse_subnet
from kubenode.ipam.resting import Rest, owner_of, rest_of, seconds
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.ipam.address import Address
    from kubenode.ipam.ranges import RangeSet
    from kubenode.ipam.store import Reservation

HOUR = 3600.0


def sets(*texts: str) -> list[RangeSet]:
    return [make_set(index, [make_range(parse_subnet(text))]) for index, text in enumerate(texts)]


SMALL, BOTH = sets("10.0.0.0/29"), sets("10.0.0.0/29", "fd00::/125")  # 5 addresses of IPv4, 6 of IPv6


class Killed(BaseException):
    """The end of a process, at any step."""


class MortalStore(MemoryStore):
    """A store whose process dies before a number of changes are made."""

    left = 1 << 30

    def _step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def reserve(self, address: Address, attachment: Attachment) -> bool:
        self._step()
        return super().reserve(address, attachment)

    def release(self, reservation: Reservation) -> bool:
        self._step()
        return super().release(reservation)


def add(store: MemoryStore, container: str, pod: str, ranges: list[RangeSet] = SMALL, *requested: str) -> list[str]:
    wanted = [found for text in requested if (found := parse_address(text))]
    with store.lock():
        return [str(one.address) for one in allocator.allocate(store, ranges, Attachment(container, "eth0"), wanted, (), pod).given]


def delete(store: MemoryStore, container: str, pod: str, sticky_for: float = HOUR) -> None:
    with store.lock():
        allocator.release(store, Attachment(container, "eth0"), owner_of(pod, time.time() + sticky_for, "eth0"))


def resting(store: MemoryStore) -> dict[str, str]:
    return {name: rest.pod for name, owner in store.files.items() if (rest := rest_of(owner))}


def test_the_next_pod_of_the_name_gets_it() -> None:
    """A pod's addresses of both families are the next one's of its namespace and name; another pod gets others."""
    store = MemoryStore()
    had = add(store, "c1", "shop/db-0", BOTH)
    delete(store, "c1", "shop/db-0")
    assert resting(store) == dict.fromkeys(had, "shop/db-0")
    assert not set(add(store, "c2", "other/db-0", BOTH)) & set(had)
    assert add(store, "c3", "shop/db-0", BOTH) == had
    assert resting(store) == {}


def test_another_interface_is_another_address() -> None:
    """Of a pod with two interfaces in a network each gets its own again."""
    store = MemoryStore()
    for ifname in ("net1", "net2"):
        with store.lock():
            allocator.allocate(store, SMALL, Attachment("c1", ifname), (), (), "a/b")
    had = {owner.ifname: name for name, owner in store.files.items() if owner}
    for ifname in ("net1", "net2"):
        with store.lock():
            allocator.release(store, Attachment("c1", ifname), owner_of("a/b", time.time() + HOUR, ifname))
    for ifname in ("net2", "net1"):
        with store.lock():
            (given,) = allocator.allocate(store, SMALL, Attachment("c2", ifname), (), (), "a/b").given
        assert str(given.address) == had[ifname]


def test_a_full_range_takes_the_oldest() -> None:
    """What rests is in use until nothing else is left; then the one that has rested for longest goes first."""
    store = MemoryStore()
    had = {number: add(store, f"c{number}", f"a/p{number}")[0] for number in range(5)}
    for number, sticky_for in ((3, 2 * HOUR), (1, HOUR), (4, 3 * HOUR)):
        delete(store, f"c{number}", f"a/p{number}", sticky_for)
    assert [add(store, f"n{number}", f"a/n{number}")[0] for number in range(3)] == [had[1], had[3], had[4]]
    with pytest.raises(CNIError) as error:
        add(store, "n3", "a/n3")
    assert error.value.code == RANGE_FULL


def test_what_has_rested_is_free() -> None:
    """After its time an address is anybody's: the next ADD, GC and the agent's housekeeping release it."""
    ends: list[Callable[[MemoryStore], object]] = [
        lambda store: allocator.allocate(store, SMALL, Attachment("c9", "eth0")),
        lambda store: allocator.collect(store, []),
        allocator.release_rested,
    ]
    for end in ends:
        store = MemoryStore()
        (had,) = add(store, "c1", "a/b")
        delete(store, "c1", "a/b", -1)
        assert resting(store) == {had: "a/b"}
        with store.lock():
            end(store)
        assert resting(store) == {}


def test_gc_leaves_it() -> None:
    """GC, whose list can not have who rests, leaves it; a reboot ends it, as it ends all reservations."""
    store = MemoryStore()
    (had,) = add(store, "c1", "a/b")
    delete(store, "c1", "a/b")
    with store.lock():
        assert allocator.collect(store, []) == []
        assert allocator.release_rested(store) == []
    assert resting(store) == {had: "a/b"}
    store.boot += 1
    with store.lock():
        assert [entry.name for entry in allocator.release_from_earlier_boot(store)] == [had]


def test_requested() -> None:
    """A pod may request what rests for it; another pod may not, as it is in use."""
    store = MemoryStore()
    (had,) = add(store, "c1", "a/b")
    delete(store, "c1", "a/b")
    with pytest.raises(CNIError) as error:
        add(store, "c2", "a/other", SMALL, had)
    assert error.value.code == REQUESTED_ADDRESS
    assert resting(store) == {had: "a/b"}
    assert add(store, "c3", "a/b", SMALL, had) == [had]


def test_a_configuration_that_has_changed() -> None:
    """What rests in a range that is not there any more is given to nobody."""
    store = MemoryStore()
    add(store, "c1", "a/b")
    delete(store, "c1", "a/b")
    assert add(store, "c2", "a/b", sets("10.9.0.0/29")) == ["10.9.0.2"]


def test_a_range_that_is_closing() -> None:
    """What rests in a range of which nothing more is given is not given either; the pod gets an address of another range."""
    store = MemoryStore()
    add(store, "c1", "a/b")
    delete(store, "c1", "a/b")
    closing = make_range(parse_subnet("10.0.0.0/29"))._replace(closing=True)
    assert add(store, "c2", "a/b", [make_set(0, [closing, make_range(parse_subnet("10.9.0.0/29"))])]) == ["10.9.0.2"]


def test_an_add_that_fails_leaves_it_resting() -> None:
    """Where one family has nothing left, what rests of the other rests on."""
    store = MemoryStore()
    had = add(store, "c1", "a/b", BOTH)
    delete(store, "c1", "a/b")
    del store.files[had[1]]
    for number in range(6):
        add(store, f"v6-{number}", "", BOTH[1:])
    with pytest.raises(CNIError):
        add(store, "c2", "a/b", BOTH)
    assert resting(store) == {had[0]: "a/b"}


def test_a_second_add_is_refused() -> None:
    """An ADD without a DEL between is an error, also where an address rests for its pod."""
    store = MemoryStore()
    add(store, "c1", "a/b")
    delete(store, "c1", "a/b")
    store.files["10.0.0.5"] = Attachment("c2", "eth0")
    with pytest.raises(CNIError, match="duplicate allocation"):
        add(store, "c2", "a/b")
    assert len(resting(store)) == 1


def test_usage() -> None:
    """It counts as used while there are others; where all is used, the next ADD can have it, and STATUS does not say that it is full."""
    store = MemoryStore()
    for number in range(4):
        add(store, f"c{number}", f"a/p{number}")
    delete(store, "c0", "a/p0")
    (usage,) = locked.usage(store, SMALL)
    assert (usage.total, usage.used) == (5, 4)
    add(store, "c5", "a/p5")
    (usage,) = locked.usage(store, SMALL)
    assert (usage.total, usage.used) == (5, 4)


@pytest.mark.parametrize("steps", range(8))
def test_killed_at_each_step(steps: int) -> None:
    """Whoever dies between release and rest, or between rest and the next pod, has left no address that is two pods' or nobody's."""
    store = MortalStore()
    (had,) = add(store, "c1", "a/b")
    for act in (lambda: delete(store, "c1", "a/b"), lambda: add(store, "c2", "a/b")):
        store.left = steps
        try:
            act()
        except Killed:
            store.locked = False
        store.left = 1 << 30
        owners = list(store.files.values())
        assert len(owners) <= 1
        assert all(owner and (rest_of(owner) or owner.container_id in {"c1", "c2"}) for owner in owners)
    delete(store, "c1", "a/b")  # as a runtime does, until it succeeds
    delete(store, "c2", "a/b")
    assert not [owner for owner in store.files.values() if not rest_of(owner)]
    assert add(store, "c3", "a/b") == [had] or steps < 2


class Pods(RuleBasedStateMachine):
    """Pods of five names that come and go, with a clock that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.living: dict[str, tuple[str, str]] = {}  # container: pod, address
        self.number = 0

    @rule(name=st.integers(0, 4))
    def add(self, name: int) -> None:
        self.number += 1
        container, pod = f"c{self.number}", f"a/p{name}"
        now = time.time()
        before = {file: rest.pod for file, owner in self.store.files.items() if (rest := rest_of(owner)) and rest.until > now}
        try:
            (given,) = add(self.store, container, pod)
        except CNIError as error:
            assert error.code == RANGE_FULL
            assert len(self.living) == 5
            return
        assert given not in {address for _, address in self.living.values()}
        if pod in before.values():
            assert before[given] == pod
        elif given in before:
            assert len(self.living) + len(before) == 5
        self.living[container] = (pod, given)

    @rule(data=st.data(), sticky_for=st.sampled_from([-1.0, 100.0, 200.0]))
    def delete(self, data: st.DataObject, sticky_for: float) -> None:
        if self.living:
            container = data.draw(st.sampled_from(sorted(self.living)))
            delete(self.store, container, self.living.pop(container)[0], sticky_for)

    @rule()
    def collect(self) -> None:
        with self.store.lock():
            allocator.collect(self.store, [Attachment(container, "eth0") for container in self.living])

    @invariant()
    def each_address_has_one(self) -> None:
        owners = {owner.container_id: name for name, owner in self.store.files.items() if owner and not rest_of(owner)}
        assert owners == {container: address for container, (_, address) in self.living.items()}


TestPods = Pods.TestCase
TestPods.settings = settings(max_examples=examples(50), deadline=None)


GOOD: dict[Any, float] = {"1h": 3600, "90s": 90, "1h30m": 5400, "2d": 172800, 60: 60, 0: 0, "0s": 0}
BAD: list[Any] = ["", "1", "h", "1h2", "-1h", "1.5h", "1w", -1, 2e9, True, [], "99999999999999d", "9999999999d"]


@pytest.mark.parametrize(("value", "found"), [*GOOD.items(), *((value, None) for value in BAD)])
def test_seconds(value: Any, found: float | None) -> None:
    """A duration is a number of seconds, or numbers with s, m, h, d behind them."""
    assert seconds(value) == found


def test_names() -> None:
    """A pod with any name that Kubernetes allows can be found again; what is no name of a pod does not rest."""
    name = "a" * 63 + ".b-c" * 40
    owner = owner_of(f"kube-system/{name}", 1764000000.9, "eth0")
    assert owner
    assert rest_of(owner) == Rest(1764000000, "kube-system", name, "eth0")
    assert [owner_of(pod, 1.0, "eth0") for pod in ("", "a", "a/", "/a", "a.b/c", "a/b\r\nc", "../x", "a/ b")] == [None] * 8
    assert owner_of("a/b", 1.0, "") is None
    for container in ("c1", "kube-node.resting.", "kube-node.resting.x.a.b", "kube-node.resting.1.a", "kube-node.resting.1..b"):
        assert rest_of(Attachment(container, "eth0")) is None
