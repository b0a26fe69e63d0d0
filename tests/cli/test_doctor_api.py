"""`kube-node doctor` and a real API server: what it says of reaching it, of rights, of the own Node."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from healthy import Doctor, follow, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apiserver import RealApiServer
    from node import SeededNode

MACHINE_ID = Path("/etc/machine-id")


class Cluster:
    """A healthy node of a real API server."""

    def __init__(self, doctor: Doctor, server: RealApiServer, directory: Path) -> None:
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

    def kubeconfig(self, user: str, **cluster: str) -> None:
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


class Fault(NamedTuple):
    """As in test_doctor.py."""

    check: str
    says: str
    seed: Callable[[Cluster], object]
    mend: Callable[[Cluster], object] | None = None
    state: str = "failure"


FAULTS = {
    "kubeconfig missing": Fault("kubeconfig", "cannot be read", lambda c: c.file.unlink(), lambda c: c.kubeconfig(c.user)),
    "kubeconfig broken": Fault("kubeconfig", "not YAML", lambda c: c.file.write_text("a: ["), lambda c: c.kubeconfig(c.user)),
    "kubeconfig for everybody": Fault("kubeconfig", "mode 0644", lambda c: c.file.chmod(0o644), None, "warning"),
    "API server not reachable": Fault(
        "api-server", "Connection refused", lambda c: c.kubeconfig(c.user, server="https://127.0.0.1:1"), lambda c: c.kubeconfig(c.user)
    ),
    "another authority": Fault(
        "api-server", "does not match", lambda c: c.kubeconfig(c.user, tls_server_name="other.test"), lambda c: c.kubeconfig(c.user)
    ),
    "no rights": Fault(
        "rights", "no right to get nodes", lambda c: c.kubeconfig("nobody"), lambda c: c.server.grant("nobody", "get", "list")
    ),
    "no such Node": Fault("own-node", "there is no Node nowhere", lambda c: c.named("nowhere"), lambda c: c.named(c.name)),
    "cloned machine": Fault("machine-id", "have the same machineID", Cluster.clone, Cluster.forget_clone, "warning"),
    "cloned machine without a name": Fault(
        "machine-id",
        "have the same machineID",
        steps(Cluster.anonymous, Cluster.clone),
        steps(Cluster.forget_clone, lambda c: c.named(c.name)),
    ),
    "no podCIDRs": Fault("pod-cidrs", "has no spec.podCIDRs", Cluster.without_cidrs, Cluster.assign),
    "outdated view": Fault("node-view", "podCIDRs 10.7.0.0/24", Cluster.outdated_view, None, "warning"),
}


@pytest.fixture
def cluster(seeded: SeededNode, built: Path, api_server: RealApiServer, tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        found = Cluster(Doctor(seeded, built, stack), api_server, tmp_path)
        stack.callback(api_server.delete_node, found.name)
        yield found


def test_healthy_node(cluster: Cluster) -> None:
    """With an API server that answers all is well, before the first pod and after it."""
    assert cluster.doctor.findings() == (0, [])
    cluster.doctor.node.add(cluster.doctor.conf, "c2")
    assert cluster.doctor.findings() == (0, [])
    shown = cluster.doctor.run().stdout
    assert f"Node {cluster.name}, by {cluster.doctor.node.run}/nodename" in shown
    assert "10.1.0.0/24, fd01::/64" in shown


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault(cluster: Cluster, fault: Fault) -> None:
    """A fault is found by the check that is named for it; its advice mends it, and then all is well."""
    if "machine-id" in fault.check and not MACHINE_ID.exists():
        pytest.skip("this machine has no /etc/machine-id (systemd-machine-id-setup)")
    fault.seed(cluster)
    code, findings = cluster.doctor.findings()
    found = [one for one in findings if one["check"] == fault.check]
    assert any(fault.says in one["what"] for one in found), findings
    assert fault.state in {one["state"] for one in found}
    assert all(one["advice"] for one in findings)
    assert code == max({"warning": 1, "failure": 2}[one["state"]] for one in findings)
    if fault.mend:
        fault.mend(cluster)
    else:
        follow(cluster.doctor, found)
    assert cluster.doctor.findings() == (0, [])


def test_who_asks(cluster: Cluster) -> None:
    """Doctor asks as the plugins do, and leaves nothing behind, not even a Node view."""
    before = cluster.doctor.node.snapshot()
    cluster.doctor.run()
    assert cluster.doctor.node.snapshot() == before
    assert cluster.user in {asked.user for asked in cluster.server.asked()}
