# SPDX-License-Identifier: Apache-2.0
"""Events about our Node with the reason why its pods get no addresses. No call waits for them.

The same Event is updated once an hour, with its count; at most `MOST` different ones are created within an hour.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.base.jsontext import JSONTextError, loads
from kubenode.cni.errors import ANNOTATION_INVALID, ANNOTATION_MISSING, FORBIDDEN, INTERNAL, RANGE_FULL, SOURCE_TAKEN, CNIError
from kubenode.kube.offloop import off_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster
    from kubenode.nodes.node import Node

REASONS = {
    RANGE_FULL: "AddressesExhausted",
    SOURCE_TAKEN: "SourceConflict",
    ANNOTATION_MISSING: "NoSubnets",
    ANNOTATION_INVALID: "NoSubnets",
}  # reasons for failed ADDs, by error code
LOOK = 5.0  # seconds between checks for new Events
HOUR = 3600.0  # seconds
MOST = 20  # different Events
LONGEST = 1024  # characters of a message; the API server takes no more, and a configuration may be long


class Thing(NamedTuple):
    """Reason and message of an Event."""

    reason: str
    message: str


class EventPace(NamedTuple):
    """Timing of Events, in seconds."""

    look: float = LOOK
    again: float = HOUR


PACE = EventPace()


class NodeEvents:
    """Observer of the server that reports failed calls.

    `own` returns our Node, `lacking` what it lacks now, "" for nothing; `connect` makes a client of the API server and may block.
    """

    def __init__(
        self, own: Callable[[], Node | None], lacking: Callable[[], str], connect: Callable[[], Cluster], log: Log, pace: EventPace = PACE
    ) -> None:
        self._own = own
        self._lacking = lacking
        self._connect = connect
        self._log = log
        self._pace = pace
        self._counts: dict[Thing, int] = {}  # since the last Event; changed by the threads of calls
        self._told: dict[Thing, tuple[float, int]] = {}  # time and count of the last Event
        self._lacked = ""
        self._silent_until = 0.0
        self._problem = ""
        self._is_too_much = False

    def called(self, plugin: str, command: str, status: int, stdout: bytes, seconds: float) -> None:  # noqa: ARG002 -- the server's observer
        """Note a failed ADD."""
        if status != 1 or command != "ADD":
            return
        try:
            said = loads(stdout)
            reason = REASONS.get(said["code"])
            message = f"{said['msg']}: {said['details']}" if said.get("details") else str(said["msg"])
        except (JSONTextError, TypeError, KeyError):
            return
        if reason:
            self._note(Thing(reason, message[:LONGEST]))

    async def run(self) -> None:
        """Create the Events, until cancelled."""
        while True:
            await asyncio.sleep(self._pace.look)
            lacking = self._lacking()
            if lacking and lacking == self._lacked:  # not at once: a new Node lacks podCIDRs for a moment
                self._note(Thing("NoSubnets", lacking))
            self._lacked = lacking
            if (due := self._due()) and (own := self._own()):
                try:
                    await self._tell(own, due)
                except CNIError as error:
                    self._failed(error)
                except Exception as error:  # noqa: BLE001 -- calls must still be served
                    self._failed(CNIError(INTERNAL, f"internal error: {error!r}", "please report it"))

    def _note(self, thing: Thing) -> None:
        """Count an occurrence, without a lock: a count that is one too small does no harm."""
        if thing in self._counts or len(self._counts) < 2 * MOST:
            self._counts[thing] = self._counts.get(thing, 0) + 1

    def _due(self) -> list[Thing]:
        """Return the Events to create or update now."""
        now = time.monotonic()
        self._told = {thing: told for thing, told in self._told.items() if now - told[0] < 2 * self._pace.again}
        if now < self._silent_until:
            return []
        recent = sum(now - when < self._pace.again for when, _ in self._told.values())
        due = [thing for thing in list(self._counts) if thing not in self._told or now - self._told[thing][0] >= self._pace.again]
        if (is_too_much := recent + len(due) > MOST) and not self._is_too_much:
            self._log.warning("too many different Events: see the log for the others", most=MOST)
        self._is_too_much = is_too_much
        return due[: max(0, MOST - recent)]

    async def _tell(self, own: Node, things: list[Thing]) -> None:
        from kubenode.kube.events import About, EventRecorder  # loads HTTP, not needed without errors

        cluster = await off_loop(self._connect)
        try:
            recorder, about = EventRecorder(cluster, "kube-node-agent"), About("v1", "Node", own.name, own.uid)
            for thing in things:
                count = self._counts.get(thing, 0) + self._told.get(thing, (0.0, 0))[1]
                if not await recorder.warn(about, *thing, count):
                    await recorder.repeat(about, *thing, count)
                self._told[thing] = time.monotonic(), count
                self._counts.pop(thing, None)
        finally:
            await cluster.aclose()
        self._problem = ""

    def _failed(self, error: CNIError) -> None:
        """Log an error of creating Events once. After a missing right, which may be intended, the next try is in an hour."""
        is_forbidden = error.code == FORBIDDEN
        self._silent_until = time.monotonic() + (self._pace.again if is_forbidden else 10 * self._pace.look)
        problem = "forbidden" if is_forbidden else error.msg
        if problem != self._problem:
            details = "add the component events (Helm: events), or ignore this: the log has them, too" if is_forbidden else error.details
            self._log.warning("cannot create Events about the Node", error=error.msg, details=details)
        self._problem = problem
