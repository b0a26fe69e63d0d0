# SPDX-License-Identifier: Apache-2.0
"""Events of the API server, for `kubectl describe`, about objects without a namespace."""

from __future__ import annotations

import hashlib
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from kubenode.kube.asyncclient import Cluster

EVENTS = "/api/v1/namespaces/default/events"  # the namespace of Events about objects without one
LONGEST_NAME = 253  # characters of an object's name (RFC 1123)
LONGEST_MESSAGE = 1024  # bytes that the API server accepts


class About(NamedTuple):
    """Object of an Event."""

    api_version: str
    kind: str
    name: str
    uid: str


class EventRecorder:
    """Creates Events in a component's name."""

    def __init__(self, cluster: Cluster, component: str) -> None:
        self._cluster = cluster
        self._component = component

    async def warn(self, about: About, reason: str, message: str, count: int = 1) -> bool:
        """Create an Event; False if the same one exists. Events last an hour, or as long as the API server keeps them.

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
        """Update an existing Event: it happened again, `count` times in total. Raises CNIError."""
        path = f"{EVENTS}/{_name(about, reason, message)}"
        await self._cluster.merge(path, {"count": count, "lastTimestamp": _now()})


def _name(about: About, reason: str, message: str) -> str:
    """Return an Event's name, which depends on its content only: the same Event gets the same name from any program."""
    mark = hashlib.sha256(f"{about.uid}\0{reason}\0{message}".encode()).hexdigest()[:16]
    return f"{about.name[: LONGEST_NAME - len(mark) - 1].rstrip('.-')}.{mark}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
