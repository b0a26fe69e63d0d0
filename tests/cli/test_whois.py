# SPDX-License-Identifier: Apache-2.0
"""`kube-node whois`, and `status` of an address of another node: asked with nothing but a kubeconfig."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import forked
import pytest
import yaml
from population import Population

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import ApiServer
    from node import SeededNode

pytestmark = pytest.mark.servers("real")


@pytest.fixture
def people(crds: ApiServer, tmp_path: Path) -> Iterator[Population]:
    """Return a cluster of two nodes with podCIDRs and subnets of a secondary network."""
    found = Population(crds, tmp_path)
    found.node("a", "10.61.0.0/24", "fd61::/64", own="192.0.2.61", key="172.21.1.0/24, fd21:1::/96")
    found.node("b", "10.61.1.0/24", "fd61:0:0:1::/64", key='ranges: [[{"subnet": "172.21.2.0/24"}]]')
    found.node("c", key="172.21.8.16/28 of 172.21.8.0/24 via 172.21.8.1")
    found.pod("web", "a", "10.61.0.7", "fd61::7")
    try:
        yield found
    finally:
        found.clear()


class Asker:
    def __init__(self, people: Population, tmp_path: Path) -> None:
        self.people, self.home = people, tmp_path

    def __call__(self, *arguments: str, kubeconfig: str = "") -> tuple[int, dict[str, Any]]:
        done = self.run(*arguments, "-o", "json", kubeconfig=kubeconfig)
        assert done.stdout, done.stderr
        return done.code, json.loads(done.stdout)

    def run(self, *arguments: str, kubeconfig: str = "") -> forked.Done:
        return forked.run(["whois", *arguments], {"KUBECONFIG": kubeconfig or str(self.people.kubeconfig), "HOME": str(self.home)})


@pytest.fixture
def whois(people: Population, tmp_path: Path) -> Asker:
    return Asker(people, tmp_path)


@pytest.mark.parametrize(
    ("address", "cidr", "node", "source"),
    [
        ("10.61.0.9", "10.61.0.0/24", "a", "spec.podCIDRs"),
        ("::ffff:10.61.0.9", "10.61.0.0/24", "a", "spec.podCIDRs"),
        ("FD61:0000:0::00:9", "fd61::/64", "a", "spec.podCIDRs"),
        ("[fd61:0:0:1:0:0:0:5]/64", "fd61:0:0:1::/64", "b", "spec.podCIDRs"),
        ("172.21.1.200", "172.21.1.0/24", "a", "annotation {key}"),
        ("fd21:1::5", "fd21:1::/96", "a", "annotation {key}"),
        ("172.21.2.9", "172.21.2.0/24", "b", "annotation {key}"),
        ("172.21.8.17", "172.21.8.16/28", "c", "annotation {key}"),
    ],
)
def test_subnet(people: Population, whois: Asker, address: str, cidr: str, node: str, source: str) -> None:
    """An address, however it is written, is of the node whose podCIDRs or annotation has it; without a pod the exit code is 1."""
    code, told = whois(address)
    assert told["subnets"] == [{"cidr": cidr, "node": people.name(node), "source": source.format(key=people.key)}]
    assert (code, told["pods"]) == (1, [])


def test_node_subnet(people: Population, whois: Asker) -> None:
    """A NodeSubnet says whose a subnet is where the annotation does not yet; where it does, that is said once."""
    pool = people.corner.pool("net", [{"cidr": "172.21.0.0/16", "nodePrefix": 24}])
    name = people.claim("172.21.9.0/24", "b")
    people.claim("172.21.1.0/24", "a")
    assert whois("172.21.9.1")[1]["subnets"] == [{"cidr": "172.21.9.0/24", "node": people.name("b"), "source": f"NodeSubnet {name}"}]
    assert [one["source"] for one in whois("172.21.1.1")[1]["subnets"]] == [f"annotation {people.key}"]
    assert f"SubnetPool {pool}, which has allocated it to no node" in whois.run("172.21.77.1").stdout


@pytest.mark.parametrize("address", ["10.61.0.7", "fd61:0:0:0:0:0:0:7"])
def test_pod(people: Population, whois: Asker, address: str) -> None:
    """The pod that has an address is named with its node, in both families."""
    code, told = whois(address)
    assert code == 0
    assert told["pods"] == [{"pod": f"{people.namespace}/web", "node": people.name("a"), "network": "", "interface": ""}]
    assert f"{people.namespace}/web on node {people.name('a')}" in whois.run(address).stdout


def test_secondary_network(people: Population, whois: Asker) -> None:
    """What Multus says of a pod counts: the network and the interface of an address that podIPs do not have."""
    said: list[dict[str, Any]] = [
        {"name": "k8snet", "interface": "eth0", "ips": ["10.61.1.5"], "default": True},
        {"name": "tenant/net1", "interface": "net1", "ips": ["172.21.2.7", "fd21:2::7"]},
    ]
    pod = people.pod("multi", "b", "10.61.1.5", networks=said)
    node = people.name("b")
    for address in ("172.21.2.7", "fd21:2:0::7"):
        assert whois(address) == (
            0,
            whois(address)[1] | {"pods": [{"pod": pod, "node": node, "network": "tenant/net1", "interface": "net1"}]},
        )
    assert whois("10.61.1.5")[1]["pods"] == [{"pod": pod, "node": node, "network": "", "interface": "eth0"}]


def test_more_than_one(people: Population, whois: Asker) -> None:
    """Two pods with one address are both named, and the exit code tells."""
    other = people.pod("thief", "b", "10.61.0.7")
    code, told = whois("10.61.0.7")
    assert (code, [one["pod"] for one in told["pods"]]) == (3, sorted([other, f"{people.namespace}/web"]))
    assert "has 2 holders" in whois.run("10.61.0.7").stdout


def test_ended_pod(people: Population, whois: Asker) -> None:
    """A pod that has ended has given its address back, whatever its status still says."""
    people.pod("job", "a", "10.61.0.8", phase="Succeeded")
    assert whois("10.61.0.8")[0] == 1


def test_host_network(people: Population, whois: Asker) -> None:
    """A node's own address is the node's: pods on its network are shown as such, and hold nothing."""
    pod = people.pod("proxy", "a", "192.0.2.61", host=True)
    code, told = whois("192.0.2.61")
    assert (code, told["nodes"], told["pods"], [one["pod"] for one in told["hostPods"]]) == (0, [people.name("a")], [], [pod])
    assert f"pod {pod} is on the network of node {people.name('a')}" in whois.run("192.0.2.61").stdout


def test_nobody(whois: Asker) -> None:
    """An address of nobody is said to be so."""
    done = whois.run("203.0.113.5")
    assert (done.code, "No pod has 203.0.113.5, and it is in no node's subnet" in done.stdout) == (1, True)
    assert whois.run("300.1.1.1").code == 64
    assert "is not an IP address" in whois.run("300.1.1.1").stderr


def test_pages(people: Population, whois: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods are asked for in pages, and those that have ended not at all."""
    before = len(people.server.asked())
    whois("10.61.0.7")
    lists = [one.uri for one in people.server.asked()[before:] if one.verb == "list"]
    assert all("limit=500" in uri for uri in lists)
    assert [uri for uri in lists if "/pods?" in uri and "status.phase%21%3DSucceeded" in uri]


def test_contexts(people: Population, whois: Asker, tmp_path: Path) -> None:
    """--context takes another context of the kubeconfig than its current one, and is told where there is none of the name."""
    found = yaml.safe_load(people.kubeconfig.read_text())
    found["contexts"].append({"name": "prod", "context": {"cluster": "test", "user": "test"}})
    found["current-context"] = "lost"
    path = tmp_path / "two.conf"
    path.write_text(json.dumps(found))
    assert whois("10.61.0.7", "--context=prod", kubeconfig=str(path))[0] == 0
    assert whois("10.61.0.7", "--context=prod", f"--kubeconfig={path}", kubeconfig="/none")[0] == 0
    done = whois.run("10.61.0.7", "--context=test2", kubeconfig=str(path))
    assert (done.code, "context 'test2' is not among the contexts" in done.stderr) == (69, True)


def test_rights_to_one_namespace(people: Population, whois: Asker, tmp_path: Path) -> None:
    """Who may list the pods of one namespace alone finds the pod by --namespace; what was not seen is said."""
    user = people.name("user")
    role = {"metadata": {"name": "see"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{people.namespace}"
    people.server.request("POST", f"{rbac}/roles", role)
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "see"}
    people.server.request("POST", f"{rbac}/rolebindings", {"metadata": {"name": "see"}, "roleRef": reference, "subjects": [subject]})
    path = str(people.server.kubeconfig(tmp_path / "user.conf", user))
    people.server._wait(lambda: whois.run("10.61.0.7", "-n", people.namespace, kubeconfig=path).code == 0, "no rights")
    _, told = whois("10.61.0.7", "-n", people.namespace, kubeconfig=path)
    assert [one["pod"] for one in told["pods"]] == [f"{people.namespace}/web"]
    assert any('cannot list resource "nodes"' in text for text in told["unseen"])
    refused = whois.run("10.61.0.7", kubeconfig=path)
    assert (refused.code, "403" in refused.stderr) == (69, True)


def test_reservation_on_a_node(people: Population, seeded: SeededNode, tmp_path: Path) -> None:
    """On a node the reservation is shown beside what the API server says."""
    conf = seeded.conf()
    seeded.configure(conf)
    (address, *_) = seeded.add(conf, "c1", "shop/p1")
    env = {"KUBECONFIG": str(people.kubeconfig)}
    told = json.loads(forked.run(["whois", address.partition("/")[0], f"--cni-config={seeded.net}", "-o", "json"], env).stdout)
    assert [(one["network"], one["pod"]) for one in told["reserved"]] == [("k8snet", "shop/p1")]
    assert "shop/p1" in forked.run(["whois", address, f"--cni-config={seeded.net}"], env).stdout


def test_status_on_the_wrong_node(people: Population, seeded: SeededNode, tmp_path: Path) -> None:
    """`status` of another node's address names that node and its pod; where the API server cannot be asked it says what it did before."""
    seeded.configure(seeded.conf(nodeFile=str(seeded.run / "node.json")))
    env = {"KUBECONFIG": str(people.kubeconfig)}
    there = seeded.run_command("status", "10.61.0.7", env=env)
    assert there.code == 1
    for part in (f"10.61.0.0/24 belongs to node {people.name('a')} (spec.podCIDRs)", f"pod {people.namespace}/web"):
        assert part in there.stdout
    told = json.loads(seeded.run_command("status", "fd61::7", "-o", "json", env=env).stdout)
    assert told["elsewhere"] == {"nodes": [people.name("a")], "pods": [f"{people.namespace}/web"]}
    assert "nor in another node's" in seeded.run_command("status", "203.0.113.5", env=env).stdout
    alone = seeded.run_command("status", "10.61.0.7", env={"HOME": str(tmp_path)})
    assert "No pod has 10.61.0.7, and it is in no subnet of this node's networks." in alone.stdout
