# SPDX-License-Identifier: Apache-2.0
"""Search for deleted pods at the API server, limited in number and time to spare it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from kubenode.cni.errors import FORBIDDEN, CNIError

if TYPE_CHECKING:

    class Pods(Protocol):
        def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
            """Return a pod; None if the API server says that it does not exist. Raises CNIError without an answer."""

        def on_node(self) -> dict[tuple[str, str], dict[str, Any]]:
            """Return all pods of this node, by namespace and name. Raises CNIError, also without the right."""

        def close(self) -> None: ...


QUESTIONS = 100  # requests for pods in one pass
ASKING = 30.0  # seconds for the requests of one pass
MIRROR = "kubernetes.io/config.mirror"  # annotation of a mirror pod: the UID that runtimes see for its static pod


class PodLookup:
    """Answers of the API server in one pass; each pod is requested only once."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self.forbidden: CNIError | None = None
        self._refused: set[str] = set()  # namespaces without the right; others may allow it
        self._on_node: dict[tuple[str, str], dict[str, Any]] | None = None  # all pods of this node, if only those are allowed
        self._said: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._end = time.monotonic() + ASKING

    def is_over(self) -> bool:
        """Say whether the pass has used up its requests or time."""
        return len(self._said) + len(self._refused) >= QUESTIONS or time.monotonic() > self._end

    def is_gone(self, namespace: str, name: str, uid: str) -> bool | None:
        """Say whether a pod is gone; None without the right. Raises CNIError without an answer."""
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
        """Say whether a forbidden pod is missing among the node's: a kubelet gets 403 instead of 404 for a pod that is gone."""
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
    """Say whether a pod has another UID; without a UID to compare, the same name counts as the same pod."""
    if found is None:
        return True
    metadata = found.get("metadata") or {}
    uids = {metadata.get("uid"), (metadata.get("annotations") or {}).get(MIRROR)} - {None, ""}
    return bool(uid and uids) and uid not in uids
