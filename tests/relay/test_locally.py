# SPDX-License-Identifier: Apache-2.0
"""Where there is no agent, and where a person runs it: the relay becomes the standalone."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from effort import examples
from fakeagent import FakeAgent, answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import PATIENCE
from relayplace import LOCAL, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relayplace import Done

ALL = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]
TOO_LONG = "File ?name too long"  # as musl and as glibc have it
SIGPIPE_IGNORED = 1 << (13 - 1)


def nothing(_: Path) -> None:
    pass


def nobody_listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind(str(path))


NO_AGENT = [
    (nothing, "No such file or directory"),
    (nobody_listens, "Connection refused"),
    (Path.touch, "Connection refused"),
]


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize(("make", "_said"), NO_AGENT)
def test_no_agent(place: Place, command: str, make: object, _said: str) -> None:
    """Without an agent the standalone is run, with the same stdin."""
    assert callable(make)
    make(place.socket)
    assert place.call(command, b"some\0input") == (0, LOCAL, b"")
    assert place.got() == b"some\0input"


def test_nothing_of_stdin_is_read(place: Place) -> None:
    """Without an agent stdin is the standalone's, untouched, also while it has no end."""
    place.becomes("head -c 3")
    with subprocess.Popen([place.relay], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place.environment("ADD")) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"abcdef")
        process.stdin.flush()
        assert process.stdout.read() == b"abc"
        process.stdin.close()
        assert process.wait() == 0


def test_its_answer_is_the_answer(place: Place) -> None:
    """Exit code, stdout and stderr are the standalone's."""
    place.becomes("echo error >&2; echo '{}'; exit 3")
    assert place.call() == (3, b"{}\n", b"error\n")


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize(("make", "said"), NO_AGENT)
def test_neither(place: Place, command: str, make: object, said: str) -> None:
    """Without agent and standalone the error names both paths, what is wrong with each, and what to do; STATUS: not available."""
    assert callable(make)
    make(place.socket)
    place.standalone.unlink()
    done = place.call(command)
    assert done.code == 1
    assert json.loads(done.stdout) == {
        "cniVersion": "1.1.0",
        "code": 50 if command == "STATUS" else 11,
        "msg": f"no agent at {place.socket} ({said}), and {place.standalone} cannot be run: No such file or directory",
        "details": "start the agent, or install PLUGIN.standalone, kube-node.lib and the Python that they were built with",
    }


@pytest.mark.parametrize("command", ["ADD", "STATUS"])
@pytest.mark.parametrize(("make", "_said"), NO_AGENT[:2])
def test_an_agent_that_is_being_replaced(binaries: Path, tmp_path: Path, command: str, make: object, _said: str) -> None:
    """Where nobody else can serve, ADD and STATUS wait for the next agent: a node is not called not ready in each rollout."""
    assert callable(make)
    place = Place(tmp_path / "bin", binaries / "kube-node")  # whose seconds are seconds
    place.standalone.unlink()
    make(place.socket)
    with subprocess.Popen([place.relay], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place.environment(command)) as relay:
        time.sleep(0.5)  # for the relay to find none; where it is slower it finds one at once
        place.socket.unlink(missing_ok=True)
        with FakeAgent(place.socket, answer(b"\0{}\n")):
            stdout, _ = relay.communicate(b"{}", timeout=PATIENCE)
    assert (relay.returncode, stdout) == (0, b"{}\n")


def test_a_standalone_that_cannot_be_run(place: Place) -> None:
    """Not executable, or without its interpreter: the error says so."""
    place.standalone.chmod(0o644)
    assert json.loads(place.call().stdout)["msg"].endswith("cannot be run: Permission denied")
    place.standalone.chmod(0o755)
    place.standalone.write_text("#!/no/python3\n")
    assert json.loads(place.call().stdout)["msg"].endswith("cannot be run: No such file or directory")


def test_which_socket(place: Place) -> None:
    """KUBE_NODE_SOCKET, else agent.sock in KUBE_NODE_RUN_DIR, else in /run/kube-node; what is empty is not set."""

    def told(**env: str) -> bytes:
        place.standalone.unlink(missing_ok=True)
        return place.call(env=env).stderr.partition(b" agent at ")[2].partition(b".\n")[0]

    assert told(KUBE_NODE_SOCKET="/a/b", KUBE_NODE_RUN_DIR="/c") == b"/a/b"
    assert told(KUBE_NODE_RUN_DIR="/c", KUBE_NODE_SOCKET="") == b"/c/agent.sock"
    assert told(KUBE_NODE_RUN_DIR="") == told() == b"/run/kube-node/agent.sock"


def test_the_run_directory(place: Place, tmp_path: Path) -> None:
    """The agent in KUBE_NODE_RUN_DIR is asked."""
    with FakeAgent(tmp_path / "agent.sock", answer(b"\0")):
        assert place.call(env={"CNI_COMMAND": "DEL", "KUBE_NODE_RUN_DIR": str(tmp_path)}) == (0, b"", b"")


@pytest.mark.parametrize("length", [107, 108, 200, 5000, 100_000])
@pytest.mark.parametrize("name", ["KUBE_NODE_SOCKET", "KUBE_NODE_RUN_DIR"])
def test_a_path_too_long(place: Place, name: str, length: int) -> None:
    """A path that is too long for a socket has no agent."""
    env = {"CNI_COMMAND": "ADD", name: "/" + "x" * (length - 1), "PATH": os.defpath}
    assert place.call(env=env) == (0, LOCAL, b"")
    place.standalone.unlink()
    done = place.call(env=env)
    long = length > 107 or name == "KUBE_NODE_RUN_DIR"
    assert bool(re.search(TOO_LONG, json.loads(done.stdout)["msg"].partition(")")[0])) == long


def test_through_a_symbolic_link(place: Place, tmp_path: Path) -> None:
    """The standalone is looked for beside the link, then beside what it points to."""
    link = tmp_path / "elsewhere/kube-node"
    link.parent.mkdir()
    link.symlink_to(place.relay)
    assert place.call(argv0=str(link)) == (0, LOCAL, b"")
    beside = link.with_name("kube-node.standalone")
    beside.write_text("#!/bin/sh\necho beside\n")
    beside.chmod(0o755)
    assert place.call(argv0=str(link)) == (0, b"beside\n", b"")
    assert place.call(argv0="kube-node") == (0, LOCAL, b"")
    assert place.call(argv0="./kube-node") == (0, LOCAL, b"")


def test_another_name(place: Place) -> None:
    """Under another name it becomes that one's standalone."""
    shutil.copy(place.standalone, place.directory / "other.standalone")
    place.standalone.unlink()
    assert place.call(argv0=f"{place.directory}/other") == (0, LOCAL, b"")
    for argv0 in ("", f"{place.directory}/"):
        assert "kube-node.standalone cannot be run" in json.loads(place.call(argv0=argv0).stdout)["msg"]
    assert re.search(TOO_LONG + "$", json.loads(place.call(argv0="x" * 5000).stdout)["msg"])
    assert f"{place.directory}/x.standalone cannot be run" in json.loads(place.call(argv0="/x" * 3000).stdout)["msg"]


@pytest.mark.parametrize("arguments", [("--help",), ("try", "--node", "a b"), ("",)])
def test_arguments_are_the_standalones(place: Place, arguments: tuple[str, ...]) -> None:
    """With arguments a person runs it: the standalone gets them, the agent is not asked, nothing is read from stdin."""
    with FakeAgent(place.socket, answer(b"\0")) as agent:
        place.becomes("head -c 1; exit 7")
        assert place.call("ADD", b"stdin", *arguments) == (7, b"s", b"")
        assert (place.directory / "arguments").read_text() == "".join(f"{argument}|" for argument in arguments)
        for env in (place.environment(""), {**place.environment(""), "CNI_COMMAND": ""}):
            assert place.call(stdin=b"stdin", env=env).code == 7
    assert agent.calls == 0


def test_its_own_version(place: Place) -> None:
    """Without a standalone it can still say its version."""
    place.standalone.unlink()
    assert place.call("", b"", "--version") == (0, b"1.2.3-short\n", b"")


@pytest.mark.parametrize("arguments", [(), ("status",)])
def test_by_hand_without_a_standalone(place: Place, arguments: tuple[str, ...]) -> None:
    """A person learns what this is, and where its commands should be."""
    place.standalone.unlink()
    done = place.call("", b"", *arguments)
    assert (done.code, done.stdout) == (1, b"")
    assert done.stderr.decode() == (
        f"kube-node of kube-node 1.2.3-short: passes what a container runtime asks on to the agent at {place.socket}.\n"
        f"The commands are in {place.standalone}, which cannot be run: No such file or directory\n"
    )


def ways(place: Place, script: str, around: str = '"$relay"') -> Iterator[Done]:
    """Let the standalone do this by all three ways to it: no agent, answer 2, agent gone."""
    place.becomes(script)
    yield place.sh("DEL", around)
    for said in (b"\2", b""):
        with FakeAgent(place.socket, answer(said)):
            yield place.sh("DEL", around)


def test_signals(place: Place) -> None:
    """The standalone starts with SIGPIPE as the relay did."""
    for done in ways(place, "exec grep SigIgn: /proc/self/status"):
        assert not int(done.stdout.split()[1], 16) & SIGPIPE_IGNORED


def test_open_files(place: Place) -> None:
    """The standalone has no more files open than the relay had."""
    for done in ways(place, "exec ls -l /proc/self/fd"):
        assert len([line for line in done.stdout.splitlines() if b" -> " in line]) == 4  # one is the directory
        assert b"socket" not in done.stdout


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_closed_files_stay_closed(place: Place, closed: str) -> None:
    """What is opened never becomes stdin, stdout or stderr: those that were closed still are for the standalone."""
    report = place.directory / "open"
    script = f"""
        open=
        for fd in 0 1 2; do if [ -e /proc/$$/fd/$fd ]; then open="$open $fd"; fi; done
        echo $open >{report}
        """
    for done in ways(place, script, f'exec "$relay" {closed}'):
        assert done.code == 0
        assert set(report.read_text().split()) == {"0", "1", "2"} - {part[0] for part in closed.split()}
        report.unlink()


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-", "<&- 2>&-"])
def test_all_closed(place: Place, closed: str) -> None:
    """With stdin closed and no agent, the standalone finds it closed; with an agent it is an error, and its socket gets no answer."""
    place.becomes(f"[ -e /proc/$$/fd/0 ] || echo closed >{place.directory}/stdin")
    assert place.sh("DEL", f'exec "$relay" {closed}').code == 0
    assert place.got() == b"closed\n"
    with FakeAgent(place.socket, answer(b"\0")) as agent:
        assert place.sh("DEL", f'exec "$relay" {closed}').code == 1
    assert agent.requests == [b""]


@settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
@given(path=st.binary(min_size=1, max_size=100).filter(lambda path: b"\0" not in path))
def test_errors_are_json(shared_place: Place, path: bytes) -> None:
    """Whatever bytes a path has, the error object is valid JSON in UTF-8."""
    shared_place.standalone.unlink(missing_ok=True)
    done = shared_place.call(env={b"CNI_COMMAND": b"DEL", b"KUBE_NODE_SOCKET": b"/none/" + path})
    assert json.loads(done.stdout.decode())["code"] == 11
    assert done.stdout.count(b"\n") == 1


@settings(deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow])
@given(path=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=25))
def test_errors_show_paths_as_they_are(shared_place: Place, path: str) -> None:
    """A path in UTF-8 is shown as it is."""
    shared_place.standalone.unlink(missing_ok=True)
    done = shared_place.call(env={b"CNI_COMMAND": b"DEL", b"KUBE_NODE_SOCKET": b"/none/" + path.encode()})
    assert json.loads(done.stdout)["msg"].startswith(f"no agent at /none/{path} (")
