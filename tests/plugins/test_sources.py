# SPDX-License-Identifier: Apache-2.0
"""One source of addresses, the podCIDRs or an annotation, serves one network in one dataDir; and what a delegate does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from callplugin import Network

from kubenode.cni.errors import ANNOTATION_MISSING
from kubenode.nodes.node import CLOSED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from callplugin import NetworkMaker, ViewWriter

A, B = "example.com/a", "example.com/b"
TEXT = 'ranges: [[{"subnet": "10.2.0.0/29"}]]'


def named(net: Network, name: str) -> Network:
    net.netconf["name"] = name
    net.directory = net.directory.parent / name
    return net


@pytest.mark.parametrize(
    ("plugin", "one", "other"),
    [
        ("kube-node", {}, {}),
        ("kube-node", {"annotation": A}, {"annotation": A}),
        ("node-annotation", {"annotation": B}, {"annotation": B}),
        ("kube-node", {"annotation": A}, {"annotation": A, "dataDir": ""}),
    ],
)
def test_two_networks(
    network: NetworkMaker, view: ViewWriter, tmp_path: Path, plugin: str, one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    """The second network gets an error that names the first and its dataDir, and takes over once the first has nothing reserved."""
    view("10.1.0.0/29", annotations={A: "10.3.0.0/29", B: TEXT})
    first = named(network(plugin, **one), "first")
    second = named(network(plugin, **other), "second")
    if "dataDir" in other:
        second = named(network(plugin, **{**other, "dataDir": str(tmp_path / "elsewhere")}), "first")
    addresses = first.add()
    error = second.error("ADD", "c2")
    assert error["code"] == 121
    assert f"network first in dataDir {tmp_path}/networks" in error["msg"]
    assert "annotation" in error["details"]
    second.ok("DEL", "c2")
    assert second.reserved() == ([] if second.directory != first.directory else addresses)
    first.add("c3")
    for name in ("c1", "c3"):
        first.ok("DEL", name)
    second.add("c2")
    assert first.error("ADD", "c4")["code"] == 121
    second.ok("DEL", "c2")
    first.add("c4")


def test_one_network(network: NetworkMaker, view: ViewWriter) -> None:
    """Two configurations with the same name and dataDir are one network, and each annotation is a source of its own."""
    view("10.1.0.0/29", annotations={A: "10.3.0.0/29", B: "10.4.0.0/29"})
    assert network().add() == ["10.1.0.2"]
    assert network(logfile="").add("c2") == ["10.1.0.3"]
    assert named(network(annotation=A), "a").add() == ["10.3.0.2"]
    assert named(network(annotation=B), "b").add() == ["10.4.0.2"]


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
def test_the_note_of_the_controller(network: NetworkMaker, view: ViewWriter, plugin: str) -> None:
    """A block that is closing is not the source of a second network, whose pods no report would count as those of that block."""
    text = "10.3.0.8/29" if plugin == "kube-node" else 'subnet: "10.3.0.8/29"'
    view("10.1.0.0/29", annotations={A: "10.3.0.0/29,10.3.0.8/29 closing", CLOSED: text})
    assert named(network(annotation=A), "first").add() == ["10.3.0.2"]
    error = named(network(plugin, annotation=CLOSED), "second").error("ADD", "c2")
    assert (error["code"], error["msg"]) == (ANNOTATION_MISSING, f"annotation {CLOSED} of a Node is the controller's own")
    assert "kubectl annotate" not in error["details"]


def test_an_annotation_without_ranges(network: NetworkMaker, view: ViewWriter) -> None:
    """What gives no addresses, such as routes for several networks, is no source."""
    view(annotations={A: 'routes: [{"dst": "10.0.0.0/8"}]'})
    for number, name in enumerate(("one", "other")):
        net = named(network("node-annotation", annotation=A, ranges=[[{"subnet": f"10.{number}.0.0/24"}]]), name)
        assert net.add() == [f"10.{number}.0.2"]


def test_a_source_that_cannot_be_noted(embedded: NetworkMaker, view: ViewWriter, run_dir: Path) -> None:
    """Where nothing can be noted in the run directory, an ADD goes on."""
    view("10.1.0.0/29")
    (run_dir / "sources").write_text("in the way")
    assert embedded().add() == ["10.1.0.2"]


@pytest.mark.parametrize("where", ["configuration", "annotation"])
@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
def test_exclude_with_a_delegate(binaries: Path, tmp_path: Path, view: ViewWriter, cni_bin: Path, plugin: str, where: str) -> None:
    """`exclude` is an error with a delegate that is named, in all ways of running, wherever it is written; nothing excluded is given."""
    said = f'{TEXT}, exclude: ["10.2.0.2"]' if where == "annotation" else TEXT
    view("10.2.0.0/29", annotations={A: said if plugin == "node-annotation" else "10.2.0.0/29"})
    exclude = {} if where == "annotation" and plugin == "node-annotation" else {"exclude": ["10.2.0.2"]}
    net = Network(binaries / plugin, tmp_path / "networks", {"annotation": A, "delegate": "host-local", **exclude}, [cni_bin])
    error = net.error()
    assert (error["code"], error["msg"]) == (7, "exclude is not known to delegate host-local; it needs embedded")
    assert net.error("STATUS")["code"] in {7, 50}
    net.ok("DEL")
    for delegate, address in (("embedded", "10.2.0.3"), (None, "10.2.0.4")):
        net.ipam["delegate"] = delegate
        assert net.add() == [address]
        net.ok("DEL")
