"""Which pods are gone, by the API server: within limits of number and time, as it has more to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from kubenode.cni.errors import FORBIDDEN, CNIError

if TYPE_CHECKING:

    class Pods(Protocol):
        def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
            """Return a pod; None where the API server says that there is none. Raises CNIError where it does not say."""

        def on_node(self) -> dict[tuple[str, str], dict[str, Any]]:
            """Return all pods of this node, by namespace and name. Raises CNIError, also where we may not know."""

        def close(self) -> None: ...


QUESTIONS = 100  # pods that one pass asks for
ASKING = 30.0  # seconds that one pass may ask
MIRROR = "kubernetes.io/config.mirror"  # the UID of a static pod, which runtimes are told, on the pod that stands for it


class PodLookup:
    """Answers of the API server in one pass; no pod is asked for twice."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self.forbidden: CNIError | None = None
        self._refused: set[str] = set()  # namespaces; in others we may have the right
        self._on_node: dict[tuple[str, str], dict[str, Any]] | None = None  # where we may have all pods of this node, and not each
        self._said: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._end = time.monotonic() + ASKING

    def is_over(self) -> bool:
        return len(self._said) + len(self._refused) >= QUESTIONS or time.monotonic() > self._end

    def is_gone(self, namespace: str, name: str, uid: str) -> bool | None:
        """Say whether a pod is gone; None where we may not know. Raises CNIError where the API server does not say."""
        if self._on_node is not None:
            return _is_another(self._on_node.get((namespace, name)), uid)
        if namespace in self._refused:
            return None
        if (namespace, name) not in self._said:
            try:
                self._said[namespace, name] = self.pods.pod(namespace, name)
            except CNIError as error:
                if error.code != FORBIDDEN:
                    raise
                return self._is_missing(namespace, name, uid, error)
        return _is_another(self._said[namespace, name], uid)

    def _is_missing(self, namespace: str, name: str, uid: str, error: CNIError) -> bool | None:
        """Say whether a pod that we may not get is missing among the node's: to a kubelet a pod that is gone is forbidden, and no 404."""
        try:
            if not self._refused:
                self._on_node = self.pods.on_node()
                return self.is_gone(namespace, name, uid)
        except CNIError as refused:
            if refused.code != FORBIDDEN:
                raise
        self.forbidden = error
        self._refused.add(namespace)
        return None


def _is_another(found: dict[str, Any] | None, uid: str) -> bool:
    """Say whether a pod is not the one with this UID; one of the same name without a UID to compare counts as the same."""
    if found is None:
        return True
    metadata = found.get("metadata") or {}
    uids = {metadata.get("uid"), (metadata.get("annotations") or {}).get(MIRROR)} - {None, ""}
    return bool(uid and uids) and uid not in uids
