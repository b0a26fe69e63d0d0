"""The API server as the agent needs it: the WATCH of one Node, with asyncio. What is asked once is `client`'s business."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2
import msgspec
from lightkube.config.client_adapter import ConnectionParams
from lightkube.core import decoders
from lightkube.core.generic_client import GenericAsyncClient

from kubenode.kube.client import Node, anonymous
from kubenode.kube.offloop import off_loop
from kubenode.kube.signon import SignOn, retry_after
from kubenode.kube.sources import AGENTS, connection
from kubenode.kube.stream import garbled, lines

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping

CONNECT_TIMEOUT = 3.0  # seconds for TCP where no name has to be resolved: a lost SYN is sent again after 1 s, then after 3 s
CONNECTIONS = 16  # to one API server: each request looks through all that are idle, and one beyond those that are kept begins with TLS
# A peer that is gone without a word is noticed after 30 s, though nothing is sent to it.
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Event(NamedTuple):
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK, and up to which version all is known with it."""

    kind: str
    version: str
    manifest: dict[str, Any]


class AsyncNodes:
    """The API server that a kubeconfig names, with the credentials of now: made anew for each watch. Making one blocks.

    `timeout` bounds what happens until a watch is accepted, in seconds.
    """

    def __init__(self, kubeconfig: str | None, environ: Mapping[str, str], timeout: float) -> None:
        found = connection(kubeconfig, environ, option=AGENTS)
        self._sign_on = SignOn(found, environ, timeout)
        self._timeout = timeout
        # Below lightkube's AsyncClient, whose watch() starts again by itself where one ends, and splits lines where text has U+0085.
        transport: Any = AsyncTransport(self._sign_on)  # lightkube's annotation says the blocking kind
        params = ConnectionParams(timeout=httpx2.Timeout(None), trust_env=False, transport=transport)
        self._client = GenericAsyncClient(params, anonymous(self._sign_on.server))
        # Waiting for TCP longer than a SYN's second copy would only delay the next first one; resolving a name may take 5 s a name server.
        self._connect_timeout = min(timeout, CONNECT_TIMEOUT) if _is_address(self._sign_on.host) else timeout

    async def watch(self, name: str, version: str, seconds: int) -> AsyncGenerator[Event, None]:
        """Return what happens to a Node after `version`, once the API server has accepted to say so for `seconds`.

        This and the iteration raise CNIError: RefusedError for what the API server itself says, 410 where it no longer knows `version`.
        """
        said = self._client.prepare_request(
            "list",
            Node,
            watch=True,
            params={
                "fieldSelector": f"metadata.name={name}",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(seconds),
            },
            headers={"Accept-Encoding": "identity"},
        )
        request = self._client.build_adapter_request(said)
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
                response = await self._client.send(request, stream=True)  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise self._sign_on.no_answer(error) from error
        return self._events(response)

    async def aclose(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _events(self, response: httpx2.Response) -> AsyncGenerator[Event, None]:
        async with aclosing(lines(response, self._sign_on)) as told:
            async for line in told:
                yield self._event(line)

    def _event(self, line: bytes) -> Event:
        try:
            event = decoders.decode_watch_event(line)
            if event.type == "ERROR":
                status = decoders.decode_status(event.object)
                pause = status.details.retryAfterSeconds if status.details else None
                raise self._sign_on.refused(status.code or HTTPStatus.INTERNAL_SERVER_ERROR, bytes(event.object), pause)
            manifest = dict(decoders.decode_object(event.object, Node))
            return Event(event.type, str(manifest["metadata"]["resourceVersion"]), manifest)
        except (msgspec.MsgspecError, TypeError, ValueError, KeyError, RecursionError) as error:
            raise garbled(self._sign_on, "an event of a watch", str(error) or type(error).__name__) from error


class AsyncTransport(httpx2.AsyncBaseTransport):
    """Returns answers of success, whose bodies are still to come; everything else is a CNIError.

    A busy server's Retry-After is left to the caller, who has other things to do meanwhile.
    """

    def __init__(self, sign_on: SignOn) -> None:
        self._sign_on = sign_on
        self._wire = sign_on.wire(_wire)
        self._choosing = asyncio.Lock()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._sign_on.expired():
            await self._renew()
        try:
            return await self._answer(request)
        except httpx2.RequestError as error:
            raise self._sign_on.no_answer(error) from error

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._ask(request)
        if self._sign_on.renewable_after(response.status_code):
            await response.aclose()
            await self._renew()
            response = await self._ask(request)
        if not response.is_success:
            raise self._sign_on.refused(response.status_code, await response.aread(), retry_after(response))
        return response

    async def _ask(self, request: httpx2.Request) -> httpx2.Response:
        self._sign_on.sign(request)
        wire = self._wire
        try:
            return await wire.handle_async_request(request)
        except httpx2.RequestError as error:
            if not self._sign_on.misled(error):
                raise
            failure = error
        async with self._choosing:
            if wire is not self._wire:  # another request has chosen
                return await self._wire.handle_async_request(request)
            for _ in self._sign_on.anchors():
                await self._rewire()
                try:
                    return await self._wire.handle_async_request(request)
                except httpx2.RequestError:
                    pass
        raise failure

    async def _renew(self) -> None:
        if await off_loop(self._sign_on.renew):
            await self._rewire()

    async def _rewire(self) -> None:
        await self._wire.aclose()
        self._wire = self._sign_on.wire(_wire)


def _wire(context: ssl.SSLContext, proxy: str | None) -> httpx2.AsyncHTTPTransport:
    limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return httpx2.AsyncHTTPTransport(verify=context, proxy=proxy, trust_env=False, socket_options=KEEPALIVE, limits=limits)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
