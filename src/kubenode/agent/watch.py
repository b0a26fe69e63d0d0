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
from kubenode.nodes.node import reduce

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster, Event

    Manifest = dict[str, Any]


class OwnNodeSource:
    """Calls `publish` with our Node's reduced manifest after each change, and with None after its deletion.

    `find` identifies and GETs our Node within a limited time, `connect` makes the client for one watch; both may block and raise CNIError.
    `count` gets verb and result of each GET, an HTTP status or "error". If `publish` raises, the Node counts as not published.
    """

    name = "the own Node"

    def __init__(
        self,
        find: Callable[[], Manifest],
        connect: Callable[[], Cluster],
        publish: Callable[[Manifest | None], None],
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
        self._now: Manifest | None = None  # the published one
        self._last: Manifest | None = None  # the same, but kept after a deletion

    async def read(self, expired: str) -> str:
        """GET our Node and publish it; return the version to watch from.

        An API server that has just started knows no older versions. A Node that has not changed since has an older one: another GET returns
        the same version, and the watch 410, again. The watch then starts at any version, with the current Node.
        """
        try:
            manifest = await off_loop(self._find)
        except CNIError as error:
            self._count("get", _result(error))
            if error.code == NODE_NOT_FOUND:
                self._gone()
            raise
        self._count("get", str(HTTPStatus.OK.value))
        self._show(manifest)
        version = str(manifest["metadata"]["resourceVersion"])
        self._called = manifest["metadata"]["name"]
        self._expired = version if version == expired or before(version, expired) else ""
        return ANY if self._expired else version

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
            manifest = msgspec.json.decode(event.object, type=dict[str, Any])
            if (name := manifest["metadata"].get("name")) != self._called:
                # If a proxy drops the query, we would use another Node's subnets.
                raise GarbledError(f"the watch of Node {self._called} sent Node {name!r}")
            self._show(manifest)
        if event.version == self._expired:
            return ANY
        self._expired = ""
        return event.version

    def _show(self, manifest: Manifest) -> None:
        """Publish a Node if a relevant part has changed: the kubelet updates its status all the time."""
        reduced = reduce(manifest)
        if reduced == self._now:
            return
        self._publish(reduced)
        self._now = reduced
        self._tell(self._last, reduced)
        self._last = reduced

    def _gone(self) -> None:
        """Publish that our Node was deleted, once."""
        if self._now is not None:
            metadata = self._now["metadata"]
            self._publish(None)
            self._now = None
            self._log.warning("Node was deleted", node=metadata["name"], uid=metadata["uid"])

    def _tell(self, old: Manifest | None, new: Manifest) -> None:
        name, uid, subnets = new["metadata"]["name"], new["metadata"]["uid"], new["spec"]["podCIDRs"]
        if old is None:
            self._log.info("Node received", node=name, uid=uid, subnets=subnets)
            return
        old_uid, old_subnets = old["metadata"]["uid"], old["spec"]["podCIDRs"]
        if uid != old_uid:
            self._log.warning(
                "Node was recreated with another UID", node=name, old_uid=old_uid, new_uid=uid, old_subnets=old_subnets, new_subnets=subnets
            )
            return
        had, has = old["metadata"]["annotations"], new["metadata"]["annotations"]
        changed = sorted(key for key in had.keys() | has.keys() if had.get(key) != has.get(key))
        self._log.info("Node changed", node=name, annotations=changed, old_subnets=old_subnets, new_subnets=subnets)


def _result(error: CNIError) -> str:
    if isinstance(error, StatusError):
        return str(error.status)
    return str(HTTPStatus.NOT_FOUND.value) if error.code == NODE_NOT_FOUND else "error"
