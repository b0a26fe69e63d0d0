# SPDX-License-Identifier: Apache-2.0
"""Handing on: what a delegate gets, what of its answer comes back, and that its files can be taken over at any moment."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import rebooting
from callplugin import Network, hurried
from patience import PATIENCE
from rebooting import reboot, rebooted
from wanting import DEBIANS_CNI, want

if TYPE_CHECKING:
    from callplugin import NetworkMaker, ViewWriter

RESULT = {"cniVersion": "1.1.0", "ips": [{"address": "10.9.9.9/24"}], "from": "the delegate"}


class Recorder:
    """A delegate of a given name that keeps what it gets and answers what the test wants."""

    def __init__(self, directory: Path, name: str = "host-local") -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self._answer = directory / "answer"
        self._file = directory / name
        self.answers("cat <<'EOF'\n" + json.dumps(RESULT) + "\nEOF")

    def answers(self, script: str) -> None:
        """Do this, in sh, after the input is kept."""
        lines = f"""\
            #!/bin/sh
            cat >{self.directory}/$CNI_COMMAND.stdin
            env >{self.directory}/$CNI_COMMAND.env
            echo $CNI_COMMAND >>{self.directory}/calls
            """
        self._file.write_text(textwrap.dedent(lines) + script + "\n")
        self._file.chmod(0o755)

    def got(self, command: str) -> Any:
        return json.loads((self.directory / f"{command}.stdin").read_text())

    def environment(self, command: str) -> list[str]:
        return (self.directory / f"{command}.env").read_text().splitlines()

    def calls(self) -> list[str]:
        calls = self.directory / "calls"
        return calls.read_text().split() if calls.exists() else []


@pytest.fixture
def recorder(tmp_path: Path, view: ViewWriter) -> Recorder:
    view("11.0.1.0/24", "1100:0:0:1::/64")
    return Recorder(tmp_path / "delegates")


def kube_node(binaries: Path, tmp_path: Path, *path: Path, **ipam: Any) -> Network:
    if "exclude" not in ipam:
        ipam.setdefault("delegate", "host-local")
    return Network(binaries / "kube-node", tmp_path / "networks", ipam, path)


def test_the_complete_configuration_is_handed_on(binaries: Path, tmp_path: Path, recorder: Recorder) -> None:
    """A delegate gets all that we got, with `ipam` replaced: type and ranges are its own, our keys are gone, all others are there."""
    net = kube_node(binaries, tmp_path, recorder.directory)
    for_us = {"kubeconfig": "/k", "refreshAfter": 5, "ipv4-namespaces": ["default"], "loglevel": "info"}
    for_it = {"routes": [{"dst": "0.0.0.0/0"}], "resolvConf": "/etc/resolv.conf", "dns": {"search": ["x"]}, "unknown": {"a": [1, None]}}
    net.ipam.update(for_us | for_it)
    more: dict[str, Any] = {
        "isDefaultGateway": True,
        "runtimeConfig": {"ips": ["11.0.1.9"], "mac": "00:11:22:33:44:55"},
        "args": {"cni": {"ips": ["11.0.1.9"]}, "labels": [{"key": "a"}]},
        "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}]},
        "cni.dev/attachments": [{"containerID": "c", "ifname": "eth0"}],
        "another": "ü",
    }
    answer = net.call("ADD", **more)
    assert (answer.code, answer.json) == (0, RESULT)
    ipam = {"type": "host-local", "dataDir": str(tmp_path / "networks"), **for_it}
    ranges = [[{"subnet": "11.0.1.0/24"}], [{"subnet": "1100:0:0:1::/64"}]]
    assert recorder.got("ADD") == {**net.netconf, **more, "ipam": {**ipam, "ranges": ranges}}


def test_a_delegate_has_our_environment(binaries: Path, tmp_path: Path, recorder: Recorder) -> None:
    """All variables that we got reach the delegate, also those that no specification knows; its stderr is ours."""
    recorder.answers('echo "a warning" >&2; echo "{}"')
    net = kube_node(binaries, tmp_path, recorder.directory)
    answer = net.call("ADD", env={"TRACEPARENT": "00-1", "CNI_NETNS_OVERRIDE": "1"})
    assert (answer.code, answer.stderr) == (0, "a warning\n")
    environment = recorder.environment("ADD")
    for line in ("TRACEPARENT=00-1", "CNI_NETNS_OVERRIDE=1", "CNI_CONTAINERID=c1", f"CNI_PATH={recorder.directory}"):
        assert line in environment


def test_its_error_comes_back(binaries: Path, tmp_path: Path, recorder: Recorder) -> None:
    """A delegate's error keeps its code and texts; a DEL to it follows, and nothing is left of the ADD."""
    error = {"cniVersion": "1.1.0", "code": 777, "msg": "no luck", "details": "today"}
    recorder.answers(f"echo '{json.dumps(error)}'; exit 1")
    assert kube_node(binaries, tmp_path, recorder.directory).error() == error
    assert recorder.calls() == ["ADD", "DEL"]
    assert recorder.got("DEL") == recorder.got("ADD")
    attachments = Path(os.environ["KUBE_NODE_RUN_DIR"], "attachments")
    assert list(attachments.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "killed by signal 9"),
        ("echo rubbish; exit 1", "exit code 1"),
        ('echo "[]"; exit 1', "exit code 1"),
        ('echo "{\\"msg\\": 5}"; exit 1', "exit code 1"),
    ],
)
def test_a_delegate_that_fails_without_an_error(binaries: Path, tmp_path: Path, recorder: Recorder, script: str, how: str) -> None:
    """What ends without a CNI error gets one, which says how it ended and what it printed."""
    recorder.answers(script)
    error = kube_node(binaries, tmp_path, recorder.directory).error()
    assert (error["code"], error["msg"]) == (114, f"{recorder.directory}/host-local failed without a CNI error: {how}")


def test_a_delegate_that_cannot_be_run(binaries: Path, tmp_path: Path, recorder: Recorder) -> None:
    """A file that is no program for this machine is an error with its path."""
    broken = recorder.directory / "host-local"
    broken.write_bytes(b"\x7fELF rubbish")
    error = kube_node(binaries, tmp_path, recorder.directory).error()
    assert (error["code"], error["msg"]) == (114, f"cannot run {broken}: Exec format error")


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK"])
def test_a_delegate_that_is_not_there(binaries: Path, tmp_path: Path, recorder: Recorder, command: str) -> None:
    """A plugin other than host-local that is missing is an error which names it and where it was looked for."""
    error = kube_node(binaries, tmp_path, recorder.directory, tmp_path, delegate="whereabouts").error(command)
    assert (error["code"], error["msg"]) == (113, f"IPAM plugin whereabouts not found in CNI_PATH {recorder.directory}:{tmp_path}")


def test_another_plugin_as_delegate(binaries: Path, tmp_path: Path, view: ViewWriter) -> None:
    """Any IPAM plugin can be the delegate, by its name; it alone is asked, with its own type."""
    view("11.0.1.0/24")
    other = Recorder(tmp_path / "other", "whereabouts")
    net = kube_node(binaries, tmp_path, other.directory, delegate="whereabouts")
    assert net.call("ADD").json == RESULT
    assert other.got("ADD")["ipam"]["type"] == "whereabouts"
    for command in ("CHECK", "STATUS", "GC", "DEL"):
        assert net.call(command).code == 0
    assert other.calls() == ["ADD", "CHECK", "STATUS", "GC", "DEL"]
    assert net.reserved() == []


@pytest.mark.ways("relay")  # the others: test_untrusted_configuration.py
def test_a_delegate_that_hangs(binaries: Path, tmp_path: Path, recorder: Recorder) -> None:
    """A delegate that hangs is killed, and the answer is in time: try again later."""
    recorder.answers(f"echo $$ >{recorder.directory}/pid; exec sleep 60")
    hurried(binaries / "kube-node.standalone", 3.0)
    begin = time.monotonic()
    error = kube_node(binaries, tmp_path, recorder.directory).error()
    assert (error["code"], error["msg"]) == (11, "not done within 3 s")
    assert time.monotonic() - begin < PATIENCE
    assert not Path("/proc", (recorder.directory / "pid").read_text().strip()).exists()


def test_exclude_needs_the_embedded_allocator(binaries: Path, tmp_path: Path, recorder: Recorder) -> None:
    """The embedded allocator never gives what is in `exclude`; with a delegate, which does not know that, it is an error."""
    net = kube_node(binaries, tmp_path, recorder.directory, exclude=["11.0.1.2", "11.0.1.4/30", "1100:0:0:1::/126"])
    assert [net.add(f"c{number}") for number in range(2)] == [["11.0.1.3", "1100:0:0:1::4"], ["11.0.1.8", "1100:0:0:1::5"]]
    assert recorder.calls() == []
    error = kube_node(binaries, tmp_path, recorder.directory, exclude=["11.0.1.2"], delegate="host-local").error()
    assert (error["code"], error["msg"]) == (7, "exclude is not known to delegate host-local; it needs embedded")


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
def test_without_delegate(binaries: Path, tmp_path: Path, recorder: Recorder, view: ViewWriter, plugin: str) -> None:
    """Without `delegate` the embedded allocator gives the addresses, though host-local is there, which is slower."""
    view("11.0.1.0/24", annotations={"a": 'ranges: [[{"subnet": "11.0.1.0/24"}]]'})
    net = Network(
        binaries / plugin, tmp_path / "networks", {"annotation": "a"} if plugin == "node-annotation" else {}, [recorder.directory]
    )
    assert net.add() == ["11.0.1.2"]
    for command in ("CHECK", "STATUS", "GC", "DEL"):
        net.ok(command)
    assert (recorder.calls(), net.reserved()) == ([], [])


@pytest.fixture(params=["1.9.1", "1.1.1"])
def reference(request: pytest.FixtureRequest) -> Path:
    """Return a directory with the reference's host-local: of today, and of Debian 12."""
    if request.param == "1.9.1":
        return request.getfixturevalue("cni_bin")  # type: ignore[no-any-return]
    want("the reference CNI plugins 1.1.1")
    return DEBIANS_CNI


def test_either_goes_on_from_the_other(binaries: Path, tmp_path: Path, reference: Path, view: ViewWriter) -> None:
    """What one allocator has reserved the other sees, checks and releases; turns go on; at the end nothing is left."""
    view("11.0.1.0/24", "1100:0:0:1::/64")
    theirs = kube_node(binaries, tmp_path, reference)
    ours = kube_node(binaries, tmp_path, reference, delegate="embedded")
    for net in (theirs, ours):
        net.netconf["cniVersion"] = "1.0.0"
    got = [net.add(f"c{number}") for number, net in enumerate([theirs, ours, theirs, ours])]
    assert got == [[f"11.0.1.{number}", f"1100:0:0:1::{number}"] for number in range(2, 6)]
    for net, container in ((ours, "c0"), (theirs, "c1")):
        net.ok("CHECK", container)
        net.ok("DEL", container)
        net.ok("DEL", container)
        assert net.error("CHECK", container)["msg"].endswith(f"Failed to find address added by container {container}")
    theirs.ok("DEL", "c3")
    ours.ok("DEL", "c2")
    assert ours.reserved() == []
    assert {path.name for path in ours.directory.iterdir()} == {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}


def test_releasing_without_host_local(binaries: Path, tmp_path: Path, cni_bin: Path, view: ViewWriter, run_dir: Path) -> None:
    """An address that host-local gave is released when host-local, the Node view and what the ADD left are all gone."""
    view("11.0.1.0/24")
    directory = tmp_path / "cni-bin"
    directory.mkdir()
    (directory / "host-local").symlink_to(cni_bin / "host-local")
    for delegate in ({}, {"delegate": "host-local"}):
        net = kube_node(binaries, tmp_path, directory, **delegate)
        net.add()
        (directory / "host-local").rename(directory / "gone")
        shutil.rmtree(run_dir)
        net.ok("DEL")
        assert net.reserved() == []
        run_dir.mkdir()
        view("11.0.1.0/24")
        (directory / "gone").rename(directory / "host-local")


def test_gc_releases_what_is_stale(network: NetworkMaker, view: ViewWriter) -> None:
    """GC releases what is not listed, also under host-local, which itself never does; no list: nothing, an empty one: everything."""
    view("11.0.1.0/24", "1100:0:0:1::/64")
    net = network()
    for container in ("c1", "c2", "c3"):
        net.add(container)
    net.ok("GC")
    assert len(net.reserved()) == 6
    more: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}, {"containerID": "c3", "ifname": "net1"}]}
    net.ok("GC", **more)
    assert net.reserved() == ["11.0.1.3", "1100:0:0:1::3"]
    net.gc()
    assert net.reserved() == []
    assert {path.name for path in net.directory.iterdir()} == {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}


def test_status(network: NetworkMaker, view: ViewWriter) -> None:
    """`"statusWhenFull": "error"` is 50 with network, range and count when a family that everybody gets is full."""
    view("11.0.1.0/29", "1100:0:0:1::/64")
    net = network(statusWhenFull="error")
    net.ok("STATUS")
    for number in range(5):
        net.add(f"c{number}")
    error = net.error("STATUS")
    assert (error["code"], error["msg"]) == (50, "network net has no free address in range set 11.0.1.1-11.0.1.6: all 5 are reserved")
    net.ipam["ipv4-namespaces"] = ["few"]
    net.ok("STATUS")
    net.ok("DEL", "c0")
    del net.ipam["ipv4-namespaces"]
    net.ok("STATUS")


@pytest.mark.parametrize(
    "valid",
    [
        "c1",
        {},
        {"containerID": "c1", "ifname": "eth0"},
        [{"containerID": "c1"}],
        [{"containerID": "c1", "name": "eth0"}],
        ["c1"],
        [None],
    ],
)
def test_gc_with_half_a_list(embedded: NetworkMaker, view: ViewWriter, valid: Any) -> None:
    """A list that does not say whose attachments are valid is an error, and releases nobody's address."""
    view("11.0.1.0/24")
    net = embedded()
    net.add()
    assert net.error("GC", **{"cni.dev/valid-attachments": valid})["code"] == 7
    assert net.reserved() == ["11.0.1.2"]


@pytest.mark.ways("standalone", "console")  # no agent outlives a boot
def test_status_after_a_reboot(network: NetworkMaker, view: ViewWriter, tmp_path: Path, run_dir: Path) -> None:
    """A network that was full when the host went down can serve: the runtime that waits for STATUS gets its first ADD through."""
    view("11.0.1.0/30")
    net = network(statusWhenFull="error")
    net.ok("STATUS")
    net.add("c1")
    assert net.error("STATUS")["code"] == 50
    reboot(tmp_path / "networks/.net.note", run_dir=run_dir)
    net.executable = rebooted(net.executable, tmp_path)
    net.ok("STATUS")
    assert net.add("c2") == ["11.0.1.2"]


def test_a_relative_data_dir(embedded: NetworkMaker, view: ViewWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ADD and STATUS refuse a dataDir that would be another directory for each process; a DEL goes well."""
    view("11.0.1.0/24")
    net = embedded(dataDir="networks")
    monkeypatch.chdir(tmp_path)
    for command in ("ADD", "STATUS"):
        error = net.error(command)
        assert (error["code"], "dataDir 'networks' is not an absolute path" in error["msg"]) == (7, True)
    net.ok("DEL")


def test_status_where_ranges_come_with_the_pod(embedded: NetworkMaker) -> None:
    """A host-local whose ranges are the runtime's to give (`ipRanges`) is ready, though STATUS comes without them."""
    net = embedded("host-local", statusWhenFull="error")
    net.ok("STATUS")
    more: dict[str, Any] = {"runtimeConfig": {"ipRanges": [[{"subnet": "10.9.0.0/30"}]]}}
    assert net.add(**more) == ["10.9.0.2"]
    net.ok("STATUS")
    assert net.error("STATUS", **more)["code"] == 50


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation", "host-local"])
def test_status_of_a_full_node(embedded: NetworkMaker, view: ViewWriter, plugin: str) -> None:
    """A full network is no reason to call the node's network not ready, for which its pods would be evicted: STATUS succeeds, and tells."""
    view("11.0.1.0/30", annotations={"example.com/net": 'subnet: "11.0.1.0/30"'})
    of_plugin = {"kube-node": {}, "node-annotation": {"annotation": "example.com/net"}, "host-local": {"subnet": "11.0.1.0/30"}}
    net = embedded(plugin, **of_plugin[plugin])
    net.add()
    full = "network net has no free address in range set 11.0.1.1-11.0.1.2: all 1 are reserved"
    answer = net.call("STATUS")
    assert (answer.code, answer.stdout) == (0, "")
    for how in ("error", "Error"):
        net.ipam.pop("statusWhenFull", None)
        net.ipam["STATUSWHENFULL" if how == "error" else "statusWhenFull"] = how
        error = net.error("STATUS")
        assert error["msg" if how == "error" else "code"] == (full if how == "error" else 999 if plugin == "host-local" else 7)


@pytest.mark.ways("standalone", "console")  # an agent has a log of its own
def test_status_tells_that_a_network_is_full(embedded: NetworkMaker, view: ViewWriter) -> None:
    """Where STATUS succeeds for a full network, a line in the log says which range set is full."""
    view("11.0.1.0/30")
    net = embedded()
    net.add()
    (line,) = map(json.loads, net.call("STATUS").stderr.splitlines())
    assert (line["level"], line["msg"]) == (
        "warning",
        "network net has no free address in range set 11.0.1.1-11.0.1.2: all 1 are reserved",
    )


def test_status_where_nothing_can_be_written(embedded: NetworkMaker, view: ViewWriter, tmp_path: Path) -> None:
    """STATUS says 50 where no reservation could be made, and makes no directory itself."""
    view("11.0.1.0/24")
    net = embedded(dataDir=str(tmp_path / "a/b"))
    net.ok("STATUS")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("")
    net.ipam["dataDir"] = f"{tmp_path}/file/networks"
    error = net.error("STATUS")
    assert (error["code"], error["msg"]) == (50, f"dataDir {tmp_path}/file/networks of network net is below a file, {tmp_path}/file")


def test_status_without_what_an_add_needs(binaries: Path, tmp_path: Path, view: ViewWriter) -> None:
    """STATUS says 50 without subnets, without the delegate; what is wrong with the configuration keeps its own code."""
    view()
    assert kube_node(binaries, tmp_path).error("STATUS")["code"] == 50
    view("11.0.1.0/24")
    assert kube_node(binaries, tmp_path, annotation="none").error("STATUS")["code"] == 50
    assert kube_node(binaries, tmp_path, delegate="none").error("STATUS")["code"] == 50
    assert kube_node(binaries, tmp_path, annotation=5).error("STATUS")["code"] == 7


def test_check_compares_with_prev_result(network: NetworkMaker, view: ViewWriter) -> None:
    """CHECK fails where the runtime believes in an address that is not reserved for this interface."""
    view("11.0.1.0/24")
    net = network()
    answer = net.call("ADD")
    net.ok("CHECK", prevResult=answer.json)
    other = {**answer.json, "ips": [{"address": "11.0.1.77/24"}]}
    error = net.error("CHECK", prevResult=other)
    assert (error["code"], error["msg"]) == (116, "11.0.1.77/24 not reserved for container c1")


def test_check_of_a_chain(network: NetworkMaker, view: ViewWriter) -> None:
    """An address that another plugin of the list has put on another interface is that plugin's to check; one on ours is ours."""
    view("11.0.1.0/24")
    net = network()
    mine = {**net.call("ADD").json["ips"][0], "interface": 1}
    theirs = {"address": "169.254.7.7/22", "interface": 2}
    interfaces = [{"name": "veth1"}, {"name": "eth0", "sandbox": "/x"}, {"name": "v4if0", "sandbox": "/x"}]
    net.ok("CHECK", prevResult={"interfaces": interfaces, "ips": [mine, theirs]})
    for wrong in ({**theirs, "interface": 1}, {"address": theirs["address"]}, {**theirs, "interface": 9}, {**theirs, "interface": []}):
        error = net.error("CHECK", prevResult={"interfaces": interfaces, "ips": [mine, wrong]})
        assert (error["code"], error["msg"]) == (116, "169.254.7.7/22 not reserved for container c1")
    net.ok("CHECK", prevResult={"interfaces": 5, "ips": 5})


def test_nothing_reserved_is_no_error(network: NetworkMaker) -> None:
    """DEL of what was never added succeeds, with no Node and no API server known."""
    net = network()
    net.ok("DEL", "never")
    net.ok("DEL", "never")


def test_a_second_add_is_refused(network: NetworkMaker, view: ViewWriter) -> None:
    """ADD twice without DEL is an error, whoever is the delegate each time, and the pod keeps what it has."""
    view("11.0.1.0/24")
    net = network()
    net.add()
    for delegate in (net.ipam.get("delegate", "embedded"), "embedded"):
        net.ipam["delegate"] = delegate
        error = net.error()
        assert (error["code"], error["msg"].rpartition(": ")[2]) == (
            111,
            "11.0.1.2 has been allocated to c1, duplicate allocation is not allowed",
        )
        assert net.reserved() == ["11.0.1.2"]
    net.ok("DEL")
    assert net.reserved() == []


@pytest.mark.parametrize(
    ("ipam", "issues"),
    [
        ({"ranges": [[{"subnet": "10.0.0.0/24"}]]}, "kube-node takes the subnets from the Node; remove ranges"),
        ({"ipv4-namespaces": "all"}, "ipv4-namespaces is 'all', not a list of strings"),
        (
            {"annotation": "", "kubeconfig": 5, "refreshAfter": -1},
            "kubeconfig is a JSON number, not a string; refreshAfter is -1, not a number of seconds; annotation is empty",
        ),
        ({"dataDir": 7}, "dataDir is a JSON number, not a string"),
        ({"routes": [{"dst": "10.0.0.0"}]}, "route: invalid CIDR address: 10.0.0.0"),
    ],
)
def test_all_issues_at_once(embedded: NetworkMaker, view: ViewWriter, ipam: dict[str, Any], issues: str) -> None:
    """A configuration's issues are all in one error of code 7, and none of them keeps a DEL from working."""
    view("11.0.1.0/24")
    net = embedded()
    net.ipam.update(ipam)
    error = net.error()
    assert (error["code"], error["msg"]) == (7, issues)
    if "dataDir" not in ipam:  # else it would look into the machine's own
        net.ok("DEL")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("annotaton", "annotation"),
        ("annotations", "annotation"),
        ("ipv4_namespaces", "ipv4-namespaces"),
        ("IPv4-Namespace", "ipv4-namespaces"),
        ("ipv6namespaces", "ipv6-namespaces"),
        ("node-file", "nodeFile"),
    ],
)
def test_a_key_that_is_misspelt(embedded: NetworkMaker, view: ViewWriter, key: str, meant: str) -> None:
    """A key without effect would give the pod other addresses, such as another plugin's, or one that its namespace does not get."""
    view("11.0.1.0/24")
    net = embedded()
    net.ipam[key] = ["a"] if "amespace" in key else "example.com/a"
    error = net.error()
    assert (error["code"], error["msg"]) == (7, f"nobody knows {key}, which is like {meant}")
    assert net.reserved() == []
    net.ok("DEL")


@pytest.mark.parametrize("key", ["annotation", "ipv4-namespaces"])
def test_a_key_beside_ipam(embedded: NetworkMaker, view: ViewWriter, key: str) -> None:
    """Beside `ipam` it would have no effect either."""
    view("11.0.1.0/24")
    net = embedded()
    net.netconf[key] = "a"
    error = net.error()
    assert (error["code"], error["msg"]) == (7, f"{key} is beside ipam, where it has no effect: move it into ipam")
    net.ok("DEL")


def test_keys_of_others(embedded: NetworkMaker, view: ViewWriter) -> None:
    """Keys that are like none of these are left to the delegate, or to nobody."""
    view("11.0.1.0/24")
    net = embedded()
    net.ipam |= {"annotator": "a", "nodename": "a", "log_file": "/a", "namespaces": ["a"], "range": "10.0.0.0/24"}
    assert net.add() == ["11.0.1.2"]


@pytest.mark.ways("standalone", "console")  # no agent outlives a boot
@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
def test_after_a_reboot(network: NetworkMaker, view: ViewWriter, plugin: str, tmp_path: Path, run_dir: Path) -> None:
    """The first ADD after a reboot releases what was reserved before it, once, whoever gives the addresses; no note of a boot: nothing."""
    rebooting.wanted()
    view("11.0.1.0/24", annotations={"a": 'ranges: [[{"subnet": "11.0.1.0/24"}]]'})
    net = network(plugin, **({"annotation": "a"} if plugin == "node-annotation" else {}))
    note = net.directory.parent / ".net.note"
    net.add("old")
    note.unlink()
    net.add("kept")
    assert net.reserved() == ["11.0.1.2", "11.0.1.3"]
    reboot(note, run_dir=run_dir)
    net.executable = rebooted(net.executable, tmp_path)
    assert net.add("new") == ["11.0.1.4"]
    assert net.reserved() == ["11.0.1.4"]
    net.add("newer")
    assert net.reserved() == ["11.0.1.4", "11.0.1.5"]
