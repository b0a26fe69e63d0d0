# SPDX-License-Identifier: Apache-2.0
"""Where /run is full or read-only there is no cache, and pods start all the same."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from apiserver import write_kubeconfig
from callplugin import outdate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from callplugin import Network, NetworkMaker

pytestmark = pytest.mark.ways("standalone", "console")  # an agent holds the Node in its memory
PAGE = 4096  # bytes


@contextmanager
def closed(run_dir: Path, how: str) -> Iterator[None]:
    """Let the run directory be a file system of its own, which is full or read-only, with what is there."""
    if os.geteuid() != 0:
        pytest.skip("a file system needs root to be mounted")
    kept = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={(1 + len(kept)) * PAGE}", "none", run_dir], check=True)
    try:
        for name, content in kept.items():
            (run_dir / name).write_bytes(content)
        with (run_dir / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(b"x" * PAGE):
                pass
        if how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", run_dir], check=True)
        yield
    finally:
        subprocess.run(["umount", run_dir], check=True)


def lifetime(net: Network) -> None:
    added = net.call("ADD")
    assert (added.code, len(added.addresses)) == (0, 2), added
    assert "cannot be written" in added.stderr
    net.ok("CHECK", prevResult=added.json)
    net.gc("c1")
    net.ok("DEL")
    assert net.reserved() == []


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_without_a_view(network: NetworkMaker, node: str, kubeconfig: str, run_dir: Path, how: str) -> None:
    """The API server is asked, and what it says serves though it cannot be kept; the log has a warning."""
    del node
    with closed(run_dir, how):
        lifetime(network(kubeconfig=kubeconfig))


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_with_an_old_view(network: NetworkMaker, node: str, kubeconfig: str, run_dir: Path, tmp_path: Path, how: str) -> None:
    """A view that is old and cannot be renewed serves while the API server does not answer, and is no obstacle where it does."""
    del node
    net = network(kubeconfig=kubeconfig)
    net.ok("STATUS")
    outdate(run_dir, 1000)
    with closed(run_dir, how):
        lifetime(net)
        write_kubeconfig(tmp_path / "kubeconfig", {"server": "https://127.0.0.1:1"}, {"token": "t"})
        lifetime(net)


def test_a_directory_called_nodename(embedded: NetworkMaker, run_dir: Path) -> None:
    """A directory in the place of a file is named, with advice for it, wherever the run directory is."""
    (run_dir / "nodename").mkdir()

    error = embedded().error(env={"NODE_NAME": ""})

    assert (error["code"], error["msg"]) == (5, f"{run_dir}/nodename is a directory, not a file")
    assert error["details"].endswith(f"rmdir {run_dir}/nodename")
