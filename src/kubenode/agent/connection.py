# SPDX-License-Identifier: Apache-2.0
"""Connection of a relay: its request, whether it still waits, and its only answer."""

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

DEADLINE = 12.0  # seconds for a whole call, as in the launchers; the relay waits 15
SEND_TIMEOUT = 5.0  # seconds for a relay to read its answer
CHUNK = 65536
TIMEVAL = struct.Struct("ll")  # seconds, microseconds (socket(7), SO_RCVTIMEO)
UCRED = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


class RelayConnection:
    """Connection of a relay. Its thread or the deadline answers, whichever is first. Only the thread closes it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.began = time.monotonic()
        self.is_received = False  # whether the request is complete
        self._mutex = threading.Lock()
        self._answered = False

    def peer(self) -> tuple[int, int]:
        """Return process and user at the other end."""
        pid, uid, _ = UCRED.unpack(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        return pid, uid

    def receive(self) -> bytes:
        """Read the whole request. Raises OSError."""
        seconds, fraction = divmod(DEADLINE, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(int(seconds), int(fraction * 1_000_000)))
        received = self.socket.recv(CHUNK)
        while chunk := self.socket.recv(CHUNK):
            # Read even too long a request: an early close would reset the connection, and the relay would lose the answer.
            if len(received) <= protocol.REQUEST_LIMIT:
                received += chunk
        self.is_received = True
        return received

    def age(self) -> float:
        """Return the seconds since the connection was accepted."""
        return time.monotonic() - self.began

    def is_wanted(self) -> bool:
        """Say whether the call still needs an answer: none was sent, and the relay is still connected."""
        poll = select.poll()
        with self._mutex:
            if self._answered:
                return False
            poll.register(self.socket, 0)  # POLLHUP is always reported; a half-closed peer has it only after its end
            return not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    def answer(self, status: int, stdout: bytes) -> bool:
        """Send the answer; return whether it was the first one and was sent completely."""
        with self._mutex:
            if self._answered:
                return False
            self._answered = True
            try:
                if len(stdout) > CHUNK:  # less always fits into the socket's buffer
                    self.socket.settimeout(SEND_TIMEOUT)
                self.socket.sendall(bytes([status]) + stdout)
                self.socket.shutdown(socket.SHUT_RDWR)  # close() would free the descriptor for others while our thread may read from it
            except OSError:
                return False
            return True

    def close(self) -> None:
        """Close the connection, after an answer that is being sent."""
        with self._mutex:
            self._answered = True
            self.socket.close()

    def refuse(self, error: CNIError) -> bool:
        """Answer with an error object. Safe at any time, from any thread."""
        return self.answer(1, skel.answer(error.as_object(versions.LATEST)))
