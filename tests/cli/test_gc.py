"""`kube-node gc` and `kube-node release`: what nobody has goes, and nothing else."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess
from rebooting import EARLIER, note, reboot
from runtime_socket import RuntimeSocket

if TYPE_CHECKING:
    from pathlib import Path

    from node import SeededNode


@pytest.fixture
def pods(seeded: SeededNode) -> dict[str, Any]:
    """Return the configuration of a network with pods c1, c2 and c3, of which c1 has no network namespace any more."""
    conf = seeded.conf()
    seeded.configure(conf)
    for name in ("c1", "c2", "c3"):
        seeded.add(conf, name, f"web/{name}")
    (seeded.netns / "c1").unlink()
    return conf


def held(node: SeededNode) -> list[str]:
    names = os.listdir(node.networks / "k8snet")
    return sorted(name for name in names if name.startswith("10."))


def older(node: SeededNode, seconds: float = 1000) -> None:
    """Make all reservations older."""
    when = time.time() - seconds
    for name in held(node):
        os.utime(node.networks / "k8snet" / name, (when, when))


def test_by_network_namespaces(seeded: SeededNode, pods: dict[str, Any]) -> None:
    """Without a runtime to ask, what a gone network namespace had is released, with its record; a dry run releases nothing."""
    dry = seeded.run_command("gc", "--from=netns", "--dry-run")
    assert "web/c1" in dry.stdout
    assert "2 addresses would be released" in dry.stdout
    assert held(seeded) == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]
    answer = seeded.run_command("gc", "--from=netns", "--json")
    assert [(one["address"], one["pod"]) for one in answer.json["released"]] == [("10.1.0.2", "web/c1"), ("fd01::2", "web/c1")]
    assert held(seeded) == ["10.1.0.3", "10.1.0.4"]
    assert "Nothing is stale" in seeded.run_command("gc", "--from=netns").stdout
    assert len(os.listdir(seeded.run / "attachments")) == 2
    assert seeded.add(pods, "c1", "web/c1") == ["10.1.0.5", "fd01::5"]


def test_by_the_runtime(seeded: SeededNode, pods: dict[str, Any], tmp_path: Path) -> None:
    """What the runtime has a sandbox of stays; what it has none of goes, unless a network namespace speaks against it."""
    del pods
    older(seeded)
    with RuntimeSocket(tmp_path / "cri.sock", ["c2"]) as runtime:
        answer = seeded.run_command("gc", f"--cri-socket={runtime.path}", "--json")
    assert answer.code == 0, answer.stderr
    assert {one["pod"] for one in answer.json["released"]} == {"web/c1"}
    assert held(seeded) == ["10.1.0.3", "10.1.0.4"]


def test_without_record_the_runtime_decides(seeded: SeededNode, tmp_path: Path) -> None:
    """A reservation without a record goes by the runtime's word, but not while it is young; by network namespaces alone it stays."""
    seeded.configure(seeded.conf())
    seeded.hold("k8snet", 2)
    with RuntimeSocket(tmp_path / "cri.sock", ["held" + f"{2:060}"], methods="/runtime.v1alpha2.") as runtime:
        command = ("gc", f"--cri-socket={runtime.path}")
        assert "Nothing is stale" in seeded.run_command(*command).stdout
        older(seeded)
        assert "Nothing is stale" in seeded.run_command("gc", "--from=netns").stdout
        assert "1 address released" in seeded.run_command(*command).stdout
    assert held(seeded) == ["10.1.0.2"]


@pytest.mark.parametrize("fault", ["silent", "cut", "no such service", "nobody"])
def test_runtime_that_does_not_say(seeded: SeededNode, pods: dict[str, Any], tmp_path: Path, fault: str) -> None:
    """A runtime that does not say which pods there are is an error, and nothing is released."""
    del pods
    older(seeded)
    path = tmp_path / "cri.sock"
    if fault == "nobody":
        answer = seeded.run_command("gc", f"--cri-socket={path}")
    else:
        methods = "/nothing" if fault == "no such service" else "/runtime.v1."
        with RuntimeSocket(path, ["c1"], methods=methods, cut={"cut": 3, "silent": 100}.get(fault, 0)) as runtime:
            answer = seeded.run_command("gc", f"--cri-socket={runtime.path}")
    assert answer.code == 1
    assert "the runtime at" in answer.stderr
    assert len(held(seeded)) == 3


def test_before_a_reboot_and_torn(seeded: SeededNode, pods: dict[str, Any]) -> None:
    """Torn files go, and what is of before the last reboot; then the boot is noted anew."""
    del pods
    torn, boot = seeded.networks / "k8snet/10.1.0.77", seeded.networks / ".k8snet.boot"
    torn.write_text("")
    assert "10.1.0.77" not in seeded.run_command("gc", "--from=netns").stdout
    os.utime(torn, times=(0, 0))
    assert "empty or torn" in seeded.run_command("gc", "--from=netns").stdout
    boot.write_text(note("m"))
    assert "Nothing is stale" in seeded.run_command("gc", "--from=netns").stdout
    assert held(seeded) != []
    wrap = reboot(boot, run_dir=seeded.run)
    assert "before the last reboot" in seeded.run_command("gc", "--from=netns", wrap=wrap).stdout
    assert held(seeded) == []
    assert EARLIER not in boot.read_text()


def test_beside_an_agent(seeded: SeededNode, pods: dict[str, Any]) -> None:
    """An agent that has an index of the same directory sees what was released: nothing is given twice, and it is free."""
    with AgentProcess(seeded.run) as agent:
        assert agent.ask("kube-node", "ADD", pods, container_id="c4").code == 0
        seeded.run_command("gc", "--from=netns")
        conf = {**pods, "args": {"cni": {"ips": ["10.1.0.2"]}}}
        assert "10.1.0.2" in agent.ask("kube-node", "ADD", conf, container_id="c5").addresses


def test_release(seeded: SeededNode, pods: dict[str, Any]) -> None:
    """An address is released when asked for and confirmed; of a pod with another one the record stays."""
    del pods
    no = seeded.run_command("release", "10.1.0.3", stdin="n\n")
    assert no.code == 1
    assert "web/c2" in no.stdout
    assert "may be alive" in no.stdout
    assert "10.1.0.3" in held(seeded)
    yes = seeded.run_command("release", "10.1.0.3", stdin="y\n")
    assert (yes.code, "10.1.0.3" in held(seeded)) == (0, False)
    assert len(os.listdir(seeded.run / "attachments")) == 3
    assert seeded.run_command("release", "fd01::3", "--yes", "--json").json["released"] is True
    assert len(os.listdir(seeded.run / "attachments")) == 2
    again = seeded.run_command("release", "10.1.0.3", "--yes")
    assert again.code == 1
    assert "held by nobody" in again.stdout


def test_version(seeded: SeededNode, built: Path) -> None:
    """Versions of this program and of what is installed stand there."""
    said = seeded.run_command("version", "--json", f"--bin-dir={built}").json
    assert said["cniVersions"][-1] == "1.1.0"
    assert {(os.path.basename(one["path"]), one["kind"]) for one in said["installed"]} >= {
        ("kube-node", "relay"),
        ("kube-node.standalone", "launcher"),
    }
    assert len({one["version"] for one in said["installed"]}) == 1
    assert "kube-node " in seeded.run_command("version").stdout
