# SPDX-License-Identifier: Apache-2.0
"""The documentation keeps up with the code."""

from __future__ import annotations

import ipaddress
import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import click
import pytest
import yaml

from kubenode.cli.main import COMMANDS, kube_node
from kubenode.cni import errors
from kubenode.inspection.doctor.registry import CHECKS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
ELSEWHERE = {"agent", "controller", "install", "pools", "try", "uninstall"}  # have pages of their own, or need none
CONTEXT = kube_node.make_context("kube-node", [], resilient_parsing=True)
CODES = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}


def test_modules_that_are_named_are_there() -> None:
    """CONTRIBUTING's map and its way of one ADD name modules and packages that there are."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where do I put")[2].partition("## Rules")[0]
    named = re.findall(r"`([a-z_]+/[a-z_/]*(?:\.py)?)`", text)
    assert len(named) > 30
    assert [name for name in named if not any((ROOT / top / name).exists() for top in ("src/kubenode", "."))] == []


def test_layers_are_those_of_the_contract() -> None:
    """The architecture's page has the layers that the linter holds the code to."""
    block = (ROOT / "docs/explanation/architecture.md").read_text().partition("## The code")[2].split("```")[1]
    drawn = [re.split(r"\s{2,}", line)[0] for line in block.strip().splitlines()]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert drawn == [layer.replace("kubenode.", "") for layer in contracts[0]["layers"]]


def test_every_error_code_is_explained() -> None:
    """docs/reference/errors.md has one row for each code, and none for any other."""
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted(CODES)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link in a page names a file that is there; the site has no page of a directory."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).is_file()] == []


def test_each_page_is_on_the_site() -> None:
    """The site's navigation has each page once, each kind of page below its own heading; no theme or plugin loads from elsewhere."""
    site = yaml.load((ROOT / "mkdocs.yml").read_text().replace("!!python/object/apply:pymdownx.slugs.slugify", ""), yaml.SafeLoader)
    kinds = {kind: sorted(re.findall(r"[\w./-]+\.md", str(pages))) for entry in site["nav"] for kind, pages in entry.items()}
    assert sorted(page for pages in kinds.values() for page in pages) == sorted(str(page.relative_to(ROOT)) for page in PAGES)
    for kind in ("how-to", "reference", "explanation", "runbooks"):
        assert kinds[kind.replace("-", " ").capitalize()] == sorted(
            str(page.relative_to(ROOT)) for page in (ROOT / "docs" / kind).iterdir()
        )
    assert (site["theme"]["font"], site["plugins"]) == (False, ["search"])
    assert "repo_url" not in site  # by it the theme would ask GitHub for its stars


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    """docs/reference/cli.md names each command, and each option of those that look at a node."""
    text = (ROOT / "docs/reference/cli.md").read_text()
    command = kube_node.get_command(CONTEXT, name)
    assert command is not None
    assert name in text
    if name in ELSEWHERE:
        return
    options = {text for parameter in command.params if isinstance(parameter, click.Option) for text in parameter.opts}
    assert [option for option in sorted(options) if f"`{option}" not in text and f" {option}" not in text] == []


def test_every_check_is_explained() -> None:
    """docs/reference/cli.md has a row for each check of doctor, in its order."""
    section = (ROOT / "docs/reference/cli.md").read_text().partition("\n## doctor\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", section, re.MULTILINE) == [check.name for check in CHECKS]


@pytest.mark.parametrize("picture", sorted((ROOT / "docs/images").glob("*.svg")), ids=lambda path: path.name)
def test_pictures(picture: Path) -> None:
    """A picture of a command is whole, cuts no text, and loads nothing from elsewhere."""
    tree = ET.parse(picture)
    assert "…" not in "".join(tree.getroot().itertext())
    assert not re.search(r'(href|src|url)\s*[=(]\s*["\']?https?:', picture.read_text())


def test_pictures_are_shown() -> None:
    """Each picture is one that a page shows."""
    shown = {Path(link).name for page in PAGES for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text())}
    assert {picture.name for picture in (ROOT / "docs/images").iterdir()} == shown


READ = {".yaml", ".conflist", ".txt", ".tpl", ".service"}  # suffixes of what a user reads, and copies
SHOWN = [*PAGES, *(path for top in ("examples", "deploy", "src/kubenode/cli") for path in (ROOT / top).rglob("*") if path.suffix in READ)]


@pytest.mark.parametrize("path", SHOWN, ids=[str(path.relative_to(ROOT)) for path in SHOWN])
def test_addresses_belong_to_nobody(path: Path) -> None:
    """An address that a user may copy is private or one for documentation: it is routed to nobody."""
    words = re.findall(r"(?<![\w.:])(?:\d+(?:\.\d+){3}|[0-9a-f]+:[0-9a-f:]*:[0-9a-f:]*)(?![\w.:])", path.read_text())
    found = [address for word in words for address in _addresses(word)]
    assert [str(address) for address in found if not (address.is_private or address.is_multicast)] == []


def _addresses(word: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return [ipaddress.ip_address(word)]
    except ValueError:  # such as a version
        return []
