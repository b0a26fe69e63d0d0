# SPDX-License-Identifier: Apache-2.0
"""What lies between a client and a server: an HTTP proxy that says what went through it, and a port that can be closed."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self
from urllib.parse import urlsplit


class _Between(ABC):
    """A port of this machine, and what becomes of its connections."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is closed already
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would leave accept(2) waiting, and the port taken
        self._listener.close()

    @abstractmethod
    def _connect(self, client: socket.socket) -> None:
        """Serve a connection, in a thread of its own."""

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()


class Door(_Between):
    """A port that leads to another one of this machine until it is closed; then connections are refused, as where nothing listens."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._port = urlsplit(url).port
        self.url = f"https://{self.address}"

    def _connect(self, client: socket.socket) -> None:
        _join(client, socket.create_connection(("127.0.0.1", self._port)))


class StandInProxy(_Between):
    """An HTTP proxy that knows only CONNECT, and refuses that, too, where `refusal` is a status line such as `403 Forbidden`."""

    def __init__(self, refusal: str = "") -> None:
        super().__init__()
        self._refusal = refusal
        self.targets: list[str] = []
        self.url = f"http://{self.address}"

    def _connect(self, client: socket.socket) -> None:
        request = client.recv(65536).decode()
        method, target, _ = request.split(" ", 2)
        if self._refusal:
            client.sendall(b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % self._refusal.encode())
            client.close()
            return
        if method != "CONNECT":
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\nConnection: close\r\n\r\n")
            client.close()
            return
        self.targets.append(target)
        parts = urlsplit(f"//{target}")  # which wants brackets, as proxies do
        upstream = socket.create_connection((parts.hostname or "", parts.port or 0))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        _join(client, upstream)


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass on what comes from either, until both have ended."""
    for source, sink in ((one, other), (other, one)):
        threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
