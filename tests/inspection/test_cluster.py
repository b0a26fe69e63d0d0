# SPDX-License-Identifier: Apache-2.0
"""What is read of a cluster, from an API server that answers as a real one cannot be made to: lists that expire, odd objects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import forked
import pytest
from apiserver import base64_text, write_kubeconfig
from standin import StandInApiServer, answer, refuse

from kubenode.inspection.cluster.overlaps import overlaps
from kubenode.inspection.cluster.parts import Part, why_unreadable
from kubenode.ipam.ranges import parse_subnet
from kubenode.nodes.node import CLOSED

if TYPE_CHECKING:
    from pathlib import Path

    from standin import Handler

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"


def pod(name: str, address: str, **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "annotations": annotations},
        "spec": {"nodeName": "a"},
        "status": {"podIP": address, "phase": "Running"},
    }


class Lists:
    """Serves one node, and pods in pages of two; `expire` times a continuation is refused with 410."""

    def __init__(self, pods: list[dict[str, Any]], expire: int = 0) -> None:
        self.pods, self.expire = pods, expire
        self.nodes: list[dict[str, Any]] = [{"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.65.0.0/24"]}}]

    def __call__(self, handler: Handler) -> None:
        parts = urlsplit(handler.path)
        begin = int(parse_qs(parts.query).get("continue", ["0"])[0])
        if parts.path == "/api/v1/pods":
            if begin and self.expire:
                self.expire -= 1
                refuse(410, "the provided continue parameter is too old", "Expired")(handler)
                return
            more = str(begin + 2) if self.pods[begin + 2 :] else ""
            answer({"metadata": {"continue": more}, "items": self.pods[begin : begin + 2]})(handler)
        elif parts.path == "/api/v1/nodes":
            answer({"metadata": {}, "items": self.nodes})(handler)
        else:
            refuse(404, reason="NotFound")(handler)


def run(tmp_path: Path, lists: Lists, *command: str) -> tuple[int, dict[str, Any], str]:
    with StandInApiServer(tmp_path, then=lists) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster, {"token": "t"})
        done = forked.run([*command, "-o", "json", f"--kubeconfig={kubeconfig}"])
    return done.code, json.loads(done.stdout or "{}"), done.stderr


def test_the_note_of_the_controller(tmp_path: Path) -> None:
    """The blocks that the controller has closed are no network of their own: in no list, in no sum, and in no overlap."""
    annotations = {"net": "10.66.0.0/29,10.66.0.8/29 closing", CLOSED: "10.66.0.8/29"}
    lists = Lists([pod("p", "10.66.0.9")])
    lists.nodes = [{"metadata": {"name": name, "annotations": annotations}} for name in "ab"]
    _, told, _ = run(tmp_path, lists, "nodes")
    assert [[(one["network"], one["used"]) for one in node["networks"]] for node in told["nodes"]] == [[("net", 1)], [("net", 0)]]
    _, told, _ = run(tmp_path, lists, "whois", "10.66.0.9")
    assert [one["source"] for one in told["subnets"]] == ["annotation net"] * 2
    _, told, _ = run(tmp_path, lists, "doctor", "--cluster")
    assert CLOSED not in str(told)


@pytest.mark.parametrize("expire", [0, 1])
def test_list_that_expires(tmp_path: Path, expire: int) -> None:
    """A list that the API server forgets while it is read is read once more; what it had until then does not count twice."""
    pods = [pod(f"p{number}", f"10.65.0.{number}") for number in range(2, 7)]
    code, told, _ = run(tmp_path, Lists(pods, expire), "whois", "10.65.0.6")
    assert (code, [one["pod"] for one in told["pods"]]) == (0, ["ns/p6"])
    code, told, _ = run(tmp_path, Lists(pods, expire), "doctor", "--cluster")
    assert (code, "1 nodes and 5 pods" in told["checks"][0]["what"]) == (0, True)
    _, told, _ = run(tmp_path, Lists(pods, expire), "nodes")
    assert [one["used"] for one in told["nodes"][0]["networks"]] == [5]


def test_list_that_expires_again(tmp_path: Path) -> None:
    """Where that happens again, it is told as what the API server said, and not as an address of nobody."""
    code, _, said = run(tmp_path, Lists([pod(f"p{number}", f"10.65.0.{number}") for number in range(2, 7)], 2), "whois", "10.65.0.6")
    assert (code, "410" in said) == (69, True)


def test_pods_that_may_not_be_seen(tmp_path: Path) -> None:
    """Who may list nodes and no pods is told the node, and that the pod is not known."""

    def serve(handler: Handler) -> None:
        (refuse(403, "no", "Forbidden") if handler.path.startswith("/api/v1/pods") else Lists([]))(handler)

    with StandInApiServer(tmp_path, then=serve) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        done = forked.run(["whois", "10.65.0.9", f"--kubeconfig={write_kubeconfig(tmp_path / 'kubeconfig', cluster, {'token': 't'})}"])
    assert (done.code, "10.65.0.0/24 of node a" in done.stdout, "unknown whether a pod has 10.65.0.9." in done.stdout) == (69, True, True)


@pytest.mark.parametrize("command", ["whois 10.65.0.9", "nodes", "doctor --cluster", "pools", "map pool/net1", "pools net1 --purge --yes"])
@pytest.mark.parametrize(
    ("user", "advice", "other"),
    [
        ("system:serviceaccount:kube-system:kube-node", "run the command with your own kubeconfig", "ClusterRole"),
        ("system:node:a", "run the command with your own kubeconfig", "NODE_NAME"),
        ("anna", "bind that user to a ClusterRole", "own kubeconfig"),
    ],
)
def test_credentials_of_a_program(tmp_path: Path, command: str, user: str, advice: str, other: str) -> None:
    """In the agent's pod, or with a kubelet's credentials, a refusal advises a person's kubeconfig, and no wider role for the program."""
    message = f'nodes is forbidden: User "{user}" cannot list resource "nodes" in API group "" at the cluster scope'
    with StandInApiServer(tmp_path, then=refuse(403, message, "Forbidden")) as server:
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster, {"token": "t"})
        done = forked.run([*command.split(), f"--kubeconfig={kubeconfig}"], {"COLUMNS": "400"})
    said = " ".join((done.stdout + done.stderr).split())
    assert (done.code > 0, advice in said, other in said) == (True, True, False), said


@pytest.mark.parametrize(
    "text", ["", "{", "null", '{"name": 1}', '[{"ips": "10.1.1.1"}]', '[{"ips": ["x", "10.65.0.300"]}]', "[" * 100_000, '[{"ips": null}]']
)
def test_odd_network_status(tmp_path: Path, text: str) -> None:
    """Whatever stands in an annotation that anybody may write, podIPs count, and nothing fails."""
    code, told, _ = run(tmp_path, Lists([pod("p", "10.65.0.2", **{NETWORK_STATUS: text})]), "whois", "10.65.0.2")
    assert (code, [one["pod"] for one in told["pods"]]) == (0, ["ns/p"])


@pytest.mark.parametrize(
    ("text", "plugin", "why"),
    [
        ("10.1.0.0/24", "kube-node", ""),
        ("10.1.0.0/28 of 10.1.0.0/24 via none", "kube-node", ""),
        ("10.1.0.1/24", "kube-node", "host bits"),
        (" ", "kube-node", "empty"),
        ('ranges: [[{"subnet": "10.1.0.0/24"}]]', "node-annotation", ""),
        ("ranges: [[", "node-annotation", "not the inside"),
        ("10.1.0.0/24,", "", "comma too many"),
        ('"ranges": [[{"subnet": "10.1.0.5/24"}]]', "", "host bits"),
    ],
)
def test_what_a_plugin_cannot_read(text: str, plugin: str, why: str) -> None:
    """An annotation is read as its plugin reads it, or where nothing says which that is, as either."""
    found = why_unreadable(text, plugin)
    assert (found == "") == (why == "")
    assert why in found


def test_many_nodes_with_one_subnet() -> None:
    """Of ten thousand nodes with one subnet each is told once, and not each pair."""
    parts = [Part(parse_subnet("10.1.0.0/24"), f"n{number}", "spec.podCIDRs") for number in range(10_000)]
    known, guessed = overlaps(parts, ())
    assert (known.total, len(known), guessed.total) == (9_999, 20, 0)
