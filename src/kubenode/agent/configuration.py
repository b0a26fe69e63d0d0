# SPDX-License-Identifier: Apache-2.0
"""The runtime's network configurations for the agent: those that wait for it, and the subnets that they need from the Node."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from kubenode.base import files
from kubenode.cni.errors import CNIError
from kubenode.host import cniconfig
from kubenode.installer import held
from kubenode.nodes import node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from kubenode.base.log import Log
    from kubenode.nodes.node import Node

TYPES = ("kube-node",)
LOOK, FIRST_LOOK = 2.0, 0.25  # seconds; the second while not ready, as a new node's first pods wait
PATIENCE = 5.0  # seconds of not being ready, which is normal at the start, before a log line


class Configuration:
    """The runtime's configuration directory. `problem` says why a waiting configuration cannot be renamed, "" without a problem."""

    def __init__(self, directory: str, log: Log) -> None:
        self.problem = ""
        self._directory = directory
        self._log = log
        self._takes_pod_cidrs: bool | None = None  # None: not read yet

    def start(self, served: Callable[[], Node | None], unready: Callable[[], str]) -> None:
        """Regularly rename waiting configurations, until the process ends. `served` returns the Node while calls are served."""
        threading.Thread(target=self._work, args=(served, unready), daemon=True, name="configuration").start()

    def _work(self, served: Callable[[], Node | None], unready: Callable[[], str]) -> None:
        why, since = "", 0.0
        while True:
            before = why
            try:
                self.look()
                if own := served():
                    self.let_go(own)
                why = unready()
            except Exception as error:  # noqa: BLE001 -- calls must still be served
                self._log.error("internal error around network configurations", error=repr(error))
            if why != before:
                since = time.monotonic()
            elif why and time.monotonic() - since > PATIENCE:
                self._log.warning("not ready: pods get no addresses", why=why)
                since = float("inf")
            time.sleep(FIRST_LOOK if why else LOOK)

    def look(self) -> None:
        """Check whether a network takes its subnets from the Node's podCIDRs."""
        waiting = (conf for path in held.waiting(self._directory) for conf in _held(path))
        self._takes_pod_cidrs = any(map(_takes_pod_cidrs, [*cniconfig.netconfs(self._directory, TYPES), *waiting]))

    def lacks(self, own: Node) -> str:
        """Return what the Node lacks so that every ADD of a network would fail, "" if it is complete."""
        if self._takes_pod_cidrs is None:
            return "the network configurations are not read yet"
        return _without_pod_cidrs(own) if self._takes_pod_cidrs else ""

    def let_go(self, own: Node) -> None:
        """Rename waiting configurations for the runtime, except those whose pods would get no address."""
        before, self.problem = self.problem, ""
        for path in held.waiting(self._directory):
            place = path.removesuffix(held.SUFFIX)
            if any(map(_takes_pod_cidrs, _held(path))) and _without_pod_cidrs(own):
                continue
            try:
                if held.let_go(path):
                    self._log.info("network configuration written", path=place)
                else:
                    self._log.warning("network configuration exists: not changed", path=place)
            except OSError as error:
                self.problem = f"the network configuration {place} cannot be renamed: {error.strerror}"
                if self.problem != before:
                    self._log.error(
                        self.problem,
                        details="mount it writable for the agent, as deploy/components/bridge does; in a unit, ReadWritePaths=",
                    )


def _held(path: str) -> Iterator[dict[str, Any]]:
    """Yield the configuration of each of our plugins in a waiting file."""
    try:
        networks = cniconfig.parse(path.removesuffix(held.SUFFIX), files.read_regular(path))
    except (OSError, cniconfig.RefusedError):
        return
    for network in networks:
        yield from network.netconfs(TYPES)


def _takes_pod_cidrs(conf: dict[str, Any]) -> bool:
    return not conf["ipam"].get("annotation") and not conf["ipam"].get("nodeFile")


def _without_pod_cidrs(own: Node) -> str:
    try:
        node.pod_subnets(own)
    except CNIError as error:
        return str(error)
    return ""
