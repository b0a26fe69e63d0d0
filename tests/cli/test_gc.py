# SPDX-License-Identifier: Apache-2.0
"""`kube-node gc` and `kube-node release`: what nobody has goes, and nothing else."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import AgentProcess
from rebooting import EARLIER, note, reboot
from runtime_socket import RuntimeSocket
from wanting import want

if TYPE_CHECKING:
    from pathlib import Path

    from node import SeededNode

pytestmark = pytest.mark.slow


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
    answer = seeded.run_command("gc", "--from=netns", "-o", "json")
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
        answer = seeded.run_command("gc", f"--cri-socket={runtime.path}", "-o", "json")
    assert answer.code == 0, answer.stderr
    assert {one["pod"] for one in answer.json["released"]} == {"web/c1"}
    assert held(seeded) == ["10.1.0.3", "10.1.0.4"]


def test_without_record_it_is_doubtful(seeded: SeededNode, tmp_path: Path) -> None:
    """What no record says to be a pod's is shown once it is not young, and goes with --all, confirmed; by namespaces alone it stays."""
    seeded.configure(seeded.conf())
    seeded.hold("k8snet", 2)
    with RuntimeSocket(tmp_path / "cri.sock", ["held" + f"{2:060}"], methods="/runtime.v1alpha2.") as runtime:
        command = ("gc", f"--cri-socket={runtime.path}")
        assert "Nothing is stale" in seeded.run_command(*command).stdout
        older(seeded)
        assert "Nothing is stale" in seeded.run_command("gc", "--from=netns").stdout
        shown = seeded.run_command(*command)
        assert "Nothing is stale" in shown.stdout
        assert "1 address may belong to containers other than pods: kept" in shown.stdout
        assert [one["address"] for one in seeded.run_command(*command, "-o", "json").json["doubtful"]] == ["10.1.0.3"]
        assert seeded.run_command(*command, "--all", stdin="n\n").code == 1
        assert seeded.run_command(*command, "--all", "-o", "json").code == 64
        assert held(seeded) == ["10.1.0.2", "10.1.0.3"]
        assert "1 address would be released" in seeded.run_command(*command, "--all", "--dry-run").stdout
        assert "1 address released" in seeded.run_command(*command, "--all", stdin="y\n").stdout
    assert held(seeded) == ["10.1.0.2"]


def test_a_pod_without_a_namespace_to_be_seen(seeded: SeededNode, tmp_path: Path) -> None:
    """By the runtime's word goes what its record says to be a pod's, where nothing can be said of its network namespace."""
    conf = seeded.conf()
    seeded.configure(conf)
    for container, pod in (("c1", "web/c1"), ("c2", "")):
        seeded.add(conf, container, pod)
    seeded.netns.rename(seeded.netns.parent / "elsewhere")
    older(seeded)
    with RuntimeSocket(tmp_path / "cri.sock", []) as runtime:
        said = seeded.run_command("gc", f"--cri-socket={runtime.path}", "-o", "json").json
    assert {one["pod"] for one in said["released"]} == {"web/c1"}
    assert {one["containerID"] for one in said["doubtful"]} == {"c2"}
    assert held(seeded) == ["10.1.0.3"]


@pytest.fixture
def host(root: Path, seeded: SeededNode) -> Path:
    """Return a host root with three pods, of whose network namespaces nothing can be said."""
    for path in ("run/containerd", "run/crio", "run/k3s/containerd"):
        (root / path).mkdir(parents=True)
    conf = seeded.conf()
    seeded.configure(conf)
    for container in ("c1", "c2", "c3"):
        seeded.add(conf, container, f"web/{container}")
    older(seeded)
    seeded.netns.rename(seeded.netns.parent / "elsewhere")
    return root


def test_all_runtimes_are_asked(seeded: SeededNode, host: Path) -> None:
    """Of several sockets that are there, all are asked: whose sandbox is another runtime's keeps its address."""
    first, second = host / "run/containerd/containerd.sock", host / "run/crio/crio.sock"
    command = ("gc", f"--host-root={host}", "-o", "json")
    with RuntimeSocket(first, ["c1"]), RuntimeSocket(second, ["c2"]):
        said = seeded.run_command(*command).json
    assert {one["pod"] for one in said["released"]} == {"web/c3"}
    assert held(seeded) == ["10.1.0.2", "10.1.0.3"]
    with RuntimeSocket(host / "run/cri-dockerd.sock", ["c1"]), RuntimeSocket(host / "run/k3s/containerd/containerd.sock", ["c2"]):
        refused = seeded.run_command(*command)
        assert refused.code == 69
        assert f"the runtime at {first} does not answer" in refused.stderr
        first.unlink()
        second.unlink()
        assert seeded.run_command(*command).json["released"] == []


def test_a_runtime_without_pods(seeded: SeededNode, host: Path) -> None:
    """Docker's containerd, which serves no CRI, is no obstacle where another runtime does, and no witness where none does."""
    docker = RuntimeSocket(host / "run/containerd/containerd.sock", [], methods="/nothing")
    with docker:
        refused = seeded.run_command("gc", f"--host-root={host}")
        assert (refused.code, "serves no CRI" in refused.stderr) == (69, True)
        with RuntimeSocket(host / "run/cri-dockerd.sock", ["c1", "c2"]):
            assert {one["pod"] for one in seeded.run_command("gc", f"--host-root={host}", "-o", "json").json["released"]} == {"web/c3"}


@pytest.mark.parametrize("form", ["--container-runtime-endpoint=unix://{}", "--container-runtime-endpoint {}", "--config={0}.yaml"])
def test_the_kubelets_socket(seeded: SeededNode, host: Path, form: str) -> None:
    """The runtime that the kubelet uses is found by its process, wherever its socket is."""
    path = f"/run/{secrets.token_hex(4)}.sock"
    (host / f"{path[1:]}.yaml").write_text(f"kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix://{path}\n")
    kubelet = host / "kubelet"
    kubelet.symlink_to("/bin/sh")
    command: list[str | Path] = [kubelet, "-c", "read line", *form.format(path).split()]
    with RuntimeSocket(host / path[1:], ["c1", "c2"]), subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        said = seeded.run_command("gc", f"--host-root={host}", "-o", "json").json
        assert process.stdin
        process.stdin.close()
    assert said["by"] == f"the runtime at {path}"
    assert {one["pod"] for one in said["released"]} == {"web/c3"}


def test_a_file_that_cannot_be_removed(seeded: SeededNode, pods: dict[str, Any]) -> None:
    """What can be released is, and is shown; then comes the error that names what could not."""
    want("the right to mount")
    del pods
    blocked = seeded.networks / "k8snet/10.1.0.2"
    subprocess.run(["mount", "--bind", blocked, blocked], check=True)
    try:
        said = seeded.run_command("gc", "--from=netns")
    finally:
        subprocess.run(["umount", blocked], check=True)
    assert said.code == 69
    assert "1 address released" in said.stdout
    assert str(blocked) in said.stderr
    assert len(os.listdir(seeded.run / "attachments")) == 3
    assert "1 address released" in seeded.run_command("gc", "--from=netns").stdout
    assert len(os.listdir(seeded.run / "attachments")) == 2


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
    assert answer.code == 69
    assert "the runtime at" in answer.stderr
    assert len(held(seeded)) == 3


def test_before_a_reboot_and_torn(seeded: SeededNode, pods: dict[str, Any]) -> None:
    """Torn files go, and what is of before the last reboot; then the boot is noted anew."""
    del pods
    torn, boot = seeded.networks / "k8snet/10.1.0.77", seeded.networks / ".k8snet.note"
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
    nobody = seeded.run_command("release", "10.1.0.3", stdin="")
    assert (nobody.code, "10.1.0.3" in held(seeded)) == (69, True)
    assert "no answer to: Release 10.1.0.3?" in nobody.stderr
    assert "--yes" in nobody.stderr
    yes = seeded.run_command("release", "10.1.0.3", stdin="y\n")
    assert (yes.code, "10.1.0.3" in held(seeded)) == (0, False)
    assert len(os.listdir(seeded.run / "attachments")) == 3
    assert seeded.run_command("release", "fd01::3", "--yes", "-o", "json").json["released"] is True
    assert len(os.listdir(seeded.run / "attachments")) == 2
    again = seeded.run_command("release", "10.1.0.3", "--yes")
    assert again.code == 1
    assert "No pod has" in again.stdout


def test_version(seeded: SeededNode, built: Path) -> None:
    """Versions of this program and of what is installed stand there."""
    said = seeded.run_command("version", "-o", "json", f"--bin-dir={built}").json
    assert said["cniVersions"][-1] == "1.1.0"
    assert {(os.path.basename(one["path"]), one["kind"]) for one in said["installed"]} >= {
        ("kube-node", "relay"),
        ("kube-node.standalone", "launcher"),
    }
    assert len({one["version"] for one in said["installed"]}) == 1
    assert "kube-node " in seeded.run_command("version").stdout
