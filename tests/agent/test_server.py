# SPDX-License-Identifier: Apache-2.0
"""The agent's socket: calls of many pods at once, each answered once, in time, and by the very code that the plugins run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess, answer, request
from flocks import locked, until_waited_for
from ourprocess import KUBE_NODE
from patience import PATIENCE, eventually
from wanting import want

from kubenode.agent import listener, protocol

if TYPE_CHECKING:
    from pathlib import Path

    from podnet import Answer

    from .conftest import NetConfMaker

pytestmark = pytest.mark.slow


def reserved(directory: Path) -> list[str]:
    names = [file.name for file in directory.iterdir()] if directory.is_dir() else []
    return sorted(name for name in names if name != "lock" and not name.startswith("last_reserved_ip."))


def test_a_pods_life(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """Every command of a pod's life is answered as the plugin itself would."""
    conf = netconf()
    added = agent.ask("kube-node", "ADD", conf)
    assert (added.code, added.addresses) == (0, ["10.1.0.2", "fd01::2"])
    assert reserved(data_dir / "net") == ["10.1.0.2", "fd01::2"]
    for command, more in (("CHECK", {"prevResult": added.json}), ("STATUS", {}), ("DEL", {}), ("DEL", {})):
        assert agent.ask("kube-node", command, {**conf, **more})[:2] == (0, "")
    assert reserved(data_dir / "net") == []
    version = agent.ask("kube-node", "VERSION", b"")
    assert (version.code, version.json["supportedVersions"][-1]) == (0, "1.1.0")


def test_gc(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """GC releases what is not valid, of its network alone."""
    for name, ipam in (("net", {}), ("other", {"annotation": "other"})):
        for container in ("a", "b"):
            assert agent.ask("kube-node", "ADD", netconf(name=name, **ipam), container_id=container).code == 0
    valid = {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}
    assert agent.ask("kube-node", "GC", {**netconf(), **valid}).code == 0
    assert reserved(data_dir / "net") == ["10.1.0.2", "fd01::2"]
    assert len(reserved(data_dir / "other")) == 4


@pytest.mark.parametrize("plugin", ["node-annotation", "host-local"])
def test_other_plugins(run_dir: Path, node_file: Path, netconf: NetConfMaker, plugin: str) -> None:
    """One agent serves all three plugins."""
    node = json.loads(node_file.read_text())
    node["metadata"]["annotations"] = {"k": 'ranges: [[{"subnet": "172.16.5.0/24"}]]'}
    node_file.write_text(json.dumps(node))
    ipam = {"annotation": "k"} if plugin == "node-annotation" else {"ranges": [[{"subnet": "172.16.5.0/24"}]]}
    with AgentProcess(run_dir, f"--node-file={node_file}") as agent:
        assert agent.ask(plugin, "ADD", netconf(plugin, **ipam)).addresses == ["172.16.5.2"]
        assert agent.ask(plugin, "DEL", netconf(plugin, **ipam)).code == 0


def test_errors_are_the_plugins(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """A call that fails gets the plugin's own error object."""
    missing = agent.ask("kube-node", "ADD", netconf(annotation="none"))
    assert (missing.code, missing.json["code"], missing.json["msg"]) == (1, 107, "Node n has no annotation none")
    assert agent.ask("kube-node", "ADD", b"{").json["code"] == 6
    assert agent.ask("kube-node", "JUMP", netconf()).json["msg"] == "unknown CNI_COMMAND: JUMP"


def test_not_mine(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """What another plugin has to do, and a plugin that the agent does not know, is to be run by the relay."""
    assert agent.ask("whereabouts", "ADD", netconf()) == (2, "", "")
    for command in ("ADD", "DEL", "CHECK", "GC", "STATUS"):
        assert agent.ask("kube-node", command, netconf(delegate="whereabouts")) == (2, "", ""), command
    assert agent.ask("kube-node", "ADD", netconf(delegate="host-local")) == (2, "", "")


def test_host_locals_files_are_released_without_it(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """DEL, CHECK and GC of a pod that host-local served need no host-local: the files are the same."""
    assert agent.ask("kube-node", "ADD", netconf()).code == 0
    assert agent.ask("kube-node", "CHECK", netconf(delegate="host-local")).code == 0
    assert agent.ask("kube-node", "DEL", netconf(delegate="host-local")).code == 0
    assert reserved(data_dir / "net") == []


@pytest.mark.parametrize(
    "bytes_", [b"", b"kn1", b"kn2\0kube-node\0\0{}", b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"kn1\0kube-node\0CNI_COMMAND=ADD\0"]
)
def test_no_request(agent: AgentProcess, netconf: NetConfMaker, bytes_: bytes) -> None:
    """What is no request gets an error, and the next call is served."""
    with agent.connect() as sock:
        sock.sendall(bytes_)
        sock.shutdown(socket.SHUT_WR)
        refused = answer(sock)
    assert (refused.code, refused.json["code"]) == (1, 4)
    assert agent.ask("kube-node", "ADD", netconf()).code == 0


def test_size(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """4 MiB of standard input are read, one byte more is error 6; a megabyte of variables is no trouble."""
    text = json.dumps(netconf()).encode()
    assert agent.ask("kube-node", "STATUS", text + b" " * ((4 << 20) - len(text))).code == 0
    assert agent.ask("kube-node", "ADD", b" " * ((4 << 20) + 1)).json["msg"] == "stdin has more than 4194304 bytes"
    long = "IgnoreUnknown=1;X=" + "x" * (1 << 20)
    assert agent.ask("kube-node", "ADD", netconf(), container_id="c2", args=long).code == 0
    with agent.connect() as sock:  # somebody who goes on and on
        try:
            for _ in range(16):
                sock.sendall(b" " * (1 << 20))
        except OSError:
            pass
        sock.shutdown(socket.SHUT_WR)
        assert answer(sock).code == 1


def test_byte_by_byte(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """A request may come in any pieces, with others between."""
    with agent.connect() as sock:
        for byte in request("kube-node", "ADD", netconf()):
            sock.sendall(bytes([byte]))
            if byte == 0:
                assert agent.ask("kube-node", "STATUS", netconf()).code == 0
        sock.shutdown(socket.SHUT_WR)
        assert answer(sock).addresses == ["10.1.0.2", "fd01::2"]


def test_many_at_once(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """64 pods at once, over four networks: no address twice, and nothing left after their DELs."""

    def life(number: int) -> list[str]:
        conf, container = netconf(name=f"net{number % 4}", annotation=f"net{number % 4}"), f"c{number}"
        added = agent.ask("kube-node", "ADD", conf, container_id=container)
        assert added.code == 0, added
        if number % 2:
            assert agent.ask("kube-node", "DEL", conf, container_id=container).code == 0
            return []
        return [f"{number % 4} {address}" for address in added.addresses]

    with ThreadPoolExecutor(64) as pool:
        given = [address for addresses in pool.map(life, range(400)) for address in addresses]
    assert len(given) == len(set(given)) == 400
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda n: agent.ask("kube-node", "DEL", netconf(name=f"net{n % 4}"), container_id=f"c{n}"), range(400)))
    assert [reserved(data_dir / f"net{number}") for number in range(4)] == [[]] * 4


def test_a_locked_store_stalls_its_network_alone(hurried_agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """Somebody else has a network's lock: its pods wait, then are told to try again; the others' do not notice. Nothing is left behind."""
    agent = hurried_agent
    answers: list[Answer] = []

    def add(container: str) -> None:
        answers.append(agent.ask("kube-node", "ADD", netconf(), container_id=container))

    assert agent.ask("kube-node", "ADD", netconf(), container_id="before").code == 0
    with locked(data_dir / "net"):
        threads = [threading.Thread(target=add, args=(f"c{number}",)) for number in range(3)]
        begin = time.monotonic()
        answered = 0
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert agent.ask("kube-node", "STATUS", netconf(name="other")).code == 0
            answered += 1
            time.sleep(0.2)
        took = time.monotonic() - begin
    assert 3 < took < PATIENCE
    assert answered > 3  # one would be, where it waited with them
    assert [(told.code, told.json["code"], told.json["msg"]) for told in answers] == [(1, 11, "not done within 4 s")] * 3
    assert agent.ask("kube-node", "ADD", netconf(), container_id="after").addresses == ["10.1.0.3", "fd01::3"]
    assert reserved(data_dir / "net") == ["10.1.0.2", "10.1.0.3", "fd01::2", "fd01::3"]


@pytest.mark.parametrize("sent", [0, 10, -5, None])
def test_a_request_that_has_no_end(hurried_agent: AgentProcess, netconf: NetConfMaker, sent: int | None) -> None:
    """Who does not end a request in time hears that, and nothing of disks or locks."""
    with hurried_agent.connect() as sock:
        sock.sendall(request("kube-node", "ADD", netconf())[:sent])
        told = answer(sock)
    assert (told.code, told.json["code"], told.json["msg"]) == (1, 11, "the request was not complete within 4 s")
    assert "lock" not in told.stdout


def test_nobody_waits_any_more(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path, run_dir: Path) -> None:
    """An ADD whose relay is gone reserves nothing, so that a DEL that has passed already was the last of it."""
    assert agent.ask("kube-node", "ADD", netconf(), container_id="before").code == 0
    with locked(data_dir / "net"):
        for number in range(3):
            with agent.connect() as sock:
                sock.sendall(request("kube-node", "ADD", netconf(), container_id=f"c{number}"))
                sock.shutdown(socket.SHUT_WR)
                until_waited_for(data_dir / "net")
    assert agent.ask("kube-node", "STATUS", netconf()).code == 0  # waits for what is before it
    assert reserved(data_dir / "net") == ["10.1.0.2", "fd01::2"]
    assert [path.name for path in (run_dir / "attachments").iterdir()] == ["net:before:eth0"]


def test_who_may_ask(agent: AgentProcess, run_dir: Path) -> None:
    """The socket is its owner's alone; another user who comes through nonetheless is refused."""
    assert agent.socket.stat().st_mode & 0o777 == 0o600
    want("root", "setpriv")
    for path in (agent.socket, *run_dir.parents, run_dir):
        path.chmod(path.stat().st_mode | 0o777 if path == agent.socket else path.stat().st_mode | 0o055)
    program = f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({str(agent.socket)!r})\nprint(s.recv(999)[1:].decode())"
    command = ["setpriv", "--reuid=65534", "--clear-groups", os.path.realpath(sys.executable), "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["msg"] == "user 65534 may not use the agent"


def test_sigterm(agent: AgentProcess, netconf: NetConfMaker, data_dir: Path) -> None:
    """On SIGTERM the socket's path goes, who has asked gets his answer, and the agent ends with 0."""
    with agent.connect() as sock, agent.connect() as slow:
        asked = request("kube-node", "ADD", netconf(), container_id="slow")
        slow.sendall(asked[:10])
        with locked(data_dir / "net"):
            sock.sendall(request("kube-node", "ADD", netconf()))
            sock.shutdown(socket.SHUT_WR)
            until_waited_for(data_dir / "net")
            assert agent.process
            agent.process.terminate()
            eventually(lambda: not agent.socket.exists())
            with pytest.raises(FileNotFoundError):
                agent.connect()
        assert answer(sock).addresses == ["10.1.0.2", "fd01::2"]
        slow.sendall(asked[10:])
        slow.shutdown(socket.SHUT_WR)
        assert answer(slow).addresses == ["10.1.0.3", "fd01::3"]
    assert agent.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("passed_on", [False, True])
def test_sigterm_without_the_sockets_path(
    agent: AgentProcess, node_file: Path, run_dir: Path, netconf: NetConfMaker, data_dir: Path, *, passed_on: bool
) -> None:
    """Where somebody has removed the socket's path, who has asked before gets his answer all the same, and the agent ends with 0."""
    if passed_on:
        assert agent.stop() == 0
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(agent.socket))
            listener.listen(16)
            agent.process = activate(listener, f"--run-dir={run_dir}", f"--node-file={node_file}", "--listen=none")
            assert agent.ask("kube-node", "VERSION", b"").code == 0
    with agent.connect() as sock:
        with locked(data_dir / "net"):
            sock.sendall(request("kube-node", "ADD", netconf()))
            sock.shutdown(socket.SHUT_WR)
            until_waited_for(data_dir / "net")
            agent.socket.unlink()
            assert agent.process
            agent.process.terminate()
            time.sleep(0.5)
        assert answer(sock).addresses == ["10.1.0.2", "fd01::2"]
    assert agent.process.wait(PATIENCE) == 0


def test_a_second_agent(agent: AgentProcess, node_file: Path, run_dir: Path, netconf: NetConfMaker) -> None:
    """A second agent on one socket ends and names the first, which goes on."""
    done = subprocess.run(
        [KUBE_NODE, "agent", f"--run-dir={run_dir}", f"--node-file={node_file}", "--listen=none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert agent.process
    assert (done.returncode, done.stdout) == (69, "")
    assert f"another agent, process {agent.process.pid}, serves {agent.socket}" in done.stderr
    assert agent.ask("kube-node", "ADD", netconf()).code == 0


def test_the_longest_path(node_file: Path, run_dir: Path) -> None:
    """An agent serves at the longest path that it can; of one byte more it says which it is, and what to do."""
    longest = run_dir / ("x" * (listener.LONGEST - len(str(run_dir)) - 1))
    options = (f"--node-file={node_file}", "--listen=none", f"--socket={longest}")
    with AgentProcess(run_dir, *options, socket_path=longest) as agent:
        assert agent.ask("kube-node", "VERSION", b"").code == 0
    command = [str(KUBE_NODE), "agent", f"--run-dir={run_dir}", *options[:2], f"--socket={longest}x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, f"{longest}x has more than {listener.LONGEST} bytes" in done.stderr, "--socket" in done.stderr) == (
        69,
        True,
        True,
    )


def test_a_stale_socket(agent: AgentProcess, netconf: NetConfMaker) -> None:
    """What a killed agent has left behind is replaced, and its reservations are known to the next."""
    assert agent.ask("kube-node", "ADD", netconf()).code == 0
    agent.kill()
    assert agent.socket.exists()
    agent.start()
    assert agent.ask("kube-node", "ADD", netconf(), container_id="c2").addresses == ["10.1.0.3", "fd01::3"]
    assert agent.ask("kube-node", "DEL", netconf()).code == 0
    assert agent.stop() == 0
    assert not agent.socket.exists()


def test_a_changed_manifest(agent: AgentProcess, node_file: Path, netconf: NetConfMaker) -> None:
    """A Node manifest that changes serves the next ADDs; one that is broken leaves the last in place, and the log says so."""
    manifest = json.loads(node_file.read_text())
    manifest["metadata"]["annotations"] = {"k": "172.20.0.0/24"}
    assert agent.ask("kube-node", "ADD", netconf(annotation="k")).json["code"] == 107
    node_file.write_text(json.dumps(manifest))
    eventually(lambda: agent.ask("kube-node", "ADD", netconf(annotation="k")).code == 0)
    node_file.write_text("{")
    eventually(lambda: "cannot use the Node manifest" in agent.log())
    assert agent.ask("kube-node", "ADD", netconf(annotation="k"), container_id="c2").addresses == ["172.20.0.3"]


def test_a_view_written_by_hand(run_dir: Path, node_file: Path, netconf: NetConfMaker) -> None:
    """A Node view that a person has written is served and never replaced; nobody asks an API server."""
    view = run_dir / "node.json"
    view.write_text(node_file.read_text())
    with AgentProcess(run_dir) as agent:
        assert agent.ask("kube-node", "ADD", netconf()).addresses == ["10.1.0.2", "fd01::2"]
        assert view.read_text() == node_file.read_text()


def test_the_view_for_who_runs_without_agent(agent: AgentProcess, run_dir: Path, netconf: NetConfMaker) -> None:
    """The agent's Node is the Node view of plugins that run without it."""
    eventually((run_dir / "node.json").exists)
    agent.kill()
    environ = {**os.environ, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0"}
    done = subprocess.run([KUBE_NODE], input=json.dumps(netconf()), env=environ, capture_output=True, text=True, check=True)
    assert [ip["address"] for ip in json.loads(done.stdout)["ips"]] == ["10.1.0.2/16", "fd01::2/64"]
    assert sys.executable  # the same interpreter


def activate(listener: socket.socket, *options: str) -> subprocess.Popen[bytes]:
    """Start an agent with this socket, as systemd would."""
    script = 'exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", str(KUBE_NODE), "agent", *options], stdin=listener.fileno(), stderr=subprocess.DEVNULL
    )


def test_a_socket_that_is_passed_on(run_dir: Path, node_file: Path, netconf: NetConfMaker) -> None:
    """With a socket of systemd's a call that comes while no agent runs waits for the next one."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir / "agent.sock"))
        listener.listen(16)
        for number in range(2):
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.settimeout(30)
                waiting.connect(str(run_dir / "agent.sock"))
                waiting.sendall(request("kube-node", "ADD", netconf(), container_id=f"c{number}"))
                waiting.shutdown(socket.SHUT_WR)
                agent = activate(listener, f"--run-dir={run_dir}", f"--node-file={node_file}", "--listen=none")
                assert answer(waiting).addresses == [f"10.1.0.{number + 2}", f"fd01::{number + 2}"]
                agent.terminate()
                assert agent.wait(20) == 0
        assert (run_dir / "agent.sock").exists()


def test_frame_and_parse() -> None:
    """What is framed is parsed again, whatever bytes there are."""
    asked = protocol.Asked("kube-node", {"CNI_COMMAND": "ADD", "CNI_ARGS": "a=b;\udcff", "CNI_PATH": ""}, b"\0\0{}\xff")
    assert protocol.parse(protocol.frame(asked)) == asked
    assert protocol.parse(protocol.frame(protocol.Asked("x", {}, b""))) == ("x", {}, b"")
