# SPDX-License-Identifier: Apache-2.0
"""Our host-local beside the reference's: the same calls, the same answers, the same files, but for what the documentation lists."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from callplugin import environment
from effort import examples
from wanting import DEBIANS_CNI, want

from kubenode.base.log import Log
from kubenode.plugins import host_local, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OLDER = DEBIANS_CNI / "host-local"
V4 = ["10.0.0.0/29", "10.0.0.8/30", "10.0.1.0/28", "10.0.0.0/24"]
V6 = ["fd00::/125", "fd00::8/126", "fd00:1::/124", "fd00::/64"]
BAD = ["10.0.0.1/29", "10.0.0.0/31", "fd00::1/64", "fd00::/127", "::ffff:10.0.0.0/120"]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/reference/host-local.md"
LISTED = set(re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT.read_text(), re.MULTILINE))
IDS = ["c0", "c1", "c2", "c3"]


class Said(NamedTuple):
    """What a plugin answered: exit code, and standard output without what differs by `error-object` and `format`."""

    code: int
    answer: dict[str, Any] | None


def reduced(code: int, stdout: bytes) -> Said:
    answer: dict[str, Any] | None = json.loads(stdout) if stdout.strip() else None
    if answer and answer.get("dns") == {}:  # 1.1.1 shows it in 1.0.0, too
        del answer["dns"]
    if code and answer:
        answer = {"code": answer["code"], "msg": answer["msg"]}
    return Said(code, answer)


class Theirs:
    """The reference's executable, with a data directory."""

    def __init__(self, executable: Path, data_dir: Path) -> None:
        self.executable = executable
        self.data_dir = data_dir

    def call(self, call: Call) -> Said:
        environ = {**call.environ, "GOMAXPROCS": "1"}  # a fifth of its time is starting threads
        done = subprocess.run([self.executable], input=call.stdin(self.data_dir), env=environ, stdout=subprocess.PIPE, check=False)
        return reduced(done.returncode, done.stdout)


class Ours:
    """Our code, in this process."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def call(self, call: Call) -> Said:
        environ, stdin = call.environ, call.stdin(self.data_dir)
        return reduced(*skel.run(host_local.COMMANDS, environ, stdin, Log("host-local"), Standalone(environ), host_local.wording))


class Call(NamedTuple):
    command: str
    container: str
    ifname: str
    netconf: dict[str, Any]
    args: str = ""

    @property
    def environ(self) -> dict[str, str]:
        return environment(self.command, container_id=self.container, ifname=self.ifname, args=self.args, path=["/none"])

    def stdin(self, data_dir: Path) -> bytes:
        return json.dumps({**self.netconf, "ipam": {**self.netconf["ipam"], "dataDir": str(data_dir)}}).encode()


def tree(data_dir: Path) -> dict[str, bytes]:
    """Return names and contents of a network's store."""
    directory = data_dir / "net"
    return {path.name: path.read_bytes() for path in directory.iterdir()} if directory.exists() else {}


def write(data_dir: Path, files: Mapping[str, bytes]) -> None:
    """Make a network's store hold these files and no others."""
    directory = data_dir / "net"
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        (directory / name).write_bytes(content)


def a_range(rng: random.Random, subnet: str) -> dict[str, Any]:
    base = subnet.partition("/")[0]
    near = [f"10.0.0.{n}" for n in (0, 1, 2, 3, 5, 6, 7, 9, 255)] if "." in base else [f"fd00::{n}" for n in (0, 1, 2, 3, 5, 7, 9)]
    found = {"subnet": subnet}
    for key, chance in (("rangeStart", 0.2), ("rangeEnd", 0.2), ("gateway", 0.2)):
        if rng.random() < chance:
            found[key] = rng.choice(near)
    if found.get("rangeStart") in {"10.0.0.7", "10.0.0.255"}:  # behind
        del found["rangeStart"]
    return found


def a_config(rng: random.Random, versions: list[str]) -> dict[str, Any]:
    """Return a configuration, of which about one in four is invalid."""
    families = rng.choice([[V4], [V6], [V4, V6], [V6, V4], [V4, V6], [V4, V4]])
    sets = [[a_range(rng, rng.choice(pool)) for _ in range(rng.choice([1, 1, 1, 2]))] for pool in families]
    if rng.random() < 0.05:
        sets[0] = rng.choice([[], [a_range(rng, rng.choice(BAD))], [a_range(rng, V4[0]), a_range(rng, V6[0])]])
    ipam: dict[str, Any] = {"type": "host-local", "ranges": sets}
    more: dict[str, Any] = {}
    if rng.random() < 0.1:
        ipam |= a_range(rng, rng.choice(V4))
    if rng.random() < 0.1:
        more["runtimeConfig"] = {"ipRanges": [[a_range(rng, rng.choice(V6))]]}
    if rng.random() < 0.05:
        del ipam["ranges"]
    if rng.random() < 0.3:
        routes = [{"dst": "0.0.0.0/0"}, {"dst": "fd09::/64", "gw": "fd00::9"}, {"dst": "10.9.0.0/16", "mtu": 1400, "priority": 7}]
        ipam["routes"] = rng.sample(routes[: 3 if "1.1.0" in versions else 2], rng.randint(1, 2))  # 1.1.1 knows dst and gw alone
    if rng.random() < 0.2:
        ipam["resolvConf"] = "/etc/hosts"
    return {"cniVersion": rng.choice(versions), "name": "net", "ipam": ipam, **more}


def a_call(rng: random.Random, netconf: dict[str, Any]) -> Call:
    command = rng.choices(["ADD", "DEL", "CHECK"], [5, 3, 1])[0]
    asked = [rng.choice([f"10.0.0.{n}" for n in range(12)]), rng.choice([f"fd00::{n}" for n in range(1, 9)])]
    wanted = rng.sample(asked, rng.choice([0, 0, 0, 1, 2]))
    args = "IgnoreUnknown=1;K8S_POD_NAME=p"
    if wanted and command == "ADD":
        where = rng.choice(["env", "args", "runtimeConfig"]) if len(wanted) == 1 else rng.choice(["args", "runtimeConfig"])
        if where == "env":
            args += f";IP={wanted[0]}"
        elif where == "args":
            netconf = {**netconf, "args": {"cni": {"ips": wanted}}}
        else:
            netconf = {**netconf, "runtimeConfig": {**netconf.get("runtimeConfig", {}), "ips": wanted}}
    return Call(command, rng.choice(IDS), rng.choice(["eth0", "eth0", "net1"]), netconf, args)


def old_files(rng: random.Random) -> dict[str, bytes]:
    """Return files as an old host-local left them, and one that is nobody's reservation."""
    files = {"lock": b""}
    if rng.random() < 0.2:
        files |= {rng.choice(["10.0.0.2", "fd00::2"]): b"c0", "10.0.0.3": b"c9\r\neth0"}
    return files


def same_message(theirs: Said, ours: Said) -> bool:
    """Compare errors: of several requested addresses that are left over the reference shows them in any order."""
    if theirs == ours or theirs.answer is None or ours.answer is None:
        return theirs == ours
    lists = [sorted(str(said.answer.get("msg")).split()) for said in (theirs, ours) if said.answer]
    return theirs.code == ours.code == 1 and theirs.answer["code"] == ours.answer["code"] and lists[0] == lists[1]


class Twins:
    """Two data directories that have the same history."""

    def __init__(self, theirs: Theirs, mine: Theirs | Ours, start: Mapping[str, bytes]) -> None:
        self.theirs = theirs
        self.mine = mine
        for one in (theirs, mine):
            shutil.rmtree(one.data_dir, ignore_errors=True)
            write(one.data_dir, start)

    def step(self, call: Call, used: set[str]) -> None:
        """Let both do it and compare; what is listed as a difference is applied to the reference's directory."""
        before = tree(self.theirs.data_dir)
        theirs, mine = self.theirs.call(call), self.mine.call(call)
        if call.command != "ADD" and theirs.code == 1 and mine.code == 0 and theirs.answer and theirs.answer["code"] == 999:
            # validate: the reference refuses the configuration, we release and look.
            used.add("validate")
            write(self.theirs.data_dir, tree(self.mine.data_dir))
            return
        if call.command != "ADD" and theirs.code == mine.code == 1 and not same_message(theirs, mine):
            assert mine.answer == {"code": 999, "msg": f"host-local: Failed to find address added by container {call.container}"}
            used.add("validate")
            return
        assert same_message(theirs, mine), (call, theirs, mine)
        after = tree(self.theirs.data_dir)
        if call.command == "ADD" and theirs.code == 1 and after != before:
            lost = {name for name in before if name not in after}
            turned = {name for name in after if after[name] != before.get(name)}
            assert all(before[name] in {f"{call.container}\r\n{call.ifname}".encode(), call.container.encode()} for name in lost)
            assert all(name.startswith("last_reserved_ip.") for name in turned)
            used.add("failed-add")
            write(self.theirs.data_dir, before)
        if call.command == "DEL" and (kept := tree(self.mine.data_dir)) != after:
            assert {**after, **{name: text for name, text in kept.items() if text == call.container.encode()}} == kept, call
            used.add("old-files")
            write(self.theirs.data_dir, kept)
        assert tree(self.mine.data_dir) == tree(self.theirs.data_dir), call


NEW = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.fixture(params=["1.9.1", "1.1.1"])
def reference(request: pytest.FixtureRequest) -> tuple[Path, list[str]]:
    """Return the reference's host-local of today and of Debian 12, with the versions that it knows."""
    if request.param == "1.9.1":
        cni_bin: Path = request.getfixturevalue("cni_bin")
        return cni_bin / "host-local", NEW
    want("the reference CNI plugins 1.1.1")
    return OLDER, NEW[:-1]


def sequences(count: int, seed: int, run: Callable[[random.Random], None]) -> None:
    for number in range(examples(count)):
        try:
            run(random.Random(seed + number))
        except AssertionError as error:
            error.add_note(f"sequence {seed + number}")
            raise


def test_twins(reference: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Random sequences over twin directories: equal answers, exit codes, texts, files and contents after every call."""
    executable, versions = reference
    used: set[str] = set()

    def run(rng: random.Random) -> None:
        netconf = a_config(rng, versions)
        twins = Twins(Theirs(executable, tmp_path / "theirs"), Ours(tmp_path / "ours"), old_files(rng))
        for _ in range(rng.randint(2, 9)):
            twins.step(a_call(rng, netconf), used)

    sequences(1500 if executable != OLDER else 300, 0, run)
    assert used <= LISTED
    assert {"validate", "failed-add"} <= used
    capfd.readouterr()


def test_alternating(reference: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Both at work on one directory, by turns: all is as if the reference had done it alone."""
    executable, versions = reference

    class Either(Ours):
        def call(self, call: Call) -> Said:
            if rng.random() < 0.5:
                return super().call(call)
            before = tree(self.data_dir)
            said = Theirs(executable, self.data_dir).call(call)
            if call.command == "ADD" and said.code == 1:  # failed-add, on this side too
                write(self.data_dir, before)
            return said

    rng = random.Random()

    def run(mine: random.Random) -> None:
        nonlocal rng
        rng = mine
        netconf = a_config(mine, versions)
        twins = Twins(Theirs(executable, tmp_path / "theirs"), Either(tmp_path / "either"), old_files(mine))
        for _ in range(mine.randint(3, 9)):
            call = a_call(mine, netconf)
            if call.command == "ADD" or not is_invalid(Theirs(executable, tmp_path / "probe"), netconf):
                twins.step(call, set())

    sequences(500 if executable != OLDER else 100, 100_000, run)
    capfd.readouterr()


def is_invalid(reference: Theirs, netconf: dict[str, Any]) -> bool:
    return reference.call(Call("DEL", "x", "eth0", netconf)).code != 0


def test_through_the_executable(binaries: Path, cni_bin: Path, tmp_path: Path) -> None:
    """The executable answers as the code in this process does."""

    def run(rng: random.Random) -> None:
        netconf = a_config(rng, NEW)
        twins = Twins(
            Theirs(cni_bin / "host-local", tmp_path / "theirs"), Theirs(binaries / "host-local", tmp_path / "ours"), old_files(rng)
        )
        for _ in range(4):
            twins.step(a_call(rng, netconf), set())

    sequences(60, 200_000, run)
    assert os.access(binaries / "host-local", os.X_OK)
