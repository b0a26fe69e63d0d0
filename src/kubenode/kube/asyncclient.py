# SPDX-License-Identifier: Apache-2.0
"""Asyncio client of the API server, for controller and agent: lists in pages, watches, and writes."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import httpx2
import msgspec

from kubenode.cni.errors import CNIError
from kubenode.kube.asynctransport import AsyncTransport
from kubenode.kube.client import JSON, METADATA, METADATA_LIST, PAGE, UNDECODABLE, ListMeta
from kubenode.kube.loadingrules import COMMANDS, connection
from kubenode.kube.refusal import StatusError, garbled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

MERGE_PATCH = "application/merge-patch+json"


class Collection(NamedTuple):
    """All objects of a resource, or the one with a name. `metadata`: request only the objects' metadata."""

    path: str
    metadata: bool = False
    name: str = ""

    @property
    def resource(self) -> str:
        """The resource's name, plural."""
        return self.path.rpartition("/")[2]


class Event(NamedTuple):
    """Event of a watch: ADDED, MODIFIED, DELETED or BOOKMARK; the object's version; and the object (a bookmark's has only a version)."""

    kind: str
    version: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, rename={"version": "resourceVersion"}):
    version: str


class _Versioned(msgspec.Struct):
    metadata: _Meta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _List(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None  # null in an empty list of metadata


class _Details(msgspec.Struct, rename={"pause": "retryAfterSeconds"}):
    pause: float | None = None


class _Status(msgspec.Struct):
    code: int = HTTPStatus.INTERNAL_SERVER_ERROR
    details: _Details | None = None


_EVENT: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event)
_VERSION: msgspec.json.Decoder[_Versioned] = msgspec.json.Decoder(_Versioned)
_LIST: msgspec.json.Decoder[_List] = msgspec.json.Decoder(_List)


class Cluster:
    """One API server. Its methods raise CNIError: StatusError for an answer other than success.

    The constructor blocks: it reads credentials. `timeout` limits each request, and the start of a watch, in seconds. `count` gets verb,
    resource and result of each request: an HTTP status, "timeout" or "error". `option` names a kubeconfig, for advice in errors.
    """

    def __init__(
        self,
        kubeconfig: str | None,
        environ: Mapping[str, str],
        timeout: float,
        count: Callable[[str, str, str], None],
        option: str = COMMANDS,
        context: str = "",
    ) -> None:
        # No AsyncClient: it takes 1.5 times as long, for cookies, redirects and its own authentication, none of which we need.
        self._transport = AsyncTransport(connection(kubeconfig, environ, option=option, context=context), environ, timeout)
        self._server = self._transport.server
        self._count = count

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def pages(self, collection: Collection) -> AsyncGenerator[tuple[list[msgspec.Raw], str], None]:
        """Yield pages of objects, each with the version of the whole list. An expired page raises StatusError 410."""
        more = ""
        while True:
            query = {"limit": str(PAGE), **({"continue": more} if more else {})}
            body = await self._ask("list", "GET", collection.path, query, accept=METADATA_LIST if collection.metadata else JSON)
            try:
                page = _LIST.decode(body)
            except UNDECODABLE as error:
                raise garbled(self._server, "a list", error) from error
            yield page.items or [], page.metadata.version
            more = page.metadata.more
            if not more:
                return

    async def watch(self, collection: Collection, version: str, seconds: int) -> AsyncGenerator[Event, None]:
        """Start a watch from `version` for `seconds`; return its events once the API server has accepted it."""
        query = {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        if collection.name:
            query["fieldSelector"] = f"metadata.name={collection.name}"
        headers = {"Accept": METADATA if collection.metadata else JSON, "Accept-Encoding": "identity"}
        request = httpx2.Request("GET", f"{self._url(collection.path)}?{urlencode(query)}", headers=headers)
        return self._events(await self._send("watch", collection.path, request, stream=True))

    async def get(self, path: str, *, metadata: bool = False) -> dict[str, Any]:
        """Return an object."""
        return self._object(await self._ask("get", "GET", path, accept=METADATA if metadata else JSON))

    async def create(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object; return it as created."""
        return self._object(await self._ask("create", "POST", path, body=manifest))

    async def replace(self, path: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object; return it as updated."""
        return self._object(await self._ask("update", "PUT", path, body=manifest))

    async def merge(self, path: str, patch: Mapping[str, Any], *, metadata: bool = False) -> dict[str, Any]:
        """Apply a merge patch; a resourceVersion in it must still be the object's. Return the object."""
        accept = METADATA if metadata else JSON
        return self._object(await self._ask("patch", "PATCH", path, body=patch, content_type=MERGE_PATCH, accept=accept))

    async def delete(self, path: str, uid: str, version: str) -> None:
        """Delete an object if it still has this UID and version."""
        await self._ask("delete", "DELETE", path, body={"preconditions": {"uid": uid, "resourceVersion": version}})

    async def _ask(
        self,
        verb: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> bytes:
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        if content is not None:
            headers["Content-Type"] = content_type
        url = self._url(path) + (f"?{urlencode(query)}" if query else "")
        response = await self._send(verb, path, httpx2.Request(method, url, content=content, headers=headers))
        return bytes(response.content)

    async def _send(self, verb: str, path: str, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        try:
            response = await self._transport.send(request, stream=stream)
        except CNIError as error:
            self._count(verb, _resource(path), _result(error))
            raise
        self._count(verb, _resource(path), str(response.status_code))
        return response

    def _url(self, path: str) -> str:
        return self._server.rstrip("/") + path

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except UNDECODABLE as error:
            raise garbled(self._server, "an object", error) from error

    async def _events(self, response: httpx2.Response) -> AsyncGenerator[Event, None]:
        async with aclosing(self._transport.lines(response)) as lines:
            async for line in lines:
                yield self._event(line)

    def _event(self, line: bytes) -> Event:
        try:
            event = _EVENT.decode(line)
            if event.type == "ERROR":
                status = msgspec.json.decode(event.object, type=_Status)
                raise self._transport.refused(status.code, bytes(event.object), status.details.pause if status.details else None)
            return Event(event.type, _VERSION.decode(event.object).metadata.version, event.object)
        except UNDECODABLE as error:
            raise garbled(self._server, "an event of a watch", error) from error


def _resource(path: str) -> str:
    """Return the resource of a path, such as `nodes` or `subnetpools/status`."""
    parts = path.strip("/").split("/")[2 if path.startswith("/api/") else 3 :]
    if parts[:1] == ["namespaces"]:
        parts = parts[2:]
    return "/".join([*parts[:1], *parts[2:]])


def _result(error: CNIError) -> str:
    if isinstance(error, StatusError):
        return str(error.status)
    return "timeout" if isinstance(error.__cause__, TimeoutError) else "error"
