# SPDX-License-Identifier: Apache-2.0
"""What an ADD has left says who gave an address and where: neither today's configuration nor a list that is not complete."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import Network, environment, execute
from patience import eventually
from wanting import want

if TYPE_CHECKING:
    from callplugin import NetworkMaker, ViewWriter
    from podnet import PodNet

NOTHING_VALID: dict[str, Any] = {"cni.dev/valid-attachments": []}
ANNOTATED = {"a": 'ranges: [[{"subnet": "11.0.1.0/24"}]]'}
STATIC = {"addresses": [{"address": "11.0.1.77/24"}]}


def ipam_of(plugin: str) -> dict[str, Any]:
    own: dict[str, dict[str, Any]] = {"node-annotation": {"annotation": "a"}, "host-local": {"ranges": [[{"subnet": "11.0.1.0/24"}]]}}
    return own.get(plugin, {})


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation", "host-local"])
def test_gc_with_a_partial_list(embedded: NetworkMaker, view: ViewWriter, podnet: PodNet, plugin: str) -> None:
    """Who calls GC may list only a part (Multus: its own cache). An attachment whose network namespace is there stays; one without goes."""
    view("11.0.1.0/24", annotations=ANNOTATED)
    net = embedded(plugin, **ipam_of(plugin))
    living, gone, without = podnet.pod(), podnet.pod(), "gone"
    for pod in (living, gone):
        net.add(pod.name, env={"CNI_NETNS": pod.netns})
    net.add(without)
    subprocess.run(["ip", "netns", "del", gone.name], check=True)
    podnet._pods.remove(gone)
    answer = net.call("GC", **NOTHING_VALID)
    assert (answer.code, answer.stdout, net.reserved()) == (0, "", ["11.0.1.2"])
    net.ok("CHECK", living.name, prevResult={"ips": [{"address": "11.0.1.2/24"}]})
    subprocess.run(["ip", "netns", "del", living.name], check=True)
    podnet._pods.remove(living)
    net.ok("GC", **NOTHING_VALID)
    assert net.reserved() == []


@pytest.mark.ways("standalone")
def test_gc_says_what_stays(embedded: NetworkMaker, view: ViewWriter, podnet: PodNet) -> None:
    """What stays against the list is told in the log, by container and interface."""
    view("11.0.1.0/24")
    net, pod = embedded(), podnet.pod()
    net.add(pod.name, env={"CNI_NETNS": pod.netns})
    said = [json.loads(line) for line in net.call("GC", **NOTHING_VALID).stderr.splitlines()]
    assert [(line["of"], line["its"]) for line in said if "network namespace exists" in line["msg"]] == [(pod.name, "eth0")]


class Whereabouts:
    """A delegate that keeps its addresses elsewhere, and notes which are given."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._given = directory / "given"
        program = directory / "whereabouts"
        program.write_text(
            f"""#!/bin/sh
            cat >/dev/null
            case $CNI_COMMAND in
            ADD) touch {self._given}.$CNI_CONTAINERID; echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "11.9.9.9/24"}}]}}';;
            DEL) rm -f {self._given}.$CNI_CONTAINERID;;
            GC) rm -f {self._given}.*;;
            CHECK) [ -e {self._given}.$CNI_CONTAINERID ];;
            esac
            """
        )
        program.chmod(0o755)

    def given(self) -> list[str]:
        return sorted(path.suffix[1:] for path in self.directory.glob("given.*"))


@pytest.fixture
def other(tmp_path: Path, view: ViewWriter) -> Whereabouts:
    view("11.0.1.0/24", annotations=ANNOTATED)
    return Whereabouts(tmp_path / "other")


def network(binaries: Path, tmp_path: Path, *path: Path, plugin: str = "kube-node", **ipam: Any) -> Network:
    return Network(binaries / plugin, tmp_path / "networks", {**ipam_of(plugin), **ipam}, path)


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
def test_del_after_the_delegate_was_changed(binaries: Path, tmp_path: Path, other: Whereabouts, plugin: str) -> None:
    """A DEL goes to who has given the address, whatever is the delegate by now, there and back."""
    ours = network(binaries, tmp_path, other.directory, plugin=plugin, delegate="embedded")
    theirs = network(binaries, tmp_path, other.directory, plugin=plugin, delegate="whereabouts")
    ours.add("c1")
    theirs.add("c2")
    assert (ours.reserved(), other.given()) == (["11.0.1.2"], ["c2"])
    ours.ok("CHECK", "c2")
    ours.ok("DEL", "c2")
    assert (ours.reserved(), other.given()) == (["11.0.1.2"], [])
    theirs.ok("DEL", "c1")
    assert ours.reserved() == []


def test_del_after_the_new_delegate_has_gone(binaries: Path, tmp_path: Path, other: Whereabouts) -> None:
    """What we have given is released though the delegate of today's configuration is not installed."""
    network(binaries, tmp_path, other.directory, delegate="embedded").add("c1")
    net = network(binaries, tmp_path, other.directory, delegate="nothing")
    net.ok("DEL", "c1")
    assert net.reserved() == []


def test_gc_after_the_delegate_was_changed(binaries: Path, tmp_path: Path, other: Whereabouts) -> None:
    """GC reaches all that have given addresses of this network."""
    network(binaries, tmp_path, other.directory, delegate="whereabouts").add("c1")
    net = network(binaries, tmp_path, other.directory, delegate="embedded")
    net.add("c2")
    net.ok("GC", **NOTHING_VALID)
    assert (net.reserved(), other.given()) == ([], [])


@pytest.mark.ways("standalone", "console")  # an agent leaves another plugin to them
def test_a_real_delegate_by_its_path(binaries: Path, tmp_path: Path, cni_bin: Path, view: ViewWriter) -> None:
    """The reference's `static`, reached by nextipam's path outside of CNI_PATH, is asked to release after nextipam has changed."""
    view(annotations={"a": f"addresses: {json.dumps(STATIC['addresses'])}"})
    config = tmp_path / "node-annotation.conf"
    spy = tmp_path / "elsewhere/static"
    spy.parent.mkdir()
    spy.write_text(f"#!/bin/sh\necho $CNI_COMMAND >>{tmp_path}/calls\nexec {cni_bin}/static\n")
    spy.chmod(0o755)
    net = network(binaries, tmp_path, tmp_path, plugin="node-annotation")
    config.write_text(json.dumps({"nextipam": str(spy)}))
    how = {"env": {"NODE_ANNOTATION_CFG": str(config)}}
    assert net.add("c1", **how) == ["11.0.1.77"]
    config.write_text("{}")
    net.ok("DEL", "c1", **how)
    assert (tmp_path / "calls").read_text().split() == ["ADD", "DEL"]


def test_del_in_both_directories(binaries: Path, tmp_path: Path, view: ViewWriter, cni_bin: Path) -> None:
    """DEL releases where the ADD has put its reservation, and where the configuration says by now, of which another name is no other."""
    view("11.0.1.0/24")
    net = network(binaries, tmp_path, delegate="embedded")
    net.add("c1")
    moved = network(binaries, tmp_path, delegate="embedded", dataDir=str(tmp_path / "moved"))
    reference = {
        **net.netconf,
        "cniVersion": "1.0.0",
        "ipam": {"type": "host-local", "subnet": "11.0.1.0/24", "dataDir": str(tmp_path / "moved")},
    }
    assert execute(cni_bin / "host-local", reference, environment("ADD", path=[cni_bin])).code == 0
    moved.ok("DEL", "c1")
    assert (net.reserved(), list((tmp_path / "moved/net").glob("11*"))) == ([], [])
    (tmp_path / "alias").symlink_to(tmp_path / "networks")
    net.add("c2")
    network(binaries, tmp_path, delegate="embedded", dataDir=str(tmp_path / "alias")).ok("DEL", "c2")
    assert net.reserved() == []


@pytest.mark.parametrize("data_dir", [7, {"a": []}, "\0"])
def test_del_with_a_broken_directory(embedded: NetworkMaker, view: ViewWriter, data_dir: Any) -> None:
    """A dataDir that is none by now keeps no pod from ending, nor its address from being released where it was given."""
    view("11.0.1.0/24")
    net = embedded()
    net.add("c1")
    net.ipam["dataDir"] = data_dir
    net.ok("DEL", "c1")
    net.ok("DEL", "never")
    assert net.reserved() == []


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_a_file_that_cannot_be_removed(embedded: NetworkMaker, view: ViewWriter, command: str) -> None:
    """DEL and GC go on after a file that they cannot remove, and name it at the end; with it gone they succeed."""
    want("the right to mount")
    view("11.0.1.0/24", "1100:0:0:1::/64")
    net = embedded()
    for container in ("c1", "c2"):
        net.add(container)
    more = NOTHING_VALID if command == "GC" else {}
    blocked = net.directory / "11.0.1.2"
    # A mount point cannot be unlinked, on whatever file system.
    subprocess.run(["mount", "--bind", blocked, blocked], check=True)
    try:
        error = net.error(command, "c1", **more)
        assert (error["code"], "11.0.1.2" in error["msg"]) == (5, True)
        assert "1100:0:0:1::2" not in net.reserved()
        assert ("11.0.1.3" in net.reserved()) == (command == "DEL")
    finally:
        subprocess.run(["umount", blocked], check=True)
    net.ok(command, "c1", **more)
    assert "11.0.1.2" not in net.reserved()


def test_gc_goes_on_in_the_next_directory(binaries: Path, tmp_path: Path, view: ViewWriter) -> None:
    """GC that cannot work in one data directory of a network still does in the others."""
    view(annotations={**ANNOTATED, "b": f'{ANNOTATED["a"]}, dataDir: "{tmp_path}/second"'})
    net = network(binaries, tmp_path, plugin="node-annotation")
    net.add("c1")
    net.ipam["annotation"] = "b"
    net.add("c2")
    lock = net.directory / "lock"

    def is_directory() -> bool:
        lock.unlink()
        with contextlib.suppress(FileExistsError):  # an agent that looks at the network has made it again
            lock.mkdir()
        return lock.is_dir()

    eventually(is_directory, "the agent is quicker each time")
    assert net.error("GC", **NOTHING_VALID)["code"] == 5
    assert list((tmp_path / "second/net").glob("11*")) == []
    lock.rmdir()
    net.ok("GC", **NOTHING_VALID)
    assert net.reserved() == []


LONGEST = "n" * 255  # bytes of a file's name (NAME_MAX)


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation", "host-local"])
def test_the_longest_names(embedded: NetworkMaker, view: ViewWriter, run_dir: Path, tmp_path: Path, plugin: str) -> None:
    """A network of 255 bytes works as any other: given, checked, collected by its records, released."""
    view("11.0.1.0/24", annotations={"a": f'{ANNOTATED["a"]}, dataDir: "{tmp_path}/own"'})
    net = embedded(plugin, **ipam_of(plugin))
    net.netconf["name"] = LONGEST
    directory = (tmp_path / "own" if plugin == "node-annotation" else net.directory.parent) / LONGEST
    container, second = "c" * 64, "d" * 300
    for name in (container, second):
        net.add(name)
    assert len(list(directory.glob("11*"))) == 2
    assert len(os.listdir(run_dir / "attachments")) == 2
    net.ok("CHECK", container)
    net.ok("DEL", container)
    net.gc()
    assert list(directory.glob("11*")) == []
    assert os.listdir(run_dir / "attachments") == []
    net.netconf["name"] = LONGEST + "n"
    net.ok("DEL", container)


@pytest.mark.ways("standalone", "console")
@pytest.mark.parametrize("why", ["source", "full"])
def test_second_add_elsewhere(embedded: NetworkMaker, view: ViewWriter, tmp_path: Path, why: str) -> None:
    """A second ADD that fails leaves the record of the first, also where the annotation has another dataDir by now: its DEL needs that."""
    first, second = tmp_path / "first", tmp_path / "second"
    view("11.0.1.0/24", annotations={"a": f'dataDir: "{first}", ranges: [[{{"subnet": "11.0.1.0/24"}}]]'})
    net = embedded("node-annotation", annotation="a")
    net.add("c1")
    subnet = "11.0.1.0/24"
    if why == "full":  # and not the source, of which nothing is noted then
        subnet = "11.0.1.0/30"
        (second / "net").mkdir(parents=True)
        (second / "net/11.0.1.2").write_text("c2\r\neth0")
        for link in (tmp_path / "run" / "sources").iterdir() if (tmp_path / "run" / "sources").exists() else ():
            link.unlink()
    view("11.0.1.0/24", annotations={"a": f'dataDir: "{second}", ranges: [[{{"subnet": "{subnet}"}}]]'})
    assert net.call("ADD", "c1").code == 1
    net.ok("DEL", "c1")
    assert not (first / "net/11.0.1.2").exists()


@pytest.mark.ways("standalone", "console")
def test_gc_beside_an_add(embedded: NetworkMaker, view: ViewWriter, tmp_path: Path, run_dir: Path) -> None:
    """A record that an ADD is writing at the moment is no sign that its pod is gone: GC leaves it."""
    view("11.0.1.0/24")
    net = embedded()
    net.add("c1", env={"CNI_NETNS": "/proc/self/ns/net"})
    record = run_dir / "attachments/net:c1:eth0"
    written = record.read_bytes()
    with (tmp_path / "networks/net/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record.write_bytes(b"")  # as an ADD has it for a moment, with the lock held
        environ = environment("GC", path=net.path)
        stdin = json.dumps({**net.netconf, "ipam": net.ipam, **NOTHING_VALID}).encode()
        gc = subprocess.Popen([net.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        assert gc.stdin
        gc.stdin.write(stdin)
        gc.stdin.close()
        eventually(lambda: any("->" in line and f" {gc.pid} " in line for line in Path("/proc/locks").read_text().splitlines()))
        record.write_bytes(written)
    assert gc.wait() == 0
    assert net.reserved() == ["11.0.1.2"]
    assert record.read_bytes() == written
