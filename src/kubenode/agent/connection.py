"""One connection of a relay: what it asks, whether it still waits, and the one answer that it gets."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from kubenode.agent import protocol
from kubenode.cni import versions
from kubenode.plugins import skel

if TYPE_CHECKING:
    from kubenode.cni.errors import CNIError

DEADLINE = 12.0  # seconds for all of a call, as in the launchers; the relay's patience is 15
SEND_TIMEOUT = 5.0  # seconds for a relay to take its answer
CHUNK = 65536
TIMEVAL = struct.Struct("ll")  # seconds, microseconds (socket(7), SO_RCVTIMEO)
UCRED = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


class Connection:
    """A relay's connection. The first to answer has answered: its thread, or the clock. Only its thread closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.began = time.monotonic()
        self._mutex = threading.Lock()
        self._answered = False

    def peer(self) -> tuple[int, int]:
        """Return the process and the user at the other end."""
        pid, uid, _ = UCRED.unpack(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        return pid, uid

    def receive(self) -> bytes:
        """Read the request to its end. Raises OSError."""
        seconds, fraction = divmod(DEADLINE, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(int(seconds), int(fraction * 1_000_000)))
        received = self.socket.recv(CHUNK)
        while chunk := self.socket.recv(CHUNK):
            # What is too much is read nonetheless: closing before would reset the connection, and the answer with it.
            if len(received) <= protocol.REQUEST_LIMIT:
                received += chunk
        return received

    def age(self) -> float:
        return time.monotonic() - self.began

    def is_wanted(self) -> bool:
        """Say whether anybody waits for the answer: it is not given yet, and the relay is still there."""
        poll = select.poll()
        with self._mutex:
            if self._answered:
                return False
            poll.register(self.socket, 0)  # POLLHUP always counts; our half-closed peer has it only once it is gone
            return not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    def answer(self, status: int, stdout: bytes) -> bool:
        """Answer. Return whether this was the answer, and has gone out whole."""
        with self._mutex:
            if self._answered:
                return False
            self._answered = True
            try:
                if len(stdout) > CHUNK:  # less always fits
                    self.socket.settimeout(SEND_TIMEOUT)
                self.socket.sendall(bytes([status]) + stdout)
                self.socket.shutdown(socket.SHUT_RDWR)  # closing would give the descriptor to the next, while our thread may read from it
            except OSError:
                return False
            return True

    def close(self) -> None:
        """Close it, once whoever answers at this moment has done so."""
        with self._mutex:
            self._answered = True
            self.socket.close()

    def refuse(self, error: CNIError) -> bool:
        """Answer with an error object. Good at any time, from any thread."""
        return self.answer(1, skel.answer(error.as_object(versions.LATEST)))
