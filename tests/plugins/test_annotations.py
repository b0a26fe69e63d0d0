# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a Node's subnets: each has its own message, with the Node's name, the annotation's, and the bad part."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from callplugin import outdate

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer
    from callplugin import NetworkMaker, ViewWriter
    from ways import ActivatedAgent

KEY = "kube-node.nordix.org/net1"
MAPPED = "IPNet IP and Mask version mismatch: ::ffff:10.0.0.0/120 is an IPv4-mapped IPv6 network (::ffff:0:0/96); write it as IPv4"
HOST_BITS = "Network has host bits set. For a subnet mask of length 24 the network address is 172.20.2.0"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("172.20.2.5/24", f"annotation {KEY} of Node n: {HOST_BITS}"),
        ("fd00::/64,172.20.2.5/24", f"annotation {KEY} of Node n: {HOST_BITS}"),
        ("::ffff:10.0.0.0/120", f"annotation {KEY} of Node n: {MAPPED}"),
        ("10.0.0.0/8,10.1.0.0/16", f"annotation {KEY} of Node n: subnets 10.0.0.0/8 and 10.1.0.0/16 overlap"),
        ("fd00::/64, fd00::/96", f"annotation {KEY} of Node n: subnets fd00::/64 and fd00::/96 overlap"),
        ("", f"annotation {KEY} of Node n is empty"),
        (" \t", f"annotation {KEY} of Node n is empty"),
        ("rubbish", f"annotation {KEY} of Node n: invalid CIDR address: rubbish"),
        ("172.20.2.0", f"annotation {KEY} of Node n: invalid CIDR address: 172.20.2.0"),
        ("172.20.2.0/33", f"annotation {KEY} of Node n: invalid CIDR address: 172.20.2.0/33"),
        ("172.20.2.0/31", f"annotation {KEY} of Node n: Network 172.20.2.0/31 too small to allocate from"),
        ("172.20.2.0/24,", f"annotation {KEY} of Node n: an empty subnet: a comma too many"),
        ("$(id)", f"annotation {KEY} of Node n: invalid CIDR address: $(id)"),
    ],
)
def test_bad_annotation(embedded: NetworkMaker, view: ViewWriter, value: str, problem: str) -> None:
    """A bad annotation names itself, its Node and the part; nothing is reserved, and the pod's DEL works."""
    view("11.0.1.0/24", annotations={KEY: value})
    net = embedded(annotation=KEY)
    error = net.error()
    assert (error["code"], error["msg"]) == (108, problem)
    assert error["details"]
    net.ok("DEL")
    assert net.reserved() == []


def test_no_such_annotation(embedded: NetworkMaker, view: ViewWriter) -> None:
    """A missing annotation is an error that tells the command that would set it."""
    view("11.0.1.0/24", annotations={"other": "172.20.2.0/24"})
    error = embedded(annotation=KEY).error()
    assert error == {
        "cniVersion": "1.1.0",
        "code": 107,
        "msg": f"Node n has no annotation {KEY}",
        "details": f"kubectl annotate node n {KEY}=VALUE",
    }


@pytest.mark.parametrize(("cidrs", "problem"), [(["10.0.0.1/24"], "host bits"), (["x"], "invalid CIDR address: x")])
def test_bad_pod_cidrs(embedded: NetworkMaker, view: ViewWriter, cidrs: list[str], problem: str) -> None:
    """podCIDRs that cannot be used are an error with the Node's name."""
    view(*cidrs)
    error = embedded().error()
    assert error["code"] == 106
    assert error["msg"].startswith("spec.podCIDRs of Node n: ")
    assert problem in error["msg"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is neither JSON nor YAML"),
        ("[]", "is not a Node manifest"),
        ('{"kind": "Pod"}', "kind is not Node"),
        ("{}", "has no metadata.name"),
        ('{"metadata": 5}', "metadata is not an object"),
        ('{"metadata": {"name": "n"}, "spec": {"podCIDRs": "x"}}', "spec.podCIDRs is not a list of strings"),
        ('{"metadata": {"name": "n", "annotations": {"a": 1}}}', "annotation 'a' is not a string"),
    ],
)
@pytest.mark.parametrize("as_view", [True, False])
def test_bad_manifest(embedded: NetworkMaker, run_dir: Path, tmp_path: Path, content: str, problem: str, *, as_view: bool) -> None:
    """A Node manifest that cannot be used, as nodeFile or as view, is an error that says what is wrong with it."""
    path = run_dir / "node.json" if as_view else tmp_path / "node.yaml"
    path.write_text(content)
    net = embedded(**({} if as_view else {"nodeFile": str(path)}))
    error = net.error()
    assert error["code"] == 106
    assert problem in error["msg"]
    net.ok("DEL")


def test_a_missing_node_file(embedded: NetworkMaker, tmp_path: Path) -> None:
    """A nodeFile that is not there is an error with its path."""
    error = embedded(nodeFile=str(tmp_path / "none")).error()
    assert (error["code"], error["msg"]) == (106, f"nodeFile {tmp_path}/none: No such file or directory")


def test_a_node_file_in_yaml(embedded: NetworkMaker, tmp_path: Path) -> None:
    """A nodeFile serves instead of an API server."""
    (tmp_path / "node.yaml").write_text("kind: Node\nmetadata: {name: y}\nspec:\n  podCIDRs: [10.9.0.0/24]\n")
    assert embedded(nodeFile=str(tmp_path / "node.yaml")).add() == ["10.9.0.2"]


@pytest.mark.parametrize(("before", "code"), [("rubbish", 108), ("", 108), (None, 107)])
def test_the_next_add_sees_a_corrected_annotation(
    network: NetworkMaker,
    activated: ActivatedAgent | None,
    api_server: RealApiServer,
    node: str,
    kubeconfig: str,
    run_dir: Path,
    before: str | None,
    code: int,
) -> None:
    """After the operator has corrected the annotation, or set it, pods start within a second, without waiting for refreshAfter."""
    api_server.annotate(node, {KEY: before})
    net = network(kubeconfig=kubeconfig, annotation=KEY)
    assert net.error()["code"] == code
    api_server.annotate(node, {KEY: "172.20.5.0/24"})
    if activated:  # which is told of it
        time.sleep(1)
    else:
        outdate(run_dir, 2)  # seconds: a wrong view is asked for again after one
    assert net.add() == ["172.20.5.2"]
