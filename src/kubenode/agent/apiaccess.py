# SPDX-License-Identifier: Apache-2.0
"""Access to the API server for the agent: its kubeconfig, every request counted. HTTP is imported only when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.host import identity
from kubenode.kube.loadingrules import AGENTS
from kubenode.nodes import node
from kubenode.plugins import standalone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.agent.metrics import AgentMetrics
    from kubenode.agent.ownnode import OwnNode
    from kubenode.agent.pods import ApiPods
    from kubenode.base.log import Log
    from kubenode.host.root import HostRoot
    from kubenode.kube.asyncclient import Cluster
    from kubenode.nodes.node import Node

API_TIMEOUT = 10.0  # seconds until an answer, or until a watch must be accepted


class ApiAccess:
    """Creates clients of the API server, which blocks, and finds our Node there. Raises CNIError."""

    def __init__(self, kubeconfig: str, environ: Mapping[str, str], own: OwnNode, root: HostRoot, metrics: AgentMetrics, log: Log) -> None:
        self._kubeconfig = kubeconfig
        self._environ = environ
        self._own = own
        self._root = root
        self._metrics = metrics
        self._log = log

    def node(self) -> Node:
        """Return our Node, by one GET within a limited time."""
        found = standalone.fetch(
            self._kubeconfig,
            self._environ,
            guesses=self._own.guesses(),
            machine_id=identity.host_machine_id(self._root),
            complain=self._log.error,
            option=AGENTS,
        )
        return node.parse(found, node.ANSWER)

    def cluster(self) -> Cluster:
        """Return an asyncio client."""
        from kubenode.kube.asyncclient import Cluster

        def count(verb: str, _: str, result: str) -> None:
            self._metrics.requested(verb, result)

        return Cluster(self._kubeconfig or None, self._environ, API_TIMEOUT, count, option=AGENTS)

    def pods(self) -> ApiPods:
        """Return a client for pods."""
        from kubenode.agent.pods import ApiPods

        return ApiPods(self._kubeconfig, self._environ, lambda: self._own.node.name if self._own.node else "", self._metrics)
