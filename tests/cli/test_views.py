# SPDX-License-Identifier: Apache-2.0
"""What `status` and `map` show of what is given, in lines of text."""

from __future__ import annotations

import io
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, cast

import pytest
from rich.console import Console
from seen import Seen, address

from kubenode.cli import mapview, statusview
from kubenode.cli.map_ import Drawn
from kubenode.cni.errors import CONFIG_FILE, CNIError
from kubenode.host.nodeview import View
from kubenode.inspection.agentprobe import AgentStatus
from kubenode.inspection.holders import HolderFilter, holder_of, holders
from kubenode.inspection.mapping import Kind, draw
from kubenode.inspection.report import NetworkReport, NodeSeen, Other, Report, Whose
from kubenode.ipam.store import Attachment
from kubenode.nodes import node

if TYPE_CHECKING:
    from pathlib import Path

    from kubenode.inspection.records import Records

PATH = "/run/kube-node/node.json"
MANIFEST = {"kind": "Node", "metadata": {"name": "worker-1"}, "spec": {"podCIDRs": ["10.0.0.0/24"]}}
UP = AgentStatus("/run/kube-node/agent.sock", installed=True, problem="", pid=7, milliseconds=0.4)
SVG = "{http://www.w3.org/2000/svg}"


def report(*networks: Seen, agent: AgentStatus = UP, wanted: HolderFilter = HolderFilter(), fetched: float | None = None) -> Report:  # noqa: B008 -- it is a tuple
    made = [NetworkReport(one.network(), *holders(one.network(), cast("Records", one.records), wanted)) for one in networks]
    seen = NodeSeen(PATH, View(node.parse(MANIFEST, PATH), fetched, ""), None)
    return Report(seen, agent, made, wanted)


def printed(shown: Report, columns: int = 100, *, wide: bool = False, lines: int = 0) -> str:
    """Return a report as it is printed, or what fits into so many lines of a terminal."""
    out = Console(file=io.StringIO(), width=columns, height=lines or None, highlight=False, emoji=False)
    out.print((statusview.fitting if lines else statusview.page)(shown, out, wide=wide))
    return "\n".join(line.rstrip() for line in cast("io.StringIO", out.file).getvalue().splitlines())


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    return Seen(tmp_path, "10.0.0.0/28", "fd00::/64")


def test_a_network(seen: Seen) -> None:
    """A network has its source, a bar for each subnet, and a line for each pod."""
    now = time.time()
    seen.hold("c" * 64, "10.0.0.2", "fd00::2", since=now - 600, pod_name="shop", pod_namespace="web")
    seen.hold("d" * 64, "10.0.0.3", since=now - 7200 - 60)
    seen.hold("", "10.0.0.4", since=now - 3 * 86400)
    said = printed(report(seen, fetched=now - 30))
    assert "worker-1, seen 30 s ago" in said
    assert "up, process 7, answers in 0.4 ms" in said
    assert "net  kube-node in bridge · spec.podCIDRs · /etc/cni/net.d/10-net.conf" in said
    assert "10.0.0.0/28  ███░░░░░░░░░░░░░   23 %  3 of 13" in said
    assert "fd00::/64    █░░░░░░░░░░░░░░░   <1 %  1 of 1.8e19" in said
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[-3:] == [
        "10.0.0.2, fd00::2 web/shop eth0 10 min ago",
        "10.0.0.3 dddddddddddd eth0 2 h ago",
        "10.0.0.4 no pod: the file is empty or torn 3 d ago",
    ]


@pytest.mark.parametrize(("columns", "wide"), [(60, False), (80, False), (200, False), (80, True), (120, True), (200, True)])
def test_it_fits(seen: Seen, columns: int, *, wide: bool) -> None:
    """No line is longer than the terminal is wide, and no address is cut; what does not fit stands one below the other."""
    seen.hold("c" * 64, "10.0.0.2", "fd00::dead:beef", pod_name="a-pod-of-a-long-name-x2kqp", netns="/run/netns/cni-811e14a2")
    said = printed(report(seen), columns, wide=wide)
    assert max(map(len, said.splitlines())) <= columns
    for text in ("10.0.0.2", "fd00::dead:beef", *(("cccccccccccc", "/run/netns/cni-811e14a2", "1970-01-01T00:16:40Z") if wide else ())):
        assert text in said
    assert ("10.0.0.2, fd00::dead:beef" in said) == (columns == 200)


def test_leaks_and_problems_come_first(tmp_path: Path) -> None:
    """On a terminal what may have leaked and networks with a problem are shown first, and what is cut off is counted."""
    networks = [Seen(tmp_path, "10.0.0.0/24", name=f"net{number}") for number in range(6)]
    for network in networks:
        for number in range(20):
            network.hold(f"c{number}", f"10.0.0.{number + 2}")
    networks[5].hold("leaking", "10.0.0.99", gone=True, pod_name="gone")
    networks[4].problem = CNIError(CONFIG_FILE, "no subnets are known", "annotate the Node")
    shown = report(*networks)
    said = printed(shown, lines=24)
    assert len(said.splitlines()) <= 24
    assert "1 pod has addresses and no network namespace: leaked?" in said.split("net5")[0]
    assert said.index("no subnets are known") < said.index("net0")
    assert "more addresses" in said or "more networks" in said
    cut = printed(shown, lines=12)
    assert len(cut.splitlines()) <= 12
    assert "more networks: --network shows one" in cut
    assert "--all" not in cut
    whole = printed(shown)
    assert whole.index("net0") < whole.index("net5") < whole.index("leaked? The agent")


def test_what_is_missing(seen: Seen) -> None:
    """No Node view, a broken one, an agent that is down or complains, no pods of a namespace, and no networks are told as such."""
    nothing = Report(NodeSeen(PATH, None, None), AgentStatus("/a", installed=False, problem="none"), [], HolderFilter())
    said = printed(nothing)
    assert f"not seen yet: there is no {PATH}" in said
    assert "none: the plugins run by themselves" in said
    assert "No networks: the CNI configuration does not use" in said
    broken = nothing._replace(
        node=NodeSeen(PATH, None, CNIError(CONFIG_FILE, "not [JSON]")), agent=AgentStatus("/a", installed=True, problem="refused")
    )
    assert "not [JSON]" in printed(broken)
    assert "down: /a: refused" in printed(broken)
    said = printed(report(seen, agent=UP._replace(problems=("no podCIDRs",)), wanted=HolderFilter("web", 10)))
    assert "written by hand" in said
    assert "! no podCIDRs" in said
    assert "no pods of namespace web" in said


def test_a_source_that_was_annotated(seen: Seen) -> None:
    """A network names its annotation, host-local its ranges; one that only records tell of, where it was last given."""
    for ipam, is_recorded, said in (
        ({"type": "kube-node", "annotation": "a/b"}, False, "net  kube-node in bridge · annotation a/b · /etc/cni"),
        ({"type": "host-local"}, False, "net  host-local in bridge · ranges · /etc/cni"),
        ({"type": "host-local"}, True, "net  as last given · attachment records"),
    ):
        seen.ipam, seen.is_recorded = ipam, is_recorded
        assert said in printed(report(seen))


def whose(seen: Seen, text: str) -> Whose:
    network, asked = seen.network(), address(text)
    one = holder_of(network, cast("Records", seen.records), asked)
    within = [network] if any(r.subnet.holds(asked) for usage in network.usages for r in usage.range_set.ranges) else []
    others = [Other(Attachment("c1", "net1"), "two", address("10.1.0.2"))]
    return Whose(asked, [(network, one)] if one else [], within, others)


def test_whose(seen: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    """An address has its pod, container, times and what else the container has."""
    seen.hold("c1", "10.0.0.2", since=0, pod_name="shop", pod_namespace="web", netns="/run/netns/x", pod_uid="u")
    statusview.show_whose(whose(seen, "10.0.0.2"))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    directory = seen.network().store.directory
    assert " ".join(lines[:7]) == (
        "address 10.0.0.2 network net /etc/cni/net.d/10-net.conf pod web/shop container c1 interface eth0 netns /run/netns/x pod UID u"
    )
    assert lines[7].startswith("since 1970-01-01T00:00:00Z, ")
    assert lines[8:] == [f"file {directory}/10.0.0.2", "also has 10.1.0.2 two, net1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.0.9", "which may give it"),
        ("10.0.0.1", "whose gateway it is"),
        ("10.0.0.12", "which excludes it"),
        ("10.0.0.0", "outside of its ranges"),
        ("192.168.0.1", "in no subnet of this node's networks"),
    ],
)
def test_of_nobody(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For an address that nobody holds it says why."""
    statusview.show_whose(whose(Seen(tmp_path, "10.0.0.0/28", exclude=("10.0.0.12/30",)), text))
    shown = capsys.readouterr().out
    assert f"No pod has {text}" in shown
    assert said in shown


def drawn(seen: Seen, most: int = 1024) -> Drawn:
    network = seen.network()
    held = {one.address: Kind.LEAKED if one.address == address("10.0.0.3") else Kind.HELD for one in network.store.held()}
    picture = draw(network.usages[0].range_set.ranges, network.exclude, held, most)
    return Drawn(seen.name, "worker-1", picture, {address("10.0.0.2"): "web/<shop>, since 1970"})


@pytest.fixture
def mapped(tmp_path: Path) -> Seen:
    seen = Seen(tmp_path, "10.0.0.0/26", exclude=("10.0.0.48/28",))
    seen.hold("c1", "10.0.0.2")
    seen.hold("c2", "10.0.0.3", gone=True)
    return seen


def test_cells(mapped: Seen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A cell is an address by its sign, a row begins with its first address, and the legend has the kinds that are shown."""
    monkeypatch.setenv("COLUMNS", "80")
    mapview.show([drawn(mapped)], wide=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "net  10.0.0.0/26 on worker-1"
    assert lines[1] == "  2 of 46 held, a cell is an address"
    assert lines[2] == "   10.0.0.0 -G█!" + 28 * "·"
    assert lines[3] == "  10.0.0.32 " + 16 * "·" + 16 * "x"
    assert lines[-1] == "· free  █ held  ! leaked?  G gateway  x excluded  - not to be given"


def test_pictures(mapped: Seen) -> None:
    """The SVG picture and the page have a cell for each address, with whose it is; markup in a name is text, and nothing is loaded."""
    tree = ET.fromstring(mapview.svg([drawn(mapped)]))
    titles = {title.text for title in tree.iter(f"{SVG}title")}
    assert len(titles) == 64
    assert {"10.0.0.2: web/<shop>, since 1970", "10.0.0.1: gateway", "10.0.0.9: free"} <= titles
    kinds = [rect.get("class") for rect in tree.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert [kinds.count(kind) for kind in ("held", "leaked", "excluded")] == [1, 1, 16]
    page = mapview.html([drawn(mapped)])
    assert "web/&lt;shop&gt;" in page
    assert "<shop>" not in page
    assert "<dt>in use</dt><dd>2 of 46, 4 %</dd>" in page
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a large subnet a cell is a block, shaded by how much of it is in use."""
    seen = Seen(tmp_path, "10.0.0.0/24")
    for number in range(2, 14):
        seen.hold(f"c{number}", f"10.0.0.{number}")
    mapview.show([drawn(seen, 16)], wide=False)
    row = capsys.readouterr().out.splitlines()[2].split()[1]
    assert len(row) == 16
    assert row[1:] == 15 * "·"
    assert row[0] in mapview.SHADES


def test_as_an_object(mapped: Seen) -> None:
    """For a program cells that are just free are left out."""
    said = mapview.as_object(drawn(mapped))
    assert (said["node"], said["network"], said["subnet"], said["block"]) == ("worker-1", "net", "10.0.0.0/26", 1)
    others = {"free", "rests for a pod", "waits to be free", "in conflict"}
    assert {cell["kind"] for cell in said["cells"]} == {kind.value for kind in Kind} - others
    assert {"first": "10.0.0.2", "kind": "held", "held": 1, "size": 1} in said["cells"]
