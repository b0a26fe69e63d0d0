"""/metrics, /healthz and /readyz over HTTP, for agent and controller, whoever is on the other side.

There are a few connections at a time, each for a few seconds in all. One more ends the one that has said nothing for longest: a client that
asks at once, as the kubelet and Prometheus do, gets an answer, however many others keep connections open.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import CollectorRegistry

    class Log(Protocol):
        def error(self, message: str, **fields: Any) -> None: ...
        def info(self, message: str, **fields: Any) -> None: ...


MOST = 16  # connections at a time
LONGEST = 5.0  # seconds for all of a connection
BACKLOG = 128  # connections that wait to be let in
LIMIT = 8192  # bytes of a request
RETRY = 5.0  # seconds between tries to listen
PLAIN = "text/plain; charset=utf-8"


class Counted:
    """A counter whose value somebody else keeps."""

    def __init__(self, name: str, documentation: str, value: Callable[[], int]) -> None:
        self._name = name
        self._documentation = documentation
        self._value = value

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._documentation, value=self._value())


class HTTPServer:
    """Serves until it is closed, or the process ends. The checks return why not, "" where all is well, and wait for nothing.

    `problem` says why nobody can connect: a port that is taken is tried again, as all else works without.
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
        """Serve, on a thread and a loop of its own: a process whose loop is stuck can say so."""
        listener = self._listen()
        threading.Thread(target=lambda: asyncio.run(self._work(listener)), daemon=True, name="http").start()

    def close(self) -> None:
        """Leave the port to another process."""
        if self._listener is not None:
            self._listener.close()

    def _listen(self) -> socket.socket | None:
        host, port = self._address
        try:
            listener = socket.create_server(self._address, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            problem = f"cannot listen on {host}:{port}: {str(error.strerror or error).partition(' (')[0]}"
            if problem != self.problem:
                self._log.error(problem, details="nobody gets metrics or health; give --listen another address, or none")
            self.problem = problem
            return None
        self._listener = listener
        self.port = listener.getsockname()[1]
        if self.problem:
            self._log.info("HTTP server started", address=f"{host}:{self.port}")
        self.problem = ""
        return listener

    async def _work(self, listener: socket.socket | None) -> None:
        # Without a descriptor for a connection asyncio tries again after a second; it would print a traceback between our lines.
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
        except (OSError, EOFError, asyncio.LimitOverrunError):  # it is gone, too slow, or no HTTP
            pass
        except Exception as error:  # noqa: BLE001 -- a fault in one answer is that answer's alone
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
        """Return what is exported. It may take seconds: one looks at a time, also for all who ask meanwhile."""
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
