# SPDX-License-Identifier: Apache-2.0
"""Our host-local under the reference's plugins, in place of the reference's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from links import ON_INTERFACES

if TYPE_CHECKING:
    from pathlib import Path

    from podnet import PodNet

PLUGINS = ("bridge", "ptp", *ON_INTERFACES)
RANGES = [[{"subnet": "10.88.0.0/24", "rangeStart": "10.88.0.20"}], [{"subnet": "fd88::/64"}]]


@pytest.fixture(autouse=True)
def _host(podnet: PodNet) -> None:
    """Keep away from this machine's own 10.88.0.0/16, which is podman's."""
    podnet.own_host()


@pytest.fixture
def search(cni_bin: Path, binaries: Path, tmp_path: Path) -> str:
    """Return a CNI_PATH with the reference's plugins and our host-local."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    for name in PLUGINS:
        (plugins / name).symlink_to(cni_bin / name)
    (plugins / "host-local").symlink_to(binaries / "host-local")
    return str(plugins)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_pods(podnet: PodNet, search: str, plugin: str) -> None:
    """Pods get addresses and reach what they should, CHECK agrees, DEL leaves nothing."""
    own: dict[str, Any] = {"bridge": podnet.bridge, "isGateway": True} if plugin == "bridge" else {}
    if plugin in ON_INTERFACES:
        own = {"master": podnet.uplink()}
    ipam = {"type": "host-local", "ranges": RANGES, "dataDir": str(podnet.data_dir)}
    netconf = {"name": "hl", "cniVersion": "1.0.0", "type": plugin, **own, "ipam": ipam}
    one, two = podnet.pod(), podnet.pod()
    answers = [podnet.add(netconf, pod, cni_path=search) for pod in (one, two)]
    assert [answer.addresses for answer in answers] == [["10.88.0.20", "fd88::2"], ["10.88.0.21", "fd88::3"]]
    assert podnet.addresses(one) == answers[0].addresses
    for address in ["10.88.0.1", "fd88::1"] if plugin == "ptp" else answers[1].addresses:
        podnet.ping(one, address)
    for pod, answer in zip((one, two), answers, strict=True):
        podnet.check(netconf, pod, answer, cni_path=search)
        podnet.delete(netconf, pod, cni_path=search)
    assert podnet.reservations("hl") == []


def test_status_through_bridge(podnet: PodNet, search: str) -> None:
    """The runtime's STATUS reaches it through the bridge plugin: 50 when no address is left, where it is to say that."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/30"}]], "dataDir": str(podnet.data_dir), "statusWhenFull": "error"}
    netconf = {"name": "hl", "cniVersion": "1.1.0", "type": "bridge", "bridge": podnet.bridge, "ipam": ipam}
    pod = podnet.pod()
    assert podnet.call("STATUS", netconf, pod, cni_path=search).code == 0
    podnet.add(netconf, pod, cni_path=search)
    answer = podnet.call("STATUS", netconf, pod, cni_path=search)
    assert (answer.code, answer.json["code"]) == (1, 50)
    assert answer.json["msg"] == "network hl has no free address in range set 10.88.0.1-10.88.0.2: all 1 are reserved"
    podnet.delete(netconf, pod, cni_path=search)
    assert podnet.call("STATUS", netconf, pod, cni_path=search).code == 0
