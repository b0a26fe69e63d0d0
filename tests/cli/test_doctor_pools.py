# SPDX-License-Identifier: Apache-2.0
"""`kube-node doctor` and what the controller gives: this node's annotations against SubnetPools and NodeSubnets."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest
from corner import APIS, Corner
from healthy import Doctor, steps
from healthycluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import ApiServer
    from node import SeededNode

NET = {"cidr": "172.20.0.0/16", "nodePrefix": 24}
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


class Pooled:
    """A healthy node with a secondary network, whose subnet is of a pool."""

    def __init__(self, cluster: Cluster, corner: Corner) -> None:
        self.cluster, self.corner, self.doctor = cluster, corner, cluster.doctor
        self.server, self.name = cluster.server, cluster.name
        network = self.doctor.node.conf("net1", kubeconfig=str(cluster.file), annotation=corner.key)
        self.doctor.node.configure(network, "20-net1.conflist")
        cluster.kubeconfig(self.server.certificate_user("admin", "system:masters"))
        self.pool = corner.pool("net", [NET], nodeSelector={})
        self.annotate("172.20.7.0/24")
        self.claim("172.20.7.0/24", self.name)
        self.lease(0)

    def annotate(self, text: str | None) -> None:
        self.server.annotate(self.name, {self.corner.key: text})

    def claim(self, cidr: str, node: str) -> None:
        spec = {"cidr": cidr, "pool": self.pool, "annotation": self.corner.key, "node": node, "nodeUID": "u"}
        manifest = {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "NodeSubnet", "metadata": {"name": cidr.replace("/", "-")}}
        self.server.request("POST", f"{APIS}/nodesubnets", {**manifest, "spec": spec})

    def unclaim(self, cidr: str = "172.20.7.0/24") -> None:
        self.server.request("DELETE", f"{APIS}/nodesubnets/{cidr.replace('/', '-')}")

    def selector(self, **labels: str) -> None:
        self.corner.merge(f"{APIS}/subnetpools/{self.pool}", {"spec": {"nodeSelector": {"matchLabels": labels}}})

    def label(self, **labels: str) -> None:
        self.corner.label(self.name, **labels)

    def condition(self, kind: str, status: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": kind, "status": status, "reason": "Because", "message": "of this", "lastTransitionTime": now}
        self.corner.merge(f"{APIS}/subnetpools/{self.pool}/status", {"status": {"conditions": [condition]}})

    def lease(self, age: float) -> None:
        """Have the Lease renewed so long ago."""
        self.unlease()
        when = datetime.fromtimestamp(time.time() - age, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": "somebody", "renewTime": when, "leaseDurationSeconds": 15}
        manifest = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "kube-node-controller"}, "spec": spec}
        self.server.request("POST", LEASES, manifest)

    def unlease(self) -> None:
        self.server.request("DELETE", f"{LEASES}?fieldSelector=metadata.name=kube-node-controller")

    def close(self) -> None:
        self.unlease()
        self.server.delete_node(self.name)


class Fault(NamedTuple):
    says: str
    seed: Callable[[Pooled], object]
    mend: Callable[[Pooled], object]
    state: str = "warning"


FAULTS = {
    "outside": Fault("172.30.0.0/24 in annotation", lambda p: p.annotate("172.30.0.0/24"), lambda p: p.annotate("172.20.7.0/24")),
    "excluded": Fault(
        "is not offered by SubnetPool",
        lambda p: p.corner.pool("net", [{**NET, "exclude": ["172.20.7.0/24"]}], nodeSelector={}),
        lambda p: p.corner.pool("net", [NET], nodeSelector={}),
    ),
    "no NodeSubnet": Fault("has no NodeSubnet", lambda p: p.unclaim(), lambda p: p.claim("172.20.7.0/24", p.name)),
    "of another size": Fault("172.20.7.0/25 in annotation", lambda p: p.annotate("172.20.7.0/25"), lambda p: p.annotate("172.20.7.0/24")),
    "with another gateway": Fault(
        "is '172.20.7.0/24' by SubnetPool",
        lambda p: p.annotate("172.20.7.0/24 via 172.20.7.254"),
        lambda p: p.annotate("172.20.7.0/24"),
    ),
    "of a pool that moved on": Fault(
        "-new now",
        lambda p: p.corner.pool("net", [NET], nodeSelector={}, annotation=f"{p.corner.key}-new"),
        lambda p: p.corner.pool("net", [NET], nodeSelector={}),
    ),
    "of another node": Fault(
        "belongs to Node other by NodeSubnet 172.20.8.0-24",
        steps(lambda p: p.claim("172.20.8.0/24", "other"), lambda p: p.annotate("172.20.8.0/24")),
        lambda p: p.annotate("172.20.7.0/24"),
        "failure",
    ),
    "not selected": Fault(
        "selects Node",
        steps(lambda p: p.selector(rack="a"), lambda p: p.annotate(None)),
        steps(lambda p: p.label(rack="a"), lambda p: p.annotate("172.20.7.0/24")),
        "failure",
    ),
    "exhausted": Fault("Because: of this", lambda p: p.condition("Exhausted", "True"), lambda p: p.condition("Exhausted", "False")),
    "in conflict": Fault("Because: of this", lambda p: p.condition("Conflict", "True"), lambda p: p.condition("Conflict", "False")),
    "not ready": Fault("Because: of this", lambda p: p.condition("Ready", "False"), lambda p: p.condition("Ready", "True")),
    "no controller": Fault("no controller works: Lease kube-system/kube-node-controller", lambda p: p.lease(3600), lambda p: p.lease(1)),
}


@pytest.fixture
def pooled(seeded: SeededNode, built: Path, crds: ApiServer, tmp_path: Path) -> Iterator[Pooled]:
    with ExitStack() as stack:
        corner = Corner(crds)
        stack.callback(corner.clear)
        found = Pooled(Cluster(Doctor(seeded, built, stack), crds, tmp_path), corner)
        stack.callback(found.close)
        yield found


def test_healthy(pooled: Pooled) -> None:
    """Where the node has what its pool has given, all is well, and the check says what it found."""
    assert pooled.doctor.findings() == (0, [])
    assert f"172.20.7.0/24 of SubnetPool {pooled.pool}" in pooled.doctor.run().stdout


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault(pooled: Pooled, fault: Fault) -> None:
    """A fault is found, with what to do; mended as advised, all is well."""
    fault.seed(pooled)
    _, findings = pooled.doctor.findings()
    found = [one for one in findings if one["check"] == "pools"]
    assert [(one["state"], fault.says in one["what"]) for one in found] == [(fault.state, True)], findings
    assert all(one["advice"] for one in findings)
    fault.mend(pooled)
    assert pooled.doctor.findings() == (0, [])


def test_no_right_to_look(pooled: Pooled) -> None:
    """Who may not read pools is told so, and that is no fault: plugins need no such right."""
    pooled.annotate("172.30.0.0/24")
    pooled.cluster.kubeconfig(pooled.cluster.user)
    assert pooled.doctor.findings() == (0, [])
    assert "no right to list subnetpools" in pooled.doctor.run().stdout
