# SPDX-License-Identifier: Apache-2.0
"""Requests to the API server with asyncio, and the lines of a watch's stream.

Retry-After of a busy server is the caller's task, which has other work meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import httpx2

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.kube.offloop import off_loop
from kubenode.kube.refusal import StatusError, garbled
from kubenode.kube.session import Session, retry_after

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping

    from kubenode.kube.kubeconfig import Connection

LARGEST = 16 << 20  # bytes of one event; etcd holds 1.5 MiB an object
CONNECT_TIMEOUT = 3.0  # seconds for TCP if no name must be resolved: a lost SYN is sent again after 1 s, then after 3 s
CONNECTIONS = 16  # to one API server: each request searches all idle ones, and any more would need a new TLS handshake
# Keepalive detects a peer that vanished after 30 s, even if we send nothing.
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class AsyncTransport:
    """Sends requests, each for at most `timeout` seconds. The constructor blocks: it reads credentials. Raises CNIError."""

    def __init__(self, connection: Connection, environ: Mapping[str, str], timeout: float) -> None:
        self.server = connection.cluster.server
        self._session = Session(connection, environ, timeout)
        self._timeout = timeout
        # Waiting beyond a SYN's second copy only delays the next attempt; resolving a name may take 5 s per name server.
        self._connect_timeout = min(timeout, CONNECT_TIMEOUT) if _is_address(self._session.host) else timeout
        self._wire = self._session.wire(_wire)
        self._choosing = asyncio.Lock()

    async def send(self, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        """Return a successful answer, complete; with `stream` its body is still to come. Raises CNIError for any other."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        try:
            async with asyncio.timeout_at(end) as patience:

                async def trace(happened: str, _: object) -> None:
                    if happened == "connection.connect_tcp.started":
                        patience.reschedule(min(end, loop.time() + self._connect_timeout))
                    elif happened == "connection.connect_tcp.complete":
                        patience.reschedule(end)

                request.extensions["trace"] = trace
                response = await self._answer(request)
                if not stream:
                    await response.aread()
        except (TimeoutError, httpx2.RequestError) as error:
            raise self._session.no_answer(error) from error
        return response

    async def lines(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """Yield each complete line of a stream, and close it. Raises CNIError, also if the stream ends within a line."""
        pending = bytearray()
        try:
            async for chunk in response.aiter_raw():
                searched = len(pending)
                pending += chunk
                while (end := pending.find(b"\n", searched)) >= 0:
                    line, searched = bytes(pending[:end]), 0
                    del pending[: end + 1]
                    yield line
                if len(pending) > LARGEST:
                    raise garbled(self.server, "an event of a watch", f"more than {LARGEST} bytes")
        except httpx2.RequestError as error:
            raise self._session.no_answer(error) from error
        finally:
            await response.aclose()
        if pending:
            problem = f"the watch at API server {self.server} ended in the middle of an event"
            raise CNIError(TRY_AGAIN_LATER, problem, "does a proxy or load balancer end long connections?")

    def refused(self, status: int, body: bytes, pause: float | None) -> StatusError:
        """Return the error for a Status in an event; `pause` is its retry time in seconds."""
        return self._session.refused(status, body, pause)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        if self._session.expired():
            await self._renew()
        response = await self._ask(request)
        if self._session.renewable_after(response.status_code):
            await response.aclose()
            await self._renew()
            response = await self._ask(request)
        if not response.is_success:
            raise self._session.refused(response.status_code, await response.aread(), retry_after(response))
        return response

    async def _ask(self, request: httpx2.Request) -> httpx2.Response:
        self._session.sign(request)
        wire = self._wire
        try:
            return await wire.handle_async_request(request)
        except httpx2.RequestError as error:
            if not self._session.misled(error):
                raise
            failure = error
        async with self._choosing:
            if wire is not self._wire:  # another request has chosen a certificate
                return await self._wire.handle_async_request(request)
            for _ in self._session.anchors():
                await self._rewire()
                try:
                    return await self._wire.handle_async_request(request)
                except httpx2.RequestError:
                    pass
        raise failure

    async def _renew(self) -> None:
        if await off_loop(self._session.renew):
            await self._rewire()

    async def _rewire(self) -> None:
        await self._wire.aclose()
        self._wire = self._session.wire(_wire)


def _wire(context: ssl.SSLContext, proxy: str | None) -> httpx2.AsyncHTTPTransport:
    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return httpx2.AsyncHTTPTransport(verify=context, proxy=proxy, trust_env=False, socket_options=KEEPALIVE, limits=limits)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
