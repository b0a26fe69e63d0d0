# SPDX-License-Identifier: Apache-2.0
"""`stickyFor`: the next pod of a name gets the addresses of the one before, in every way of running, and beside the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from callplugin import Network, NetworkMaker, ViewWriter


def as_pod(name: str, namespace: str = "shop") -> dict[str, Any]:
    return {"env": {"CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"}}


@pytest.fixture
def net(embedded: NetworkMaker, view: ViewWriter) -> Network:
    view("10.0.0.0/24", "fd00::/64")
    return embedded(stickyFor="1h")


def test_the_next_pod_of_the_name(net: Network) -> None:
    """db-0 comes again and has the addresses it had, whoever comes between; without a name nothing rests."""
    had = net.add("c1", **as_pod("db-0"))
    net.ok("DEL", "c1", **as_pod("db-0"))
    net.ok("DEL", "c1", **as_pod("db-0"))  # a runtime may do so twice
    assert net.reserved() == sorted(had)
    other = net.add("c2", **as_pod("db-1"))
    assert not set(other) & set(had)
    assert net.add("c3", **as_pod("db-0")) == had
    net.gc("c2", "c3")
    assert net.reserved() == sorted([*had, *other])
    net.ok("CHECK", "c3", **as_pod("db-0"))
    net.ok("DEL", "c2", env={"CNI_ARGS": ""})
    assert net.reserved() == sorted(had)


def test_what_rests_is_in_use_but_can_be_had(embedded: NetworkMaker, view: ViewWriter) -> None:
    """A node whose last addresses rest gives them, the oldest first, and STATUS does not say that it is full."""
    view("10.0.0.0/29")
    net = embedded(stickyFor="1h", statusWhenFull="error")
    had = [net.add(f"c{number}", **as_pod(f"db-{number}"))[0] for number in range(5)]
    assert net.error("STATUS")["code"] == 50
    net.ok("DEL", "c3", **as_pod("db-3"))
    net.ok("STATUS")
    assert net.add("n1", **as_pod("new-1")) == [had[3]]
    assert net.error("ADD", "n2", **as_pod("new-2"))["code"] == 110


def test_the_reference_beside_it(net: Network, cni_bin: Path, tmp_path: Path) -> None:
    """The reference's host-local gives nobody what rests, nor does its DEL release it; what it has given rests after our DEL."""
    had = net.add("c1", **as_pod("db-0"))
    net.ok("DEL", "c1", **as_pod("db-0"))
    reference = type(net)(
        cni_bin / "host-local", tmp_path / "networks", {"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}, [cni_bin]
    )
    theirs = reference.add("r1", **as_pod("db-0"))
    assert not set(theirs) & set(had)
    reference.ok("DEL", "c1", **as_pod("db-0"))
    reference.ok("DEL", "r1", **as_pod("db-0"))
    assert net.reserved() == sorted(had)
    reference.add("r2", **as_pod("db-2"))
    net.ok("DEL", "r2", **as_pod("db-2"))
    assert len(net.reserved()) == 4


def test_what_cannot_be_meant(embedded: NetworkMaker, view: ViewWriter) -> None:
    """A wrong duration, a delegate that does not know it, and a container called as who rests are errors; a DEL goes on."""
    view("10.0.0.0/24")
    assert "stickyFor is 'soon'" in embedded(stickyFor="soon").error()["msg"]
    embedded(stickyFor="soon").ok("DEL")
    assert embedded().error("ADD", "kube-node.resting.1.a.b")["code"] == 4


@pytest.mark.ways("standalone", "console")
def test_a_delegate(embedded: NetworkMaker, view: ViewWriter) -> None:
    """Another plugin gives addresses without it, so that it is refused with one."""
    view("10.0.0.0/24")
    assert "stickyFor is not known to delegate host-local" in embedded(stickyFor="1h", delegate="host-local").error()["msg"]


def test_what_rests_keeps_no_other_network_from_the_source(embedded: NetworkMaker, view: ViewWriter) -> None:
    """A network that is called otherwise from now on gets the source once the pods of the one before are gone: what rests is no pod's."""
    view("10.0.0.0/24")
    before, now = embedded(stickyFor="1h"), embedded(stickyFor="1h")
    now.netconf["name"] = "renamed"
    before.add("c1", **as_pod("db-0"))
    before.add("c2", **as_pod("db-1"))
    before.ok("DEL", "c1", **as_pod("db-0"))
    assert now.error("ADD", "n1", **as_pod("db-0"))["code"] == 121
    before.ok("DEL", "c2", **as_pod("db-1"))
    assert now.add("n1", **as_pod("db-0"))
