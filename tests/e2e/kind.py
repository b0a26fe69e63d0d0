#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/how-to/kind.md, command for command, on the one-node cluster: its kubelet, containerd and pods are real; kind, docker and Multus are
stand-ins (standins.py, walk.py), and the node has the plugins that kind's has.

    kind.py [--bin=_output/bin] [--image=ARCHIVE]

Root only, with KUBE_NODE_TESTBIN and CNI_TEST_PATH as for one_node_cluster.py, and iptables. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "packaging"), str(Path(__file__).resolve().parents[1])]
import pages  # noqa: E402 -- found by the path above
from lab import ROOT, CheckFailedError, cluster_for, parser, show, wait  # noqa: E402
from pools import ATTACHMENTS  # noqa: E402
from walk import MULTUS, build_images, logs, write  # noqa: E402
from worker import NODE, Worker, on_machine  # noqa: E402

PAGE = ROOT / "docs/how-to/kind.md"
OF_KIND = ("host-local", "loopback", "portmap", "ptp")  # plugins that its node image has


def follow(lab: Worker, place: Path, mark: str) -> None:
    """Run the page's blocks. Raises CheckFailedError."""
    begin = time.monotonic()
    walked = pages.steps(PAGE, mark)
    environment = {
        "KUBECONFIG": str(lab.directory / "admin.conf"),
        "PATH": f"{lab.base}/commands:{os.environ['PATH']}",
        "COLUMNS": "140",
        "KUBE_NODE_TESTBIN": os.environ["KUBE_NODE_TESTBIN"],
    }
    try:
        pages.walk(walked, place, environment, timeout=400)
    except pages.PageError as error:
        told = lab.kubectl("describe", "pods", "--all-namespaces")[-3000:]
        raise CheckFailedError(f"{PAGE.name}: {error}\n{told}\n{logs()}") from None
    show(f"{PAGE.name} ({mark})", f"{len(walked)} blocks, {time.monotonic() - begin:.1f} s")


def empty(lab: Worker) -> None:
    """Let the node be as kind makes one: without network, and without anything of ours."""
    lab.kubectl("delete", "daemonset", "--all", "--namespace=kube-system", "--wait")
    wait("the agent is gone", 60, lambda: not lab.get("pods", "--namespace=kube-system")["items"])
    for directory in (lab.net_d, lab.cni_bin, lab.run_dir):
        for path in directory.glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for plugin in OF_KIND:
        shutil.copy(lab.reference / plugin, lab.cni_bin)


def multus(lab: Worker, place: Path) -> None:
    """Let the cluster have a network as kind's own is, and what Multus makes of it."""
    lab.kubectl("create", "-f", "-", stdin=json.dumps(ATTACHMENTS))
    lab.kubectl("wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io")
    text = MULTUS.replace("ADMIN", str(lab.directory / "admin.conf")).replace("NAD", str(place / "deploy/kind-multus/net2.yaml"))
    write(lab.cni_bin / "multus", text.replace('"net1"', '"net2"'), 0o755)
    cidrs = lab.get("node", NODE)["spec"]["podCIDRs"]
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam-state",
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "ranges": [[{"subnet": cidr}] for cidr in cidrs],
    }
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": ipam}, {"type": "multus"}]
    write(lab.net_d / "10-kindnet.conflist", json.dumps({"cniVersion": "0.3.1", "name": "kindnet", "plugins": plugins}))
    lab.ready()


def story(lab: Worker, place: Path) -> None:
    lab.up()
    commands = lab.base / "commands"
    commands.mkdir()
    script = Path(__file__).with_name("standins.py")
    for name in ("docker", "kind"):
        write(commands / name, f'#!/bin/sh\nexec {sys.executable} {script} {name} {lab.base} "$@"\n', 0o755)
    empty(lab)
    follow(lab, place, "kind")
    empty(lab)
    multus(lab, place)
    follow(lab, place, "multus")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--image", type=Path, help="the archive of tests/packages/image.sh (default: what packaging/image.sh makes)")
    arguments.add_argument("--prepared", type=Path, help=argparse.SUPPRESS)  # this very program, on the machine
    given = arguments.parse_args()
    if given.prepared:
        with cluster_for(given.bin, Worker) as lab:
            for image in ("image-1", "image-2"):
                if (given.prepared / image).exists() and not (lab.base / image).exists():
                    (lab.base / image).symlink_to(given.prepared / image)
            story(lab, given.prepared / "kube-node")
        return
    with tempfile.TemporaryDirectory(prefix="kn-kind.") as base:
        build_images(Path(base), given.image)
        pages.checkout(given.bin, Path(base, "kube-node"))
        sys.exit(on_machine(Path(base), sys.executable, *sys.argv, f"--prepared={base}"))


if __name__ == "__main__":
    main()
