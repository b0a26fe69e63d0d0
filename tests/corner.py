# SPDX-License-Identifier: Apache-2.0
"""The controller's CRDs on an API server, and a corner of it for each test: pools serve only that test's nodes."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from controllerprocess import until

from kubenode.pools.growth import capacity
from kubenode.pools.texts import read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apiserver import ApiServer

ROOT = Path(__file__).resolve().parent.parent
GROUP = "kube-node.nordix.org"
APIS = f"/apis/{GROUP}/v1alpha1"


class Corner:
    """Pools and nodes of one test; `key` is the annotation that its pools write."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.id = secrets.token_hex(4)
        self.key = f"test.example.com/{self.id}"
        self.pools: set[str] = set()

    def node(self, name: str, *, labels: dict[str, str] | None = None, annotation: str | None = None) -> str:
        """Create a Node; return its name, which has the test's id in it."""
        full = f"{name}-{self.id}"
        annotations = {} if annotation is None else {self.key: annotation}
        metadata = {"name": full, "labels": {"test": self.id, **(labels or {})}, "annotations": annotations}
        self.server.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        return full

    def annotation(self, node: str) -> str | None:
        text: str | None = self.server.request("GET", f"/api/v1/nodes/{node}")["metadata"].get("annotations", {}).get(self.key)
        return text

    def annotate(self, node: str, text: str | None) -> None:
        self.merge(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {self.key: text}}})

    def label(self, node: str, **labels: str | None) -> None:
        self.merge(f"/api/v1/nodes/{node}", {"metadata": {"labels": labels}})

    def pool(self, name: str, cidrs: Sequence[dict[str, Any]], **spec: Any) -> str:
        """Create a pool for this test's nodes, or change it; return its name."""
        full = f"{name}-{self.id}"
        selector = {"matchLabels": {"test": self.id}}
        body = {"spec": {"annotation": self.key, "nodeSelector": selector, "cidrs": list(cidrs), "reclaimAfter": "1h", **spec}}
        if full in self.pools:
            self.merge(f"{APIS}/subnetpools/{full}", body)
        else:
            self.pools.add(full)
            manifest = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "SubnetPool", "metadata": {"name": full}, **body}
            self.server.request("POST", f"{APIS}/subnetpools", manifest)
        return full

    def status(self, pool: str) -> dict[str, Any]:
        status: dict[str, Any] = self.server.request("GET", f"{APIS}/subnetpools/{pool}").get("status", {})
        return status

    def condition(self, pool: str, kind: str) -> tuple[str, str, str]:
        """Return status, reason and message."""
        found = [each for each in self.status(pool).get("conditions", []) if each["type"] == kind]
        return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")

    def claims(self) -> dict[str, dict[str, Any]]:
        """Return the specs of the NodeSubnets of this test's pools, by subnet."""
        items = self.server.request("GET", f"{APIS}/nodesubnets")["items"]
        return {item["spec"]["cidr"]: item["spec"] for item in items if item["spec"]["pool"].endswith(self.id)}

    def events(self, name: str) -> list[dict[str, Any]]:
        items = self.server.request("GET", f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}")["items"]
        return list(items)

    def merge(self, path: str, patch: dict[str, Any]) -> None:
        self.server.request("PATCH", path, patch, "application/merge-patch+json")

    def report(self, node: str, used: dict[str, int], *, observed: str | None = None) -> None:
        """Report as the node's agent, which acts on the present annotation, or on the one `observed`."""
        text = self.annotation(node) or "" if observed is None else observed
        items = [
            {"cidr": str(item.block), "used": used.get(str(item.block), 0), "total": capacity(item), "closing": item.closing}
            for item in read(text).items
        ]
        items += [
            {"cidr": cidr, "used": count, "total": count, "outside": True}
            for cidr, count in used.items()
            if cidr not in [item["cidr"] for item in items]
        ]
        network = {"name": "net", "annotation": self.key, "observed": text, "items": items}
        self.merge(f"{APIS}/nodeaddresses/{node}/status", {"status": {"version": "1.2.3", "networks": [network]}})

    def clear(self) -> None:
        for pool in self.pools:
            self.server.request("DELETE", f"{APIS}/subnetpools/{pool}")
        self.server.request("DELETE", f"/api/v1/nodes?labelSelector=test={self.id}")
        for item in self.server.request("GET", f"{APIS}/nodeaddresses")["items"]:
            if item["metadata"]["name"].endswith(self.id):
                self.server.request("DELETE", f"{APIS}/nodeaddresses/{item['metadata']['name']}")
        for item in self.server.request("GET", f"{APIS}/nodesubnets")["items"]:
            if item["spec"]["pool"].endswith(self.id):
                self.server.request("DELETE", f"{APIS}/nodesubnets/{item['metadata']['name']}")


def install_crds(server: ApiServer) -> None:
    """Install the CustomResourceDefinitions, unless another test has done so: tests of one process share a server."""
    for crd in yaml.safe_load_all((ROOT / "deploy/controller/crds.yaml").read_text()):
        try:
            server.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        except RuntimeError as error:
            if "AlreadyExists" not in str(error):
                raise

    def served() -> bool:
        try:
            server.request("GET", f"{APIS}/subnetpools")
            server.request("GET", f"{APIS}/nodesubnets")
            server.request("GET", f"{APIS}/nodeaddresses")
        except RuntimeError:
            return False
        return True

    until(served)
