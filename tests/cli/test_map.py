# SPDX-License-Identifier: Apache-2.0
"""`kube-node map`: each address, or each block of them, in its cell."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from kubenode.inspection.mapping import Kind, draw
from kubenode.ipam.address import Address
from kubenode.ipam.ranges import make_range, parse_subnet

if TYPE_CHECKING:
    from pathlib import Path

    from node import SeededNode

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("subnet", "held", "shown", "block", "cells"),
    [
        ("10.1.0.0/24", [2, 3], "10.1.0.0/24", 1, 256),
        ("10.1.0.0/28", [2], "10.1.0.0/28", 1, 16),
        ("10.1.0.0/16", [2, 3], "10.1.0.0/24", 1, 256),
        ("10.1.0.0/16", [2, 60000], "10.1.0.0/16", 64, 1024),
        ("fd01::/64", [2, 3], "fd01::/120", 1, 256),
        ("fd01::/64", [2, 300], "fd01::/119", 1, 512),
        ("fd01::/64", [2, 2**63], "fd01::/64", 2**54, 1024),
    ],
)
def test_what_is_shown(subnet: str, held: list[int], shown: str, block: int, cells: int) -> None:
    """All that is in use is shown, in cells that can be told apart, and no address is in two cells or in none."""
    made = make_range(parse_subnet(subnet))
    addresses = [Address(made.subnet.version, made.subnet.number + number) for number in held]
    picture = draw([made], [], dict.fromkeys(addresses, Kind.HELD), 1024)
    assert (str(picture.shown), picture.block, len(picture.cells)) == (shown, block, cells)
    assert sum(cell.held for cell in picture.cells) == len(held)
    assert [cell.first.number for cell in picture.cells] == [made.subnet.number + index * block for index in range(cells)]


def test_kinds() -> None:
    """What cannot be given is not free: gateway, network and broadcast address, what is excluded or outside of the range."""
    subnet = parse_subnet("10.1.0.0/28")
    made = make_range(subnet, Address(4, subnet.number + 2), Address(4, subnet.number + 10))
    excluded = parse_subnet("10.1.0.8/30")
    three, four, five = (Address(4, subnet.number + number) for number in (3, 4, 5))
    picture = draw([made], [excluded], {three: Kind.HELD, four: Kind.LEAKED, five: Kind.RESTING}, 1024)
    order = (Kind.FREE, Kind.HELD, Kind.LEAKED, Kind.RESTING, Kind.GATEWAY, Kind.EXCLUDED, Kind.OUTSIDE)
    letters = dict(zip(order, ".hlrgx-", strict=True))
    kinds = "".join(letters[cell.kind] for cell in picture.cells)
    assert kinds == "-g.hlr..xxxx----"
    assert draw([made], [], {}, 4).cells[0].kind is Kind.FREE


def test_pictures(seeded: SeededNode, tmp_path: Path) -> None:
    """The terminal's picture fits into 80 columns; the SVG picture has a cell an address that tells whose it is."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/<shop>")
    shown = seeded.run_command("map", env={"COLUMNS": "80"}).stdout
    assert "  10.1.0.0 -G█·" in shown
    assert max(map(len, shown.splitlines())) <= 80
    file = tmp_path / "map.svg"
    assert seeded.run_command("map", "k8snet", f"--svg={file}").code == 0
    titles = [title.text or "" for title in ET.parse(file).iter(f"{SVG}title")]
    assert len(titles) == 512
    assert [title for title in titles if title.startswith("10.1.0.2: web/<shop>, since 20")]
    said = seeded.run_command("map", "10.1.0.0/24", "-o", "json").json["maps"]
    assert {"first": "10.1.0.2", "kind": "held", "held": 1, "size": 1} in said[0]["cells"]
    wrong = seeded.run_command("map", "10.2.0.0/24")
    assert wrong.code == 69
    assert "10.1.0.0/24" in wrong.stderr


def test_the_node_is_named(seeded: SeededNode, tmp_path: Path) -> None:
    """A picture says of which Node it is, in each form: it is sent to others. Where that is unknown nothing is said."""
    conf = seeded.conf()
    seeded.configure(conf)
    assert "k8snet  10.1.0.0/24 on worker-1" in seeded.run_command("map").stdout
    assert {one["node"] for one in seeded.run_command("map", "-o", "json").json["maps"]} == {"worker-1"}
    for option in ("svg", "html"):
        seeded.run_command("map", f"--{option}={tmp_path}/map")
        assert "on worker-1" in (tmp_path / "map").read_text()
    conf["ipam"] = {"type": "host-local", "dataDir": str(seeded.networks), "subnet": "10.1.0.0/24"}
    seeded.configure(conf)
    (seeded.run / "node.json").unlink()
    assert "k8snet  10.1.0.0/24\n" in seeded.run_command("map").stdout


class Page(HTMLParser):
    """What a page says: its elements, the titles of its cells, what it would load from elsewhere, what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{name}={value}" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag in {"script", "link", "iframe"}:
            self.loads.append(tag)
        if tag == "rect":
            self.cells.append(str(dict(attrs)["class"]))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))


def test_page(seeded: SeededNode, tmp_path: Path) -> None:
    """The page tells of each subnet how much is in use, and of each cell whose it is and since when; it loads nothing."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/<shop>")
    seeded.add(conf, "c2", "web/gone")
    (seeded.netns / "c2").unlink()
    file = tmp_path / "map.html"
    assert seeded.run_command("map", f"--html={file}").code == 0
    text = file.read_text()
    page = Page(text)
    assert (page.open, page.loads) == ([], [])
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert [word for tag, word in page.texts if tag == "code"] == ["10.1.0.0/24", "fd01::/64"]
    assert [word for tag, word in page.texts if tag == "dd"] == ["2 of 253, <1 %", "251", "1", "2 of 1.8e19, <1 %", "1.8e19", "1"]
    titles = [word for tag, word in page.texts if tag == "title"]
    assert [title for title in titles if re.fullmatch(r"10\.1\.0\.2: web/<shop>, since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", title)]
    assert [title for title in titles if title.startswith("fd01::3: web/gone, since") and title.endswith(", leaked?")]
    legend = 5  # free, held, leaked, gateway, not to be given
    assert len(page.cells) == 512 + legend
    assert page.cells.count("held") == 2 + 1
    both = seeded.run_command("map", "k8snet", f"--svg={file}.svg", "--html=-")
    assert both.stdout.startswith("<!DOCTYPE html>")
    assert (tmp_path / "map.html.svg").exists()


@pytest.mark.parametrize(("pod_cidr", "held"), [pytest.param("10.1.0.0/16", 5000, marks=pytest.mark.slow), ("10.1.0.0/28", 5)])
def test_numbers_are_those_of_status(seeded: SeededNode, pod_cidr: str, held: int) -> None:
    """Of a large subnet, too, a picture says how many addresses there are and are held, as status does."""
    seeded.view([pod_cidr])
    seeded.configure(seeded.conf())
    seeded.hold("k8snet", held)
    (counted,) = seeded.run_command("status", "-o", "json").json["networks"][0]["rangeSets"]
    assert counted["used"] == held
    assert f"{held:,} of {counted['total']:,} held" in seeded.run_command("map").stdout
