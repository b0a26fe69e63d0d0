# SPDX-License-Identifier: Apache-2.0
"""What the manifest's ServiceAccount may do is enough, and no rule of it is too much."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from controllerprocess import ControllerProcess, until
from corner import APIS, GROUP, ROOT
from rendered import LOADER

from kubenode.ipam.ranges import parse_subnet
from kubenode.pools.records import NodeSubnet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from apiserver import ApiServer
    from corner import Corner

RBAC = "/apis/rbac.authorization.k8s.io/v1"
MANIFESTS = list(yaml.load_all((ROOT / "deploy/controller/rbac.yaml").read_text(), Loader=LOADER))
RULES = [
    (f"{manifest['kind']}/{manifest['metadata']['name']}", index, verb)
    for manifest in MANIFESTS
    if manifest["kind"] in ("ClusterRole", "Role")
    for index, rule in enumerate(manifest["rules"])
    for verb in rule["verbs"]
]


def path_of(manifest: dict[str, Any]) -> str:
    plural = {"ServiceAccount": "serviceaccounts"}.get(manifest["kind"], f"{manifest['kind'].lower()}s")
    group = "/api/v1" if manifest["kind"] == "ServiceAccount" else RBAC
    namespace = manifest["metadata"].get("namespace")
    return f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"


@pytest.fixture
def rights(crds: ApiServer) -> Iterator[ApiServer]:
    """Apply the manifest as it is."""
    for manifest in MANIFESTS:
        crds.request("POST", path_of(manifest), manifest)
    yield crds
    for manifest in reversed(MANIFESTS):
        crds.request("DELETE", f"{path_of(manifest)}/{manifest['metadata']['name']}")


@pytest.fixture
def account(rights: ApiServer, tmp_path: Path) -> Path:
    lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    rights.request("DELETE", f"{lease}?fieldSelector=metadata.name=kube-node-controller")
    token = {"token": rights.token("kube-node-controller")}
    return rights.kubeconfig(tmp_path / "account", token)


def live(corner: Corner, process: ControllerProcess) -> None:
    """Have the controller do all that it does: give, adopt, warn, take back, tell its state, keep the Lease."""
    pool = corner.pool("net", [{"cidr": "172.20.0.0/22", "nodePrefix": 24}], reclaimAfter="1s")
    one, gone = corner.node("a"), corner.node("b")
    until(lambda: corner.annotation(one) and corner.annotation(gone), 20, process.log)
    bad = corner.node("c", annotation="10.9.0.0/24")
    had = str(corner.annotation(gone))
    corner.server.delete_node(gone)
    until(lambda: had not in corner.claims(), 20, process.log)
    until(lambda: corner.events(bad), 20, process.log)
    until(lambda: corner.condition(pool, "Conflict")[0] == "True", 20, process.log)


def test_the_manifest_is_enough(corner: Corner, account: Path, tmp_path: Path) -> None:
    """With the manifest's ServiceAccount everything works, and nothing is refused."""
    with ControllerProcess(account, tmp_path / "controller.log") as process:
        live(corner, process)
        until(lambda: process.get("/readyz") == (200, "ok\n"), why=process.log)
        assert process.stop() == 0
        assert "answered 403" not in process.log()


@pytest.mark.servers("best")
@pytest.mark.parametrize(("role", "index", "verb"), RULES, ids=str)
def test_a_right_is_missing(corner: Corner, rights: ApiServer, account: Path, tmp_path: Path, role: str, index: int, verb: str) -> None:
    """With any one right taken away, an error names what is missing: verb, resource and the rule to bind."""
    kind, _, name = role.partition("/")
    manifest = next(each for each in MANIFESTS if (each["kind"], each["metadata"]["name"]) == (kind, name))
    less = copy.deepcopy(manifest)
    resource = less["rules"][index]["resources"][0]
    less["rules"][index]["verbs"].remove(verb)
    less["rules"] = [rule for rule in less["rules"] if rule["verbs"]]
    rights.request("PUT", f"{path_of(manifest)}/{name}", less)
    expected = f'resources: ["{resource}"], verbs: ["{verb}"]'.replace('"', '\\"')
    with ControllerProcess(account, tmp_path / "controller.log") as process:
        provoke(corner, lambda: expected in process.log())
        until(lambda: expected in process.log(), 20, process.log)


def provoke(corner: Corner, said: Callable[[], bool]) -> None:
    """Have the controller do all that it does, until it has `said` what it cannot."""
    spec = {"cidr": "172.20.9.0/24", "pool": f"none-{corner.id}", "annotation": corner.key, "node": "none", "nodeUID": "none"}
    broken = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "NodeSubnet", "metadata": {"name": "172.20.0.0-24"}, "spec": spec}
    corner.server.request("POST", f"{APIS}/nodesubnets", broken)  # of another's name: has to be looked at
    corner.pool("net", [{"cidr": "172.20.0.0/20", "nodePrefix": 24}], reclaimAfter="1s")
    closing(corner)
    gone = corner.node("b")
    corner.node("c", annotation="10.9.0.0/24")
    until(lambda: corner.annotation(gone) or said())
    corner.server.delete_node(gone)


def closing(corner: Corner) -> None:
    """Have a pool that grows, with a node that has returned a block, and one whose NodeAddresses ask for too little."""
    key, corner.key = corner.key, f"{corner.key}-grows"
    pool = corner.pool("grows", [{"cidr": "172.21.0.0/24", "nodePrefix": 28}], minFree=2)
    for cidr in ("172.21.0.0/28", "172.21.0.16/28"):
        claim = NodeSubnet(parse_subnet(cidr), pool, corner.key, f"g-{corner.id}", "none")
        corner.server.request("POST", f"{APIS}/nodesubnets", claim.manifest())
    node, other = corner.node("g", annotation="172.21.0.0/28,172.21.0.16/28 closing"), corner.node("h")
    for name in (node, other):
        body = {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "NodeAddresses",
            "metadata": {"name": name},
            "spec": {"minFree": {corner.key: 1}},
        }
        corner.server.request("POST", f"{APIS}/nodeaddresses", body)
    corner.report(node, {})
    corner.node("i")
    corner.key = key
