"""The host as a plugin meets it that the runtime has started: everything is where its path says, and nothing is known beforehand."""

from __future__ import annotations

import os

from kubenode.host.attachments import Attachments
from kubenode.host.boot import Boot
from kubenode.host.datadir import DiskStore, wait_for
from kubenode.host.sources import Sources
from kubenode.plugins import nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from kubenode.base.log import Log
    from kubenode.host.permitted import Permitted
    from kubenode.nodes.node import Node

    T = TypeVar("T")


class Standalone:
    """A `skel.Host` without an agent. `wait`: how a network's lock is waited for, as in `DiskStore`."""

    execs = True

    def __init__(self, environ: Mapping[str, str], wait: Callable[[int, str], bool] = wait_for) -> None:
        self._environ = environ
        self._wait = wait
        self._permitted: Permitted | None = None

    @property
    def permitted(self) -> Permitted:
        from kubenode.host.permitted import Permitted  # only configurations that name something on the host need it
        from kubenode.host.root import HostRoot

        if self._permitted is None:
            self._permitted = Permitted(HostRoot(), self._environ)
        return self._permitted

    def path(self, path: str) -> str:
        return path

    def store(self, data_dir: str, network: str) -> DiskStore:
        return DiskStore(data_dir, network, Boot(nodes.run_dir(self._environ)), self._wait)

    def attachments(self, network: str) -> Attachments:
        return Attachments(nodes.run_dir(self._environ), network)

    def sources(self) -> Sources:
        return Sources(nodes.run_dir(self._environ))

    def may_have(self, netns: str) -> bool:
        return netns.startswith("/") and os.path.lexists(netns)

    def node(self, options: nodes.NodeOptions, choose: Callable[[Node], T], log: Log) -> T:
        return nodes.select(options, choose, self._environ, log)
