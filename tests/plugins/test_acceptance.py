# SPDX-License-Identifier: Apache-2.0
"""The original plugin's own list of what has to work, against a real API server, with host-local and without."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment, execute
from ways import DIFFERENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import RealApiServer
    from callplugin import NetworkMaker

KEY = "kube-node.nordix.org/net1"


@pytest.fixture
def only(api_server: RealApiServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Let our Node have the podCIDRs that the test asks for."""
    name = f"only-{secrets.token_hex(4)}"
    api_server.create_node(name, request.param)
    monkeypatch.setenv("NODE_NAME", name)
    yield
    api_server.delete_node(name)


@pytest.mark.parametrize("name", ["kube-node", "node-annotation"])
def test_version(binaries: Path, name: str) -> None:
    """VERSION says what is supported, and answers in the version that was asked for."""
    answer = execute(binaries / name, {"cniVersion": "0.4.0"}, environment("VERSION"))
    supported = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
    assert (answer.code, answer.json) == (0, {"cniVersion": "0.4.0", "supportedVersions": supported})


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "STATUS", "GC"])
@pytest.mark.parametrize("name", ["kube-node", "node-annotation"])
def test_empty_input(binaries: Path, name: str, command: str) -> None:
    """Nothing on standard input is undecodable."""
    answer = execute(binaries / name, b"", environment(command))
    assert (answer.code, answer.json["code"]) == (1, 6)


@pytest.mark.parametrize("name", ["kube-node", "node-annotation"])
def test_empty_input_is_enough_for_version(binaries: Path, name: str) -> None:
    """Old runtimes say nothing with VERSION: the answer is in our newest version."""
    answer = execute(binaries / name, b"", environment("VERSION"))
    assert (answer.code, answer.json["cniVersion"], answer.json["supportedVersions"][-1]) == (0, "1.1.0", "1.1.0")


@pytest.mark.usefixtures("node")
def test_addresses_from_pod_cidrs(network: NetworkMaker, kubeconfig: str) -> None:
    """A pod gets one address of each podCIDR, with its prefix length and gateway; the next pod gets the next ones."""
    net = network(kubeconfig=kubeconfig)
    answer = net.call("ADD")
    assert (answer.code, answer.json) == (
        0,
        {
            "cniVersion": "1.1.0",
            "ips": [
                {"address": "11.0.1.2/24", "gateway": "11.0.1.1"},
                {"address": "1100:0:0:1::2/64", "gateway": "1100:0:0:1::1"},
            ],
        },
    )
    assert net.add("c2") == ["11.0.1.3", "1100:0:0:1::3"]
    net.ok("CHECK", prevResult=answer.json)
    net.ok("DEL")
    net.ok("DEL", "c2")
    assert net.reserved() == []


@pytest.mark.parametrize(
    ("only", "addresses"), [(["11.0.7.0/24"], ["11.0.7.2"]), (["1100:0:0:7::/64"], ["1100:0:0:7::2"])], indirect=["only"]
)
@pytest.mark.usefixtures("only")
def test_one_family(network: NetworkMaker, kubeconfig: str, addresses: list[str]) -> None:
    """A Node with podCIDRs of one family gives addresses of that one."""
    assert network(kubeconfig=kubeconfig).add() == addresses


@pytest.mark.usefixtures("node")
def test_no_kubeconfig(network: NetworkMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Without any kubeconfig the error says where one was looked for, and by what to name one: an agent reads no ipam for that."""
    monkeypatch.setenv("HOME", str(tmp_path))
    error = network().error()
    assert (error["code"], error["msg"]) == (101, "no kubeconfig found")
    option = "the agent's --kubeconfig" if way == "relay" else "ipam.kubeconfig"
    assert error["details"].endswith(f"set {option}")
    for place in (option, "$KUBECONFIG", "service account", f"{tmp_path}/.kube/config"):
        assert place in error["details"]


@pytest.mark.parametrize("content", [None, "", "{", "- a", "clusters: 5", "current-context: none"])
def test_bad_kubeconfig(embedded: NetworkMaker, tmp_path: Path, content: str | None) -> None:
    """A kubeconfig that is missing or broken is an error that names the file, and no DEL's business."""
    path = tmp_path / "broken-kubeconfig"
    if content is not None:
        path.write_text(content)
    net = embedded(kubeconfig=str(path))
    error = net.error()
    assert error["code"] == 101
    assert str(path) in error["msg"]
    net.ok("DEL")


@pytest.mark.parametrize("how", ["configured", "environment", "list", "home"])
@pytest.mark.usefixtures("node")
def test_where_the_kubeconfig_comes_from(embedded: NetworkMaker, kubeconfig: str, tmp_path: Path, how: str) -> None:
    """The configured kubeconfig wins over all others; else $KUBECONFIG, a list too, else ~/.kube/config."""
    (tmp_path / ".kube").mkdir()
    if how == "home":
        (tmp_path / ".kube/config").write_bytes(open(kubeconfig, "rb").read())  # noqa: SIM115
    wrong = str(tmp_path / "none")
    variables = {"configured": wrong, "environment": kubeconfig, "list": f"{wrong}:{kubeconfig}"}
    env = {"HOME": str(tmp_path), **({"KUBECONFIG": variables[how]} if how in variables else {})}
    ipam = {"kubeconfig": kubeconfig} if how == "configured" else {}
    assert embedded(**ipam).add(env=env) == ["11.0.1.2", "1100:0:0:1::2"]


@DIFFERENT
@pytest.mark.parametrize(
    ("limits", "namespace", "families"),
    [
        ({}, "any", [4, 6]),
        ({"ipv4-namespaces": ["prod"]}, "prod", [4, 6]),
        ({"ipv4-namespaces": ["prod"]}, "test", [6]),
        ({"ipv4-namespaces": ["prod"]}, "", [6]),
        ({"ipv4-namespaces": ["team-*", "prod"]}, "team-a", [4, 6]),
        ({"ipv4-namespaces": ["team-?"]}, "team-ab", [6]),
        ({"ipv4-namespaces": []}, "prod", [6]),
        ({"ipv4-namespaces": None}, "prod", [4, 6]),
        ({"ipv6-namespaces": ["prod"]}, "test", [4]),
        ({"ipv4-namespaces": ["a"], "ipv6-namespaces": ["b"]}, "a", [4]),
    ],
)
@pytest.mark.usefixtures("node")
def test_limited_to_namespaces(network: NetworkMaker, kubeconfig: str, limits: dict[str, Any], namespace: str, families: list[int]) -> None:
    """A family that is kept for some namespaces is given to those and to no others: names or globs; absent is all, [] is none."""
    net = network(kubeconfig=kubeconfig, **limits)
    assert [6 if ":" in address else 4 for address in net.add(namespace=namespace)] == families
    net.ok("DEL", namespace=namespace)
    assert net.reserved() == []


@pytest.mark.usefixtures("node")
def test_ipv6_alone_does_not_disturb_ipv4s_turns(embedded: NetworkMaker, kubeconfig: str) -> None:
    """Between pods with both families one with IPv6 alone costs IPv4 no turn: a released address comes last."""
    net = embedded(kubeconfig=kubeconfig, **{"ipv4-namespaces": ["prod"]})
    got = []
    for number, namespace in enumerate(["prod", "test", "prod", "test", "prod"]):
        got.append(net.add(f"c{number}", namespace=namespace))
        net.ok("DEL", f"c{number}", namespace=namespace)
    assert got == [
        ["11.0.1.2", "1100:0:0:1::2"],
        ["1100:0:0:1::3"],
        ["11.0.1.3", "1100:0:0:1::4"],
        ["1100:0:0:1::5"],
        ["11.0.1.4", "1100:0:0:1::6"],
    ]


@pytest.mark.parametrize("only", [["11.0.8.0/24"]], indirect=True)
@pytest.mark.usefixtures("only")
def test_ipv4_only_node_and_a_namespace_without_ipv4(network: NetworkMaker, kubeconfig: str) -> None:
    """A pod that would get no address at all is an error that says so; its DEL works, and nothing is reserved."""
    net = network(kubeconfig=kubeconfig, **{"ipv4-namespaces": ["prod"]})
    error = net.error(namespace="test")
    assert (error["code"], error["msg"]) == (
        109,
        "no address for a pod in namespace 'test': the subnets are IPv4, kept for other namespaces",
    )
    net.ok("DEL", namespace="test")
    assert net.reserved() == []


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("172.20.2.0/24,fd00::2:0:0/96", ["172.20.2.2", "fd00::2:0:2"]),
        ("fd00::2:0:0/96", ["fd00::2:0:2"]),
        ("172.20.2.0/24", ["172.20.2.2"]),
        (" 172.20.2.0/24 ,\tfd00::2:0:0/96\n", ["172.20.2.2", "fd00::2:0:2"]),
    ],
)
def test_annotation(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str, value: str, addresses: list[str]) -> None:
    """A secondary network's subnets come from an annotation: both families or either, blanks allowed."""
    api_server.annotate(node, {KEY: value})
    assert network(kubeconfig=kubeconfig, annotation=KEY).add() == addresses


def test_annotation_with_three_subnets(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str) -> None:
    """Of two subnets of a family the second serves when the first is full; when both are, the error names both."""
    api_server.annotate(node, {KEY: "172.20.2.0/30, fd00::2:0:0/96, 172.20.9.0/30"})
    net = network(kubeconfig=kubeconfig, annotation=KEY)
    assert [net.add(f"c{number}")[0] for number in range(2)] == ["172.20.2.2", "172.20.9.2"]
    error = net.error(container_id="c2")
    assert "no IP addresses available in range set: 172.20.2.1-172.20.2.2,172.20.9.1-172.20.9.2" in error["msg"]
    assert net.reserved() == ["172.20.2.2", "172.20.9.2", "fd00::2:0:2", "fd00::2:0:3"]


def test_annotation_with_a_second_ipv6_subnet(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str) -> None:
    """A family's second subnet serves when its first is full, though a subnet of the other family stands between."""
    api_server.annotate(node, {KEY: "fd00:1::/126, 172.20.2.0/24, fd00:2::/126"})
    net = network(kubeconfig=kubeconfig, annotation=KEY)
    assert [net.add(f"c{number}") for number in range(4)] == [
        ["fd00:1::2", "172.20.2.2"],
        ["fd00:1::3", "172.20.2.3"],
        ["fd00:2::2", "172.20.2.4"],
        ["fd00:2::3", "172.20.2.5"],
    ]
    reserved = net.reserved()
    assert "no IP addresses available in range set: fd00:1::1-fd00:1::3,fd00:2::1-fd00:2::3" in net.error(container_id="c4")["msg"]
    assert net.reserved() == reserved
    net.ok("DEL", "c1")
    assert net.add("c5")[0] == "fd00:1::3"


def test_annotation_with_an_invalid_subnet(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str) -> None:
    """A bad subnet is an error that shows it with its annotation and its Node; nothing is reserved, and the pod's DEL works."""
    api_server.annotate(node, {KEY: "172.20.2.0/24,fd00::2:0:0/196"})
    net = network(kubeconfig=kubeconfig, annotation=KEY)
    error = net.error()
    assert (error["code"], error["msg"]) == (108, f"annotation {KEY} of Node {node}: invalid CIDR address: fd00::2:0:0/196")
    net.ok("DEL")
    assert net.reserved() == []


def test_two_networks_do_not_see_each_others_subnets(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str) -> None:
    """One Node view serves networks with different annotations, and the one without."""
    api_server.annotate(node, {KEY: "172.20.2.0/24", "example.com/other": "172.21.2.0/24"})
    assert network(kubeconfig=kubeconfig).add("a") == ["11.0.1.2", "1100:0:0:1::2"]
    assert network(kubeconfig=kubeconfig, annotation=KEY).add("b") == ["172.20.2.2"]
    assert network(kubeconfig=kubeconfig, annotation="example.com/other").add("c") == ["172.21.2.2"]
