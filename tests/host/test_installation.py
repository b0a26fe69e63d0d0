# SPDX-License-Identifier: Apache-2.0
"""Files in a host's directories: whoever dies or lacks space in between, what was there before comes back."""

from __future__ import annotations

import itertools
import os
import resource
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kubenode.base.problem import Problem
from kubenode.host.root import HostRoot
from kubenode.installer.installation import Installation
from kubenode.installer.steps import PayloadPart

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = "/opt/cni/bin"
CHANGES = ("open", "write", "rename", "link", "unlink", "mkdir", "rmdir", "fsync", "fchmod")
KILLED = 77  # exit code


class Host:
    """A host with somebody else's host-local, and what is to be installed there."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "host"
        self.bin = self.root / BIN.removeprefix("/")
        self.bin.mkdir(parents=True)
        (self.bin / "host-local").write_bytes(b"somebody else's")
        library = directory / "library"
        library.mkdir(exist_ok=True)
        (library / "module.py").write_bytes(b"1" * 5000)
        self.parts = [
            PayloadPart(f"{BIN}/kube-node.lib.1", tree=str(library)),
            PayloadPart(f"{BIN}/kube-node", b"ours", 0o755),
            PayloadPart(f"{BIN}/host-local", b"ours, too", 0o755),
            PayloadPart("/etc/cni/net.d/10-net.conflist", b"{}"),
        ]

    @property
    def installation(self) -> Installation:
        return Installation(HostRoot(str(self.root)), BIN)

    def install(self) -> None:
        self.installation.install(self.parts, force=True)

    def uninstall(self) -> None:
        self.installation.uninstall([])

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if not path.is_dir()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def is_killed(number: int, work: Callable[[], None]) -> bool:
    """Do the work in a process that dies at its change of the disk of this number; say whether it came to that."""
    process = os.fork()
    if not process:
        changes = itertools.count()

        def counted(real: Callable[..., object], *args: object, **options: object) -> object:
            if next(changes) == number:
                os._exit(KILLED)
            return real(*args, **options)

        for name in CHANGES:
            setattr(os, name, partial(counted, getattr(os, name)))
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("killed", ["install", "uninstall"])
@pytest.mark.slow
def test_uninstall_after_a_kill(tmp_path: Path, killed: str, *, force: bool) -> None:
    """Wherever install or uninstall is killed, uninstall leaves each file as it was before, the foreign one too, and no other."""
    for number in itertools.count():
        (tmp_path / str(number)).mkdir()
        host = Host(tmp_path / str(number))
        before = host.files()
        if killed == "uninstall":
            host.install()
        if not is_killed(number, host.install if killed == "install" else host.uninstall):
            break
        host.installation.uninstall([], force=force)
        assert host.files() == before, number
    assert number > 15


def test_a_link_of_several_plugins(host: Host) -> None:
    """Of a foreign link the link is set aside: what it leads to serves other plugins, too."""
    (host.bin / "cni").write_bytes(b"all plugins in one")
    for name in ("host-local", "bridge"):
        (host.bin / name).unlink(missing_ok=True)
        (host.bin / name).symlink_to("cni")
    with pytest.raises(Problem, match="host-local is not ours"):
        host.installation.install(host.parts)
    host.install()
    assert (host.bin / "bridge").read_bytes() == b"all plugins in one"
    assert (host.bin / "host-local").read_bytes() == b"ours, too"
    host.uninstall()
    assert (host.bin / "host-local").readlink() == Path("cni")
    assert set(os.listdir(host.bin)) == {"cni", "bridge", "host-local"}


def test_no_space(host: Host) -> None:
    """Where the library cannot be written the error says why, and nothing of it stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(Problem, match="File too large"):
            host.install()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(host.bin.glob("kube-node.lib*"))
    host.uninstall()
    assert list(host.files()) == ["opt/cni/bin/host-local"]


@pytest.mark.parametrize("text", ["", "[]", '{"files": {}}', '{"files": {"/a": {"digests": []}}, "directories": []}'])
def test_no_record(host: Host, text: str) -> None:
    """What is no record of an installation is named, and nothing is changed."""
    (host.bin / "kube-node.installed").write_text(text)
    before = host.files()
    for work in (host.install, host.uninstall):
        with pytest.raises(Problem, match="is no record of an installation"):
            work()
    assert host.files() == before
