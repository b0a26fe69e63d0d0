# SPDX-License-Identifier: Apache-2.0
"""All that `status` tells: which networks, how much of it, and who may have leaked."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from seen import Seen, address

from kubenode.base.problem import Problem
from kubenode.inspection.agentprobe import AgentStatus
from kubenode.inspection.holders import HolderFilter, holder_of, holders
from kubenode.inspection.report import NetworkReport, NodeSeen, Other, Report, Whose, require_known
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from pathlib import Path

    from kubenode.inspection.records import Records


def report_of(*networks: Seen) -> Report:
    made = [NetworkReport(one.network(), *holders(one.network(), cast("Records", one.records), HolderFilter())) for one in networks]
    return Report(
        NodeSeen("/run/kube-node/node.json", None, None), AgentStatus("/a", installed=False, problem="none"), made, HolderFilter()
    )


def test_a_part_of_a_network(tmp_path: Path) -> None:
    """A report with fewer holders counts the addresses, and not the pods, that it leaves out, beside those that were left out before."""
    seen = Seen(tmp_path, "10.0.0.0/24", "fd00::/64")
    for number in range(5):
        seen.hold(f"c{number}", f"10.0.0.{number + 2}", f"fd00::{number + 2}", since=100 - number)
    (whole,) = report_of(seen).networks
    part = whole.first(3)
    assert ([one.attachment and one.attachment.container_id for one in part.holders], part.left_out) == (["c0", "c1", "c2"], 4)
    assert part.first(0).left_out == 10
    assert whole.first(9) == whole


def test_a_suspect_in_two_networks(tmp_path: Path) -> None:
    """A pod that may have leaked in two networks is one pod; what no ADD has named counts by its container."""
    one, two = Seen(tmp_path, "10.0.0.0/24", name="one"), Seen(tmp_path, "10.1.0.0/24", name="two")
    one.hold("c1", "10.0.0.2", gone=True, pod_name="shop", pod_namespace="web")
    two.hold("c1", "10.1.0.2", gone=True, ifname="net1", pod_name="shop", pod_namespace="web")
    two.hold("c2", "10.1.0.3", gone=True)
    two.hold("c3", "10.1.0.4")
    assert report_of(one, two).suspects == {"web/shop", "c2"}
    assert report_of(one).suspects == {"web/shop"}


def test_networks_by_name(tmp_path: Path) -> None:
    """Without names all networks are chosen; a name that none has is an error that says which there are."""
    networks = [Seen(tmp_path, "10.0.0.0/24", name=name).network() for name in ("one", "two")]
    assert require_known(networks, ()) == networks
    assert [one.name for one in require_known(networks, ("two",))] == ["two"]
    with pytest.raises(Problem, match=r"no network three, four on this node.*there are: one, two"):
        require_known(networks, ("one", "three", "four"))
    with pytest.raises(Problem, match="no network is known here"):
        require_known([], ("one",))


def test_others_of_a_holder(tmp_path: Path) -> None:
    """The other addresses of a holder are those of its container, in whatever network."""
    seen = Seen(tmp_path, "10.0.0.0/24")
    seen.hold("c1", "10.0.0.2")
    seen.hold("", "10.0.0.3")
    network = seen.network()
    others = [Other(Attachment(container, "net1"), "two", address(text)) for container, text in (("c1", "10.1.0.2"), ("c2", "10.1.0.3"))]
    one, nobody = (holder_of(network, cast("Records", seen.records), address(f"10.0.0.{number}")) for number in (2, 3))
    assert one
    assert nobody
    found = Whose(address("10.0.0.2"), [(network, one)], [network], others)
    assert found.others_of(one) == others[:1]
    assert found.others_of(nobody) == []
