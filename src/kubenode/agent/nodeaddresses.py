# SPDX-License-Identifier: Apache-2.0
"""Report of this node's use of addresses to the API server: the status of the NodeAddresses with the Node's name. No call waits for it.

It is written at the start; at once if free addresses fall below a power of two, with another text of the Node, or if a closing item is
empty; else once a minute, and only if a number has changed.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from random import SystemRandom
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.agent.counting import Counting, kept
from kubenode.agent.settling import Settling
from kubenode.agent.vacancy import Vacancy
from kubenode.cni.errors import FORBIDDEN, INTERNAL, CNIError
from kubenode.host.sources import Sources
from kubenode.kube.offloop import off_loop
from kubenode.kube.refusal import StatusError
from kubenode.nodes import addresses
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kubenode.agent.host import Stores
    from kubenode.agent.networks import Networks
    from kubenode.agent.ownnode import OwnNode
    from kubenode.base.log import Log
    from kubenode.base.workers import Round
    from kubenode.host.root import HostRoot
    from kubenode.ipam.ranges import Subnet
    from kubenode.kube.asyncclient import Cluster
    from kubenode.nodes.addresses import NetworkUse
    from kubenode.nodes.node import Node

GROUP = "kube-node.nordix.org/v1alpha1"
PATH = f"/apis/{GROUP}/nodeaddresses"
LOOK = 0.25  # seconds between looks for something to count
MINUTE = 60.0  # seconds between reports that are not urgent, and between counts without a call
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 900.0  # seconds after a failure; they double
HOUR = 3600.0  # seconds after which the object is read again: somebody may have deleted it or changed minFree
CALLS = frozenset(["ADD", "DEL", "GC"])  # commands after which a number may differ


class NodeAddressesStatus(NamedTuple):
    """Content of a report."""

    networks: tuple[NetworkUse, ...]
    leaks: int

    def as_status(self) -> dict[str, Any]:
        """Return the status."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return {"version": VERSION, "time": now, "suspectedLeaks": self.leaks, "networks": [one.as_object() for one in self.networks]}


class Parts(NamedTuple):
    """Sources of a report; `leaks` returns the number of suspected leaks."""

    counting: Counting
    settling: Settling
    vacancy: Vacancy
    leaks: Callable[[], int]

    @classmethod
    def of(cls, root: HostRoot, run_dir: str, networks: Networks, stores: Stores, ask: Round, leaks: Callable[[], int]) -> Parts:
        """Return the parts for the networks and stores of an agent."""
        return cls(Counting(networks, stores, Sources(run_dir), ask), Settling(), Vacancy(root, run_dir, stores), leaks)


class NodeAddresses:
    """The node's report, and an observer of the server. `connect` makes a client of the API server and may block."""

    def __init__(self, own: OwnNode, parts: Parts, connect: Callable[[], Cluster], log: Log) -> None:
        self._own = own
        self._parts = parts
        self._connect = connect
        self._log = log
        self._min_free: dict[str, int] = {}
        self._version = ""  # of the object; "" if it must be read first
        self._read = float("-inf")
        self._told: NodeAddressesStatus | None = None
        self._told_at = float("-inf")
        self._seen: Node | None = None
        self._stirred = self._is_full = False
        self._again = self._silent_until = float("-inf")
        self._agreed: dict[str, tuple[str, set[Subnet]]] = {}  # by annotation: its text, and the blocks that are given back
        self._problem = ""
        self._pause = FIRST_PAUSE

    def called(self, plugin: str, command: str, status: int, stdout: bytes, seconds: float) -> None:  # noqa: ARG002 -- the server's observer
        """Note that numbers may differ."""
        if status == 0 and command in CALLS:
            self._stirred = True

    def hurry(self) -> None:
        """Report soon, and learn soon whether the annotation grows: a network is full."""
        self._stirred = self._is_full = True

    def grows(self, annotation: str) -> bool | None:
        """Say whether a controller gives the node further blocks in an annotation; None if that will be known in a moment."""
        if self._min_free.get(annotation, 0) > 0:
            return True
        return None if self._seen is not self._own.node and time.monotonic() >= self._silent_until else False

    async def run(self) -> None:
        """Report, until cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            own, now = self._own.node, time.monotonic()
            if own is None or not own.uid or now < self._silent_until:
                continue
            if self._stirred or own is not self._seen or now >= self._again:
                try:
                    await self._look(own)
                except CNIError as error:
                    self._failed(error)
                except Exception as error:  # noqa: BLE001 -- calls must still be served
                    self._failed(CNIError(INTERNAL, f"internal error: {error!r}", "please report it"))
                else:
                    self._pause, self._problem = FIRST_PAUSE, ""

    async def _look(self, own: Node) -> None:
        """Count, and report if something says so."""
        now = time.monotonic()
        # A controller writes `minFree` before the annotation, and often before the first report.
        if not self._version or own is not self._seen or now - self._read > (MINUTE if self._is_full else HOUR):
            await self._with_cluster(lambda cluster: self._meet(cluster, own))
        self._stirred, self._is_full, self._seen = False, False, own
        report = await off_loop(lambda: self._count(own))
        self._again = now + min(MINUTE, self._parts.settling.left())
        told = self._told
        if report == told:
            return
        is_urgent = told is None or addresses.is_urgent(told.networks, report.networks, self._min_free)
        if is_urgent or now - self._told_at >= MINUTE:
            await self._with_cluster(lambda cluster: self._tell(cluster, own, report))
        else:
            self._again = min(self._again, self._told_at + MINUTE)

    def _count(self, own: Node) -> NodeAddressesStatus:
        """Count all networks, and search for closing blocks that seem empty, once for each text. May wait for locks, for a limited time."""
        counting, settling, vacancy, leaks = self._parts
        closing = addresses.closing(own)
        texts = {key: source.text for key, source in closing.items()}
        settling.look(texts, self._own.written() if closing else {}, current=self._own.why() is None)
        places = counting.places(own, {*self._min_free, *closing})
        left = settling.left_out(own)
        counted = [*counting.count(own, places.ours, settling.is_over, left).values()]
        agreed = {}
        for key, text in texts.items():
            uses = [use for one in counted if one.annotation == key for use in one.uses if use.closing]
            empty = {use.subnet for use in uses} - {use.subnet for use in uses if not use.is_given_back}
            before, known = self._agreed.get(key, ("", set()))
            known = known & empty if before == text else set()
            doubts = vacancy.doubts(empty - known, key, places) if empty - known else []
            for doubt in doubts:
                self._log.debug("closing block is kept", block=str(doubt.block), annotation=key, why=doubt.why)
            doubted = {doubt.block for doubt in doubts}
            counted = kept(counted, key, doubted)
            agreed[key] = text, known | (empty - doubted)
        for key in agreed.keys() | self._agreed.keys():
            settling.give_back(key, agreed.get(key, ("", set()))[1])
        self._agreed = agreed
        return NodeAddressesStatus(tuple(counted), leaks())

    async def _with_cluster(self, work: Callable[[Cluster], Awaitable[None]]) -> None:
        cluster = await off_loop(self._connect)
        try:
            await work(cluster)
        finally:
            await cluster.aclose()

    async def _meet(self, cluster: Cluster, own: Node) -> None:
        """Read the object, or create it; give it to our Node. Raises CNIError."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": own.name, "uid": own.uid}
        manifest = {"apiVersion": GROUP, "kind": "NodeAddresses", "metadata": {"name": own.name, "ownerReferences": [owner]}}
        found = await _unless(HTTPStatus.NOT_FOUND, cluster.get(f"{PATH}/{own.name}"))
        if found is None:
            found = await _unless(HTTPStatus.CONFLICT, cluster.create(PATH, manifest)) or await cluster.get(f"{PATH}/{own.name}")
        if [one.get("uid") for one in found["metadata"].get("ownerReferences") or ()] != [own.uid]:  # an earlier Node of this name
            found = await cluster.merge(f"{PATH}/{own.name}", {"metadata": {"ownerReferences": [owner]}})
        self._take(found)
        if self._told and (found.get("status") or {}).get("networks") != self._told.as_status()["networks"]:
            self._told = None  # somebody has changed it

    async def _tell(self, cluster: Cluster, own: Node, report: NodeAddressesStatus) -> None:
        """Write the status. A version of the object makes sure that a late request changes nothing. Raises CNIError."""
        for is_last in (False, True):
            patch = {"metadata": {"resourceVersion": self._version}, "status": report.as_status()}
            try:
                self._take(await cluster.merge(f"{PATH}/{own.name}/status", patch))
                break
            except StatusError as refused:
                if is_last or refused.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                    raise
                await self._meet(cluster, own)
                report = await off_loop(lambda: self._count(own))  # the one before is of a time before the other write
        self._told, self._told_at = report, time.monotonic()

    def _take(self, found: dict[str, Any]) -> None:
        """Note version and `minFree` of the object."""
        self._version, self._read = found["metadata"]["resourceVersion"], time.monotonic()
        self._min_free = dict((found.get("spec") or {}).get("minFree") or {})

    def _failed(self, error: CNIError) -> None:
        """Log an error once, and wait longer after each."""
        self._silent_until = time.monotonic() + self._pause * SystemRandom().uniform(0.8, 1.2)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._version = ""
        problem, details = error.msg, error.details
        if error.code == FORBIDDEN:
            problem, details = (
                "forbidden",
                "add the component node-addresses (Helm: nodeAddresses), or start the agent without --node-addresses",
            )
        elif isinstance(error, StatusError) and error.status == HTTPStatus.NOT_FOUND:
            problem, details = "missing", "apply the CustomResourceDefinitions of deploy/controller"
        if problem != self._problem:
            self._log.warning("cannot report addresses", error=error.msg, details=details)
        self._problem = problem


async def _unless(status: HTTPStatus, asked: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return an answer, None for this status. Raises CNIError."""
    try:
        return await asked
    except StatusError as refused:
        if refused.status != status:
            raise
        return None
