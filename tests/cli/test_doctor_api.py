# SPDX-License-Identifier: Apache-2.0
"""`kube-node doctor` and a real API server: what it says of reaching it, of rights, of the own Node."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest
from agentprocess import AgentProcess
from healthy import Doctor, follow, steps
from healthycluster import Cluster
from patience import eventually
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import RealApiServer
    from node import SeededNode


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
    "another machine's Node": Fault(
        "own-node",
        "has the machineID 0123",
        lambda c: c.server.set_machine_id(c.name, "0123"),
        lambda c: c.server.set_machine_id(c.name, c.machine_id),
    ),
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
    if "machine-id" in fault.check:
        want("machine-id")
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


@pytest.mark.parametrize("right", ["get nodes", "watch nodes"])
def test_rights_of_the_agent(cluster: Cluster, tmp_path: Path, right: str) -> None:
    """An agent that asks with credentials of its own has rights of its own; the one that is missing is named, whoever else has it."""
    user = f"agent-{cluster.name}"
    kubeconfig = cluster.server.kubeconfig(tmp_path / "agent", user)
    given = {"nodes": ["get", "watch"]}  # that to get pods is somebody's choice
    verb, resource = right.split()
    for what, verbs in given.items():
        if rest := [each for each in verbs if (each, what) != (verb, resource)]:
            cluster.server.grant(user, *rest, resource=what)
    # Its own command line, for doctor to read.
    with AgentProcess(cluster.doctor.node.run, f"--kubeconfig={kubeconfig}", env={"NODE_NAME": cluster.name}, wrap=["env"]):
        (found,) = [one for one in cluster.doctor.findings()[1] if one["check"] == "agent-rights"]
        assert (found["state"], found["what"]) == ("failure", f"the agent has no right to {right}")
        cluster.server.grant(user, verb, resource=resource)
        assert [one for one in cluster.doctor.findings()[1] if one["check"] == "agent-rights"] == []


def test_how_the_node_is_found(cluster: Cluster) -> None:
    """It says what has found the Node: a name that is given, else credentials that are of it, else the machine-id."""

    def said() -> str:
        (found,) = [one["what"] for one in cluster.doctor.run("-o", "json").json["checks"] if one["check"] == "own-node"]
        return str(found)

    assert said() == f"Node {cluster.name}, by {cluster.doctor.node.run}/nodename"
    cluster.anonymous()
    if cluster.machine_id != cluster.name:
        assert said() == f"Node {cluster.name}, by its machine-id {cluster.machine_id}"
    kubelet = f"system:node:{cluster.name}"
    cluster.server.grant(kubelet, "get", "list")
    cluster.kubeconfig(kubelet)
    assert said() == f"Node {cluster.name}, by the credentials, which belong to it"


CONTAINER = """set -eu
mount -t tmpfs none "$0"
mkdir -p "$0/old" "$0/var" "$0/run/secrets/kubernetes.io/serviceaccount"
ln -s /run "$0/var/run"
mount --bind "$1" "$0/run/secrets/kubernetes.io/serviceaccount"
shift
for path in /*; do
    [ -d "$path" ] && [ ! -L "$path" ] && [ ! -e "$0$path" ] && mkdir "$0$path" && mount --rbind "$path" "$0$path"
    [ -L "$path" ] && cp -P "$path" "$0"
done
pivot_root "$0" "$0/old"
cd /
umount -l /old
exec "$@"
"""


def test_an_agent_in_a_container(cluster: Cluster, tmp_path: Path) -> None:
    """From the host, doctor asks with what an agent in a container has there: its service account, behind a link of the container's own."""
    want("the right to mount")
    account, root = tmp_path / "account", tmp_path / "root"
    account.mkdir()
    root.mkdir()
    user = cluster.server.service_account(f"agent-{cluster.name}")
    (account / "token").write_text(cluster.server.token(f"agent-{cluster.name}"))
    (account / "ca.crt").write_bytes(cluster.server.authority.certificate)
    host, _, port = cluster.server.url.rpartition("/")[2].partition(":")
    env = {"NODE_NAME": cluster.name, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    cluster.server.grant(user, "get", "watch")
    wrap = ["unshare", "--mount", "sh", "-c", CONTAINER, str(root), str(account)]
    with AgentProcess(cluster.doctor.node.run, env=env, wrap=wrap) as agent:
        eventually(lambda: agent.get("/readyz") == (200, "ok\n"), "it does not get ready")
        assert cluster.doctor.findings() == (0, [])
        assert "see whether a pod is gone" not in cluster.doctor.run().stdout
        assert "leaks are reported, not released" in cluster.doctor.run().stdout


def test_who_asks(cluster: Cluster) -> None:
    """Doctor asks as the plugins do, and leaves nothing behind, not even a Node view."""
    before = cluster.doctor.node.snapshot()
    cluster.doctor.run()
    assert cluster.doctor.node.snapshot() == before
    assert cluster.user in {asked.user for asked in cluster.server.asked()}
