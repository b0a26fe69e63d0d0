"""What the API server itself refuses of a SubnetPool, and what kubectl shows."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from controllerprocess import until
from corner import ROOT
from wanting import want

from kubenode.pools.records import parse_pool

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import ApiServer
    from corner import Corner

NET = {"cidr": "172.20.0.0/16", "nodePrefix": 24}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"cidrs": []}, "cidrs"),
        ({"cidrs": [{"cidr": "172.20.0.0/16"}]}, "nodePrefix"),
        ({"cidrs": [{**NET, "cidr": "172.20.0.0"}]}, "cidr"),
        ({"cidrs": [{**NET, "cidr": "172.20.0.300/16"}]}, "cidr"),
        ({"cidrs": [{**NET, "cidr": "172.20.0.0/31"}]}, "cidr"),
        ({"cidrs": [{**NET, "nodePrefix": 127}]}, "nodePrefix"),
        ({"cidrs": [{**NET, "nodePrefix": "24"}]}, "nodePrefix"),
        ({"cidrs": [{**NET, "exclude": ["host"]}]}, "exclude"),
        ({"cidrs": [NET, NET]}, "cidrs"),
        ({"cidrs": [NET], "annotation": "two words"}, "annotation"),
        ({"cidrs": [NET], "reclaimAfter": "soon"}, "reclaimAfter"),
        ({"cidrs": [NET], "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}, "operator"),
    ],
)
def test_the_api_server_refuses(corner: Corner, spec: dict[str, Any], field: str) -> None:
    """What a pattern can tell does not get in, and the answer names the field."""
    manifest = {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "SubnetPool", "metadata": {"name": f"p-{corner.id}"}, "spec": spec}
    with pytest.raises(RuntimeError, match=rf"422 .*spec\.{'.*' if field != 'cidrs' else ''}{field}"):
        corner.server.request("POST", "/apis/kube-node.nordix.org/v1alpha1/subnetpools", manifest)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"cidrs": [{**NET, "nodePrefix": 12}]}, "nodePrefix of 172.20.0.0/16 has to be from 16 to 30"),
        ({"cidrs": [{**NET, "nodePrefix": 31}]}, "has to be from 16 to 30"),
        ({"cidrs": [{**NET, "cidr": "172.20.0.1/16"}]}, "host bits"),
        ({"cidrs": [{**NET, "exclude": ["172.21.0.1"]}]}, "exclude 172.21.0.1/32 is not in 172.20.0.0/16"),
        ({"cidrs": [NET, {"cidr": "172.20.4.0/24", "nodePrefix": 26}]}, "of the same pool overlap"),
        ({"cidrs": [NET], "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "In of label a needs values"),
    ],
)
def test_what_only_we_can_tell(spec: dict[str, Any], says: str) -> None:
    """What no pattern can tell is a problem of the pool that says what would be right."""
    (problem,) = parse_pool({"metadata": {"name": "p"}, "spec": spec}).problems
    assert says in problem


TOO_LONG = "p" * 64


@pytest.fixture(scope="module")
def checked(crds: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Define pools of another name with the component's rules; return the path of their collection."""
    want("kubectl")
    overlay = tmp_path_factory.mktemp("overlay")
    resources = [os.path.relpath(ROOT / "deploy/controller/crds.yaml", overlay)]
    kustomization = {"resources": resources, "components": [os.path.relpath(ROOT / "deploy/components/cel", overlay)]}
    (overlay / "kustomization.yaml").write_text(json.dumps(kustomization))
    kustomize = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(overlay)]
    text = subprocess.run(kustomize, check=True, capture_output=True, text=True).stdout
    for old, new in (("subnetpool", "checkedpool"), ("SubnetPool", "CheckedPool")):
        text = text.replace(old, new)
    (manifest,) = [one for one in yaml.safe_load_all(text) if one["spec"]["names"]["kind"] == "CheckedPool"]
    crds.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", manifest)
    path = "/apis/kube-node.nordix.org/v1alpha1/checkedpools"
    until(lambda: is_served(crds, path), 20)
    return path


def is_served(server: ApiServer, path: str) -> bool:
    try:
        server.request("GET", path)
    except RuntimeError:
        return False
    return True


@pytest.mark.servers("real")
@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("p", {"cidrs": [{**NET, "nodePrefix": 12}]}),
        ("p", {"cidrs": [{**NET, "nodePrefix": 31}]}),
        ("p", {"cidrs": [{"cidr": "fd00::/64", "nodePrefix": 63}]}),
        ("p", {"cidrs": [NET], "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
        ("p", {"cidrs": [NET], "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}}),
        ("p", {"cidrs": [NET], "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
        (TOO_LONG, {"cidrs": [NET]}),
    ],
)
def test_what_a_server_with_cel_refuses(crds: ApiServer, checked: str, name: str, spec: dict[str, Any]) -> None:
    """With the component `cel` a pool that means nothing is refused in the condition's words; an API server without CEL takes it."""
    (problem,) = parse_pool({"metadata": {"name": name}, "spec": spec}).problems
    manifest: dict[str, Any] = {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "CheckedPool", "metadata": {"name": name}}
    knows_cel = int(crds.request("GET", "/version")["minor"].rstrip("+")) >= 27
    crds.request("POST", checked, {**manifest, "spec": {"cidrs": [NET], "annotation": "a"}})
    crds.request("DELETE", f"{checked}/{name}")
    try:
        crds.request("POST", checked, {**manifest, "spec": spec})
    except RuntimeError as error:
        assert (knows_cel, problem in str(error)) == (True, True), error
    else:
        crds.request("DELETE", f"{checked}/{name}")
        assert not knows_cel


def test_a_pool_with_a_long_name() -> None:
    """A name that is too long for an annotation's needs another annotation; till then nothing is given that no Node could be told."""
    manifest: dict[str, Any] = {"metadata": {"name": "p" * 64}, "spec": {"cidrs": [NET]}}
    (problem,) = parse_pool(manifest).problems
    assert "set annotation" in problem
    manifest["spec"]["annotation"] = "example.com/net"
    assert parse_pool(manifest).problems == ()


@pytest.mark.usefixtures("controller")
def test_a_pool_that_cannot_work(corner: Corner) -> None:
    """A pool that means nothing is not Ready, says why, and gives nothing until it is corrected."""
    node = corner.node("a")
    pool = corner.pool("net", [{**NET, "nodePrefix": 12}])
    until(lambda: corner.condition(pool, "Ready")[:2] == ("False", "Invalid"))
    assert "from 16 to 30" in corner.condition(pool, "Ready")[2]
    assert corner.annotation(node) is None
    corner.pool("net", [NET])
    until(lambda: corner.annotation(node) == "172.20.0.0/24")
    until(lambda: corner.condition(pool, "Ready")[0] == "True")


@pytest.mark.servers("real")
@pytest.mark.usefixtures("controller")
def test_kubectl_shows(corner: Corner, admin: Path) -> None:
    """`kubectl get` shows of a pool how full it is, and of a NodeSubnet whose it is."""
    want("kubectl")
    pool, node = corner.pool("net", [NET]), corner.node("a")
    until(lambda: corner.status(pool).get("allocated") == 1)
    kubectl = ["kubectl", f"--kubeconfig={admin}", "get"]
    row = subprocess.run([*kubectl, "subnetpools", pool, "--no-headers"], check=True, capture_output=True, text=True).stdout.split()
    assert row[:7] == [pool, "172.20.0.0/16", "1", "255", "True", "False", "False"]
    row = subprocess.run(
        [*kubectl, "nodesubnets", "172.20.0.0-24", "--no-headers"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert row[:4] == ["172.20.0.0-24", "172.20.0.0/24", pool, node]
