# SPDX-License-Identifier: Apache-2.0
"""`kubectl kube-node COMMAND`: kubectl finds the executable in PATH, and the options are kubectl's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import deb
import pytest
from population import Population

if TYPE_CHECKING:
    from apiserver import ApiServer

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = "kubectl-kube_node"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH with the executable under kubectl's name for it."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / NAME).symlink_to(Path(sys.executable).with_name("kube-node"))
    return f"{directory}:{os.environ['PATH']}"


def run(path: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it as kubectl does, by kubectl where there is one."""
    command = ["kubectl", "kube-node"] if shutil.which("kubectl") else [NAME]
    program = shutil.which(command[0], path=path)
    assert program
    return subprocess.run(
        [program, *command[1:], *words], env={**os.environ, "PATH": path, **environ}, capture_output=True, text=True, check=False
    )


def test_installed() -> None:
    """The wheel and the Debian package install it: the same function, and a link to the same launcher."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts[NAME] == scripts["kube-node"]
    assert NAME in deb.COMMANDS


@pytest.mark.slow
def test_help(path: str) -> None:
    """Help and errors name the command as it was called."""
    assert "Usage: kubectl kube-node [OPTIONS] [COMMAND]" in run(path, "--help").stdout
    assert "Usage: kubectl kube-node whois [OPTIONS] ADDRESS" in run(path, "help", "whois").stdout
    assert "Did you mean 'whois'?" in run(path, "whos", "10.1.2.3").stderr


@pytest.mark.parametrize(("command", "count"), [("status", 1), ("whois", 1), ("doctor", 1), ("gc", 0), ("release", 0)])
def test_short_option(path: str, command: str, count: int) -> None:
    """-n is a namespace wherever there is one, and nothing else: a network has --network."""
    lines = [line for line in run(path, command, "--help").stdout.splitlines() if "-n," in line or ", -n" in line]
    assert [("--namespace" in line) for line in lines] == [True] * count


@pytest.mark.servers("real")
def test_options_of_kubectl(path: str, crds: ApiServer, tmp_path: Path) -> None:
    """--kubeconfig, --context and -n say which API server, and which pods, as they do for kubectl."""
    people = Population(crds, tmp_path)
    try:
        people.node("a", "10.63.0.0/24")
        people.pod("web", "a", "10.63.0.7")
        where = (f"--kubeconfig={people.kubeconfig}", "--context=test")
        told = json.loads(run(path, "whois", "10.63.0.7", *where, "-n", people.namespace, "-o", "json").stdout)
        assert [one["pod"] for one in told["pods"]] == [f"{people.namespace}/web"]
        assert run(path, "whois", "10.63.0.7", *where, "-n", "default").returncode == 1
        assert "api-server" in run(path, "doctor", "--cluster", *where, "-n", people.namespace).stdout
        assert run(path, "pools", *where, "-o", "json").returncode == 0
        assert "context 'other'" in run(path, "pools", where[0], "--context=other").stderr
    finally:
        people.clear()
