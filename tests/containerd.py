# SPDX-License-Identifier: Apache-2.0
"""A containerd of a test's own."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from patience import eventually

from kubenode.base.problem import Problem
from kubenode.inspection import cri

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = """version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [{disabled}]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/bin"
    conf_dir = "{directory}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"""


@contextmanager
def containerd(socket: Path, *, serves_cri: bool) -> Iterator[Path]:
    """Run a containerd of its own with its CRI service, or without as Docker's packages configure it."""
    directory = socket.parent
    directory.mkdir(parents=True)
    config = directory / "config.toml"
    config.write_text(CONFIG.format(directory=directory, socket=socket, disabled="" if serves_cri else '"io.containerd.grpc.v1.cri"'))
    with (directory / "log").open("wb") as log, subprocess.Popen(["containerd", "-c", config], stdout=log, stderr=log) as process:
        try:
            eventually(lambda: answers(socket), f"containerd does not come up: {directory}/log")
            yield socket
        finally:
            process.terminate()


def answers(socket: Path) -> bool:
    try:
        return bool(cri._call(str(socket), cri.METHODS[0]))
    except Problem:
        return False
