# SPDX-License-Identifier: Apache-2.0
"""Reservations on disk are host-local's files, byte for byte."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from pathlib import Path

import locked
import pytest
from patience import PATIENCE, eventually
from rebooting import EARLIER, NextBoot, note

from kubenode.base import files
from kubenode.host.attachments import Attachments, Record
from kubenode.host.boot import BOOT_ID, Boot
from kubenode.host.datadir import DiskStore
from kubenode.host.indexed import IndexedStore, Memory
from kubenode.ipam.address import Address
from kubenode.ipam.ranges import make_range, make_set, parse_subnet
from kubenode.ipam.store import Attachment, Reservation

ADDRESS = Address(4, 0x0A000002)
V6 = Address(6, 0xFD00 << 112 | 2)
OWNER = Attachment("c1", "eth0")


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(str(tmp_path / "data"), "net")


def test_layout(store: DiskStore, tmp_path: Path) -> None:
    """Names, contents and modes are those that host-local makes, and that others who read its files expect."""
    old = os.umask(0o022)
    try:
        with store.lock():
            assert store.reserve(ADDRESS, OWNER)
            assert store.reserve(V6, OWNER)
            store.set_last_reserved(0, ADDRESS)
    finally:
        os.umask(old)
    directory = tmp_path / "data/net"
    assert {path.name: (path.read_bytes(), mode(path)) for path in directory.iterdir()} == {
        "10.0.0.2": (b"c1\r\neth0", "600"),
        "fd00::2": (b"c1\r\neth0", "600"),
        "last_reserved_ip.0": (b"10.0.0.2", "600"),
        "lock": (b"", "750"),
    }
    assert mode(directory) == "755"


def test_a_reservation_is_made_once(store: DiskStore) -> None:
    """An address that has a file cannot be reserved again, until it is released; releasing twice is nothing."""
    with store.lock():
        assert store.reserve(ADDRESS, OWNER)
        assert not store.reserve(ADDRESS, Attachment("c2", "eth0"))
        assert list(store.reservations()) == [Reservation("10.0.0.2", ADDRESS, OWNER)]
        for _ in range(2):
            store.release(Reservation("10.0.0.2", ADDRESS, OWNER))
        assert list(store.reservations()) == []
        assert store.reserve(ADDRESS, OWNER)


@pytest.mark.parametrize(
    ("content", "owner"),
    [
        (b"c1\r\neth0", OWNER),
        (b"c1\r\neth0\n", OWNER),
        (b"c1\r\neth0\0\0\0\0", OWNER),
        (b"c1\r\neth0\r\nmore\r\n", OWNER),
        (b"c1\r\neth0 and words", OWNER),
        (b"c1\r\neth0" + b"\xff" * 100, OWNER),
        (b"c1\r\neth0" + b"\1" * 100, OWNER),
        (b"c1\r\neth0" + b"x" * 100, Attachment("c1", "")),
        (b"c1\0\0\0\0", Attachment("c1", "")),
        (b" c1\r\neth0", OWNER),
        (b"c1\r\n\x01\xe2\x80\x8b", Attachment("c1", "\x01\u200b")),
        (b"c1", Attachment("c1", "")),
        (b"c1\n", Attachment("c1", "")),
        (b"", None),
        (b"\r\n", None),
        (b"c1\r\n", None),
        (b"\0\0\0\0", None),
        (b"c1\r\n" + b"\0" * 4, None),
        (b"two words", None),
        (b"c1\neth0", None),
        (b"\xff\xfe", None),
        (b"../x\r\neth0", None),
    ],
)
def test_whose_a_file_is(store: DiskStore, tmp_path: Path, content: bytes, owner: Attachment | None) -> None:
    """Container ID and interface, or the ID alone of old; what no host-local writes is nobody's."""
    (tmp_path / "data/net").mkdir(parents=True)
    (tmp_path / "data/net/10.0.0.2").write_bytes(content)
    with store.lock():
        assert list(store.reservations()) == [Reservation("10.0.0.2", ADDRESS, owner)]


def test_a_file_that_goes_away_meanwhile(store: DiskStore, tmp_path: Path) -> None:
    """What somebody without the lock removes while the directory is read is not there, and no error."""
    with store.lock():
        store.reserve(ADDRESS, OWNER)
        store.reserve(V6, OWNER)
        entries = store.reservations()
        first = next(entries)
        for path in (tmp_path / "data/net").glob("*[:.]*"):
            path.unlink()
        assert list(entries) == []
        assert first.attachment == OWNER


def test_what_is_no_reservation(store: DiskStore, tmp_path: Path) -> None:
    """Directories and links are left alone, and keep their names; odd names are no addresses."""
    directory = tmp_path / "data/net"
    directory.mkdir(parents=True)
    (directory / "10.0.0.2").mkdir()
    (tmp_path / "outside").write_bytes(b"c9\r\neth0")
    (directory / "10.0.0.3").symlink_to(tmp_path / "outside")
    (directory / "::ffff:10.0.0.4").write_text("c1\r\neth0")
    (directory / "notes").write_text("c1\r\neth0")
    (directory / "last_reserved_ip.0").write_text("rubbish")
    with store.lock():
        assert sorted(store.reservations()) == [Reservation("::ffff:10.0.0.4", None, OWNER), Reservation("notes", None, OWNER)]
        assert not store.reserve(ADDRESS, OWNER)
        assert not store.reserve(Address(4, 0x0A000003), OWNER)
        assert store.last_reserved(0) is None
        assert store.last_reserved(1) is None
    assert (tmp_path / "outside").read_bytes() == b"c9\r\neth0"


def test_a_link_in_place_of_our_own_files(store: DiskStore, tmp_path: Path) -> None:
    """A link under the name of `lock` or of a turn is not followed: nothing outside is written."""
    directory = tmp_path / "data/net"
    directory.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (directory / "last_reserved_ip.0").symlink_to(outside)
    with store.lock(), pytest.raises(OSError, match="symbolic links"):
        store.set_last_reserved(0, ADDRESS)
    (directory / "lock").unlink()
    (directory / "lock").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"), store.lock():
        pass
    assert outside.read_text() == "kept"


def test_the_lock_keeps_others_out(store: DiskStore, tmp_path: Path) -> None:
    """While the lock is held, flock(2) on `lock` waits, as host-local's does; afterwards it does not."""
    entered = threading.Event()
    with store.lock():
        path = tmp_path / "data/net/lock"
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

        def wait() -> None:
            with store.lock():
                entered.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.1)
    thread.join(5)
    assert entered.is_set()


def test_the_boot(tmp_path: Path) -> None:
    """No note of a boot: this one is noted, with the machine, and nothing concluded. It lies beside the store."""
    path = tmp_path / "data/.net.note"
    store = DiskStore(str(tmp_path / "data"), "net", Boot(str(tmp_path), lambda: "m"))
    with store.lock():
        assert not store.is_of_this_boot()
        assert store.from_earlier_boot() == []
        store.note_boot()
        assert path.read_text() == f"{Path(BOOT_ID).read_text().strip()} m\n"
        assert mode(path) == "600"
        assert store.is_of_this_boot()
        path.write_text(note("m"))
        assert not store.is_of_this_boot()
    assert [found.name for found in (tmp_path / "data/net").iterdir()] == ["lock"]


class Rebooted:
    """A store with a reservation for each family, just after a reboot of machine `m`."""

    def __init__(self, directory: Path) -> None:
        self.note = directory / "data/.net.note"
        self.run_dir = directory / "run"
        self.store = DiskStore(str(directory / "data"), "net", NextBoot(str(self.run_dir), lambda: "m"))
        with self.store.lock():
            self.store.reserve(ADDRESS, OWNER)
            self.store.reserve(V6, OWNER)
        self.note.write_text(note("m"))

    def from_earlier_boot(self) -> list[str]:
        """Return what the next ADD would release, which then notes the boot."""
        return sorted(entry.name for entry in locked.release_from_earlier_boot(self.store))


@pytest.fixture
def after_reboot(tmp_path: Path) -> Rebooted:
    return Rebooted(tmp_path)


def test_after_a_reboot(after_reboot: Rebooted) -> None:
    """What is of an earlier boot of this machine, for certain, is dead; once this boot is noted nothing more is."""
    assert after_reboot.from_earlier_boot() == ["10.0.0.2", "fd00::2"]
    assert after_reboot.note.read_text() == f"{Path(BOOT_ID).read_text().strip()} m\n"
    with after_reboot.store.lock():
        after_reboot.store.reserve(ADDRESS, OWNER)
    assert after_reboot.from_earlier_boot() == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\0" * 48,
        b"another",
        EARLIER.encode(),
        f"{EARLIER}\n".encode(),
        f"{EARLIER} ".encode(),
        f"{EARLIER} m".encode(),
        f"{EARLIER} m n\n".encode(),
        f"{EARLIER[:-1]} m\n".encode(),
        f"{EARLIER.replace('1', 'x')} m\n".encode(),
        note("m").encode() + b"\0\0\0\0",
        note("another").encode(),
        (note("another") + note("m")).encode(),
    ],
)
def test_a_note_that_proves_nothing(after_reboot: Rebooted, text: bytes) -> None:
    """An empty, torn or foreign note, one of earlier versions, or of several machines releases nothing; this boot is in it afterwards."""
    after_reboot.note.write_bytes(text)
    assert after_reboot.from_earlier_boot() == []
    assert f"{Path(BOOT_ID).read_text().strip()} m\n" in after_reboot.note.read_text()


def test_two_machines(tmp_path: Path, after_reboot: Rebooted) -> None:
    """A directory that two hosts share loses nothing when either of them is rebooted, in whatever order they come."""
    other = DiskStore(str(tmp_path / "data"), "net", NextBoot(str(tmp_path / "other"), lambda: "o"))
    assert locked.release_from_earlier_boot(other) == []
    assert after_reboot.from_earlier_boot() == []
    assert sorted(line.split()[1] for line in after_reboot.note.read_text().splitlines()) == ["m", "o"]
    after_reboot.note.write_text(note("o") + note("m"))
    assert after_reboot.from_earlier_boot() == []
    after_reboot.note.write_text(note("o") + note("m"))
    assert locked.release_from_earlier_boot(other) == []


def test_machines_without_end(after_reboot: Rebooted) -> None:
    """A machine that has another machine-id each time it starts releases nothing, and makes no note without end."""
    after_reboot.note.write_text("".join(note(f"m{number}") for number in range(100)))
    assert after_reboot.from_earlier_boot() == []
    assert len(after_reboot.note.read_text().splitlines()) < 10


def test_a_machine_without_a_name(tmp_path: Path, after_reboot: Rebooted) -> None:
    """As long as nobody knows which machine this is nothing is released, and nothing noted."""
    nameless = DiskStore(str(tmp_path / "data"), "net", NextBoot(str(tmp_path / "run"), lambda: ""))
    assert locked.release_from_earlier_boot(nameless) == []
    assert after_reboot.note.read_text() == note("m")


def test_what_was_reserved_in_this_boot(tmp_path: Path, after_reboot: Rebooted) -> None:
    """What the reference has reserved since the reboot, before we came, stays; and so does what has a record, whatever the clock says."""
    just_booted = DiskStore(str(tmp_path / "data"), "net", Boot(str(tmp_path / "run"), lambda: "m"))
    assert locked.release_from_earlier_boot(just_booted) == []
    after_reboot.note.write_text(note("m"))
    Attachments(str(after_reboot.run_dir), "net").write(OWNER, Record())
    assert after_reboot.from_earlier_boot() == []


def test_an_old_hosts_reservation_in_this_boot(tmp_path: Path, after_reboot: Rebooted) -> None:
    """Where the file names no interface, a record is that of the container."""
    for name in ("10.0.0.2", "fd00::2"):
        (tmp_path / "data/net" / name).write_text("c1")
    Attachments(str(after_reboot.run_dir), "net").write(OWNER, Record())
    assert after_reboot.from_earlier_boot() == []
    Attachments(str(after_reboot.run_dir), "net").remove(OWNER)
    after_reboot.note.write_text(note("m"))
    assert after_reboot.from_earlier_boot() == ["10.0.0.2", "fd00::2"]


def test_the_container_of_before_the_reboot(after_reboot: Rebooted) -> None:
    """A container that keeps its ID over a reboot gets an address: the record of its ADD does not make its old reservation a living one."""
    sets = [make_set(0, [make_range(parse_subnet("10.0.0.0/24"))])]
    dead, added = locked.add(after_reboot.store, sets, OWNER)
    assert len(dead) == 2
    assert [str(one.address) for one in added.given] == ["10.0.0.2"]


class Watched(DiskStore):
    """A store that looks, without the lock, at what is there each time just before a file is given its content."""

    def reserve(self, address: Address, attachment: Attachment) -> bool:
        self.seen: list[list[str]] = []
        write = files.write_all

        def watched(fd: int, content: bytes) -> None:
            self.seen.append(sorted(os.listdir(self.directory)))
            write(fd, content)

        files.write_all = watched
        try:
            return super().reserve(address, attachment)
        finally:
            files.write_all = write


def test_a_reservation_appears_with_its_owner(tmp_path: Path) -> None:
    """No file is ever there without its owner in it: whoever looks, and be it without the lock, finds none that it might heal."""
    store = Watched(str(tmp_path / "data"), "net")
    with store.lock():
        assert store.reserve(ADDRESS, OWNER)
    assert store.seen == [["lock"]]
    assert (tmp_path / "data/net/10.0.0.2").read_bytes() == b"c1\r\neth0"


class WithoutUnnamed(DiskStore):
    """A store on a file system that has no unnamed files."""

    failure = errno.EOPNOTSUPP

    def _make(self, path: str, content: bytes) -> None:
        raise OSError(self.failure, os.strerror(self.failure), path)


def test_without_unnamed_files(tmp_path: Path) -> None:
    """Where a file system has no O_TMPFILE, a reservation is made as host-local makes it."""
    store = WithoutUnnamed(str(tmp_path / "data"), "net")
    for failure in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EPERM):
        WithoutUnnamed.failure = failure
        with store.lock():
            assert store.reserve(ADDRESS, OWNER)
            assert not store.reserve(ADDRESS, Attachment("c2", "eth0"))
            assert list(store.reservations()) == [Reservation("10.0.0.2", ADDRESS, OWNER)]
            assert mode(tmp_path / "data/net/10.0.0.2") == "600"
            store.release(Reservation("10.0.0.2", ADDRESS, OWNER))
    WithoutUnnamed.failure = errno.ENOSPC
    with store.lock(), pytest.raises(OSError, match="No space"):
        store.reserve(ADDRESS, OWNER)


def test_only_what_is_old_is_healed(store: DiskStore, tmp_path: Path) -> None:
    """An empty file may be about to be written, by who holds a lock that was removed: it stays for a minute, and its address with it."""
    sets = [make_set(0, [make_range(parse_subnet("10.0.0.0/24"))])]
    path = tmp_path / "data/net/10.0.0.2"
    path.parent.mkdir(parents=True)
    path.touch()
    given = locked.allocate(store, sets, OWNER)
    assert (given.ownerless, str(given.given[0].address)) == ([], "10.0.0.3")
    assert locked.collect(store, [OWNER]) == []
    for number, seconds in enumerate((50, -3600)):
        os.utime(path, times=(time.time() - seconds, time.time() - seconds))
        assert locked.allocate(store, sets, Attachment(f"young{number}", "eth0")).ownerless == []
    os.utime(path, times=(time.time() - 61, time.time() - 61))
    assert [entry.name for entry in locked.allocate(store, sets, Attachment("c2", "eth0")).ownerless] == ["10.0.0.2"]


def test_a_lock_that_was_removed_while_somebody_waited(store: DiskStore, tmp_path: Path) -> None:
    """Who gets the lock of a file that has lost its name takes the one that has it now, which others hold."""
    path = tmp_path / "data/net/lock"
    entered = threading.Event()

    def wait() -> None:
        with store.lock():
            entered.set()

    thread = threading.Thread(target=wait)
    with store.lock():
        thread.start()
        eventually(lambda: is_waited_for(path), "nobody waits for the lock")
        path.unlink()
        second = path.open("w")
        fcntl.flock(second, fcntl.LOCK_EX)
    eventually(lambda: entered.is_set() or is_waited_for(path), "nobody waits for the second lock")
    assert not entered.is_set()
    second.close()
    thread.join(PATIENCE)
    assert entered.is_set()


def is_waited_for(path: Path) -> bool:
    """Say whether somebody waits for a file's lock (proc_locks(5))."""
    inode = f":{path.stat().st_ino}"
    return any("->" in line and any(part.endswith(inode) for part in line.split()) for line in Path("/proc/locks").read_text().splitlines())


def test_a_directory_that_goes_before_its_lock(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who removes the directory between its creation and that of the lock, removes nothing from an ADD: it is created once more."""
    original = os.makedirs
    removed: list[str] = []

    def make_and_lose(name: str, mode: int = 0o777, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002 -- the standard library's
        original(name, mode, exist_ok)
        if name == store.directory and len(removed) < 3:
            os.rmdir(name)
            removed.append(name)

    monkeypatch.setattr(os, "makedirs", make_and_lose)
    with store.lock():
        assert store.reserve(ADDRESS, OWNER)
    assert removed == [store.directory] * 3


def test_only_its_owners_reservation_is_released(store: DiskStore, tmp_path: Path) -> None:
    """What somebody else has got meanwhile, without the lock, is left alone."""
    with store.lock():
        store.reserve(ADDRESS, OWNER)
        (entry,) = store.reservations()
        (tmp_path / "data/net/10.0.0.2").write_text("c2\r\neth0")
        store.release(entry)
    assert (tmp_path / "data/net/10.0.0.2").read_bytes() == b"c2\r\neth0"


def test_names_that_are_not_canonical(store: DiskStore, tmp_path: Path) -> None:
    """A file named by an address as nobody writes it is no address's, in all questions; its owner's DEL takes it away."""
    sets = [make_set(0, [make_range(parse_subnet("fd00::/64"))])]
    directory = tmp_path / "data/net"
    directory.mkdir(parents=True)
    for name in ("FD00::5", "fd00:0::6"):
        (directory / name).write_text("c9\r\neth0")
    assert locked.collect(store, []) == []
    assert locked.usage(store, sets)[0].used == 0
    assert [entry.address for entry in locked.find(store, Attachment("c9", "eth0"))] == [None, None]
    kept = IndexedStore(str(tmp_path / "data"), "net", Memory(), lambda: None)
    assert [str(one.address) for one in locked.allocate(kept, sets, OWNER).given] == ["fd00::2"]
    assert len(locked.release(kept, Attachment("c9", "eth0"))) == 2
    assert locked.usage(kept, sets)[0].used == 1
    assert sorted(path.name for path in directory.glob("*:*")) == ["fd00::2"]
