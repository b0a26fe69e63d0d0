# SPDX-License-Identifier: Apache-2.0
"""A network configuration that a tenant has written (a NetworkAttachmentDefinition), in all three ways of running a plugin.

It gets no program run as root, no file of the host written or shown, no address of another network, and no other network a false Node.
"""

from __future__ import annotations

import json
import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from administrator import allow
from callplugin import environment, execute, hurried
from patience import eventually
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from callplugin import NetworkMaker, ViewWriter

SECRET = "s3cr3t"
WITHOUT_AGENT = pytest.mark.ways("standalone", "console")  # an agent has a kubeconfig of its own


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: ViewWriter) -> Path:
    """Return the one directory that the administrator allows, for all keys; the Node has podCIDRs."""
    view("10.1.0.0/24")
    directory = tmp_path / "etc"
    directory.mkdir()
    where = [str(directory)]
    path = allow(directory / "kube-node.conf", kubeconfig=where, nodeFile=where, logfile=where, resolvConf=where)
    monkeypatch.setenv("KUBE_NODE_CONF", str(path))
    return directory


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    return directory


def script(path: Path, marker: Path) -> str:
    path.write_text(f"#!/bin/sh\necho $(id -u) >{marker}\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def test_a_delegate_is_not_a_path(etc: Path, outside: Path, embedded: NetworkMaker) -> None:
    """Root is not to be had by `delegate`: a path is an error, no program is run, and a DEL works."""
    del etc
    net = embedded(delegate=script(outside / "evil", outside / "ran"))
    error = net.error()
    assert (error["code"], error["msg"]) == (7, f"delegate '{outside}/evil' is a path: give the name of a plugin in CNI_PATH")
    net.call("DEL")
    assert not (outside / "ran").exists()
    assert embedded(delegate=f"{outside}/host-local").call("DEL").code == 0


def kubeconfig(path: Path, server: str, user: dict[str, Any] | None = None) -> str:
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(json.dumps(content))
    return str(path)


def test_a_kubeconfig_runs_nothing(etc: Path, outside: Path, run_dir: Path, embedded: NetworkMaker) -> None:
    """Root is not to be had by a kubeconfig with a credential plugin; the error says what an administrator has to write for it."""
    (run_dir / "node.json").unlink()
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": script(outside / "evil", outside / "ran")}
    named = kubeconfig(outside / "kubeconfig", "http://127.0.0.1:1", {"exec": plugin})
    for path in (named, f"{etc}/../outside/kubeconfig"):
        net = embedded()
        net.ipam["kubeconfig"] = path  # not the agent's own
        error = net.error()
        assert error["code"] == 120
        assert f"kubeconfig {path!r}" in error["msg"]
        assert f'{{"allow": {{"kubeconfig": ["{etc}", "{outside}"]}}}} in {etc}/kube-node.conf' in error["details"]
        assert net.error("STATUS")["code"] == 50
        net.ok("DEL")
    assert not (outside / "ran").exists()


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
@pytest.mark.parametrize("how", ["path", "dots", "link", "directory link"])
def test_a_log_goes_nowhere_else(etc: Path, outside: Path, embedded: NetworkMaker, view: ViewWriter, plugin: str, how: str) -> None:
    """`logfile` makes no file and writes to none but where it may, also not through links; a DEL works, and does not log there either."""
    view("10.1.0.0/24", annotations={"a": 'ranges: [[{"subnet": "10.1.0.0/24"}]]'})
    (etc / "log").symlink_to(outside / "ld.so.preload")
    (etc / "directory").symlink_to(outside)
    path = {
        "path": f"{outside}/ld.so.preload",
        "dots": f"{etc}/../outside/ld.so.preload",
        "link": f"{etc}/log",
        "directory link": f"{etc}/directory/ld.so.preload",
    }[how]
    more = {"annotation": "a"} if plugin == "node-annotation" else {}
    net = embedded(plugin, logfile=path, loglevel="trace", **more)
    error = net.error()
    assert error["code"] == 120
    assert f"logfile {path!r}" in error["msg"]
    net.ok("DEL")
    assert list(outside.iterdir()) == []
    embedded(plugin, logfile=f"{etc}/my.log", loglevel="trace", **more).add()
    mine = etc / "my.log"
    eventually(lambda: mine.exists() and "10.1.0.2" in mine.read_text())


@pytest.mark.parametrize("name", [".net.note", "net/10.1.0.2"])
def test_a_log_changes_no_reservation(etc: Path, embedded: NetworkMaker, name: str) -> None:
    """Neither a boot marker nor another pod's reservation can be the log."""
    del etc
    if name == ".net.note":
        want("machine-id")
    net = embedded()
    net.add("victim")
    file = net.directory.parent / name
    before = file.read_bytes()
    attacker = embedded(logfile=str(file), loglevel="trace")
    assert attacker.error("ADD", "attacker")["code"] == 120
    attacker.ok("DEL", "attacker")
    assert file.read_bytes() == before
    assert net.reserved() == ["10.1.0.2"]


@pytest.mark.parametrize(
    "text",
    [
        f"root:{SECRET}:19000:0:99999:7:::\ndaemon:*:19000:\n",
        f"kind: {SECRET}\n",
        f"metadata: {SECRET}\n",
        f"metadata: {{name: n}}\nspec: {{podCIDRs: {SECRET}}}\n",
        f"1 {SECRET}\n",
        f"key: [{SECRET}\n",
        f"%{SECRET}\n",
        f"a: *{SECRET}\n",
    ],
)
def test_a_file_is_not_shown(etc: Path, embedded: NetworkMaker, text: str) -> None:
    """An error of a `nodeFile` that is no Node manifest shows nothing of it: it may be root's /etc/shadow."""
    (etc / "shadow").write_text(text)
    answer = embedded(nodeFile=f"{etc}/shadow").call("ADD")
    assert answer.json["code"] == 106
    assert f"{etc}/shadow" in answer.json["msg"]
    assert SECRET not in answer.stdout + answer.stderr


@pytest.mark.parametrize("text", [f"root:{SECRET}:19000:\nx: y\n", f"a: [{SECRET}\n", f"b: *{SECRET}\n", f"c: !!int {SECRET}\n"])
@WITHOUT_AGENT
def test_a_kubeconfig_is_not_shown(etc: Path, run_dir: Path, embedded: NetworkMaker, text: str) -> None:
    """Nor does that of a kubeconfig that is no YAML."""
    (run_dir / "node.json").unlink()
    (etc / "shadow").write_text(text)
    answer = embedded(kubeconfig=f"{etc}/shadow").call("ADD")
    assert answer.json["code"] == 101
    assert SECRET not in answer.stdout + answer.stderr


@pytest.mark.parametrize("what", ["elsewhere", "device", "fifo", "large"])
def test_a_node_file(etc: Path, outside: Path, embedded: NetworkMaker, what: str) -> None:
    """A `nodeFile` is a regular file of at most 1 MiB where it may be; nothing else is read, or waited for."""
    path = {"elsewhere": outside / "node", "device": etc / "zero", "fifo": etc / "fifo", "large": etc / "large"}[what]
    if what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text('{"kind": "Node"}' + " " * (1 << 20))
    error = embedded(nodeFile=str(path)).error()
    assert error["code"] == {"elsewhere": 120, "device": 120, "fifo": 106, "large": 106}[what]
    assert str(path) in error["msg"]


@pytest.mark.parametrize("plugin", ["kube-node", "node-annotation"])
def test_resolv_conf(etc: Path, outside: Path, embedded: NetworkMaker, view: ViewWriter, plugin: str) -> None:
    """`resolvConf` is a regular file of at most 64 KiB where it may be, whether the configuration names it or the annotation."""
    (outside / "conf").write_text(f"nameserver {SECRET}\n")
    (etc / "link").symlink_to(outside / "conf")
    os.mkfifo(etc / "fifo")
    (etc / "large").write_text("#" * 65537)
    (etc / "good").write_text("nameserver 192.0.2.1\n")
    cases = {outside / "conf": 120, etc / "link": 120, etc / "fifo": 5, etc / "large": 5, etc / "good": 0}
    view("10.1.0.0/24", annotations={path.name: f'ranges: [[{{"subnet": "10.1.0.0/24"}}]], resolvConf: "{path}"' for path in cases})
    for path, code in cases.items():
        net = embedded(plugin, **({"resolvConf": str(path)} if plugin == "kube-node" else {"annotation": path.name}))
        if plugin == "node-annotation":
            net.netconf["name"] = path.name
        answer = net.call("ADD")
        assert answer.json.get("code", 0) == code, answer.stdout
        assert SECRET not in answer.stdout
        net.ok("DEL")


def test_resolv_conf_of_the_drop_in(etc: Path, outside: Path, embedded: NetworkMaker) -> None:
    """host-local under its own name reads any resolvConf, as the reference does, but waits for none that is no file, or has no end."""
    del etc
    (outside / "conf").write_text("nameserver 192.0.2.1\n")
    os.mkfifo(outside / "fifo")
    ranges = [[{"subnet": "10.1.0.0/24"}]]
    assert embedded("host-local", ranges=ranges, resolvConf=f"{outside}/conf").call("ADD").json["dns"] == {"nameservers": ["192.0.2.1"]}
    for path in (f"{outside}/fifo", "/dev/zero"):
        assert embedded("host-local", ranges=ranges, resolvConf=path).error("ADD", "c2")["code"] == 5


FAULTS: dict[str, Callable[[Path], object]] = {
    "is not a file that root alone can change": lambda path: os.chown(path, 12345, -1),
    "mode 0666": lambda path: path.chmod(0o666),
    "is not JSON": lambda path: path.write_text("{"),
    "unknown key 'logFile'": lambda path: path.write_text('{"allow": {"logFile": ["/"]}}'),
    "logfile is '/'": lambda path: path.write_text('{"allow": {"logfile": "/"}}'),
    "there is no file": lambda path: path.unlink(),
}


@pytest.mark.parametrize("problem", FAULTS)
def test_the_administrators_file(etc: Path, embedded: NetworkMaker, problem: str) -> None:
    """A file that others can change, or that is wrong, allows nothing and says so; what names nothing on the host, and a DEL, go on."""
    want("root")
    FAULTS[problem](etc / "kube-node.conf")
    net = embedded(logfile=f"{etc}/log")
    error = net.error()
    assert error["code"] == 115
    assert problem in error["msg"]
    assert f"{etc}/kube-node.conf" in error["msg"]
    net.ok("DEL")
    assert not (etc / "log").exists()
    assert embedded().add() == ["10.1.0.2"]


def test_the_administrators_file_changes(etc: Path, outside: Path, embedded: NetworkMaker) -> None:
    """What the administrator writes counts from the next call on."""
    net = embedded(logfile=f"{outside}/log")
    assert net.error()["code"] == 120
    allow(etc / "kube-node.conf", logfile=[str(etc), str(outside)])
    net.add()
    eventually((outside / "log").exists, "no log")
    allow(etc / "kube-node.conf", logfile=[])
    assert net.error("ADD", "c2")["code"] == 120


class Server(HTTPServer):
    """An API server with one Node."""

    def __init__(self, *pod_cidrs: str) -> None:
        self.node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}, "spec": {"podCIDRs": pod_cidrs}}
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(self.server.node).encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    both = Server("10.1.0.0/24"), Server("10.66.0.0/24")
    yield both
    for server in both:
        server.shutdown()
        server.server_close()


@WITHOUT_AGENT
def test_no_false_node_for_others(
    etc: Path, run_dir: Path, servers: tuple[Server, Server], embedded: NetworkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one kubeconfig's API server says of the Node is for who has that kubeconfig, in whatever order they come."""
    (run_dir / "node.json").unlink()
    monkeypatch.setenv("NODE_NAME", "n")
    good, false = (kubeconfig(etc / f"{number}.conf", server.url) for number, server in enumerate(servers))
    honest, attacker = embedded(kubeconfig=good, refreshAfter=300), embedded(kubeconfig=false, refreshAfter=0)
    attacker.netconf["name"] = "attacker"
    assert honest.add("c1") == ["10.1.0.2"]
    attacker.call("ADD", "a1")
    assert honest.add("c2") == ["10.1.0.3"]
    attacker.call("ADD", "a2")
    for server in servers:
        server.shutdown()
        server.server_close()
    assert honest.add("c3") == ["10.1.0.4"]


@pytest.mark.parametrize("name", ["10.1.0.7", "lock", "last_reserved_ip.0"])
@pytest.mark.parametrize("plugin", ["kube-node", "host-local"])
def test_a_network_is_not_called_as_a_file(etc: Path, embedded: NetworkMaker, plugin: str, name: str) -> None:
    """A network inside of another one's directory would take its addresses, or its lock: its name and its dataDir are refused."""
    del etc
    ranges = [[{"subnet": "10.1.0.0/24"}]]
    victim = embedded()
    assert victim.add() == ["10.1.0.2"]
    inside = embedded(plugin, dataDir=str(victim.directory), **({"ranges": ranges} if plugin == "host-local" else {}))
    for called in (name, "innocent"):
        inside.netconf["name"] = called
        assert inside.error()["code"] == (999 if plugin == "host-local" else 7)
        inside.call("DEL")
    assert {path.name for path in victim.directory.iterdir()} == {"lock", "last_reserved_ip.0", "10.1.0.2"}
    assert victim.add("c2") == ["10.1.0.3"]


def test_a_directory_among_other_files(etc: Path, run_dir: Path, embedded: NetworkMaker) -> None:
    """No network's directory is made where a file is looked for by its name: /etc/cni/kube-node.conf would keep all others' logs away."""
    for data_dir, name in (("/etc/cni", "kube-node.conf"), (str(run_dir), "nodename"), (f"{etc}/../{run_dir.name}/x", "y")):
        net = embedded(dataDir=data_dir)
        net.netconf["name"] = name
        error = net.error("ADD")
        assert (error["code"], "which is for other files" in error["msg"]) == (7, True)
        assert not os.path.isdir(os.path.join(data_dir, name))
        net.ok("DEL")


def test_a_directory_that_is_something_else(etc: Path, embedded: NetworkMaker) -> None:
    """A directory that has other networks in it, or other files, does not become a network's."""
    victim = embedded()
    victim.add()
    for directory in (victim.directory.parent, etc):
        net = embedded(dataDir=str(directory.parent))
        net.netconf["name"] = directory.name
        error = net.error()
        assert (error["code"], "so it is no network's directory" in error["msg"]) == (7, True)
        assert not (directory / "lock").exists()
    assert "is not an absolute path" in embedded(dataDir="networks").error()["msg"]
    assert victim.add("c2") == ["10.1.0.3"]


@pytest.mark.parametrize("plugin", ["kube-node", "host-local"])
def test_control_characters(etc: Path, embedded: NetworkMaker, plugin: str) -> None:
    """An interface, an annotation, a path with control characters are refused, and the error shows none; a DEL goes on."""
    del etc
    net = embedded(plugin, ranges=[[{"subnet": "10.1.0.0/24"}]])
    for character in ("\x1b", "\x07", "\x7f", "\u009b"):
        env = {"CNI_IFNAME": f"e{character}[2J"}
        assert net.error(env=env)["code"] == 4
        assert net.call("DEL", env=env).code == 0
    if plugin == "kube-node":
        for key in ("annotation", "dataDir", "logfile", "nodeFile", "kubeconfig", "delegate"):
            answer = embedded(**{key: "/x\x1b]0;pwned\x07"}).call("ADD")
            assert answer.json["code"] == 7
            assert "\x1b" not in answer.json["msg"] + answer.json["details"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"runtimeConfig": {"x": "y" * (1 << 20)}}, "more than 1048576"),
        ({"runtimeConfig": {"ipRanges": [[{"subnet": f"10.{n}.0.0/24"}] for n in range(256)]}}, "257 ranges, more than 256"),
        ({"args": {"cni": {"ips": ["10.1.0.9"] * 1001}}}, "ips has 1001 entries, more than 1000"),
        ({"exclude": ["10.1.0.9"] * 1001}, "exclude has 1001 entries, more than 1000"),
        ({"routes": [{"dst": "10.0.0.0/8"}] * 1001}, "routes has 1001 entries, more than 1000"),
        ({"ipv4-namespaces": ["a"] * 1001}, "ipv4-namespaces has 1001 names, more than 1000"),
        ({"other": "y" * 65536}, "the attachment's record (ipam, pod) has "),
    ],
)
def test_bounds(etc: Path, embedded: NetworkMaker, more: dict[str, Any], told: str) -> None:
    """What a configuration makes us work through and remember is bounded; the error says by how much it is over. A DEL goes on."""
    del etc
    top = {key: more[key] for key in ("runtimeConfig", "args") if key in more}
    net = embedded(**{key: value for key, value in more.items() if key not in top})
    error = net.error(**top)
    assert (error["code"], told in error["msg"]) == (7, True), error
    assert net.reserved() == []
    net.ok("DEL", **top)


@pytest.mark.ways("standalone")  # an agent runs no other plugin
def test_a_delegate_that_hangs(etc: Path, outside: Path, embedded: NetworkMaker, tmp_path: Path) -> None:
    """What a delegate has started ends with the call's time, and so does the delegate."""
    del etc
    path = outside / "slow"
    path.write_text(f"#!/bin/sh\necho $$ >>{outside}/pids\nsleep 300 &\necho $! >>{outside}/pids\nwait\n")
    path.chmod(0o755)
    net = embedded(delegate="slow")
    net.path = [outside]
    error = execute(hurried(tmp_path / "kube-node", 3.0), {**net.netconf, "ipam": net.ipam}, environment("ADD", path=net.path)).json
    assert (error["code"], error["msg"]) == (11, "not done within 3 s")
    for pid in (outside / "pids").read_text().split():
        eventually(partial(has_ended, pid), f"process {pid} goes on")


def has_ended(pid: str) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
