"""Reservations on disk are host-local's files, byte for byte."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from kubenode.host import datadir
from kubenode.host.datadir import DiskStore
from kubenode.ipam.address import Address
from kubenode.ipam.store import Attachment, Reservation

if TYPE_CHECKING:
    from pathlib import Path

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


def test_the_boot(store: DiskStore, tmp_path: Path) -> None:
    """No note of a boot: this one is noted and nothing concluded. The note lies beside the store, where no network's name can be."""
    note = tmp_path / "data/.net.boot"
    with store.lock():
        assert not store.is_of_another_boot()
        with open(datadir.BOOT_ID, "rb") as file:
            assert note.read_bytes() == file.read()
        note.write_text("another")
        assert store.is_of_another_boot()
        store.note_boot()
        assert not store.is_of_another_boot()
    assert [path.name for path in (tmp_path / "data/net").iterdir()] == ["lock"]
