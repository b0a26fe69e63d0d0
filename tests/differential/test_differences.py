"""Each row of docs/reference/host-local.md: the reference does it, ours does better."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from callplugin import environment
from wanting import want

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/reference/host-local.md"
V4, V6 = {"subnet": "10.0.0.0/29"}, {"subnet": "fd00::/64"}
BOTH = [[V4], [V6]]


class Plugin:
    """A host-local, with a data directory of its own."""

    def __init__(self, executable: Path, data_dir: Path) -> None:
        self.executable = executable
        self.data_dir = data_dir
        self.store = data_dir / "net"

    def call(
        self, command: str, container: str = "c1", *, ranges: Any = BOTH, ipam: dict[str, Any] | None = None, **how: Any
    ) -> tuple[int, dict[str, Any]]:
        """Call it; `how`: `env` for variables, other keys for the configuration."""
        environ = {**environment(command, container_id=container, args="IgnoreUnknown=1", path=["/none"]), **how.pop("env", {})}
        netconf = {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "host-local", "ranges": ranges, "dataDir": str(self.data_dir)}}
        netconf["ipam"] |= ipam or {}  # type: ignore[operator]
        done = subprocess.run(
            [self.executable], input=json.dumps(netconf | how).encode(), env=environ, capture_output=True, check=False, timeout=30
        )
        return done.returncode, json.loads(done.stdout or b"{}")

    def add(self, container: str = "c1", **how: Any) -> list[str]:
        code, answer = self.call("ADD", container, **how)
        assert code == 0, answer
        return [ip["address"].partition("/")[0] for ip in answer["ips"]]

    def error(self, command: str, container: str = "c1", **how: Any) -> dict[str, Any]:
        code, answer = self.call(command, container, **how)
        assert code == 1
        return answer

    def ok(self, command: str, container: str = "c1", **how: Any) -> None:
        assert self.call(command, container, **how) == (0, {})

    def reserved(self) -> set[str]:
        return {path.name for path in self.store.iterdir()} - {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}


@pytest.fixture
def theirs(cni_bin: Path, tmp_path: Path) -> Plugin:
    return Plugin(cni_bin / "host-local", tmp_path / "theirs")


@pytest.fixture
def ours(binaries: Path, tmp_path: Path) -> Plugin:
    return Plugin(binaries / "host-local", tmp_path / "ours")


def test_every_row_is_shown_here() -> None:
    """A difference is documented if and only if a test here shows it."""
    rows = re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    tests = {name for name in globals() if name.startswith("test_")} - {"test_every_row_is_shown_here"}
    shown = [name.removeprefix("test_").replace("_", "-") for name in tests]
    assert sorted(rows) == sorted(shown)


def test_error_object(theirs: Plugin, ours: Plugin) -> None:
    """An error has cniVersion and advice."""
    assert set(theirs.error("ADD", ranges=[])) == {"code", "msg"}
    assert set(ours.error("ADD", ranges=[])) == {"cniVersion", "code", "msg", "details"}


def test_format(theirs: Plugin, ours: Plugin) -> None:
    """Results are one line."""
    outputs = []
    for plugin in (theirs, ours):
        netconf = {"cniVersion": "1.0.0", "name": "net", "ipam": {"ranges": BOTH, "dataDir": str(plugin.data_dir)}}
        command = {"input": json.dumps(netconf), "env": environment("ADD", path=["/none"]), "text": True}
        outputs.append(subprocess.run([plugin.executable], capture_output=True, check=True, **command).stdout)  # type: ignore[call-overload]
    assert ["\n" in output.strip() for output in outputs] == [True, False]
    assert json.loads(outputs[0]) == json.loads(outputs[1])


def test_front_end(theirs: Plugin, ours: Plugin) -> None:
    """What is wrong is named with its value; the codes are the same but for a missing `ipam`."""
    bad: list[tuple[dict[str, Any], str]] = [
        ({"cniVersion": "9.9.9"}, "9.9.9"),
        ({"name": "../x"}, "../x"),
        ({"env": {"CNI_CONTAINERID": "-x"}}, "-x"),
        ({"env": {"CNI_IFNAME": "a/b"}}, "a/b"),
    ]
    for how, value in bad:
        reference, mine = theirs.error("ADD", **json.loads(json.dumps(how))), ours.error("ADD", **how)
        assert reference["code"] == mine["code"]
        assert (value in reference["msg"], value in mine["msg"]) == (False, True)
    for config, codes in ((b'{"name": "n", "cniVersion": "1.0.0"}', [999, 7]), (b'{"name": "n", "ipam": {"ranges": 5}}', [999, 999])):
        found = []
        for plugin in (theirs, ours):
            environ = environment("ADD", path=["/none"])
            done = subprocess.run([plugin.executable], input=config, env=environ, capture_output=True, check=False)
            found.append(json.loads(done.stdout)["code"])
        assert found == codes


def test_io(theirs: Plugin, ours: Plugin) -> None:
    """What the disk refuses is the specification's code 5."""
    for plugin in (theirs, ours):
        plugin.data_dir.write_text("a file")
    assert theirs.error("ADD")["code"] == 999
    error = ours.error("ADD")
    assert (error["code"], error["msg"]) == (5, f"Not a directory: {ours.store}/lock")


def test_cni_path(theirs: Plugin, ours: Plugin) -> None:
    """CNI_PATH is optional."""
    assert theirs.error("ADD", env={"CNI_PATH": ""})["code"] == 4
    assert ours.add(env={"CNI_PATH": ""}) == ["10.0.0.2", "fd00::2"]


def test_own_netns(theirs: Plugin, ours: Plugin) -> None:
    """The network namespace is not this plugin's business."""
    env = {"CNI_NETNS": "/proc/self/ns/net"}
    environ = {**environment("ADD", path=["/none"]), **env}
    netconf = {"cniVersion": "1.0.0", "name": "net", "ipam": {"ranges": BOTH, "dataDir": str(theirs.data_dir)}}
    done = subprocess.run([theirs.executable], input=json.dumps(netconf).encode(), env=environ, capture_output=True, check=False)
    assert (done.returncode, b'"code": 8' in done.stdout, b'"ips"' in done.stdout) == (1, True, True)
    assert ours.add(env=env) == ["10.0.0.2", "fd00::2"]


def test_unknown_args(theirs: Plugin, ours: Plugin) -> None:
    """CNI_ARGS of others are ignored without being told to."""
    assert theirs.error("ADD", env={"CNI_ARGS": "FOO=bar"})["msg"] == 'ARGS: unknown args ["FOO=bar"]'
    assert ours.add(env={"CNI_ARGS": "FOO=bar"}) == ["10.0.0.2", "fd00::2"]


def test_args_first(theirs: Plugin, ours: Plugin) -> None:
    """Where `args` asks for addresses, CNI_ARGS does not count."""
    how: dict[str, Any] = {"env": {"CNI_ARGS": "IgnoreUnknown=1;IP=10.0.0.4"}, "args": {"cni": {"ips": ["10.0.0.5"]}}}
    assert "failed to allocate all requested IPs" in theirs.error("ADD", **json.loads(json.dumps(how)))["msg"]
    assert ours.add(**how) == ["10.0.0.5", "fd00::2"]


def test_validate(theirs: Plugin, ours: Plugin) -> None:
    """A range that has become invalid does not keep an address from being released."""
    for plugin in (theirs, ours):
        plugin.add()
    invalid = [[{"subnet": "10.0.0.1/29"}]]
    assert theirs.error("DEL", ranges=invalid)["code"] == 999
    assert "10.0.0.2" in theirs.reserved()
    ours.ok("CHECK", ranges=invalid)
    ours.ok("DEL", ranges=invalid)
    assert ours.reserved() == set()


def test_prev_result(theirs: Plugin, ours: Plugin) -> None:
    """CHECK knows which address the runtime believes in."""
    for plugin in (theirs, ours):
        plugin.add()
    wrong = {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.6/29"}]}
    theirs.ok("CHECK", prevResult=wrong)
    assert ours.error("CHECK", prevResult=wrong)["msg"] == "10.0.0.6/29 not reserved for container c1"


def test_old_files(theirs: Plugin, ours: Plugin) -> None:
    """A file of an old version is released with the interface that has no other."""
    for plugin in (theirs, ours):
        plugin.add()
        (plugin.store / "10.0.0.5").write_text("c1")
        plugin.ok("DEL")
    assert (theirs.reserved(), ours.reserved()) == (set(), {"10.0.0.5"})
    ours.ok("DEL")
    assert ours.reserved() == set()


def test_gc(theirs: Plugin, ours: Plugin) -> None:
    """GC releases what is not listed, and leaves an old file to its container."""
    more: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
    for plugin in (theirs, ours):
        for container in ("c1", "c2"):
            plugin.add(container)
        (plugin.store / "10.0.0.5").write_text("c2")
        (plugin.store / "10.0.0.6").write_text("c3")
        plugin.ok("GC", **more)
    assert theirs.reserved() == {"10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6", "fd00::2", "fd00::3"}
    assert ours.reserved() == {"10.0.0.3", "10.0.0.5", "fd00::3"}


def test_status(theirs: Plugin, ours: Plugin) -> None:
    """STATUS says when no address is left."""
    for plugin in (theirs, ours):
        for number in range(5):
            plugin.add(f"c{number}")
    theirs.ok("STATUS")
    assert ours.error("STATUS") == {
        "cniVersion": "1.1.0",
        "code": 50,
        "msg": "network net has no free address in range set 10.0.0.1-10.0.0.6: all 5 are reserved",
        "details": "delete pods of this node, or give it another subnet",
    }
    ours.ok("DEL", "c3")
    ours.ok("STATUS")


def test_turns(theirs: Plugin, ours: Plugin) -> None:
    """A pod with IPv6 alone leaves IPv4's turns as they are."""
    got = {}
    for plugin in (theirs, ours):
        found = []
        for number, ranges in enumerate([BOTH, [[V6]], BOTH, [[V6]], BOTH]):
            found.append(plugin.add(f"c{number}", ranges=ranges)[0])
            plugin.ok("DEL", f"c{number}")
        got[plugin] = found
    assert got[theirs] == ["10.0.0.2", "fd00::2", "10.0.0.2", "fd00::2", "10.0.0.2"]
    assert got[ours] == ["10.0.0.2", "fd00::3", "10.0.0.3", "fd00::5", "10.0.0.4"]


def test_failed_add(theirs: Plugin, ours: Plugin) -> None:
    """An ADD that fails changes nothing: no turn, and nothing of what the interface already has."""
    for plugin in (theirs, ours):
        plugin.add(ranges=[[V4]])
        plugin.error("ADD", ranges=[[{"subnet": "10.0.1.0/29"}], [V4]])
    assert (theirs.reserved(), ours.reserved()) == (set(), {"10.0.0.2"})
    assert ((theirs.store / "last_reserved_ip.0").read_text(), (ours.store / "last_reserved_ip.0").read_text()) == ("10.0.1.2", "10.0.0.2")


def test_one_lock(theirs: Plugin, ours: Plugin) -> None:
    """The lock is taken once for an ADD of several range sets."""
    want("strace")
    locks = []
    for plugin in (theirs, ours):
        netconf = {"cniVersion": "1.0.0", "name": "net", "ipam": {"ranges": BOTH, "dataDir": str(plugin.data_dir)}}
        command = ["strace", "-f", "-e", "trace=flock", str(plugin.executable)]
        done = subprocess.run(
            command, input=json.dumps(netconf), env=environment("ADD", path=["/none"]), capture_output=True, text=True, check=True
        )
        locks.append(done.stderr.count("LOCK_EX"))
    assert locks == [2, 1]


def test_healing(theirs: Plugin, ours: Plugin) -> None:
    """Empty, torn and foreign files do not eat the range; what may be an old version's file is kept."""
    files = {"10.0.0.2": b"", "10.0.0.3": b"c9\r\n", "10.0.0.4": b"\0\0\0", "10.0.0.5": b"hello, world", "10.0.0.6": b"c9"}
    for plugin in (theirs, ours):
        plugin.store.mkdir(parents=True)
        for name, content in files.items():
            (plugin.store / name).write_bytes(content)
    assert "no IP addresses available" in theirs.error("ADD")["msg"]
    assert ours.add() == ["10.0.0.2", "fd00::2"]
    assert ours.reserved() == {"10.0.0.2", "10.0.0.6", "fd00::2"}


def test_four_bytes(theirs: Plugin, ours: Plugin) -> None:
    """An IPv6 subnet whose addresses fit in four bytes is IPv6."""
    ranges = [[{"subnet": "::a00:0/120"}]]
    code, answer = theirs.call("ADD", ranges=ranges)
    assert code == 1 or answer["ips"][0]["address"] != "::a00:2/120"
    assert ours.add(ranges=ranges) == ["::a00:2"]
    ours.ok("DEL", ranges=ranges)


def test_mapped(theirs: Plugin, ours: Plugin) -> None:
    """An IPv4-mapped subnet is shown, and what to write instead."""
    ranges = [[{"subnet": "::ffff:10.0.0.0/120"}]]
    message = theirs.error("ADD", ranges=ranges)["msg"]
    assert message == "invalid range set 0: IPNet IP and Mask version mismatch"
    mine = ours.error("ADD", ranges=ranges)["msg"]
    assert mine == f"{message}: ::ffff:10.0.0.0/120 is an IPv4-mapped IPv6 network (::ffff:0:0/96); write it as IPv4"


def test_behind(theirs: Plugin, ours: Plugin) -> None:
    """A range that begins behind its end is an error, and no address outside of the subnet is given."""
    ranges = [[{"subnet": "10.0.0.0/29", "rangeStart": "10.0.0.7"}]]
    assert [theirs.add(f"c{number}", ranges=ranges) for number in range(2)] == [["10.0.0.7"], ["10.0.0.8"]]
    assert "is behind 10.0.0.6" in ours.error("ADD", ranges=ranges)["msg"]


def test_exclude(theirs: Plugin, ours: Plugin) -> None:
    """What is excluded is never given."""
    ipam = {"exclude": ["10.0.0.2", "fd00::/126"]}
    assert theirs.add(ipam=ipam) == ["10.0.0.2", "fd00::2"]
    assert ours.add(ipam=ipam) == ["10.0.0.3", "fd00::4"]


@pytest.fixture
def rebooted(theirs: Plugin, ours: Plugin) -> None:
    """Leave both with a reservation of an earlier boot."""
    for plugin in (theirs, ours):
        plugin.add("old")
    (ours.data_dir / ".net.boot").write_text("another boot")


@pytest.mark.usefixtures("rebooted")
def test_reboot(theirs: Plugin, ours: Plugin) -> None:
    """After a reboot no reservation of before is left, once many have started at once; and those that they got are all kept."""
    threads = [threading.Thread(target=ours.add, args=(f"new{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    theirs.add("new")
    assert (theirs.store / "10.0.0.2").read_bytes() == b"old\r\neth0"
    owners = {path.read_bytes() for path in ours.store.glob("10.*")}
    assert owners == {b"new0\r\neth0", b"new1\r\neth0", b"new2\r\neth0", b"new3\r\neth0"}
    with open("/proc/sys/kernel/random/boot_id", "rb") as boot_id:
        assert (ours.data_dir / ".net.boot").read_bytes() == boot_id.read()
    assert time.time() - os.stat(ours.data_dir / ".net.boot").st_mtime < 60
