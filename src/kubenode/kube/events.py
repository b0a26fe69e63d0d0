"""Events at the API server: what `kubectl describe` is to show of an object without a namespace."""

from __future__ import annotations

import hashlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from kubenode.kube.asyncclient import Cluster

EVENTS = "/api/v1/namespaces/default/events"  # where those about objects without a namespace are
LONGEST_NAME = 253  # characters of an object's name (RFC 1123)
LONGEST_MESSAGE = 1024  # bytes that the API server takes


class About(NamedTuple):
    """The object that an Event is about."""

    api_version: str
    kind: str
    name: str
    uid: str


class EventRecorder:
    """Makes Events in a component's name."""

    def __init__(self, cluster: Cluster, component: str) -> None:
        self._cluster = cluster
        self._component = component

    async def warn(self, about: About, reason: str, message: str, count: int = 1) -> bool:
        """Make an Event, and say so; say no where the same one is there. They last an hour, or as long as the API server keeps them.

        Raises CNIError.
        """
        now = _now()
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": _name(about, reason, message), "namespace": "default"},
            "involvedObject": {"apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid},
            "reason": reason,
            "message": message.encode()[:LONGEST_MESSAGE].decode(errors="ignore"),
            "type": "Warning",
            "count": count,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component},
        }
        try:
            await self._cluster.create(EVENTS, event)
        except StatusError as refused:
            if refused.status != HTTPStatus.CONFLICT:
                raise
            return False
        return True

    async def repeat(self, about: About, reason: str, message: str, count: int) -> None:
        """Say of an Event that is there that it happened again, so many times in all. Raises CNIError."""
        path = f"{EVENTS}/{_name(about, reason, message)}"
        await self._cluster.merge(path, {"count": count, "lastTimestamp": _now()})


def _name(about: About, reason: str, message: str) -> str:
    """Return the name of an Event, which the same one has again, whoever makes it."""
    mark = hashlib.sha256(f"{about.uid}\0{reason}\0{message}".encode()).hexdigest()[:16]
    return f"{about.name[: LONGEST_NAME - len(mark) - 1].rstrip('.-')}.{mark}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
