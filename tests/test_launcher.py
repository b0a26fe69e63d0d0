"""The executables: standard input, the deadline, standard output, what a person gets."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from callplugin import Network, environment, execute
from patience import PATIENCE
from podnet import Answer

if TYPE_CHECKING:
    from pathlib import Path

ALL = ("kube-node", "node-annotation", "host-local")


@pytest.fixture
def net(binaries: Path, tmp_path: Path, run_dir: Path) -> Network:
    (run_dir / "node.json").write_text(json.dumps({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/24"]}}))
    return Network(binaries / "kube-node.standalone", tmp_path / "networks", {})


@pytest.mark.parametrize("name", ALL)
def test_too_much_input(binaries: Path, name: str) -> None:
    """More than 4 MiB is no network configuration; up to that is read."""
    answer = execute(binaries / f"{name}.standalone", b" " * ((4 << 20) + 1), environment("ADD"))
    assert (answer.code, answer.json["code"], answer.json["msg"]) == (1, 6, "stdin has more than 4194304 bytes")
    answer = execute(binaries / f"{name}.standalone", b"{}" + b" " * ((4 << 20) - 2), environment("ADD"))
    assert (answer.code, answer.json["code"]) == (1, 7)


def test_no_input(binaries: Path) -> None:
    """A closed standard input is an error object too."""
    program = f"exec {binaries / 'kube-node.standalone'} <&-"
    done = subprocess.run(["sh", "-c", program], env=environment("ADD"), capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["code"], "Traceback" in done.stderr) == (1, 5, False)


def test_nobody_reads_the_answer(net: Network) -> None:
    """When standard output is closed or broken it fails, without a traceback."""
    stdin = json.dumps({**net.netconf, "ipam": net.ipam})
    for redirection in (">&-", ">/dev/full"):
        program = f"exec {net.executable} {redirection}"
        done = subprocess.run(["sh", "-c", program], input=stdin, env=environment("ADD"), capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "nobody reads the answer" in done.stderr
        net.ok("DEL")


def test_the_deadline(net: Network) -> None:
    """A lock that is never given back: try again later, in time, and nothing is left behind; then it works at once."""
    net.add("before")
    with (net.directory / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begin = time.monotonic()
        error = net.error()
        took = time.monotonic() - begin
    assert (error["code"], error["msg"]) == (11, "not done within 12 s")
    assert took < PATIENCE
    assert net.reserved() == ["10.0.0.2"]
    assert net.add() == ["10.0.0.3"]


def run(binaries: Path, *arguments: str) -> Answer:
    command = [str(binaries / f"{arguments[0]}.standalone"), *arguments[1:]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help(binaries: Path, arguments: list[str]) -> None:
    """Without anything, and when asked for, kube-node says what it can do."""
    answer = run(binaries, "kube-node", *arguments)
    assert (answer.code, answer.stderr) == (0, "")
    assert "try" in answer.stdout
    assert "CNI_COMMAND" in answer.stdout


@pytest.mark.parametrize("name", ["kube-node", "node-annotation"])
@pytest.mark.skipif(bool(os.environ.get("KUBE_NODE_BINARIES")), reason="these are of another version")
def test_version(binaries: Path, name: str) -> None:
    """--version prints the version that it was built with, and nothing else."""
    assert run(binaries, name, "--version") == (0, "1.2.3-test\n", "")


def test_wrong_usage(binaries: Path) -> None:
    """A command that there is not fails and names it on standard error."""
    answer = run(binaries, "kube-node", "jump")
    assert (answer.code, answer.stdout) == (2, "")
    assert "No such command 'jump'" in answer.stderr
    answer = run(binaries, "kube-node", "try", "--node=/none")
    assert (answer.code, answer.stdout) == (1, "")
    assert "/none: No such file or directory" in answer.stderr


def test_host_local_says_what_it_is(binaries: Path) -> None:
    """Without CNI_COMMAND the drop-in says on standard error what it is, as the reference does."""
    answer = run(binaries, "host-local")
    assert (answer.code, answer.stdout) == (0, "")
    assert "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in answer.stderr
