# SPDX-License-Identifier: Apache-2.0
"""A lab whose node is a machine of its own, as far as a kernel lets it: network, mounts and processes in namespaces.

The node is worker-1 with an address of its own, and its plugins lie at the usual paths; so manifests and pages are taken as they are. What
the `cluster` script leaves out is here: `kubectl logs` and `exec`, the API server's service, images under a registry's names.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lab import POD_NETWORKS, CheckFailedError, Lab, run, wait
from pages import ALONE, emptied

NODE = "worker-1"
ADDRESS = "192.168.1.11"
SERVICE = "10.96.0.1"  # of the API server, by the cluster's service range
EMPTY = ("/opt", "/etc/cni", "/etc/kubernetes", "/var/lib/cni", "/var/log/pods", "/run/kube-node", "/run/netns", "/run/containerd")
# Mounts are shared among the node's containers, as systemd has them. kube-proxy's part is two rules: the API server listens on loopback.
MACHINE = f"""set -eu
mount --make-rshared /
{emptied(*EMPTY)}
ip link set lo up
ip link add eth0 type veth peer name network
ip link set network up
ip link set eth0 up
ip address add {ADDRESS}/24 dev eth0
ip address add fd00:1::11/64 dev eth0 nodad
ip route add default via 192.168.1.1
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
for chain in OUTPUT PREROUTING; do
    iptables -t nat -A $chain -d {SERVICE} -p tcp --dport 443 -j DNAT --to-destination 127.0.0.1:6443
done
"$0" "$@"
exit $?
"""


def on_machine(directory: Path, *command: str | Path) -> int:
    """Run a command on a new machine and return its exit code; what it leaves running ends with it. `directory`: for temporary files."""

    def end(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `timeout` sends two
        sys.exit(143)  # an exception: the machine ends with us, and temporary files go

    signal.signal(signal.SIGTERM, end)
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "TMPDIR": str(directory)}
    return subprocess.call([*ALONE, MACHINE, *map(str, command)], env=environment)


class Worker(Lab):
    """The cluster, with the node's directories at their usual paths."""

    def __init__(self, base: Path, cluster: Path, binaries: Path, reference: Path) -> None:
        super().__init__(base, cluster, binaries, reference)
        self.base = base
        self.data_dir, self.run_dir = Path("/var/lib/cni/networks"), Path("/run/kube-node")
        self.cni_bin, self.net_d = Path("/opt/cni/bin"), Path("/etc/cni/net.d")

    def up(self) -> None:
        for name, target in (("bin", self.cni_bin), ("net.d", self.net_d)):
            target.mkdir(parents=True)
            link = self.directory / "cni" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
        for plugin in ("bridge", "loopback", "portmap"):
            shutil.copy(self.reference / plugin, self.cni_bin)
        hosts = self.base / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{ADDRESS} {NODE}\n")
        run("mount", "--bind", hosts, "/etc/hosts")
        run(self.cluster, "up", self.directory, POD_NETWORKS, f"--node={NODE}")
        self._give_kubelet_an_address()
        for name, root, *entrypoint in (
            ("docker.io/library/busybox:1", "busybox"),
            ("registry.k8s.io/pause:3.9", "pause", "/pause"),
        ):
            self.image(name, self.directory / "rootfs" / root, *entrypoint)

    def _give_kubelet_an_address(self) -> None:
        """Let the API server reach it: `cluster` has it on loopback, which is no Node's address."""
        config = self.directory / "kubelet.yaml"
        config.write_text(config.read_text().replace('"address": "127.0.0.1"', f'"address": "{ADDRESS}"'))
        self.restart("kubelet", {"--node-ip=127.0.0.1": f"--node-ip={ADDRESS}"})
        wait("the Node has an address", 30, lambda: ADDRESS in str(self.get("node", NODE)["status"].get("addresses")))

    def image(self, name: str, root: Path, *entrypoint: str) -> None:
        """Let the node have this directory as an image, as if pulled."""
        run(self.cluster, "image", self.directory, name, root, *entrypoint)

    def load(self, archive: Path, built: str, name: str) -> None:
        """Let the node have an image as it is in an archive, with its user and its PATH."""
        ctr = ("ctr", "--address", self.directory / "run/containerd.sock", "--namespace=k8s.io", "images")
        run(*ctr, "import", archive)
        run(*ctr, "tag", built, name)

    def ready(self) -> None:
        self.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=90s")
        self.pod_cidrs = self.get("node", NODE)["spec"]["podCIDRs"]

    def delete_pods(self) -> None:
        """Delete all pods but those of the system, and see that their addresses are free again."""
        for namespace in ("default", "team-red"):
            self.kubectl("delete", "pods", "--all", f"--namespace={namespace}", "--now", "--wait")
        self.wait_for_nothing(60)

    def check_plugins(self, *names: str) -> None:
        """Raise CheckFailedError unless these and no others are installed, and no network is configured."""
        left = sorted(path.name for path in (*self.cni_bin.iterdir(), *self.net_d.iterdir()))
        if left != sorted(names):
            raise CheckFailedError(f"on the node there are {left}, not {sorted(names)}")
