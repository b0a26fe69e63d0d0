# SPDX-License-Identifier: Apache-2.0
"""Leader election by a Lease: one of several controllers works. It only saves work; unique subnets do not depend on it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from kubenode.base.problem import Problem
from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster


# Seconds, as in the control plane's own components.
DURATION = 15.0  # that others wait after the last renewal they saw
DEADLINE = 10.0  # after which a holder that cannot renew stops
RETRY = 2.0


class Leader:
    """Runs `lead` while we hold the Lease, and cancels it when that becomes uncertain."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, identity: str, lead: Callable[[], Coroutine[Any, Any, None]], log: Log
    ) -> None:
        self.leads = False
        self.failure: Problem | None = None
        self._cluster = cluster
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._lead = lead
        self._log = log
        self._random = SystemRandom()
        self._lease: dict[str, Any] | None = None
        self._seen = ("", 0.0)  # version of another holder's Lease, and when it was first seen

    async def run(self) -> None:
        """Acquire the Lease, lead, and repeat, until cancelled. An exception of `lead` ends it."""
        while True:
            while not await self._held():  # noqa: ASYNC110 (the API server has no event to wait for)
                await asyncio.sleep(RETRY * self._random.uniform(0.8, 1.2))
            self._log.info("became leader", lease=self._name, identity=self._identity)
            self.leads = True
            task = asyncio.create_task(self._lead())
            try:
                await self._keep(task)
            finally:
                self.leads = False
                task.cancel()
                await asyncio.wait([task])
            self._log.warning("lost leadership", lease=self._name)

    async def _keep(self, task: asyncio.Task[None]) -> None:
        """Renew the Lease until that fails for too long."""
        renewed = _clock()
        while _clock() - renewed < DEADLINE:
            await asyncio.wait([task], timeout=RETRY)
            if task.done():
                task.result()
                raise AssertionError("leading never ends by itself")
            try:
                async with asyncio.timeout(max(0.1, renewed + DEADLINE - _clock())):
                    held = await self._held()
            except TimeoutError:
                return
            if held:
                renewed = _clock()
            elif self.failure is None:
                return  # another controller has it

    async def resign(self) -> None:
        """Release the Lease, so that the next leader need not wait."""
        lease = self._lease or {}
        spec = lease.get("spec", {})
        if spec.get("holderIdentity") == self._identity:
            try:
                await self._write(lease, {**spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()})
            except Problem as error:
                self._log.warning("cannot release the Lease", error=str(error))

    async def _held(self) -> bool:
        """Acquire or renew the Lease; False if another controller has it."""
        try:
            held = await self._tried()
        except Problem as error:
            # A 409 means that another controller was faster: not a failure.
            conflict = isinstance(error, StatusError) and error.status == HTTPStatus.CONFLICT
            if not conflict and (self.failure is None or self.failure.msg != error.msg):
                self._log.warning("cannot acquire the Lease", lease=self._name, error=str(error))
            self.failure = None if conflict else error
            self._lease = None
            return False
        self.failure = None
        return held

    async def _tried(self) -> bool:
        if self._lease is None:
            self._lease = await self._read()
        mine = self._lease is not None and self._lease["spec"].get("holderIdentity") == self._identity
        if not mine and self._lease is not None:
            self._lease = await self._read()
        if self._lease is None:
            spec = self._spec({"leaseTransitions": 0, "acquireTime": _now()})
            manifest = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}, "spec": spec}
            self._lease = await self._cluster.create(self._path, manifest)
            return True
        spec = self._lease.get("spec") or {}
        if spec.get("holderIdentity") == self._identity:
            await self._write(self._lease, self._spec(spec))
            return True
        version, now = self._lease["metadata"]["resourceVersion"], _clock()
        if version != self._seen[0]:
            self._seen = (version, now)
        # Clocks of two machines may differ: only the time since we last saw a renewal counts.
        if spec.get("holderIdentity") and now - self._seen[1] < float(spec.get("leaseDurationSeconds") or DURATION):
            return False
        await self._write(self._lease, self._spec({"leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1, "acquireTime": _now()}))
        return True

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._cluster.get(f"{self._path}/{self._name}")
        except StatusError as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _write(self, lease: dict[str, Any], spec: dict[str, Any]) -> None:
        self._lease = await self._cluster.replace(f"{self._path}/{self._name}", {**lease, "spec": spec})

    def _spec(self, kept: dict[str, Any]) -> dict[str, Any]:
        return {**kept, "holderIdentity": self._identity, "leaseDurationSeconds": int(DURATION), "renewTime": _now()}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _clock() -> float:
    """Return seconds by the event loop's clock, which sleeping uses, too."""
    return asyncio.get_running_loop().time()
