# SPDX-License-Identifier: Apache-2.0
"""The agent's socket and its lock, if the system fails in between: nothing stays open, and the next look finds everything free."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import socket
from typing import TYPE_CHECKING, Any

import pytest

from kubenode.agent.listener import Listener
from kubenode.base.log import INFO, Log
from kubenode.cni.errors import CNIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Listener]:
    """Return the owner of a path whose directory was removed."""
    listener = Listener(str(tmp_path / "here/agent.sock"))
    (tmp_path / "here").mkdir()
    take(listener)
    with listener.listen({}):
        shutil.rmtree(tmp_path / "here")
        yield listener
    listener.end()


def take(listener: Listener, *, wait: bool = False) -> bool:
    return asyncio.run(listener.take(asyncio.Event(), Log("agent", INFO), wait=wait))


def opened() -> list[str]:
    """Return what this process has open, but not what listing it opens."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sorted(found)


def failing(error: OSError) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


FULL = OSError(errno.ENOSPC, "No space left on device")
NO_LOCKS = OSError(errno.ENOLCK, "No locks available")
FAULTS = {
    "lock": (fcntl, "flock", NO_LOCKS),
    "bind": (socket.socket, "bind", FULL),
    "listen": (socket.socket, "listen", OSError(errno.ENOMEM, "Cannot allocate memory")),
    "rename": (os, "rename", FULL),
    "interrupt": (os, "rename", KeyboardInterrupt()),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_while_it_listens_again(owner: Listener, what: str) -> None:
    """A fault of any step leaves nothing open but the lock; after it the agent listens again, and is the owner."""
    place, name, error = FAULTS[what]
    before = len(opened())
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, name, failing(error))  # type: ignore[arg-type]
            if isinstance(error, OSError):
                assert owner.look() is None
                assert (error.strerror or "") in owner.problem
            else:
                with pytest.raises(KeyboardInterrupt):
                    owner.look()
        assert len(opened()) == before, opened()
    again = owner.look()
    assert again is not None, owner.problem
    with again:
        assert owner.problem == ""
        assert owner.look() is None
        with pytest.raises(CNIError, match=f"another agent, process {os.getpid()}, serves"):
            take(Listener(owner.path))


@pytest.mark.parametrize("name", ["pwrite", "ftruncate", "readlink"])
def test_a_lock_file_that_cannot_be_written(owner: Listener, name: str) -> None:
    """The process in the lock file is for messages alone: a full disk keeps no agent from its socket."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, failing(FULL))
        again = owner.look()
    assert again is not None, owner.problem
    with again, pytest.raises(CNIError, match=r"another agent.* serves"):
        take(Listener(owner.path))


def test_a_lock_file_that_cannot_be_read(owner: Listener) -> None:
    """Without the number of the other process the message says the rest, and nothing stays open."""
    again = owner.look()
    assert again is not None
    with again:
        before = len(opened())
        original = os.open

        def open_(path: str, *arguments: Any, **more: Any) -> int:
            if path.endswith(".lock") and not arguments[0] & os.O_RDWR:
                raise OSError(errno.EACCES, "Permission denied")
            return original(path, *arguments, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", open_)
            with pytest.raises(CNIError, match="another agent serves"):
                take(Listener(owner.path))
        assert len(opened()) == before


def test_leaving_a_socket_that_cannot_be_renamed(owner: Listener) -> None:
    """An agent that cannot rename its socket at its end answers the remaining calls all the same."""
    again = owner.look()
    assert again is not None
    with again, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", failing(OSError(errno.EROFS, "Read-only file system")))
        address = owner.leave()
        with socket.socket(socket.AF_UNIX) as relay:
            relay.connect(address)
