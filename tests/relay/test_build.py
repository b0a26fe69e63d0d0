# SPDX-License-Identifier: Apache-2.0
"""The relay as it is built: for each architecture a static program, which runs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from compile_relay import ARCHITECTURES, choose, compile_relay, fault, here
from fakeagent import FakeAgent, answer, parse
from wanting import QEMU, want

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("kube-node", "node-annotation", "host-local")
LARGEST = 32 << 10  # bytes with musl
ET_DYN = 3  # of ELF: position-independent
NAMES_OF_QEMU = {"armv7": "arm"}


def works(command: list[str | Path], directory: Path) -> None:
    """Let it ask an agent, and let it find none."""
    socket = directory / "s"
    environ = {"CNI_COMMAND": "ADD", "CNI_ARGS": "A=1", "KUBE_NODE_SOCKET": str(socket)}
    with FakeAgent(socket, answer(b'\1{"from": "the agent"}\n')) as agent:
        done = subprocess.run(command, input=b"{}" * 500_000, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b'{"from": "the agent"}\n', b"")
    (request,) = map(parse, agent.requests)
    assert sorted(request.environ) == [b"CNI_ARGS=A=1", b"CNI_COMMAND=ADD"]  # qemu sorts the environment
    assert request.stdin == b"{}" * 500_000
    done = subprocess.run(command, input=b"{}", env=environ, capture_output=True, check=False)
    assert json.loads(done.stdout)["msg"].startswith(f"no agent at {socket} (No such file or directory), and ")
    done = subprocess.run([*command, "--version"], env={}, capture_output=True, check=False)
    assert done.stdout == b'1.0 "x"\n'


@pytest.mark.timeout(600)  # zig compiles its C library first, once for each
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(tmp_path: Path, architecture: str) -> None:
    """zig makes a static program of less than 32 kB for each architecture; it works (others than this machine's under qemu)."""
    want("zig")
    command: list[str | Path] = [tmp_path / "relay"]
    if architecture != here():
        machine = NAMES_OF_QEMU.get(architecture, architecture)
        want(f"qemu for {machine}")
        command.insert(0, QEMU.format(machine))
    compile_relay(tmp_path / "relay", architecture, '1.0 "x"', "zig")
    assert fault((tmp_path / "relay").read_bytes(), architecture) == ""
    assert (tmp_path / "relay").stat().st_size < LARGEST
    works(command, tmp_path)


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_by_gcc(tmp_path: Path, compiler: str) -> None:
    """Where there is no zig, gcc makes a static program for its own machine, with glibc or musl; it has no fixed address."""
    want(compiler)
    compile_relay(tmp_path / "relay", here(), '1.0 "x"', compiler)
    works([tmp_path / "relay"], tmp_path)
    assert int.from_bytes((tmp_path / "relay").read_bytes()[16:18], sys.byteorder) == ET_DYN
    if compiler == "musl-gcc":
        assert (tmp_path / "relay").stat().st_size < LARGEST


def test_what_is_no_static_program() -> None:
    """What needs a loader, is for another machine, or is no program at all, is found out."""
    shell = Path("/bin/sh").read_bytes()
    assert fault(shell, here()) == "needs a dynamic loader"
    assert fault(b"#!/bin/sh\n", here()) == "is no ELF file"
    other = next(name for name in ARCHITECTURES if name != here())
    assert fault(shell, other).endswith(f"not for {other}")


def fails(*arguments: str, path: str = os.defpath) -> str:
    """Run packaging/binaries.py, which has to fail; return what it says."""
    command = [sys.executable, str(ROOT / "packaging/binaries.py"), *arguments]
    done = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_gcc_is_for_one_machine(tmp_path: Path) -> None:
    """With gcc alone all architectures are an error that says what to install, and nothing is made."""
    want("gcc")
    said = fails(f"--output={tmp_path}/bin", "--arch=all", "--cc=gcc")
    assert f"gcc makes programs for {platform.machine()} only" in said
    assert "pip install ziglang" in said
    assert not (tmp_path / "bin").exists()
    assert not (tmp_path / "relay").exists()


def test_no_compiler(tmp_path: Path) -> None:
    """Without the compiler that is asked for, the error says what to install."""
    assert "no gcc here (Debian: apt-get install gcc libc6-dev)" in fails(f"--output={tmp_path}/bin", "--cc=gcc", path="/none")
    assert not (tmp_path / "bin").exists()
    assert not (tmp_path / "relay").exists()


def test_relays_for_other_machines(tmp_path: Path) -> None:
    """--arch=NAME makes that machine's relay beside the directory."""
    command = [sys.executable, str(ROOT / "packaging/binaries.py"), f"--output={tmp_path}/bin", f"--arch={here()}", "--version=7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{tmp_path}/relay holds the relay for {here()}\n" in done.stdout
    relay = tmp_path / "relay" / here() / "relay"
    assert subprocess.run([relay, "--version"], capture_output=True, text=True, check=True).stdout == "7\n"
    for name in NAMES:
        assert (tmp_path / "bin" / name).read_bytes() == relay.read_bytes()
        assert os.access(tmp_path / "bin" / name, os.X_OK)


def test_no_path_of_the_machine_is_in_it(tmp_path: Path) -> None:
    """A relay tells nothing of where it was built."""
    compile_relay(tmp_path / "relay", here(), "1", choose())
    assert str(ROOT).encode() not in (tmp_path / "relay").read_bytes()


def test_try_leaves_the_agent_alone(binaries: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kube-node try` is about a Node of its own: this host's agent is not asked."""
    monkeypatch.setenv("KUBE_NODE_SOCKET", str(run_dir / "s"))
    with FakeAgent(run_dir / "s", answer(b"\1")) as agent, FakeAgent(run_dir / "agent.sock", answer(b"\1")) as other:
        subprocess.run([binaries / "kube-node", "try", "-o", "json"], capture_output=True, check=True)
    assert agent.calls == other.calls == 0
