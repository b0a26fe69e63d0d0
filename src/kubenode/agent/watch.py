# SPDX-License-Identifier: Apache-2.0
"""Watch of our own Node: one GET, then a watch of this object alone; relevant changes are published."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from kubenode.cni.errors import NODE_NOT_FOUND, CNIError
from kubenode.kube.asyncclient import Collection
from kubenode.kube.offloop import off_loop
from kubenode.kube.reflector import ANY, before
from kubenode.kube.refusal import GarbledError, StatusError
from kubenode.nodes import node

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster, Event
    from kubenode.nodes.node import Node


class OwnNodeSource:
    """Calls `publish` with our Node after each change that matters, and with None after its deletion.

    `find` identifies and GETs our Node within a limited time, `connect` makes the client for one watch; both may block and raise CNIError.
    `count` gets verb and result of each GET, an HTTP status or "error". If `publish` raises, the Node counts as not published.
    """

    name = "the own Node"

    def __init__(
        self,
        find: Callable[[], Node],
        connect: Callable[[], Cluster],
        publish: Callable[[Node | None], None],
        log: Log,
        count: Callable[[str, str], None],
    ) -> None:
        self._find = find
        self._connect = connect
        self._publish = publish
        self._log = log
        self._count = count
        self._called = ""
        self._expired = ""  # the version that was read, and that a watch would answer by 410
        self._now: Node | None = None  # the published one
        self._last: Node | None = None  # the same, but kept after a deletion

    async def read(self, expired: str) -> str:
        """GET our Node and publish it; return the version to watch from.

        An API server that has just started knows no older versions. A Node that has not changed since has an older one: another GET returns
        the same version, and the watch 410, again. The watch then starts at any version, with the current Node.
        """
        try:
            own = await off_loop(self._find)
        except CNIError as error:
            self._count("get", _result(error))
            if error.code == NODE_NOT_FOUND:
                self._gone()
            raise
        self._count("get", str(HTTPStatus.OK.value))
        self._show(own)
        self._called = own.name
        self._expired = own.version if own.version == expired or before(own.version, expired) else ""
        return ANY if self._expired else own.version

    @asynccontextmanager
    async def watch(self, version: str, seconds: int) -> AsyncIterator[AsyncGenerator[Event, None]]:
        cluster = await off_loop(self._connect)
        try:
            async with aclosing(await cluster.watch(Collection("/api/v1/nodes", name=self._called), version, seconds)) as events:
                yield events
        finally:
            await cluster.aclose()

    def take(self, event: Event) -> str:
        if before(event.version, self._expired):
            return ANY  # one of several API servers may lag behind the one that answered the GET
        if event.kind == "DELETED":
            self._gone()
            return ""  # only `find` can say which Node is ours now
        if event.kind in ("ADDED", "MODIFIED"):
            own = node.parse(msgspec.json.decode(event.object, type=dict[str, Any]), node.ANSWER)
            if own.name != self._called:
                # If a proxy drops the query, we would use another Node's subnets.
                raise GarbledError(f"the watch of Node {self._called} sent Node {own.name!r}")
            self._show(own)
        if event.version == self._expired:
            return ANY
        self._expired = ""
        return event.version

    def _show(self, own: Node) -> None:
        """Publish a Node if a relevant part has changed: the kubelet updates its status all the time."""
        if own.is_like(self._now):
            return
        self._publish(own)
        self._now = own
        self._tell(self._last, own)
        self._last = own

    def _gone(self) -> None:
        """Publish that our Node was deleted, once."""
        if self._now is not None:
            own = self._now
            self._publish(None)
            self._now = None
            self._log.warning("Node was deleted", node=own.name, uid=own.uid)

    def _tell(self, old: Node | None, new: Node) -> None:
        if old is None:
            self._log.info("Node received", node=new.name, uid=new.uid, subnets=list(new.pod_cidrs))
            return
        subnets = {"old_subnets": list(old.pod_cidrs), "new_subnets": list(new.pod_cidrs)}
        if new.uid != old.uid:
            self._log.warning("Node was recreated with another UID", node=new.name, old_uid=old.uid, new_uid=new.uid, **subnets)
            return
        had, has = old.annotations, new.annotations
        changed = sorted(key for key in had.keys() | has.keys() if had.get(key) != has.get(key))
        self._log.info("Node changed", node=new.name, annotations=changed, **subnets)


def _result(error: CNIError) -> str:
    if isinstance(error, StatusError):
        return str(error.status)
    return str(HTTPStatus.NOT_FOUND.value) if error.code == NODE_NOT_FOUND else "error"
