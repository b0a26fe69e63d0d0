# SPDX-License-Identifier: Apache-2.0
"""Socket of the agent: exactly one agent owns it, also after an agent that was killed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING

from kubenode.base import files
from kubenode.cni.errors import AGENT_RUNS, IO_FAILURE, CNIError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.base.log import Log

PASSED_ON = 3  # SD_LISTEN_FDS_START
LONGEST = 107 - len(files.TEMPORARY)  # bytes (unix(7)), less the suffix of a socket that is not ready
PAUSE = 0.05  # seconds between checks whether another agent has ended
BACKLOG = 1024  # relays in the queue; the kernel's limit (net.core.somaxconn) may be lower


class Listener:
    """Ownership of a socket's path, by a lock beside it that ends with the process. Raises CNIError if the path is too long."""

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > LONGEST:
            raise CNIError(IO_FAILURE, f"socket path {path} has more than {LONGEST} bytes", "give a shorter --socket or --run-dir")
        self.path = path
        self._lock = -1
        self._socket: socket.socket | None = None
        self._bound: tuple[int, int] | None = None  # device and inode of our socket's path
        self.problem = ""  # why relays cannot reach us

    async def take(self, stop: asyncio.Event, log: Log, *, wait: bool) -> bool:
        """Take ownership; with `wait`, after another agent has ended. Return False if we were stopped first.

        Raises CNIError if another agent owns the path, OSError.
        """
        told = False
        while not stop.is_set():
            try:
                self._lock = _lock(self.path)
            except CNIError as error:
                if not wait:
                    raise
                if not told:
                    log.info("waiting for another agent to end", reason=error.msg)
                told = True
            else:
                return True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE)
        log.info("agent stopped before the other agent ended")
        return False

    def look(self) -> socket.socket | None:
        """Check whether relays can reach us. If somebody removed the path or its directory, return a new socket, otherwise None."""
        if self._is_reachable():
            self.problem = ""
        elif self._socket is not None:
            self.problem = f"{self.path} does not lead to the socket passed by systemd: systemctl restart kube-node-agent.socket"
        else:
            try:
                return self._listen_again()
            except (OSError, CNIError) as error:
                self.problem = f"{self.path} was removed, and cannot be created again: {error}"
        return None

    def _is_reachable(self) -> bool:
        return self._bound == _identity(self.path)

    def _listen_again(self) -> socket.socket:
        os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
        if _identity(f"{self.path}.lock") != _identity(self._lock):  # removed with the directory: another agent may own it now
            mine, self._lock = self._lock, _lock(self.path)
            os.close(mine)
        self.problem = ""
        return self._bind()

    def listen(self, environ: Mapping[str, str]) -> socket.socket:
        """Return the listening socket: one passed by systemd (sd_listen_fds(3)), or our own. Raises OSError."""
        if environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS") == "1":
            self._socket = socket.socket(fileno=PASSED_ON)
            os.set_inheritable(PASSED_ON, False)  # noqa: FBT003 -- the standard library's signature
            self.path = self._socket.getsockname() or self.path
            self._bound = _identity(self.path) or (0, 0)
            return self._socket
        return self._bind()

    def _bind(self) -> socket.socket:
        temporary = f"{self.path}{files.TEMPORARY}"
        files.remove(temporary)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            before = os.umask(0o177)
            try:
                listener.bind(temporary)
            finally:
                os.umask(before)
            listener.listen(BACKLOG)
            # A rename: the path always leads to a socket, and only to one that is ready.
            os.rename(temporary, self.path)
        except IsADirectoryError as error:
            listener.close()
            raise OSError(error.errno, error.strerror, self.path) from None
        except BaseException:
            listener.close()
            raise
        self._bound = _identity(self.path)
        return listener

    def leave(self) -> str:
        """Accept no more relays; return the path on which we can still connect. On a passed socket relays wait for the next agent."""
        if self._socket is not None:
            return str(self._socket.getsockname())
        ending = f"{self.path}{files.TEMPORARY}"
        if self._is_reachable():  # otherwise neither relays nor we can connect
            try:
                os.rename(self.path, ending)
            except OSError:  # the calls that are there get their answers all the same
                return self.path
        return ending

    def end(self) -> None:
        """Give up ownership."""
        if self._socket is None:
            files.discard(f"{self.path}{files.TEMPORARY}")
        os.close(self._lock)


def _lock(path: str) -> int:
    """Take the lock beside a socket's path. Raises CNIError if another agent has it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise CNIError(
            AGENT_RUNS, f"another agent{_owner(path)} serves {path}", "stop it first, or give this agent another socket"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    with contextlib.suppress(OSError):  # only a message needs it
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} {_numbers()}\n".encode(), 0)
    return lock


def _owner(path: str) -> str:
    """Return the process that has the lock, as a part of a message; "" if unknown, such as in another PID namespace."""
    try:
        pid, _, numbers = files.read(f"{path}.lock").decode(errors="replace").strip().partition(" ")
        return f", process {pid}," if numbers == _numbers() else ""
    except OSError:
        return ""


def _numbers() -> str:
    """Return our PID namespace."""
    return os.readlink("/proc/self/ns/pid")


def _identity(path: str | int) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
