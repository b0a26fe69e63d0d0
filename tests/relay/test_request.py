# SPDX-License-Identifier: Apache-2.0
"""What the agent gets."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from effort import examples
from fakeagent import Connection, FakeAgent, Request, answer, parse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from relayplace import Place

OK = answer(b"\0{}\n")
NO_NUL = st.binary(max_size=40).map(lambda value: value.replace(b"\0", b""))
NAMES = st.tuples(st.sampled_from([b"CNI_", b"CNI", b"cni_", b"XCNI_", b""]), NO_NUL).map(lambda parts: b"".join(parts).replace(b"=", b"-"))
ENVIRONMENTS = st.dictionaries(NAMES.filter(bool), NO_NUL, max_size=8)


def test_byte_for_byte(place: Place) -> None:
    """The plugin's name, the variables named CNI_* and node-annotation's one, in their order, and all of stdin."""
    others = {"KUBE_NODE_SOCKET": str(place.socket), "XCNI_A": "x", "NODE_ANNOTATION_CFGS": "x", "TRACESTATE": "x"}
    env = {
        "CNI_COMMAND": "ADD",
        "PATH": "/bin",
        "CNI_ARGS": "A=1;B=2",
        "CNI_": "",
        "NODE_ANNOTATION_CFG": "/c",
        "TRACEPARENT": "00-a-b-01",
        **others,
    }
    with FakeAgent(place.socket, OK) as agent:
        assert place.call("ADD", b'{"a": "\0"}\n', env=env) == (0, b"{}\n", b"")
    assert agent.requests == [
        b'kn1\0kube-node\0CNI_COMMAND=ADD\0CNI_ARGS=A=1;B=2\0CNI_=\0NODE_ANNOTATION_CFG=/c\0TRACEPARENT=00-a-b-01\0\0{"a": "\0"}\n'
    ]


@settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(environ=ENVIRONMENTS, stdin=st.binary(max_size=300), plugin=NO_NUL.filter(lambda name: name and b"/" not in name))
def test_any_bytes(shared_place: Place, environ: dict[bytes, bytes], stdin: bytes, plugin: bytes) -> None:
    """Whatever bytes name, environment and stdin have, the agent gets them as they are."""
    env = {**environ, b"CNI_COMMAND": b"DEL", b"KUBE_NODE_SOCKET": str(shared_place.socket).encode()}
    with FakeAgent(shared_place.socket, OK) as agent:
        assert shared_place.call(stdin=stdin, argv0=b"/nowhere/" + plugin, env=env).stdout == b"{}\n"
    told = [name + b"=" + value for name, value in env.items() if name.startswith(b"CNI_")]
    assert [parse(request) for request in agent.requests] == [Request(plugin, told, stdin)]


def test_a_large_environment(place: Place) -> None:
    """An environment of more than a megabyte, and the largest stdin, arrive whole at an agent that reads slowly."""
    env = {**place.environment("ADD"), **{f"CNI_{number}": "x" * 100_000 for number in range(15)}}

    def slowly(connection: Connection) -> None:
        begin = connection.read(100_000)
        time.sleep(0.3)
        agent.requests.append(begin + connection.read())
        connection.write(b"\0{}\n")

    with FakeAgent(place.socket, slowly) as agent:
        assert place.call("ADD", b"y" * 4194304, env=env) == (0, b"{}\n", b"")
    request = parse(agent.requests[0])
    assert request.stdin == b"y" * 4194304
    assert len(b"".join(request.environ)) > 1_500_000


def test_stdin_in_pieces(place: Place) -> None:
    """What the runtime writes piece by piece is one stdin."""
    with FakeAgent(place.socket, OK) as agent:
        place.sh("ADD", '(printf a; sleep 0.2; printf b; sleep 0.2; printf c) | "$relay"')
    assert parse(agent.requests[0]).stdin == b"abc"


def test_a_terminal_is_no_input(place: Place) -> None:
    """A person who tries VERSION need not type the end of stdin."""
    with FakeAgent(place.socket, OK) as agent:
        assert place.sh("VERSION", 'script -qec "$relay" /dev/null </dev/null').code == 0
    assert parse(agent.requests[0]).stdin == b""


def test_which_plugin(place: Place) -> None:
    """The plugin is the last part of argv[0]; where that is empty, of the file that runs."""
    with FakeAgent(place.socket, OK) as agent:
        for argv0 in ("node-annotation", "/x/y/host-local", "./a b", "", "x/"):
            place.call(argv0=argv0)
    assert [parse(request).plugin for request in agent.requests] == [b"node-annotation", b"host-local", b"a b", b"kube-node", b"kube-node"]


def test_no_arguments_at_all(place: Place) -> None:
    """Run without even an argv[0], it takes its name from the file."""
    program = """
import ctypes, sys
strings = lambda *texts: (ctypes.c_char_p * (len(texts) + 1))(*(text.encode() for text in texts), None)
ctypes.CDLL(None).execve(sys.argv[1].encode(), strings(), strings("CNI_COMMAND=DEL", "KUBE_NODE_SOCKET=" + sys.argv[2]))
"""
    with FakeAgent(place.socket, OK) as agent:
        done = subprocess.run([sys.executable, "-c", program, place.relay, place.socket], input=b"{}", capture_output=True, check=True)
    assert done.stdout == b"{}\n"
    assert agent.requests == [b"kn1\0kube-node\0CNI_COMMAND=DEL\0\0{}"]
