# SPDX-License-Identifier: Apache-2.0
"""Each row of docs/reference/host-local.md: the reference does it, ours does better."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from callplugin import environment
from rebooting import reboot, rebooted
from wanting import want

from kubenode.host import identity
from kubenode.host.boot import BOOT_ID

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
    """An error has cniVersion and advice, but for a version that does not have the command: test suites compare all of that."""
    assert set(theirs.error("ADD", ranges=[])) == {"code", "msg"}
    assert set(ours.error("ADD", ranges=[])) == {"cniVersion", "code", "msg", "details"}
    old = {"cniVersion": "0.3.1"}
    assert theirs.error("CHECK", **old) == {"code": 1, "msg": "config version does not allow CHECK"}
    assert ours.error("CHECK", **old) == {"code": 1, "msg": "config version does not allow CHECK", "cniVersion": "0.3.1"}


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
    """What cannot be decoded is described without Go's types, under 7 where libcni's front end or a missing `ipam` says something else."""
    bad: list[tuple[str, tuple[int, str], tuple[int, str]]] = [
        ('{"name": 5}', (6, "cannot unmarshal number"), (7, "invalid characters found in network name")),
        ('{"name": "n", "cniVersion": 5, "ipam": {}}', (6, "cannot unmarshal number"), (7, "cniVersion is a JSON number")),
        ('{"name": "n"}', (999, "IPAM config missing 'ipam' key"), (7, "IPAM config missing 'ipam' key")),
        ('{"name": "n", "ipam": 5}', (999, "cannot unmarshal number"), (7, "ipam is a JSON number")),
        ('{"name": "n", "ipam": {"ranges": 5}}', (999, "cannot unmarshal number"), (999, "ranges is a JSON number")),
        ('{"name": "n"', (6, "unexpected end of JSON input"), (6, "error unmarshall network config: Expecting")),
        ("[]", (6, "cannot unmarshal array"), (6, "error unmarshall network config: a JSON array")),
        ("null", (7, "missing network name"), (6, "error unmarshall network config: a JSON null")),
    ]
    for config, *expected in bad:
        for plugin, (code, part) in zip((theirs, ours), expected, strict=True):
            environ = environment("ADD", path=["/none"])
            done = subprocess.run([plugin.executable], input=config, env=environ, capture_output=True, check=False, text=True)
            error = json.loads(done.stdout)
            assert (error["code"], part in error["msg"]) == (code, True), error
    assert theirs.error("CHECK", cniVersion="x")["code"] == 6
    assert ours.error("CHECK", cniVersion="x")["code"] == 1


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
    for number, text in enumerate(("A=b=c;IgnoreUnknown=1", "IgnoreUnknown=1;", ";", "IgnoreUnknown=maybe")):
        assert theirs.error("ADD", f"n{number}", env={"CNI_ARGS": text})["code"] == 999
        ours.add(f"n{number}", ranges=[[V6]], env={"CNI_ARGS": text})
    theirs.add("n", ranges=[[V6]], env={"CNI_ARGS": "=x;IgnoreUnknown=1"})
    assert ours.error("ADD", "n", env={"CNI_ARGS": "=x;IgnoreUnknown=1"})["msg"] == 'ARGS: invalid pair "=x"'


def test_numbers(theirs: Plugin, ours: Plugin) -> None:
    """A number that no double can hold, or of thousands of digits, is an error, also where nobody wants it."""
    for number in ("1e999", "1" * 4301):
        told = []
        for plugin in (theirs, ours):
            config = {"cniVersion": "1.0.0", "name": "net", "ipam": {"ranges": BOTH, "dataDir": str(plugin.data_dir)}, "more": "NUMBER"}
            stdin = json.dumps(config).replace('"NUMBER"', number)
            environ = environment("ADD", container_id=f"c{len(number)}", path=["/none"])
            done = subprocess.run([plugin.executable], input=stdin, env=environ, capture_output=True, check=False, text=True)
            told.append((done.returncode, json.loads(done.stdout).get("code")))
        assert told == [(0, None), (1, 6)]


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
    """STATUS looks whether an ADD could be served, and says 50 when no address is left where it is to."""
    for plugin in (theirs, ours):
        for number in range(5):
            plugin.add(f"c{number}")
    theirs.ok("STATUS")
    ours.ok("STATUS")
    assert ours.error("STATUS", ipam={"statusWhenFull": "error"}) == {
        "cniVersion": "1.1.0",
        "code": 50,
        "msg": "network net has no free address in range set 10.0.0.1-10.0.0.6: all 5 are reserved",
        "details": "delete pods of this node, or give it another subnet",
    }
    ours.ok("DEL", "c3")
    ours.ok("STATUS", ipam={"statusWhenFull": "error"})


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
            os.utime(plugin.store / name, times=(0, 0))
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
    """Advice shows an IPv4-mapped subnet, and what to write instead."""
    ranges = [[{"subnet": "::ffff:10.0.0.0/120"}]]
    message = theirs.error("ADD", ranges=ranges)["msg"]
    assert message == "invalid range set 0: IPNet IP and Mask version mismatch"
    mine = ours.error("ADD", ranges=ranges)
    assert mine["msg"] == message
    assert f"{message}: ::ffff:10.0.0.0/120 is an IPv4-mapped IPv6 network (::ffff:0:0/96); write it as IPv4" in mine["details"]


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


def test_no_gateway(theirs: Plugin, ours: Plugin) -> None:
    """A range may have no gateway: none is in the result, and no address is kept for one."""
    ranges = [[{**V4, "gateway": "none"}]]
    assert theirs.error("ADD", ranges=ranges)["msg"].endswith("invalid IP address: none")
    assert ours.call("ADD", ranges=ranges)[1]["ips"] == [{"address": "10.0.0.1/29"}]


def test_closing(theirs: Plugin, ours: Plugin) -> None:
    """Of a range that is closing nothing new is given."""
    ranges = [[{**V4, "closing": True}, {"subnet": "10.0.1.0/29"}]]
    assert (theirs.add(ranges=ranges), ours.add(ranges=ranges)) == (["10.0.0.2"], ["10.0.1.2"])


def test_place(theirs: Plugin, ours: Plugin, tmp_path: Path) -> None:
    """Reservations are not where another network has its own, nor among other files; no network is called as a file of theirs."""
    for plugin in (theirs, ours):
        plugin.add()
    (tmp_path / "other/net").mkdir(parents=True)
    (tmp_path / "other/net/kept").touch()
    places: list[dict[str, Any]] = [
        {"ipam": {"dataDir": str(ours.store)}},
        {"ipam": {"dataDir": str(tmp_path / "other")}},
        {"name": "10.0.0.3"},
        {"name": "lock"},
        {"name": "last_reserved_ip.0"},
    ]
    for how in places:
        assert ours.error("ADD", "c2", **how)["code"] == 999
        theirs.add("c2", **{**how, "ipam": {"dataDir": str(theirs.store)}} if how is places[0] else how)


def test_long_name(theirs: Plugin, ours: Plugin) -> None:
    """A network's name may have as many bytes as a file's; the name of the note beside its directory is then another."""
    for length, note in ((245, "n" * 245), (246, sha256(b"n" * 246).hexdigest()), (255, sha256(b"n" * 255).hexdigest())):
        for plugin in (theirs, ours):
            assert plugin.add(name="n" * length) == ["10.0.0.2", "fd00::2"]
            assert (plugin.data_dir / ("n" * length) / "10.0.0.2").exists()
            plugin.ok("DEL", name="n" * length)
        assert (ours.data_dir / f".{note}.note").exists()
    assert [theirs.error(command, name="n" * 256)["code"] for command in ("ADD", "DEL")] == [999, 999]
    assert ours.error("ADD", name="n" * 256)["code"] == 5
    ours.ok("DEL", name="n" * 256)


def test_control(theirs: Plugin, ours: Plugin) -> None:
    """An interface's name with control characters is refused."""
    odd = {"CNI_IFNAME": "eth\x1b0"}
    theirs.add(env=dict(odd))
    assert ours.error("ADD", env=dict(odd))["code"] == 4
    ours.ok("DEL", env=dict(odd))


def test_bounds(theirs: Plugin, ours: Plugin, tmp_path: Path) -> None:
    """A configuration has an end: its size, its ranges, its lists, its resolvConf."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 10.0.0.1\n" * (4 << 10))
    many = [
        [{"subnet": "10.0.0.0/16", "rangeStart": f"10.0.{n}.1", "rangeEnd": f"10.0.{n}.9"} for n in range(256)]
        + [V4 | {"subnet": "10.9.0.0/29"}]
    ]
    over: list[dict[str, Any]] = [
        {"more": "x" * (1 << 20)},
        {"ranges": many},
        {"ipam": {"routes": [{"dst": "10.8.0.0/24"}] * 1001}},
        {"ipam": {"resolvConf": str(resolv)}},
    ]
    for number, how in enumerate(over):
        theirs.add(f"c{number}", **how)
        assert ours.error("ADD", f"c{number}", **how)["code"] in {5, 7, 999}


@pytest.fixture
def after_reboot(theirs: Plugin, ours: Plugin, run_dir: Path) -> None:
    """Leave both with a reservation of an earlier boot."""
    for plugin in (theirs, ours):
        plugin.add("old")
    reboot(ours.data_dir / ".net.note", run_dir=run_dir)
    ours.executable = rebooted(ours.executable, ours.data_dir.parent)


@pytest.mark.usefixtures("after_reboot")
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
    assert (ours.data_dir / ".net.note").read_text() == f"{Path(BOOT_ID).read_text().strip()} {identity.machine_id()}\n"
    assert time.time() - os.stat(ours.data_dir / ".net.note").st_mtime < 60
