# SPDX-License-Identifier: Apache-2.0
"""Reconciler: several workers write the ledger's decisions; only one works on a node at a time.

A NodeSubnet is created before the annotation with its subnet. Each write is valid only for the object's version at the decision.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kubenode.base.problem import Problem
from kubenode.controller.events import Events
from kubenode.controller.queue import Key, WorkQueue
from kubenode.kube.refusal import StatusError
from kubenode.pools.records import GROUP
from kubenode.pools.reports import manifest_of
from kubenode.pools.status import figures, status
from kubenode.pools.timing import Now
from kubenode.pools.writes import CreateClaim, DeleteClaim, Demand, UpdateClaim

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kubenode.base.log import Log
    from kubenode.controller.handlers import Claims, Nodes, Pools, Reports
    from kubenode.kube.asyncclient import Cluster
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import NodeMetadata, NodeSubnet, SubnetPool
    from kubenode.pools.reports import AgentReport
    from kubenode.pools.status import Figures, Reserved
    from kubenode.pools.writes import Annotate, Write

NODES = "/api/v1/nodes"
POOLS = f"/apis/{GROUP}/v1alpha1/subnetpools"
CLAIMS = f"/apis/{GROUP}/v1alpha1/nodesubnets"
REPORTS = f"/apis/{GROUP}/v1alpha1/nodeaddresses"
WORKERS = 8  # nodes at the same time; each has up to four requests in flight
ROUNDS = 6  # for one node in a row: claims, annotation, and lost races
STATUS_AFTER = 1.0  # seconds from a change to the pool's status, which includes all changes meanwhile


class AllocationObserver(Protocol):
    """Observer of allocations, for metrics."""

    def served(self, seconds: float) -> None: ...


class Handlers(NamedTuple):
    """Handlers for answers of the API server, so that the next decision sees them before the watch does."""

    nodes: Nodes
    claims: Claims
    pools: Pools
    reports: Reports


class Reconciler:
    """Writes claims, annotations and pool statuses. `failure` is the last attempt's error, None if it succeeded."""

    def __init__(self, cluster: Cluster, ledger: Ledger, handlers: Handlers, log: Log, observer: AllocationObserver) -> None:
        self.queue = WorkQueue()
        self.reserved: list[Reserved] = []
        self.failure: Problem | None = None
        self.works = False
        self.figures: dict[str, Figures] = {}  # by pool
        self._cluster = cluster
        self._ledger = ledger
        self._handlers = handlers
        self._log = log
        self._observer = observer
        self._events = Events(cluster, log)
        self._logged = ""

    async def run(self) -> None:
        """Look at everything, then at changes, until cancelled."""
        self.works = True
        ledger = self._ledger
        ledger.changed.update(ledger.nodes, (claim.node for _, claim in ledger.claims))
        ledger.changed_pools.update(ledger.pools)
        self.heard()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
        finally:
            self.works = False
            self.queue.clear()
            self.figures.clear()

    def heard(self) -> None:
        """Queue the ledger's changes. A controller that does not lead leaves them in the ledger."""
        if not self.works:
            return
        for name in sorted(self._ledger.changed):
            self.queue.add(("node", name))
        for name in self._ledger.changed_pools:
            self.queue.add_later(("pool", name), STATUS_AFTER)
        self._ledger.changed.clear()
        self._ledger.changed_pools.clear()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await (self._node(key) if key[0] == "node" else self._pool(key[1]))
            except Problem as error:
                self._failed(key, error)
            except Exception as error:  # noqa: BLE001 (a bug that one node triggers must not stop the others)
                self._log.error("internal error", about=key[1], traceback=traceback.format_exc())
                self._failed(key, Problem(f"{key[0]} {key[1]}: {type(error).__name__}: {error}", "see the log; it tries again"))
            else:
                self.queue.succeeded(key)
                self.failure = None
            finally:
                self.queue.done(key)
            self.heard()

    def _failed(self, key: Key, error: Problem) -> None:
        self.failure = error
        self.queue.failed(key, min(60.0, (isinstance(error, StatusError) and error.retry_after) or 0.0))
        if error.msg != self._logged:  # not repeated during an outage
            self._log.warning("write failed: will retry", about=key[1], error=str(error))
            self._logged = error.msg

    async def _node(self, key: Key) -> None:
        name, ledger = key[1], self._ledger
        for _ in range(ROUNDS):
            ledger.changed.discard(name)
            now = Now(time.time(), time.monotonic())
            outcome = ledger.plan(name, now)
            await self._events.about_node(name, outcome.conflicts)
            if not outcome.writes:
                if outcome.again is not None:
                    self.queue.add_later(key, outcome.again - now.steady)
                return
            await self._all([self._write(write, key) for write in outcome.writes])
        # We lose every race, or the writes are reverted: without a pause that would flood the API server.
        problem = f"Node {name} and its NodeSubnets differ from what was written, {ROUNDS} times in a row"
        raise Problem(problem, "does a webhook or another program change them?")

    async def _all(self, jobs: list[Coroutine[Any, Any, None]]) -> None:
        """Run coroutines in parallel; all of them end before the first error is raised."""
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _write(self, write: Write, key: Key) -> None:
        if isinstance(write, CreateClaim):
            await self._create(write.claim)
        elif isinstance(write, UpdateClaim):
            await self._update(write.claim)
        elif isinstance(write, DeleteClaim):
            await self._delete(write)
        elif isinstance(write, Demand):
            await self._demand(write)
        else:
            await self._annotate(write, key)

    async def _create(self, claim: NodeSubnet) -> None:
        try:
            made = await self._cluster.create(CLAIMS, claim.manifest())
        except StatusError as refused:
            self._ledger.withdraw(claim)
            if refused.status != HTTPStatus.CONFLICT:
                raise
            # Another writer was faster; its claim's node decides the next step.
            if await self._look(claim) and self._ledger.claims.get(claim.subnet) is None:
                self._ledger.bar(claim.subnet)
        except BaseException:
            # The claim may exist all the same: then the watch, or a 409 at the next attempt, shows it.
            self._ledger.withdraw(claim)
            raise
        else:
            self._handlers.claims.take_object(made)
            self._ledger.recent_writes.add(claim.subnet, time.monotonic())
            self._log.debug("subnet allocated", subnet=str(claim.subnet), node=claim.node, pool=claim.pool, adopted=claim.adopted)

    async def _update(self, claim: NodeSubnet) -> None:
        try:
            self._handlers.claims.take_object(await self._cluster.replace(f"{CLAIMS}/{claim.name}", claim.manifest()))
            self._ledger.recent_writes.add(claim.subnet, time.monotonic())
        except StatusError as refused:
            if refused.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            await self._look(claim)

    async def _delete(self, write: DeleteClaim) -> None:
        claim = write.claim
        node = await self._node_now(claim.node)
        if node is not None and (write.orphan or self._ledger.holds(claim, node)):
            return  # our watch was late
        if write.report is not None and not await self._is_newest(write.report):
            return
        try:
            await self._cluster.delete(f"{CLAIMS}/{claim.name}", claim.uid, claim.version)
        except StatusError as refused:
            if refused.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            await self._look(claim)
        else:
            self._handlers.claims.forget(claim)
            self._log.info("subnet released", subnet=str(claim.subnet), node=claim.node, pool=claim.pool)

    async def _look(self, claim: NodeSubnet) -> bool:
        """Get a claim's current object; False if there is none."""
        try:
            self._handlers.claims.take_object(await self._cluster.get(f"{CLAIMS}/{claim.name}"))
        except StatusError as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            self._handlers.claims.forget(claim)
            return False
        return True

    async def _annotate(self, write: Annotate, key: Key) -> None:
        node = write.node
        if write.report is not None and not await self._is_newest(write.report):
            return
        patch = {"metadata": {"uid": node.uid, "resourceVersion": node.version, "annotations": dict(write.values)}}
        try:
            self._handlers.nodes.take_object(await self._cluster.merge(f"{NODES}/{node.name}", patch, metadata=True))
        except StatusError as refused:
            if refused.status == HTTPStatus.CONFLICT:
                await self._node_now(node.name)
            elif refused.status != HTTPStatus.NOT_FOUND:  # the watch will report the deletion
                raise
        else:
            self._observer.served(time.monotonic() - self.queue.since(key))
            self._log.info("Node annotated", node=node.name, annotations=dict(write.values))

    async def _demand(self, write: Demand) -> None:
        node, report = write.node, write.report
        try:
            if report is None:
                made = await self._cluster.create(REPORTS, manifest_of(node, write.min_free))
            else:
                patch = {"metadata": {"uid": report.uid}, "spec": {"minFree": {**dict.fromkeys(report.min_free), **write.min_free}}}
                made = await self._cluster.merge(f"{REPORTS}/{node.name}", patch)
            self._handlers.reports.take_object(made)
        except StatusError as refused:
            if refused.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise
            await self._report_now(node.name)

    async def _is_newest(self, report: AgentReport) -> bool:
        """Say whether the API server has no newer report of a node. Ours may be old, about an earlier annotation of the same text."""
        now = await self._report_now(report.node)
        return now is not None and now.version == report.version

    async def _report_now(self, name: str) -> AgentReport | None:
        """Get a node's current report; None if there is none."""
        try:
            return self._handlers.reports.take_object(await self._cluster.get(f"{REPORTS}/{name}"))
        except StatusError as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            self._ledger.drop_report(name)
            return None

    async def _node_now(self, name: str) -> NodeMetadata | None:
        """Get a Node's current object; None if there is none."""
        try:
            return self._handlers.nodes.take_object(await self._cluster.get(f"{NODES}/{name}", metadata=True))
        except StatusError as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    async def _pool(self, name: str) -> None:
        if (pool := self._ledger.pools.get(name)) is None:
            self.figures.pop(name, None)
            return
        self.figures[name] = figures(self._ledger, pool)
        wanted = status(self._ledger, pool, time.time(), self.reserved, self.figures[name])
        if wanted == pool.status:
            return
        await self._tell(pool, wanted)
        patch = {"metadata": {"resourceVersion": pool.version}, "status": wanted}
        try:
            self._handlers.pools.take_object(await self._cluster.merge(f"{POOLS}/{name}/status", patch))
        except StatusError as refused:
            if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                raise  # after a change the watch will report it

    async def _tell(self, pool: SubnetPool, wanted: dict[str, Any]) -> None:
        """Create Events for conditions that turned bad, before the status is written: afterwards nothing would show the change."""
        old = {condition["type"]: condition["status"] for condition in pool.status.get("conditions") or ()}
        for condition in wanted["conditions"]:
            bad = "False" if condition["type"] == "Ready" else "True"
            if condition["status"] == bad and old.get(condition["type"]) != bad:
                await self._events.about_pool(pool, condition["reason"], condition["message"])
