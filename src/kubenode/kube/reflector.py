# SPDX-License-Identifier: Apache-2.0
"""Reflector of API objects: it lists them, then watches from there, and restarts when the watch ends.

A watch resumes from the last version received. A new list is needed only if that version cannot be trusted any more: it expired (410), or
the API server reported another error, was unreachable, or silent. A server that was unreachable may return with an etcd restored from a
backup: then that version is in its future, and a watch from it stays silent.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from http import HTTPStatus
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from kubenode.cni.errors import INTERNAL, KUBECONFIG, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError
from kubenode.kube.refusal import GarbledError, StatusError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Event

RESUMABLE = (TRY_AGAIN_LATER, KUBECONFIG, UNAUTHORIZED)  # these errors do not question the known version
ANY = "0"  # version for a watch that starts with the current objects


def before(version: str, other: str) -> bool:
    """Compare two resource versions, which in practice are numbers."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


class Source(Protocol):
    """Source of objects, and receiver of its events. An exception ends a watch; if it is not a CNIError, it is also logged."""

    name: str  # for log and errors

    async def read(self, expired: str) -> str:
        """Take all objects, and return the version to watch from. `expired` is the last version answered by 410."""

    def watch(self, version: str, seconds: int) -> AbstractAsyncContextManager[AsyncGenerator[Event, None]]:
        """Start a watch from `version` for `seconds`; yield its events once the API server has accepted it."""

    def take(self, event: Event) -> str:
        """Take an event; return the version to resume from, "" if a new list is needed."""


class Pace(NamedTuple):
    """Timing of a watch, in seconds."""

    lifetime: float = 1800  # of a watch, until the server ends it; ± 20 %, so that a cluster's agents do not reconnect together
    silence: float = 150  # until a watch counts as stalled, after its first bookmark: servers send one each minute
    first_silence: float = 480  # the same before that: the first one needs a change, and a kubelet reports every 5 minutes, ± half
    greeting: float = 10  # until a watch from version 0 has sent the current objects
    settled: float = 5  # a watch that lasted this long ends an outage
    shortest: float = 0.25  # pause between two attempts
    longest: float = 30
    share: float = 50  # the pause is a fiftieth of the outage so far, so its cost is in proportion


PACE = Pace()


class Reflector:
    """Follows a source. `restarted` gets the reason of each restart: closed, stalled, deleted, expired or error.

    `failure` says why the objects may be out of date; None while a watch runs. `synced` is set after the first list.
    """

    def __init__(self, source: Source, log: Log, restarted: Callable[[str], None], pace: Pace = PACE) -> None:
        self.synced = asyncio.Event()
        self.failure: CNIError | None = CNIError(TRY_AGAIN_LATER, "the API server has not answered yet", "this program has just started")
        self._source = source
        self._log = log
        self._restarted = restarted
        self._pace = pace
        self._random = SystemRandom()
        self._version = ""  # to watch from; "" if a list is needed
        self._expired = ""  # the last version answered by 410
        self._accepted: float | None = None  # when the API server accepted this attempt's watch
        self._trouble: float | None = None  # start of the outage
        self._logged = ""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            began, self._accepted = time.monotonic(), None
            try:
                if not self._version:
                    self._version = await self._source.read(self._expired)
                    self.synced.set()
                await self._follow()
            except CNIError as error:
                pause = self._failed(error, began)
            except Exception as error:  # noqa: BLE001 (a full disk below the source, or a bug of ours: the reflector must go on)
                self._log.error("internal error in a watch", resource=self._source.name, traceback=traceback.format_exc())
                problem = f"following {self._source.name} failed: {type(error).__name__}: {error}"
                pause = self._failed(CNIError(INTERNAL, problem, "see the log; it tries again"), began)
            else:
                pause = 0.0
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        """Take the events of a watch until it ends. Raises CNIError if that is not in order."""
        seconds = max(1, round(self._pace.lifetime * self._random.uniform(0.8, 1.2)))  # 0 would be the server's default
        try:
            async with self._source.watch(self._version, seconds) as events:
                self.failure, self._accepted = None, time.monotonic()
                settling = asyncio.get_running_loop().call_later(self._pace.settled, self._settled)
                try:
                    reason = await self._told(events)
                except msgspec.MsgspecError as error:
                    raise GarbledError(f"the watch of {self._source.name} sent something that is not an object: {error}") from error
                finally:
                    settling.cancel()
        except CNIError as error:
            self._restarted(_reason(error))
            raise
        self._restarted(reason)
        if reason == "closed" and time.monotonic() - self._accepted < self._pace.settled:
            problem = f"the API server accepts a watch of {self._source.name} and ends it"
            raise CNIError(TRY_AGAIN_LATER, problem, "is it shutting down, or does a proxy or load balancer end it?")

    async def _told(self, events: AsyncGenerator[Event, None]) -> str:
        """Take the events of a watch; return the reason of its end."""
        due = self._version == ANY  # whether the API server must send objects soon
        patience = self._pace.greeting if due else self._pace.first_silence
        told = False
        while True:
            try:
                async with asyncio.timeout(patience):
                    event = await anext(events)
            except StopAsyncIteration:
                if not told:
                    self._version = ""
                return "closed"
            except TimeoutError:
                self._version = ""
                if not due:
                    return "stalled"
                raise _StalledError(f"the API server sent nothing for {patience:g} s on the watch of {self._source.name}") from None
            due = (told and due) or event.kind == "BOOKMARK"
            told = True
            patience = self._pace.silence if due else self._pace.first_silence
            self._version = self._source.take(event)
            if not self._version:
                return "deleted"

    def _failed(self, error: CNIError, began: float) -> float:
        """Note the error that ended an attempt; return the pause until the next one."""
        now = time.monotonic()
        self.failure = error
        newly_expired = False
        if _reason(error) == "expired" and self._version not in ("", ANY):
            newly_expired, self._expired = self._version != self._expired, self._version
        if not _resumable(error, accepted=self._accepted is not None):
            self._version = ""
        if newly_expired:
            self._log.info("watch restarted with a list", resource=self._source.name, error=error.msg)
        elif error.msg != self._logged:  # not repeated during an outage
            self._log.warning("watch failed: using the last known state", resource=self._source.name, error=str(error))
            self._logged = error.msg
        at_once = self._trouble is None and self._accepted is not None
        self._trouble = now if self._trouble is None else self._trouble
        asked_for = (isinstance(error, StatusError) and error.retry_after) or 0.0
        if (at_once or newly_expired) and not asked_for:
            return 0.0
        pause = max(self._pace.shortest, min(self._pace.longest, (now - self._trouble) / self._pace.share)) * self._random.uniform(0.5, 1)
        # Time spent on a silent server counts as pause, so that we notice its return soon.
        spent = now - began if self._accepted is None else 0.0
        return max(0.0, pause - spent) + min(self._pace.longest, asked_for)

    def _settled(self) -> None:
        if self._trouble is not None:
            after = round(time.monotonic() - self._trouble, 1)
            self._log.info("watch recovered", resource=self._source.name, after_seconds=after)
        self._trouble, self._logged = None, ""


class _StalledError(CNIError):
    """Error: no event for too long."""

    def __init__(self, problem: str) -> None:
        super().__init__(TRY_AGAIN_LATER, problem, "does a proxy, load balancer or firewall drop long connections?")


def _resumable(error: CNIError, *, accepted: bool) -> bool:
    """Say whether a watch may resume from the known version. A 504 says that the server has not reached it yet."""
    if isinstance(error, StatusError) and (accepted or error.status in (HTTPStatus.GONE, HTTPStatus.GATEWAY_TIMEOUT)):
        return False
    if error.code == TRY_AGAIN_LATER and not isinstance(error, StatusError) and not accepted:
        return False
    return error.code in RESUMABLE and not isinstance(error, (GarbledError, _StalledError))


def _reason(error: CNIError) -> str:
    if isinstance(error, StatusError) and error.status == HTTPStatus.GONE:
        return "expired"
    return "stalled" if isinstance(error, _StalledError) else "error"
