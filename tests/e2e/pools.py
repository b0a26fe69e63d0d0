#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The controller on a real one-node cluster: docs/how-to/two-networks.md, command for command, and pods on both networks.

The cluster is worker.py's. deploy/controller runs in pods out of our image and reaches the API server as any pod does. What Multus would do
for a pod's second and third interface is done here: each network's configuration is read from its NetworkAttachmentDefinition and the
plugin that it names is run. The network of docs/how-to/flat-network.md follows, with a network namespace as the router on its VLAN. Then
the controller that leads is deleted, and the other has to serve a new node.

    pools.py [--bin=_output/bin]

As walk.py; the API server has to serve custom resources. Takes about a minute and a half.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import pages
from lab import ENTRYPOINT, ROOT, CheckFailedError, cluster_for, parser, pod, pods, run, show, wait
from podnet import ping_command
from walk import IMAGE, logs
from worker import NODE, Worker, on_machine

PAGE = ROOT / "docs/how-to/two-networks.md"
FLAT_PAGE, FLAT, ROUTER = ROOT / "docs/how-to/flat-network.md", "vlan30", ("172.30.0.1", "fe80::1", "fd00:30::1")
SYSTEM = ("--namespace=kube-system",)
KUBECONFIG = Path("/etc/cni/net.d/kube-node.d/kubeconfig")  # where kube-node install would write it
NETWORKS = ("net1", "net2")
LEASE = "kube-node-controller"
ATTACHMENTS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "network-attachment-definitions.k8s.cni.cncf.io"},
    "spec": {
        "group": "k8s.cni.cncf.io",
        "scope": "Namespaced",
        "names": {
            "kind": "NetworkAttachmentDefinition",
            "plural": "network-attachment-definitions",
            "singular": "network-attachment-definition",
            "shortNames": ["net-attach-def"],
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def copy_deploy(lab: Worker, place: Path) -> None:
    """Copy deploy/ for the page; the PodDisruptionBudget has the version that the API server of testbin knows."""
    shutil.copytree(ROOT / "deploy", place / "deploy")
    manifest = place / "deploy/controller/deployment.yaml"
    if "policy/v1\n" not in lab.kubectl("api-versions"):
        manifest.write_text(manifest.read_text().replace("policy/v1\n", "policy/v1beta1\n"))


def follow_page(lab: Worker, place: Path, mark: str) -> None:
    """Walk through the page's blocks with this mark."""
    walked = pages.steps(PAGE, mark)
    environment = {
        "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
        "KUBECONFIG": str(lab.directory / "admin.conf"),
        "COLUMNS": "100",
    }
    try:
        pages.walk(walked, place, environment, timeout=200)
    except pages.PageError as failure:
        told = lab.kubectl(*SYSTEM, "describe", "pods")[-3000:]
        raise CheckFailedError(f"{PAGE.name}: {failure}\n{told}\n{logs()}") from None
    show(f"{PAGE.name}: blocks as printed ({mark})", str(len(walked)))


class Attachments:
    """Plays Multus: interfaces beyond the first."""

    def __init__(self, lab: Worker) -> None:
        self._lab = lab

    def _call(self, command: str, name: str, ifname: str, netconf: dict[str, Any], sandbox: dict[str, Any]) -> dict[str, Any]:
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={sandbox['containerID']}"
        environ = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": sandbox["containerID"], "CNI_NETNS": sandbox["netns"], "CNI_IFNAME": ifname,
            "CNI_PATH": str(self._lab.cni_bin), "CNI_ARGS": args,
        }  # fmt: skip
        plugin = self._lab.cni_bin / netconf["type"]
        done = subprocess.run(
            [plugin], input=json.dumps(netconf), env={**os.environ, **environ}, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise CheckFailedError(f"{command} {ifname} of {name}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout) if done.stdout else {}

    def each(self, command: str, name: str) -> dict[str, dict[str, Any]]:
        """Add or delete the interfaces that the pod's annotation asks for; return the results."""
        asked = self._lab.get("pod", name)["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"]
        sandbox = self._sandbox(name)
        return {
            network: self._call(command, name, network, self._netconf(network), sandbox) for network in map(str.strip, asked.split(","))
        }

    def _netconf(self, network: str) -> dict[str, Any]:
        conf: dict[str, Any] = json.loads(self._lab.get("net-attach-def", network)["spec"]["config"])
        return {**conf, "ipam": {**conf["ipam"], "refreshAfter": 0}}  # a view that the agent would keep

    def _sandbox(self, name: str) -> dict[str, Any]:
        (network,) = (each for each in json.loads(self._lab.command("status", "-o", "json"))["networks"] if each["name"] == "k8snet")
        found: dict[str, Any] = next(each for each in network["attachments"] if each["pod"] == f"default/{name}")
        return found


def start(lab: Worker, *names: str, asks: str = ", ".join(NETWORKS)) -> None:
    asking = [{**pod(name), "metadata": {"name": name, "annotations": {"k8s.v1.cni.cncf.io/networks": asks}}} for name in names]
    lab.kubectl("create", "-f", "-", stdin=pods(*asking))
    lab.kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=90s")


def check_addresses(lab: Worker, name: str, results: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """See that each interface has an address of each of the node's subnets, as the kernel says; return the addresses."""
    annotations = lab.get("node", NODE)["metadata"]["annotations"]
    found = {}
    for network, result in results.items():
        subnets = [ipaddress.ip_network(text) for text in annotations[f"kube-node.nordix.org/{network}"].split(",")]
        given = [ipaddress.ip_interface(item["address"]) for item in result["ips"]]
        if [address.network for address in given] != subnets:
            raise CheckFailedError(f"{name}: {network} has {given}, the node {subnets}")
        found[network] = [str(address.ip) for address in given]
        told = lab.kubectl("exec", name, "--", "ip", "addr", "show", network)
        if missing := [address for address in found[network] if address not in told]:
            raise CheckFailedError(f"{name}: {network} is without {missing}: {told}")
        show(f"{name}: {network}", ", ".join(map(str, given)))
    return found


def check_pods(lab: Worker, networks: Attachments) -> None:
    """Give a pod its interfaces while net2 has one family only, and a second one after it has gained another."""
    start(lab, "one", "two")
    addresses = {name: check_addresses(lab, name, networks.each("ADD", name)) for name in ("one", "two")}
    for network in NETWORKS:
        for address in addresses["two"][network]:
            wait(f"one pings {address}", 10, lambda address=address: _pings(lab, "one", address))  # type: ignore[misc]
    show("they ping each other", "both families of both networks")


def _pings(lab: Worker, name: str, address: str) -> bool:
    try:
        lab.kubectl("exec", name, "--", "ping", "-6" if ":" in address else "-4", "-c1", "-W2", address)
    except CheckFailedError:
        return False
    return True


def check_change(lab: Worker, networks: Attachments) -> None:
    """A pool that changes shows at the next ADD: net1 moves to another network."""
    first = {"op": "replace", "path": "/spec/cidrs/0", "value": {"cidr": "172.22.0.0/16", "nodePrefix": 24}}
    lab.kubectl("patch", "subnetpool", "net1", "--type=json", f"--patch={json.dumps([first])}")
    key = "kube-node.nordix.org/net1"
    lab.kubectl("annotate", "node", NODE, f"{key}-")
    want = "172.22.0.0/24,fd00:20::/64"
    wait("the node moves to the new network", 10, lambda: lab.get("node", NODE)["metadata"]["annotations"].get(key) == want)
    start(lab, "three")
    check_addresses(lab, "three", networks.each("ADD", "three"))


def check_flat(lab: Worker, networks: Attachments) -> None:
    """Put a router on the node's eth1 and apply what the page shows: a pod and the router reach each other over both families."""
    shutil.copy(lab.reference / "macvlan", lab.cni_bin)
    run("ip", "netns", "add", "router")
    run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", "router")
    run("ip", "link", "set", "eth1", "up")
    for address in (f"{ROUTER[0]}/16", f"{ROUTER[1]}/64", f"{ROUTER[2]}/64"):
        run("ip", "-n", "router", "addr", "add", address, "dev", "eth1", *(["nodad"] if ":" in address else []))
    run("ip", "-n", "router", "link", "set", "eth1", "up")
    for manifest in re.findall(r"```yaml\n(.*?)```", FLAT_PAGE.read_text(), re.DOTALL):
        lab.kubectl("apply", "-f", "-", stdin=manifest)
    key = f"kube-node.nordix.org/{FLAT}"
    wait("the node has a block", 10, lambda: key in annotated(lab, NODE))
    show("the node's blocks", annotated(lab, NODE)[key])
    start(lab, "four", asks=FLAT)
    ips = networks.each("ADD", "four")[FLAT]["ips"]
    given = [(ipaddress.ip_interface(one["address"]), one["gateway"]) for one in ips]
    if [(str(address.network), gateway) for address, gateway in given] != [("172.30.0.0/16", ROUTER[0]), ("fd00:30::/64", ROUTER[1])]:
        raise CheckFailedError(f"four: {FLAT} has {given}")
    wait("four pings the router", 10, lambda: _pings(lab, "four", ROUTER[0]))
    wait("four pings it by IPv6", 10, lambda: _pings(lab, "four", ROUTER[2]))
    for one, _ in given:
        run("ip", "netns", "exec", "router", *ping_command(), f"-{one.version}", "-c1", "-W5", str(one.ip))
    show(f"four: {FLAT}", ", ".join(f"{address} via {gateway}" for address, gateway in given))


def check_controllers(lab: Worker) -> None:
    """Both replicas run here; one leads; when it goes the other takes over and serves a new node."""
    found = [each["metadata"]["name"] for each in lab.get("pods", *SYSTEM, "-l", f"app.kubernetes.io/name={LEASE}")["items"]]
    budget = lab.get("poddisruptionbudget", LEASE, *SYSTEM)["status"]
    if len(found) != 2 or (budget["currentHealthy"], budget["disruptionsAllowed"]) != (2, 1):
        raise CheckFailedError(f"pods {found}, budget {budget}")

    def holder() -> str:
        return str(lab.get("lease", LEASE, *SYSTEM)["spec"]["holderIdentity"]).rpartition("_")[0]

    leader = holder()
    if leader not in found:
        raise CheckFailedError(f"the Lease is held by {leader!r}, which is none of {found}")
    show("controllers", f"2 ready, {leader} leads, 1 may be evicted")
    begin = time.monotonic()
    lab.kubectl("delete", "pod", leader, *SYSTEM, "--wait=false")
    lab.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker-2"}}))
    wait(lambda: f"worker-2 is served; {holder()} leads", 40, lambda: "kube-node.nordix.org/net1" in annotated(lab, "worker-2"))
    show("leader deleted, a new node served", f"{time.monotonic() - begin:.1f} s, by {holder()}")
    if holder() == leader:
        raise CheckFailedError(f"{leader} still has the Lease")
    lab.kubectl(*SYSTEM, "rollout", "status", "deployment/kube-node-controller", "--timeout=60s")
    lab.kubectl(*SYSTEM, "scale", "deployment/kube-node-controller", "--replicas=1")
    wait("a budget for one controller", 60, lambda: lab.get("poddisruptionbudget", LEASE, *SYSTEM)["status"]["expectedPods"] == 1)
    wait("the only controller may be evicted", 20, lambda: _may_go(lab))
    show("one controller", "it may be evicted")
    lab.kubectl(*SYSTEM, "scale", "deployment/kube-node-controller", "--replicas=2")
    lab.kubectl(*SYSTEM, "rollout", "status", "deployment/kube-node-controller", "--timeout=60s")


def _may_go(lab: Worker) -> bool:
    return bool(lab.get("poddisruptionbudget", LEASE, *SYSTEM)["status"]["disruptionsAllowed"] == 1)


def annotated(lab: Worker, node: str) -> dict[str, str]:
    return lab.get("node", node)["metadata"].get("annotations") or {}


def story(lab: Worker, base: Path) -> None:
    begin = time.monotonic()
    lab.up()
    lab.install()
    lab.run_dir.mkdir(exist_ok=True)
    (lab.run_dir / "nodename").write_text(NODE)  # a kubelet's credentials may not list Nodes since 1.32
    KUBECONFIG.parent.mkdir()
    shutil.copy(lab.directory / "node.conf", KUBECONFIG)
    lab.network(type="kube-node", kubeconfig=str(KUBECONFIG))
    lab.image(f"{IMAGE}:1", base / "image", *ENTRYPOINT)
    lab.ready()
    lab.kubectl("create", "-f", "-", stdin=json.dumps(ATTACHMENTS))
    lab.kubectl("wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io")
    show("node ready", f"{time.monotonic() - begin:.1f} s")

    begin = time.monotonic()
    copy_deploy(lab, base / "place")
    follow_page(lab, base / "place", "cluster")
    show("page walked", f"{time.monotonic() - begin:.1f} s")
    networks = Attachments(lab)
    check_pods(lab, networks)
    check_change(lab, networks)
    check_flat(lab, networks)
    check_controllers(lab)
    for name in ("one", "two", "three", "four"):
        networks.each("DEL", name)
    lab.kubectl("delete", "pod", "one", "two", "three", "four", "--wait")
    follow_page(lab, base / "place", "removal")
    lab.wait_for_nothing(60)
    show("pods and controller deleted", "nothing reserved, no record left")
    if not set(NETWORKS) <= {key.rpartition("/")[2] for key in annotated(lab, NODE)}:
        raise CheckFailedError(f"the node has {annotated(lab, NODE)}")
    show("the node's annotations", "stay")
    follow_page(lab, base / "place", "annotations")
    if set(NETWORKS) & {key.rpartition("/")[2] for key in annotated(lab, NODE)}:
        raise CheckFailedError(f"the node still has {annotated(lab, NODE)}")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)  # this very program, on the machine
    given = arguments.parse_args()
    if given.prepared:
        with cluster_for(given.bin, Worker) as lab:
            story(lab, given.prepared)
        return
    with tempfile.TemporaryDirectory(prefix="kn-pools.") as base:
        run(ROOT / "packaging/image.sh", Path(base, "image"))
        sys.exit(on_machine(Path(base), sys.executable, *sys.argv, f"--prepared={base}"))


if __name__ == "__main__":
    main()
