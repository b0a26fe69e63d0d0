# SPDX-License-Identifier: Apache-2.0
"""What lies in examples/ is run as it is, character by character, by the real bridge plugin; only the Node is a hand-written view."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from kubenode.cli.install import DEFAULT_CREDENTIALS

if TYPE_CHECKING:
    from podnet import PodNet
    from ways import ActivatedAgent

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ADDRESSES = {
    "k8snet": [["10.244.1.2", "fd00:10:244:1::2"], ["10.244.1.3", "fd00:10:244:1::3"]],
    "net1": [["172.20.2.2", "fd00::2:0:2"], ["172.20.2.3", "fd00::2:0:3"]],
    "net2": [["172.20.3.100", "fd00::3:0:2"], ["172.20.3.101", "fd00::3:0:3"]],
}


class Example(NamedTuple):
    name: str
    network: str
    config: str


def of_containerd(path: Path) -> Example:
    """Take the first plugin as the runtime does: name and version are the list's."""
    conflist: dict[str, Any] = json.loads(path.read_text())
    (plugin,) = conflist["plugins"]
    return Example(path.name, conflist["name"], json.dumps({"cniVersion": conflist["cniVersion"], "name": conflist["name"], **plugin}))


def of_multus(path: Path) -> list[Example]:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert [json.loads(document["spec"]["config"])["cniVersion"] for document in documents] == ["1.0.0", "0.4.0"]
    return [
        Example(document["metadata"]["name"], json.loads(document["spec"]["config"])["name"], document["spec"]["config"])
        for document in documents
    ]


def test_definitions_are_as_the_daemonset_leaves_the_node() -> None:
    """A definition names the kubeconfig that `install` leaves, and passes on every address that a pod asks for."""
    for path in sorted(EXAMPLES.glob("nad-*.yaml")):
        for example in of_multus(path):
            conf = json.loads(example.config)
            assert conf["ipam"].get("kubeconfig", f"{DEFAULT_CREDENTIALS}/kubeconfig") == f"{DEFAULT_CREDENTIALS}/kubeconfig"
            assert conf["capabilities"] == {"ips": True}


FOUND = [
    of_containerd(EXAMPLES / "10-k8snet.conflist"),
    *(example for path in sorted(EXAMPLES.glob("nad-*.yaml")) for example in of_multus(path)),
]


@pytest.mark.parametrize("delegate", ["host-local", "embedded"])
@pytest.mark.parametrize("example", FOUND, ids=[example.name for example in FOUND])
def test_an_example_connects_two_pods(
    podnet: PodNet,
    binaries: Path,
    activated: ActivatedAgent | None,
    cni_bin: Path,
    run_dir: Path,
    tmp_path: Path,
    example: Example,
    delegate: str,
) -> None:
    """Two pods get the addresses that the example's Node promises and reach each other, whether the node has host-local or not."""
    shutil.copy(EXAMPLES / "node.yaml", run_dir / "node.json")
    plugins, var_lib = tmp_path / "plugins", tmp_path / "var-lib"
    for directory in (plugins, var_lib):
        directory.mkdir()
    for plugin in ("bridge", "host-local") if delegate == "host-local" else ("bridge",):
        (plugins / plugin).symlink_to(cni_bin / plugin)
    podnet.own_host(var_lib)
    if activated:
        activated.host = podnet.host
    podnet.data_dir = var_lib / "cni/networks"
    one, two = podnet.pod(), podnet.pod()
    path = f"{plugins}:{binaries}"

    for pod, addresses in zip((one, two), ADDRESSES[example.network], strict=True):
        answer = podnet.add(example.config, pod, cni_path=path)
        assert answer.addresses == addresses == podnet.addresses(pod)
        # At once: a bridge without an address of its own takes another MAC with each pod, and the bridge plugin's CHECK minds.
        podnet.check(example.config, pod, answer, cni_path=path)
    for address in ADDRESSES[example.network][1]:
        podnet.ping(one, address)
    for pod in (one, two):
        podnet.delete(example.config, pod, cni_path=path)
    assert podnet.reservations(example.network) == []
