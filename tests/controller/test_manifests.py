# SPDX-License-Identifier: Apache-2.0
"""The manifests of deploy/controller, and `kube-node pools`."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from controllerprocess import until
from corner import APIS, ROOT
from ourprocess import KUBE_NODE
from rendered import LOADER, run
from wanting import want

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer
    from corner import Corner

DEPLOY = ROOT / "deploy/controller"


def test_the_component(tmp_path: Path) -> None:
    """As a kustomize component it brings all of it, with the overlay's image; the Deployment runs twice, as nobody, on a read-only root."""
    want("kubectl")
    overlay = {
        "components": [os.path.relpath(DEPLOY, tmp_path)],
        "images": [{"name": "kube-node", "newName": "example.com/x", "newTag": "1"}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = run("kubectl", "kustomize", tmp_path)
    objects: list[dict[str, Any]] = list(yaml.load_all(built, Loader=LOADER))
    kinds = sorted(each["kind"] for each in objects)
    assert [kind for kind in ("ClusterRole", "Deployment", "PodDisruptionBudget", "ServiceAccount") if kind in kinds] == [
        "ClusterRole", "Deployment", "PodDisruptionBudget", "ServiceAccount",
    ]  # fmt: skip
    assert kinds.count("CustomResourceDefinition") == 3
    deployment = next(each for each in objects if each["kind"] == "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"][0] == "controller"  # after the image's entrypoint
    assert (deployment["replicas"], container["image"]) == (2, "example.com/x:1")
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_deployment_is_valid(api_server: RealApiServer) -> None:
    """The API server takes the Deployment as it is."""
    deployment = next(yaml.safe_load_all((DEPLOY / "deployment.yaml").read_text()))
    api_server.request("POST", "/apis/apps/v1/namespaces/kube-system/deployments?dryRun=All", deployment)


@pytest.mark.usefixtures("controller")
def test_pools(corner: Corner, admin: Path) -> None:
    """`kube-node pools` shows how full pools are, each node of one, and what is wrong; --purge takes away what a deleted one left."""

    def run(*arguments: str) -> str:
        command = [str(KUBE_NODE), "pools", f"--kubeconfig={admin}", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
        return done.stdout + done.stderr

    node, other, more = corner.node("a"), corner.node("b", annotation="172.20.1.0/25"), ""
    pool = corner.pool("net", [{"cidr": "172.20.0.0/23", "nodePrefix": 25}])
    until(lambda: corner.status(pool).get("allocated") == 2)
    overview = next(line for line in run().splitlines() if line.startswith(pool))
    assert overview.split() == [pool, "172.20.0.0/23", "/25", "█" * 8 + "░" * 8, "50", "%", "2", "2", corner.key]
    lines = [line.split() for line in run(pool).splitlines()]
    assert [node, "172.20.0.0/25"] in lines
    assert [other, "172.20.1.0/25", "taken", "over"] in lines
    found = json.loads(run("-o", "json"))["pools"]
    assert [each["cidrs"] for each in found if each["name"] == pool] == [
        [{"cidr": "172.20.0.0/23", "total": 4, "allocated": 2, "free": 2, "nodePrefix": 25, "shared": False, "gateway": "first"}]
    ]
    assert json.loads(run(pool, "-o", "json"))["nodes"] == [
        {"node": node, "subnets": [{"cidr": "172.20.0.0/25", "adopted": False}]},
        {"node": other, "subnets": [{"cidr": "172.20.1.0/25", "adopted": True}]},
    ]
    for name in ("c", "d", "e"):
        more = corner.node(name)
    until(lambda: corner.condition(pool, "Exhausted")[0] == "True")
    assert f"{pool}: Exhausted: nothing is left for 1 node: {more}" in run()
    assert "there is no SubnetPool nowhere" in run("nowhere")
    assert "kubectl delete subnetpool" in run(pool, "--purge", "--yes")
    corner.server.request("DELETE", f"{APIS}/subnetpools/{pool}")
    corner.pools.clear()
    assert "removed 4 subnets" in run(pool, "--purge", "--yes")
    assert corner.claims() == {}
    assert (corner.annotation(node), corner.annotation(other)) == (None, "172.20.1.0/25")
