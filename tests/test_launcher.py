# SPDX-License-Identifier: Apache-2.0
"""The executables: standard input, the deadline, standard output, what a person gets."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from callplugin import Network, environment, execute, hurried
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
        assert "cannot write the answer to stdout" in done.stderr
        net.ok("DEL")


DEADLINE, HELD = 3.0, 5.0  # seconds


def test_a_lock_that_is_held(net: Network, tmp_path: Path) -> None:
    """Waiting for a network's lock does not count to a call's time: ADD and DEL that others keep waiting end well, under either name."""
    net.executable = hurried(tmp_path / "kube-node", DEADLINE)
    drop_in = Network(hurried(tmp_path / "host-local", DEADLINE), net.directory.parent, {"ranges": [[{"subnet": "10.0.0.0/24"}]]})
    net.add("before")
    calls = [(one, command, container) for one in (net, drop_in) for command, container in (("ADD", f"a{one is net}"), ("DEL", "before"))]
    with (net.directory / "lock").open() as lock, ThreadPoolExecutor(8) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answers = [pool.submit(one.call, command, container) for one, command, container in calls]
        check = pool.submit(net.call, "CHECK", "before")
        time.sleep(HELD)
        gave_up = check.result().json
        fcntl.flock(lock, fcntl.LOCK_UN)
        waited = [answer.result() for answer in answers]
    assert [answer.code for answer in waited] == [0] * 4, waited
    assert len(net.reserved()) == 2
    assert (gave_up["code"], gave_up["msg"]) == (11, f"{net.directory}/lock was locked by another process for {DEADLINE:.0f} s")


def test_a_lock_that_is_never_given_back(net: Network) -> None:
    """ADD does not wait for ever: try again later, with the lock's path, and nothing is left behind; then it works at once."""
    net.add("before")
    program = "from kubenode import launcher\nlauncher.LOCK_PATIENCE['ADD'] = 0.5\nlauncher.kube_node()\n"
    with (net.directory / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stdin = json.dumps({**net.netconf, "ipam": net.ipam})
        done = subprocess.run(
            [sys.executable, "-c", program], input=stdin, env=environment("ADD"), capture_output=True, text=True, check=False
        )
    error = json.loads(done.stdout)
    assert (done.returncode, error["code"]) == (1, 11)
    assert f"{net.directory}/lock was locked by another process" in error["msg"]
    assert "fuser" in error["details"]
    assert net.reserved() == ["10.0.0.2"]
    assert net.add() == ["10.0.0.3"]


def test_a_del_that_is_slow_after_a_delegate_that_hangs(net: Network, tmp_path: Path) -> None:
    """The delegate's DEL is given up when its time is over; what we release ourselves then takes as long as the disk needs."""
    net.add("slow")
    delegate = tmp_path / "host-local"
    delegate.write_text("#!/bin/sh\nexec sleep 60\n")
    delegate.chmod(0o755)
    program = (
        "import time\nfrom kubenode import launcher\nfrom kubenode.plugins import embedded\n"
        "launcher.DEADLINE, release = 0.5, embedded.release\n"
        "embedded.release = lambda places: (time.sleep(2.5), release(places))\n"
        "launcher.kube_node()\n"
    )
    stdin = json.dumps({**net.netconf, "ipam": {**net.ipam, "delegate": "host-local"}})
    environ = environment("DEL", container_id="slow") | {"CNI_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], input=stdin, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout
    assert "releasing without it" in done.stderr
    assert net.reserved() == []


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


def test_the_command_line_collects_garbage(binaries: Path) -> None:
    """Calls do without; but an agent, which is a command, runs for months."""
    program = (
        "import gc, runpy, sys\nfrom kubenode.cli import main\nmain.main = lambda: print(gc.isenabled())\n"
        f"del sys.argv[1:]\nrunpy.run_path({str(binaries / 'kube-node.standalone')!r})"
    )
    environ = {key: value for key, value in os.environ.items() if key != "CNI_COMMAND"}
    assert subprocess.run([sys.executable, "-c", program], env=environ, check=True, capture_output=True, text=True).stdout == "True\n"


def test_wrong_usage(binaries: Path) -> None:
    """A command that there is not fails and names it on standard error."""
    answer = run(binaries, "kube-node", "jump")
    assert (answer.code, answer.stdout) == (64, "")
    assert "No such command 'jump'" in answer.stderr
    answer = run(binaries, "kube-node", "try", "--node=/none")
    assert (answer.code, answer.stdout) == (64, "")
    assert "--node /none: there is no such file" in answer.stderr


def test_host_local_says_what_it_is(binaries: Path) -> None:
    """Without CNI_COMMAND the drop-in says on standard error what it is, as the reference does."""
    answer = run(binaries, "host-local")
    assert (answer.code, answer.stdout) == (0, "")
    assert "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in answer.stderr
