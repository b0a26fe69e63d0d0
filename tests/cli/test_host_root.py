# SPDX-License-Identifier: Apache-2.0
"""The same commands in a container, where the host's directories are mounted under another."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from ourprocess import KUBE_NODE
from wanting import want

from kubenode.host.attachments import Attachments, Record
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return the host's directories: a network, a pod, and one whose network namespace is gone."""
    want("the right to mount")
    root = tmp_path / "host"
    for name in ("etc/cni/net.d", "run/netns", "run/kube-node", "var/lib/cni/networks/k8snet"):
        (root / name).mkdir(parents=True)
    conf = {"cniVersion": "1.1.0", "name": "k8snet", "type": "bridge", "ipam": {"type": "kube-node"}}
    (root / "etc/cni/net.d/10-k8snet.conf").write_text(json.dumps(conf))
    view = {"kind": "Node", "metadata": {"name": "worker-1"}, "spec": {"podCIDRs": ["10.1.0.0/24"]}}
    (root / "run/kube-node/node.json").write_text(json.dumps(view))
    (root / "run/netns/c1").touch()
    for number, name in ((2, "c1"), (3, "c2")):
        (root / f"var/lib/cni/networks/k8snet/10.1.0.{number}").write_text(f"{name}\r\neth0")
        record = Record(f"/run/netns/{name}", "web", name, ipam={"type": "host-local"})
        Attachments(str(root / "run/kube-node"), "k8snet").write(Attachment(name, "eth0"), record)
    return root


def in_container(host: Path, *arguments: str, mounted: bool = True) -> Any:
    """Run a command where the host's root is mounted; return its JSON."""
    script = 'mount --bind "$0" "$0" && exec "$@"' if mounted else 'exec "$@"'
    environ = {**os.environ, "KUBE_NODE_HOST_ROOT": str(host), "KUBE_NODE_RUN_DIR": "/run/kube-node"}
    command = ["unshare", "--mount", "sh", "-c", script, str(host), str(KUBE_NODE), *arguments, "-o", "json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_host_root(host: Path) -> None:
    """Everything is looked for on the host, and named as the host has it; gc releases there."""
    (network,) = in_container(host, "status")["networks"]
    assert (network["config"], network["dataDir"]) == ("/etc/cni/net.d/10-k8snet.conf", "/var/lib/cni/networks")
    assert {one["pod"]: one["suspectedLeak"] for one in network["attachments"]} == {"web/c1": False, "web/c2": True}
    checks = {one["check"]: one for one in in_container(host, "doctor")["checks"]}
    assert "10.1.0.3 (web/c2)" in checks["leaks"]["what"]
    assert [one["address"] for one in in_container(host, "gc")["released"]] == ["10.1.0.3"]
    assert not (host / "var/lib/cni/networks/k8snet/10.1.0.3").exists()


def test_not_mounted(host: Path) -> None:
    """Where the host's directories are not mounted nothing is a leak: what cannot be seen is not gone."""
    (network,) = in_container(host, "status", mounted=False)["networks"]
    assert not any(one["suspectedLeak"] for one in network["attachments"])
    assert in_container(host, "gc", mounted=False)["released"] == []


@pytest.mark.parametrize(
    ("there", "found"), [((), ()), (("usr/lib/cni",), ("usr/lib/cni",)), (("usr/lib/cni", "opt/cni/bin"), ("opt/cni/bin",))]
)
def test_where_plugins_are(host: Path, there: tuple[str, ...], found: tuple[str, ...]) -> None:
    """Plugins are looked for in /opt/cni/bin, and where none of ours is there in Debian's directory."""
    for directory in there:
        (host / directory).mkdir(parents=True)
        (host / directory / "kube-node").write_text("#!/usr/bin/python3\nimport sys\nsys.path[:0] = ['/x/kube-node.lib']\n")
    installed = in_container(host, "version")["installed"]
    assert [one["path"] for one in installed] == [str(host / directory / "kube-node") for directory in found]
