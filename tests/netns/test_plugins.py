# SPDX-License-Identifier: Apache-2.0
"""The plugins under the reference's bridge, ptp, macvlan and ipvlan, in real network namespaces."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import camelcase
import pytest
from betweens import Door
from links import ON_INTERFACES
from podnet import ip
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apiserver import RealApiServer
    from podnet import Pod, PodNet

KEY = "example.com/ranges"
POD_CIDRS = ["10.244.1.0/24", "fd00:10:244:1::/64"]
ANNOTATIONS = {
    "kube-node.nordix.org/net1": "172.20.2.0/24, fd00::2:0:0/96",
    KEY: 'ranges: [[{"subnet": "172.16.5.0/24", "rangeStart": "172.16.5.50"}], [{"subnet": "fd05::/64"}]]',
}


@pytest.fixture
def host(podnet: PodNet) -> Iterator[Pod]:
    """Keep away from this machine's own 10.244.0.0/16, which a node's pods may have: return a namespace that stands for the host."""
    yield podnet.own_host()
    assert [name for name in links() if name.startswith(podnet.prefix)] == []


def links(host: Pod | None = None) -> list[str]:
    """Return the links of the host, or of this machine."""
    return [link["ifname"] for link in json.loads(ip(*(["-n", host.name] if host else []), "-json", "link"))]


@pytest.fixture
def node(api_server: RealApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of our Node at the real API server, with podCIDRs of both families and annotations for both plugins."""
    name = f"netns-{secrets.token_hex(4)}"
    api_server.create_node(name, POD_CIDRS, ANNOTATIONS)
    monkeypatch.setenv("NODE_NAME", name)
    yield name
    api_server.delete_node(name)


@pytest.fixture
def kubeconfig(api_server: RealApiServer, node: str, host: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a kubeconfig of a user who may get Nodes, for plugins on the host, and for an agent on this machine."""
    user = f"netns-{secrets.token_hex(4)}"
    api_server.grant(user, "get")
    path = str(api_server.kubeconfig(tmp_path / "kubeconfig", user))
    (tmp_path / "node-annotation.conf").write_text(json.dumps({"kubeconfig": path}))
    monkeypatch.setenv("NODE_ANNOTATION_CFG", str(tmp_path / "node-annotation.conf"))
    with Door(api_server.url, host.netns):
        yield path


@pytest.fixture(params=["host-local", "embedded"])
def search(request: pytest.FixtureRequest, cni_bin: Path, binaries: Path, host: Pod, tmp_path: Path) -> str:
    """Return a CNI_PATH with our plugins and the reference's, host-local among them or not, for calls on the host."""
    del host  # there, that is all
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in ("bridge", "ptp", *ON_INTERFACES, *(["host-local"] if request.param == "host-local" else [])):
        (plugins / name).symlink_to(cni_bin / name)
    for name in ("kube-node", "node-annotation"):
        (plugins / name).symlink_to(binaries / name)
    return str(plugins)


def routes(pod: Pod, family: str) -> list[tuple[str, str]]:
    found: list[dict[str, Any]] = json.loads(ip("-json", "-n", pod.name, family, "route", "show", "default"))
    return [(route["gateway"], route["dev"]) for route in found]


def test_two_pods_on_a_bridge(podnet: PodNet, kubeconfig: str, search: str, tmp_path: Path) -> None:
    """A pod gets an address of each family and a default route, and pods reach each other."""
    data_dir = tmp_path / "container-ipam-state/k8snet"
    netconf = {
        "name": "k8snet",
        "cniVersion": "1.0.0",
        "type": "bridge",
        "bridge": podnet.bridge,
        "isDefaultGateway": True,
        "ipam": {"type": "kube-node", "kubeconfig": kubeconfig, "dataDir": str(data_dir)},
    }
    one, two = podnet.pod(), podnet.pod()
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=one"
    answers = [podnet.add(netconf, pod, cni_path=search, args=args) for pod in (one, two)]
    assert [answer.addresses for answer in answers] == [["10.244.1.2", "fd00:10:244:1::2"], ["10.244.1.3", "fd00:10:244:1::3"]]
    assert podnet.addresses(one) == ["10.244.1.2", "fd00:10:244:1::2"]
    assert routes(one, "-4") == [("10.244.1.1", "eth0")]
    assert routes(one, "-6") == [("fd00:10:244:1::1", "eth0")]
    for address in answers[1].addresses:
        podnet.ping(one, address)
    for address in answers[0].addresses:
        podnet.ping(two, address)
    for pod, answer in zip((one, two), answers, strict=True):
        podnet.check(netconf, pod, answer, cni_path=search)
        podnet.delete(netconf, pod, cni_path=search)
    left = [path.name for path in (data_dir / "k8snet").iterdir()]
    assert sorted(left) == ["last_reserved_ip.0", "last_reserved_ip.1", "lock"]


def test_ptp(podnet: PodNet, kubeconfig: str, search: str) -> None:
    """Under ptp a pod reaches its gateway, which is the host's end, over both families."""
    netconf = {
        "name": "point",
        "cniVersion": "1.0.0",
        "type": "ptp",
        "ipam": {"type": "kube-node", "kubeconfig": kubeconfig, "dataDir": str(podnet.data_dir)},
    }
    pod = podnet.pod()
    answer = podnet.add(netconf, pod, cni_path=search)
    assert podnet.addresses(pod) == ["10.244.1.2", "fd00:10:244:1::2"]
    for gateway in ("10.244.1.1", "fd00:10:244:1::1"):
        podnet.ping(pod, gateway)
    podnet.check(netconf, pod, answer, cni_path=search)
    podnet.delete(netconf, pod, cni_path=search)
    assert podnet.reservations("point") == []


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
@pytest.mark.parametrize("link", ON_INTERFACES)
def test_pods_on_an_interface(podnet: PodNet, run_dir: Path, search: str, link: str, plugin: str, version: str) -> None:
    """Under macvlan and ipvlan, as Multus runs them for secondary networks, two pods reach each other with addresses of the annotation."""
    view = {"kind": "Node", "metadata": {"name": "here", "annotations": ANNOTATIONS}, "spec": {"podCIDRs": POD_CIDRS}}
    (run_dir / "node.json").write_text(json.dumps(view))  # written by hand: no API server is asked
    annotation = {"kube-node": "kube-node.nordix.org/net1", "node-annotation": KEY}[plugin]
    ipam = {"type": plugin, "annotation": annotation, "dataDir": str(podnet.data_dir)}
    netconf = {"name": "net1", "cniVersion": version, "type": link, "master": podnet.uplink(), "ipam": ipam}
    one, two = podnet.pod(), podnet.pod()
    answers = [podnet.add(netconf, pod, cni_path=search, ifname="net1") for pod in (one, two)]
    expected = {
        "kube-node": [["172.20.2.2", "fd00::2:0:2"], ["172.20.2.3", "fd00::2:0:3"]],
        "node-annotation": [["172.16.5.50", "fd05::2"], ["172.16.5.51", "fd05::3"]],
    }
    assert [answer.addresses for answer in answers] == expected[plugin]
    assert podnet.addresses(two, "net1") == expected[plugin][1]
    for address in answers[1].addresses:
        podnet.ping(one, address)
    for pod, answer in zip((one, two), answers, strict=True):
        podnet.check(netconf, pod, answer, cni_path=search, ifname="net1")
        podnet.delete(netconf, pod, cni_path=search, ifname="net1")
    assert podnet.reservations("net1") == []


def test_status_through_bridge(podnet: PodNet, kubeconfig: str, search: str) -> None:
    """The bridge plugin hands STATUS on, and with it our answer."""
    netconf = {
        "name": "k8snet",
        "cniVersion": "1.1.0",
        "type": "bridge",
        "bridge": podnet.bridge,
        "ipam": {"type": "kube-node", "kubeconfig": kubeconfig, "dataDir": str(podnet.data_dir)},
    }
    pod = podnet.pod()
    assert podnet.call("STATUS", netconf, pod, cni_path=search).code == 0
    netconf["ipam"] = {"type": "kube-node", "nodeFile": "/none", "dataDir": str(podnet.data_dir)}
    answer = podnet.call("STATUS", netconf, pod, cni_path=search)
    assert (answer.code, answer.json["code"], answer.json["msg"]) == (1, 50, "nodeFile /none: No such file or directory")


@pytest.mark.parametrize("as_json", [False, True])
def test_try(podnet: PodNet, host: Pod, binaries: Path, cni_bin: Path, *, as_json: bool) -> None:
    """`kube-node try` lets two pods ping each other over both families, shows them, and leaves the host as it was."""

    environ = {**os.environ, "CNI_PATH": str(cni_bin)}
    arguments = ["-o", "json"] if as_json else []
    trial = subprocess.Popen([*podnet.host, binaries / "kube-node", "try", *arguments], env=environ, stdout=subprocess.PIPE, text=True)
    shown = trial.communicate()[0]
    assert trial.returncode == 0
    if as_json:
        answer = json.loads(shown)
        assert [pod["addresses"] for pod in answer["pods"]] == [
            ["10.244.1.2/24", "fd00:10:244:1::2/64"],
            ["10.244.1.3/24", "fd00:10:244:1::3/64"],
        ]
        camelcase.require(["-o", "json"], shown)
        pinged = [sorted(ping["address"] for ping in pod["pings"]) for pod in answer["pods"]]
        assert pinged == [["10.244.1.3", "fd00:10:244:1::3"], ["10.244.1.2", "fd00:10:244:1::2"]]
        assert all(pod["addMs"] > 0 for pod in answer["pods"])
    else:
        for text in ("10.244.1.2/24", "fd00:10:244:1::3/64", "ping"):
            assert text in shown
    # What it makes is named by its process; others may make theirs meanwhile.
    assert [name for name in [*links(host), *links(), *ip("netns").split()] if str(trial.pid) in name] == []
    assert podnet.reservations("try") == []


def test_try_without_root(built: Path) -> None:
    """Where no pods can be made, `try` says why and asks for addresses alone."""
    want("root", "setpriv")
    with tempfile.TemporaryDirectory() as directory:  # where another user may read
        os.chmod(directory, 0o755)
        shutil.copytree(built, f"{directory}/bin")
        command = ["setpriv", "--reuid=65534", "--clear-groups", f"{directory}/bin/kube-node", "try", "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HOME": "/"})
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["onlyAddresses"] == "network namespaces need root"
    assert [pod["addresses"][0] for pod in answer["pods"]] == ["10.244.1.2/24", "10.244.1.3/24"]
    assert answer["stillReserved"] == []
