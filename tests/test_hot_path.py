"""What an ADD and a DEL import: every module costs every pod."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from callplugin import environment

if TYPE_CHECKING:
    from pathlib import Path

    from callplugin import ViewWriter

# What is built in, and `os` with what it is made of.
FREE = {
    "__future__",
    "os",
    "stat",
    "_stat",
    "_collections_abc",
    "_bisect",
    "_collections",
    "_functools",
    "_json",
    "_posixsubprocess",
    "_signal",
    "errno",
    "fcntl",
    "gc",
    "time",
    "itertools",
    "posixpath",
    "genericpath",
}
FORBIDDEN = {
    "argparse", "asyncio", "collections", "contextlib", "dataclasses", "enum", "fnmatch", "functools", "http", "httpx2", "ipaddress",
    "json", "lightkube", "logging", "msgspec", "pathlib", "re", "signal", "socket", "ssl", "subprocess", "tempfile", "typing", "yaml",
}  # fmt: skip


@pytest.fixture
def interpreter(binaries: Path) -> str:
    return (binaries / "kube-node.standalone").read_text().split(maxsplit=1)[0].removeprefix("#!")


def imported(command: list[str], environ: dict[str, str], stdin: str) -> set[str]:
    """Return the modules that a run imports, as -X importtime tells them."""
    done = subprocess.run(command, env=environ, input=stdin, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")][1:]  # without the heading
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.fixture
def view(run_dir: Path) -> ViewWriter:
    def write(*pod_cidrs: str) -> None:
        (run_dir / "node.json").write_text(json.dumps({"metadata": {"name": "n"}, "spec": {"podCIDRs": pod_cidrs}}))

    return write


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.parametrize("name", ["kube-node", "host-local"])
def test_embedded(binaries: Path, tmp_path: Path, view: ViewWriter, interpreter: str, command: str, name: str) -> None:
    """With a warm view and the embedded allocator no command imports anything but our own modules and what is built in."""
    view("10.0.0.0/24", "fd00::/64")
    own = {"delegate": "embedded"} if name == "kube-node" else {"ranges": [[{"subnet": "10.0.0.0/24"}]]}
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "n", "ipam": {"type": name, "dataDir": str(tmp_path), **own}})
    launcher = str(binaries / f"{name}.standalone")
    nothing = imported([interpreter, "-IS", "-X", "importtime", "-c", "pass"], {}, "")
    if command == "CHECK":
        subprocess.run([launcher], env=environment("ADD"), input=stdin, text=True, check=True, capture_output=True)
    found = imported([interpreter, "-IS", "-X", "importtime", launcher], environment(command), stdin) - nothing
    assert not found & FORBIDDEN
    assert {module for module in found if not module.startswith("kubenode")} <= FREE
    assert "kubenode.plugins.embedded" in found


def test_delegating(binaries: Path, tmp_path: Path, view: ViewWriter, interpreter: str) -> None:
    """Handing on to another plugin imports nothing more."""
    view("10.0.0.0/24")
    (tmp_path / "host-local").write_text("#!/bin/sh\necho {}\n")
    (tmp_path / "host-local").chmod(0o755)
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "n", "ipam": {"type": "kube-node", "dataDir": str(tmp_path / "networks")}})
    command = [interpreter, "-IS", "-X", "importtime", str(binaries / "kube-node.standalone")]
    assert not imported(command, environment("ADD", path=[tmp_path]), stdin) & FORBIDDEN
    assert os.access(binaries / "kube-node.standalone", os.X_OK)
