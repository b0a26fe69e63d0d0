"""A collection of the API server, told to who keeps it: LIST in pages, then what a watch tells."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from kubenode.kube.reflector import before

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import msgspec

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster, Collection, Event


class Sink(Protocol):
    """Takes what a list and watch brings."""

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str: ...  # the object's name; `replace`: whatever is known
    def drop(self, manifest: msgspec.Raw) -> None: ...
    def only(self, names: set[str], version: str) -> None: ...  # at this version there were these and no others; "": whatever is known


class ListWatch:
    """The source of a reflector."""

    def __init__(self, cluster: Cluster, collection: Collection, sink: Sink, log: Log) -> None:
        self.name = collection.resource
        self._cluster = cluster
        self._collection = collection
        self._sink = sink
        self._log = log
        self._newest = ""  # version that was ever told

    async def read(self, _: str = "") -> str:
        names: set[str] = set()
        version, back = "", False
        async with aclosing(self._cluster.pages(self._collection)) as pages:
            async for items, version in pages:
                # A list is of now. One that is older than what was told is of an etcd that was restored: what is known never was.
                back = before(version, self._newest)
                names.update(self._sink.put(item, replace=back) for item in items)
                await asyncio.sleep(0)  # a page takes a moment, and a Lease has to be renewed
        self._sink.only(names, "" if back else version)
        if back:
            self._log.warning("resource versions went back: was etcd restored?", resource=self.name, known=self._newest, now=version)
        self._newest = version
        return version

    @asynccontextmanager
    async def watch(self, version: str, seconds: int) -> AsyncIterator[AsyncGenerator[Event, None]]:
        async with aclosing(await self._cluster.watch(self._collection, version, seconds)) as events:
            yield events

    def take(self, event: Event) -> str:
        if event.kind == "DELETED":
            self._sink.drop(event.object)
        elif event.kind in ("ADDED", "MODIFIED"):
            self._sink.put(event.object)
        self._newest = event.version
        return event.version
