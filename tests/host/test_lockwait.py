# SPDX-License-Identifier: Apache-2.0
"""A place in the queue for a lock."""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from patience import eventually

from kubenode.host import lockwait
from kubenode.host.lockwait import Queued

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class GivenUpError(Exception):
    pass


def give_up() -> None:
    raise GivenUpError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lockwait, "LOOK", 0.05)
    (tmp_path / "lock").touch()
    return tmp_path / "lock"


@pytest.fixture
def held(path: Path) -> Iterator[int]:
    """Return a descriptor that has the lock."""
    fd = opened(path)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield fd
    with suppress(OSError):  # a test may have done so
        os.close(fd)


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def is_free(path: Path) -> bool:
    fd = opened(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def waiting() -> int:
    return sum(thread.name == "lock" for thread in threading.enumerate())


def test_it_is_had_once_it_is_free(path: Path, held: int) -> None:
    """The caller's own descriptor has the lock then, until it is closed."""
    queued, mine = Queued(), opened(path)
    thread = threading.Thread(target=queued.wait, args=(mine, str(path), lambda: None))
    thread.start()
    fcntl.flock(held, fcntl.LOCK_UN)
    thread.join(30)
    assert not is_free(path)
    assert not os.get_inheritable(mine)
    os.close(mine)
    assert is_free(path)
    assert waiting() == 0


def test_giving_up(path: Path, held: int) -> None:
    """However many give up, one thread waits; where nobody wants the lock by then, it is let go at once."""
    queued, before = Queued(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        mine = opened(path)
        with pytest.raises(GivenUpError):
            queued.wait(mine, str(path), give_up)
        os.close(mine)
    assert waiting() == 1
    fcntl.flock(held, fcntl.LOCK_UN)
    eventually(lambda: waiting() == 0)
    assert is_free(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_place_is_passed_on(path: Path, held: int) -> None:
    """Whoever comes after one who gave up has its place, before those that came later."""
    queued, mine, later = Queued(), opened(path), opened(path)
    with pytest.raises(GivenUpError):
        queued.wait(mine, str(path), give_up)
    eventually(lambda: waiting() == 1)
    order: list[str] = []

    def other() -> None:
        fcntl.flock(later, fcntl.LOCK_EX)
        order.append("later")
        os.close(later)

    threads = [threading.Thread(target=other)]
    threads[0].start()
    eventually(lambda: len(blocked(path)) >= 2, "it does not wait")

    def next_one() -> None:
        queued.wait(mine, str(path), lambda: None)
        order.append("next")
        os.close(mine)

    threads.append(threading.Thread(target=next_one))
    threads[1].start()
    fcntl.flock(held, fcntl.LOCK_UN)
    for thread in threads:
        thread.join(30)
    assert order == ["next", "later"]


def test_the_lock_is_another_by_now(path: Path, held: int) -> None:
    """Who has a lock for ever that was removed keeps only those waiting who came before; the next place is in the new one's queue."""
    queued, mine = Queued(), opened(path)
    with pytest.raises(GivenUpError):
        queued.wait(mine, str(path), give_up)
    path.unlink()
    path.touch()
    other, mine = opened(path), opened(path)
    fcntl.flock(other, fcntl.LOCK_EX)
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(queued.wait(mine, str(path), lambda: None)), daemon=True)
    thread.start()
    os.close(other)
    thread.join(30)
    assert got == [True]
    assert not is_free(path)
    os.close(mine)
    assert is_free(path)
    os.close(held)
    eventually(lambda: waiting() == 0)


def test_the_lock_is_removed_meanwhile(path: Path, held: int) -> None:
    """Who waits for a lock that was removed waits in vain, and takes the new one."""
    assert not is_free(path)
    queued, mine = Queued(), opened(path)
    assert not queued.wait(mine, str(path), lambda: path.unlink(missing_ok=True))
    os.close(mine)
    os.close(held)
    eventually(lambda: waiting() == 0)


def blocked(path: Path) -> list[str]:
    """Return the lines of proc(5)'s locks about those that wait for this file."""
    inode = f":{path.stat().st_ino} "
    with open("/proc/locks", encoding="ascii") as locks:
        return [line for line in locks if inode in line and "->" in line]
