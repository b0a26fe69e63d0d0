"""The API server, asked for pods: each answer comes in time or is an error, and is counted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from kubenode.kube.client import ApiServer, within
from kubenode.kube.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    class Observer(Protocol):
        def requested(self, verb: str, result: str) -> None:
            """Take note of a request to the API server."""


T = TypeVar("T")
TIMEOUT = 10.0  # seconds for one answer
SINGLE_WAIT = 0.8  # of these for each wait, so that a credential plugin that hangs ends before us


class ApiPods:
    """A connection to the API server that a kubeconfig names. Raises CNIError where there is none."""

    def __init__(self, kubeconfig: str, environ: Mapping[str, str], observer: Observer) -> None:
        self._observer = observer
        self._server = self._counted(lambda: ApiServer(kubeconfig or None, environ, TIMEOUT * SINGLE_WAIT))

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a pod; None where the API server says that there is none. Raises CNIError where it does not say."""
        found = self._counted(partial(self._server.pod, namespace, name))
        self._observer.requested("get", "200" if found else "404")
        return found

    def close(self) -> None:
        self._server.close()

    def _counted(self, ask: Callable[[], T]) -> T:
        try:
            return within(TIMEOUT, ask)
        except RefusedError as refused:
            self._observer.requested("get", str(refused.status))
            raise
        except Exception:
            self._observer.requested("get", "error")
            raise
