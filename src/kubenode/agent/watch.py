"""Our own Node at the API server: a GET by whoever finds it, then a watch of it alone, and each change that matters published."""

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
    """Hands our Node's reduced manifest to `publish` after each change, and None once it is deleted.

    `find` identifies and GETs our Node within a bounded time, `connect` makes the client for one watch; both may block, and raise CNIError.
    `count` is called with verb and result of each GET, an HTTP status or "error". What `publish` raises is raised, and then the Node counts
    as not published.
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
        self._expired = ""  # the version that was read and would be answered by 410
        self._now: Manifest | None = None  # as published
        self._last: Manifest | None = None  # the same, but kept where the Node is deleted

    async def read(self, expired: str) -> str:
        """Ask for our Node and publish it.

        After its start an API server knows nothing older than that moment, and a Node that has not changed since is older: to GET it again
        gives the same version, and 410, again. Then the watch is from any version, and begins with the Node as it is.
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
            return ANY  # an API server tells what it has, and of several one may lag behind who answered the GET
        if event.kind == "DELETED":
            self._gone()
            return ""  # which Node is ours from now on only `find` can say
        if event.kind in ("ADDED", "MODIFIED"):
            manifest = msgspec.json.decode(event.object, type=dict[str, Any])
            if (name := manifest["metadata"].get("name")) != self._called:
                # A proxy that drops the query would have us give out another Node's addresses.
                raise GarbledError(f"the watch of Node {self._called} tells of {name!r}")
            self._show(manifest)
        if event.version == self._expired:
            return ANY
        self._expired = ""
        return event.version

    def _show(self, manifest: Manifest) -> None:
        """Publish a Node, unless nothing that matters is new: the kubelet reports its status every now and then."""
        reduced = reduce(manifest)
        if reduced == self._now:
            return
        self._publish(reduced)
        self._now = reduced
        self._tell(self._last, reduced)
        self._last = reduced

    def _gone(self) -> None:
        """Publish that our Node is no more, if it was there."""
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
