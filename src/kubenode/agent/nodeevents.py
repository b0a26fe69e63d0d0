"""Events about our Node: why its pods get no addresses, for who looks there first. No call waits for them.

The same thing is told once an hour, with how often it has happened; and no more than `MOST` different ones within an hour.
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
}  # of failed ADDs, by their code
LOOK = 5.0  # seconds between looks for what is to be told
HOUR = 3600.0  # seconds
MOST = 20  # different things


class Thing(NamedTuple):
    """Something that is wrong, in an Event's words."""

    reason: str
    message: str


class Pace(NamedTuple):
    """The pace of telling, in seconds."""

    look: float = LOOK
    again: float = HOUR


PACE = Pace()


class NodeEvents:
    """Takes note of failed calls, as an observer of the server, and tells of them.

    `own` says our Node, `lacking` what it lacks now, "" for nothing; `connect` makes a client of the API server, and may block.
    """

    def __init__(
        self, own: Callable[[], Node | None], lacking: Callable[[], str], connect: Callable[[], Cluster], log: Log, pace: Pace = PACE
    ) -> None:
        self._own = own
        self._lacking = lacking
        self._connect = connect
        self._log = log
        self._pace = pace
        self._counts: dict[Thing, int] = {}  # since it was told last; changed by the threads of calls
        self._told: dict[Thing, tuple[float, int]] = {}  # when it was told last, and how often it had happened by then
        self._lacked = ""
        self._silent_until = 0.0
        self._problem = ""
        self._is_too_much = False

    def called(self, plugin: str, command: str, status: int, stdout: bytes, seconds: float) -> None:  # noqa: ARG002 -- the server's observer
        if status != 1 or command != "ADD":
            return
        try:
            said = loads(stdout)
            reason = REASONS.get(said["code"])
            message = f"{said['msg']}: {said['details']}" if said.get("details") else str(said["msg"])
        except (JSONTextError, TypeError, KeyError):
            return
        if reason:
            self._note(Thing(reason, message))

    async def run(self) -> None:
        """Tell what is to be told, until cancelled."""
        while True:
            await asyncio.sleep(self._pace.look)
            lacking = self._lacking()
            if lacking and lacking == self._lacked:  # a new Node has no podCIDRs for a moment
                self._note(Thing("NoSubnets", lacking))
            self._lacked = lacking
            if (due := self._due()) and (own := self._own()):
                try:
                    await self._tell(own, due)
                except CNIError as error:
                    self._failed(error)
                except Exception as error:  # noqa: BLE001 -- calls are served all the same
                    self._failed(CNIError(INTERNAL, f"internal error: {error!r}", "please report it"))

    def _note(self, thing: Thing) -> None:
        """Count it, without a lock: a number that is one too small does no harm."""
        if thing in self._counts or len(self._counts) < 2 * MOST:
            self._counts[thing] = self._counts.get(thing, 0) + 1

    def _due(self) -> list[Thing]:
        """Return what has happened and was not told within the hour."""
        now = time.monotonic()
        self._told = {thing: told for thing, told in self._told.items() if now - told[0] < 2 * self._pace.again}
        if now < self._silent_until:
            return []
        recent = sum(now - when < self._pace.again for when, _ in self._told.values())
        due = [thing for thing in list(self._counts) if thing not in self._told or now - self._told[thing][0] >= self._pace.again]
        if (is_too_much := recent + len(due) > MOST) and not self._is_too_much:
            self._log.warning("more goes wrong than Events tell: the log has all of it", most=MOST)
        self._is_too_much = is_too_much
        return due[: max(0, MOST - recent)]

    async def _tell(self, own: Node, things: list[Thing]) -> None:
        from kubenode.kube.events import About, EventRecorder  # brings HTTP, of no use while all is well

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
        """Say once that it cannot be told. A right that is missing is somebody's choice, and asked for again after an hour."""
        is_forbidden = error.code == FORBIDDEN
        self._silent_until = time.monotonic() + (self._pace.again if is_forbidden else 10 * self._pace.look)
        problem = "forbidden" if is_forbidden else error.msg
        if problem != self._problem:
            details = "add the component events (Helm: events), or leave it so: the log has it" if is_forbidden else error.details
            self._log.warning("cannot make Events about the Node", error=error.msg, details=details)
        self._problem = problem
