# SPDX-License-Identifier: Apache-2.0
"""Disks that are full, read-only or not what they should be: the right error, nothing lost, nothing written elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import Network, environment
from wanting import want

from kubenode.base import files
from kubenode.base.log import Log
from kubenode.plugins import host_local, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RANGES = [[{"subnet": "10.0.0.0/16"}], [{"subnet": "fd00::/64"}]]


@pytest.fixture
def net(binaries: Path, tmp_path: Path) -> Network:
    """Return a network of our host-local."""
    return Network(binaries / "host-local", tmp_path / "networks", {"ranges": RANGES})


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 10 blocks and 12 files."""
    want("the right to mount")
    directory = tmp_path / "networks"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k,nr_inodes=13", "none", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_a_file_that_cannot_be_read(net: Network, tmp_path: Path) -> None:
    """What read(2) refuses, such as a directory, is named, too, with advice for it."""
    (tmp_path / "networks/.net.note").mkdir(parents=True)

    error = net.error()

    assert (error["code"], error["msg"]) == (5, f"Is a directory: {tmp_path}/networks/.net.note")
    assert error["details"] == "there is a directory where a file should be: remove it"


@pytest.mark.parametrize("value", [[], {}, 0, False])
def test_data_dir_of_another_type(net: Network, value: Any) -> None:
    """A dataDir of another type is an error, also where it is empty, and not the default; a DEL goes well."""
    net.ipam["dataDir"] = value
    assert net.error()["msg"] == f"dataDir {value!r} is not a path"
    net.ok("DEL")


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_resolv_conf_that_cannot_be_read(binaries: Path, tmp_path: Path, kind: str) -> None:
    """A resolvConf that cannot be read is named as what it is, and the advice is not about dataDir."""
    path = tmp_path / "resolv.conf"
    if kind == "directory":
        path.mkdir()
    net = Network(binaries / "host-local", tmp_path / "networks", {"ranges": RANGES, "resolvConf": str(path)})

    error = net.error()

    advice = "name a file such as /etc/resolv.conf as resolvConf, or leave it out"
    missing = f"resolvConf {path} cannot be read: No such file or directory; {advice}"
    msg, details = {
        "missing": (f"open {path}: no such file or directory", missing),
        "directory": (f"resolvConf {path} cannot be read: not a regular file", advice),
    }[kind]
    assert (error["code"], error["msg"], error["details"]) == (5, msg, details)


def test_another_full_disk(tmp_path: Path) -> None:
    """What write(2) refuses elsewhere than in dataDir is named, and dataDir is not blamed."""

    def write(_: skel.Call) -> bytes:
        fd = os.open("/dev/full", os.O_WRONLY)
        try:
            files.write_all(fd, b"x")
        finally:
            os.close(fd)
        return b""

    netconf = {"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "host-local", "dataDir": str(tmp_path)}}
    code, stdout = skel.run({"ADD": write}, environment("ADD"), json.dumps(netconf).encode(), Log("test"), Standalone({}))

    error = json.loads(stdout)
    assert (code, error["code"], error["msg"]) == (1, 5, "No space left on device: /dev/full")
    assert error["details"] == "the disk is full: make room"


def test_a_full_disk(net: Network, mounted: Path) -> None:
    """A pod that finds the disk full leaves nothing, not even of the family that there was room for; DEL makes room."""
    given = 0
    while (answer := net.call("ADD", f"c{given}")).code == 0:
        given += 1
    error = answer.json
    assert error["code"] == 5
    assert error["msg"].startswith(f"No space left on device: {mounted}/")
    assert error["details"] == "the disk is full: make room, or set dataDir to another"
    assert given
    owners = [(mounted / "net" / name).read_bytes() for name in net.reserved()]
    assert sorted(owners) == sorted([f"c{number}\r\neth0".encode() for number in range(given)] * 2)
    net.ok("DEL", "c0")
    assert len(net.add("again")) == 2


def test_a_read_only_disk(net: Network, mounted: Path) -> None:
    """On a read-only file system ADD says so; what was reserved is still known to CHECK."""
    net.add("before")
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    error = net.error()
    assert error["code"] == 5
    assert error["msg"].startswith("Read-only file system: ")
    net.ok("CHECK", "before")
    subprocess.run(["mount", "-o", "remount,rw", mounted], check=True)
    net.ok("DEL", "before")


def test_a_file_in_place_of_the_directory(net: Network, tmp_path: Path) -> None:
    """A data directory that is a file is an error with its path."""
    (tmp_path / "networks").write_text("kept")
    error = net.error()
    assert (error["code"], error["details"]) == (5, "there is a file where a directory should be: remove it, or set dataDir to another")
    assert str(tmp_path / "networks") in error["msg"]
    assert (tmp_path / "networks").read_text() == "kept"


@pytest.mark.parametrize("data_dir", ["file", "file/x", "/proc/none"])
def test_del_where_nothing_can_be(binaries: Path, tmp_path: Path, data_dir: str) -> None:
    """Where the directory cannot be made ADD is an error, and the DEL that follows is none: the pod could never be deleted."""
    (tmp_path / "file").write_text("kept")
    net = Network(binaries / "host-local", tmp_path / data_dir, {"ranges": RANGES})
    assert net.error()["code"] == 5
    net.ok("DEL")
    assert (tmp_path / "file").read_text() == "kept"


def test_no_permission(binaries: Path) -> None:
    """Who may not write there gets an error with the path."""
    want("root", "setpriv")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        shutil.copytree(binaries, f"{directory}/bin")
        netconf = {"cniVersion": "1.0.0", "name": "net", "ipam": {"ranges": RANGES, "dataDir": f"{directory}/data"}}
        command = ["setpriv", "--reuid=65534", "--clear-groups", f"{directory}/bin/host-local"]
        done = subprocess.run(command, input=json.dumps(netconf), env=environment("ADD"), capture_output=True, text=True, check=False)
    error = json.loads(done.stdout)
    assert (done.returncode, error["code"], error["msg"]) == (1, 5, f"Permission denied: {directory}/data")


def test_obstacles_under_an_addresss_name(net: Network, tmp_path: Path) -> None:
    """A link or a directory named as an address is neither followed nor removed; the next address is given."""
    outside = tmp_path / "outside"
    outside.write_text("kept")
    net.directory.mkdir(parents=True)
    (net.directory / "10.0.0.2").symlink_to(outside)
    (net.directory / "10.0.0.3").symlink_to(tmp_path / "none")
    (net.directory / "10.0.0.4").mkdir()
    assert net.add()[0] == "10.0.0.5"
    net.ok("DEL")
    net.gc()
    assert outside.read_text() == "kept"
    assert not (tmp_path / "none").exists()
    assert sorted(path.name for path in net.directory.glob("10.*")) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]


@pytest.mark.parametrize(("key", "value"), [("name", "../x"), ("name", "a/b"), ("name", ".."), ("env", "../x"), ("env", "a/b")])
def test_names_that_try_to_leave(net: Network, tmp_path: Path, key: str, value: str) -> None:
    """A network's or a container's name is a file name of the specification's characters, or an error."""
    before = sorted(tmp_path.rglob("*"))
    error = net.error(**({"name": value} if key == "name" else {"env": {"CNI_CONTAINERID": value}}))
    assert error["code"] == (7 if key == "name" else 4)
    assert sorted(tmp_path.rglob("*")) == before


def call(data_dir: Path, command: str, container: str, **more: Any) -> tuple[int, Any]:
    ipam = {"type": "host-local", "dataDir": str(data_dir), "ranges": RANGES, "statusWhenFull": "error"}
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": ipam, **more}).encode()
    code, stdout = skel.run(host_local.COMMANDS, environment(command, container_id=container), stdin, Log("host-local"), Standalone({}))
    return code, json.loads(stdout or b"null")


@pytest.mark.slow
def test_sixty_thousand(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With 60,000 reservations ADD finds the free one, STATUS is right on either side of full, and GC keeps what is valid."""
    store = tmp_path / "net"
    store.mkdir()
    # All of the /16 but one, network, gateway and broadcast.
    numbers = [number for number in range(2, 65535) if number != 40_000]
    free = "10.0.156.64"
    for number in numbers:
        (store / f"10.0.{number >> 8}.{number & 255}").write_bytes(b"c%d\r\neth0" % number)
    assert call(tmp_path, "STATUS", "") == (0, None)
    code, answer = call(tmp_path, "ADD", "last")
    assert (code, answer["ips"][0]["address"]) == (0, f"{free}/16")
    code, error = call(tmp_path, "STATUS", "")
    assert (code, error["code"]) == (1, 50)
    assert error["msg"] == "network net has no free address in range set 10.0.0.1-10.0.255.254: all 65533 are reserved"
    valid = [{"containerID": f"c{number}", "ifname": "eth0"} for number in numbers[::2]]
    assert call(tmp_path, "GC", "", **{"cni.dev/valid-attachments": valid}) == (0, None)
    assert len(list(store.glob("10.*"))) == len(valid)
    assert {path.name for path in store.iterdir() if not path.name.startswith("10.")} == {
        "lock", "last_reserved_ip.0", "last_reserved_ip.1"
    }  # fmt: skip
    assert call(tmp_path, "STATUS", "") == (0, None)
    capfd.readouterr()
