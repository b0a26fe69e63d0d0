# SPDX-License-Identifier: Apache-2.0
"""Who leads, by a Lease, a log and a clock that are given."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import giventime
import pytest

from kubenode.base.log import Log
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.controller.leader import DURATION, RETRY, Leader
from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.kube.asyncclient import Cluster


class Leases:
    """An API server with one Lease; `failure` is what it answers instead, `delay` how long it takes."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.failure: CNIError | None = None
        self.delay = 0.0
        self.writes = 0

    async def get(self, _path: str) -> dict[str, Any]:
        await self._answer()
        if self.lease is None:
            raise refused(HTTPStatus.NOT_FOUND)
        return self.lease

    async def create(self, _path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        await self._answer()
        if self.lease is not None:
            raise refused(HTTPStatus.CONFLICT)
        return self._put(manifest)

    async def replace(self, _path: str, manifest: dict[str, Any]) -> dict[str, Any]:
        await self._answer()
        if self.lease is None or manifest["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise refused(HTTPStatus.CONFLICT)
        return self._put(manifest)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""

    async def _answer(self) -> None:
        await asyncio.sleep(self.delay)
        if self.failure:
            raise self.failure

    def _put(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        self.lease = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(self.writes)}}
        return self.lease


def refused(status: HTTPStatus) -> StatusError:
    return StatusError(TRY_AGAIN_LATER, f"answered {status}", "", status, {})


class Lines:
    """The messages that were logged."""

    dropped = 0

    def __init__(self) -> None:
        self.said: list[str] = []

    def write(self, _path: str, text: bytes) -> None:
        self.said.append(json.loads(text)["msg"])


class Controller:
    """A candidate, and the times at which its work began and ended."""

    def __init__(self, leases: Leases, name: str) -> None:
        self.lines = Lines()
        self.spans: list[list[float]] = []
        self.leader = Leader(cast("Cluster", leases), "kube-system", "kube-node", name, self._lead, Log("controller", sink=self.lines))
        self._task = asyncio.create_task(self.leader.run())

    async def _lead(self) -> None:
        self.spans.append([clock()])
        try:
            await asyncio.sleep(1e9)
        finally:
            self.spans[-1].append(clock())

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


def clock() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], object], seconds: float = 100) -> float:
    """Let time go on until something is so; return how many seconds that took."""
    began = clock()
    while not condition():
        assert clock() < began + seconds
        await asyncio.sleep(0.1)
    return clock() - began


def test_the_first_leads() -> None:
    """Who comes first makes the Lease, leads, and goes on to renew it; the second waits as long as it is renewed."""

    async def scene() -> None:
        leases = Leases()
        one = Controller(leases, "one")
        await until(lambda: one.leader.leads)
        two = Controller(leases, "two")
        await asyncio.sleep(10 * DURATION)
        assert (leases.holder, one.leader.leads, two.leader.leads, two.spans) == ("one", True, False, [])
        assert leases.writes > 9 * DURATION / RETRY
        assert leases.lease is not None
        assert (leases.lease["spec"]["leaseDurationSeconds"], leases.lease["spec"]["leaseTransitions"]) == (15, 0)
        await one.stop()
        await two.stop()

    giventime.run(scene())


def test_it_is_given_back() -> None:
    """Who ends in order gives the Lease back, and the next one has it with its next look."""

    async def scene() -> None:
        leases = Leases()
        one = Controller(leases, "one")
        await until(lambda: one.leader.leads)
        two = Controller(leases, "two")
        await asyncio.sleep(5)
        await one.stop()
        await one.leader.resign()
        assert leases.holder == ""
        assert await until(lambda: two.leader.leads) <= 1.3 * RETRY
        assert leases.lease is not None
        assert (leases.holder, leases.lease["spec"]["leaseTransitions"]) == ("two", 1)
        await one.leader.resign()  # whose it is not any more
        assert leases.holder == "two"
        await two.stop()

    giventime.run(scene())


def test_a_holder_that_is_gone() -> None:
    """A Lease that is not renewed is taken once its time has passed since it was last seen to change, and not before."""

    async def scene() -> None:
        leases = Leases()
        one = Controller(leases, "one")
        await until(lambda: one.leader.leads)
        await one.stop()
        two = Controller(leases, "two")
        took = await until(lambda: two.leader.leads)
        assert DURATION <= took <= DURATION + 2 * RETRY
        await two.stop()

    giventime.run(scene())


@pytest.mark.parametrize("silent", [False, True])
def test_an_api_server_that_is_gone(*, silent: bool) -> None:
    """A holder that cannot renew stops before another may take the Lease, says why once, and leads again when it can."""

    async def scene() -> None:
        leases = Leases()
        one = Controller(leases, "one")
        await until(lambda: one.leader.leads)
        lost = clock()
        if silent:
            leases.delay = 1e6
        else:
            leases.failure = CNIError(TRY_AGAIN_LATER, "no answer")
        await until(lambda: len(one.spans[0]) == 2)
        assert not one.leader.leads
        assert one.spans[0][1] - lost < DURATION - RETRY
        if not silent:
            assert one.leader.failure is leases.failure
            await asyncio.sleep(60)
            assert one.lines.said.count("cannot acquire the Lease") == 1
            leases.failure = None
            await until(lambda: one.leader.leads)
            assert (len(one.spans), one.leader.failure) == (2, None)
        await one.stop()

    giventime.run(scene())


def test_taken_by_another() -> None:
    """A holder that finds another's name in the Lease stops at once; that is a conflict, and no failure."""

    async def scene() -> None:
        leases = Leases()
        one = Controller(leases, "one")
        await until(lambda: one.leader.leads)
        assert leases.lease is not None
        await leases.replace("", {**leases.lease, "spec": {**leases.lease["spec"], "holderIdentity": "other"}})
        assert await until(lambda: not one.leader.leads) <= 2 * RETRY
        assert one.leader.failure is None
        await one.stop()

    giventime.run(scene())


def test_many_at_the_same_time() -> None:
    """Of many that ask for a Lease at the same time one leads."""

    async def scene() -> None:
        leases = Leases()
        leases.delay = 0.01
        candidates = [Controller(leases, f"c{number}") for number in range(8)]
        await until(lambda: any(one.leader.leads for one in candidates))
        await asyncio.sleep(30)
        assert sum(one.leader.leads for one in candidates) == 1
        assert sum(len(one.spans) for one in candidates) == 1
        for one in candidates:
            await one.stop()

    giventime.run(scene())


def test_a_fault_of_the_work() -> None:
    """A fault of the work itself ends the campaign: the process ends, and another takes over."""

    async def scene() -> None:
        async def lead() -> None:
            raise ZeroDivisionError

        leader = Leader(cast("Cluster", Leases()), "kube-system", "kube-node", "one", lead, Log("controller"))
        with pytest.raises(ZeroDivisionError):
            await leader.run()
        assert not leader.leads

    giventime.run(scene())
