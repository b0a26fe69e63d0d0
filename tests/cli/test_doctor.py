# SPDX-License-Identifier: Apache-2.0
"""`kube-node doctor` on a healthy node, and on one with a fault: it names it, and what it advises mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from administrator import allow
from agentprocess import AgentProcess
from callplugin import environment
from healthy import SCRIPTS, Doctor, follow, steps
from rebooting import EARLIER, note, reboot
from wanting import has, want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from node import SeededNode


class Fault(NamedTuple):
    """What is broken, by which check it is to be found, what that is to say, and how its advice is followed: "run" runs its command."""

    check: str
    says: str
    seed: Callable[[Doctor], object]
    mend: Callable[[Doctor], object] | None = None
    state: str = "failure"


def fewer_pods(doctor: Doctor) -> None:
    for number in range(3, 100):
        (doctor.node.networks / f"k8snet/10.1.0.{number}").unlink()


def annotate_pool(doctor: Doctor) -> None:
    """Give the node another subnet."""
    doctor.node.view(["10.1.0.0/16", "fd01::/64"])


def second_network(doctor: Doctor, **ipam: Any) -> None:
    top = {key: ipam.pop(key) for key in ("isDefaultGateway",) if key in ipam}
    doctor.node.configure(doctor.node.conf("net1", annotation="example.com/net1", **ipam), "20-net1.conf", **top)


def administrator(doctor: Doctor) -> None:
    doctor.write("kube-node.conf", "{")
    doctor.env["KUBE_NODE_CONF"] = str(doctor.node.directory / "kube-node.conf")


def annotate(doctor: Doctor, value: str | None) -> None:
    doctor.node.view(["10.1.0.0/24", "fd01::/64"], {"example.com/net1": value} if value else {})


def other_version(doctor: Doctor) -> None:
    doctor.relays()
    doctor.agent()
    library = doctor.node.bin / "kube-node.lib"
    library.unlink()
    (library / "kubenode").mkdir(parents=True)
    (library / "kubenode/version.py").write_text('VERSION = "0.0.1"\n')


def install_anew(doctor: Doctor) -> None:
    library = doctor.node.bin / "kube-node.lib"
    if library.is_dir() and not library.is_symlink():
        shutil.rmtree(library)
    for path in (doctor.node.bin / "kube-node", doctor.node.bin / "kube-node.standalone", library):
        path.unlink(missing_ok=True)
    (doctor.node.bin / "kube-node").touch()
    doctor.relays()


def without(doctor: Doctor, *names: str) -> None:
    doctor.relays()
    for name in names:
        (doctor.node.bin / name).unlink()


def break_view(doctor: Doctor) -> None:
    """Leave half of the Node view, with a network that does not need it."""
    view = doctor.node.run / "node.json"
    shutil.copy(view, doctor.node.directory)
    doctor.reconfigure(nodeFile=str(doctor.node.directory / "node.json"))
    view.write_text("{")


def stale_socket(doctor: Doctor) -> None:
    with AgentProcess(doctor.node.run):
        pass


def no_net(doctor: Doctor) -> None:
    """Look from a network namespace of our own."""
    want("network namespaces")
    name = f"kn-doctor-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    doctor.stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
    doctor.wrap = ["nsenter", f"--net=/var/run/netns/{name}"]


def route(doctor: Doctor) -> None:
    no_net(doctor)
    for command in ("link add one type veth peer name two", "link set one up", "link set two up", "route add 10.1.0.128/25 dev one"):
        subprocess.run([*doctor.wrap, "ip", *command.split()], check=True)


def no_route(doctor: Doctor) -> None:
    subprocess.run([*doctor.wrap, "ip", "route", "del", "10.1.0.128/25"], check=True)


def earlier_boot(doctor: Doctor) -> None:
    doctor.wrap = reboot(doctor.node.networks / ".k8snet.note", run_dir=doctor.node.run)


def not_noted(doctor: Doctor) -> None:
    want("machine-id")
    remove(doctor, "networks/.k8snet.note")


def noted_by_an_earlier_version(doctor: Doctor) -> None:
    want("machine-id")
    doctor.write("networks/.k8snet.note", f"{EARLIER}\n")


def shared(doctor: Doctor) -> None:
    want("machine-id")
    path = doctor.node.networks / ".k8snet.note"
    path.write_text(note("another-machine") + path.read_text())


def tear(doctor: Doctor) -> None:
    for name in ("10.1.0.66", "10.1.0.67"):
        path = doctor.node.networks / "k8snet" / name
        path.write_text("")
        os.utime(path, times=(0, 0))


def remove(doctor: Doctor, *names: str) -> None:
    for name in names:
        (doctor.node.directory / name).unlink()


def lengthen_chain(doctor: Doctor) -> None:
    path = doctor.node.directory / "net.d/10-k8snet.conflist"
    conf = json.loads(path.read_text())
    conf["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    path.write_text(json.dumps(conf))


def host_local(doctor: Doctor, **ipam: Any) -> None:
    """Let the network have ranges of its own."""
    doctor.plugin("host-local")
    said = {"type": "host-local", "dataDir": str(doctor.node.networks), "subnet": "10.1.0.0/24", **ipam}
    doctor.node.configure({**doctor.conf, "ipam": said})


def calico(doctor: Doctor, file: str) -> None:
    """Let the node have another CNI."""
    plugins = [{"type": "calico", "ipam": {"type": "calico-ipam"}}, {"type": "portmap"}]
    doctor.write(f"net.d/{file}", json.dumps({"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": plugins}))


def others(doctor: Doctor, file: str) -> None:
    """Let somebody else have a network with host-local."""
    doctor.plugin("host-local")
    ipam = {"type": "host-local", "dataDir": str(doctor.node.networks), "ranges": [[{"subnet": "10.244.0.0/24"}]]}
    doctor.node.configure({**doctor.conf, "name": "others", "ipam": ipam}, file)


FAULTS = {
    "configuration is not JSON": Fault(
        "cni-config", "05-x.conf: it is not JSON", lambda d: d.write("net.d/05-x.conf", "{"), lambda d: remove(d, "net.d/05-x.conf")
    ),
    "no network": Fault("pod-network", "no network with", lambda d: remove(d, "net.d/10-k8snet.conflist"), lambda d: d.reconfigure()),
    "a list in a .conf": Fault(
        "cni-config",
        "it has plugins, and only a .conflist may",
        lambda d: d.write("net.d/05-x.conf", '{"name": "x", "plugins": [{"type": "bridge"}]}'),
        lambda d: remove(d, "net.d/05-x.conf"),
    ),
    "a plugin in a .conflist, behind": Fault(
        "cni-config",
        "20-net1.conflist: it is one plugin",
        lambda d: d.write("net.d/20-net1.conflist", json.dumps(d.node.conf("net1", annotation="example.com/net1"))),
        lambda d: remove(d, "net.d/20-net1.conflist"),
        "warning",
    ),
    "another CNI comes before": Fault(
        "pod-network",
        "05-calico.conflist, with addresses by calico-ipam: kube-node is not this node's pod network",
        lambda d: calico(d, "05-calico.conflist"),
        lambda d: remove(d, "net.d/05-calico.conflist"),
    ),
    "another CNI with host-local comes before": Fault(
        "pod-network",
        "05-kindnet.conflist, with addresses by host-local: kube-node is not this node's pod network",
        lambda d: others(d, "05-kindnet.conflist"),
        lambda d: remove(d, "net.d/05-kindnet.conflist"),
    ),
    "a network that waits for the agent": Fault(
        "pod-network",
        "10-k8snet.conflist.held-by-kube-node in",
        lambda d: (d.node.net / "10-k8snet.conflist").rename(d.node.net / "10-k8snet.conflist.held-by-kube-node"),
        lambda d: (d.node.net / "10-k8snet.conflist.held-by-kube-node").rename(d.node.net / "10-k8snet.conflist"),
    ),
    "plugin missing": Fault("plugins", "no plugin bridge", lambda d: remove(d, "bin/bridge"), lambda d: d.plugin("bridge")),
    "chained plugin missing": Fault("plugins", "no plugin portmap", lengthen_chain, lambda d: d.plugin("portmap")),
    "plugin not executable": Fault("plugins", "bridge cannot be executed", lambda d: d.plugin("bridge", 0o644)),
    "plugin is a link to nothing": Fault(
        "plugins",
        "is a link to /nowhere",
        steps(lambda d: remove(d, "bin/kube-node"), lambda d: (d.node.bin / "kube-node").symlink_to("/nowhere")),
        steps(lambda d: remove(d, "bin/kube-node"), lambda d: (d.node.bin / "kube-node").symlink_to(SCRIPTS / "kube-node")),
    ),
    "versions differ": Fault("one-version", "0.0.1", other_version, install_anew),
    "no fallback": Fault(
        "fallback", "no kube-node.standalone beside", lambda d: without(d, "kube-node.standalone"), steps(install_anew, lambda d: d.agent())
    ),
    "fallback without library": Fault(
        "fallback", "kube-node.lib", lambda d: without(d, "kube-node.lib"), steps(install_anew, lambda d: d.agent())
    ),
    "fallback not executable": Fault(
        "fallback",
        "standalone cannot be executed",
        steps(lambda d: d.relays(), lambda d: d.agent(), lambda d: (d.node.bin / "kube-node.standalone").chmod(0o644)),
        None,
        "warning",
    ),
    "agent down": Fault("agent", "is down: Connection refused", stale_socket, lambda d: d.agent(), "warning"),
    "relays without agent": Fault("agent", "no agent serves", lambda d: d.relays(), lambda d: d.agent(), "warning"),
    "delegate missing": Fault(
        "delegates", "delegates to other", lambda d: d.reconfigure(delegate="other"), lambda d: d.reconfigure(delegate="embedded")
    ),
    "no podCIDRs": Fault(
        "pod-cidrs", "has no spec.podCIDRs", lambda d: d.node.view([]), lambda d: d.node.view(["10.1.0.0/24", "fd01::/64"])
    ),
    "view broken": Fault(
        "node-view",
        "neither JSON nor YAML",
        break_view,
    ),
    "node file missing": Fault(
        "networks", "nodeFile", lambda d: d.reconfigure(nodeFile="/nowhere/node.yaml"), lambda d: d.reconfigure(nodeFile=None)
    ),
    "annotation missing": Fault(
        "networks", "has no annotation example.com/net1", second_network, lambda d: annotate(d, "172.20.2.0/24")
    ),
    "annotation invalid": Fault(
        "networks", "invalid CIDR", steps(second_network, lambda d: annotate(d, "172.20.2.0")), lambda d: annotate(d, "172.20.2.0/24")
    ),
    "configuration invalid": Fault(
        "networks", "refreshAfter", lambda d: d.reconfigure(refreshAfter="soon"), lambda d: d.reconfigure(refreshAfter=None)
    ),
    "version that nobody knows": Fault(
        "networks",
        'incompatible CNI version "1.2.0"',
        lambda d: d.node.configure({**d.conf, "cniVersion": "1.2.0"}),
        lambda d: d.node.configure(d.conf),
    ),
    "dataDir is a file": Fault(
        "networks",
        "is below a file",
        steps(lambda d: d.write("file", ""), lambda d: d.reconfigure(dataDir=f"{d.node.directory}/file")),
        lambda d: d.reconfigure(dataDir=str(d.node.networks)),
    ),
    "resolvConf missing": Fault(
        "networks",
        "resolvConf /etc/none.conf cannot be read: No such file or directory",
        lambda d: d.reconfigure(resolvConf="/etc/none.conf"),
        lambda d: d.reconfigure(resolvConf=None),
    ),
    "exclude and a delegate that does not know it": Fault(
        "networks",
        "exclude is not known to delegate host-local",
        lambda d: d.reconfigure(exclude=["10.1.0.9"], delegate="host-local"),
        lambda d: d.reconfigure(exclude=None, delegate="embedded"),
    ),
    "addresses for nobody": Fault(
        "families",
        "pods of all namespaces, by ipv4-namespaces [] and ipv6-namespaces [], get no address",
        lambda d: d.reconfigure(**{"ipv4-namespaces": [], "ipv6-namespaces": []}),
        lambda d: d.reconfigure(**{"ipv4-namespaces": None, "ipv6-namespaces": None}),
    ),
    "another has the source": Fault(
        "sources",
        "spec.podCIDRs serves network k8snet in dataDir",
        lambda d: d.node.configure({**d.conf, "name": "renamed"}),
        lambda d: d.node.configure(d.conf),
    ),
    "a key that is none": Fault(
        "keys",
        "'dataDirectory', which nobody knows",
        lambda d: d.reconfigure(dataDirectory="/x"),
        lambda d: d.reconfigure(dataDirectory=None),
        "warning",
    ),
    "a key beside ipam": Fault(
        "keys",
        "annotation is beside ipam",
        lambda d: d.node.configure(d.conf, annotation="example.com/net1"),
        lambda d: d.node.configure(d.conf),
        "warning",
    ),
    "a key that host-local does not have": Fault(
        "keys",
        "'ipv4-namespaces', which kube-node knows, and host-local does not",
        lambda d: host_local(d, **{"ipv4-namespaces": ["web"]}),
        host_local,
        "warning",
    ),
    "a family for nobody": Fault(
        "families",
        "get no address",
        steps(lambda d: d.reconfigure(**{"ipv4-namespaces": ["web"]}), lambda d: d.node.view(["10.1.0.0/24"])),
        lambda d: d.reconfigure(**{"ipv4-namespaces": None}),
    ),
    "networks overlap": Fault(
        "overlap",
        "k8snet and net1 both give",
        steps(second_network, lambda d: annotate(d, "10.1.0.0/25")),
        lambda d: annotate(d, "172.20.2.0/24"),
    ),
    "a source for two": Fault(
        "sources",
        "both take their addresses from spec.podCIDRs",
        lambda d: d.node.configure(d.node.conf("net1"), "20-net1.conf"),
        lambda d: (d.node.net / "20-net1.conf").unlink(),
    ),
    "a key misspelt": Fault(
        "keys",
        "ipv4_namespaces",
        lambda d: d.reconfigure(ipv4_namespaces=["web"]),
        lambda d: d.reconfigure(ipv4_namespaces=None),
        "warning",
    ),
    "administrator's file broken": Fault(
        "allowed", "is not JSON", administrator, lambda d: d.env.pop("KUBE_NODE_CONF")
    ),
    "route of the host": Fault("host-routes", "the host's route to 10.1.0.128/25", route, no_route),
    "exhaustion near": Fault(
        "exhaustion", "231 of 253", lambda d: d.node.hold("k8snet", 230, since=3),
        fewer_pods, "warning",
    ),
    "exhausted": Fault(
        "exhaustion", "253 of 253", lambda d: d.node.hold("k8snet", 252, since=3), annotate_pool,
    ),
    "IPv4 limited and the API server on IPv4": Fault(
        "ipv4-limit",
        "10.96.0.1",
        steps(lambda d: d.reconfigure(**{"ipv4-namespaces": ["web"]}), lambda d: d.env.update(KUBERNETES_SERVICE_HOST="10.96.0.1")),
        lambda d: d.reconfigure(**{"ipv4-namespaces": None}),
        "warning",
    ),
    "secondary network with default gateway": Fault(
        "default-gateway",
        "net1",
        steps(lambda d: second_network(d, isDefaultGateway=True), lambda d: annotate(d, "172.20.2.0/24")),
        second_network,
        "warning",
    ),
    "data directory for everybody": Fault("access", "can be written by others", lambda d: (d.node.networks / "k8snet").chmod(0o777)),
    "boot not noted": Fault("reboot", "no note of the boot", not_noted, None, "warning"),
    "boot noted by an earlier version": Fault("reboot", "no note of the boot", noted_by_an_earlier_version, None, "warning"),
    "directory of two machines": Fault("reboot", "another-machine", shared, None, "warning"),
    "reservations of before a reboot": Fault("reboot", "before the last reboot", earlier_boot, None, "warning"),
    "torn files": Fault("torn", "10.1.0.66", tear, None, "warning"),
    "leak": Fault("leaks", "web/shop", lambda d: remove(d, "netns/c1"), None, "warning"),
}  # fmt: skip


@pytest.fixture
def doctor(seeded: SeededNode, built: Path) -> Iterator[Doctor]:
    with ExitStack() as stack:
        yield Doctor(seeded, built, stack)


def test_healthy_node(doctor: Doctor) -> None:
    """Where all is well there is no ! and no ✗, and the exit code is 0; ✓ is only before what was looked at, and a fact has no "or"."""
    answer = doctor.run()
    assert answer.code == 0, answer.stdout
    told = {line[3:].split()[0]: (line[0], line) for line in answer.stdout.splitlines() if line[0] != " "}
    assert {sign for sign, _ in told.values()} == {"✓", "-"}
    # Nobody asks the API server here, there is no relay, no delegate, no pool, no limit, and no definition for Multus.
    skipped = {name for name, (sign, _) in told.items() if sign == "-"}
    assert skipped == {
        "one-version", "fallback", "delegates", "kubeconfig", "api-server", "rights", "agent-rights", "machine-id", "node-view", "pools",
        "ipv4-limit", "static-ips",
        *(() if has("machine-id") else ("reboot",)),
    } - ({"one-version"} if told["one-version"][0] == "✓" else set())  # fmt: skip
    assert [line for _, line in told.values() if " or " in line] == []
    assert "skipped" in {one["state"] for one in doctor.run("-o", "json").json["checks"]}
    assert doctor.run("--quiet").stdout == ""


def test_healthy_node_whose_agent_has_a_node_file(doctor: Doctor) -> None:
    """An agent that serves a manifest asks nobody, and each check that would ask says just that."""
    doctor.relays()
    manifest = doctor.node.directory / "node.json"
    shutil.move(doctor.node.run / "node.json", manifest)
    with AgentProcess(doctor.node.run, f"--node-file={manifest}", wrap=["env"]):  # its own command line, for doctor to read
        checks = {one["check"]: one for one in doctor.run("-o", "json").json["checks"]}
    why = f"the agent serves the Node manifest {manifest}: the API server is not asked"
    for name in ("kubeconfig", "api-server", "rights", "agent-rights", "machine-id"):
        assert (checks[name]["state"], checks[name]["what"]) == ("skipped", why)


def test_no_network_at_all(doctor: Doctor) -> None:
    """Where there is nothing to look at nothing is well: each check of networks is skipped."""
    remove(doctor, "net.d/10-k8snet.conflist")
    shutil.rmtree(doctor.node.run / "attachments")
    answer = doctor.run("-o", "json")
    states = {one["check"]: one["state"] for one in answer.json["checks"]}
    about = list(states)[list(states).index("networks") :]
    assert {states[name] for name in about} == {"skipped"}
    assert (answer.code, states["cni-config"], states["pod-network"]) == (2, "skipped", "failure")


def test_subnets_that_are_not_known(doctor: Doctor) -> None:
    """Without a Node view no ADD has been: that its pools are not full is not said of a network."""
    (doctor.node.run / "node.json").unlink()
    shutil.rmtree(doctor.node.run / "attachments")
    doctor.node.configure({**doctor.conf, "ipam": {**doctor.conf["ipam"], "kubeconfig": "/etc/none"}})
    states = {one["check"]: one["state"] for one in doctor.run("-o", "json").json["checks"]}
    assert {states[name] for name in ("networks", "families", "overlap", "host-routes", "exhaustion", "pod-cidrs")} == {"skipped"}


@pytest.mark.parametrize("wrong", ["--typo", "--config", "word"])
def test_called_wrongly(doctor: Doctor, wrong: str) -> None:
    """A mistake of who calls it is no fault of the node: the exit code is another."""
    answer = doctor.run(wrong)
    assert (answer.code, answer.stdout) == (64, "")
    assert "Error: " in answer.stderr


@pytest.mark.parametrize("closed", ["net.d", "run", "agent.sock"])
def test_an_ordinary_user(doctor: Doctor, tmp_path_factory: pytest.TempPathFactory, closed: str) -> None:
    """Who may not look is told once to be root, and nothing else: least of all that the agent is down."""
    want("root")
    doctor.agent()
    for directory in (doctor.node.run, doctor.node.net, *doctor.node.run.parents):
        if str(directory).startswith(str(tmp_path_factory.getbasetemp())) or directory == doctor.node.run:
            directory.chmod(0o755)
    for directory in doctor.node.directory.parents:
        if str(directory).startswith(str(tmp_path_factory.getbasetemp())):
            directory.chmod(0o755)
    (doctor.node.run / "node.json").chmod(0o644)
    if closed != "agent.sock":
        {"net.d": doctor.node.net, "run": doctor.node.run}[closed].chmod(0o700)
    doctor.wrap = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    answer = doctor.run()
    assert (answer.code, answer.stdout) == (69, "")
    assert "Permission denied" in answer.stderr
    assert answer.stderr.count("run it as root") == 1


def test_healthy_node_with_agent(doctor: Doctor) -> None:
    """The same with relays and an agent."""
    doctor.relays()
    doctor.agent()
    code, findings = doctor.findings()
    assert (code, findings) == (0, [])


def test_healthy_node_after_install(doctor: Doctor) -> None:
    """The same with what `kube-node install` puts there, whose library is named by its content; the versions of all are known."""
    bin_dir = f"--bin-dir={doctor.node.bin}"
    (doctor.node.bin / "kube-node").unlink()
    subprocess.run([doctor.built / "kube-node", "install", bin_dir, f"--run-dir={doctor.node.run}", "--credentials=none"], check=True)
    doctor.agent()
    assert doctor.findings() == (0, [])
    said = doctor.node.run_command("version", bin_dir, "-o", "json").json["installed"]
    assert [one["kind"] for one in said] == ["relay", "launcher"] * 2
    assert {one["version"] for one in said} == {said[0]["version"]} != {None}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault(doctor: Doctor, fault: Fault) -> None:
    """A fault is found by the check that is named for it, which says what it is; its advice mends it, and then all is well."""
    fault.seed(doctor)
    code, findings = doctor.findings()
    found = [one for one in findings if one["check"] == fault.check]
    assert any(fault.says in one["what"] for one in found), findings
    assert {one["state"] for one in found} == {fault.state}
    assert all(one["advice"] for one in findings)
    assert code == max({"warning": 1, "failure": 2}[one["state"]] for one in findings)
    if fault.mend:
        fault.mend(doctor)
    else:
        follow(doctor, found)
    assert doctor.findings() == (0, [])


@pytest.mark.parametrize("multus", ["none", "delegates", "clusterNetwork"])
def test_beside_another_cni(doctor: Doctor, multus: str) -> None:
    """A secondary network beside another CNI's pod network is well, by itself or under Multus; whose the pods' network is, is said."""
    remove(doctor, "net.d/10-k8snet.conflist")
    calico(doctor, "05-calico.conflist")
    annotate(doctor, "172.20.2.0/24")
    definition = {"kind": "NetworkAttachmentDefinition", "metadata": {"name": "net1"}}
    config = {**doctor.node.conf("net1", "macvlan", annotation="example.com/net1"), "capabilities": {"ips": True}}
    doctor.write("net1.yaml", json.dumps({**definition, "spec": {"config": json.dumps(config)}}))
    if multus != "none":
        path = doctor.node.net / "05-calico.conflist"
        more = {"delegates": [json.loads(path.read_text())]} if multus == "delegates" else {multus: f"/host/{path}"}
        doctor.write("net.d/00-multus.conf", json.dumps({"name": "multus-cni-network", "type": "multus", **more}))
    answer = doctor.run(f"--config={doctor.node.directory}/net1.yaml", "-o", "json")
    assert [one for one in answer.json["checks"] if one["state"] in {"warning", "failure"}] == []
    (said,) = [one["what"] for one in answer.json["checks"] if one["check"] == "pod-network"]
    assert "k8s-pod-network" in said
    assert "kube-node is not this node's pod network" in said


def test_a_refused_file_comes_first(doctor: Doctor) -> None:
    """Whose network pods get is not said where the first file has none: to containerd no other counts."""
    doctor.write("net.d/05-x.conf", "{}")
    states = {one["check"]: one["state"] for one in doctor.run("-o", "json").json["checks"]}
    assert (states["cni-config"], states["pod-network"]) == ("failure", "skipped")


def test_what_podman_has(doctor: Doctor) -> None:
    """A network with host-local that is not ours is in nobody's way behind the pods' network, whoever has that."""
    others(doctor, "87-podman.conflist")
    assert doctor.findings() == (0, [])
    (doctor.node.net / "10-k8snet.conflist").unlink()
    calico(doctor, "10-calico.conflist")
    assert [one for one in doctor.findings()[1] if one["check"] == "pod-network"] == []


def test_a_definition_without_the_capability(doctor: Doctor) -> None:
    """A NetworkAttachmentDefinition without the capability `ips` costs pods their second address: it is told of; with it all is well."""
    annotate(doctor, "172.20.2.0/24")
    config = doctor.node.conf("net1", "macvlan", annotation="example.com/net1")
    found = {}
    for capabilities in (None, {}, {"mac": True}, {"ips": False}, {"ips": True}):
        spec = {"config": json.dumps({**config, "capabilities": capabilities})}
        doctor.write("net1.yaml", json.dumps({"kind": "NetworkAttachmentDefinition", "metadata": {"name": "net1"}, "spec": spec}))
        answer = doctor.run(f"--config={doctor.node.directory}/net1.yaml", "-o", "json").json["checks"]
        found[json.dumps(capabilities)] = [
            (one["check"], one["state"], one["advice"]) for one in answer if one["state"] in {"warning", "failure"}
        ]
    assert found.pop('{"ips": true}') == []
    advice = f'add "capabilities": {{"ips": true}} beside "type": "macvlan" in {doctor.node.directory}/net1.yaml'
    assert all(one == [("static-ips", "warning", advice)] for one in found.values())


def test_pods_network_behind_multus(doctor: Doctor) -> None:
    """A network of ours that Multus hands on to is looked at as any other, and is the pods'."""
    path = doctor.node.net / "10-k8snet.conflist"
    doctor.write("net.d/00-multus.conf", json.dumps({"name": "m", "type": "multus", "delegates": [json.loads(path.read_text())]}))
    path.unlink()
    checks = doctor.run("-o", "json").json["checks"]
    assert {one["state"] for one in checks} <= {"ok", "skipped"}
    assert {one["check"]: one["what"] for one in checks}["networks"].startswith("k8snet: 10.1.0.0/24, fd01::/64")
    assert "pods get network k8snet" in {one["check"]: one["what"] for one in checks}["pod-network"]


def test_a_networks_own_bridge(doctor: Doctor, cni_bin: Path) -> None:
    """What the network itself has made on the host is in nobody's way: its bridge, with the gateway's address and the route to it."""
    no_net(doctor)
    shutil.copy(cni_bin / "bridge", doctor.node.bin / "bridge")
    conf = json.dumps({**doctor.conf, "isGateway": True})
    doctor.node.configure(json.loads(conf))
    pod = f"kn-doctor-{os.getpid()}-pod"
    subprocess.run(["ip", "netns", "add", pod], check=True)
    doctor.stack.callback(subprocess.run, ["ip", "netns", "del", pod], check=True)
    for command in ("ADD", "DEL"):
        environ = environment(command, container_id=pod, netns=f"/var/run/netns/{pod}", path=[doctor.node.bin])
        subprocess.run([*doctor.wrap, doctor.node.bin / "bridge"], input=conf, env=environ, text=True, check=True)
    assert "10.1.0.1" in subprocess.run([*doctor.wrap, "ip", "addr"], capture_output=True, text=True, check=True).stdout
    assert doctor.findings() == (0, [])


def test_looking_changes_nothing(doctor: Doctor) -> None:
    """Not a file, a directory or a time is another afterwards."""
    tear(doctor)
    earlier_boot(doctor)
    before = doctor.node.snapshot()
    doctor.run()
    assert doctor.node.snapshot() == before


def test_text(doctor: Doctor) -> None:
    """A fault stands with its sign, the check's name, and behind an arrow what to do; --quiet leaves out what is well."""
    doctor.plugin("bridge", 0o644)
    answer = doctor.run("--quiet")
    assert answer.code == 2
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("✗  plugins  ")
    assert "→ make it executable" in lines[1]
    assert f"chmod 755 {doctor.node.bin}/bridge" in lines[2]
    assert len(lines) == 3
    json.loads(doctor.run("-o", "json").stdout)


def install(doctor: Doctor, *options: str) -> None:
    (doctor.node.bin / "kube-node").unlink()
    command = doctor.built / "kube-node.standalone"
    subprocess.run([str(command), "install", f"--bin-dir={doctor.node.bin}", *options], check=True)


@pytest.mark.parametrize("standalone", ["no", "yes"])
def test_what_install_has_put_there_is_well(doctor: Doctor, standalone: str) -> None:
    """Relays alone, as a container installs them on a node without Python, while an agent answers; or with the launchers."""
    install(doctor, f"--standalone={standalone}")
    doctor.agent()
    assert doctor.findings() == (0, [])


def test_relays_alone_need_an_agent(doctor: Doctor) -> None:
    """Installed without launchers and without an agent, no pod gets an address."""
    install(doctor, "--standalone=no")
    code, found = doctor.findings()
    assert (code, {one["check"] for one in found if one["state"] == "failure"}) == (2, {"fallback"})


def test_addresses_without_a_record(doctor: Doctor) -> None:
    """It is told of how many addresses nobody knows whose they are, as of what the reference's host-local has given."""
    doctor.node.hold("k8snet", 3, since=0x110)
    told = [one["what"] for one in doctor.run("-o", "json").json["checks"] if one["check"] == "leaks"]
    assert "network k8snet: 3 addresses have no record of their pod" in told


def test_the_kubeconfig_of_a_definition(doctor: Doctor, tmp_path: Path) -> None:
    """The kubeconfig of a tenant's definition is not opened where the administrator does not allow it: it can name a program to run."""
    ran, kubeconfig, definition = tmp_path / "ran", tmp_path / "kubeconfig", tmp_path / "tenant.json"
    who = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "touch", "args": [str(ran)], "interactiveMode": "Never"}}
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "x",
                "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:9"}}],
                "users": [{"name": "x", "user": who}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            }
        )
    )
    conf = doctor.node.conf("tenant", annotation="example.com/net1", kubeconfig=str(kubeconfig))
    doctor.env["KUBE_NODE_CONF"] = str(allow(tmp_path / "kube-node.conf", kubeconfig=["/etc"]))
    (doctor.node.run / "node.json").unlink()  # else the API server is not asked
    spec = {"config": json.dumps(conf)}
    definition.write_text(json.dumps({"kind": "NetworkAttachmentDefinition", "metadata": {"name": "tenant"}, "spec": spec}))
    doctor.run(f"--config={definition}")
    assert not ran.exists()
