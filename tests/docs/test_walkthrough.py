# SPDX-License-Identifier: Apache-2.0
"""The pages are walked through, command for command, in a fresh directory; what they print is what comes.

Here are the blocks that need no cluster; tests/e2e/walk.py has the others.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pages
import pytest
from wanting import want

sys.path.append(str(pages.ROOT / "tests/e2e"))
import walk

HERE = [page for page in pages.PAGES if pages.steps(page)]
ON_A_CLUSTER = {(scene.page, scene.mark) for scene in walk.SCENES}
ELSEWHERE = {
    "debian.md": "tests/vm/debian_node.py follows it in a virtual machine",
    "growing-blocks.md": "tests/controller/test_growth_with_agents.py has such a pool, and two agents",
    "flat-network.md": "tests/e2e/pools.py has such a network, and a pod on it",
    "kind.md": "tests/e2e/kind.py follows it, with stand-ins for kind and docker",
    "two-networks.md": "it takes custom resources; tests/e2e/pools.py follows it where they are served",
}
# A page has a home directory of its own; zig compiles its C library for a minute, once on a machine.
COMPILER = {"ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(Path.home() / ".cache/zig"))}
HOW_TOS = [page for page in pages.PAGES if page.parent.name in ("how-to", "tutorial") and page.name not in ELSEWHERE]


@pytest.mark.timeout(700)  # one builds, and two cores may have other things to do
@pytest.mark.parametrize("page", HERE, ids=[str(page.relative_to(pages.ROOT)) for page in HERE])
def test_page(page: Path, built: Path, tmp_path: Path) -> None:
    """Each command of the page works, in their order, and prints what the page says; the checkout is then as it was."""
    want("git", "network namespaces", "ping", "curl", "the reference CNI plugins in /usr/lib/cni")
    place = tmp_path / "kube-node"
    pages.checkout(built, place)
    before = pages.emptied(*pages.EMPTY) + "ip link set lo up\n"
    there = files(place)
    pages.walk(pages.steps(page), place, COMPILER, shell=pages.ALONE, before=before)
    assert files(place) == there


def files(place: Path) -> dict[Path, bytes]:
    """Return what is in a checkout, but for what ./build.sh makes."""
    there = [path for top in place.iterdir() if top.name not in {".venv", "_output"} for path in (top, *top.rglob("*"))]
    return {path: path.read_bytes() for path in there if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.parametrize("page", HOW_TOS, ids=[page.name for page in HOW_TOS])
def test_every_how_to_is_walked(page: Path) -> None:
    """The tutorial and each how-to have commands that are run, and no mark that nobody walks."""
    marks = {found["mark"] or "" for found in pages.BLOCK.finditer(page.read_text())}
    assert marks
    assert {(page.name, mark) for mark in marks if mark} <= ON_A_CLUSTER


@pytest.mark.parametrize("page", sorted((pages.ROOT / "docs/how-to").glob("*.md")), ids=lambda page: page.name)
def test_a_how_to_says_where_its_commands_run(page: Path) -> None:
    """Who follows a page knows which machine and which directory it means."""
    assert "Commands run " in page.read_text()


def test_no_how_to_overwrites_anothers_files() -> None:
    """A file that a page makes in the checkout is its own: the pages can be followed one after the other."""
    makers: dict[str, set[str]] = {}
    for page in HOW_TOS:
        for found in pages.BLOCK.finditer(page.read_text()):
            for target in re.findall(r"(?<![0-9<])>(?!/dev/)([\w./-]+)", found["commands"]):
                makers.setdefault(target, set()).add(page.name)
    assert {target: names for target, names in makers.items() if len(names) > 1} == {}
    assert {target for target in makers if not target.startswith(("deploy/", "/etc/"))} == set()
