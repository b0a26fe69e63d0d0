"""The agent's socket: one agent has it, whatever its predecessor has left behind."""

from __future__ import annotations

import fcntl
import os
import socket
from typing import TYPE_CHECKING

from kubenode.cni.errors import AGENT_RUNS, IO_FAILURE, CNIError
from kubenode.host import files

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSED_ON = 3  # SD_LISTEN_FDS_START
LONGEST = 107 - len(files.TEMPORARY)  # bytes (unix(7)), with what the path ends in until it is listened on
BACKLOG = 1024  # relays that wait; the kernel's own limit (net.core.somaxconn) may be lower


class Claim:
    """The right to a socket's path, by a lock beside it that ends with the process. Raises CNIError where another has it, or none can."""

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > LONGEST:
            raise CNIError(IO_FAILURE, f"socket path {path} has more than {LONGEST} bytes", "give --socket, or --run-dir, a shorter one")
        self.path = path
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = files.read(f"{path}.lock").decode(errors="replace").strip() or "?"
            os.close(self._lock)
            problem = f"another agent, process {pid}, serves {path}"
            raise CNIError(AGENT_RUNS, problem, "stop it first, or give this one another socket") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self._listener: socket.socket | None = None

    def listen(self, environ: Mapping[str, str]) -> socket.socket:
        """Return the listening socket: the one that systemd passes on (sd_listen_fds(3)), or one of our own. Raises OSError."""
        if environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS") == "1":
            self._listener = socket.socket(fileno=PASSED_ON)
            os.set_inheritable(PASSED_ON, False)  # noqa: FBT003 -- its own signature
            return self._listener
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
        os.rename(temporary, self.path)
        return listener

    def leave(self) -> str:
        """Let no more relays come; return the path by which we ourselves can still connect. With a socket that was passed on they wait."""
        if self._listener is not None:
            return str(self._listener.getsockname())
        ending = f"{self.path}{files.TEMPORARY}"
        try:
            os.rename(self.path, ending)
        except FileNotFoundError:  # somebody has removed it: no relay comes any more, and we do not, either
            pass
        return ending

    def end(self) -> None:
        """Let another agent have it."""
        if self._listener is None:
            files.remove(f"{self.path}{files.TEMPORARY}")
        os.close(self._lock)
