"""Objects of the API server, followed: all is read, then a WATCH goes on from there; whatever ends it, it begins again.

A watch is resumed from the last version that it told. All is read again only where that version cannot be trusted any more: it has
expired (410), the API server says other errors, was away, or was silent. One that was away may come back with the etcd of a backup: then
that version is still to come, and a watch from it is silent.
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

RESUMABLE = (TRY_AGAIN_LATER, KUBECONFIG, UNAUTHORIZED)  # they say nothing against the version that is known
ANY = "0"  # the version of a watch that begins with what the API server has


def before(version: str, other: str) -> bool:
    """Compare two resource versions; all that is known of their form is that they are numbers by now."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


class Source(Protocol):
    """A source of objects, and the receiver of what it says. A CNIError ends a watch, and so does a fault, which is logged, too."""

    name: str  # for log and errors

    async def read(self, expired: str) -> str:
        """Take all that there is, and return the version from which to watch. `expired` is the one that was answered by 410 last."""

    def watch(self, version: str, seconds: int) -> AbstractAsyncContextManager[AsyncGenerator[Event, None]]:
        """Return what happens after `version`, once the API server has accepted to say so for `seconds`."""

    def take(self, event: Event) -> str:
        """Take what has happened; return the version from which to go on, "" where all has to be read again."""


class Pace(NamedTuple):
    """The pace of a watch, in seconds."""

    lifetime: float = 1800  # of a watch, until the server ends it; ± 20 %, so that a cluster's agents do not come back together
    silence: float = 150  # until a watch counts as stalled once a bookmark has come: one is sent each minute
    first_silence: float = 480  # the same before that: none is sent while no object changes, and a kubelet reports each 5 minutes, ± half
    greeting: float = 10  # until a watch from version 0 has told what there is
    settled: float = 5  # a watch that has held for so long ends the trouble before it
    shortest: float = 0.25  # pause between two attempts
    longest: float = 30
    share: float = 50  # an attempt each fiftieth of the time that the trouble has lasted: what it costs is in proportion


PACE = Pace()


class Reflector:
    """Follows a source. `restarted` counts why a watch had to begin again: closed, stalled, deleted, expired or error.

    `failure` says why nothing newer than what was taken can be known; None while a watch runs. `synced` is set once all has been read.
    """

    def __init__(self, source: Source, log: Log, restarted: Callable[[str], None], pace: Pace = PACE) -> None:
        self.synced = asyncio.Event()
        self.failure: CNIError | None = CNIError(TRY_AGAIN_LATER, "the API server has not answered yet", "this program has just started")
        self._source = source
        self._log = log
        self._restarted = restarted
        self._pace = pace
        self._random = SystemRandom()
        self._version = ""  # from which to watch; "" where all has to be read
        self._expired = ""  # the version that was answered by 410 last
        self._accepted: float | None = None  # when the API server took the watch of this attempt
        self._trouble: float | None = None  # since when
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
            except Exception as error:  # noqa: BLE001 (a full disk under the source, or a fault of ours: following has to go on)
                self._log.error("internal error in a watch", resource=self._source.name, traceback=traceback.format_exc())
                problem = f"following {self._source.name} failed: {type(error).__name__}: {error}"
                pause = self._failed(CNIError(INTERNAL, problem, "see the log; it tries again"), began)
            else:
                pause = 0.0
            await asyncio.sleep(pause)

    async def _follow(self) -> None:
        """Take what a watch says, until it ends. Raises CNIError where that is not in order."""
        seconds = max(1, round(self._pace.lifetime * self._random.uniform(0.8, 1.2)))  # 0 would be the server's default
        try:
            async with self._source.watch(self._version, seconds) as events:
                self.failure, self._accepted = None, time.monotonic()
                settling = asyncio.get_running_loop().call_later(self._pace.settled, self._settled)
                try:
                    reason = await self._told(events)
                except msgspec.MsgspecError as error:
                    raise GarbledError(f"the watch of {self._source.name} tells something that is no object: {error}") from error
                finally:
                    settling.cancel()
        except CNIError as error:
            self._restarted(_reason(error))
            raise
        self._restarted(reason)
        if reason == "closed" and time.monotonic() - self._accepted < self._pace.settled:
            problem = f"the API server accepts a watch of {self._source.name} and ends it"
            raise CNIError(TRY_AGAIN_LATER, problem, "is it going down, or does something between do so?")

    async def _told(self, events: AsyncGenerator[Event, None]) -> str:
        """Take what a watch says; return why it has ended."""
        due = self._version == ANY  # whether the API server has to say something soon
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
                raise _StalledError(f"the API server has said nothing for {patience:g} s on the watch of {self._source.name}") from None
            due = (told and due) or event.kind == "BOOKMARK"
            told = True
            patience = self._pace.silence if due else self._pace.first_silence
            self._version = self._source.take(event)
            if not self._version:
                return "deleted"

    def _failed(self, error: CNIError, began: float) -> float:
        """Take note of what ended an attempt; return the pause until the next one."""
        now = time.monotonic()
        self.failure = error
        newly_expired = False
        if _reason(error) == "expired" and self._version not in ("", ANY):
            newly_expired, self._expired = self._version != self._expired, self._version
        if not _resumable(error, accepted=self._accepted is not None):
            self._version = ""
        if newly_expired:
            self._log.info("watch restarted with a list", resource=self._source.name, error=error.msg)
        elif error.msg != self._logged:  # else the log would hold little else during an outage
            self._log.warning("watch failed: using the last known state", resource=self._source.name, error=str(error))
            self._logged = error.msg
        at_once = self._trouble is None and self._accepted is not None
        self._trouble = now if self._trouble is None else self._trouble
        asked_for = (isinstance(error, StatusError) and error.retry_after) or 0.0
        if (at_once or newly_expired) and not asked_for:
            return 0.0
        pause = max(self._pace.shortest, min(self._pace.longest, (now - self._trouble) / self._pace.share)) * self._random.uniform(0.5, 1)
        # Time that a silent server has cost counts already: it is to be noticed soon when it speaks again.
        spent = now - began if self._accepted is None else 0.0
        return max(0.0, pause - spent) + min(self._pace.longest, asked_for)

    def _settled(self) -> None:
        if self._trouble is not None:
            after = round(time.monotonic() - self._trouble, 1)
            self._log.info("watch recovered", resource=self._source.name, after_seconds=after)
        self._trouble, self._logged = None, ""


class _StalledError(CNIError):
    """Nothing has come for too long."""

    def __init__(self, problem: str) -> None:
        super().__init__(TRY_AGAIN_LATER, problem, "does something between drop long connections?")


def _resumable(error: CNIError, *, accepted: bool) -> bool:
    """Tell whether a watch may go on from the version that is known. With 504 the API server says that it is not there yet."""
    if isinstance(error, StatusError) and (accepted or error.status in (HTTPStatus.GONE, HTTPStatus.GATEWAY_TIMEOUT)):
        return False
    if error.code == TRY_AGAIN_LATER and not isinstance(error, StatusError) and not accepted:
        return False
    return error.code in RESUMABLE and not isinstance(error, (GarbledError, _StalledError))


def _reason(error: CNIError) -> str:
    if isinstance(error, StatusError) and error.status == HTTPStatus.GONE:
        return "expired"
    return "stalled" if isinstance(error, _StalledError) else "error"
