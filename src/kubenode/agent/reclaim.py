# SPDX-License-Identifier: Apache-2.0
"""Reclaiming of leaks: addresses of pods that are gone, but got no DEL.

One piece of evidence is never enough. The record must name network namespace and pod; the namespace's path must be gone, in a directory
that we can see, for the whole grace period; and the API server must say that the pod is gone, too. In doubt, an address stays reserved.
"""

from __future__ import annotations

import os
import re
import time
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kubenode.agent.networks import Key
from kubenode.agent.podlookup import PodLookup
from kubenode.cni.errors import FORBIDDEN, CNIError
from kubenode.cni.request import is_name
from kubenode.host.attachments import Attachments, Record
from kubenode.host.namespaces import Namespaces
from kubenode.ipam import allocator

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from kubenode.agent.host import Stores
    from kubenode.agent.podlookup import Pods
    from kubenode.base.log import Log
    from kubenode.base.workers import Round
    from kubenode.host.root import HostRoot
    from kubenode.ipam.store import Attachment

    class ReclaimObserver(Protocol):
        def reclaimed(self, network: str, count: int) -> None:
            """Count released leaks."""

        def may_ask(self, *, allowed: bool) -> None:
            """Note whether we have the right to get pods."""

        def suspected(self, counts: dict[str, int]) -> None:
            """Note the current number of suspects of each network."""


GRACE = 60.0  # seconds for which a network namespace must be gone
FRESH = 60.0  # seconds for which the answer about a pod is valid, as the store's lock may be held
OURS = "host-local"  # the plugin whose files we release, too: the embedded allocator writes the same ones
POD_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # RFC 1123; no pod can have another name


class Mode(Enum):
    """Treatment of leaks."""

    ON = "on"
    REPORT = "report"
    OFF = "off"


class Attached(NamedTuple):
    """Attachment with its record."""

    network: str
    attachment: Attachment
    record: Record

    @property
    def key(self) -> tuple[str, Attachment, str]:
        """Identity of the attachment: network, attachment, network namespace."""
        return self.network, self.attachment, self.netns

    @property
    def place(self) -> Key:
        """Place of its reservations."""
        return Key(self.network, self.record.data_dir)

    @property
    def netns(self) -> str:
        """Path of its network namespace."""
        return self.record.netns

    @property
    def pod(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.record.pod_namespace, self.record.pod_name

    def told(self) -> dict[str, Any]:
        """Return the fields for a log line."""
        ids = {"network": self.network, "containerID": self.attachment.container_id, "ifname": self.attachment.ifname}
        pod = {"pod": "/".join(self.pod)} if all(self.pod) else {}
        return {**ids, **pod, "netns": self.netns}


class Reclaimer:
    """Searches for leaks, one pass at a time. `connect` opens a connection to the API server; None: there is none."""

    def __init__(
        self,
        root: HostRoot,
        run_dir: str,
        stores: Stores,
        ask: Round,
        connect: Callable[[], Pods] | None,
        log: Log,
        observer: ReclaimObserver,
        mode: Mode = Mode.ON,
        grace: float = GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._run_dir = run_dir
        self._stores = stores
        self._ask = ask
        self._connect = connect
        self._log = log
        self._observer = observer
        self._mode = mode
        self._grace = grace
        self._clock = clock
        self._suspects: dict[tuple[str, Attachment, str], Attached] = {}
        self._since: dict[tuple[str, Attachment, str], float] = {}  # when its namespace was first missing
        self._asked: dict[tuple[str, Attachment, str], float] = {}
        self._said: dict[tuple[str, Attachment, str], str] = {}
        self._complaint = ""

    def look(self, attached: Iterable[Attached]) -> None:
        """Suspect all attachments whose network namespace is gone."""
        namespaces = Namespaces(self._root)
        now = self._clock()
        suspects = {one.key: one for one in attached if namespaces.is_gone(one.netns)}
        self._since = {key: self._since.get(key, now) for key in suspects}
        self._asked = {key: when for key, when in list(self._asked.items()) if key in suspects}
        self._said = {key: why for key, why in list(self._said.items()) if key in suspects}
        self._suspects = suspects

    def suspected(self) -> int:
        """Return the number of suspects. Safe from any thread."""
        return len(self._suspects)

    def judge(self) -> list[Attached]:
        """Release suspects that are certainly leaks. Return the others."""
        now = self._clock()
        # Copies, here and below: the thread of a network that was busy before may remove suspects at any moment.
        ripe = [one for key, one in list(self._suspects.items()) if now - self._since[key] >= self._grace and self._is_ours(one)]
        reserved = [one for some in self._in_turn("reserved", self._reserved, ripe) for one in some]
        leaked = self._without_pod(reserved)
        if self._mode is Mode.ON:
            self._in_turn("release", partial(self._release, asked=self._clock()), leaked)
        for one in leaked if self._mode is not Mode.ON else ():
            self._say(one, "not released because of --reclaim=report")
        left = list(self._suspects.values())
        counts: dict[str, int] = {}
        for one in left:
            counts[one.network] = counts.get(one.network, 0) + 1
        self._observer.suspected(counts)
        return left

    def _is_ours(self, one: Attached) -> bool:
        """Say whether we may release its addresses."""
        given_by = one.record.given_by
        if given_by != OURS:
            self._say(one, f"{given_by} reserved its address and must release it" if given_by else "its record is not complete")
        return given_by == OURS and is_name(one.network)

    def _in_turn(self, what: str, do: Callable[[list[Attached]], list[Attached]], attached: Iterable[Attached]) -> Iterable[list[Attached]]:
        """Call `do` with each network's attachments, on the network's thread. A busy network is skipped."""
        by_place: dict[Key, list[Attached]] = {}
        for one in attached:
            by_place.setdefault(one.place, []).append(one)
        return self._ask.gather({place: partial(do, some) for place, some in by_place.items()}, what).values()

    def _reserved(self, attached: list[Attached]) -> list[Attached]:
        """Return the attachments that have addresses. For the others ADD failed, or something released them."""
        have: list[Attached] = []
        for one in attached:
            try:
                store = self._stores.get(one.place.data_dir, one.network)
                is_reserved = False
                if os.path.isdir(store.directory):
                    with store.lock():
                        is_reserved = bool(allocator.find(store, one.attachment))
            except (CNIError, OSError) as error:
                self._say(one, str(error))
                continue
            if is_reserved:
                have.append(one)
            elif self._mode is Mode.ON:
                self._forget(one)
            else:
                self._suspects.pop(one.key, None)
        return have

    def _without_pod(self, attached: Collection[Attached]) -> list[Attached]:
        """Return the attachments whose pod is gone at the API server."""
        askable = sorted(filter(self._can_be_asked, attached), key=lambda one: self._asked.get(one.key, 0.0))
        if not askable or self._connect is None:
            return []
        gone: list[Attached] = []
        lookup = None
        problem: CNIError | None = None
        try:
            lookup = PodLookup(self._connect())
            for one in askable:
                if lookup.is_over():
                    break
                self._asked[one.key] = self._clock()
                if (is_gone := lookup.is_gone(*one.pod, one.record.pod_uid)) is None:
                    continue
                if is_gone:
                    gone.append(one)
                else:
                    self._say(one, "its pod still exists")
            problem = lookup.forbidden
        except CNIError as error:
            problem = error
        finally:
            if lookup:
                lookup.pods.close()
        self._complain(problem)
        return gone

    def _can_be_asked(self, one: Attached) -> bool:
        if self._connect is None:
            self._say(one, "there is no API server to ask for its pod")
            return False
        if not all(POD_NAME.fullmatch(name) for name in one.pod):
            self._say(one, "its record names no pod")
            return False
        return True

    def _release(self, leaked: list[Attached], asked: float) -> list[Attached]:
        done: list[Attached] = []
        for one in leaked:
            try:
                store = self._stores.get(one.place.data_dir, one.network)
                with store.lock():  # a concurrent ADD comes after us
                    is_certain = self._is_still(one) and self._clock() - asked <= FRESH
                    released = allocator.release(store, one.attachment) if is_certain else []
            except (CNIError, OSError) as error:
                self._say(one, str(error))
                continue
            if not is_certain:
                self._say(one, "its record has changed")
                continue
            self._forget(one)
            self._log.warning("leaked addresses released", ips=[entry.name for entry in released], **one.told())
            self._observer.reclaimed(one.network, len(released))
            done.append(one)
        return done

    def _is_still(self, one: Attached) -> bool:
        return Namespaces(self._root).is_gone(one.netns) and Attachments(self._run_dir, one.network).read(one.attachment) == one.record

    def _forget(self, one: Attached) -> None:
        if self._is_still(one):
            Attachments(self._run_dir, one.network).remove(one.attachment)
        self._suspects.pop(one.key, None)

    def _say(self, one: Attached, why: str) -> None:
        """Log once for each reason that an attachment is suspected and why it stays."""
        if self._said.get(one.key) != why:
            self._said[one.key] = why
            self._log.warning("suspected leak: the network namespace is gone", why_it_stays=why, **one.told())

    def _complain(self, problem: CNIError | None) -> None:
        """Log once why pods cannot be checked. A missing right is the same for each pod, and may be intended."""
        is_forbidden = problem is not None and problem.code == FORBIDDEN
        self._observer.may_ask(allowed=not is_forbidden)
        complaint = "forbidden" if is_forbidden else str(problem or "")
        if problem and complaint != self._complaint:
            self._log.warning("cannot ask the API server for pods: suspected leaks stay reserved", error=str(problem))
        self._complaint = complaint
