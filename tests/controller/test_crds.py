# SPDX-License-Identifier: Apache-2.0
"""What the API server itself refuses of a SubnetPool, and what kubectl shows."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from controllerprocess import until
from wanting import want

from kubenode.pools.records import parse_pool

if TYPE_CHECKING:
    from pathlib import Path

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
        ({"cidrs": [{**NET, "nodePrefix": 129}]}, "nodePrefix"),
        ({"cidrs": [{**NET, "shared": "yes"}]}, "shared"),
        ({"cidrs": [{**NET, "gateway": "router-1"}]}, "gateway"),
        ({"cidrs": [{**NET, "nodePrefix": "24"}]}, "nodePrefix"),
        ({"cidrs": [{**NET, "exclude": ["host"]}]}, "exclude"),
        ({"cidrs": [NET, NET]}, "cidrs"),
        ({"cidrs": [NET], "annotation": "two words"}, "annotation"),
        ({"cidrs": [NET], "reclaimAfter": "soon"}, "reclaimAfter"),
        ({"cidrs": [NET], "minFree": -1}, "minFree"),
        ({"cidrs": [NET], "minFree": 65537}, "minFree"),
        ({"cidrs": [NET], "maxBlocks": 0}, "maxBlocks"),
        ({"cidrs": [NET], "maxBlocks": 129}, "maxBlocks"),
        ({"cidrs": [NET], "shrinkAfter": "never"}, "shrinkAfter"),
        ({"cidrs": [NET], "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}, "operator"),
    ],
)
def test_the_api_server_refuses(corner: Corner, spec: dict[str, Any], field: str) -> None:
    """What a pattern can tell does not get in, and the answer names the field."""
    manifest = {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "SubnetPool", "metadata": {"name": f"p-{corner.id}"}, "spec": spec}
    with pytest.raises(RuntimeError, match=rf"422 .*spec\.{'.*' if field != 'cidrs' else ''}{field}"):
        corner.server.request("POST", "/apis/kube-node.nordix.org/v1alpha1/subnetpools", manifest)


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
