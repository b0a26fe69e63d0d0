#!/usr/bin/env python3
"""`kubectl apply` on a real one-node cluster: the DaemonSet makes the node Ready, gives pods their addresses, is updated, and goes again.

The image is the one that tests/packages/image.sh built of the Dockerfile, or else what packaging/image.sh makes. First its commands run in
it by hand; then the manifests of deploy/, with an overlay for what this cluster is not: other directories, an API server on loopback, no
registry. While the DaemonSet is updated to another build pods come and go, and none is lost. In the end nothing is left on the node.

    daemonset.py [--image=ARCHIVE] [--bin=_output/bin] [--pods=3]

As one_node_cluster.py. Takes about two minutes, on a machine with nothing else to do.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "packaging"))
from compile_relay import compile_relay, here
from lab import NETWORK, NODE, ROOT, CheckFailedError, Lab, cluster_for, parser, pod, pods, run, wait

DEPLOY = ROOT / "deploy"
IMAGE = "localhost/kube-node"
ENTRYPOINT = json.loads(re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
NEW = "2.0.0-e2e"
SYSTEM = ("--namespace=kube-system",)


def private_mounts() -> None:
    """Go on in a mount namespace whose mounts are shared, as systemd has them on a node: here they may be private."""
    if os.environ.get("KUBE_NODE_E2E_MOUNTS") != "shared":
        os.environ["KUBE_NODE_E2E_MOUNTS"] = "shared"
        os.execvp("unshare", ["unshare", "--mount", "--propagation=shared", sys.executable, *sys.argv])


def unpack(archive: Path, root: Path) -> None:
    """Make the root directory of an image that nothing is deleted in."""
    parts = root.with_suffix(".parts")
    for directory in (parts, root):
        directory.mkdir()
    run("tar", "-xf", archive, "-C", parts)
    for layer in json.loads((parts / "manifest.json").read_text())[0]["Layers"]:
        run("tar", "-xf", parts / layer, "-C", root)
    shutil.rmtree(parts)


def build_images(base: Path, archive: Path | None) -> tuple[Path, Path]:
    """Return the root directories of two images, of this build and of one that calls itself NEW."""
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
    return old, new


def in_image(root: Path, *words: str) -> str:
    return run("chroot", root, *ENTRYPOINT, *words)


def check_commands(root: Path) -> None:
    """Run what the DaemonSet's containers run, in the image's root alone."""
    host = root / "host"
    host.mkdir()
    told = json.loads(in_image(root, "install", "--host-root=/host", "--node-name=n", "--json"))
    paths = {step["path"] for step in told["steps"]}
    if paths != {"/opt/cni/bin/kube-node", "/opt/cni/bin/node-annotation", "/run/kube-node/nodename"}:
        raise CheckFailedError(f"installed: {paths}")
    in_image(root, "agent", "--help")
    in_image(root, "uninstall", "--host-root=/host")
    if left := list(host.rglob("*")):
        raise CheckFailedError(f"left behind: {left}")
    host.rmdir()


def overlay(lab: Lab, tag: str, kustomization: str = "overlay", base: str = "base") -> Path:
    """Write a kustomization for this cluster next to those of deploy/, and return its directory."""
    directory = DEPLOY / f".e2e.{os.getpid()}" / kustomization
    directory.mkdir(parents=True, exist_ok=True)
    bridge = {"type": "bridge", "bridge": lab.bridge, "isDefaultGateway": True, "ipam": {"type": "kube-node"}}
    (directory / "10-kube-node.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": NETWORK, "plugins": [bridge]}))
    paths = [lab.cni_bin, lab.net_d, lab.run_dir, Path("/run/netns"), lab.data_dir]  # in the order of the manifest's volumes
    volumes = "/spec/template/spec/volumes"
    patches: list[dict[str, Any]] = [
        {"op": "replace", "path": f"{volumes}/{index}/hostPath/path", "value": str(path)} for index, path in enumerate(paths)
    ]
    server = [{"name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1"}, {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}]
    containers = ["initContainers/0", *(["containers/0"] if base == "base" else [])]
    patches += [{"op": "add", "path": f"/spec/template/spec/{name}/env/-", "value": item} for name in containers for item in server]
    patches += [
        {"op": "replace", "path": f"/spec/template/spec/{name}/imagePullPolicy", "value": "Never"}
        for name in ("initContainers/0", "containers/0")
    ]
    content: dict[str, Any] = {
        "resources": [f"../../{base}"],
        "images": [{"name": "kube-node", "newName": IMAGE, "newTag": tag}],
        "patches": [{"target": {"kind": "DaemonSet"}, "patch": json.dumps(patches)}],
    }
    if base == "base":
        # kustomize merges into what comes from below, and components come after that.
        (directory / "bridge").mkdir(exist_ok=True)
        below = {"resources": ["../../../base"], "components": ["../../../components/bridge"]}
        (directory / "bridge/kustomization.yaml").write_text(json.dumps(below))
        content["resources"] = ["bridge"]
        content["configMapGenerator"] = [
            {"name": "kube-node-network", "namespace": "kube-system", "behavior": "merge", "files": ["10-kube-node.conflist"]}
        ]
    (directory / "kustomization.yaml").write_text(json.dumps(content))
    return directory


def apply(lab: Lab, directory: Path) -> None:
    lab.kubectl("apply", "-k", str(directory))
    try:
        lab.kubectl(*SYSTEM, "rollout", "status", "daemonset/kube-node", "--timeout=90s")
    except CheckFailedError as failure:
        told = lab.kubectl(*SYSTEM, "describe", "pods")[-3000:]
        raise CheckFailedError(f"{failure}\n{told}\n{logs(lab)}") from None


def logs(lab: Lab) -> str:
    found = Path("/var/log/pods").glob("kube-system_kube-node-*/*/*.log")
    return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in found) or f"no log of {lab.directory}"


def ctr(lab: Lab, *words: str | Path) -> str:
    return run("ctr", "--address", lab.directory / "run/containerd.sock", "--namespace=k8s.io", *words)


def check_exec(lab: Lab) -> None:
    """Do what `kubectl exec` does, which an API server on loopback cannot: `kube-node status` in the agent's container, about the host."""
    (agent,) = ctr(lab, "containers", "list", "-q", 'labels."io.kubernetes.container.name"==agent').split()
    told = ctr(lab, "tasks", "exec", "--exec-id=status", agent, "kube-node", "status")
    if NETWORK not in told:
        raise CheckFailedError(f"kube-node status in the agent's container prints {told}")
    show("kube-node status in the container", f"knows {NETWORK}")


def check_pods(lab: Lab) -> None:
    """Start two pods: each has an address of each family, given by the agent in its container, and they reach each other."""
    lab.kubectl("create", "-f", "-", stdin=pods(pod("one"), pod("two")))
    lab.kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s")
    addresses = lab.pod_addresses()
    for name, found in addresses.items():
        families = [ipaddress.ip_address(address) in ipaddress.ip_network(cidr) for address, cidr in zip(found, lab.pod_cidrs, strict=True)]
        if families != [True, True]:
            raise CheckFailedError(f"{name} has {found}, the node {lab.pod_cidrs}")
        show(f"{name}: podIPs", ", ".join(found))
    for address in addresses["two"]:
        run(lab.cluster, "exec", lab.directory, "one", "ping", "-6" if ":" in address else "-4", "-c1", "-W5", address)
    check_reservations(lab)
    show("they ping each other", "both families")


def check_reservations(lab: Lab) -> None:
    """Wait until the pods' addresses are reserved and no others: a pod's sandbox may go a little later than the pod."""

    def reserved() -> tuple[list[str], list[str]]:
        return sorted(lab.reservations()), sorted(address for found in lab.pod_addresses().values() for address in found)

    wait(lambda: f"reserved and of pods: {reserved()}", 60, lambda: reserved()[0] == reserved()[1], pause=1)


def check_kubeconfig(lab: Lab) -> None:
    """Use on the host what install has made of the service account."""
    kubeconfig = lab.net_d / "kube-node.d/kubeconfig"
    name = run("kubectl", "--kubeconfig", kubeconfig, "get", "node", NODE, "-o", "name").strip()
    if subprocess.run(["kubectl", "--kubeconfig", kubeconfig, "get", "secrets", "-A"], check=False, capture_output=True).returncode == 0:
        raise CheckFailedError("the service account may read secrets")
    show("the kubeconfig on the host", f"may get {name}, and no secrets")


def check_update(lab: Lab, count: int) -> None:
    """Update the DaemonSet to another build while pods come and go: each of them gets its addresses, and gives them back."""
    stop = threading.Event()
    trouble: list[str] = []
    done: list[float] = []

    def churn(lane: int) -> None:
        number = 0
        while not stop.is_set() or number < count:
            name = f"churn-{lane}-{number}"
            number += 1
            begin = time.monotonic()
            try:
                lab.kubectl("create", "-f", "-", stdin=json.dumps(pod(name)))
                lab.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s")
                addresses = lab.pod_addresses("--field-selector", f"metadata.name={name}")[name]
                if len(addresses) != len(lab.pod_cidrs):
                    trouble.append(f"{name} has {addresses}")
                lab.kubectl("delete", "pod", name, "--wait", "--timeout=90s")
            except CheckFailedError as failure:
                trouble.append(str(failure))
                return
            done.append(time.monotonic() - begin)

    lanes = [threading.Thread(target=churn, args=(lane,)) for lane in range(2)]
    for lane in lanes:
        lane.start()
    try:
        wait("pods come and go", 60, lambda: len(done) >= 2 or bool(trouble))
        begin = time.monotonic()
        apply(lab, overlay(lab, "2"))
        show("updated under way", f"{time.monotonic() - begin:.1f} s")
        after = len(done)
        wait("pods still come and go", 60, lambda: len(done) >= after + 2 or bool(trouble))
    finally:
        stop.set()
        for lane in lanes:
            lane.join()
    if trouble:
        raise CheckFailedError("\n".join(trouble))
    relay = subprocess.run([lab.cni_bin / "kube-node", "--version"], check=False, capture_output=True, text=True).stdout.strip()
    if relay != NEW:
        raise CheckFailedError(f"the relay is {relay}, not {NEW}")
    show("pods that came and went meanwhile", f"{len(done)}, none failed; slowest {max(done):.1f} s")


def show(what: str, value: str) -> None:
    print(f"{what:36} {value}", flush=True)


def story(lab: Lab, images: tuple[Path, Path], archive: Path | None, count: int) -> None:
    begin = time.monotonic()
    lab.up()
    for plugin in ("bridge", "loopback"):
        shutil.copy(lab.reference / plugin, lab.cni_bin)
    for number, image in enumerate(images, 1):
        if archive and number == 1:
            ctr(lab, "images", "import", archive)  # as it is: with its user, and its PATH
        else:
            run(lab.cluster, "image", lab.directory, f"{IMAGE}:{number}", image, *ENTRYPOINT)
    if lab.get("node", NODE)["status"]["conditions"][-1]["status"] == "True":
        raise CheckFailedError("the node is ready before it has a network")
    show("cluster, not ready yet", f"{time.monotonic() - begin:.1f} s")

    begin = time.monotonic()
    apply(lab, overlay(lab, "1"))
    lab.ready()
    show("applied; agent ready, node Ready", f"{time.monotonic() - begin:.1f} s")
    check_pods(lab)
    check_exec(lab)
    check_kubeconfig(lab)
    check_update(lab, count)
    check_reservations(lab)
    lab.kubectl("delete", "pod", "one", "two", "--wait")
    lab.wait_for_nothing(60)
    show("all pods deleted", "nothing reserved, no record left")

    apply(lab, overlay(lab, "2", "removal", "uninstall"))
    left = {path.name for path in (*lab.cni_bin.iterdir(), *lab.net_d.iterdir())}
    if left != {"bridge", "loopback"}:
        raise CheckFailedError(f"after uninstall there are {left}")
    lab.kubectl("delete", "-k", str(overlay(lab, "2", "removal", "uninstall")))
    show("uninstalled", "the node has what it had before")


def ports_are_free() -> bool:
    """Say whether no other lab runs here: its ports are fixed."""
    for port in (6443, 12379):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--image", type=Path, help=f"an archive with {IMAGE}:1 (default: what packaging/image.sh makes)")
    arguments.add_argument("--pods", type=int, default=3, help="pods that come and go in each of two lanes, at least")
    private_mounts()
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="kn-image.") as base:
        images = build_images(Path(base), given.image)
        check_commands(images[0])
        show("image", f"{sum(path.lstat().st_size for path in images[0].rglob('*')) >> 20} MB, its commands run")
        wait("another lab's ports are free", 600, ports_are_free, pause=1)
        with cluster_for(given.bin) as lab:
            try:
                story(lab, images, given.image, given.pods)
            finally:
                shutil.rmtree(DEPLOY / f".e2e.{os.getpid()}", ignore_errors=True)


if __name__ == "__main__":
    main()
