"""Which pods are gone, by the API server: within limits of number and time, as it has more to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from kubenode.cni.errors import FORBIDDEN, CNIError

if TYPE_CHECKING:

    class Pods(Protocol):
        def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
            """Return a pod; None where the API server says that there is none. Raises CNIError where it does not say."""

        def close(self) -> None: ...


QUESTIONS = 100  # pods that one pass asks for
ASKING = 30.0  # seconds that one pass may ask
MIRROR = "kubernetes.io/config.mirror"  # the UID of a static pod, which runtimes are told, on the pod that stands for it


class Inquiry:
    """What the API server says in one pass; no pod is asked for twice."""

    def __init__(self, pods: Pods) -> None:
        self.pods = pods
        self.forbidden: CNIError | None = None
        self._refused: set[str] = set()  # namespaces; in others we may have the right
        self._said: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._end = time.monotonic() + ASKING

    def is_over(self) -> bool:
        return len(self._said) + len(self._refused) >= QUESTIONS or time.monotonic() > self._end

    def is_gone(self, namespace: str, name: str, uid: str) -> bool | None:
        """Say whether a pod is gone; None where we may not know. Raises CNIError where the API server does not say."""
        if namespace in self._refused:
            return None
        if (namespace, name) not in self._said:
            try:
                self._said[namespace, name] = self.pods.pod(namespace, name)
            except CNIError as error:
                if error.code != FORBIDDEN:
                    raise
                self.forbidden = error
                self._refused.add(namespace)
                return None
        return _is_another(self._said[namespace, name], uid)


def _is_another(found: dict[str, Any] | None, uid: str) -> bool:
    """Say whether a pod is not the one with this UID; one of the same name without a UID to compare counts as the same."""
    if found is None:
        return True
    metadata = found.get("metadata") or {}
    uids = {metadata.get("uid"), (metadata.get("annotations") or {}).get(MIRROR)} - {None, ""}
    return bool(uid and uids) and uid not in uids
