# SPDX-License-Identifier: Apache-2.0
"""HTTP server of agent and controller: /metrics, /healthz and /readyz.

It keeps a few connections, each for a few seconds. One more aborts the oldest one that has not sent a request yet: a client that asks at
once, as the kubelet and Prometheus do, always gets an answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import CollectorRegistry

    from kubenode.base.log import Log

MOST = 16  # connections at the same time
LONGEST = 5.0  # seconds for a whole connection
BACKLOG = 128  # connections that wait for accept(2)
LIMIT = 8192  # bytes of a request
RETRY = 5.0  # seconds between tries to listen
PLAIN = "text/plain; charset=utf-8"


class Counted:
    """Counter whose value is kept elsewhere; `value` returns it."""

    def __init__(self, name: str, documentation: str, value: Callable[[], int]) -> None:
        self._name = name
        self._documentation = documentation
        self._value = value

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the counter with its value of now."""
        yield CounterMetricFamily(self._name, self._documentation, value=self._value())


class HTTPServer:
    """Server that runs until it is closed, or the process ends.

    `checks` maps paths to functions that return a problem, "" for none; they must not block. `problem` says why the server cannot listen:
    it tries again, as the process works without it.
    """

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, checks: Mapping[str, Callable[[], str]], log: Log) -> None:
        self._address = address
        self._registry = registry
        self._checks = checks
        self._log = log
        self._silent: dict[asyncio.StreamWriter, None] = {}  # connections that have not asked yet, the oldest first
        self._open = 0
        self._scrape: asyncio.Task[bytes] | None = None
        self._listener: socket.socket | None = None
        self.port = 0
        self.problem = ""

    def start(self) -> None:
        """Start the server on its own thread and event loop: it then also answers while the process's main loop is stuck."""
        listener = self._listen()
        threading.Thread(target=lambda: asyncio.run(self._work(listener)), daemon=True, name="http").start()

    def close(self) -> None:
        """Close the listening socket, so that another process can have the port."""
        if self._listener is not None:
            self._listener.close()

    def _listen(self) -> socket.socket | None:
        host, port = self._address
        try:
            listener = socket.create_server(self._address, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            problem = f"cannot listen on {host}:{port}: {str(error.strerror or error).partition(' (')[0]}"
            if problem != self.problem:
                self._log.error(problem, details="metrics and health are not available; give --listen another address, or none")
            self.problem = problem
            return None
        self._listener = listener
        self.port = listener.getsockname()[1]
        if self.problem:
            self._log.info("HTTP server started", address=f"{host}:{self.port}")
        self.problem = ""
        return listener

    async def _work(self, listener: socket.socket | None) -> None:
        # Out of descriptors, asyncio accepts again after a second; it would print a traceback between our lines.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        while listener is None:
            await asyncio.sleep(RETRY)
            listener = self._listen()
        server = await asyncio.start_server(self._connected, sock=listener, limit=LIMIT, backlog=BACKLOG)
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > MOST:
                if not self._silent:
                    return
                oldest = next(iter(self._silent))
                del self._silent[oldest]
                oldest.transport.abort()
            self._silent[writer] = None
            async with asyncio.timeout(LONGEST):
                head = await reader.readuntil(b"\r\n\r\n")
                self._silent.pop(writer, None)
                writer.write(await self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, asyncio.LimitOverrunError):  # the client left, is too slow, or sends no HTTP
            pass
        except Exception as error:  # noqa: BLE001 -- an error in one answer must not end the server
            self._log.error("internal error in an HTTP answer", error=repr(error))
        finally:
            self._open -= 1
            self._silent.pop(writer, None)
            writer.transport.abort()

    async def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        path = words[1].partition("?")[0] if len(words) > 1 else ""
        if words[0] != "GET":
            return _response(HTTPStatus.NOT_IMPLEMENTED, b"")
        if path == "/metrics":
            return _response(HTTPStatus.OK, await self._metrics(), CONTENT_TYPE_LATEST)
        if path in self._checks:
            problem = self._checks[path]()
            return _response(HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK, f"{problem or 'ok'}\n".encode(errors="replace"))
        return _response(HTTPStatus.NOT_FOUND, b"/metrics, /healthz or /readyz\n")

    async def _metrics(self) -> bytes:
        """Return the metrics as text. That can take seconds, so concurrent requests share one scrape."""
        if self._scrape is None or self._scrape.done():
            self._scrape = asyncio.create_task(asyncio.to_thread(generate_latest, self._registry))
        return await asyncio.shield(self._scrape)


def _response(status: HTTPStatus, body: bytes, content_type: str = PLAIN) -> bytes:
    lines = (
        f"HTTP/1.0 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body
