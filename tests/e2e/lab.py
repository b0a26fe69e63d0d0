# SPDX-License-Identifier: Apache-2.0
"""A one-node cluster that scripts start, change and ask. Everything of it lies in one directory, and all that runs is stopped by `down`.

KUBE_NODE_TESTBIN names the directory with the `cluster` script, CNI_TEST_PATH one with the reference plugins.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent.parent
ENTRYPOINT = json.loads(re.findall(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])  # of our image
NETWORK = "k8snet"
POD_NETWORKS = "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"
NODE = "lab"


class CheckFailedError(Exception):
    """Something is not as it should be; the message says what."""


def run(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, input=stdin, timeout=300)
    if done.returncode:
        raise CheckFailedError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def wait(what: str | Callable[[], str], seconds: float, probe: Callable[[], bool], pause: float = 0.2) -> None:
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise CheckFailedError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)


def show(what: str, value: str) -> None:
    print(f"{what:36} {value}", flush=True)


def namespaces() -> set[str]:
    """Return the names of the network namespaces that containerd made."""
    return {line.split()[0] for line in run("ip", "netns").splitlines() if line.startswith("cni-")}


class Lab:
    """The cluster and what is asked of it. `binaries`: what ./build.sh binaries made."""

    def __init__(self, base: Path, cluster: Path, binaries: Path, reference: Path) -> None:
        self.cluster = cluster
        self.binaries = binaries
        self.reference = reference
        self.directory = base / "lab"
        self.data_dir = base / "networks"
        self.run_dir = base / "run"
        self.bridge = f"kn{secrets.token_hex(3)}br"
        self.cni_bin = self.directory / "cni/bin"
        self.net_d = self.directory / "cni/net.d"
        self.pod_cidrs: list[str] = []
        self.namespaces_before = namespaces()

    def up(self) -> None:
        # The kubelet's containerd starts the plugins, with the environment that it has from here.
        os.environ["KUBE_NODE_RUN_DIR"] = str(self.run_dir)
        os.environ["NODE_NAME"] = NODE  # a kubelet's credentials may not list Nodes since 1.32
        # So that a configuration may name the kubeconfig that lies in the lab's directory.
        administrators = self.run_dir.with_name("kube-node.conf")
        allowed = ["/etc", str(self.directory)]
        administrators.write_text(json.dumps({"allow": {"kubeconfig": allowed, "nodeFile": allowed}}))
        administrators.chmod(0o644)
        os.environ["KUBE_NODE_CONF"] = str(administrators)
        self.run_dir.mkdir()
        run(self.cluster, "up", self.directory, POD_NETWORKS)

    def down(self) -> None:
        if self.directory.exists():
            run(self.cluster, "down", self.directory)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)
        # Pods that could not be deleted leave theirs behind.
        for name in namespaces() - self.namespaces_before:
            run("ip", "netns", "del", name)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return run("kubectl", "--kubeconfig", self.directory / "admin.conf", *words, stdin=stdin)

    def get(self, *words: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.kubectl("get", *words, "-o", "json"))
        return value

    def install(self) -> None:
        """Put all that we make, and the reference's bridge and loopback, where the runtime looks for plugins."""
        shutil.copytree(self.binaries, self.cni_bin, symlinks=True, dirs_exist_ok=True)
        for plugin in ("bridge", "loopback"):
            shutil.copy(self.reference / plugin, self.cni_bin)

    def network(self, **ipam: Any) -> None:
        """Configure the node's only network, with these keys of `ipam` on top of what all have."""
        bridge = {"type": "bridge", "bridge": self.bridge, "isDefaultGateway": True, "ipMasq": False}
        conflist = {"cniVersion": "1.0.0", "name": NETWORK, "plugins": [{**bridge, "ipam": {"dataDir": str(self.data_dir), **ipam}}]}
        new = self.net_d / "10-k8snet.new"
        new.write_text(json.dumps(conflist))
        new.rename(self.net_d / "10-k8snet.conflist")

    def kube_node(self, **more: Any) -> None:
        """Configure the network with kube-node."""
        self.network(type="kube-node", kubeconfig=str(self.directory / "node.conf"), **more)

    def command(self, command: str, *words: str, may_fail: bool = False) -> str:
        """Run our own command line on this node."""
        line = [str(self.cni_bin / "kube-node.standalone"), command, f"--cni-config={self.net_d}", *words]
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode and not may_fail:
            raise CheckFailedError(f"{' '.join(line)}: {done.stdout}{done.stderr}")
        return done.stdout

    def ready(self) -> None:
        self.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=90s")
        self.pod_cidrs = self.get("node", NODE)["spec"]["podCIDRs"]

    def restart(self, name: str, changes: Mapping[str, str] | None = None) -> None:
        """End one of the cluster's programs as systemd would, and start it again with the configuration that it finds now.

        `changes`: other arguments in the place of some.
        """
        pid_file = self.directory / f"run/{name}.pid"
        pid = int(pid_file.read_text())
        command = [(changes or {}).get(word, word) for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]]
        os.kill(pid, signal.SIGTERM)
        wait(f"{name} ends", 20, lambda: _is_gone(pid))
        with (self.directory / f"log/{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        pid_file.write_text(str(process.pid))

    def credentials(self, name: str, *rights: str) -> Path:
        """Return a kubeconfig of a new user. `rights`: VERB[,VERB…] RESOURCE."""
        pki = self.directory / "pki"
        key, asked, certificate = (pki / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", asked, "-subj", f"/CN={name}")
        run(*f"openssl x509 -req -in {asked} -CA {pki}/ca.crt -CAkey {pki}/ca.key -CAcreateserial -out {certificate} -days 1".split())
        for number, right in enumerate(rights):
            verbs, resource = right.split()
            role = f"{name}-{number}"
            self.kubectl("create", "clusterrole", role, f"--verb={verbs}", f"--resource={resource}")
            self.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", f"--user={name}")
        config = json.loads((self.directory / "node.conf").read_text())
        config["users"][0]["user"] = {"client-certificate": str(certificate), "client-key": str(key)}
        path = self.directory / f"{name}.conf"
        path.write_text(json.dumps(config))
        return path

    def pod_addresses(self, *words: str) -> dict[str, list[str]]:
        """Return each pod's addresses; `words` as for `kubectl get pods`."""
        pods = self.get("pods", *words)["items"]
        return {pod["metadata"]["name"]: [item["ip"] for item in pod["status"].get("podIPs", ())] for pod in pods}

    def reservations(self) -> list[str]:
        directory = self.data_dir / NETWORK
        names = [file.name for file in directory.iterdir()] if directory.exists() else []
        return [name for name in names if not name.startswith("last_reserved_ip.") and (name[0].isdigit() or ":" in name)]

    def records(self) -> list[str]:
        """Return what is known of attachments, by file name."""
        directory = self.run_dir / "attachments"
        return [file.name for file in directory.iterdir()] if directory.exists() else []

    def wait_for_nothing(self, seconds: float) -> None:
        """Wait until neither a reservation nor a record is left."""
        wait(lambda: f"nothing left, but {self.reservations() + self.records()}", seconds, lambda: not self.reservations() + self.records())

    def trouble(self) -> str:
        """Say what a person would look at first."""
        events = self.kubectl("get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")[-4000:]
        log = self.directory / "log/containerd.log"
        tail = "\n".join(line for line in log.read_text().splitlines() if "level=error" in line or "level=warn" in line)[-3000:]
        return f"events:\n{events}\nerrors in containerd's log:\n{tail}"


def _is_gone(pid: int) -> bool:
    try:
        return "\tZ" in Path(f"/proc/{pid}/status").read_text()  # a child of `cluster` or ours; its parent's business
    except FileNotFoundError:
        return True


def pod(name: str, **labels: str) -> dict[str, Any]:
    """Return the manifest of a pod that sleeps."""
    container = {"name": "box", "image": "localhost/busybox:1", "imagePullPolicy": "Never"}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def pods(*manifests: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all scripts."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--bin", type=Path, default=ROOT / "_output/bin", help="what ./build.sh binaries made")
    return made


L = TypeVar("L", bound=Lab)


@contextmanager
def cluster_for(binaries: Path, kind: type[L]) -> Iterator[L]:
    """Make a lab, not started yet, that is taken down whatever happens. What fails in it ends the program."""
    for name in ("KUBE_NODE_TESTBIN", "CNI_TEST_PATH"):
        if name not in os.environ:
            sys.exit(f"{name} is not set")
    # Ctrl-C and a job's end both have to pass through the cleaning up below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="kn-e2e.") as base:
        lab = kind(Path(base), Path(os.environ["KUBE_NODE_TESTBIN"], "cluster"), binaries, Path(os.environ["CNI_TEST_PATH"]))
        try:
            yield lab
        except CheckFailedError as failure:
            sys.exit(f"{Path(sys.argv[0]).stem}: {failure}\n{lab.trouble()}")
        finally:
            lab.down()
