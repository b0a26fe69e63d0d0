# SPDX-License-Identifier: Apache-2.0
"""What an ADD and a DEL import: every module costs every pod."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from callplugin import environment

if TYPE_CHECKING:
    from callplugin import ViewWriter

ROOT = Path(__file__).resolve().parent.parent
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
    "json", "logging", "msgspec", "pathlib", "re", "signal", "socket", "ssl", "subprocess", "tempfile", "typing", "yaml",
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
        metadata = {"name": "n", "annotations": {"flat": "10.0.0.16/28 of 10.0.0.0/24 via none, fd00::/64 closing, fd00:1::/64"}}
        (run_dir / "node.json").write_text(json.dumps({"metadata": metadata, "spec": {"podCIDRs": pod_cidrs}}))

    return write


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL", "GC", "STATUS"])
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("kube-node", {"delegate": "embedded"}),
        ("kube-node", {"annotation": "flat"}),
        ("host-local", {"ranges": [[{"subnet": "10.0.0.0/24"}]]}),
    ],
)
def test_embedded(
    binaries: Path, tmp_path: Path, view: ViewWriter, interpreter: str, command: str, name: str, own: dict[str, object]
) -> None:
    """With a warm view and the embedded allocator no command imports anything but our own modules and what is built in."""
    view("10.0.0.0/24", "fd00::/64")
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


# CPython promises nothing of a module whose name begins with _. This takes them from kubenode, and from nobody else.
WITHOUT_PRIVATE = """
import builtins, importlib, sys
its = builtins.__import__
def without(name, globals=None, locals=None, fromlist=(), level=0):
    if name[:1] == "_" and name[:2] != "__" and (globals or {}).get("__name__", "").startswith("kubenode"):
        raise ImportError(name)
    return its(name, globals, locals, fromlist, level)
builtins.__import__ = without
for name in sys.argv.pop().split():
    importlib.import_module(name)
from kubenode.launcher import kube_node
kube_node()
"""
WITH_THEM = "from kubenode.launcher import kube_node; sys.argv.pop(); kube_node()"
SOURCES = ROOT / "src"
PRIVATE = [
    ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    for path in sorted(SOURCES.rglob("*.py"))
    if re.search(r"^ *(from|import) _[a-z]", path.read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_without_private_modules(tmp_path: Path, run_dir: Path, view: ViewWriter, command: str) -> None:
    """Where an interpreter has not CPython's private modules, each import of one takes the public one, and a call ends as with them."""
    view("10.0.0.0/24", "fd00::/64")
    ends = []
    for number, run in enumerate((WITHOUT_PRIVATE, WITH_THEM)):
        shutil.copytree(run_dir, tmp_path / f"run{number}")
        environ = environment(command) | {"KUBE_NODE_RUN_DIR": str(tmp_path / f"run{number}")}
        ipam = {"type": "kube-node", "dataDir": str(tmp_path / f"networks{number}"), "routes": [{"dst": "::/0"}]}
        conf = json.dumps({"cniVersion": "1.1.0", "name": "n", "args": {"é": [1.5, "\n", None]}, "ipam": ipam})
        program = f"import sys; sys.path[:0] = [{str(SOURCES)!r}]\n{run}"
        for text in (conf, '{"name": "n"'):
            call = [sys.executable, "-IS", "-c", program, " ".join(PRIVATE)]
            done = subprocess.run(call, env=environ, input=text, capture_output=True, text=True, check=False)
            assert "Traceback" not in done.stderr, done.stderr
            ends.append((done.returncode, done.stdout))
    assert ends[:2] == ends[2:]
    assert [code for code, _ in ends[:2]] == [int(command != "ADD"), 1]
