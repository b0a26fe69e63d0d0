"""The agent's socket: one agent has it, whatever its predecessor has left behind."""

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
LONGEST = 107 - len(files.TEMPORARY)  # bytes (unix(7)), with what the path ends in until it is listened on
PAUSE = 0.05  # seconds between looks whether another agent has ended
BACKLOG = 1024  # relays that wait; the kernel's own limit (net.core.somaxconn) may be lower


class Listener:
    """The right to a socket's path, by a lock beside it that ends with the process. Raises CNIError where no socket can have that path."""

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > LONGEST:
            raise CNIError(IO_FAILURE, f"socket path {path} has more than {LONGEST} bytes", "give --socket, or --run-dir, a shorter one")
        self.path = path
        self._lock = -1
        self._socket: socket.socket | None = None
        self._bound: tuple[int, int] | None = None  # the device and inode of the path that leads to our socket
        self.problem = ""  # why relays do not reach us

    async def take(self, stop: asyncio.Event, log: Log, *, wait: bool) -> bool:
        """Take it, with `wait` as soon as another agent that has it has ended. Say whether it is ours: not where we are to stop first.

        Raises CNIError where another agent has it, and OSError.
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
        """See whether relays reach us: somebody may have removed the path, or its directory. Return a new socket where that was so."""
        if self._is_reachable():
            self.problem = ""
        elif self._socket is not None:
            self.problem = f"{self.path} does not lead to the socket that systemd has passed on: systemctl restart kube-node-agent.socket"
        else:
            try:
                return self._listen_again()
            except (OSError, CNIError) as error:
                self.problem = f"{self.path} was removed, and cannot be made again: {error}"
        return None

    def _is_reachable(self) -> bool:
        return self._bound == _identity(self.path)

    def _listen_again(self) -> socket.socket:
        os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
        if _identity(f"{self.path}.lock") != _identity(self._lock):  # gone with the directory: another agent may have come
            mine, self._lock = self._lock, _lock(self.path)
            os.close(mine)
        self.problem = ""
        return self._bind()

    def listen(self, environ: Mapping[str, str]) -> socket.socket:
        """Return the listening socket: the one that systemd passes on (sd_listen_fds(3)), or one of our own. Raises OSError."""
        if environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS") == "1":
            self._socket = socket.socket(fileno=PASSED_ON)
            os.set_inheritable(PASSED_ON, False)  # noqa: FBT003 -- its own signature
            self.path = self._socket.getsockname() or self.path
            self._bound = _identity(self.path) or (0, 0)
            return self._socket
        return self._bind()

    def _bind(self) -> socket.socket:
        temporary = f"{self.path}{files.TEMPORARY}"
        files.remove(temporary)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            listener.bind(temporary)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        # By renaming there is no moment without a socket, and none with one that is not ready.
        try:
            os.rename(temporary, self.path)
        except IsADirectoryError as error:
            listener.close()
            raise OSError(error.errno, error.strerror, self.path) from None
        self._bound = _identity(self.path)
        return listener

    def leave(self) -> str:
        """Let no more relays come; return the path by which we ourselves can still connect. With a socket that was passed on they wait."""
        if self._socket is not None:
            return str(self._socket.getsockname())
        ending = f"{self.path}{files.TEMPORARY}"
        if self._is_reachable():  # else no relay comes any more, and we do not, either
            os.rename(self.path, ending)
        return ending

    def end(self) -> None:
        """Let another agent have it."""
        if self._socket is None:
            files.remove(f"{self.path}{files.TEMPORARY}")
        os.close(self._lock)


def _lock(path: str) -> int:
    """Take the lock beside a socket's path. Raises CNIError where another agent has it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, _, numbers = files.read(f"{path}.lock").decode(errors="replace").strip().partition(" ")
        os.close(lock)
        # In another container's numbers it may be any process of ours.
        process = f", process {pid}," if numbers == _numbers() else ""
        raise CNIError(AGENT_RUNS, f"another agent{process} serves {path}", "stop it first, or give this one another socket") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {_numbers()}\n".encode(), 0)
    return lock


def _numbers() -> str:
    """Return the PID namespace in which our process has its number."""
    return os.readlink("/proc/self/ns/pid")


def _identity(path: str | int) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
