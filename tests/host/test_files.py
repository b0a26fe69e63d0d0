# SPDX-License-Identifier: Apache-2.0
"""A file that is written is either the old one or the new one."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kubenode.base import files
from kubenode.host.attachments import Attachments, Record
from kubenode.host.datadir import DiskStore
from kubenode.ipam.address import Address
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return an empty directory."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_replace(place: Path) -> None:
    """The new content is there as a whole, for its owner only, and nothing else is left."""
    path = place / "file"
    for content in (b"one", b"", b"x" * 200_000):
        files.replace(str(path), content, durable=True)
        assert files.read(str(path)) == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(place) == ["file"]


def test_a_killed_writer_leaves_nothing_for_good(place: Path) -> None:
    """Where writers come one after the other, the next takes what one that was killed has left."""
    path = place / "file"
    for content in (b"new", b"newer"):
        process = os.fork()
        if not process:
            os.rename = lambda *_: os._exit(0)
            files.replace(str(path), b"of the killed one", alone=True)
        os.waitpid(process, 0)
        assert len(os.listdir(place)) == 1 + path.exists()
        files.replace(str(path), content, alone=True)
        assert os.listdir(place) == ["file"]
        assert path.read_bytes() == content


def test_a_failed_replace(place: Path) -> None:
    """What cannot be put in place leaves the old one and no temporary file."""
    (place / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace(str(place / "file"), b"new")
    assert os.listdir(place) == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """A link in the file's place goes; what it points to stays."""
    (tmp_path / "target").write_text("kept")
    (tmp_path / "file").symlink_to(tmp_path / "target")
    files.replace(str(tmp_path / "file"), b"new")
    assert ((tmp_path / "target").read_text(), (tmp_path / "file").read_text()) == ("kept", "new")
    assert not (tmp_path / "file").is_symlink()


def test_read_all_stops_at_its_limit() -> None:
    """Who sends without end is cut off."""
    with open("/dev/zero", "rb") as file:
        assert 100 < len(files.read_all(file.fileno(), 100)) <= 65536 * 2


@pytest.mark.parametrize("what", ["reservation", "record", "file"])
def test_the_cause_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Where the disk is full, that is the error, also if what was begun has been removed meanwhile."""

    def full(fd: int, content: bytes) -> None:
        del content
        Path(f"/proc/self/fd/{fd}").readlink().unlink()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store, attachment = DiskStore(str(tmp_path), "net"), Attachment("c1", "eth0")
    begin: dict[str, Callable[[], object]] = {
        "reservation": lambda: store.reserve(Address(4, 0x0A000002), attachment),
        "record": lambda: Attachments(str(tmp_path), "net").write(attachment, Record()),
        "file": lambda: files.replace(str(tmp_path / "file"), b"content"),
    }
    with store.lock():
        monkeypatch.setattr(files, "write_all", full)
        with pytest.raises(OSError, match="No space left") as caught:
            begin[what]()
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def test_a_temporary_file_of_another(place: Path) -> None:
    """In a directory such as /tmp others know the name beforehand: what they have put there is neither written nor the new file."""
    victim = place / "victim"
    victim.write_bytes(b"theirs")
    os.link(victim, place / f"file.{os.getpid()}{files.TEMPORARY}")
    files.replace(str(place / "file"), b"new")
    assert victim.read_bytes() == b"theirs"
    assert not (place / "file").samefile(victim)
    assert sorted(os.listdir(place)) == ["file", "victim"]
