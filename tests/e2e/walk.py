#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The how-tos that need a cluster, command for command, on a real one: a node with the Go plugin's legacy becomes ours, and is left again.

The cluster is worker.py's, the manifests those of deploy/ as they are, the image the one that tests/packages/image.sh built of the
Dockerfile, or else what packaging/image.sh makes. The pages' blocks below `<!-- run: MARK -->` are run in a fresh checkout, in the order of
SCENES, and what they print is what the pages say. Beside the pages: while the DaemonSet is updated to another build, pods come and go and
none is lost; in the end the node has what it had.

    walk.py [--image=ARCHIVE] [--bin=_output/bin] [--pods=3]

Root only, with KUBE_NODE_TESTBIN and CNI_TEST_PATH as for one_node_cluster.py, helm (or HELM), prometheus and iptables. Takes about four
minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "packaging"), str(Path(__file__).resolve().parents[1])]
import pages  # noqa: E402 -- found by the path above
from compile_relay import compile_relay, here  # noqa: E402
from lab import ENTRYPOINT, NETWORK, ROOT, CheckFailedError, cluster_for, parser, run, show, wait  # noqa: E402
from worker import NODE, Worker, on_machine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

IMAGE = "registry.example.com/kube-node"
BUILT = "localhost/kube-node:1"  # what tests/packages/image.sh calls it
NEW = "2.0.0-e2e"
REFERENCE = ("bridge", "loopback", "portmap")

# Does what the Go plugin does: hands on to host-local, with the Node's podCIDRs as ranges.
GO_PLUGIN = """#!/usr/bin/python3
import json, subprocess, sys
conf = json.load(sys.stdin)
conf["ipam"] = {"type": "host-local", "dataDir": "/var/lib/cni/networks", "ranges": [[{"subnet": cidr}] for cidr in PODCIDRS]}
sys.exit(subprocess.run(["/opt/cni/bin/host-local"], input=json.dumps(conf), text=True).returncode)
"""
GO_CONFLIST = {
    "cniVersion": "1.0.0",
    "name": NETWORK,
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cbr0",
            "isDefaultGateway": True,
            "ipam": {"type": "kube-node", "kubeconfig": "/etc/kubernetes/kubeconfig"},
        }
    ],
}

# Does what Multus does for a pod's second interface: runs the plugin of the network that the pod's annotation names.
MULTUS = """#!/usr/bin/python3
import json, os, re, subprocess, sys
conf = json.load(sys.stdin)
pod = dict(pair.partition("=")[::2] for pair in os.environ["CNI_ARGS"].split(";"))
words = ["kubectl", "--kubeconfig=ADMIN", "get", "pod", pod["K8S_POD_NAME"], "--namespace=" + pod["K8S_POD_NAMESPACE"], "--output=json"]
found = subprocess.run(words, capture_output=True).stdout or b"{}"
asked = json.loads(found).get("metadata", {}).get("annotations", {}).get("k8s.v1.cni.cncf.io/networks", "")
if os.environ["CNI_COMMAND"] == "DEL":
    asked = "net1"  # its own record, as the pod may be gone
for name in filter(None, asked.split(",")):
    net = re.search(r"name: " + name + "\\n.*?config: \\|\\n(.*?)\\n(---|$)", open("NAD").read() + "\\n", re.S)[1]
    environ = {**os.environ, "CNI_IFNAME": name, "PATH": os.environ.get("PATH", "") + ":/usr/sbin"}
    done = subprocess.run(["/opt/cni/bin/" + json.loads(net)["type"]], input=net, text=True, env=environ, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(print(done.stdout) or 1)
if os.environ["CNI_COMMAND"] == "ADD":
    print(json.dumps(conf["prevResult"]))
"""


PORT = 19090  # of the agent
FAILURES = 40  # seconds in which a kubelet has three failures of a probe behind it
FIRST = {  # a pod that is there before the node is ready
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "first"},
    "spec": {"tolerations": [{"operator": "Exists"}], "containers": [{"name": "pause", "image": "registry.k8s.io/pause:3.9"}]},
}


class Walk:
    """The checkout, and the cluster on which its pages are followed."""

    def __init__(self, lab: Worker, place: Path, churning: int) -> None:
        self.lab = lab
        self.place = place
        self.churning = churning

    def page(self, name: str, mark: str) -> None:
        """Run the page's blocks. Raises CheckFailedError."""
        begin = time.monotonic()
        walked = pages.steps(self.place / f"docs/how-to/{name}", mark)
        if not walked:
            raise CheckFailedError(f"{name} has no block with the mark {mark}")
        environment = {
            "KUBECONFIG": str(self.lab.directory / "admin.conf"),
            "PATH": f"{self.lab.base}/commands:{os.environ['PATH']}",
            "COLUMNS": "140",
        }
        try:
            pages.walk(walked, self.place, environment, timeout=400)
        except pages.PageError as error:
            told = self.lab.kubectl("describe", "pods", "--all-namespaces")[-3000:]
            raise CheckFailedError(f"{name}: {error}\n{told}\n{logs()}") from None
        show(f"{name} ({mark})", f"{len(walked)} blocks, {time.monotonic() - begin:.1f} s")

    @contextmanager
    def legacy(self) -> Iterator[None]:
        """Let the node have what the Go plugin and its shell companion leave behind, and a pod with addresses that host-local reserved."""
        lab = self.lab
        lab.pod_cidrs = lab.get("node", NODE)["spec"]["podCIDRs"]
        shutil.copy(lab.reference / "host-local", lab.cni_bin)
        write(lab.cni_bin / "kube-node", GO_PLUGIN.replace("PODCIDRS", str(lab.pod_cidrs)), 0o755)
        write(lab.cni_bin / "node-annotation", "#!/bin/sh\necho 'the shell companion'\n", 0o755)
        write(Path("/etc/cni/node-annotation.conf"), json.dumps({"kubeconfig": "/etc/kubernetes/kubeconfig", "log": "/var/log/na.log"}))
        shutil.copy(lab.credentials("legacy", "get,list nodes"), "/etc/kubernetes/kubeconfig")  # a kubelet's may not list since 1.32
        write(lab.net_d / "10-k8snet.conflist", json.dumps(GO_CONFLIST))
        lab.ready()
        lab.kubectl("run", "old", "--image=registry.k8s.io/pause:3.9")
        lab.kubectl("wait", "--for=condition=Ready", "pod/old", "--timeout=60s")
        reserved = lab.data_dir / NETWORK
        ranges = [[{"subnet": cidr}] for cidr in lab.pod_cidrs]
        write(reserved / "kube-node.json", json.dumps({"type": "host-local", "dataDir": str(lab.data_dir), "ranges": ranges}))
        yield
        lab.kubectl("delete", "pods", "--all", "--now", "--wait")
        wait(lambda: f"nothing reserved, but {lab.reservations()}", 60, lambda: not lab.reservations())
        for name in ("host-local", "kube-node", "node-annotation"):
            (lab.cni_bin / name).unlink()
        (lab.net_d / "10-k8snet.conflist").unlink()
        lab.check_plugins(*REFERENCE)
        for directory in (reserved, lab.run_dir / "attachments"):  # of a pod that our plugin began with and the old one ended
            shutil.rmtree(directory)
        (lab.run_dir / "node.json").unlink()

    @contextmanager
    def fresh(self) -> Iterator[None]:
        yield
        self.lab.ready()
        kubeconfig = self.lab.net_d / "kube-node.d/kubeconfig"
        run("kubectl", "--kubeconfig", kubeconfig, "get", "node", NODE)
        if (
            subprocess.run(["kubectl", "--kubeconfig", kubeconfig, "get", "secrets", "-A"], check=False, capture_output=True).returncode
            == 0
        ):
            raise CheckFailedError("the service account may read secrets")

    @contextmanager
    def pods_deleted(self) -> Iterator[None]:
        yield
        self.lab.delete_pods()

    @contextmanager
    def multus(self) -> Iterator[None]:
        """Let something stand for Multus, which is not to be had here."""
        lab = self.lab
        text = MULTUS.replace("ADMIN", str(lab.directory / "admin.conf")).replace("NAD", str(self.place / "examples/nad-kube-node.yaml"))
        write(lab.cni_bin / "multus", text, 0o755)
        conf = json.loads((lab.net_d / "10-kube-node.conflist").read_text())
        conf["plugins"].append({"type": "multus"})
        write(lab.net_d / "00-multus.conflist", json.dumps(conf))
        time.sleep(1)  # the runtime looks at the directory
        yield
        lab.delete_pods()
        (lab.net_d / "00-multus.conflist").unlink()
        (lab.cni_bin / "multus").unlink()

    @contextmanager
    def full(self) -> Iterator[None]:
        """Let the node have no address left: its runtime has forgotten pods without a DEL."""
        lab = self.lab
        conf = json.loads((lab.net_d / "10-kube-node.conflist").read_text())
        netconf = json.dumps({"cniVersion": conf["cniVersion"], "name": NETWORK, **conf["plugins"][0]})
        for number in range(253):
            name = f"gone-{number}"
            pod = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={name}"
            cni = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}", "CNI_IFNAME": "eth0"}
            environ = {**os.environ, **cni, "CNI_PATH": str(lab.cni_bin), "CNI_ARGS": pod}
            subprocess.run([lab.cni_bin / "kube-node"], input=netconf, text=True, env=environ, check=True, capture_output=True)
        lab.kubectl("run", "shop", "--image=registry.k8s.io/pause:3.9")
        wait("the pod fails", 60, lambda: "plugin type=" in lab.kubectl("describe", "pod", "shop"))
        yield
        lab.delete_pods()

    @contextmanager
    def churn(self) -> Iterator[None]:
        """Let pods come and go meanwhile: each of them gets its addresses, and gives them back."""
        stop = threading.Event()
        trouble: list[str] = []
        done: list[float] = []
        lanes = [threading.Thread(target=self._come_and_go, args=(lane, stop, trouble, done)) for lane in range(2)]
        for lane in lanes:
            lane.start()
        try:
            wait("pods come and go", 60, lambda: len(done) >= len(lanes) or bool(trouble))
            yield
            after = len(done)
            wait("pods still come and go", 60, lambda: len(done) >= after + len(lanes) or bool(trouble))
        finally:
            stop.set()
            for lane in lanes:
                lane.join()
        if trouble:
            raise CheckFailedError("\n".join(trouble))
        show("pods that came and went meanwhile", f"{len(done)}, none failed; slowest {max(done):.1f} s")

    def _come_and_go(self, lane: int, stop: threading.Event, trouble: list[str], done: list[float]) -> None:
        number = 0
        where = "--namespace=team-red"  # one of those whose pods have both families, see limit-ipv4.md
        while not stop.is_set() or number < self.churning:
            name = f"churn-{lane}-{number}"
            number += 1
            begin = time.monotonic()
            try:
                self.lab.kubectl("run", name, where, "--image=registry.k8s.io/pause:3.9")
                self.lab.kubectl("wait", "--for=condition=Ready", f"pod/{name}", where, "--timeout=90s")
                addresses = self.lab.pod_addresses(where, "--field-selector", f"metadata.name={name}")[name]
                if len(addresses) != len(self.lab.pod_cidrs):
                    trouble.append(f"{name} has {addresses}")
                self.lab.kubectl("delete", "pod", name, where, "--wait", "--timeout=90s")
            except CheckFailedError as failure:
                trouble.append(str(failure))
                return
            done.append(time.monotonic() - begin)

    @contextmanager
    def removed(self) -> Iterator[None]:
        self.lab.delete_pods()
        yield
        self.lab.check_plugins(*REFERENCE)
        show("uninstalled", "the node has what it had before")

    @contextmanager
    def helm(self) -> Iterator[None]:
        """Let the manifests of before be gone, and see a pod with addresses by the chart's, which waits for the network and for no more.

        Meanwhile somebody else has the agent's HTTP port, which is the kubelet no reason to restart it.
        """
        system = "--namespace=kube-system"
        wait("the last pods are gone", 60, lambda: not self.lab.get("pods", system)["items"])
        self.lab.kubectl("wait", "--for=condition=Ready=false", f"node/{NODE}", "--timeout=90s")
        with socket.create_server(("127.0.0.1", PORT)):
            self.lab.kubectl("apply", "--filename=-", stdin=json.dumps(FIRST))
            wait("the pod waits for a network", 60, lambda: "NetworkNotReady" in self._events())
            yield
            self.lab.kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=60s")
            if "FailedCreatePodSandBox" in (events := self._events()):
                raise CheckFailedError(f"the network was there before the agent: {events}")
            time.sleep(FAILURES)
            for pod in self.lab.get("pods", system)["items"]:
                (container,) = pod["status"]["containerStatuses"]
                if container["restartCount"] or not container["ready"]:
                    raise CheckFailedError(f"with its port taken: {container}")
        self.lab.delete_pods()
        run(self.lab.base / "commands/helm", "uninstall", "kube-node", system, f"--kubeconfig={self.lab.directory}/admin.conf")

    def _events(self) -> str:
        return self.lab.kubectl("get", "events", "--field-selector=involvedObject.name=first")


class Scene(NamedTuple):
    """Blocks of a page, and what is done before and after them."""

    page: str
    mark: str
    around: Callable[[Walk], AbstractContextManager[None]]


SCENES = (
    Scene("from-the-go-plugin.md", "cluster", Walk.legacy),
    Scene("install.md", "cluster", Walk.fresh),
    Scene("dual-stack.md", "cluster", Walk.pods_deleted),
    Scene("multus.md", "cluster", Walk.multus),
    Scene("debug.md", "cluster", Walk.full),
    Scene("monitoring.md", "cluster", Walk.pods_deleted),
    Scene("limit-ipv4.md", "cluster", Walk.pods_deleted),
    Scene("upgrade.md", "cluster", Walk.churn),
    Scene("limit-ipv4.md", "back", Walk.pods_deleted),
    Scene("upgrade.md", "removal", Walk.removed),
    Scene("install.md", "helm", Walk.helm),
)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def logs() -> str:
    found = Path("/var/log/pods").glob("kube-system_kube-node-*/*/*.log")
    return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in found)


def unpack(archive: Path, root: Path) -> None:
    """Make the root directory of an image that nothing is deleted in."""
    parts = root.with_suffix(".parts")
    for directory in (parts, root):
        directory.mkdir()
    run("tar", "-xf", archive, "-C", parts)
    for layer in json.loads((parts / "manifest.json").read_text())[0]["Layers"]:
        run("tar", "-xf", parts / layer, "-C", root)
    shutil.rmtree(parts)


def build_images(base: Path, archive: Path | None) -> None:
    """Make the root directories of two images, of this build and of one that calls itself NEW."""
    old, new = base / "image-1", base / "image-2"
    if archive:
        unpack(archive, old)
    else:
        run(ROOT / "packaging/image.sh", old)
    shutil.copytree(old, new, symlinks=True)
    installed = new / "opt/kube-node"
    compile_relay(base / "relay", here(), NEW, "gcc")
    for plugin in ("kube-node", "node-annotation", "host-local"):
        shutil.copy(base / "relay", installed / plugin)
    (installed / "kube-node.lib/kubenode/version.py").write_text(f"VERSION = {NEW!r}\n")
    for compiled in (installed / "kube-node.lib/kubenode/__pycache__").glob("version.*"):
        compiled.unlink()


def link_helm(directory: Path) -> None:
    """Let `helm` be a command. Raises CheckFailedError where there is none."""
    helm = os.environ.get("HELM") or shutil.which("helm")
    if not helm:
        raise CheckFailedError("no helm in PATH, and HELM names none")
    directory.mkdir()
    (directory / "helm").symlink_to(helm)


def story(walk: Walk, base: Path, archive: Path | None) -> None:
    begin = time.monotonic()
    lab = walk.lab
    link_helm(lab.base / "commands")
    lab.up()
    for number in (1, 2):
        if archive and number == 1:
            lab.load(archive, BUILT, f"{IMAGE}:1")
        else:
            lab.image(f"{IMAGE}:{number}", base / f"image-{number}", *ENTRYPOINT)
    show("cluster, not ready yet", f"{time.monotonic() - begin:.1f} s")
    for scene in SCENES:
        with scene.around(walk):
            walk.page(scene.page, scene.mark)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--image", type=Path, help="the archive of tests/packages/image.sh (default: what packaging/image.sh makes)")
    arguments.add_argument("--pods", type=int, default=3, help="pods that come and go in each of two lanes, at least")
    arguments.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)  # this very program, on the machine
    given = arguments.parse_args()
    if given.prepared:
        with cluster_for(given.bin, Worker) as lab:
            story(Walk(lab, given.prepared / "kube-node", given.pods), given.prepared, given.image)
        return
    with tempfile.TemporaryDirectory(prefix="kn-walk.") as base:
        build_images(Path(base), given.image)
        pages.checkout(given.bin, Path(base, "kube-node"))
        sys.exit(on_machine(Path(base), sys.executable, *sys.argv, f"--prepared={base}"))


if __name__ == "__main__":
    main()
