"""The pages are walked through, command for command, in a fresh directory; what they print is what comes.

A shell block below `<!-- run -->` is run, the blocks of a page by one shell; the block below `<!-- prints -->` is what it printed, where
`…` stands for what differs from machine to machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pages import EVERYWHERE, steps

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if steps(page.read_text(), EVERYWHERE)]
# Network, mounts and processes of its own: real paths, nothing of this machine is changed, and what it starts ends with it.
ALONE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private", "bash", "-c"]
EMPTY = ("/opt", "/etc/cni", "/var/lib/cni", "/run/kube-node", "/run/netns")
SEPARATOR = "\x1e"


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)


def checkout(built: Path, to: Path) -> None:
    """Copy what a person clones, with the virtual environment that ./build.sh would make, and binaries."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    # By hard links: it has a compiler for six machines in it. The stamp is its own, and written anew.
    ignored = shutil.ignore_patterns("__pycache__", "stamp")
    shutil.copytree(ROOT / ".venv", to / ".venv", symlinks=True, ignore=ignored, copy_function=link_or_copy)
    (to / ".venv/stamp").write_text(f"{to}\n{(to / 'pyproject.toml').read_text()}")
    shutil.copytree(built, to / "_output/bin", symlinks=True)


@pytest.mark.timeout(700)  # one builds, and two cores may have other things to do
@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_page(page: Path, built: Path, tmp_path: Path) -> None:
    """Each command of the page works, in their order, and prints what the page says."""
    if os.geteuid() != 0 or not Path("/usr/lib/cni/bridge").exists() or not all(map(shutil.which, ("ip", "ping", "curl", "unshare"))):
        pytest.skip("needs root, ip, ping, curl, unshare and /usr/lib/cni (Debian: containernetworking-plugins)")
    place = tmp_path / "kube-node"
    checkout(built, place)
    walk = steps(page.read_text(), EVERYWHERE)
    script = "set -eu\n" + "".join(
        f"mkdir -p {path}; mount -t tmpfs none {path}\n" for path in EMPTY if os.path.isdir(os.path.dirname(path))
    )
    script += f"ip link set lo up\ncd {place}\n"
    script += "".join(f"{step.commands}printf '{SEPARATOR}'\n" for step in walk)
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    done = subprocess.run([*ALONE, script], env=environment, check=False, capture_output=True, text=True, timeout=600)
    printed = done.stdout.split(SEPARATOR)
    for step, text in zip(walk, printed, strict=False):
        assert step.is_printed(text), f"{step.commands}printed:\n{text}\n{done.stderr}"
    assert (done.returncode, len(printed)) == (0, len(walk) + 1), done.stdout + done.stderr


def test_every_page_that_can_run_is_walked() -> None:
    """The tutorial and the how-tos that need no cluster are among them."""
    walked = {page.name for page in PAGES}
    assert walked >= {"first-pod.md", "dual-stack.md", "limit-ipv4.md", "multus.md", "from-host-local.md"}
