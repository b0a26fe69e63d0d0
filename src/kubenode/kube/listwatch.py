# SPDX-License-Identifier: Apache-2.0
"""List and watch of a collection, for a handler: LIST in pages, then the events of a watch."""

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


class ObjectHandler(Protocol):
    """Handler of listed and watched objects."""

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str: ...  # the object's name; `replace`: also an older version
    def drop(self, manifest: msgspec.Raw) -> None: ...
    def only(self, names: set[str], version: str) -> None: ...  # at this version these were all objects; "": at any version


class ListWatch:
    """Source of a reflector."""

    def __init__(self, cluster: Cluster, collection: Collection, handler: ObjectHandler, log: Log) -> None:
        self.name = collection.resource
        self._cluster = cluster
        self._collection = collection
        self._handler = handler
        self._log = log
        self._newest = ""  # version ever received

    async def read(self, _: str = "") -> str:
        names: set[str] = set()
        version, back = "", False
        async with aclosing(self._cluster.pages(self._collection)) as pages:
            async for items, version in pages:
                # A list is current. If it is older than a known version, etcd was restored, and what we know never happened.
                back = before(version, self._newest)
                names.update(self._handler.put(item, replace=back) for item in items)
                await asyncio.sleep(0)  # a page takes a moment, and the Lease must be renewed
        self._handler.only(names, "" if back else version)
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
            self._handler.drop(event.object)
        elif event.kind in ("ADDED", "MODIFIED"):
            self._handler.put(event.object)
        self._newest = event.version
        return event.version
