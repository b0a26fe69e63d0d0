# SPDX-License-Identifier: Apache-2.0
"""The harness itself: reference plugins alone, so that a failure elsewhere is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from links import ON_INTERFACES

if TYPE_CHECKING:
    from podnet import PodNet

LINKS: dict[str, dict[str, Any]] = {
    "bridge": {"isDefaultGateway": True},
    "ptp": {},
    **{link: {} for link in ON_INTERFACES},
}


@pytest.fixture(autouse=True)
def _host(podnet: PodNet) -> None:
    """Keep away from this machine's own 10.244.0.0/16, which a node's pods may have."""
    podnet.own_host()


@pytest.mark.parametrize("link", LINKS)
def test_two_pods_reach_each_other(podnet: PodNet, link: str) -> None:
    """Pods connected by a reference plugin, with addresses by host-local, ping each other over both families."""
    ranges = [[{"subnet": "10.244.9.0/24"}], [{"subnet": "fd00:10:244:9::/64"}]]
    ipam = {"type": "host-local", "dataDir": str(podnet.data_dir), "ranges": ranges}
    netconf = {"cniVersion": "1.0.0", "name": "harness", "type": link, **LINKS[link], "ipam": ipam}
    netconf |= {"bridge": podnet.bridge} if link == "bridge" else {"master": podnet.uplink()} if link in ON_INTERFACES else {}
    one, two = podnet.pod(), podnet.pod()
    answers = [podnet.add(netconf, pod) for pod in (one, two)]
    assert [answer.addresses for answer in answers] == [["10.244.9.2", "fd00:10:244:9::2"], ["10.244.9.3", "fd00:10:244:9::3"]]
    assert podnet.addresses(two) == answers[1].addresses
    for address in answers[1].addresses:
        podnet.ping(one, address)
    for pod, answer in zip((one, two), answers, strict=True):
        podnet.check(netconf, pod, answer)
        podnet.delete(netconf, pod)
    assert podnet.reservations("harness") == []


def test_a_failure_is_told(podnet: PodNet) -> None:
    """A plugin's error object is the answer, and its exit code is kept."""
    netconf = {"cniVersion": "1.0.0", "name": "harness", "type": "bridge", "bridge": podnet.bridge, "ipam": {"type": "no-such-plugin"}}
    answer = podnet.call("ADD", netconf, podnet.pod())
    assert answer.code == 1
    assert "no-such-plugin" in answer.json["msg"]
