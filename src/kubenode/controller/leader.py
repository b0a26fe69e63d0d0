"""The one of several controllers that works: the holder of a Lease. It saves work; that no subnet is given twice does not depend on it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from http import HTTPStatus
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from kubenode.cni.errors import CNIError
from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster


# Seconds, as the control plane's own components have them.
DURATION = 15.0  # that others wait from the last renewal they have seen
DEADLINE = 10.0  # after which a holder that cannot renew stops by itself
RETRY = 2.0


class Leader:
    """Runs `lead` while the Lease is ours, and cancels it once that is not certain any more."""

    def __init__(
        self, cluster: Cluster, namespace: str, name: str, identity: str, lead: Callable[[], Coroutine[Any, Any, None]], log: Log
    ) -> None:
        self.leads = False
        self.failure: CNIError | None = None
        self._cluster = cluster
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._identity = identity
        self._lead = lead
        self._log = log
        self._random = SystemRandom()
        self._lease: dict[str, Any] | None = None
        self._seen = ("", 0.0)  # the version of somebody else's Lease, and since when it has not changed

    async def run(self) -> None:
        """Campaign, lead, and begin again, until cancelled. A fault of `lead` ends it."""
        while True:
            while not await self._held():  # noqa: ASYNC110 (what is waited for happens at the API server)
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
        """Renew as long as that succeeds."""
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
                return  # somebody else has it

    async def resign(self) -> None:
        """Give the Lease back, so that the next one need not wait."""
        lease = self._lease or {}
        spec = lease.get("spec", {})
        if spec.get("holderIdentity") == self._identity:
            try:
                await self._write(lease, {**spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()})
            except CNIError as error:
                self._log.warning("cannot release the Lease", error=str(error))

    async def _held(self) -> bool:
        """Take the Lease or renew it, if nobody else has it."""
        try:
            held = await self._tried()
        except CNIError as error:
            # With 409 somebody else was quicker: that is no failure.
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
        # Clocks of two machines need not agree: what counts is how long we have not seen it renewed.
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
    """Return seconds by the event loop's clock, by which is also slept."""
    return asyncio.get_running_loop().time()
