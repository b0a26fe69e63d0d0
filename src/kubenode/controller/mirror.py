"""A collection of the API server, followed: LIST in pages, then WATCH from there, resumed where it ends.

It is listed again where the version is too old, or may be of a time that never was: after a silence, or a connection that was refused.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from contextlib import aclosing
from http import HTTPStatus
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from kubenode.cni.errors import INTERNAL, TRY_AGAIN_LATER, CNIError
from kubenode.kube.refusal import RefusedError
from kubenode.kube.resourceversion import before
from kubenode.kube.stream import GarbledError

if TYPE_CHECKING:
    from kubenode.base.log import Log
    from kubenode.kube.collection import Cluster, Collection


class Pace(NamedTuple):
    """How long things take, in seconds."""

    lifetime: float = 480  # of a watch, until the server ends it; ± 20 %
    grace: float = 30  # how much longer one may stay silent before it counts as stalled
    shortest: float = 0.25  # pause between two attempts
    longest: float = 30


PACE = Pace()


class Sink(Protocol):
    """Takes what a mirror is told."""

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str: ...  # the object's name; `replace`: whatever is known
    def drop(self, manifest: msgspec.Raw) -> None: ...
    def only(self, names: set[str], version: str) -> None: ...  # at this version there were these and no others; "": whatever is known


class Restarts(Protocol):
    def restarted(self, resource: str, reason: str) -> None: ...


class _Meta(msgspec.Struct, rename={"version": "resourceVersion"}):
    version: str


class _Versioned(msgspec.Struct):
    metadata: _Meta


_VERSION: msgspec.json.Decoder[_Versioned] = msgspec.json.Decoder(_Versioned)


class Mirror:
    """`synced` is set once all is known for the first time; `failure` says why what is known may be old."""

    def __init__(self, cluster: Cluster, collection: Collection, sink: Sink, log: Log, restarts: Restarts, pace: Pace = PACE) -> None:
        self.synced = asyncio.Event()
        self.failure: CNIError | None = CNIError(TRY_AGAIN_LATER, "the API server has not answered yet", "the controller has just started")
        self._cluster = cluster
        self._collection = collection
        self._resource = collection.path.rpartition("/")[2]
        self._sink = sink
        self._log = log
        self._restarts = restarts
        self._pace = pace
        self._random = SystemRandom()
        self._version = ""  # "" where all has to be listed
        self._newest = ""  # that was ever told
        self._failures = 0
        self._logged = ""

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        while True:
            try:
                if not self._version:
                    self._version = await self._listed()
                    self.synced.set()
                await self._follow()
            except CNIError as error:
                pause = self._failed(error)
            except Exception as error:  # noqa: BLE001 (a fault of ours: what is known may be wrong, and following has to go on)
                self._log.error("following failed", resource=self._resource, traceback=traceback.format_exc())
                self._version = ""
                problem = f"following {self._resource} failed: {type(error).__name__}: {error}"
                pause = self._failed(CNIError(INTERNAL, problem, "see the log; it tries again"))
            else:
                pause = 0.0
            await asyncio.sleep(pause)

    async def _listed(self) -> str:
        names: set[str] = set()
        version, back = "", False
        async with aclosing(self._cluster.pages(self._collection)) as pages:
            async for items, version in pages:
                # A list is of now. One that is older than what was told is of an etcd that was restored: what is known never was.
                back = before(version, self._newest)
                names.update(self._sink.put(item, replace=back) for item in items)
                await asyncio.sleep(0)  # a page takes a moment, and a Lease has to be renewed
        self._sink.only(names, "" if back else version)
        if back:
            self._log.warning("time has gone back at the API server", resource=self._resource, known=self._newest, now=version)
        self._newest = version
        return version

    async def _follow(self) -> None:
        seconds = max(1, round(self._pace.lifetime * self._random.uniform(0.8, 1.2)))
        # An API server that was away may come back with an older etcd. A watch from a version that is still to come is silent then.
        version, self._version = self._version, ""
        events = await self._cluster.watch(self._collection, version, seconds)
        self._version, began, told = version, time.monotonic(), False
        async with aclosing(events):
            try:
                async with asyncio.timeout(seconds + self._pace.grace):
                    async for event in events:
                        told = True
                        if event.kind == "DELETED":
                            self._sink.drop(event.object)
                        elif event.kind in ("ADDED", "MODIFIED"):
                            self._sink.put(event.object)
                        self._version = self._newest = _VERSION.decode(event.object).metadata.version
                        self._well()
            except TimeoutError:
                problem = f"the watch of {self._resource} has not ended after {seconds + self._pace.grace:g} s, as it should have"
                self._version = ""
                raise CNIError(TRY_AGAIN_LATER, problem, "does something between drop long connections?") from None
            except msgspec.MsgspecError as error:
                problem = f"the watch of {self._resource} told something that is no object: {error}"
                raise GarbledError(TRY_AGAIN_LATER, problem, "does something between answer in its place?") from error
        self._restarts.restarted(self._resource, "closed")
        if not told:
            self._version = ""
        if time.monotonic() - began < 1:
            problem = f"the API server accepts a watch of {self._resource} and ends it"
            raise CNIError(TRY_AGAIN_LATER, problem, "is it going down?")
        self._well()

    def _well(self) -> None:
        if self.failure is not None:
            if self._logged:
                self._log.info("followed again", resource=self._resource)
            self.failure, self._failures, self._logged = None, 0, ""

    def _failed(self, error: CNIError) -> float:
        """Take note of what ended an attempt; return the pause until the next one."""
        refused = isinstance(error, RefusedError)
        expired = isinstance(error, RefusedError) and error.status == HTTPStatus.GONE
        self._restarts.restarted(self._resource, "expired" if expired else "error")
        if expired or refused or isinstance(error, GarbledError):
            self._version = ""
        self._failures += 1
        if expired and self._failures == 1:
            return 0.0
        self.failure = error
        if error.msg != self._logged:
            self._log.warning("cannot be followed, what is known serves", resource=self._resource, error=str(error))
            self._logged = error.msg
        pause = min(self._pace.longest, self._pace.shortest * float(1 << min(self._failures - 1, 7))) * self._random.uniform(0.5, 1)
        return max(pause, min(self._pace.longest, (isinstance(error, RefusedError) and error.retry_after) or 0.0))
