# SPDX-License-Identifier: Apache-2.0
"""Events of the controller about Nodes and SubnetPools, for `kubectl describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.kube.events import About, EventRecorder
from kubenode.kube.refusal import StatusError
from kubenode.pools.records import API_VERSION

if TYPE_CHECKING:
    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster
    from kubenode.pools.records import SubnetPool
    from kubenode.pools.writes import Conflict


class Events:
    """Creates Events. `log` also gets each new conflict."""

    def __init__(self, cluster: Cluster, log: Log) -> None:
        self._recorder = EventRecorder(cluster, "kube-node-controller")
        self._log = log
        self._told: dict[str, list[Conflict]] = {}  # by node

    async def about_node(self, name: str, conflicts: list[Conflict]) -> None:
        """Create an Event for each new conflict of a node. Raises Problem; the next call then creates the rest."""
        told = self._told[name] = [conflict for conflict in self._told.get(name, ()) if conflict in conflicts]
        for conflict in conflicts:
            if conflict not in told:
                self._log.warning("conflict", node=name, reason=conflict.reason, text=conflict.message)
                await self._warn(About("v1", "Node", name, conflict.uid), conflict.reason, conflict.message)
                told.append(conflict)
        if not told:
            del self._told[name]

    async def about_pool(self, pool: SubnetPool, reason: str, message: str) -> None:
        """Create an Event for a SubnetPool. Raises Problem."""
        await self._warn(About(API_VERSION, "SubnetPool", pool.name, pool.uid), reason, message)

    async def _warn(self, about: About, reason: str, message: str) -> None:
        """Create an Event, once an hour at most, no matter which controller leads or how often it starts."""
        try:
            await self._recorder.warn(about, reason, message)
        except StatusError as refused:
            self._log.warning("cannot create an Event", about=about.name, error=str(refused))
