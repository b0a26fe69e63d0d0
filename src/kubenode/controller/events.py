"""Events, which tell of a Node or a SubnetPool what `kubectl describe` is to show."""

from __future__ import annotations

import hashlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from kubenode.kube.refusal import StatusError
from kubenode.pools.records import API_VERSION, stamp

if TYPE_CHECKING:
    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster
    from kubenode.pools.records import SubnetPool
    from kubenode.pools.writes import Conflict

EVENTS = "/api/v1/namespaces/default/events"  # where those about objects without a namespace are
LONGEST_NAME = 253  # characters of an object's name (RFC 1123)


class Events:
    def __init__(self, cluster: Cluster, log: Log) -> None:
        self._cluster = cluster
        self._log = log
        self._told: dict[str, list[Conflict]] = {}  # by node

    async def about_node(self, name: str, conflicts: list[Conflict]) -> None:
        """Tell of the conflicts that a node has now and had not before. Raises CNIError; then the next call tells what is left."""
        told = self._told[name] = [conflict for conflict in self._told.get(name, ()) if conflict in conflicts]
        for conflict in conflicts:
            if conflict not in told:
                self._log.warning("conflict", node=name, reason=conflict.reason, text=conflict.message)
                about = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": conflict.uid}
                await self._warn(about, conflict.reason, conflict.message)
                told.append(conflict)
        if not told:
            del self._told[name]

    async def about_pool(self, pool: SubnetPool, reason: str, message: str) -> None:
        await self._warn({"apiVersion": API_VERSION, "kind": "SubnetPool", "name": pool.name, "uid": pool.uid}, reason, message)

    async def _warn(self, about: dict[str, str], reason: str, message: str) -> None:
        """Make an Event. The same one is not made twice within its hour, whoever leads and however often it starts."""
        mark = hashlib.sha256("\0".join([about["uid"], reason, message]).encode()).hexdigest()[:16]
        now = stamp(time.time())
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about['name'][: LONGEST_NAME - len(mark) - 1].rstrip('.-')}.{mark}", "namespace": "default"},
            "involvedObject": about,
            "reason": reason,
            "message": message,
            "type": "Warning",
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "kube-node-controller"},
        }
        try:
            await self._cluster.create(EVENTS, event)
        except StatusError as refused:
            if refused.status != HTTPStatus.CONFLICT:
                self._log.warning("cannot create an Event", about=about["name"], error=str(refused))
