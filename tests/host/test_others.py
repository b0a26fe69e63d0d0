# SPDX-License-Identifier: Apache-2.0
"""Attachment records, finding a delegate, the log, who this host is."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kubenode.base.log import Log
from kubenode.cni.errors import CNIError
from kubenode.host import delegate, identity
from kubenode.host.attachments import Attachments, Record
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = Attachment("c1", "eth0"), Attachment("c1", "net1")


def test_attachment_records(run_dir: Path) -> None:
    """A record is there from its writing to its removal, for its network alone; what cannot be read is none."""
    net, other = Attachments(str(run_dir), "net"), Attachments(str(run_dir), "net.x")
    assert list(net.all()) == []
    assert net.read(ONE) is None
    net.write(ONE, Record("/n", ipam={"type": "host-local"}))
    net.write(TWO, Record())
    other.write(ONE, Record())
    assert net.read(ONE) == Record("/n", ipam={"type": "host-local"})
    assert sorted(net.all()) == [ONE, TWO]
    assert sorted(os.listdir(run_dir / "attachments")) == ["net.x:c1:eth0", "net:c1:eth0", "net:c1:net1"]
    (run_dir / "attachments/net:c1:net1").write_text("[")
    assert net.read(TWO) is None
    for _ in range(2):
        net.remove(ONE)
    assert list(net.all()) == [TWO]


def test_finding_a_delegate(tmp_path: Path) -> None:
    """The first executable of the name in CNI_PATH; directories and files that are no programs do not count."""
    for directory, mode in (("a", 0o644), ("b", 0o755), ("c", 0o755)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "x").write_text("")
        (tmp_path / directory / "x").chmod(mode)
    (tmp_path / "x").mkdir()
    path = [str(tmp_path), *(str(tmp_path / directory) for directory in "abc")]
    assert delegate.find("x", path) == str(tmp_path / "b/x")
    assert delegate.find(str(tmp_path / "c/x"), path) == str(tmp_path / "c/x")
    assert delegate.find("y", path) is None
    with pytest.raises(CNIError, match="IPAM plugin y not found in CNI_PATH") as error:
        delegate.require("y", path)
    assert error.value.code == 113


def test_our_own_launcher_is_no_delegate(binaries: Path, tmp_path: Path) -> None:
    """host-local of our own is known as such, so that no second Python is started for what can be done at once."""
    for name in ("host-local", "host-local.standalone"):
        assert delegate.is_ours(str(binaries / name))
        (tmp_path / name).symlink_to(binaries / name)
        assert delegate.is_ours(str(tmp_path / name))
    (tmp_path / "x").write_bytes(b"\x7fELF" + b"\0" * 600)
    shutil.copy(binaries / "host-local.standalone", tmp_path / "x.standalone")  # beside another's host-local it says nothing
    assert not delegate.is_ours(str(tmp_path / "x"))
    assert not delegate.is_ours(str(tmp_path / "none"))
    assert not delegate.is_ours(str(tmp_path))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a file: warnings and errors, one JSON line each, to stderr; never a word on stdout."""
    log = Log("kube-node")
    log.bind(command="ADD", ifname="")
    for write in (log.trace, log.debug, log.info, log.warning, log.error):
        write("text", number=1)
    captured = capfd.readouterr()
    assert captured.out == ""
    found = lines(captured.err)
    assert [{key: value for key, value in line.items() if key != "ts"} for line in found] == [
        {"level": level, "msg": "text", "plugin": "kube-node", "command": "ADD", "number": 1} for level in ("warning", "error")
    ]
    assert found[0]["ts"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "written"),
    [("", 3), ("info", 3), ("debug", 4), ("trace", 5), ("0", 3), ("1", 4), ("2", 5), ("9", 5), ("rubbish", 3)],
)
def test_log_levels(tmp_path: Path, capfd: pytest.CaptureFixture[str], level: str, written: int) -> None:
    """A file gets what its level says, which may be a number; a file that cannot be written is told on stderr."""
    log = Log("kube-node")
    log.configure(str(tmp_path / "log"), level)
    for write in (log.trace, log.debug, log.info, log.warning, log.error):
        write("text")
    assert len(lines((tmp_path / "log").read_text())) == written
    assert capfd.readouterr() == ("", "")
    log.configure(str(tmp_path / "none/log"), level)
    log.error("text")
    assert "cannot write the log file" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("environ", "file", "name"),
    [
        ({"NODE_NAME": "a"}, "b", "a"),
        ({}, "b\n", "b"),
        ({"NODE_NAME": " "}, "b", "b"),
        ({}, None, ""),
        ({}, "", ""),
        ({}, "b machine\n", ""),
    ],
)
def test_the_given_name(run_dir: Path, environ: dict[str, str], file: str | None, name: str) -> None:
    """$NODE_NAME, then the file `nodename`, then nobody."""
    if file is not None:
        (run_dir / "nodename").write_text(file)
    assert identity.given_name(environ, str(run_dir))[0] == name
    assert identity.machine_id(str(run_dir / "none")) == ""


def test_the_noted_name(run_dir: Path) -> None:
    """A name that the program itself has noted is known as that; what an administrator has said is not written over by the same."""
    assert identity.noted_names(str(run_dir)) == ()
    identity.note_name(str(run_dir), "a", "m")
    assert (identity.given_name({}, str(run_dir)), identity.noted_names(str(run_dir))) == (("", ""), ("a",))
    (run_dir / "nodename").write_text("a\n")
    identity.note_name(str(run_dir), "a", "m")
    assert identity.given_name({}, str(run_dir))[0] == "a"
    identity.note_name(str(run_dir), "b", "m")
    assert identity.noted_names(str(run_dir)) == ("b",)
