# SPDX-License-Identifier: Apache-2.0
"""A watch of the own Node that runs in a thread of its own, and what it has published."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from patience import PATIENCE

from kubenode.agent.watch import OwnNodeSource
from kubenode.base.log import Log
from kubenode.cni.errors import NODE_NOT_FOUND, CNIError
from kubenode.kube.asyncclient import Cluster
from kubenode.kube.client import ApiServer, within
from kubenode.kube.reflector import PACE, Pace, Reflector
from kubenode.nodes import node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kubenode.nodes.node import Node


class Published(NamedTuple):
    at: float
    node: Node | None


class Counts:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.restarts: list[str] = []

    def requested(self, verb: str, result: str) -> None:
        self.requests.append((verb, result))

    def restarted(self, reason: str) -> None:
        self.restarts.append(reason)


def finder(kubeconfig: Path, name: str, timeout: float = 5) -> Callable[[], Node]:
    """Return a function that GETs a Node by its name, as `plugins.nodes.fetch` does."""

    def find() -> Node:
        def ask() -> dict[str, Any] | None:
            server = ApiServer(str(kubeconfig), {}, timeout * 0.8)
            try:
                return server.node(name)
            finally:
                server.close()

        manifest = within(timeout, ask)
        if manifest is None:
            raise CNIError(NODE_NOT_FOUND, f"there is no Node {name}")
        return node.parse(manifest, node.ANSWER)

    return find


class RunningWatch:
    """Within its `with` block the Node `name` is watched."""

    def __init__(
        self, kubeconfig: Path, name: str, log_path: Path | None = None, pace: Pace = PACE, timeout: float = 5, find: Any = None
    ) -> None:
        self.published: list[Published] = []
        self.counts = Counts()
        self.stop_seconds = 0.0
        log = Log("agent")
        log.configure(str(log_path or kubeconfig.with_suffix(".log")), "debug")
        self.source = OwnNodeSource(
            find or finder(kubeconfig, name, timeout),
            lambda: Cluster(str(kubeconfig), {}, timeout, lambda verb, _, result: self.counts.requested(verb, result)),
            lambda own: self.published.append(Published(time.monotonic(), own)),
            log,
            self.counts.requested,
        )
        self.watch = Reflector(self.source, log, self.counts.restarted, pace)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._task is not None
        began = time.monotonic()
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self.stop_seconds = time.monotonic() - began

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self.watch.run())
        self._started.set()
        try:
            await self._task
        except asyncio.CancelledError:
            return
        raise AssertionError("a watch never ends by itself")

    @property
    def last(self) -> Node | None:
        return self.published[-1].node if self.published else None

    def annotation(self, key: str) -> str | None:
        return None if self.last is None else self.last.annotations.get(key)

    def until(self, condition: Callable[[], object]) -> float:
        """Wait for something; return how long it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < PATIENCE, (self.watch.failure, self.published[-3:], self.counts.__dict__)
            time.sleep(0.005)
        return time.monotonic() - began

    def until_watching(self) -> None:
        self.until(lambda: self.watch.failure is None)
