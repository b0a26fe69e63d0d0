#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The Debian package on a node with live systemd and Debian's own kernel: a virtual machine, in software emulation.

docs/how-to/debian.md is followed, command for command, with a real API server, which runs on the host. In between: the unit is confined as
it says; pods come and go through restarts, a kill and an upgrade; a reboot and a power failure leave nothing wrong, with the agent and
without. Last the tests of pods under ipvlan, which the host's kernel may not have.

    .venv/bin/python tests/vm/debian_node.py PACKAGE.deb

Root, with debootstrap and qemu-system-x86_64. KUBEBUILDER_ASSETS and CNI_TEST_PATH are as for the tests. KUBE_NODE_DEB_ROOTS names a
directory for Debian's root directories, to have them again the next time, as for tests/packages/deb.sh. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/e2e")]  # the real API server, and what scripts share

from apiserver import RealApiServer  # noqa: E402
from lab import NETWORK, CheckFailedError, run, wait  # noqa: E402
from machine import GATEWAY, PATIENCE, Done, Machine, make_root, release, unpack_kernel  # noqa: E402
from nodeagent import LISTEN, Samples  # noqa: E402
from pages import steps  # noqa: E402
from runtime import TRY_AGAIN_LATER  # noqa: E402

NEEDS = {"qemu-system-x86_64": "qemu-system-x86", "debootstrap": "debootstrap", "mke2fs": "e2fsprogs"}
PAGE = ROOT / "docs/how-to/debian.md"
NODE = "worker-1"  # the page's
POD_CIDRS = ["10.244.1.0/24", "fd00:10:244:1::/64"]
SERVICE, SOCKET = "kube-node-agent.service", "kube-node-agent.socket"
KUBECONFIG = "/etc/kubernetes/kubelet.conf"  # the page's
RESERVATIONS = f"/var/lib/cni/networks/{NETWORK}"
CHECKOUT, REFERENCE = "/root/kube-node", "/opt/reference"  # in the guest
# Of .venv: what tests of pods do not use, and is large.
LARGE = ("ziglang*", "kubernetes_validate*", "mypy*", "*mypyc*", "pip*", "setuptools*", "grimp*", "ruff*")
LINK_TESTS = "ipvlan and not console and not 0.4.0"


class Node:
    """The node in the machine: its pods, its agent, what its operator does."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.run = machine.run

    def follow(self, heading: str) -> None:
        """Run the commands of a section of the page. An operator says yes to what apt asks."""
        for step in steps(PAGE, "node", heading):
            printed = self.run(f"set -e\n{step.commands}", stdin="y\n", cwd=CHECKOUT)
            if not step.is_printed(printed):
                raise CheckFailedError(f"{PAGE.name}: {step.commands}printed:\n{printed}")

    def write(self, path: str, text: str) -> None:
        self.run(f"mkdir -p $(dirname {path}) && cat >{path}", stdin=text)

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        shown = self.run(f"systemctl show --property={','.join(names)} {unit}")
        return dict(line.split("=", 1) for line in shown.splitlines())

    def wait_for_agent(self) -> None:
        wait("the agent is active and ready", PATIENCE, self._is_ready, 0.5)

    def _is_ready(self) -> bool:
        return self.machine.ask(f"systemctl is-active -q {SERVICE} && curl -sf http://{LISTEN}/readyz").code == 0

    def metrics(self) -> Samples:
        return Samples(self.run(f"curl -sf http://{LISTEN}/metrics"))

    def log(self) -> str:
        return self.run(f"journalctl --boot --output=cat --unit={SERVICE}")

    def reservations(self) -> list[str]:
        names = self.run(f"ls {RESERVATIONS} 2>/dev/null || true").split()
        return sorted(name for name in names if name != "lock" and not name.startswith("last_reserved_ip."))

    def cni(self, command: str, name: str) -> Done:
        """Run the bridge plugin for a pod, in the pod's network namespace."""
        args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={name}"
        environ = f"CNI_COMMAND={command} CNI_CONTAINERID={name} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni"
        return self.machine.ask(f"{environ} CNI_ARGS='{args}' /usr/lib/cni/bridge </root/net.json")

    def _settled(self, command: str, name: str, *before: str) -> Done:
        """Call until it succeeds, as a runtime does, with `before` ahead of another try. Only an error 11 is one to try again after."""
        done: list[Done] = []

        def ended() -> bool:
            if done:
                for other in before:
                    self._settled(other, name)
            done.append(self.cni(command, name))
            if done[-1].code and json.loads(done[-1].stdout or "{}").get("code") != TRY_AGAIN_LATER:
                raise CheckFailedError(f"{command} of {name}: {done[-1]}")
            return not done[-1].code

        wait(lambda: f"{command} of {name} succeeds: {done[-1]}", PATIENCE, ended)
        return done[-1]

    def add(self, name: str) -> list[str]:
        """Give a pod a network namespace and addresses. Where an ADD takes too long, which is an error 11, DEL and another one follow."""
        self.run(f"ip netns add {name}")
        told = self._settled("ADD", name, "DEL")
        addresses = [item["address"].partition("/")[0] for item in json.loads(told.stdout)["ips"]]
        if [":" in address for address in addresses] != [False, True] or not set(addresses) <= set(self.reservations()):
            raise CheckFailedError(f"{name} has {addresses}; reserved: {self.reservations()}")
        return addresses

    def delete(self, name: str) -> None:
        self._settled("DEL", name)
        self.run(f"ip netns del {name}")

    def pods_begin(self) -> None:
        """Let pods come and go, through the installed relay."""
        self.run(
            "rm -f /root/pods.json; systemd-run --quiet --unit=pods --property=TimeoutStopSec=250 --property=KillMode=mixed "
            f"--setenv=PYTHONPATH={ROOT}/tests python3 {ROOT}/tests/vm/pods.py /root/net.json /root/pods.json"
        )
        wait("pods come", PATIENCE, lambda: len(self.reservations()) > 2)

    def pods_end(self) -> str:
        """Let them come to their end; see that all went well."""
        self.run("systemctl stop pods")
        told: dict[str, Any] = json.loads(self.run("cat /root/pods.json"))
        if told["wrong"]:
            raise CheckFailedError("\n".join(told["wrong"]))
        if left := self.reservations():
            raise CheckFailedError(f"pods are gone, still reserved: {left}")
        calls = told["calls"]
        return f"{calls['ADD ok']} ADD, {calls.get('ADD failed', 0)} of error 11; the longest call took {told['longest']:.1f} s"


def show(what: str, value: str = "") -> None:
    print(f"{time.monotonic() - BEGIN:6.1f} s  {what:44} {value}", flush=True)


BEGIN = time.monotonic()


def join(node: Node, api: RealApiServer) -> None:
    """Let the node join the cluster, as kubeadm does: a Node object, and the kubelet's credentials."""
    api.create_node(NODE, POD_CIDRS, machine_id=node.run("cat /etc/machine-id").strip())
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node"}
    path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    api.request("POST", path, {"metadata": {"name": "kubelets"}, "roleRef": role, "subjects": [subject]})
    server = api.url.replace("127.0.0.1", GATEWAY)
    kubeconfig = api.kubeconfig(api.directory / "kubelet.conf", api.certificate_user(f"system:node:{NODE}", "system:nodes"), server=server)
    node.write(KUBECONFIG, kubeconfig.read_text())
    node.run(f"chmod 600 {KUBECONFIG}")
    conflist = json.loads((ROOT / "examples/10-k8snet.conflist").read_text())
    (plugin,) = conflist["plugins"]
    plugin["ipam"]["kubeconfig"] = KUBECONFIG
    node.write(f"/etc/cni/net.d/10-{NETWORK}.conflist", json.dumps(conflist))
    node.write("/root/net.json", json.dumps({"cniVersion": conflist["cniVersion"], "name": conflist["name"], **plugin}))


def listing(node: Node) -> set[str]:
    """Return the files of the root file system, without what the machine itself writes."""
    others = (
        "/var/lib/dpkg",
        "/var/lib/apt",
        "/var/lib/systemd",
        "/var/log",
        "/var/cache",
        "/var/tmp",
        "/tmp",
        "/root",
        "/opt/reference",
        str(ROOT),
    )
    prune = " -o ".join(f"-path {path}" for path in others)
    return set(node.run(f"find / -xdev \\( {prune} -o -name __pycache__ \\) -prune -o -print").splitlines())


def installed(node: Node) -> None:
    """The page's installation leaves a service that runs, with what /etc/default says."""
    node.follow("Install")
    is_ = node.properties(SERVICE, "Type", "SubState", "UnitFileState", "MainPID", "NRestarts")
    pid = is_.pop("MainPID")
    if is_ != {"Type": "notify", "SubState": "running", "UnitFileState": "enabled", "NRestarts": "0"}:
        raise CheckFailedError(f"{SERVICE}: {is_}")
    environ = node.run(f"tr '\\0' '\\n' </proc/{pid}/environ").splitlines()
    if not {f"KUBECONFIG={KUBECONFIG}", f"NODE_NAME={NODE}"} <= set(environ):
        raise CheckFailedError(f"the agent's environment: {environ}")
    if (sockets := node.properties(SOCKET, "UnitFileState", "ActiveState")) != {"UnitFileState": "disabled", "ActiveState": "inactive"}:
        raise CheckFailedError(f"{SOCKET}: {sockets}")
    if node.machine.ask(f"systemctl status {SERVICE}").code:
        raise CheckFailedError(node.machine.ask(f"systemctl status {SERVICE}").stdout)
    show("installed: active, ready, enabled", node.run("kube-node --version").strip())


def confined(node: Node) -> None:
    """The unit's directives are in force, and their sum is what the documentation says."""
    pid = node.properties(SERVICE, "MainPID")["MainPID"]
    status = dict(re.findall(r"^(\w+):\s*(.*)$", node.run(f"cat /proc/{pid}/status"), re.MULTILINE))
    expected = {"CapEff": "0" * 16, "CapPrm": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    if (is_ := {name: status[name] for name in expected}) != expected:
        raise CheckFailedError(f"the agent's process: {is_}")
    # All capabilities of root in the agent's file system are not enough.
    for path in ("/usr", "/etc", "/etc/cni", "/var/log", "/var/lib", "/boot"):
        told = node.machine.ask(f"nsenter --target={pid} --mount touch {path}/written")
        if "Read-only file system" not in told.stderr:
            raise CheckFailedError(f"the agent's {path} can be written: {told}")
    for path in ("/var/lib/cni", "/run/kube-node", "/tmp"):
        node.run(f"nsenter --target={pid} --mount sh -c 'touch {path}/written && rm {path}/written'")
    seen = node.run(f"nsenter --target={pid} --mount sh -c 'ls -A /root; ls /dev'").split()
    if {"net.json", "nvme0n1", "vport0p1", "ttyS0"} & set(seen):
        raise CheckFailedError(f"the agent sees {seen}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", node.run(f"systemd-analyze security {SERVICE}"))
    said = re.search(r"exposure of ([\d.]+)", (ROOT / "docs/reference/agent.md").read_text())
    if not found or not said or found[1] != said[1]:
        raise CheckFailedError(f"systemd-analyze security says {found and found[1]}, docs/reference/agent.md {said and said[1]}")
    show("confined; exposure as documented", found[1])


def serves(node: Node) -> None:
    """Under these directives pods get addresses through the relay, and reach each other; a leak is taken back."""
    pods = {name: node.add(name) for name in ("one", "two")}
    for address in pods["two"]:
        wait(f"one pings {address}", PATIENCE, lambda a=address: node.machine.ask(f"ip netns exec one ping -c1 -W1 {a}").code == 0)  # type: ignore[misc]
    if (calls := node.metrics().calls("ADD")) < len(pods):
        raise CheckFailedError(f"the agent has answered {calls} ADD")
    for name in pods:
        node.delete(name)
    # An operator's drop-in, as in docs/reference/agent.md.
    lines = "[Service]\nExecStart=\nExecStart=/usr/bin/kube-node agent --grace=1 --every=1\n"
    node.write(f"/etc/systemd/system/{SERVICE}.d/leaks.conf", lines)
    node.run(f"systemctl daemon-reload && systemctl restart {SERVICE}")
    leaked = node.add("leaked")
    node.run("ip netns del leaked")
    wait(lambda: f"leaks are released, but {node.reservations()}\n{node.log()}", PATIENCE, lambda: not node.reservations(), 0.5)
    if (reclaimed := node.metrics().reclaimed()) != len(leaked):
        raise CheckFailedError(f"{reclaimed} addresses reclaimed, not {leaked}")
    node.run(f"rm -r /etc/systemd/system/{SERVICE}.d && systemctl daemon-reload && systemctl restart {SERVICE}")
    show("pods reach each other; a leak is released", ", ".join(leaked))


def restarts(node: Node) -> None:
    """While pods come and go the agent is restarted and killed: no ADD is lost, no address is given twice."""
    node.pods_begin()
    node.run(f"systemctl restart {SERVICE}")
    node.run(f"systemctl kill --signal=KILL {SERVICE}")
    wait("systemd has started it again", PATIENCE, lambda: node.properties(SERVICE, "NRestarts")["NRestarts"] == "1")
    node.wait_for_agent()
    show("restarted and killed under pods", node.pods_end())
    if node.machine.ask(f"systemctl reload {SERVICE}").code == 0:
        raise CheckFailedError("systemctl reload does something")


def activated(node: Node) -> None:
    """The page's socket: a call starts the agent."""
    node.follow("Let calls wait for the agent")
    node.run(f"systemctl stop {SERVICE}")
    if (state := node.properties(SERVICE, "ActiveState")["ActiveState"]) != "inactive":
        raise CheckFailedError(f"{SERVICE} is {state}")
    node.add("first")
    if not node.metrics().calls("ADD"):
        raise CheckFailedError("the agent that the call has started has answered no ADD")
    node.delete("first")
    show("a call has started the agent")


def upgraded(node: Node) -> None:
    """The page's upgrade, while pods come and go and systemd holds the socket: none of them notices."""
    old, pid = node.run("kube-node --version"), node.properties(SERVICE, "MainPID")
    node.run(f"rm {CHECKOUT}/_output/*.deb && mv /root/newer/*.deb {CHECKOUT}/_output/")
    node.pods_begin()
    node.follow("Upgrade")
    node.wait_for_agent()
    told = node.pods_end()
    new = node.run("kube-node --version")
    if (
        new == old
        or node.properties(SERVICE, "MainPID") == pid
        or node.metrics().total("kubenode_build_info", version=new.split()[-1]) != 1
    ):
        raise CheckFailedError(f"upgraded from {old} to {new}, but the agent is not the new one")
    show(f"upgraded under pods: {new.strip()}", told)


def booted_anew(node: Node) -> None:
    """After a reboot the agent starts by itself, and the first ADD releases what was reserved before; also after a power failure."""
    before = [*node.add("one"), *node.add("two")]
    seconds = node.machine.reboot()
    node.wait_for_agent()
    released(node, before)
    show("rebooted: agent up, old addresses released", f"{seconds:.1f} s")

    before = node.add("one")
    node.run("sync")
    node.pods_begin()
    seconds = node.machine.reset()
    node.wait_for_agent()
    released(node, before)
    well(node)
    show("power lost under pods: the same", f"{seconds:.1f} s")


def released(node: Node, before: list[str]) -> None:
    """Add a pod, and see that the agent has released all older addresses and has logged that."""
    if not set(before) <= set(reserved := node.reservations()):
        raise CheckFailedError(f"reserved: {reserved}; before: {before}")
    after = node.add("new")
    if node.reservations() != sorted(after):
        raise CheckFailedError(f"reserved: {node.reservations()}; given: {after}")
    node.delete("new")
    if missing := [address for address in before if f'"{address}"' not in node.log()]:
        raise CheckFailedError(f"the agent's log does not name {missing}:\n{node.log()}")


def well(node: Node) -> None:
    """All reservations are whole and of this boot; pods come and go."""
    checks = json.loads(node.machine.ask("kube-node doctor -o json").stdout)["checks"]
    states = {one["check"]: one["state"] for one in checks}
    if (states["torn"], states["reboot"]) != ("ok", "ok"):
        raise CheckFailedError(f"doctor says {checks}")
    node.pods_begin()
    node.pods_end()


def alone(node: Node) -> None:
    """The same without an agent: the first ADD after a power failure releases what was reserved before."""
    node.run(f"systemctl disable --now {SOCKET} {SERVICE}")
    before = node.add("one")
    node.run("sync")
    node.pods_begin()
    node.machine.reset()
    if not set(before) <= set(node.reservations()):
        raise CheckFailedError(f"reserved: {node.reservations()}; before: {before}")
    after = node.add("one")
    if node.reservations() != sorted(after):
        raise CheckFailedError(f"reserved: {node.reservations()}; given: {after}")
    node.delete("one")
    well(node)
    node.run(f"systemctl enable --now {SOCKET} {SERVICE}")
    show("power lost without agent: released by an ADD", ", ".join(before))


def links(node: Node) -> None:
    """Tests of pods under plugins' links that this kernel has, with the installed package."""
    environ = f"CNI_TEST_PATH={REFERENCE} KUBE_NODE_BINARIES=/usr/lib/kube-node KUBE_NODE_NO_SKIP=1"
    told = node.machine.ask(f"{environ} .venv/bin/pytest -q tests/netns -k '{LINK_TESTS}' 2>&1", cwd=str(ROOT), seconds=4 * PATIENCE)
    passed = re.search(r"^(\d+) passed", told.stdout.splitlines()[-1] if told.stdout else "")
    if told.code or not passed:
        raise CheckFailedError(f"tests/netns in the guest:\n{told.stdout}{told.stderr}")
    show("pods under ipvlan", f"{passed[1]} tests passed")


def removed(node: Node, before: set[str]) -> None:
    """Removal leaves the operator's file, purge nothing but reservations."""
    addresses = node.add("left")
    node.run("apt-get remove -y kube-node")
    if node.machine.ask(f"test -e /etc/default/kube-node-agent && ! systemctl cat {SERVICE} 2>/dev/null && ! which kube-node").code:
        raise CheckFailedError("after its removal the package is there, or /etc/default/kube-node-agent is not")
    node.follow("Remove")
    if wrong := sorted(path for path in listing(node) ^ before if not re.match(r"/var/lib/cni(/|$)", path)):
        raise CheckFailedError(f"purge has left or taken {wrong}")
    if node.reservations() != sorted(addresses):
        raise CheckFailedError(f"purge has left reservations {node.reservations()}, not {addresses}")
    if failed := node.run("systemctl list-units --failed --plain --no-legend"):
        raise CheckFailedError(f"units have failed: {failed}")
    show("purged: nothing is left but reservations", ", ".join(addresses))


def story(node: Node, api: RealApiServer) -> None:
    show(
        "booted", f"{node.machine.wait_for_boot():.1f} s, {node.run('uname -r').strip()}, {node.run('systemctl --version').splitlines()[0]}"
    )
    join(node, api)
    before = listing(node)
    for part in (installed, confined, serves, restarts, activated, upgraded, booted_anew, alone, links):
        part(node)
    removed(node, before)


def newer(package: Path, directory: Path) -> Path:
    """Return the same package with a higher version, which its programs say, too."""
    tree = directory / "newer"
    run("dpkg-deb", "--raw-extract", package, tree)
    control, version = tree / "DEBIAN/control", tree / "usr/lib/kube-node/kube-node.lib/kubenode/version.py"
    control.write_text(re.sub(r"^(Version: .*)$", r"\1+newer", control.read_text(), flags=re.MULTILINE))
    version.write_text(re.sub(r"^(VERSION = ['\"].*)(['\"])$", r"\1+newer\2", version.read_text(), flags=re.MULTILINE))
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", tree, directory)
    (made,) = directory.glob("*.deb")
    return made


def lay_out(package: Path, scratch: Path) -> Path:
    """Lay out what comes from here into the guest's root."""
    tree = scratch / "tree"
    place = tree / str(ROOT)[1:]
    for name in ("src", "tests", "packaging", "examples"):
        shutil.copytree(ROOT / name, place / name)
    shutil.copytree(ROOT / ".venv", place / ".venv", symlinks=True, ignore=shutil.ignore_patterns(*LARGE))
    shutil.copy(ROOT / "pyproject.toml", place)
    shutil.copytree(os.environ["CNI_TEST_PATH"], tree / REFERENCE[1:])
    for directory, file in (("_output", package), ("../newer", newer(package, scratch))):
        target = tree / CHECKOUT[1:] / directory
        target.mkdir(parents=True)
        shutil.copy(file, target)
    return tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="what ./build.sh deb has made")
    package = parser.parse_args().package.resolve()
    for name in ("KUBEBUILDER_ASSETS", "CNI_TEST_PATH"):
        if name not in os.environ:
            sys.exit(f"{name} is not set")
    if missing := [f"{program} (Debian: {name})" for program, name in NEEDS.items() if not shutil.which(program)]:
        sys.exit(f"debian_node: there is no {', no '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="kn-vm.") as scratch:
        base = Path(scratch)
        kernel = unpack_kernel(base / "kernel")
        make_root(base / "root", kernel, release(), lay_out(package, base))
        show("root made")
        (base / "machine").mkdir()
        api = RealApiServer(Path(os.environ["KUBEBUILDER_ASSETS"]), base / "machine")
        try:
            api.start()
            with Machine(base / "machine", base / "root", kernel) as machine:
                story(Node(machine), api)
        except CheckFailedError as failure:
            sys.exit(f"debian_node: {failure}")
        finally:
            api.close()


if __name__ == "__main__":
    main()
