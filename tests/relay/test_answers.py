# SPDX-License-Identifier: Apache-2.0
"""What becomes of the agent's answer, and what is done where there is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from fakeagent import Connection, FakeAgent, answer
from patience import PATIENCE, at_best
from relayplace import LOCAL, SECOND, TICK
from wanting import want

if TYPE_CHECKING:
    from pathlib import Path

    from fakeagent import Script
    from relayplace import Place

OTHERS = ["DEL", "CHECK", "GC", "STATUS", "VERSION"]
NETCONF = b'{"name": "n"}'


@pytest.mark.parametrize(
    ("given", "code", "stdout"),
    [
        (b'\0{"ips": []}\n', 0, b'{"ips": []}\n'),
        (b'\1{"code": 7}\n', 1, b'{"code": 7}\n'),
        (b"\0{" + b"x\0y\n" * 300_000 + b"}\n", 0, b"{" + b"x\0y\n" * 300_000 + b"}\n"),
    ],
)
def test_the_answer_is_ours(place: Place, given: bytes, code: int, stdout: bytes) -> None:
    """The status is the exit code, the rest is stdout, byte for byte; no standalone is run."""
    with FakeAgent(place.socket, answer(given)):
        assert place.call() == (code, stdout, b"")
    assert not place.ran()


@pytest.mark.parametrize("command", OTHERS)
def test_nothing_to_say(place: Place, command: str) -> None:
    """A lone status 0 is an answer to what has no result."""
    with FakeAgent(place.socket, answer(b"\0")):
        assert place.call(command) == (0, b"", b"")
    assert not place.ran()


def test_a_lone_status_is_no_result(place: Place) -> None:
    """An agent that dies behind the status byte has said nothing of an ADD's addresses: the runtime must not take it for a success."""
    with FakeAgent(place.socket, answer(b"\0")):
        done = place.call("ADD", NETCONF)
    assert (done.code, json.loads(done.stdout)["code"]) == (1, 11)
    assert "in the middle of its answer" in json.loads(done.stdout)["msg"]
    assert not place.ran()


def test_byte_by_byte(place: Place) -> None:
    """An answer may come in any pieces."""

    def script(connection: Connection) -> None:
        connection.read()
        for byte in b"\1{1: 2}\n":
            connection.write(bytes([byte]))
            time.sleep(0.01)

    with FakeAgent(place.socket, script):
        assert place.call() == (1, b"{1: 2}\n", b"")


@pytest.mark.parametrize("command", ["ADD", "DEL"])
@pytest.mark.parametrize("how", ["close", "reset", "keep"])
def test_an_answer_before_all_is_read(place: Place, command: str, how: str) -> None:
    """An agent may refuse a large request before it has read it: what it said counts, although sending failed."""

    def script(connection: Connection) -> None:
        connection.read(10)
        connection.write(b'\1{"code": 4}\n')
        if how == "reset":
            connection.reset()
        elif how == "keep":
            connection._peer.shutdown(socket.SHUT_WR)
            connection.wait()

    with FakeAgent(place.socket, script):
        assert place.call(command, b"x" * 4194304) == (1, b'{"code": 4}\n', b"")
    assert not place.ran()


@pytest.mark.parametrize("command", ["ADD", *OTHERS])
@pytest.mark.parametrize("stdin", [b"", NETCONF, b"\0\xff" * 2_000_000])
def test_not_mine(place: Place, command: str, stdin: bytes) -> None:
    """Answer 2: the standalone does it, with the same stdin."""
    with FakeAgent(place.socket, answer(b"\2")):
        assert place.call(command, stdin) == (0, LOCAL, b"")
    assert place.got() == stdin


def read_then(given: bytes, how: str = "close") -> Script:
    def script(connection: Connection) -> None:
        connection.read()
        connection.write(given)
        if how == "wait":
            connection.wait()

    return script


def read_and_reset(connection: Connection) -> None:
    connection.read(5)
    connection.reset()


GONE: dict[str, Script] = {
    "closes at once": lambda _: None,
    "resets in the middle of the request": read_and_reset,
    "closes without an answer": read_then(b""),
    "torn": read_then(b'\0{"ips": ['),
    "torn error": read_then(b'\1{"code"'),
    "torn refusal": read_then(b'\2{"code"'),
    "an error without an object": read_then(b"\1"),
    "shorter than an object": read_then(b"\0\n"),
    "ends within an object": read_then(b'\0{"ips": [\n'),
    "garbage status": read_then(b"\x03{}\n"),
    "text instead of a status": read_then(b'{"ips": []}\n'),
    "answers without end": read_then(b"\0" + b"x" * 5_000_000 + b"\n"),
    "never answers": read_then(b"", "wait"),
    "never ends its answer": read_then(b"\0{}\n", "wait"),
    "stops reading": lambda connection: connection.wait(),
}


@pytest.mark.parametrize("how", GONE)
def test_gone_in_an_add(place: Place, how: str) -> None:
    """ADD: nobody knows what the agent has reserved, so it is an error, after which the runtime calls DEL and tries again."""
    with FakeAgent(place.socket, GONE[how]):
        done = place.call("ADD", b" " * 1_000_000)
    error = json.loads(done.stdout)
    assert (done.code, error["code"], error["cniVersion"]) == (1, 11, "1.1.0")
    assert error["msg"].startswith(f"the agent at {place.socket} ")
    assert error["details"]
    assert done.stdout.count(b"\n") == 1
    assert not place.ran()


@pytest.mark.parametrize("command", OTHERS)
@pytest.mark.parametrize("how", GONE)
def test_gone_otherwise(place: Place, how: str, command: str) -> None:
    """Any other command can be done twice: the standalone does it, with the same stdin, and of the torn answer nothing is printed."""
    stdin = NETCONF + b" " * 1_000_000
    with FakeAgent(place.socket, GONE[how]):
        assert place.call(command, stdin) == (0, LOCAL, b"")
    assert place.got() == stdin


@pytest.mark.parametrize(("how", "said"), [("closes without an answer", "is gone without an answer"), ("never answers", "in time")])
@pytest.mark.parametrize("command", OTHERS)
def test_gone_and_no_standalone(place: Place, how: str, said: str, command: str) -> None:
    """With no standalone either, the error names the agent's socket, the standalone and what is wrong with each."""
    place.standalone.unlink()
    with FakeAgent(place.socket, GONE[how]):
        done = place.call(command)
    error = json.loads(done.stdout)
    assert (done.code, error["code"]) == (1, 50 if command == "STATUS" else 11)
    assert f"the agent at {place.socket} " in error["msg"]
    assert said in error["msg"]
    assert f"{place.standalone} cannot be run: No such file or directory" in error["msg"]


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_not_mine_and_no_standalone(place: Place, command: str) -> None:
    """Answer 2 without a standalone is an error that names both."""
    place.standalone.unlink()
    with FakeAgent(place.socket, answer(b"\2")):
        done = place.call(command)
    error = json.loads(done.stdout)
    assert (done.code, error["code"]) == (1, 50 if command == "STATUS" else 11)
    assert error["msg"] == (
        f"the agent at {place.socket} leaves this call to others, and {place.standalone} cannot be run: No such file or directory"
    )


@pytest.mark.parametrize("command", ["ADD", "DEL", "STATUS"])
def test_not_mine_and_why(place: Place, command: str) -> None:
    """Answer 2 may say why: with a standalone nothing of that is printed, without one it is the error."""
    why = b'{"cniVersion": "1.0.0", "code": 118, "msg": "not mounted"}\n'
    with FakeAgent(place.socket, answer(b"\2" + why)):
        assert place.call(command) == (0, LOCAL, b"")
        place.standalone.unlink()
        assert place.call(command) == (1, why, b"")


@pytest.mark.parametrize("how", ["never answers", "stops reading"])
@pytest.mark.parametrize(("command", "limit"), [("ADD", 15), ("DEL", 3), ("STATUS", 3)])
def test_the_limits(place: Place, how: str, command: str, limit: int) -> None:
    """The agent has 15 s for an ADD and 3 s for all others, also where it stops reading."""

    def call() -> None:
        place.call(command, b" " * 4_000_000)

    with FakeAgent(place.socket, GONE[how]):
        assert limit * SECOND - TICK <= at_best(call, (limit + 8) * SECOND) < (limit + 8) * SECOND


def test_the_real_limit(binaries: Path, tmp_path: Path) -> None:
    """In the relay that is shipped a DEL waits 3 s for the agent, and is then done locally."""
    path = tmp_path / "s"
    ipam = {"type": "kube-node", "dataDir": str(tmp_path / "networks")}
    environ = {**os.environ, "KUBE_NODE_SOCKET": str(path), "CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0"}
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "n", "ipam": ipam}).encode()

    def call() -> None:
        done = subprocess.run([binaries / "kube-node"], input=stdin, env=environ, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, b"")

    with FakeAgent(path, read_then(b"", "wait")):
        assert 3 - TICK <= at_best(call, 6) < 6


def test_a_full_queue(place: Place) -> None:
    """Where the agent accepts nobody and its queue is full, connecting ends after 3 s, and the standalone is run with stdin unread."""
    with FakeAgent(place.socket, backlog=0), ExitStack() as stack:
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        waiting.connect(str(place.socket))

        def call() -> None:
            assert place.call("ADD", NETCONF) == (0, LOCAL, b"")

        assert 3 * SECOND - TICK <= at_best(call, 11 * SECOND) < 11 * SECOND
    assert place.got() == NETCONF


def test_stdin_without_end(place: Place) -> None:
    """A runtime that never closes our stdin gets an error after 15 s; nothing was sent to the agent."""
    with FakeAgent(place.socket, answer(b"\0")) as agent:
        begin = time.monotonic()
        with subprocess.Popen([place.relay], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place.environment("DEL")) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"{")
            process.stdin.flush()
            error = json.loads(process.stdout.read())
            assert process.wait() == 1
        took = time.monotonic() - begin
    assert (error["code"], error["msg"]) == (11, "stdin has no end within 15 s")
    assert 15 * SECOND - TICK <= took < PATIENCE
    assert agent.requests == [b""]
    assert not place.ran()


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_too_much_input(place: Place, command: str) -> None:
    """More than 4 MiB on stdin is an error, in the launcher's words."""
    with FakeAgent(place.socket, answer(b"\0{}\n")):
        done = place.call(command, b" " * 4194305)
    error = json.loads(done.stdout)
    assert (done.code, error["code"], error["msg"]) == (1, 6, "stdin has more than 4194304 bytes")


@pytest.mark.parametrize(("redirection", "said"), [("<&-", "Bad file descriptor"), ("</", "Is a directory")])
def test_unreadable_input(place: Place, redirection: str, said: str) -> None:
    """A closed stdin, or one that cannot be read, is an error, in the launcher's words."""
    with FakeAgent(place.socket, answer(b"\0{}\n")):
        done = place.sh("ADD", f'exec "$relay" {redirection}')
    error = json.loads(done.stdout)
    assert (done.code, error["code"], error["msg"]) == (1, 5, f"cannot read stdin: {said}")


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_nobody_takes_the_answer(place: Place, redirection: str) -> None:
    """With stdout closed or full it fails and says so on stderr; with nothing to print it does not."""
    with FakeAgent(place.socket, answer(b"\0{}\n")):
        done = place.sh("ADD", f'exec "$relay" {redirection}')
    assert (done.code, done.stderr) == (1, b"relay: cannot write the answer to stdout\n")
    with FakeAgent(place.socket, answer(b"\0")):
        assert place.sh("DEL", f'exec "$relay" {redirection}') == (0, b"", b"")


def test_the_reader_is_gone(place: Place) -> None:
    """A reader of stdout that has gone is a failure, not a signal."""
    with FakeAgent(place.socket, answer(b"\0" + b"x\n" * 100_000)):
        done = place.sh("ADD", '("$relay"; echo $? >&2) | true')
    assert done.stderr.splitlines()[-1] == b"1"


def test_stopped_and_continued(place: Place) -> None:
    """Being stopped while it waits changes nothing."""

    def script(connection: Connection) -> None:
        connection.read()
        time.sleep(0.5)
        connection.write(b"\0{}\n")

    with FakeAgent(place.socket, script):
        done = place.sh("ADD", '"$relay" </dev/null & sleep 0.1; kill -STOP $!; sleep 0.1; kill -CONT $!; wait $!')
    assert done == (0, b"{}\n", b"")


@pytest.mark.parametrize("question", ["healthz", "readyz"])
def test_how_the_agent_is(place: Place, question: str) -> None:
    """A probe's question goes to the agent in a plugin's place, with nothing from stdin; the answer is the exit code, and why not."""
    why = b'{"msg": "the Node is not known yet"}\n'
    for told, code, text in ((b"\0", 0, b""), (b"\1" + why, 1, why), (b"\2", 1, b"")):
        with FakeAgent(place.socket, answer(told)) as agent:
            assert place.call("", b"never read", question) == (code, text, b"")
        assert agent.requests == [b"kn1\0%s\0\0" % question.encode()]
    done = place.call("", b"", question)
    assert done.code == 1
    assert f"no agent at {place.socket}" in json.loads(done.stdout)["msg"]
    with FakeAgent(place.socket, Connection.wait):
        assert "does not answer in time" in json.loads(place.call("", b"", question).stdout)["msg"]
    assert not place.ran()


def test_another_containers_agent(place: Place) -> None:
    """Where the agent is another container's, ours waits for its end and is well, whatever that one lacks; its host is told the truth."""
    want("root")
    why = b'{"msg": "the Node is not known yet"}\n'
    with FakeAgent(place.socket, answer(b"\1" + why)):
        for question in ("healthz", "readyz"):
            assert place.sh("", f"unshare --pid --fork $relay {question}") == (0, b"", b"")
            assert place.call("", b"", question) == (1, why, b"")
    done = place.sh("", "unshare --pid --fork $relay readyz")
    assert f"no agent at {place.socket}" in json.loads(done.stdout)["msg"]
