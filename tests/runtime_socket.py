# SPDX-License-Identifier: Apache-2.0
"""A container runtime's CRI socket as far as `gc` asks it: ListPodSandbox over gRPC."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def text(number: int, value: bytes) -> bytes:
    """Return a length-delimited field of protocol buffers; the length is below 128."""
    return bytes([number << 3 | 2, len(value)]) + value


class RuntimeSocket:
    """Answers with these sandboxes; `methods` are the services that it knows, `cut`: how many bytes of an answer it leaves out."""

    def __init__(self, path: Path, sandboxes: Sequence[str], methods: str = "/runtime.v1.", cut: int = 0) -> None:
        self.path, self._sandboxes, self._methods, self._cut = path, sandboxes, methods, cut
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, suppress(ConnectionError):  # who has its answer may be gone
                self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        sock.sendall(connection.data_to_send())
        while received := sock.recv(65536):
            for event in connection.receive_data(received):
                if isinstance(event, RequestReceived):
                    path = next(value.decode() for name, value in event.headers if name == b":path")
                    self._say(connection, event.stream_id, known=path.startswith(self._methods))
            sock.sendall(connection.data_to_send())

    def _say(self, connection: H2Connection, stream: int, *, known: bool) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if not known:
            connection.send_headers(stream, [*head, ("grpc-status", "12")], end_stream=True)
            return
        # A sandbox has more than its ID: a nested message, and numbers.
        items = b"".join(text(1, text(1, name.encode()) + text(2, text(1, b"pod")) + b"\x18\x01\x20\xff\x01") for name in self._sandboxes)
        message = b"\0" + len(items).to_bytes(4) + items
        connection.send_headers(stream, head)
        connection.send_data(stream, message[: len(message) - self._cut])
        connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
