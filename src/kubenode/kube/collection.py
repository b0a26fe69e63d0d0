"""The API server as the controller needs it: whole collections in pages, watches of them, and writes. With asyncio."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlencode

import httpx2
import msgspec

from kubenode.cni.errors import CNIError
from kubenode.kube.asyncclient import AsyncTransport
from kubenode.kube.refusal import RefusedError
from kubenode.kube.signon import SignOn
from kubenode.kube.sources import COMMANDS, connection
from kubenode.kube.stream import garbled, lines
from kubenode.kube.transport import METADATA

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

PAGE = 500  # objects in one answer to a LIST, as kubectl asks for them
MERGE_PATCH = "application/merge-patch+json"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Collection(NamedTuple):
    """All objects of a resource. `metadata`: only their metadata is asked for."""

    path: str
    metadata: bool = False


class Event(NamedTuple):
    """One line of a watch. For a BOOKMARK the object has only a version."""

    kind: str
    object: msgspec.Raw


class Observer(Protocol):
    """Counts requests. `result` is an HTTP status, or "error"."""

    def requested(self, verb: str, resource: str, result: str) -> None: ...


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _ListMeta(msgspec.Struct, rename={"version": "resourceVersion", "more": "continue"}):
    version: str = ""
    more: str = ""


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None  # null where there are none, if only metadata was asked for


class _Details(msgspec.Struct, rename={"pause": "retryAfterSeconds"}):
    pause: float | None = None


class _Status(msgspec.Struct):
    code: int = HTTPStatus.INTERNAL_SERVER_ERROR
    details: _Details | None = None


class Cluster:
    """One API server. Everything here raises CNIError: RefusedError for what the API server itself says.

    Making one blocks, as credentials are read. `timeout` bounds each request, and for a watch its beginning, in seconds.
    """

    def __init__(self, kubeconfig: str | None, environ: Mapping[str, str], timeout: float, observer: Observer) -> None:
        self._sign_on = SignOn(connection(kubeconfig, environ, option=COMMANDS), environ, timeout)
        self._timeout = timeout
        self._observer = observer
        self._url = self._sign_on.server.rstrip("/")
        # Not by an AsyncClient, which takes half as long again for what is not needed here: cookies, redirects, its own authentication.
        self._transport = AsyncTransport(self._sign_on)
        self._list: msgspec.json.Decoder[_List] = msgspec.json.Decoder(_List)
        self._event: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event)

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def pages(self, collection: Collection) -> AsyncGenerator[tuple[list[msgspec.Raw], str], None]:
        """Yield all objects in pages, each with the version of the whole. A page that has expired is a RefusedError with 410."""
        more = ""
        while True:
            query = {"limit": str(PAGE), **({"continue": more} if more else {})}
            body = await self._ask("list", "GET", collection.path, query, accept=METADATA_LIST if collection.metadata else "")
            try:
                page = self._list.decode(body)
            except msgspec.MsgspecError as error:
                raise garbled(self._sign_on, "a list", error) from error
            yield page.items or [], page.metadata.version
            more = page.metadata.more
            if not more:
                return

    async def watch(self, collection: Collection, version: str, seconds: int) -> AsyncGenerator[Event, None]:
        """Return what happens after `version`, once the API server has accepted to say so for `seconds`."""
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        headers = {"Accept-Encoding": "identity", **({"Accept": METADATA} if collection.metadata else {})}
        request = httpx2.Request("GET", f"{self._url}{collection.path}?{urlencode(query)}", headers=headers)
        return self._events(await self._send("watch", collection.path, request, stream=True))

    async def get(self, path: str, *, metadata: bool = False) -> dict[str, Any]:
        return self._object(await self._ask("get", "GET", path, accept=METADATA if metadata else ""))

    async def create(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return self._object(await self._ask("create", "POST", path, body=manifest))

    async def replace(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return self._object(await self._ask("update", "PUT", path, body=manifest))

    async def merge(self, path: str, patch: Mapping[str, Any], *, metadata: bool = False) -> dict[str, Any]:
        """Change what `patch` says; with a resourceVersion in it, only if that is still the object's."""
        accept = METADATA if metadata else ""
        return self._object(await self._ask("patch", "PATCH", path, body=patch, content_type=MERGE_PATCH, accept=accept))

    async def delete(self, path: str, uid: str, version: str) -> None:
        """Delete the object if it still is the one that is known."""
        await self._ask("delete", "DELETE", path, body={"preconditions": {"uid": uid, "resourceVersion": version}})

    async def _ask(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        accept: str = "",
    ) -> bytes:
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Accept": accept or "application/json", "Accept-Encoding": "gzip"}
        if content is not None:
            headers["Content-Type"] = content_type
        url = f"{self._url}{path}" + (f"?{urlencode(query)}" if query else "")
        response = await self._send(verb, path, httpx2.Request(method, url, content=content, headers=headers))
        return bytes(response.content)

    async def _send(self, verb: str, path: str, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        resource = _resource(path)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._transport.handle_async_request(request)
                if not stream:
                    await response.aread()
        except RefusedError as error:
            self._observer.requested(verb, resource, str(error.status))
            raise
        except (TimeoutError, httpx2.RequestError) as error:
            self._observer.requested(verb, resource, "error")
            raise self._sign_on.no_answer(error) from error
        except CNIError:
            self._observer.requested(verb, resource, "error")
            raise
        self._observer.requested(verb, resource, str(response.status_code))
        return response

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(body)
        except msgspec.MsgspecError as error:
            raise garbled(self._sign_on, "an object", error) from error
        if not isinstance(found, dict):
            raise garbled(self._sign_on, "an object", type(found).__name__)
        return found

    async def _events(self, response: httpx2.Response) -> AsyncGenerator[Event, None]:
        async with aclosing(lines(response, self._sign_on)) as told:
            async for line in told:
                yield self._told(line)

    def _told(self, line: bytes) -> Event:
        try:
            event = self._event.decode(line)
            if event.type == "ERROR":
                status = msgspec.json.decode(event.object, type=_Status)
                pause = status.details.pause if status.details else None
                raise self._sign_on.refused(status.code, bytes(event.object), pause)
        except msgspec.MsgspecError as error:
            raise garbled(self._sign_on, "an event of a watch", error) from error
        return Event(event.type, event.object)


def _resource(path: str) -> str:
    """Return what a path is about: `nodes`, `subnetpools/status`."""
    parts = path.strip("/").split("/")[2 if path.startswith("/api/") else 3 :]
    if parts[:1] == ["namespaces"]:
        parts = parts[2:]
    return "/".join([*parts[:1], *parts[2:]])
