# SPDX-License-Identifier: Apache-2.0
"""Controller process: its tasks, from start to end."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import time
from contextlib import aclosing
from functools import partial
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kubenode.base.exposition import HTTPServer
from kubenode.base.problem import Problem
from kubenode.controller.handlers import Claims, Nodes, Pools, Reports
from kubenode.controller.leader import Leader
from kubenode.controller.metrics import ControllerMetrics
from kubenode.controller.reconcile import CLAIMS, NODES, POOLS, REPORTS, Handlers, Reconciler
from kubenode.ipam.ranges import RangeError, Subnet, parse_subnet
from kubenode.kube.asyncclient import Cluster, Collection
from kubenode.kube.client import ObjectMeta
from kubenode.kube.listwatch import ListWatch
from kubenode.kube.reflector import Reflector
from kubenode.kube.refusal import StatusError
from kubenode.pools.ledger import Ledger
from kubenode.pools.status import Reserved
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.base.log import Log

TIMEOUT = 30.0  # seconds for one request, such as a page of a list
BEAT = 1.0  # seconds between heartbeats
ALIVE = 20.0  # seconds that one turn of the event loop may take
LOOK_EVERY = 3600.0  # seconds between lists of the reserved networks, if no pool changes
GROWTH_EVERY = 1.0  # seconds between looks for a need of reports
POOLS_EVERY = 5.0  # seconds between checks for changed pools


SERVICE_CIDRS = Collection("/apis/networking.k8s.io/v1/servicecidrs")  # served since Kubernetes 1.33
SERVICE_NETWORK = "the service network"


class _Spec(msgspec.Struct, rename={"pod_cidrs": "podCIDRs"}):
    pod_cidrs: list[str] = []
    cidrs: list[str] = []


class _CIDRObject(msgspec.Struct):
    """Node or ServiceCIDR."""

    metadata: ObjectMeta
    spec: _Spec


_CIDRS: msgspec.json.Decoder[_CIDRObject] = msgspec.json.Decoder(_CIDRObject)


class _Reports(ListWatch):
    """Source of NodeAddresses. An API server with earlier definitions does not know them, which must stop nothing else."""

    def __init__(self, cluster: Cluster, handler: Reports, log: Log) -> None:
        super().__init__(cluster, Collection(REPORTS), handler, log)
        self._absent = handler.absent

    async def read(self, expired: str = "") -> str:
        try:
            return await super().read(expired)
        except StatusError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                self._absent()
            raise


class ControllerOptions(NamedTuple):
    """Options of the controller. `lease`: "" for none; `listen`: host and port, None for no HTTP."""

    kubeconfig: str = ""
    namespace: str = "kube-system"
    lease: str = "kube-node-controller"
    service_cidrs: tuple[Subnet, ...] = ()
    pod_cidrs: tuple[Subnet, ...] = ()
    listen: tuple[str, int] | None = None


class Controller:
    """One controller. Raises Problem if it cannot start."""

    def __init__(self, options: ControllerOptions, environ: Mapping[str, str], log: Log) -> None:
        self._options = options
        self._log = log
        self._metrics = ControllerMetrics()
        self._cluster = Cluster(options.kubeconfig or None, environ, TIMEOUT, self._metrics.requested)
        self._ledger = Ledger()
        self._ledger.growth.open_at = inf  # until the reports are known
        handlers = Handlers(*(kind(self._ledger, self._heard, log) for kind in (Nodes, Claims, Pools, Reports)))  # type: ignore[arg-type] # in this order
        self._reconciler = Reconciler(self._cluster, self._ledger, handlers, log, self._metrics)
        told = [Reserved(subnet, SERVICE_NETWORK) for subnet in options.service_cidrs]
        told += [Reserved(subnet, "the pods' network") for subnet in options.pod_cidrs]
        self._reserved = {"": told}  # and the results of lists, by path
        self._reconciler.reserved = told
        self._reflectors = [
            Reflector(ListWatch(self._cluster, collection, handler, log), log, partial(self._metrics.restarted, collection.resource))
            for collection, handler in (
                (Collection(POOLS), handlers.pools),
                (Collection(CLAIMS), handlers.claims),
                (Collection(NODES, metadata=True), handlers.nodes),
            )
        ]
        restarted = partial(self._metrics.restarted, Collection(REPORTS).resource)
        self._reports = Reflector(_Reports(self._cluster, handlers.reports, log), log, restarted)
        identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
        self._leader = Leader(self._cluster, options.namespace, options.lease, identity, self._lead, log)
        self._turn = time.monotonic()

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self._metrics.show(self._reconciler.figures, lambda: len(self._reconciler.queue), lambda: self._reconciler.works)
        self._metrics.show_log(lambda: self._log.dropped)
        if self._options.listen:
            checks = {"/healthz": self._ill, "/readyz": self._unready}
            HTTPServer(self._options.listen, self._metrics.registry, checks, self._log).start()
        jobs = [self._beat(), self._work(), self._follow_reports(), *(reflector.run() for reflector in self._reflectors)]
        tasks = [asyncio.create_task(job) for job in jobs]
        stopped = asyncio.create_task(stop.wait())
        self._log.info("controller started", version=VERSION, pid=os.getpid())
        try:
            done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # a task ends only by a bug
        finally:
            for task in [stopped, *tasks]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._options.lease:
                await self._leader.resign()
            await self._cluster.aclose()
            self._log.info("controller stopped")

    async def _work(self) -> None:
        """Work once the caches are synced; with a Lease, only as leader."""
        for reflector in self._reflectors:
            await reflector.synced.wait()
        self._log.info("caches synced", nodes=len(self._ledger.nodes), claims=len(self._ledger.claims), pools=len(self._ledger.pools))
        await (self._leader.run() if self._options.lease else self._lead())

    async def _follow_reports(self) -> None:
        """Follow the nodes' reports once a pool grows, or an item is closing of one that did: in other clusters they cost nothing."""
        while not (self._ledger.grows or self._ledger.ending):  # noqa: ASYNC110 (a pool's change is rare)
            await asyncio.sleep(GROWTH_EVERY)
        await self._reports.run()

    async def _lead(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconciler.run())
            group.create_task(self._look_at_reserved())

    async def _look_at_reserved(self) -> None:
        """Track the networks of services and podCIDRs, which pools must not overlap.

        Metadata of Nodes lacks podCIDRs. These belong to one or two networks, so one page of Nodes is enough.
        """
        looked, looked_for = 0.0, None
        while True:
            blocks = {pool.name: pool.blocks for pool in self._ledger.pools.values()}
            if blocks == looked_for and time.monotonic() - looked < LOOK_EVERY:
                await asyncio.sleep(POOLS_EVERY)
                continue
            looked, looked_for = time.monotonic(), blocks
            for collection in (SERVICE_CIDRS, Collection(NODES)):
                await self._look_at(collection)
            self._reconciler.reserved = [one for found in self._reserved.values() for one in found]
            self._ledger.changed_pools.update(self._ledger.pools)
            self._heard()

    async def _look_at(self, collection: Collection) -> None:
        try:
            async with aclosing(self._cluster.pages(collection)) as pages:
                items, _ = await anext(pages)
            self._reserved[collection.path] = [one for item in items for one in _reserved(item)]
        except Problem as error:
            if not isinstance(error, StatusError) or error.status != HTTPStatus.NOT_FOUND:
                self._log.warning("cannot list the reserved networks", path=collection.path, error=str(error))

    def _heard(self) -> None:
        self._reconciler.heard()

    async def _beat(self) -> None:
        while True:
            self._turn = time.monotonic()
            await asyncio.sleep(BEAT)

    def _ill(self) -> str:
        silent = time.monotonic() - self._turn
        return f"the event loop has not turned for {silent:.0f} s" if silent > ALIVE else ""

    def _unready(self) -> str:
        """Return the reason for not being ready: a failed watch, the Lease, or a failed write; "" if ready."""
        for reflector in self._reflectors:
            if reflector.failure is not None and not reflector.synced.is_set():
                return str(reflector.failure)
        reports = self._reports.failure if self._ledger.grows and not self._reports.synced.is_set() else None
        if reports is not None and not (isinstance(reports, StatusError) and reports.status == HTTPStatus.NOT_FOUND):
            return str(reports)
        failure = self._leader.failure or self._reconciler.failure
        return str(failure) if failure else self._ill()


def _reserved(item: msgspec.Raw) -> list[Reserved]:
    try:
        found = _CIDRS.decode(item)
        nodes = [Reserved(parse_subnet(text), f"podCIDR of Node {found.metadata.name}") for text in found.spec.pod_cidrs]
        return nodes + [Reserved(parse_subnet(text), SERVICE_NETWORK) for text in found.spec.cidrs]
    except (msgspec.MsgspecError, RangeError):
        return []
