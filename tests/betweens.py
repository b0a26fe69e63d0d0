# SPDX-License-Identifier: Apache-2.0
"""What lies between a client and a server: an HTTP proxy that says what went through it, and a port that can be closed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self
from urllib.parse import urlsplit

CLONE_NEWNET = 0x40000000  # of setns(2), which os has from Python 3.12 on


def _listener(port: int, netns: str) -> socket.socket:
    """Return what listens on a port of the loopback, in a network namespace: its sockets stay there, and only a thread enters it."""
    made: list[socket.socket] = []

    def listen() -> None:
        with open(netns, "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), netns)
        made.append(socket.create_server(("127.0.0.1", port)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    return made[0]


class _Between(ABC):
    """A port of this machine or of a network namespace, and what becomes of its connections."""

    def __init__(self, port: int = 0, netns: str = "") -> None:
        self._listener = _listener(port, netns) if netns else socket.create_server(("127.0.0.1", port))
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
    """A port that leads to another one of this machine until it is closed; then connections are refused, as where nothing listens.

    With `netns` it is the port of the same number there: the URL leads to the same server from there and from here.
    """

    def __init__(self, url: str, netns: str = "") -> None:
        self._port = urlsplit(url).port or 0
        super().__init__(self._port if netns else 0, netns)
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
