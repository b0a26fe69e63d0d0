# SPDX-License-Identifier: Apache-2.0
"""Client for pods: every answer comes in time or is an error, and is counted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from kubenode.cni.errors import FORBIDDEN, CNIError
from kubenode.kube.client import ApiServer, within
from kubenode.kube.loadingrules import AGENTS
from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    class RequestObserver(Protocol):
        def requested(self, verb: str, result: str) -> None:
            """Count a request to the API server."""


T = TypeVar("T")
TIMEOUT = 10.0  # seconds for one answer
SINGLE_WAIT = 0.8  # share of that for each single wait, so that a hanging credential plugin ends before us


class ApiPods:
    """Connection to the API server of a kubeconfig. Raises CNIError without one.

    `node` returns our Node's name, "" while unknown.
    """

    def __init__(self, kubeconfig: str, environ: Mapping[str, str], node: Callable[[], str], observer: RequestObserver) -> None:
        self._node = node
        self._observer = observer
        self._server = self._counted("get", lambda: ApiServer(kubeconfig or None, environ, TIMEOUT * SINGLE_WAIT, option=AGENTS))

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a pod; None if the API server says that it does not exist. Raises CNIError without an answer."""
        found = self._counted("get", partial(self._server.pod, namespace, name))
        self._observer.requested("get", "200" if found else "404")
        return found

    def on_node(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return all pods of our Node, by namespace and name. Raises CNIError, also while the Node is unknown."""
        name = self._node()
        if not name:
            raise CNIError(FORBIDDEN, "the agent does not know its Node, so it cannot ask for the Node's pods")
        found = self._counted("list", partial(self._server.pods_on, name))
        self._observer.requested("list", "200")
        return {(str(one["metadata"]["namespace"]), str(one["metadata"]["name"])): one for one in found}

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def _counted(self, verb: str, ask: Callable[[], T]) -> T:
        try:
            return within(TIMEOUT, ask)
        except StatusError as refused:
            self._observer.requested(verb, str(refused.status))
            raise
        except Exception:
            self._observer.requested(verb, "error")
            raise
