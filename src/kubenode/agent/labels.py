# SPDX-License-Identifier: Apache-2.0
"""Namespace labels that decide who gets IPv4, from a watch of their metadata. Calls read them from memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kubenode.base.jsontext import loads
from kubenode.cni.errors import CNIError
from kubenode.kube.offloop import off_loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    import msgspec

    from kubenode.base.log import Log
    from kubenode.kube.asyncclient import Cluster

NAMESPACES = "/api/v1/namespaces"
RETRY = 30.0  # seconds until the next try, if no kubeconfig names an API server
VALUES = {"true": True, "false": False}  # any other value decides nothing


class NamespaceLabels:
    """Value of one label key per namespace; with "" for a key nothing is watched."""

    def __init__(self, key: str, log: Log) -> None:
        self.key = key
        self._log = log
        self._known: dict[str, bool | None] = {}  # a dict's operations are atomic for all threads

    def of(self, namespace: str, log: Log) -> bool | None:
        """Say whether a namespace's label gives IPv4 to its pods; None without such a label: then the configured list decides."""
        if not self.key:
            return None
        if namespace not in self._known:
            log.warning("namespace not known: ipv4-namespaces decides", namespace=namespace, label=self.key)
            return None
        return self._known[namespace]

    async def follow(self, connect: Callable[[], Cluster], restarted: Callable[[str], None]) -> NoReturn:
        """Watch all namespaces until cancelled. `connect` makes a client and may block."""
        from kubenode.kube.asyncclient import Collection  # loads HTTP and TLS, not needed without a label
        from kubenode.kube.listwatch import ListWatch
        from kubenode.kube.reflector import Reflector

        told = ""
        while True:
            try:
                cluster = await off_loop(connect)
            except CNIError as error:
                if error.msg != told:
                    self._log.warning("cannot watch namespaces: ipv4-namespaces decides", error=str(error))
                told = error.msg
                await asyncio.sleep(RETRY)
                continue
            source = ListWatch(cluster, Collection(NAMESPACES, metadata=True), self, self._log)
            await Reflector(source, self._log, restarted).run()

    def put(self, manifest: msgspec.Raw, *, replace: bool = False) -> str:  # noqa: ARG002 -- a list is current, and a watch in order
        metadata = loads(bytes(manifest))["metadata"]
        name: str = metadata["name"]
        self._known[name] = VALUES.get((metadata.get("labels") or {}).get(self.key, ""))
        return name

    def drop(self, manifest: msgspec.Raw) -> None:
        self._known.pop(loads(bytes(manifest))["metadata"]["name"], None)

    def only(self, names: set[str], version: str) -> None:  # noqa: ARG002 -- as with `put`
        for name in self._known.keys() - names:
            del self._known[name]
