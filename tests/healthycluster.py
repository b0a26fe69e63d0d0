# SPDX-License-Identifier: Apache-2.0
"""A healthy node of a cluster, for `kube-node doctor` to find what a test then breaks."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apiserver import ApiServer
    from healthy import Doctor

MACHINE_ID = Path("/etc/machine-id")


class Cluster:
    """The node, and its API server."""

    def __init__(self, doctor: Doctor, server: ApiServer, directory: Path) -> None:
        self.doctor, self.server = doctor, server
        self.name = f"node-{secrets.token_hex(4)}"
        self.user = f"doctor-{self.name}"
        self.file = directory / "kubeconfig"
        server.create_node(self.name, ["10.1.0.0/24", "fd01::/64"], machine_id=self.machine_id)
        server.grant(self.user, "get", "list")
        self.kubeconfig(self.user)
        self.named(self.name)
        (doctor.node.run / "node.json").unlink()
        doctor.reconfigure(kubeconfig=str(self.file))

    @property
    def machine_id(self) -> str:
        return MACHINE_ID.read_text().strip() if MACHINE_ID.exists() else self.name

    def kubeconfig(self, user: str | dict[str, str], **cluster: str) -> None:
        self.server.kubeconfig(self.file, user, **cluster)
        self.file.chmod(0o600)

    def named(self, name: str) -> None:
        (self.doctor.node.run / "nodename").write_text(name)

    def clone(self) -> None:
        self.server.create_node(f"{self.name}-clone", machine_id=self.machine_id)
        self.doctor.stack.callback(self.forget_clone)

    def forget_clone(self) -> None:
        names = [item["metadata"]["name"] for item in self.server.request("GET", "/api/v1/nodes")["items"]]
        if f"{self.name}-clone" in names:
            self.server.delete_node(f"{self.name}-clone")

    def anonymous(self) -> None:
        """Forget the Node's name; what is left is the machine-id."""
        (self.doctor.node.run / "nodename").unlink()

    def outdated_view(self) -> None:
        """Leave a view of before the node got other podCIDRs."""
        self.doctor.node.add(self.doctor.conf, "c2")
        path = self.doctor.node.run / "node.json"
        path.write_text(path.read_text().replace("10.1.0.0/24", "10.7.0.0/24").replace('"fetched": 1', '"fetched": 0'))

    def without_cidrs(self) -> None:
        other = f"{self.name}-bare"
        self.server.create_node(other)
        self.doctor.stack.callback(self.server.delete_node, other)
        self.named(other)

    def assign(self) -> None:
        patch = {"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}}
        self.server.request("PATCH", f"/api/v1/nodes/{self.name}-bare", patch, "application/merge-patch+json")
