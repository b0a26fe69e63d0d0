# SPDX-License-Identifier: Apache-2.0
"""`kube-node doctor --cluster`: faults that only who sees all nodes and pods can find, seeded and mended on an API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import forked
import pytest
from corner import APIS, GROUP
from population import Population

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import ApiServer

pytestmark = pytest.mark.servers("real")

AGENT = {"app.kubernetes.io/name": "kube-node", "app.kubernetes.io/component": "agent"}
IMAGE, OTHER = "registry.example/kube-node:1.0", "registry.example/kube-node:0.9"
DAEMONSETS = "/apis/apps/v1/namespaces/{}/daemonsets"


class Doctor:
    """Two nodes with podCIDRs, an annotation and agents, and a pod each; all is well."""

    def __init__(self, people: Population) -> None:
        self.people = people
        people.node("a", "10.62.0.0/24", "fd62::/64", key="172.22.1.0/24")
        people.node("b", "10.62.1.0/24", "fd62:0:0:1::/64", key="172.22.2.0/24")
        people.corner.pool("net", [{"cidr": "172.22.0.0/16", "nodePrefix": 24}])
        self.daemon_set("agents", IMAGE, {"test": people.id})
        for node in ("a", "b"):
            people.pod(f"agent-{node}", node, "192.0.2.1", host=True, labels=AGENT, image=IMAGE)
        self.multi("web-a", "a", "10.62.0.7", "172.22.1.7")
        self.multi("web-b", "b", "10.62.1.7", "172.22.2.7")

    def multi(self, name: str, node: str, first: str, second: str, network: str = "tenant/net1") -> str:
        said: list[dict[str, Any]] = [
            {"name": "k8snet", "ips": [first], "default": True},
            {"name": network, "interface": "net1", "ips": [second]},
        ]
        return self.people.pod(name, node, first, networks=said)

    def daemon_set(self, name: str, image: str, selector: dict[str, str]) -> None:
        template = {"metadata": {"labels": AGENT}, "spec": {"nodeSelector": selector, "containers": [{"name": "c", "image": image}]}}
        manifest = {
            "metadata": {"name": name, "labels": AGENT}, "spec": {"selector": {"matchLabels": AGENT}, "template": template},
        }  # fmt: skip
        self.people.create(DAEMONSETS.format(self.people.namespace), manifest)

    def run(self, *arguments: str) -> forked.Done:
        return forked.run(["doctor", "--cluster", *arguments], {"KUBECONFIG": str(self.people.kubeconfig)})

    def wrong(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what is wrong of this test's: other tests may have left something on the server. The exit code is the worst of all."""
        done = self.run("-o", "json", *arguments)
        assert done.stdout, done.stderr
        checks = json.loads(done.stdout)["checks"]
        assert done.code == max({"skipped": 0, "ok": 0, "warning": 1, "failure": 2}[one["state"]] for one in checks)
        return [one for one in checks if one["state"] in {"warning", "failure"} and self.people.id in one["what"]]

    def drop(self, pod: str) -> None:
        self.people.server.request("DELETE", f"/api/v1/namespaces/{self.people.namespace}/pods/{pod}?gracePeriodSeconds=0")

    def agent_b(self, image: str = IMAGE, *, ready: bool = True) -> None:
        """Replace the agent of node b."""
        self.drop("agent-b")
        self.people.pod("agent-b2", "b", "192.0.2.1", host=True, labels=AGENT, image=image, ready=ready)

    def used_up(self) -> None:
        """Give node c, whose subnet has five addresses beside the gateway's, five pods."""
        self.people.node("c", "10.62.9.0/29")
        self.people.pod("agent-c", "c", "192.0.2.1", host=True, labels=AGENT, image=IMAGE)
        for number in range(2, 7):
            self.people.pod(f"many-{number}", "c", f"10.62.9.{number}")

    def flat(self, block: str) -> None:
        """Give node d a block of a flat network, and two pods with addresses of its beginning."""
        first = int(block.partition("/")[0].rpartition(".")[2])
        self.people.node("d", "10.62.8.0/24", key=f"{block} of 172.22.77.0/24 via 172.22.77.1")
        self.people.pod("agent-d", "d", "192.0.2.1", host=True, labels=AGENT, image=IMAGE)
        for number in range(2):
            self.multi(f"flat-{number}", "d", f"10.62.8.{number + 2}", f"172.22.77.{first + number}")

    def in_another_block(self) -> None:
        self.flat("172.22.77.16/28")
        self.multi("moved", "a", "10.62.0.9", "172.22.77.20")

    def report(self, node: str, version: str = "1.0", leaks: int = 0, used: int = 0) -> None:
        """Write the report of a node's agent."""
        name = self.people.name(node)
        items = [{"cidr": "172.22.1.0/24", "used": used, "total": 253}]
        networks = [{"name": "net", "annotation": self.people.key, "observed": "x", "items": items}]
        manifest = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "NodeAddresses", "metadata": {"name": name}}
        self.people.create(f"{APIS}/nodeaddresses", manifest)
        status = {"version": version, "time": "2026-01-02T03:04:05Z", "suspectedLeaks": leaks, "networks": networks}
        self.people.patch(f"{APIS}/nodeaddresses/{name}/status", {"status": status})

    def another_version(self) -> None:
        for number in range(3):
            self.people.node(f"c{number}")
            self.people.pod(f"agent-c{number}", f"c{number}", "192.0.2.1", host=True, labels=AGENT, image=IMAGE)
            self.report(f"c{number}")
        self.report("b", "0.9")

    def nearly_given(self) -> None:
        network = {"cidr": "172.22.0.0/16", "total": 256, "free": 3, "allocated": 253}
        self.people.patch(f"{APIS}/subnetpools/{self.people.name('net')}/status", {"status": {"cidrs": [network]}})


class Fault(NamedTuple):
    check: str
    state: str
    says: str
    seed: Callable[[Doctor], object]


FAULTS = {
    "leaks": Fault("leaks", "warning", "suspects 3 leaks", lambda d: d.report("a", leaks=3)),
    "another reported version": Fault("versions", "warning", "has version 0.9, and most have 1.0", lambda d: d.another_version()),
    "full by its agent": Fault("exhaustion", "failure", "uses 253 of its 253 IPv4 addresses", lambda d: d.report("a", used=253)),
    "two pods": Fault("duplicates", "failure", "two pods have 10.62.0.7: ", lambda d: d.people.pod("thief", "a", "10.62.0.7")),
    "two pods of a secondary network": Fault(
        "duplicates", "failure", "two pods have 172.22.1.7: ", lambda d: d.multi("thief", "a", "10.62.0.8", "172.22.1.7")
    ),
    "two pods of two networks": Fault(
        "duplicates", "warning", "two pods have 172.22.1.7: ", lambda d: d.multi("thief", "a", "10.62.0.8", "172.22.1.7", "tenant/net2")
    ),
    "another node's": Fault("outside", "warning", "is in 10.62.0.0/24 of node a-", lambda d: d.people.pod("moved", "b", "10.62.0.9")),
    "no node's": Fault("outside", "warning", "10.99.0.9 of pod", lambda d: d.people.pod("odd", "b", "10.99.0.9")),
    "another node's, of a secondary network": Fault(
        "outside", "warning", "is in 172.22.1.0/24 of node a-", lambda d: d.multi("moved", "b", "10.62.1.9", "172.22.1.9")
    ),
    "one subnet in two": Fault(
        "overlap", "failure", "172.22.2.0/23 of node c-", lambda d: d.people.node("c", labels={"test": "no"}, key="172.22.2.0/23")
    ),
    "podCIDRs in an annotation": Fault(
        "overlap", "failure", "10.62.1.128/25 of node b-",
        lambda d: d.people.corner.annotate(d.people.name("b"), "172.22.2.0/24,10.62.1.128/25"),
    ),
    "full": Fault("exhaustion", "failure", "uses 5 of its 5 IPv4 addresses (spec.podCIDRs)", Doctor.used_up),
    "a full block of a flat network": Fault(
        "exhaustion", "failure", "uses 2 of its 2 IPv4 addresses (annotation", lambda d: d.flat("172.22.77.2/31")
    ),
    "a flat network's block of another node": Fault("outside", "warning", "is in 172.22.77.16/28 of node d-", Doctor.in_another_block),
    "a pool near its end": Fault("pools", "warning", "has 3 of its 256 subnets free", Doctor.nearly_given),
    "no agent": Fault("agents", "warning", "node b-{id} has no agent", lambda d: d.drop("agent-b")),
    "an agent that is not ready": Fault(
        "agents", "warning", "is not ready: pod",
        lambda d: d.agent_b(ready=False),
    ),
    "another version": Fault(
        "versions", "warning", f"is {OTHER}, and the DaemonSet has {IMAGE}",
        lambda d: d.agent_b(OTHER),
    ),
    "an annotation that cannot be read": Fault(
        "annotations", "failure", "has host bits set", lambda d: d.people.corner.annotate(d.people.name("b"), "172.22.2.5/24")
    ),
}  # fmt: skip


@pytest.fixture
def doctor(crds: ApiServer, tmp_path: Path) -> Iterator[Doctor]:
    people = Population(crds, tmp_path)
    try:
        yield Doctor(people)
    finally:
        people.clear()


def test_healthy(doctor: Doctor) -> None:
    """Where nothing is wrong each check says what it has found."""
    assert doctor.wrong() == []
    text = doctor.run().stdout
    for line in ("no two pods have one address", "each node has an agent that is ready", "each annotation can be read"):
        assert line in text


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault(doctor: Doctor, fault: Fault) -> None:
    """A fault is told by its own check, with the names and what to do; the exit code is the worst."""
    fault.seed(doctor)
    wrong = doctor.wrong()
    found = [one for one in wrong if one["check"] == fault.check]
    assert [one["state"] for one in found] == [fault.state], wrong
    assert fault.says.format(id=doctor.people.id) in found[0]["what"]
    assert found[0]["advice"]
    others = {one["check"] for one in wrong} - {fault.check}
    assert others <= {"duplicates": {"outside"}, "annotations": {"outside"}}.get(fault.check, set()), wrong


def test_annotation_that_nothing_names(doctor: Doctor) -> None:
    """Without a pool, an annotation is a network's where most nodes have subnets there; what stands in any other says nothing."""
    doctor.people.corner.pool("net", [{"cidr": "172.22.0.0/16", "nodePrefix": 24}], annotation="example.com/other")
    assert doctor.wrong() == []
    doctor.people.corner.annotate(doctor.people.name("b"), "172.22.2.0/24,")
    wrong = [one for one in doctor.wrong() if one["check"] == "annotations"]
    assert [(one["state"], "a comma too many" in one["what"]) for one in wrong] == [("warning", True)]


def test_another_ipam(doctor: Doctor) -> None:
    """A network of which no address is of a node's subnets is another IPAM's, and no fault."""
    doctor.multi("web-c", "a", "10.62.0.11", "192.168.7.7", "tenant/bridge")
    assert doctor.wrong() == []
    assert "network tenant/bridge has 1 addresses, none in a node's subnet" in doctor.run().stdout


def test_node_that_the_daemonset_is_not_for(doctor: Doctor) -> None:
    """A node that the DaemonSet's nodeSelector leaves out needs no agent."""
    doctor.people.node("win", "10.62.7.0/24", labels={"test": "no"})
    assert doctor.wrong() == []


def test_namespace(doctor: Doctor) -> None:
    """With --namespace what needs all pods is skipped; alone, the option is an error."""
    doctor.drop("agent-b")
    assert doctor.wrong("--namespace", doctor.people.namespace) == []
    done = forked.run(["doctor", "--namespace=x"])
    assert (done.code, "--namespace is for --cluster" in done.stderr) == (64, True)


def test_no_api_server(tmp_path: Path) -> None:
    """An API server that cannot be asked is the finding, with exit code 2."""
    done = forked.run(["doctor", "--cluster", f"--kubeconfig={tmp_path}/none", "-o", "json"])
    assert done.code == 2
    assert [(one["check"], one["state"]) for one in json.loads(done.stdout)["checks"]] == [("api-server", "failure")]


def test_rights(doctor: Doctor, tmp_path: Path) -> None:
    """Who may list nodes and pods alone is told what was not seen; who may not even these, what is missing."""
    user = doctor.people.name("user")
    path = str(doctor.people.server.kubeconfig(tmp_path / "user.conf", user))
    refused = forked.run(["doctor", "--cluster", "-o", "json", f"--kubeconfig={path}"])
    assert (refused.code, "cannot list resource" in refused.stdout) == (2, True)
    doctor.people.server.grant(user, "list")
    doctor.people.server.grant(user, "list", resource="pods")
    done = forked.run(["doctor", "--cluster", f"--kubeconfig={path}"])
    assert "daemonsets were not seen" in done.stdout
    assert "no two pods have one address" in done.stdout
