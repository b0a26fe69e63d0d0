# SPDX-License-Identifier: Apache-2.0
"""Paths of the host under a directory: where they are found, and whether they are the host's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubenode.cni.errors import CNIError
from kubenode.host.root import HostRoot

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_root(tmp_path: Path) -> None:
    """An agent that sees the host as it is takes paths as they are, and everything as mounted."""
    root = HostRoot()
    assert root.path("/var/run/x") == root.seen("/var/run/x", "x") == "/var/run/x"
    assert root.is_mounted(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("links", "path", "found"),
    [
        ({}, "/var/lib/cni", "/var/lib/cni"),
        ({}, "//var/./lib//cni/", "/var/lib/cni"),
        ({}, "/", "/"),
        ({}, "/../../etc", "/etc"),
        ({}, "/var/run/netns/x", "/run/netns/x"),
        ({"var/run": "/run"}, "/var/run/netns/x", "/run/netns/x"),
        ({"var/run": "../run"}, "/var/run/netns/x", "/run/netns/x"),
        ({"var/run": "../../../run"}, "/var/run/netns/x", "/run/netns/x"),
        ({"var/lib": "/data/lib", "data": "/mnt"}, "/var/lib/cni", "/mnt/lib/cni"),
        ({"a": "b", "b": "a"}, "/a/x", "/a/x"),
    ],
)
def test_links_lead_where_they_lead_on_the_host(tmp_path: Path, links: dict[str, str], path: str, found: str) -> None:
    """A link's absolute target is the host's, .. ends at its root, and without /var at hand /var/run is /run."""
    host = tmp_path / "host"
    host.mkdir()
    for name, target in links.items():
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).symlink_to(target)
    assert HostRoot(str(host)).path(path) == (f"{host}{found}" if found != "/" else f"{host}/")


def test_a_real_directory_var_run(tmp_path: Path) -> None:
    """Where the host's /var/run is a directory it is that directory."""
    (tmp_path / "var/run").mkdir(parents=True)
    assert HostRoot(str(tmp_path)).path("/var/run/x") == f"{tmp_path}/var/run/x"


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/var/lib/cni/networks", "/var/lib"),
        ("/run/x/y", "/run"),
        ("/var/run/x", "/run"),
        ("/data", "/data"),
        ("/link/x", "/mnt/disk"),
        ("/", "/"),
    ],
)
def test_what_is_not_mounted(tmp_path: Path, path: str, mount: str) -> None:
    """A directory on no mount below the root is the container's own: error 118 names the mount that is missing."""
    (tmp_path / "link").symlink_to("/mnt/disk")
    root = HostRoot(str(tmp_path))
    assert not root.is_mounted(path)
    with pytest.raises(CNIError) as error:
        root.seen(path, "dataDir")
    assert error.value.code == 118
    assert f"dataDir {path} of the host is not mounted" in error.value.msg
    assert f"mount the host's {mount} at {tmp_path}{mount} (" in error.value.details
