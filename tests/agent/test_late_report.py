# SPDX-License-Identifier: Apache-2.0
"""A report that is refused, as somebody else has written the object meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kubenode.agent.counting import Counting
from kubenode.agent.host import Stores
from kubenode.agent.networks import Networks
from kubenode.agent.nodeaddresses import NodeAddresses, Parts
from kubenode.agent.settling import Settling
from kubenode.agent.vacancy import Vacancy
from kubenode.base.log import Log
from kubenode.base.workers import Round, Workers
from kubenode.host.datadir import DiskStore
from kubenode.host.root import HostRoot
from kubenode.host.sources import Sources
from kubenode.ipam.address import parse_address
from kubenode.ipam.store import Attachment
from kubenode.kube.refusal import refusal
from kubenode.nodes.node import Node
from kubenode.plugins.options import source_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "example.com/vlan"


class Own:
    """Our Node, which the view has, too."""

    node = Node("n", "u", "m", (), {KEY: "172.20.0.8/29 of 172.20.0.0/24 via none"})

    def written(self) -> dict[str, str]:
        return self.node.annotations

    def why(self) -> None:
        return None


class Cluster:
    """API server that refuses the first status, after `meanwhile`."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.statuses: list[dict[str, Any]] = []
        self.written = asyncio.Event()
        self._meanwhile = meanwhile

    async def get(self, path: str) -> dict[str, Any]:
        return {"metadata": {"name": path.rpartition("/")[2], "resourceVersion": "1", "ownerReferences": [{"uid": "u"}]}}

    async def merge(self, path: str, patch: dict[str, Any]) -> dict[str, Any]:
        self.statuses.append(patch["status"])
        if len(self.statuses) == 1:
            self._meanwhile()
            raise refusal("https://server", "agent", 409, b"")
        self.written.set()
        return await self.get(path)

    async def aclose(self) -> None:
        pass


def test_it_is_counted_again(run_dir: Path, tmp_path: Path) -> None:
    """The refused report is of an earlier time: it is not written on top of what came in between."""
    store = DiskStore(str(tmp_path), "net")
    Sources(str(run_dir)).take(source_of(KEY, ""), store.directory, lambda *_: True)
    address = parse_address("172.20.0.9")
    assert address

    def start_pod() -> None:
        with store.lock():
            store.reserve(address, Attachment("c0", "eth0"))

    cluster, stores = Cluster(start_pod), Stores(HostRoot())
    counting = Counting(Networks(Log("test")), stores, Sources(str(run_dir)), Round(Workers(), Log("test"), 10.0))
    parts = Parts(counting, Settling(), Vacancy(HostRoot(), str(run_dir), stores), lambda: 0)
    reporting = NodeAddresses(Own(), parts, lambda: cluster, Log("test"))  # type: ignore[arg-type, return-value] # small fakes

    async def report() -> None:
        task = asyncio.create_task(reporting.run())
        async with asyncio.timeout(60):
            await cluster.written.wait()
        task.cancel()

    asyncio.run(report())
    assert [status["networks"][0]["items"][0]["used"] for status in cluster.statuses] == [0, 1]
