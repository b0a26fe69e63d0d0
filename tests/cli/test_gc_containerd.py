# SPDX-License-Identifier: Apache-2.0
"""`kube-node gc` beside real runtimes: containerd as the kubelet's, as Docker's, and containers that neither of them knows."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from callplugin import environment, execute
from containerd import containerd
from wanting import want

if TYPE_CHECKING:
    from pathlib import Path

    from node import SeededNode
    from podnet import PodNet


def test_containers_that_are_no_pods(seeded: SeededNode, root: Path, podnet: PodNet, cni_bin: Path) -> None:
    """A living container of podman, which has its address by the reference host-local, keeps it: no runtime that is asked can know it."""
    want("containerd")
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
        said = seeded.run_command("gc", f"--cri-socket={kubelets}", "-o", "json").json
        assert (said["released"], reservation.exists()) == ([], True)
        docker = runtimes.enter_context(containerd(root / "run/containerd/containerd.sock", serves_cri=False))
        said = seeded.run_command("gc", f"--host-root={root}", "-o", "json").json
        assert (said["released"], [one["address"] for one in said["doubtful"]]) == ([], ["10.88.0.2"])
        assert str(kubelets).removeprefix(str(root)) in said["by"]
        assert f"the runtime at {docker} serves no CRI" in seeded.run_command("gc", f"--cri-socket={docker}").stderr
        assert reservation.exists()
