"""The host as a plugin meets it that the runtime has started: everything is where its path says, and nothing is known beforehand."""

from __future__ import annotations

import os

from kubenode.host.attachments import Attachments
from kubenode.host.datadir import DiskStore
from kubenode.plugins import nodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from kubenode.host.log import Log
    from kubenode.kube.node import Node

    T = TypeVar("T")


class Standalone:
    """A `skel.Host` without an agent."""

    execs = True

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def path(self, path: str) -> str:
        return path

    def store(self, data_dir: str, network: str) -> DiskStore:
        return DiskStore(data_dir, network)

    def attachments(self, network: str) -> Attachments:
        return Attachments(nodes.run_dir(self._environ), network)

    def may_have(self, netns: str) -> bool:
        return netns.startswith("/") and os.path.lexists(netns)

    def node(self, options: nodes.NodeOptions, choose: Callable[[Node], T], log: Log) -> T:
        return nodes.select(options, choose, self._environ, log)
