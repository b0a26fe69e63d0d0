# SPDX-License-Identifier: Apache-2.0
"""The controller on an API server: pools and nodes come, change and go."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from controllerprocess import until
from corner import APIS, GROUP

if TYPE_CHECKING:
    from pathlib import Path

    from controllerprocess import ControllerProcess
    from corner import Corner

V4 = {"cidr": "172.20.0.0/22", "nodePrefix": 24}
V6 = {"cidr": "fd00:20::/60", "nodePrefix": 64}


def wait(corner: Corner, node: str, text: str | None) -> None:
    until(lambda: corner.annotation(node) == text, why=lambda: (corner.annotation(node), corner.claims()))


@pytest.mark.usefixtures("controller")
def test_nodes_get_subnets(corner: Corner) -> None:
    """Each node gets one subnet of each family, the object first; the pool's status counts them."""
    first = corner.node("a")
    pool = corner.pool("net", [V4, V6])
    wait(corner, first, "172.20.0.0/24,fd00:20::/64")
    second = corner.node("b")
    wait(corner, second, "172.20.1.0/24,fd00:20:0:1::/64")
    claim = corner.claims()["172.20.1.0/24"]
    assert (claim["node"], claim["pool"], claim["annotation"]) == (second, pool, corner.key)
    assert claim["nodeUID"] == corner.server.request("GET", f"/api/v1/nodes/{second}")["metadata"]["uid"]
    expected = [
        {"cidr": "172.20.0.0/22", "total": 4, "allocated": 2, "free": 2},
        {"cidr": "fd00:20::/60", "total": 16, "allocated": 2, "free": 14},
    ]
    until(lambda: corner.status(pool).get("cidrs") == expected, why=lambda: corner.status(pool))
    assert corner.condition(pool, "Ready")[0] == "True"
    assert corner.condition(pool, "Conflict")[0] == "False"
    assert corner.status(pool)["observedGeneration"] == 1


@pytest.mark.usefixtures("controller")
def test_full_and_grown(corner: Corner) -> None:
    """A node for which nothing is left is named by the pool; another CIDR, or an exclusion that is taken back, serves it."""
    small = {"cidr": "172.21.0.0/24", "nodePrefix": 25, "exclude": ["172.21.0.128/25"]}
    pool = corner.pool("net", [small])
    one, two, three = corner.node("a"), "", ""
    wait(corner, one, "172.21.0.0/25")
    two = corner.node("b")
    until(lambda: corner.condition(pool, "Exhausted")[0] == "True")
    assert two in corner.condition(pool, "Exhausted")[2]
    assert [event["reason"] for event in corner.events(pool)] == ["NodesWaiting"]
    corner.pool("net", [{**small, "exclude": []}])
    wait(corner, two, "172.21.0.128/25")
    three = corner.node("c")
    corner.pool("net", [{**small, "exclude": []}, {"cidr": "172.22.0.0/24", "nodePrefix": 25}])
    wait(corner, three, "172.22.0.0/25")
    until(lambda: corner.condition(pool, "Exhausted")[0] == "False")


@pytest.mark.usefixtures("controller")
def test_adoption(corner: Corner) -> None:
    """Annotations as the pool would write them are taken over; what is in conflict stays, too, and shows in the pool and as an Event."""
    texts = {"a": "172.20.1.0/24, fd00:20::/64", "b": "10.9.0.0/24", "c": "172.20.1.0/25", "d": "172.20.2.0/25", "e": "rubbish"}
    nodes = {name: corner.node(name, annotation=text) for name, text in texts.items()}
    pool = corner.pool("net", [V4, V6])
    new = corner.node("f")
    wait(corner, new, "172.20.0.0/24,fd00:20:0:1::/64")
    until(lambda: "more" in corner.condition(pool, "Conflict")[2] or "rubbish" in corner.condition(pool, "Conflict")[2])
    assert {name: corner.annotation(node) for name, node in nodes.items()} == texts
    adopted = {cidr: spec["node"] for cidr, spec in corner.claims().items() if spec.get("adopted")}
    assert adopted == {"172.20.1.0/24": nodes["a"], "fd00:20::/64": nodes["a"]}
    assert [event["reason"] for event in corner.events(nodes["d"])] == ["SubnetNotAdopted"]
    assert [event["reason"] for event in corner.events(nodes["b"])] == ["SubnetOutsidePools"]
    assert [event["reason"] for event in corner.events(nodes["c"])] == ["SubnetOverlap"]
    assert nodes["a"] in corner.events(nodes["c"])[0]["message"]
    assert [event["reason"] for event in corner.events(nodes["e"])] == ["AnnotationUnreadable"]
    corner.annotate(nodes["b"], None)
    wait(corner, nodes["b"], "172.20.3.0/24,fd00:20:0:2::/64")


@pytest.mark.usefixtures("controller")
def test_a_node_with_all_addresses(corner: Corner) -> None:
    """A node that annotates itself with everything stops nobody: it is in conflict, and the others get their subnets."""
    evil = corner.node("a", annotation="0.0.0.0/0,::/0")
    pool = corner.pool("net", [V4, V6])
    wait(corner, corner.node("b"), "172.20.0.0/24,fd00:20::/64")
    until(lambda: corner.condition(pool, "Conflict")[0] == "True")
    assert evil in corner.condition(pool, "Conflict")[2]
    assert corner.annotation(evil) == "0.0.0.0/0,::/0"


@pytest.mark.usefixtures("controller")
def test_a_pool_moves_to_another_annotation(corner: Corner) -> None:
    """Nodes get subnets in the new annotation, and keep those in the old one as long as they are there."""
    node, old = corner.node("a"), corner.key
    corner.pool("net", [V4], reclaimAfter="1s")
    wait(corner, node, "172.20.0.0/24")
    corner.key = f"{old}-new"
    corner.pool("net", [V4], reclaimAfter="1s")
    wait(corner, node, "172.20.1.0/24")
    gone = corner.node("b")
    wait(corner, gone, "172.20.2.0/24")
    corner.server.delete_node(gone)
    until(lambda: "172.20.2.0/24" not in corner.claims(), 10, corner.claims)  # what is to be taken after a second has been
    assert {cidr: "releasedAt" in spec for cidr, spec in corner.claims().items()} == {"172.20.0.0/24": False, "172.20.1.0/24": False}
    corner.merge(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {old: None}}})
    until(lambda: list(corner.claims()) == ["172.20.1.0/24"], 10, corner.claims)


@pytest.mark.usefixtures("controller")
def test_a_node_is_created_anew(corner: Corner) -> None:
    """A node that comes back under its name, with another uid, gets its subnets back at once."""
    corner.pool("net", [V4])
    node, other = corner.node("a"), corner.node("b")
    until(lambda: corner.annotation(node) and corner.annotation(other))
    had = corner.annotation(node)
    corner.server.delete_node(node)
    until(lambda: "releasedAt" in corner.claims()[str(had)])
    corner.node("a")
    wait(corner, node, had)
    claim = corner.claims()[str(had)]
    assert "releasedAt" not in claim
    assert claim["nodeUID"] == corner.server.request("GET", f"/api/v1/nodes/{node}")["metadata"]["uid"]


@pytest.mark.usefixtures("controller")
def test_reclaim(corner: Corner) -> None:
    """The subnet of a node that is gone is free after reclaimAfter, and not before."""
    corner.pool("net", [{"cidr": "172.20.0.0/24", "nodePrefix": 24}], reclaimAfter="4s")
    first = corner.node("a")
    wait(corner, first, "172.20.0.0/24")
    corner.server.delete_node(first)
    gone = time.time()
    second = corner.node("b")
    wait(corner, second, "172.20.0.0/24")
    assert time.time() - gone >= 3  # a stamp has no fractions
    assert corner.claims()["172.20.0.0/24"]["node"] == second


@pytest.mark.usefixtures("controller")
def test_a_broken_node_subnet(corner: Corner) -> None:
    """A subnet whose name is taken by what means nothing is not given, until that is gone: then who has waited for it gets it."""
    spec = {"cidr": "172.20.9.0/24", "pool": "none", "annotation": corner.key, "node": "none", "nodeUID": "none"}
    broken = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "NodeSubnet", "metadata": {"name": "172.20.0.0-24"}, "spec": spec}
    corner.server.request("POST", f"{APIS}/nodesubnets", broken)
    pool = corner.pool("net", [{"cidr": "172.20.0.0/23", "nodePrefix": 24}])
    first = corner.node("a")
    wait(corner, first, "172.20.1.0/24")
    second = corner.node("b")
    until(lambda: corner.condition(pool, "Exhausted")[0] == "True")
    assert corner.annotation(second) is None
    corner.server.request("DELETE", f"{APIS}/nodesubnets/172.20.0.0-24")
    wait(corner, second, "172.20.0.0/24")


@pytest.mark.usefixtures("controller")
def test_labels(corner: Corner) -> None:
    """A node that begins to match is served; one that no longer matches keeps what it has."""
    corner.pool("net", [V4], nodeSelector={"matchLabels": {"test": corner.id, "rack": "a"}})
    node = corner.node("a", labels={"rack": "b"})
    corner.label(node, rack="a")
    wait(corner, node, "172.20.0.0/24")
    corner.label(node, rack="b")
    other = corner.node("b", labels={"rack": "a"})
    wait(corner, other, "172.20.1.0/24")
    assert corner.annotation(node) == "172.20.0.0/24"
    assert "releasedAt" not in corner.claims()["172.20.0.0/24"]


@pytest.mark.usefixtures("controller")
def test_shrunk_and_deleted(corner: Corner) -> None:
    """A pool that shrinks or goes takes nothing; what is in the way is named."""
    other = {"cidr": "172.24.0.0/24", "nodePrefix": 24}
    pool = corner.pool("net", [{"cidr": "172.20.0.0/24", "nodePrefix": 24}, other])
    node = corner.node("a")
    wait(corner, node, "172.20.0.0/24")
    corner.pool("net", [other])
    until(lambda: corner.condition(pool, "Conflict")[1] == "InTheWay")
    assert node in corner.condition(pool, "Conflict")[2]
    assert "172.20.0.0/24" in corner.condition(pool, "Conflict")[2]
    assert corner.annotation(node) == "172.20.0.0/24"
    corner.server.request("DELETE", f"/apis/kube-node.nordix.org/v1alpha1/subnetpools/{pool}")
    corner.pools.discard(pool)
    corner.pool("later", [{"cidr": "172.20.0.0/23", "nodePrefix": 24}])
    second = corner.node("b")
    wait(corner, second, "172.20.1.0/24")
    assert corner.annotation(node) == "172.20.0.0/24"
    assert corner.claims()["172.20.0.0/24"]["node"] == node


@pytest.mark.usefixtures("controller")
def test_moving_on(corner: Corner) -> None:
    """A node whose annotation somebody removes gets a subnet that the pool offers now; the old one is free after reclaimAfter."""
    node, pool = corner.node("a"), corner.pool("net", [{"cidr": "172.20.0.0/24", "nodePrefix": 24}], reclaimAfter="1s")
    wait(corner, node, "172.20.0.0/24")
    corner.pool("net", [{"cidr": "172.24.0.0/24", "nodePrefix": 24}], reclaimAfter="1s")
    until(lambda: corner.condition(pool, "Conflict")[1] == "InTheWay")
    corner.annotate(node, None)
    wait(corner, node, "172.24.0.0/24")
    until(lambda: list(corner.claims()) == ["172.24.0.0/24"], 10, corner.claims)
    until(lambda: corner.condition(pool, "Conflict")[0] == "False")


@pytest.mark.usefixtures("controller")
def test_service_cidrs(corner: Corner) -> None:
    """A pool that overlaps a ServiceCIDR says so, where the API server has these; one that does not is well."""
    path, name = "/apis/networking.k8s.io/v1/servicecidrs", f"services-{corner.id}"
    manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": ["172.26.0.0/16"]},
    }
    expected = ("True", "ReservedOverlap", "172.26.0.0/16 overlaps 172.26.0.0/16, the service network")
    try:
        corner.server.request("POST", path, manifest)
    except RuntimeError as error:  # before 1.33
        if "404" not in str(error):
            raise
        expected = ("False", "NoConflict", "no subnet is in two places")
    try:
        one = corner.pool("a", [{"cidr": "172.26.0.0/16", "nodePrefix": 24}])
        two = corner.pool("b", [{"cidr": "172.27.0.0/16", "nodePrefix": 24}])
        until(lambda: corner.condition(one, "Conflict") == expected, 20)
        until(lambda: corner.condition(two, "Conflict")[0] == "False", 20)
    finally:
        if expected[0] == "True":
            corner.server.request("DELETE", f"{path}/{name}")


@pytest.mark.usefixtures("controller")
def test_warnings(corner: Corner) -> None:
    """Pools that overlap each other or a podCIDR say so; the younger with another nodePrefix gives nothing there."""
    corner.server.create_node(f"podcidr-{corner.id}", ["172.31.7.0/24"])
    try:
        one = corner.pool("a", [{"cidr": "172.28.0.0/16", "nodePrefix": 24}])
        until(lambda: corner.condition(one, "Ready")[0] == "True")
        time.sleep(1)  # creation is told in seconds
        two = corner.pool("b", [{"cidr": "172.28.0.0/15", "nodePrefix": 25}])
        until(lambda: corner.condition(two, "Ready")[:2] == ("False", "Overlap"))
        for pool, other in ((one, two), (two, one)):
            until(lambda pool=pool: corner.condition(pool, "Conflict")[1] == "PoolOverlap")  # type: ignore[misc]
            assert other in corner.condition(pool, "Conflict")[2]
        three = corner.pool("c", [{"cidr": "172.31.0.0/16", "nodePrefix": 24}])
        until(lambda: corner.condition(three, "Conflict")[1] == "ReservedOverlap", 20)
        assert f"podCIDR of Node podcidr-{corner.id}" in corner.condition(three, "Conflict")[2]
    finally:
        corner.server.delete_node(f"podcidr-{corner.id}")


def test_a_crash_between_object_and_annotation(corner: Corner, admin: Path, controller: ControllerProcess, tmp_path: Path) -> None:
    """What a controller has begun, the next one completes; a restart with all in place writes nothing."""
    controller.kill()
    pool = corner.pool("net", [V4])
    node = corner.node("a")
    uid = corner.server.request("GET", f"/api/v1/nodes/{node}")["metadata"]["uid"]
    spec = {"cidr": "172.20.3.0/24", "pool": pool, "annotation": corner.key, "node": node, "nodeUID": uid}
    claim = {"apiVersion": "kube-node.nordix.org/v1alpha1", "kind": "NodeSubnet", "metadata": {"name": "172.20.3.0-24"}, "spec": spec}
    corner.server.request("POST", "/apis/kube-node.nordix.org/v1alpha1/nodesubnets", claim)
    controller.start()
    wait(corner, node, "172.20.3.0/24")
    until(lambda: corner.condition(pool, "Ready")[0] == "True")
    assert controller.stop() == 0
    before = len(corner.server.asked())
    controller.start()
    until(lambda: controller.get("/readyz")[0] == 200)
    until(lambda: "kubenode_controller_queue_depth 0.0" in controller.get("/metrics")[1])  # all has been looked at
    assert {asked.verb for asked in corner.server.asked()[before:]} <= {"list", "watch"}


@pytest.mark.usefixtures("controller")
def test_the_api_server_restarts(corner: Corner) -> None:
    """What happens while the API server is away, and after it has forgotten what it told, is caught up with."""
    corner.pool("net", [V4])
    one = corner.node("a")
    wait(corner, one, "172.20.0.0/24")
    corner.server.stop()
    corner.server.start()
    corner.annotate(one, None)
    two = corner.node("b")
    until(lambda: corner.annotation(one) and corner.annotation(two), 40, corner.claims)
    assert (corner.annotation(one), corner.annotation(two)) == ("172.20.0.0/24", "172.20.1.0/24")


def test_metrics(corner: Corner, controller: ControllerProcess) -> None:
    """Metrics tell how much is free, how long it took, and what is in conflict."""
    pool = corner.pool("net", [V4])
    node = corner.node("a")
    wait(corner, node, "172.20.0.0/24")
    corner.node("b", annotation="10.9.0.0/24")
    line = f'kubenode_controller_conflicts{{pool="{pool}"}} 1.0'
    until(lambda: line in controller.get("/metrics")[1], why=lambda: controller.get("/metrics")[1])
    until(lambda: "kubenode_controller_queue_depth 0.0" in controller.get("/metrics")[1], why=lambda: controller.get("/metrics")[1])
    text = controller.get("/metrics")[1]
    assert re.search(rf'^kubenode_controller_subnets_free{{.*pool="{pool}".*}} 3\.0$', text, re.MULTILINE)
    assert "kubenode_controller_allocation_duration_seconds_count 1.0" in text
    assert 'kubenode_controller_api_requests_total{resource="nodesubnets",result="201",verb="create"}' in text
    assert controller.get("/healthz")[0] == 200
