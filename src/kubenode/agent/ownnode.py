# SPDX-License-Identifier: Apache-2.0
"""Our own Node in the agent's memory for its calls, and in the Node view for plugins that run without agent."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kubenode.agent.quarantine import LENGTH, Quarantine
from kubenode.base import files
from kubenode.cni.errors import NODE_INVALID, TRY_AGAIN_LATER, CNIError
from kubenode.host import identity
from kubenode.kube.offloop import off_loop
from kubenode.nodes import node

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.base.log import Log
    from kubenode.host.nodeview import NodeView
    from kubenode.nodes.node import Node

T = TypeVar("T")

REFRESH = 60.0  # seconds between updates of the view's time; a plugin without agent asks again after 300
FIRST_WAIT, FIRST_LOOK = 5.0, 0.02  # seconds that the first ADD waits for the Node
LOOK = 1.0  # seconds between checks of a manifest that a person may change


class OwnNode:
    """Knowledge about our Node. `why` returns why nothing newer is known, None if it is current."""

    def __init__(self, view: NodeView, log: Log) -> None:
        self.node: Node | None = None
        self.seen = 0.0  # time.time() of the last confirmation
        self.failure: CNIError | None = None
        self.why: Callable[[], CNIError | None] = lambda: self.failure
        self._view = view
        self._log = log
        self._current: Node | None = None  # the API server's; None after a deletion
        self._quarantine = Quarantine()
        self._changed = asyncio.Event()

    def choose(self, choose: Callable[[Node], T]) -> T:
        """Return the result of `choose` on the Node; just after the start, wait for one. Raises CNIError, also without a Node."""
        end = time.monotonic() + FIRST_WAIT
        while self.node is None and self.why() is None and time.monotonic() < end:
            time.sleep(FIRST_LOOK)
        if self.node is None:
            raise self.why() or CNIError(TRY_AGAIN_LATER, "the agent does not know its Node yet", "it has just started")
        return choose(self.node)

    def guesses(self) -> tuple[str, ...]:
        """Return our Node's name when it was last seen; it counts only with our machine-id."""
        return (self.node.name,) if self.node else ()

    def written(self) -> dict[str, str]:
        """Return the annotations in the view, by which plugins without agent go; {} if it cannot be read."""
        try:
            view = self._view.read()
        except (CNIError, OSError):
            return {}
        return view.node.annotations if view else {}

    def start_from_view(self) -> bool:
        """Start with the last seen Node. Return whether a person wrote it: then the agent follows that file, not the API server."""
        try:
            view = self._view.read()
            if view is None:
                return False
        except CNIError as error:  # the agent writes it by rename, so an invalid one comes from a person, who must correct it
            self._log.error("cannot use the Node view", error=str(error))
            return True
        self.node = view.node
        self.seen = time.time() - view.age()
        self._log.info("serving from the Node view until the API server answers", node=self.node.name, age=round(view.age()))
        return view.fetched is None

    def publish(self, own: Node | None) -> None:
        """Take the current Node; None: it was deleted, and its last state still serves."""
        self._current = own
        if own is not None:
            self.node = self._quarantine.take(own, self.node)
            if self.node is not own:
                self._log.warning("Node went back in time: no addresses of blocks that are new in it", node=own.name, seconds=LENGTH)
            self.seen = time.time()
        self._changed.set()

    async def keep_view(self) -> None:
        """Write the view after each change, and regularly while the Node is confirmed."""
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), REFRESH)
            except TimeoutError:
                if self._current is None or self.why() is not None:
                    continue
                self.seen = time.time()
            self._changed.clear()
            if self._current is not None:
                self.node = own = self._quarantine.look(self._current)
                try:
                    await off_loop(partial(self._view.put, own))
                    await off_loop(partial(identity.note_name, os.path.dirname(self._view.path), own.name, own.machine_id))
                except (CNIError, OSError) as error:
                    self._log.error("cannot write the Node view", error=str(error))

    async def follow_file(self, path: str, label: str) -> None:
        """Serve a manifest that a person writes, and read it after each change. It also becomes the view, unless it is that file."""
        read: tuple[int, int] | None = None
        while True:
            try:
                status = await off_loop(partial(os.stat, path))
                if (status.st_ino, status.st_mtime_ns) != read:
                    self.node = await off_loop(partial(_read, path, label))
                    if path != self._view.path:
                        self.publish(self.node)
                    read = (status.st_ino, status.st_mtime_ns)
                    self._log.info("Node manifest read", path=label, node=self.node.name)
                self.failure, self.seen = None, time.time()
            except CNIError as error:
                self._fail(error)
            except OSError as error:
                self._fail(CNIError(NODE_INVALID, f"{label}: {error.strerror}", "write a Node manifest there"))
            await asyncio.sleep(LOOK)

    def _fail(self, error: CNIError) -> None:
        if str(self.failure) != str(error):
            self._log.error("cannot use the Node manifest", error=str(error))
        self.failure = error


def _read(path: str, label: str) -> Node:
    return node.parse(node.decode(files.read(path), label), label)
