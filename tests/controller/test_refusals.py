# SPDX-License-Identifier: Apache-2.0
"""What the controller asks of an API server that takes not everything, or keeps something else than it was told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kubenode.base.log import ERROR, Log
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.controller.handlers import Claims, Nodes, Pools, Reports
from kubenode.controller.metrics import ControllerMetrics
from kubenode.controller.reconcile import CLAIMS, NODES, POOLS, Handlers, Reconciler
from kubenode.kube.events import EVENTS
from kubenode.kube.refusal import refusal
from kubenode.pools.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = ".".join(["n" * 62] * 4) + "n"  # 252 characters; a Node's name may have 253


class Cluster:
    """An API server that takes everything but what is `refused` with a status; `keep` says what becomes of a Node's annotations.

    `lost`: how many requests for Events about a kind of object break before they are answered.
    """

    def __init__(self) -> None:
        self.written: list[tuple[str, dict[str, Any]]] = []
        self.refused: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.keep: Callable[[dict[str, str]], dict[str, str]] = lambda annotations: annotations
        self._version = 100

    def _taken(self, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        self.written.append((path, manifest))
        self._version += 1
        metadata = {"uid": f"u{self._version}", **manifest["metadata"], "resourceVersion": str(self._version)}
        if path == EVENTS and self.lost.get(kind := manifest["involvedObject"]["kind"]):
            self.lost[kind] -= 1
            raise CNIError(TRY_AGAIN_LATER, "the connection broke", "")
        if path in self.refused:
            raise refusal("https://server", "test", self.refused[path], b"no")
        return {**manifest, "metadata": metadata}

    async def create(self, path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return self._taken(path, manifest)

    async def merge(self, path: str, patch: dict[str, Any], *, metadata: bool = False) -> dict[str, Any]:
        await asyncio.sleep(0)
        taken = self._taken(path, patch)
        if metadata:
            taken["metadata"] |= {"name": path.rpartition("/")[2], "annotations": self.keep(taken["metadata"]["annotations"])}
        return taken

    def paths(self) -> list[str]:
        return [path for path, _ in self.written]


async def serve(cluster: Cluster, node: str, annotations: dict[str, str], seconds: float) -> None:
    """Let a controller work for a while, with two pools and one node."""
    ledger, log = Ledger(), Log("controller", ERROR - 1)

    def heard() -> None:
        reconciler.heard()

    handlers = Handlers(*(kind(ledger, heard, log) for kind in (Nodes, Claims, Pools, Reports)))  # type: ignore[arg-type]
    reconciler = Reconciler(cluster, ledger, handlers, log, ControllerMetrics())  # type: ignore[arg-type]
    for number in range(2):
        spec = {"annotation": f"net{number}", "cidrs": [{"cidr": f"10.{number}.0.0/16", "nodePrefix": 24}]}
        handlers.pools.put(msgspec.Raw(msgspec.json.encode({"metadata": {"name": f"p{number}", "uid": f"p{number}"}, "spec": spec})))
    metadata = {"name": node, "uid": "n", "resourceVersion": "1", "annotations": annotations}
    handlers.nodes.put(msgspec.Raw(msgspec.json.encode({"metadata": metadata})))
    try:
        await asyncio.wait_for(reconciler.run(), seconds)
    except TimeoutError:
        pass


def served(cluster: Cluster, node: str, annotations: dict[str, str], seconds: float = 0.5) -> None:
    asyncio.run(serve(cluster, node, annotations, seconds))


def test_an_event_of_a_long_name() -> None:
    """An Event of a Node with a long name has a name that an API server takes (RFC 1123, 253 characters)."""
    cluster = Cluster()
    served(cluster, LONG, {"net0": "192.168.0.0/24"})
    (event,) = [manifest for path, manifest in cluster.written if path == EVENTS]
    assert len(event["metadata"]["name"]) <= 253
    assert all(label[0] not in "-." and label[-1] != "-" for label in event["metadata"]["name"].split("."))
    assert event["involvedObject"]["name"] == LONG


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "seconds"), [("Node", 0.9), ("SubnetPool", 4.0)])
def test_an_event_that_breaks(lost: str, seconds: float) -> None:
    """An Event whose connection breaks is made with the next try, and only once: of a node that is in conflict, and of a pool."""
    cluster = Cluster()
    cluster.lost = {lost: 2}
    cluster.refused = {f"{POOLS}/p{number}/status": 409 for number in range(2)}  # with a status of theirs they would be other pools
    served(cluster, "n", {"net0": "192.168.0.0/24", "net1": "192.168.1.0/24"}, seconds)
    events = [manifest for path, manifest in cluster.written if path == EVENTS]
    tries = Counter((event["involvedObject"]["kind"], event["message"]) for event in events)
    assert len([key for key in tries if key[0] == lost]) == 2
    assert sum(count - 1 for count in tries.values()) == 2, tries


def test_an_annotation_that_does_not_stay() -> None:
    """Where something takes the annotation away again, the controller tries with pauses: it does not flood the API server."""
    cluster = Cluster()
    cluster.keep = lambda _: {}
    served(cluster, "n", {}, 1.0)
    assert 2 <= cluster.paths().count(f"{NODES}/n") <= 50


def test_a_refusal() -> None:
    """What is refused is tried again with pauses, the longer the more often: by controllers at once, one for each refusal."""
    clusters = {(path, status): Cluster() for path in (CLAIMS, f"{NODES}/n") for status in (403, 422, 429, 500)}
    for (path, status), cluster in clusters.items():
        cluster.refused = {path: status}

    async def serve_all() -> None:
        await asyncio.gather(*(serve(cluster, "n", {}, 1.0) for cluster in clusters.values()))

    asyncio.run(serve_all())
    tries = {(path, status): cluster.paths().count(path) for (path, status), cluster in clusters.items()}
    assert {refusal: count for refusal, count in tries.items() if not 2 <= count <= 12} == {}
