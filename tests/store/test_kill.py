# SPDX-License-Identifier: Apache-2.0
"""SIGKILL before any system call of an ADD and of a DEL: nobody else notices, and the DEL that follows leaves nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment
from wanting import want

from kubenode.base.log import Log
from kubenode.plugins import host_local, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from pathlib import Path

IPAM: dict[str, Any] = {"ranges": [[{"subnet": "10.0.0.0/28"}], [{"subnet": "fd00::/64"}]]}
CALL = re.compile(r"^(?:\[pid +\d+\] )?(\w+)\(")


class Strace:
    """Our host-local under strace, which kills it before a given call of a given system call."""

    def __init__(self, executable: Path, data_dir: Path) -> None:
        want("strace")
        self.command = ["strace", "-f", "-s", "0"]
        self.executable = executable
        self.data_dir = data_dir
        netconf = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "host-local", "dataDir": str(data_dir), **IPAM}}
        self.stdin = json.dumps(netconf).encode()

    def run(self, command: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        environ = environment(command, container_id="killed")
        return subprocess.run([*self.command, *options, self.executable], input=self.stdin, env=environ, capture_output=True, check=False)

    def steps(self, command: str) -> list[tuple[str, int]]:
        """Return name and number of each system call from the first that has to do with the data directory to the answer."""
        done = self.run(command, "-s", "300")
        assert done.returncode == 0, done.stderr
        counts: dict[str, int] = {}
        found: list[tuple[str, int]] = []
        begun = False
        for line in done.stderr.decode(errors="replace").splitlines():
            if match := CALL.match(line):
                name = match[1]
                counts[name] = counts.get(name, 0) + 1
                begun = begun or (str(self.data_dir) in line and not line.startswith("read("))
                if begun:
                    found.append((name, counts[name]))
        return found

    def call(self, command: str, container: str) -> tuple[int, Any]:
        """Call it in this process, as somebody else."""
        code, stdout = skel.run(
            host_local.COMMANDS, environment(command, container_id=container), self.stdin, Log("host-local"), Standalone({})
        )
        return code, json.loads(stdout or b"null")

    def reserved(self) -> dict[str, bytes]:
        directory = self.data_dir / "net"
        return {path.name: path.read_bytes() for path in directory.iterdir() if path.name[0] in "1f"}


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_killed_at_every_step(binaries: Path, tmp_path: Path, run_dir: Path, command: str) -> None:
    """Before each system call once: others get addresses, none twice, and after the killed one's DEL nothing of it is left."""
    strace = Strace(binaries / "host-local.standalone", tmp_path / "networks")
    (run_dir / "attachments").mkdir(mode=0o700)  # so that the steps of each run are the same

    def prepare() -> None:
        """Leave one address each to another container, and, for a DEL, what it is to release."""
        shutil.rmtree(strace.data_dir, ignore_errors=True)
        assert strace.call("ADD", "other")[0] == 0
        if command == "DEL":
            assert strace.call("ADD", "killed")[0] == 0

    for _ in range(2):  # the first call after a build may look at more files
        prepare()
        steps = strace.steps(command)
    names = {name for name, _ in steps}
    assert {"flock", "openat", "write" if command == "ADD" else "unlink"} <= names
    kills = 0
    for name, number in steps:
        prepare()
        done = strace.run(command, "-e", f"inject={name}:signal=KILL:when={number}")
        kills += done.returncode == -9
        code, answer = strace.call("ADD", "next")
        assert code == 0, (name, number, answer)
        mine = [ip["address"].partition("/")[0] for ip in answer["ips"]]
        reserved = strace.reserved()
        assert [reserved[address] for address in mine] == [b"next\r\neth0"] * 2, (name, number)
        assert len([1 for content in reserved.values() if content == b"other\r\neth0"]) == 2
        assert strace.call("DEL", "killed") == (0, None)
        assert set(strace.reserved().values()) == {b"next\r\neth0", b"other\r\neth0"}, (name, number)
        assert len(strace.reserved()) == 4
    assert kills >= len(steps) - 2  # exit_group comes last, and may be faster
