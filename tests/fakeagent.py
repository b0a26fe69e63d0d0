# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the agent, for what a real one seldom does: each connection is answered by a script that the test gives."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Script = Callable[["Connection"], None]


class Request(NamedTuple):
    """A request of the relay, taken apart."""

    plugin: bytes
    environ: list[bytes]
    stdin: bytes


def parse(request: bytes) -> Request:
    """Take a request apart: `kn1 NUL PLUGIN NUL {KEY=VALUE NUL} NUL STDIN`."""
    magic, plugin, rest = request.split(b"\0", 2)
    assert magic == b"kn1"
    environ: list[bytes] = []
    while True:
        entry, rest = rest.split(b"\0", 1)
        if not entry:
            return Request(plugin, environ, rest)
        environ.append(entry)


class Connection:
    """The agent's end of one call."""

    def __init__(self, agent: FakeAgent, peer: socket.socket) -> None:
        self._agent = agent
        self._peer = peer

    def read(self, limit: int | None = None) -> bytes:
        """Read to the end, or so many bytes."""
        content = b""
        while limit is None or len(content) < limit:
            chunk = self._peer.recv(65536 if limit is None else limit - len(content))
            if not chunk:
                break
            content += chunk
        return content

    def write(self, content: bytes) -> None:
        self._peer.sendall(content)

    def reset(self) -> None:
        """Close as a process ends that has more to read: what the relay sends then fails with ECONNRESET or EPIPE."""
        self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._peer.close()

    def wait(self) -> None:
        """Do nothing until the test is over."""
        self._agent.over.wait(60)


class FakeAgent:
    """It listens while the `with` block runs; `requests` holds what was read to its end by `answer`."""

    def __init__(self, path: Path, script: Script | None = None, backlog: int = 128) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self.calls = 0
        self.over = threading.Event()
        self._script = script
        self._backlog = backlog
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(self._backlog)
        if self._script:
            self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()
        self.path.unlink()

    def _start(self, function: Callable[[], None]) -> None:
        thread = threading.Thread(target=function, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                peer = self._listener.accept()[0]
            except OSError:
                return
            self.calls += 1
            self._start(lambda peer=peer: self._serve(peer))  # type: ignore[misc]

    def _serve(self, peer: socket.socket) -> None:
        assert self._script
        with peer:
            try:
                self._script(Connection(self, peer))
            except OSError:  # the relay has gone
                pass


def answer(agent_answer: bytes) -> Script:
    """Read the whole request, keep it, answer this."""

    def script(connection: Connection) -> None:
        connection._agent.requests.append(connection.read())
        connection.write(agent_answer)

    return script
