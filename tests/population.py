# SPDX-License-Identifier: Apache-2.0
"""Nodes and pods of one test on an API server, with addresses of its own, and a kubeconfig that may see them all."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from corner import APIS, Corner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from apiserver import ApiServer

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"
MERGE = "application/merge-patch+json"


class Population:
    """Names end with the test's id, so that several tests share a server. `b` is the second number of its IPv4 addresses."""

    def __init__(self, server: ApiServer, directory: Path) -> None:
        self.server = server
        self.corner = Corner(server)
        self.id, self.key = self.corner.id, self.corner.key
        self.namespace = f"ns-{self.id}"
        server.request("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        server.request("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts", {"metadata": {"name": "default"}})
        self.kubeconfig = server.kubeconfig(directory / "admin.conf", server.certificate_user("admin", "system:masters"))
        self.made: list[str] = []

    def name(self, short: str) -> str:
        return f"{short}-{self.id}"

    def node(self, short: str, *cidrs: str, own: str = "", labels: Mapping[str, str] | None = None, **annotations: str) -> str:
        """Create a Node; the annotation `key` is the test's."""
        name = self.name(short)
        noted = {self.key if key == "key" else key: text for key, text in annotations.items()}
        metadata = {"name": name, "labels": {"test": self.id, **(labels or {})}, "annotations": noted}
        spec = {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)} if cidrs else {}
        self.create("/api/v1/nodes", {"metadata": metadata, "spec": spec})
        if own:
            self.patch(f"/api/v1/nodes/{name}/status", {"status": {"addresses": [{"type": "InternalIP", "address": own}]}})
        return name

    def pod(
        self,
        short: str,
        node: str,
        *addresses: str,
        networks: Sequence[Mapping[str, Any]] = (),
        host: bool = False,
        phase: str = "Running",
        labels: Mapping[str, str] | None = None,
        image: str = "i",
        ready: bool = True,
    ) -> str:
        """Create a pod on a node of the test, as if its kubelet had started it; return its full name."""
        annotations = {NETWORK_STATUS: json.dumps(networks)} if networks else {}
        metadata = {"name": short, "labels": dict(labels or {}), "annotations": annotations}
        spec = {
            "containers": [{"name": "c", "image": image}], "automountServiceAccountToken": False, "nodeName": self.name(node),
            "hostNetwork": host,
        }  # fmt: skip
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        self.server.request("POST", path, {"metadata": metadata, "spec": spec})
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"phase": phase, "podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]} if addresses else {"phase": phase}
        self.patch(f"{path}/{short}/status", {"status": {**status, "conditions": conditions}})
        return f"{self.namespace}/{short}"

    def claim(self, cidr: str, node: str, pool: str = "none") -> str:
        """Create a NodeSubnet; return its name."""
        name = cidr.replace("/", "-").replace(":", "-")
        spec = {"cidr": cidr, "pool": self.name(pool), "annotation": self.key, "node": self.name(node), "nodeUID": "u"}
        manifest = {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "NodeSubnet", "metadata": {"name": name}, "spec": spec}
        self.create(f"{APIS}/nodesubnets", manifest)
        return name

    def create(self, path: str, manifest: Mapping[str, Any]) -> None:
        """Create anything else; it goes with the test."""
        self.server.request("POST", path, manifest)
        self.made.append(f"{path}/{manifest['metadata']['name']}")

    def patch(self, path: str, patch: Mapping[str, Any]) -> None:
        self.server.request("PATCH", path, patch, MERGE)

    def clear(self) -> None:
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        for item in self.server.request("GET", pods)["items"]:
            self.server.request("DELETE", f"{pods}/{item['metadata']['name']}?gracePeriodSeconds=0")
        for path in self.made:
            with contextlib.suppress(RuntimeError):
                self.server.request("DELETE", path)
        self.corner.clear()
