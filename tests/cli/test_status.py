# SPDX-License-Identifier: Apache-2.0
"""`kube-node status`: right, quick, and without a trace."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from agentprocess import AgentProcess
from counting import opened_by
from ourprocess import KUBE_NODE
from patience import PATIENCE, eventually

from kubenode.cli.status import NEWEST
from kubenode.inspection.holders import NEIGHBOURS

if TYPE_CHECKING:
    from pathlib import Path

    from node import SeededNode

pytestmark = pytest.mark.slow


def seen(node: SeededNode, *arguments: str) -> dict[str, Any]:
    answer = node.run_command("status", "-o", "json", *arguments)
    assert answer.code == 0, answer.stderr
    return answer.json


def test_all_of_a_node(seeded: SeededNode) -> None:
    """Networks, subnets and their source, used and free, and each pod with its addresses stand there."""
    conf = seeded.conf()
    seeded.configure(conf)
    assert seeded.add(conf, "c1", "web/shop") == ["10.1.0.2", "fd01::2"]
    seeded.add(conf, "c2")
    said = seen(seeded)
    (network,) = said["networks"]
    assert (said["node"]["name"], said["agent"]["up"]) == ("worker-1", False)
    assert (network["name"], network["source"], network["dataDir"]) == ("k8snet", "spec.podCIDRs", str(seeded.networks))
    assert [(one["subnets"], one["used"], one["free"]) for one in network["rangeSets"]] == [
        (["10.1.0.0/24"], 2, 251),
        (["fd01::/64"], 2, 2**64 - 4),
    ]
    assert {tuple(one["addresses"]): one["pod"] for one in network["attachments"]} == {
        ("10.1.0.2", "fd01::2"): "web/shop",
        ("10.1.0.3", "fd01::3"): None,
    }
    shown = seeded.run_command("status").stdout
    for text in ("worker-1", "k8snet", "10.1.0.0/24", "2 of 253", "spec.podCIDRs", "web/shop", "10.1.0.3", "c2", "none: the plugins"):
        assert text in shown


def test_looking_changes_nothing(seeded: SeededNode) -> None:
    """Not a file, a directory or a time is another afterwards, also where a network has no directory yet."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.configure(seeded.conf("other"), "20-other.conf")
    seeded.add(conf, "c1", "web/shop")
    before = seeded.snapshot()
    for arguments in ((), ("-o", "json"), ("10.1.0.2",), ("10.1.0.9",), ("-o", "wide", "--all")):
        seeded.run_command("status", *arguments)
    assert seeded.snapshot() == before


def test_whose_address(seeded: SeededNode) -> None:
    """An address leads to its pod, with exit code 0; a free one, a gateway and a foreign one say so, with 1."""
    conf = seeded.conf(exclude=["10.1.0.77"])
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/shop")
    for address in ("10.1.0.2", "fd01:0:0::2"):
        answer = seeded.run_command("status", address)
        assert answer.code == 0
        assert "web/shop" in answer.stdout
        assert "c1" in answer.stdout
    for address, said in (("10.1.0.9", "may give it"), ("10.1.0.1", "gateway"), ("10.1.0.77", "excludes it"), ("10.9.9.9", "no subnet")):
        answer = seeded.run_command("status", address)
        assert answer.code == 1
        assert said in answer.stdout
    assert seeded.run_command("status", "10.1.0").code == 64
    assert seeded.run_command("status", "10.1.0.2", "-o", "json").json["holders"][0]["pod"] == "web/shop"


def test_other_addresses_of_the_pod(seeded: SeededNode) -> None:
    """With an address its pod's others are named, with network and interface: of both families and of all networks, and no other pod's."""
    first, second = seeded.conf(), seeded.conf("net1", annotation="example.com/net1")
    seeded.view(["10.1.0.0/24", "fd01::/64"], {"example.com/net1": "172.20.2.0/24"})
    seeded.configure(first)
    for container in ("c1", "c2"):
        seeded.add(first, container, f"web/{container}")
        seeded.add(second, container, f"web/{container}", ifname="net1")  # known by its records alone
    shown = seeded.run_command("status", "10.1.0.2").stdout
    assert [line.split() for line in shown.partition("also has")[2].splitlines()] == [
        ["fd01::2", "k8snet,", "eth0"],
        ["172.20.2.2", "net1,", "net1"],
    ]
    (holder,) = seeded.run_command("status", "172.20.2.3", "-o", "json").json["holders"]
    assert holder["others"] == [
        {"address": "10.1.0.3", "network": "k8snet", "ifname": "eth0"},
        {"address": "fd01::3", "network": "k8snet", "ifname": "eth0"},
    ]
    seeded.add(second, "c3", "web/c3", ifname="net1")
    assert "also has" not in seeded.run_command("status", "172.20.2.4").stdout


def test_filters(seeded: SeededNode) -> None:
    """--network and --namespace leave only what they name; a network that is not there is an error that names those that are."""
    one, other = seeded.conf(), seeded.conf("net1", annotation="example.com/net1")
    seeded.view(["10.1.0.0/24"], {"example.com/net1": "172.20.2.0/24"})
    seeded.configure(one)
    seeded.configure(other, "20-net1.conf")
    for conf in (one, other):
        seeded.add(conf, "c1", "web/shop")
        seeded.add(conf, "c2", "mail/box")
    assert [network["name"] for network in seen(seeded, "--network=net1")["networks"]] == ["net1"]
    assert {pod["pod"] for network in seen(seeded, "--namespace=mail")["networks"] for pod in network["attachments"]} == {"mail/box"}
    assert seen(seeded)["networks"][1]["source"] == "annotation example.com/net1"
    answer = seeded.run_command("status", "--network=nett")
    assert answer.code == 69
    assert "there are: k8snet, net1" in answer.stderr


def test_suspected_leak(seeded: SeededNode) -> None:
    """A pod whose network namespace is gone stands there as suspected; one whose record says nothing does not."""
    conf = seeded.conf()
    seeded.configure(conf)
    for name in ("c1", "c2"):
        seeded.add(conf, name, f"web/{name}")
    (seeded.netns / "c1").unlink()
    (network,) = seen(seeded)["networks"]
    assert {one["pod"]: one["suspectedLeak"] for one in network["attachments"]} == {"web/c1": True, "web/c2": False}
    assert "web/c1 leaked?" in seeded.run_command("status").stdout


def test_network_attachment_definition(seeded: SeededNode, tmp_path: Path) -> None:
    """A file with NetworkAttachmentDefinitions adds their networks; a configuration without a name takes the definition's."""
    seeded.view(["10.1.0.0/24"], {"example.com/a": 'ranges: [[{"subnet": "172.20.3.0/24"}]]'})
    conf = seeded.conf(type="node-annotation", annotation="example.com/a")
    del conf["name"]
    definition = {"kind": "NetworkAttachmentDefinition", "metadata": {"name": "net2"}, "spec": {"config": json.dumps(conf)}}
    file = tmp_path / "nad.yaml"
    file.write_text(yaml.safe_dump_all([definition, {"kind": "List", "items": []}]))
    (network,) = seen(seeded, f"--config={file}")["networks"]
    assert (network["name"], network["rangeSets"][0]["subnets"]) == ("net2", ["172.20.3.0/24"])
    assert network["source"] == "annotation example.com/a"


def test_networks_of_records(seeded: SeededNode) -> None:
    """A network that only ADDs have told of is there, with the ranges that they handed on."""
    seeded.add(seeded.conf("multus"), "c1", "web/shop")
    (network,) = seen(seeded)["networks"]
    assert (network["name"], network["plugin"], network["config"]) == ("multus", None, "attachment records")
    assert len(network["rangeSets"]) == 2


def test_unknown_subnets(seeded: SeededNode) -> None:
    """Without a Node view who holds what still stands there, and why there are no subnets."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/shop")
    (seeded.run / "node.json").unlink()
    (network,) = seen(seeded)["networks"]
    assert "no Node view" in network["error"]
    assert network["attachments"][0]["pod"] == "web/shop"
    assert not (seeded.run / "node.json").exists()


def test_torn_file(seeded: SeededNode) -> None:
    """A reservation file without an owner is shown as that of no pod."""
    seeded.configure(seeded.conf())
    seeded.hold("k8snet", 1)
    (seeded.networks / "k8snet/10.1.0.9").write_text("")
    assert "no pod: the file is empty or torn" in seeded.run_command("status").stdout


def test_agent(seeded: SeededNode, tmp_path: Path) -> None:
    """An agent that answers is up, with its process; one that left its socket behind is down."""
    file = tmp_path / "node.yaml"
    file.write_text("kind: Node\nmetadata: {name: worker-2}\nspec: {podCIDRs: [10.1.0.0/24]}\n")
    (seeded.run / "node.json").unlink()
    with AgentProcess(seeded.run, f"--node-file={file}") as agent:
        assert agent.process
        eventually((seeded.run / "node.json").exists, "the agent does not know its Node")
        said = seen(seeded)
        assert (said["agent"]["up"], said["agent"]["pid"]) == (True, agent.process.pid)
        assert said["node"]["name"] == "worker-2"
        assert said["node"]["ageSeconds"] < 60
        assert "up, process" in seeded.run_command("status").stdout
    assert "Connection refused" in seen(seeded)["agent"]["error"]


@pytest.mark.parametrize("columns", ["80", "200"])
def test_no_line_is_wider_than_the_terminal(seeded: SeededNode, columns: str) -> None:
    """At 80 columns and at 200 nothing runs over the edge, also with long names and IPv6 addresses."""
    seeded.view(["10.1.0.0/24", "fd01:2345:6789:abcd::/64"], {"example.com/" + "n" * 40: "172.20.2.0/24,fd02:2345:6789:abcd::/64"})
    conf = seeded.conf("a-network-of-a-rather-long-name", annotation="example.com/" + "n" * 40)
    seeded.configure(conf, "20-a-network.conf")
    seeded.add(conf, "c" * 64, f"a-namespace-{'x' * 40}/a-pod-{'y' * 60}")
    for wide in ((), ("-o", "wide")):
        shown = seeded.run_command("status", *wide, env={"COLUMNS": columns}).stdout
        assert max(map(len, shown.splitlines())) <= int(columns)
        assert "…" not in shown


def on_terminal(node: SeededNode, **env: str) -> str:
    """Return what status writes to a terminal."""
    leader, follower = pty.openpty()
    environ = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    command = [str(KUBE_NODE), "status", f"--cni-config={node.net}"]
    done = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env={**environ, "TERM": "xterm-256color", **env})
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # EIO: nobody writes to it any more
        pass
    os.close(leader)
    assert done.wait() == 0
    return shown.decode()


def test_colour(seeded: SeededNode) -> None:
    """Colour is for a terminal only, and NO_COLOR turns it off there, too."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/shop")
    green = "\x1b[32m"
    assert "\x1b" not in seeded.run_command("status").stdout
    assert green in on_terminal(seeded)
    assert green not in on_terminal(seeded, NO_COLOR="1")


def test_watch(seeded: SeededNode) -> None:
    """--watch shows what has changed since; with -o json an object a line."""
    conf = seeded.conf()
    seeded.configure(conf)
    # In the background of a shell SIGINT is ignored, and what is started there inherits that.
    command = [
        "env",
        "--default-signal=INT",
        str(KUBE_NODE),
        "status",
        f"--cni-config={seeded.net}",
        "-o",
        "json",
        "--watch",
        "--interval=0.2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout
        assert json.loads(watching.stdout.readline())["networks"][0]["attachments"] == []
        seeded.add(conf, "c1", "web/shop")
        pods: list[str] = []
        while not pods:
            pods = [one["pod"] for one in json.loads(watching.stdout.readline())["networks"][0]["attachments"]]
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(PATIENCE) == 130
    assert pods == ["web/shop"]


def test_many(seeded: SeededNode) -> None:
    """With 60,000 reservations all of them are counted, the newest alone are read, each once, and no lock is waited for."""
    seeded.view(["10.1.0.0/16"])
    seeded.configure(seeded.conf())
    seeded.hold("k8snet", 60_000)
    with (seeded.networks / "k8snet/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown, opened = opened_by("status", f"--cni-config={seeded.net}")
        assert "60,000 of 65,533" in shown
        assert "and 59,990 more addresses: --all" in shown
        assert len([path for path in opened if "10.1." in path]) <= NEWEST + NEIGHBOURS
        assert max(opened.values()) <= 2
        shown, opened = opened_by("status", "10.1.0.77", f"--cni-config={seeded.net}")  # what else its pod has all others may say
        assert "held" in shown
        assert max(opened.values()) <= 2
