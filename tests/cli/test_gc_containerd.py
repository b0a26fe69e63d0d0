"""`kube-node gc` beside real runtimes: containerd as the kubelet's, as Docker's, and containers that neither of them knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from callplugin import environment, execute
from patience import eventually

from kubenode.cni.errors import CNIError
from kubenode.inspection import cri

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from node import SeededNode
    from podnet import PodNet

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
    except CNIError:
        return False


def test_containers_that_are_no_pods(seeded: SeededNode, root: Path, podnet: PodNet, cni_bin: Path) -> None:
    """A living container of podman, which has its address by the reference host-local, keeps it: no runtime that is asked can know it."""
    if shutil.which("containerd") is None:
        pytest.skip("no containerd here (Debian: containerd)")
    conf = {
        "cniVersion": "1.0.0",
        "name": "podman",
        "type": "bridge",
        "ipam": {"type": "host-local", "dataDir": str(seeded.networks), "ranges": [[{"subnet": "10.88.0.0/24"}]]},
    }
    seeded.configure(conf, "87-podman.conflist")
    pod = podnet.pod()
    added = execute(cni_bin / "host-local", conf, environment("ADD", container_id=pod.name, netns=pod.netns, path=[cni_bin]))
    assert (added.code, added.addresses) == (0, ["10.88.0.2"])
    reservation = seeded.networks / "podman/10.88.0.2"
    long_ago = time.time() - 1000
    os.utime(reservation, (long_ago, long_ago))
    with ExitStack() as runtimes:
        kubelets = runtimes.enter_context(containerd(root / "run/k3s/containerd/containerd.sock", serves_cri=True))
        said = seeded.run_command("gc", f"--cri-socket={kubelets}", "--json").json
        assert (said["released"], reservation.exists()) == ([], True)
        docker = runtimes.enter_context(containerd(root / "run/containerd/containerd.sock", serves_cri=False))
        said = seeded.run_command("gc", f"--host-root={root}", "--json").json
        assert (said["released"], [one["address"] for one in said["doubtful"]]) == ([], ["10.88.0.2"])
        assert str(kubelets).removeprefix(str(root)) in said["by"]
        assert f"the runtime at {docker} serves no CRI" in seeded.run_command("gc", f"--cri-socket={docker}").stderr
        assert reservation.exists()
