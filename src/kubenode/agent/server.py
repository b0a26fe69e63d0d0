# SPDX-License-Identifier: Apache-2.0
"""Server on the socket: each relay's connection becomes a call of `skel.run` on its own thread, answered once and in time.

One more thread than needed waits in accept(2), so that no call is passed between threads. A call that waits for a network's lock delays
only that network's pods. An ADD or DEL is answered before its lock is released. An ADD whose relay is gone by then releases its addresses:
for the runtime it failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Protocol

from kubenode.agent import protocol
from kubenode.agent.connection import DEADLINE, RelayConnection
from kubenode.cni import request
from kubenode.cni.errors import INVALID_ENVIRONMENT, TRY_AGAIN_LATER, CNIError
from kubenode.plugins import skel
from kubenode.plugins.table import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kubenode.agent.host import AgentHost
    from kubenode.agent.networks import Networks
    from kubenode.base.log import Log

    class HostMaker(Protocol):
        def __call__(self, before: Callable[[], None], *, keep: bool) -> AgentHost: ...

    class CallObserver(Protocol):
        def called(self, plugin: str, command: str, status: int, stdout: bytes, seconds: float) -> None:
            """Observe an answered call."""


SPARE = 4  # idle threads that stay
MOST = 1000  # threads; further calls wait in the socket's queue
PAUSE = 0.1  # seconds without accept(2) when out of file descriptors


class Server:
    """Serves plugins on a listening socket, which it owns. `questions` are about the agent itself, by name."""

    def __init__(
        self,
        listener: socket.socket,
        host: HostMaker,
        networks: Networks,
        environ: Mapping[str, str],
        log: Log,
        observers: Sequence[CallObserver],
        questions: Mapping[str, Callable[[], tuple[int, bytes]]],
    ) -> None:
        self._listener = listener
        self._networks = networks
        self._host = host
        self._environ = {key: value for key, value in environ.items() if not key.startswith("CNI_")}
        self._log = log
        self._observers = observers
        self._questions = questions
        self._open: set[RelayConnection] = set()
        self._users = {0, os.geteuid()}
        self._mutex = threading.Lock()
        self._reserve_mutex = threading.Lock()
        self._reserve: int | None = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._threads = self._waiting = 0
        self._ending = False

    def start(self) -> None:
        """Start the threads."""
        with self._mutex:
            self._start_thread()

    def move(self, listener: socket.socket) -> None:
        """Serve on another socket and end the old one; relays already connected there are still served."""
        before, self._listener = self._listener, listener
        before.shutdown(socket.SHUT_RDWR)  # wakes all threads in accept(2)
        before.setblocking(False)  # noqa: FBT003 -- the standard library's
        with contextlib.suppress(OSError):  # the queue is empty
            while True:
                left = before.accept()[0]
                try:
                    with self._mutex:
                        self._start_thread(left)
                except RuntimeError as error:
                    self._log.error("cannot start a thread", error=str(error))
                    with left, contextlib.suppress(OSError):
                        left.sendall(bytes([skel.NOT_HERE]))

    async def drain(self, address: str, seconds: float) -> int:
        """Serve the relays already connected, and wait at most `seconds` for the answers; return how many are missing.

        Our own connection, queued behind all relays, ends a thread in accept(2).
        """
        self._ending = True
        end, reachable = time.monotonic() + seconds, True
        while (self._open or (self._threads and reachable)) and time.monotonic() < end:
            if self._waiting and reachable:
                reachable = self._call_ourselves(address)
            await asyncio.sleep(0.01)
            self.sweep()
        return len(self._open)

    def close(self) -> None:
        """Close the socket."""
        self._listener.close()

    def _call_ourselves(self, address: str) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as last:
                last.settimeout(1)
                last.connect(address)
        except OSError as error:  # somebody removed the path
            self._log.error("cannot connect to the own socket", error=str(error))
            return False
        return True

    def sweep(self) -> None:
        """Answer calls at their deadline, even while their thread waits for a lock."""
        for connection in list(self._open):
            if connection.age() > DEADLINE:
                connection.refuse(_too_late() if connection.is_received else _unfinished())
                self._open.discard(connection)

    def _start_thread(self, accepted: socket.socket | None = None) -> None:
        # Daemons: a thread that waits for a lock for ever must not keep the agent running.
        threading.Thread(target=self._work, args=(accepted,), daemon=True, name="call").start()
        self._threads += 1
        self._waiting += 1

    def _work(self, accepted: socket.socket | None) -> None:
        while True:
            connection = RelayConnection(accepted or self._accept())
            accepted = None
            with self._mutex:
                self._waiting -= 1
                if self._ending and connection.peer()[0] == os.getpid():
                    connection.socket.close()
                    self._threads -= 1
                    return
                if not self._waiting and self._threads < MOST:
                    try:
                        self._start_thread()
                    except RuntimeError as error:  # this thread will take the next call
                        self._log.error("cannot start a thread", error=str(error))
            self._open.add(connection)
            try:
                self._serve(connection)
            except Exception as error:  # noqa: BLE001 -- an error in one call must not end the server
                self._log.error("internal error around a call", error=repr(error))
                connection.answer(skel.NOT_HERE, b"")
            self._open.discard(connection)
            connection.close()
            with self._mutex:
                if self._waiting >= SPARE:
                    self._threads -= 1
                    return
                self._waiting += 1

    def _accept(self) -> socket.socket:
        while True:
            listener = self._listener
            try:
                return listener.accept()[0]
            except OSError as error:
                if listener is not self._listener:
                    continue
                self._log.error("cannot accept a connection", error=str(error))
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    self._turn_away(listener)
                else:
                    time.sleep(PAUSE)

    def _turn_away(self, listener: socket.socket) -> None:
        """Send a call to the standalone plugin, with the reserve descriptor: a pod must not wait until others free one."""
        with self._reserve_mutex:
            if self._reserve is not None:
                os.close(self._reserve)
                self._reserve = None
            try:
                if select.select([listener], [], [], PAUSE)[0]:
                    with listener.accept()[0] as relay:
                        relay.sendall(bytes([skel.NOT_HERE]))
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self._log.error("cannot refuse a connection", error=str(error))
                time.sleep(PAUSE)

    def _serve(self, connection: RelayConnection) -> None:
        try:
            self._check_peer(connection)
            asked = protocol.parse(connection.receive())
        except CNIError as error:
            self._log.warning("request refused", error=str(error))
            connection.refuse(error)
        except OSError:  # the relay is gone, or too slow
            connection.refuse(_unfinished())
        else:
            if asked.plugin in PLUGINS:
                self._carry_out(connection, asked)
            elif asked.plugin in self._questions:
                connection.answer(*self._questions[asked.plugin]())
            else:
                connection.answer(skel.NOT_HERE, b"")

    def _check_peer(self, connection: RelayConnection) -> None:
        pid, uid = connection.peer()
        if uid not in self._users:
            raise CNIError(INVALID_ENVIRONMENT, f"user {uid} may not use the agent", f"run the plugin as root; this was process {pid}")

    def _carry_out(self, connection: RelayConnection, asked: protocol.Asked) -> None:
        def before() -> None:
            if not connection.is_wanted():
                raise _too_late()

        command = asked.environ.get("CNI_COMMAND", "")
        log = self._log.of(asked.plugin)
        with self._host(before, keep=command in {"ADD", "DEL"}) as host:
            status, stdout = self._run(asked, host, log)
            if not connection.answer(status, stdout) and status == 0 and command == "ADD":
                log.warning("the relay of an ADD is gone: releasing its addresses")
                self._run(asked._replace(environ={**asked.environ, "CNI_COMMAND": "DEL"}), host, log)
        for observer in self._observers:
            observer.called(asked.plugin, command, status, stdout, connection.age())
        if status == 0 and command in {"ADD", "STATUS"}:
            self._networks.met(asked.plugin, asked.stdin)

    def _run(self, asked: protocol.Asked, host: AgentHost, log: Log) -> tuple[int, bytes]:
        log.begin(request.labels(asked.environ))
        plugin = PLUGINS[asked.plugin]
        return skel.run(plugin.commands, {**self._environ, **asked.environ}, asked.stdin, log, host, plugin.wording)


def _too_late() -> CNIError:
    return CNIError(
        TRY_AGAIN_LATER,
        f"not done within {DEADLINE:g} s",
        "the disk or the holder of the lock in dataDir is slow; the runtime tries again",
    )


def _unfinished() -> CNIError:
    return CNIError(
        TRY_AGAIN_LATER,
        f"the request was not complete within {DEADLINE:g} s",
        "the runtime has to close the plugin's stdin, and the relay then ends the request; the runtime tries again",
    )
