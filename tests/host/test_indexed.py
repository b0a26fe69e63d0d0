# SPDX-License-Identifier: Apache-2.0
"""The store with an index that outlives a call: right whoever else changes the directory, and quick where nobody does."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import locked
import pytest
from effort import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from rebooting import NextBoot, note

from kubenode.cni.errors import CNIError
from kubenode.host.boot import Boot
from kubenode.host.datadir import DiskStore
from kubenode.host.indexed import DirectoryState, IndexedStore, Memory
from kubenode.ipam.address import Address
from kubenode.ipam.ranges import make_range, make_set, parse_subnet
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from kubenode.ipam.ranges import RangeSet
    from kubenode.ipam.store import Reservation, Store

GATEWAY = Address(4, (10 << 24) + 1)
SETS: list[RangeSet] = [make_set(number, [make_range(parse_subnet(text))]) for number, text in enumerate(("10.0.0.0/27", "fd00::/120"))]


def owner(number: int) -> Attachment:
    return Attachment(f"c{number}", "eth0")


def add(store: Store, number: int) -> list[str]:
    return [str(given.address) for given in locked.allocate(store, SETS, owner(number)).given]


class Counting(IndexedStore):
    """Counts how often it reads the disk."""

    reads = 0

    def reservations(self):  # type: ignore[no-untyped-def] # noqa: ANN201 -- as in DiskStore
        Counting.reads += 1
        return super().reservations()


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def kept(tmp_path: Path, memory: Memory) -> Counting:
    Counting.reads = 0
    return Counting(str(tmp_path), "net", memory, lambda: None, Boot(str(tmp_path), lambda: "m"))


@pytest.fixture
def other(tmp_path: Path) -> DiskStore:
    """Return the same network's store as another process has it."""
    return DiskStore(str(tmp_path), "net")


def test_the_disk_is_read_once(kept: Counting) -> None:
    """However many calls there are, the reservations are read once, where nobody else changes them."""
    for number in range(10):
        add(kept, number)
    for number in range(10):
        assert len(locked.release(kept, owner(number))) == 2
    assert locked.usage(kept, SETS)[0].used == 0
    assert Counting.reads == 1


def test_a_change_in_the_same_tick_is_seen(kept: Counting, other: DiskStore) -> None:
    """Whoever comes right after us, within one tick of the kernel's clock, is seen: ADD, DEL, and ADD with our last turn."""
    for number in range(examples(300)):
        first = add(kept, 1)
        second = add(other, 2)
        assert len({*first, *second}) == 4
        assert sorted(entry.name for entry in locked.find(kept, owner(2))) == sorted(second), number
        locked.release(other, owner(1))
        assert locked.find(kept, owner(1)) == []
        locked.release(kept, owner(2))
        assert locked.find(other, owner(2)) == []


def test_a_new_directory_is_another(kept: Counting, tmp_path: Path) -> None:
    """A directory that was removed and made anew is read anew."""
    add(kept, 1)
    shutil.rmtree(tmp_path / "net")
    assert locked.find(kept, owner(1)) == []
    assert add(kept, 2) == ["10.0.0.2", "fd00::2"]


def test_a_file_system_without_nanoseconds(tmp_path: Path) -> None:
    """Where the directory's time cannot be kept to the nanosecond the index is not trusted, and all is right nonetheless."""

    class Coarse(Counting):
        def _state(self) -> DirectoryState:
            state = super()._state()
            return state._replace(modified=state.modified // 1_000_000_000 * 1_000_000_000)

    Counting.reads = 0
    kept = Coarse(str(tmp_path), "net", Memory(), lambda: None)
    for number in range(5):
        add(kept, number)
    assert Counting.reads == 5


def test_a_change_without_the_lock(kept: Counting, other: DiskStore, tmp_path: Path) -> None:
    """A file that somebody removes while we hold the lock is noticed by the next look at the names."""
    add(kept, 1)
    with kept.lock():
        kept.reserve(GATEWAY, owner(9))
        (tmp_path / "net/10.0.0.2").unlink()
    with kept.lock():
        assert not kept.is_as_indexed()
        assert kept.is_as_indexed()
        assert len(kept.index().of(owner(1))) == 1
    assert len(locked.find(other, owner(9))) == 1


def test_another_owners_file_is_not_released(kept: Counting, other: DiskStore, tmp_path: Path) -> None:
    """Where a file was removed while we held the lock, the DEL of whose it was leaves the address to who has it now."""
    add(kept, 1)
    with kept.lock():
        kept.reserve(GATEWAY, owner(9))
        (tmp_path / "net/10.0.0.2").unlink()
    locked.allocate(kept, SETS[:1], owner(2), [Address(4, (10 << 24) + 2)])
    locked.release(kept, owner(1))
    assert [entry.name for entry in locked.find(other, owner(2))] == ["10.0.0.2"]
    assert [entry.name for entry in locked.release(kept, owner(2))] == ["10.0.0.2"]
    assert locked.find(other, owner(2)) == []


def test_what_is_no_reservation_is_no_change(kept: Counting, tmp_path: Path) -> None:
    """A directory or a link that has an address's name is nobody's change, however often it is looked at."""
    add(kept, 1)
    (tmp_path / "net/10.0.0.9").mkdir()
    (tmp_path / "net/10.0.0.10").symlink_to("10.0.0.2")
    assert locked.release(kept, owner(2)) == []
    with kept.lock():
        assert kept.is_as_indexed()


def test_what_a_killed_writer_has_left_is_no_change(kept: Counting, tmp_path: Path) -> None:
    """A file that nobody owns is known to be there, until the next ADD takes it away."""
    add(kept, 1)
    (tmp_path / "net/10.0.0.9").touch()
    os.utime(tmp_path / "net/10.0.0.9", times=(0, 0))
    assert locked.release(kept, owner(2)) == []
    with kept.lock():
        assert kept.is_as_indexed()
    add(kept, 3)
    assert not (tmp_path / "net/10.0.0.9").exists()


def test_a_lock_that_is_kept(tmp_path: Path, memory: Memory, kept: Counting) -> None:
    """Nobody else comes in before the call is left, and the call itself comes in again; leaving twice is leaving once."""
    mine = IndexedStore(str(tmp_path), "net", memory, lambda: None, keep=True)
    add(mine, 1)
    assert memory.mutex.locked()
    with (tmp_path / "net/lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert len(locked.release(mine, owner(1))) == 2
    mine.leave()
    mine.leave()
    add(kept, 2)
    assert Counting.reads == 0


def test_a_lock_that_is_kept_over_a_fault(tmp_path: Path, memory: Memory, kept: Counting) -> None:
    """What a fault has left is read anew, by the call itself and by the next."""
    mine = IndexedStore(str(tmp_path), "net", memory, lambda: None, keep=True)

    def fault() -> None:
        with mine.lock():
            (tmp_path / "net/10.0.0.2").unlink()
            raise ZeroDivisionError

    add(mine, 1)
    with pytest.raises(ZeroDivisionError):
        fault()
    assert [entry.name for entry in locked.release(mine, owner(1))] == ["fd00::2"]
    mine.leave()
    add(kept, 2)
    assert len(locked.find(kept, owner(2))) == 2


def test_an_obstacle(kept: Counting, tmp_path: Path) -> None:
    """An index that is wrong costs time but gives no address twice: the file's creation decides."""
    add(kept, 1)
    (tmp_path / "net/10.0.0.3").mkdir()
    assert add(kept, 2) == ["10.0.0.4", "fd00::3"]


def test_an_error_makes_it_forget(kept: Counting, memory: Memory) -> None:
    """After a fault nothing is taken for known; after an answer of ours all is."""
    add(kept, 1)
    with pytest.raises(CNIError):
        add(kept, 1)
    reads = Counting.reads
    assert len(locked.find(kept, owner(1))) == 2
    assert Counting.reads == reads
    with pytest.raises(OSError, match="fault"), kept.lock():
        raise OSError("fault")
    assert len(locked.find(kept, owner(1))) == 2
    assert Counting.reads == reads + 1
    assert memory.mutex.acquire(timeout=1)


def test_too_late(tmp_path: Path, memory: Memory, kept: Counting) -> None:
    """What has to be said once the lock is held is said then: nothing is reserved, and the next has the lock."""

    def too_late() -> None:
        raise CNIError(11, "too late")

    add(kept, 1)
    with pytest.raises(CNIError, match="too late"):
        add(Counting(str(tmp_path), "net", memory, too_late), 2)
    assert add(kept, 3) == ["10.0.0.3", "fd00::3"]


def test_the_boot_is_asked_for_once(kept: Counting, tmp_path: Path) -> None:
    """The reservations of another boot are released by the first look; a process does not outlive a boot."""
    add(kept, 1)
    again = Counting(str(tmp_path), "net", Memory(), lambda: None, NextBoot(str(tmp_path), lambda: "m"))
    (tmp_path / ".net.note").write_text(note("m"))
    assert [entry.name for entry in locked.release_from_earlier_boot(again)] == ["10.0.0.2", "fd00::2"]
    (tmp_path / ".net.note").write_text(note("m"))
    add(kept, 2)
    assert locked.release_from_earlier_boot(again) == []


@pytest.mark.parametrize("content", ["{}", "{}\r\neth0\r\n"])
def test_a_reservation_rewritten_in_place(kept: Counting, tmp_path: Path, content: str) -> None:
    """A file that is its owner's in another form, which changes no directory, is found by the owner's CHECK and released by its DEL."""
    for number in range(2):
        add(kept, number)
        for name in (f"10.0.0.{number + 2}", f"fd00::{number + 2}"):
            (tmp_path / "net" / name).write_text(content.format(f"c{number}"))
    assert sorted(entry.name for entry in locked.find(kept, owner(1))) == ["10.0.0.3", "fd00::3"]
    assert sorted(entry.name for entry in locked.release(kept, owner(0))) == ["10.0.0.2", "fd00::2"]
    assert not (tmp_path / "net/10.0.0.2").exists()


def test_gc_of_a_reservation_rewritten_in_place(kept: Counting, tmp_path: Path) -> None:
    """A file that has another form than is remembered is released by GC; the record goes with GC, and nobody would ever release it."""
    for number in range(2):
        add(kept, number)
        for name in (f"10.0.0.{number + 2}", f"fd00::{number + 2}"):
            (tmp_path / "net" / name).write_text(f"c{number}")
    assert sorted(entry.name for entry in locked.collect(kept, [owner(1)])) == ["10.0.0.2", "fd00::2"]
    assert sorted(entry.name for entry in locked.find(kept, owner(1))) == ["10.0.0.3", "fd00::3"]


def test_a_reservation_rewritten_for_somebody_else(kept: Counting, tmp_path: Path) -> None:
    """Whose it was has it no more: an ADD is no duplicate, DEL leaves it; whose it is now can release it."""
    add(kept, 1)
    for name in ("10.0.0.2", "fd00::2"):
        (tmp_path / "net" / name).write_text("c2\r\neth0")
    assert add(kept, 1) == ["10.0.0.3", "fd00::3"]
    assert len(locked.release(kept, owner(1))) == 2
    assert sorted(entry.name for entry in locked.release(kept, owner(2))) == ["10.0.0.2", "fd00::2"]


def test_a_change_that_keeps_the_time(kept: Counting, other: DiskStore, tmp_path: Path) -> None:
    """What was restored with the directory's time, by cp -a or rsync, is seen."""
    first = add(kept, 1)
    status = os.stat(tmp_path / "net")
    for name in first:
        (tmp_path / "net" / name).unlink()
    (tmp_path / "net/10.0.0.9").write_text("c9\r\neth0")
    time.sleep(0.05)  # more than a tick of the kernel's clock
    os.utime(tmp_path / "net", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [entry.name for entry in locked.find(kept, owner(9))] == ["10.0.0.9"]
    assert locked.find(kept, owner(1)) == locked.find(other, owner(1)) == []


class Both(RuleBasedStateMachine):
    """The agent's store and another process' take turns on one directory; both always see what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.kept = IndexedStore(str(self.directory), "net", Memory(), lambda: None)
        self.other = DiskStore(str(self.directory), "net")
        self.had: dict[int, list[str]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @rule(number=st.integers(0, 40), ours=st.booleans())
    def add(self, number: int, ours: bool) -> None:  # noqa: FBT001 -- Hypothesis passes it by name
        store = self.kept if ours else self.other
        try:
            given = add(store, number)
        except CNIError as error:
            assert (error.code == 111) == (number in self.had)
            return
        assert number not in self.had
        assert not {*given} & {name for names in self.had.values() for name in names}
        self.had[number] = given

    @rule(number=st.integers(0, 40), ours=st.booleans())
    def release(self, number: int, ours: bool) -> None:  # noqa: FBT001 -- Hypothesis passes it by name
        released = locked.release(self.kept if ours else self.other, owner(number))
        assert sorted(entry.name for entry in released) == sorted(self.had.pop(number, []))

    @rule(keep=st.sets(st.integers(0, 40)), ours=st.booleans())
    def collect(self, keep: set[int], ours: bool) -> None:  # noqa: FBT001 -- Hypothesis passes it by name
        locked.collect(self.kept if ours else self.other, {owner(number) for number in keep})
        self.had = {number: names for number, names in self.had.items() if number in keep}

    @rule(number=st.integers(0, 40))
    def torn(self, number: int) -> None:
        for name in self.had.pop(number, []):
            path = self.directory / "net" / name
            path.unlink()
            path.touch()

    @invariant()
    def same(self) -> None:
        with self.kept.lock():
            indexed = sorted(self.kept.index(), key=_name)
        with self.other.lock():
            read = sorted(self.other.index(), key=_name)
        assert indexed == read
        assert {entry.name for entry in read if entry.attachment} == {name for names in self.had.values() for name in names}


def _name(entry: Reservation) -> str:
    return entry.name


Both.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
TestBoth = Both.TestCase


def test_the_directorys_time_is_all_that_changes(kept: Counting, other: DiskStore) -> None:
    """The layout stays host-local's: what another process finds is what it would have written."""
    add(kept, 1)
    names = sorted(os.listdir(kept.directory))
    shutil.rmtree(kept.directory)
    add(other, 1)
    assert sorted(os.listdir(other.directory)) == names
