"""The agent's socket: one agent has it, whatever its predecessor has left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import sys

from kubenode.cni.errors import AGENT_RUNS, CNIError
from kubenode.host import files

BACKLOG = 1024  # relays that wait; the kernel's own limit (net.core.somaxconn) may be lower


class Claim:
    """The right to a socket's path, by a lock beside it that ends with the process. Raises CNIError where another has it."""

    def __init__(self, path: str) -> None:
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
        self._inode = -1

    def listen(self) -> socket.socket:
        """Return the listening socket. It takes the path by renaming: at no moment is there none. Raises OSError."""
        temporary = f"{self.path}{files.TEMPORARY}"
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            listener.bind(temporary)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        self._inode = os.stat(temporary).st_ino
        os.rename(temporary, self.path)
        return listener

    def leave(self) -> None:
        """Take the path away, so that relays need not try; and let another agent have it."""
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except OSError as error:
            sys.stderr.write(f"kube-node: {self.path}: {error.strerror}\n")
        os.close(self._lock)
