"""The socket: relays' connections become calls of `skel.run` on a network's own thread, each answered once and in time.

The event loop accepts, reads and keeps the time; workers do the rest. An ADD whose relay is gone when its addresses come takes them back:
the runtime was told that it failed, and its DEL may have passed already.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Protocol

from kubenode.agent import protocol
from kubenode.agent.connection import DEADLINE, Connection
from kubenode.agent.networks import PLUGINS, key_of
from kubenode.cni.errors import INVALID_ENVIRONMENT, TRY_AGAIN_LATER, CNIError
from kubenode.cni.jsontext import JSONTextError, loads
from kubenode.host.log import INFO, Log
from kubenode.plugins import skel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from kubenode.agent.networks import Key, Networks
    from kubenode.agent.workers import Workers
    from kubenode.plugins.skel import Host

    class Observer(Protocol):
        def called(self, plugin: str, command: str, status: int, stdout: bytes, seconds: float) -> None:
            """Take note of a call that was answered."""


NOT_MINE = skel.NOT_HERE
SWEEP = 0.25  # seconds between looks for calls whose time is over
PEEK = 65536  # bytes of a network configuration up to which the loop looks into it
PAUSE = 0.1  # seconds without accepting where there are no file descriptors left


class Server:
    """Serves the plugins on a listening socket, which is the caller's to close."""

    def __init__(
        self,
        listener: socket.socket,
        host: Callable[[Callable[[], None]], Host],
        workers: Workers,
        networks: Networks,
        environ: Mapping[str, str],
        log: Log,
        observer: Observer,
    ) -> None:
        self._listener = listener
        self._host = host
        self._workers = workers
        self._networks = networks
        self._environ = {key: value for key, value in environ.items() if not key.startswith("CNI_")}
        self._log = log
        self._observer = observer
        self._open: set[Connection] = set()
        self._reading: set[Connection] = set()
        self._users = {0, os.geteuid()}

    async def run(self) -> None:
        """Serve until cancelled; then no new connection is taken."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._listener, self._accept)
        try:
            while True:
                await asyncio.sleep(SWEEP)
                self._sweep()
        finally:
            loop.remove_reader(self._listener)

    async def drain(self, seconds: float) -> int:
        """Take who came before the socket's path was gone, and wait so long for the answers that are owed; return how many still are."""
        self._accept()
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            await asyncio.sleep(0.01)
            self._sweep()
        return len(self._open)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._log.error("cannot accept a connection", error=str(error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                loop.call_later(PAUSE, loop.add_reader, self._listener, self._accept)
                return
            sock.settimeout(0)
            connection = Connection(sock)
            pid, uid = connection.peer()
            if uid not in self._users:
                self._log.warning("a user was refused", uid=uid, pid=pid)
                connection.refuse(CNIError(INVALID_ENVIRONMENT, f"user {uid} may not ask the agent", "run the plugin as root"))
                continue
            self._open.add(connection)
            self._read(connection)  # a relay has mostly sent all by now

    def _read(self, connection: Connection) -> None:
        """Take what has come, and begin the call once it is complete."""
        loop = asyncio.get_running_loop()
        try:
            request = connection.receive()
            if request is None:
                if connection not in self._reading:
                    self._reading.add(connection)
                    loop.add_reader(connection.socket, self._read, connection)
                return
            self._read_no_more(connection)
            self._begin(connection, protocol.parse(request))
        except OSError:
            self._read_no_more(connection)
            connection.socket.close()
            self._open.discard(connection)
        except CNIError as error:
            self._log.warning("a request was refused", error=str(error))
            connection.refuse(error)
            self._open.discard(connection)

    def _read_no_more(self, connection: Connection) -> None:
        if connection in self._reading:
            self._reading.discard(connection)
            asyncio.get_running_loop().remove_reader(connection.socket)

    def _begin(self, connection: Connection, asked: protocol.Asked) -> None:
        if asked.plugin in PLUGINS:
            key = _key(asked)
            self._workers.submit(key, lambda: self._carry_out(connection, asked, key))
        else:
            connection.answer(NOT_MINE, b"")
            self._open.discard(connection)

    def _carry_out(self, connection: Connection, asked: protocol.Asked, key: Key | None) -> None:
        """Make the call. On a worker's thread."""

        def is_in_time() -> None:
            if not connection.is_wanted():
                raise _too_late()

        try:
            if not connection.is_wanted():
                return
            begin = time.monotonic()
            status, stdout = self._run(asked, self._host(is_in_time))
            command = asked.environ.get("CNI_COMMAND", "")
            if not connection.answer(status, stdout) and status == 0 and command == "ADD":
                self._take_back(asked)
            self._observer.called(asked.plugin, command, status, stdout, time.monotonic() - begin)
            if key and status == 0 and command in {"ADD", "STATUS"}:
                self._networks.note(key, asked.plugin, asked.stdin)
        except Exception as error:  # noqa: BLE001 -- a fault in one call is that call's alone
            self._log.error("internal error around a call", error=repr(error))
            connection.answer(NOT_MINE, b"")
        finally:
            self._open.discard(connection)

    def _run(self, asked: protocol.Asked, host: Host) -> tuple[int, bytes]:
        log = Log(asked.plugin, INFO, host.path)
        return skel.run(PLUGINS[asked.plugin].commands, {**self._environ, **asked.environ}, asked.stdin, log, host)

    def _take_back(self, asked: protocol.Asked) -> None:
        self._log.warning("nobody waits for an ADD's addresses any more: releasing them", containerID=asked.environ.get("CNI_CONTAINERID"))
        self._run(asked._replace(environ={**asked.environ, "CNI_COMMAND": "DEL"}), self._host(lambda: None))

    def _sweep(self) -> None:
        for connection in list(self._open):
            if connection.age() > DEADLINE:
                self._read_no_more(connection)
                connection.refuse(_too_late())
                self._open.discard(connection)


def _too_late() -> CNIError:
    return CNIError(
        TRY_AGAIN_LATER, f"not done within {DEADLINE:g} s", "who holds the lock in dataDir, or the disk, is slow; the runtime tries again"
    )


def _key(asked: protocol.Asked) -> Key | None:
    """Return what has to be done one after the other: the calls for one network in one data directory."""
    try:
        return key_of(loads(asked.stdin)) if len(asked.stdin) <= PEEK else None
    except JSONTextError:
        return None
