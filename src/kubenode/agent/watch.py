"""The watch of our own Node: GET, then WATCH from there; whatever ends it, it begins again, and meanwhile what is known stays.

A watch is resumed from the last version that it told. The Node is asked for anew only where that version cannot be trusted any more:
it has expired (410), the API server says other errors, was away, or was silent for longer than its bookmarks allow.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from contextlib import aclosing
from http import HTTPStatus
from random import SystemRandom
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kubenode.agent.published import Published
from kubenode.cni.errors import INTERNAL, KUBECONFIG, NODE_NOT_FOUND, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError
from kubenode.kube.offloop import off_loop
from kubenode.kube.refusal import RefusedError
from kubenode.kube.resourceversion import before
from kubenode.kube.stream import GarbledError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import AsyncNodes, Event

    Manifest = dict[str, Any]

RESUMABLE = (TRY_AGAIN_LATER, KUBECONFIG, UNAUTHORIZED)  # they say nothing against the version that is known
OK = str(HTTPStatus.OK.value)


class Observer(Protocol):
    """Counts. `result` is an HTTP status, "timeout" or "error"; `reason` is closed, expired, stalled, deleted or error."""

    def requested(self, verb: str, result: str) -> None: ...
    def restarted(self, reason: str) -> None: ...


class Pace(NamedTuple):
    """How long things take, in seconds."""

    lifetime: float = 1800  # of a watch, until the server ends it; ± 20 %, so that a cluster's agents do not come back together
    silence: float = 150  # until a watch counts as stalled once a bookmark has come: one is sent each minute
    first_silence: float = 480  # the same before that: none is sent while no Node changes, and a kubelet reports each 5 minutes, ± half
    greeting: float = 10  # until a watch from version 0 has told what there is
    settled: float = 5  # a watch that has held for so long ends the trouble before it
    shortest: float = 0.25  # pause between two attempts
    longest: float = 30
    share: float = 50  # an attempt each fiftieth of the time that the trouble has lasted: what it costs is in proportion


PACE = Pace()


class Place(NamedTuple):
    """Where a watch goes on from: what is known of the Node `name` is of this `version`.

    `expired`: the API server would answer 410. After its start it knows nothing older than that moment, and a Node that has not changed
    since is older: to GET it again gives the same version again. Then the watch is from version 0, which begins with the Node as it is.
    """

    name: str
    version: str
    expired: bool = False


class _StalledError(CNIError):
    """Nothing has come for too long."""


class NodeWatch:
    """Publishes our Node's reduced manifest after each change, and None once it is deleted.

    `find` identifies and GETs our Node within a bounded time, `connect` makes the client for one watch; both may block, and raise CNIError.
    `failure` says why nothing newer than what was published can be known; None while a watch runs.
    """

    def __init__(
        self,
        find: Callable[[], Manifest],
        connect: Callable[[], AsyncNodes],
        publish: Callable[[Manifest | None], None],
        log: Log,
        observer: Observer,
        *,
        pace: Pace = PACE,
    ) -> None:
        self.failure: CNIError | None = CNIError(TRY_AGAIN_LATER, "the API server has not answered yet", "the agent has just started")
        self._find = find
        self._connect = connect
        self._published = Published(publish, log)
        self._log = log
        self._observer = observer
        self._pace = pace
        self._random = SystemRandom()
        self._place: Place | None = None
        self._trouble: float | None = None  # since when
        self._logged = ""
        self._expired = ""  # the version that was answered by 410 last
        self._accepted: float | None = None  # when the API server took the watch of this attempt

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            began, self._accepted = time.monotonic(), None
            try:
                if self._place is None:
                    self._place = await self._found()
                nodes = await off_loop(self._connect)
                try:
                    await self._follow(nodes, self._place)
                finally:
                    await nodes.aclose()
            except CNIError as error:
                pause = self._failed(error, began)
            except Exception as error:  # noqa: BLE001 (a full disk under `publish`, or a fault of ours: the watch has to go on)
                self._place = None
                self._log.error("the watch of the own Node failed", traceback=traceback.format_exc())
                problem = f"the watch of the own Node failed: {type(error).__name__}: {error}"
                pause = self._failed(CNIError(INTERNAL, problem, "see the agent's log; it tries again"), began)
            else:
                pause = 0.0
            await asyncio.sleep(pause)

    async def _found(self) -> Place:
        """Ask for our Node and publish it."""
        try:
            manifest = await off_loop(self._find)
        except CNIError as error:
            self._observer.requested("get", _result(error))
            if error.code == NODE_NOT_FOUND:
                self._published.gone()
            raise
        self._observer.requested("get", OK)
        self._published.show(manifest)
        version = manifest["metadata"]["resourceVersion"]
        return Place(manifest["metadata"]["name"], version, expired=version == self._expired or before(version, self._expired))

    async def _follow(self, nodes: AsyncNodes, place: Place) -> None:
        """Publish what a watch says, until it ends. Raises CNIError where that is not in order."""
        seconds = max(1, round(self._pace.lifetime * self._random.uniform(0.8, 1.2)))  # 0 would be the server's default
        try:
            events = await nodes.watch(place.name, "0" if place.expired else place.version, seconds)
        except CNIError as error:
            self._observer.requested("watch", _result(error))
            raise
        self._observer.requested("watch", OK)
        self.failure = None
        self._accepted = time.monotonic()
        settling = asyncio.get_running_loop().call_later(self._pace.settled, self._settled)
        try:
            async with aclosing(events):
                reason = await self._told(events, place)
        except CNIError as error:
            self._observer.restarted(_reason(error))
            raise
        finally:
            settling.cancel()
        self._observer.restarted(reason)
        if reason == "closed" and time.monotonic() - self._accepted < self._pace.settled:
            raise CNIError(
                TRY_AGAIN_LATER, "the API server accepts a watch and ends it", "is it going down, or does something between do so?"
            )

    async def _told(self, events: AsyncGenerator[Event, None], place: Place) -> str:
        """Publish what a watch says; return why it has ended."""
        patience = self._pace.greeting if place.expired else self._pace.first_silence
        bookmarks = False
        while True:
            try:
                async with asyncio.timeout(patience):
                    event = await anext(events)
            except StopAsyncIteration:
                return "closed"
            except TimeoutError:
                problem = f"the API server has said nothing for {patience:g} s on the watch of Node {place.name}"
                raise _StalledError(TRY_AGAIN_LATER, problem, "does something between drop long connections?") from None
            bookmarks = bookmarks or event.kind == "BOOKMARK"
            patience = self._pace.silence if bookmarks else self._pace.first_silence
            if place.expired and before(event.version, place.version):
                continue  # from version 0 an API server tells what it has, and of several one may lag behind who answered the GET
            if event.kind == "DELETED":
                # Which Node is ours from now on only `find` can say.
                self._place = None
                self._published.gone()
                return "deleted"
            if event.kind in ("ADDED", "MODIFIED"):
                if (name := event.manifest["metadata"].get("name")) != place.name:
                    # A proxy that drops the query would have us give out another Node's addresses.
                    problem = f"the watch of Node {place.name} tells of {name!r}"
                    raise GarbledError(TRY_AGAIN_LATER, problem, "does something between answer in its place?")
                self._published.show(event.manifest)
            place = self._place = Place(place.name, event.version, expired=place.expired and event.version == place.version)

    def _failed(self, error: CNIError, began: float) -> float:
        """Take note of what ended an attempt; return the pause until the next one."""
        now = time.monotonic()
        self.failure = error
        newly_expired = False
        if self._place is not None and _reason(error) == "expired":
            newly_expired, self._expired = self._place.version != self._expired, self._place.version
        if not _resumable(error, accepted=self._accepted is not None):
            self._place = None
        if newly_expired:
            self._log.info("the own Node is asked for anew", error=error.msg)
        elif error.msg != self._logged:  # else the log would hold little else during an outage
            self._log.warning("the own Node cannot be watched, what is known serves", error=str(error))
            self._logged = error.msg
        at_once = self._trouble is None and self._accepted is not None
        self._trouble = now if self._trouble is None else self._trouble
        asked_for = (isinstance(error, RefusedError) and error.retry_after) or 0.0
        if (at_once or newly_expired) and not asked_for:
            return 0.0
        pause = max(self._pace.shortest, min(self._pace.longest, (now - self._trouble) / self._pace.share)) * self._random.uniform(0.5, 1)
        # What a silent server has cost already counts: it is to be noticed soon when it speaks again.
        spent = now - began if self._accepted is None else 0.0
        return max(0.0, pause - spent) + min(self._pace.longest, asked_for)

    def _settled(self) -> None:
        if self._trouble is not None:
            self._log.info("the own Node is watched again", after_seconds=round(time.monotonic() - self._trouble, 1))
        self._trouble, self._logged = None, ""


def _resumable(error: CNIError, *, accepted: bool) -> bool:
    """Tell whether a watch may go on from the version that is known.

    With 504 the API server says that it is not there yet. One that was away may come back with the etcd of a backup: then that version is
    still to come, and a watch from it would be silent.
    """
    if isinstance(error, RefusedError) and (accepted or error.status in (HTTPStatus.GONE, HTTPStatus.GATEWAY_TIMEOUT)):
        return False
    if error.code == TRY_AGAIN_LATER and not isinstance(error, RefusedError) and not accepted:
        return False
    return error.code in RESUMABLE and not isinstance(error, (GarbledError, _StalledError))


def _reason(error: CNIError) -> str:
    if isinstance(error, RefusedError) and error.status == HTTPStatus.GONE:
        return "expired"
    return "stalled" if isinstance(error, _StalledError) else "error"


def _result(error: CNIError) -> str:
    if isinstance(error, RefusedError):
        return str(error.status)
    if error.code == NODE_NOT_FOUND:
        return str(HTTPStatus.NOT_FOUND.value)
    return "timeout" if isinstance(error.__cause__, TimeoutError) else "error"
