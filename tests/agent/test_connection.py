# SPDX-License-Identifier: Apache-2.0
"""What no run of the whole agent brings about at will: who closes a connection, a thread that cannot be started, what is remembered."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from agentprocess import answer

from kubenode.agent import networks
from kubenode.agent.connection import RelayConnection
from kubenode.agent.networks import Key, Networks
from kubenode.agent.server import Server
from kubenode.base.log import Log
from kubenode.plugins import skel

if TYPE_CHECKING:
    from pathlib import Path

LONG = b"x" * (2 << 20)  # more than a socket takes at once


@pytest.fixture
def pair() -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


def test_closing_waits_for_an_answer_under_way(pair: tuple[socket.socket, socket.socket]) -> None:
    """A thread that is done closes the socket only once the clock, which was quicker, has sent its answer whole."""
    ours, theirs = pair
    connection = RelayConnection(ours)
    clock = threading.Thread(target=connection.answer, args=(1, LONG))
    clock.start()
    first = theirs.recv(1)  # so the answer is under way
    done = threading.Thread(target=connection.close)
    done.start()
    done.join(0.2)
    assert done.is_alive()
    got = answer(theirs)
    done.join(10)
    clock.join(10)
    assert (first, len(got.stdout) + 1) == (b"\1", len(LONG))
    assert ours.fileno() == -1


def test_one_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    """Of two answers the first counts, and who comes second is told; after the end there is none."""
    ours, theirs = pair
    connection = RelayConnection(ours)
    assert connection.is_wanted()
    assert connection.answer(0, b"first")
    assert not connection.answer(1, b"second")
    assert not connection.is_wanted()
    connection.close()
    assert not connection.answer(1, b"third")
    assert answer(theirs)[:2] == (0, "first")


def test_a_relay_that_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    """An answer that nobody takes has not gone out."""
    ours, theirs = pair
    connection = RelayConnection(ours)
    theirs.close()
    assert not connection.is_wanted()
    assert not connection.answer(0, LONG)


def test_no_thread_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Where the system gives no more threads, those that are there go on serving."""

    class Counted:
        def __getattr__(self, _: str) -> Any:
            pytest.fail("a plugin that is not ours needs neither host nor metrics")

    started: list[threading.Thread] = []

    def start(thread: threading.Thread, original: Any = threading.Thread.start) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        original(thread)

    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = Server(listener, Counted(), Networks(Log("test")), {}, Log("agent"), [Counted()], {})
        monkeypatch.setattr(threading.Thread, "start", start)
        server.start()
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as relay:
                relay.settimeout(10)
                relay.connect(path)
                relay.sendall(b"kn1\0whereabouts\0CNI_COMMAND=ADD\0\0{}")
                relay.shutdown(socket.SHUT_WR)
                assert answer(relay).code == skel.NOT_HERE
        assert asyncio.run(server.drain(path, 10)) == 0
        started[0].join(10)
    assert capfd.readouterr().err.count("can't start new thread") == 3


def test_no_thread_for_a_relay_on_the_old_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A relay that is still in the old socket's queue goes to the standalone plugin, if the system gives no thread for it."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with socket.socket(socket.AF_UNIX) as old, socket.socket(socket.AF_UNIX) as new, socket.socket(socket.AF_UNIX) as relay:
        for number, listener in enumerate((old, new)):
            listener.bind(str(tmp_path / f"{number}.sock"))
            listener.listen()
        server = Server(old, Any, Networks(Log("test")), {}, Log("agent"), [], {})  # type: ignore[arg-type] # no call comes to it
        relay.settimeout(10)
        relay.connect(str(tmp_path / "0.sock"))
        monkeypatch.setattr(threading.Thread, "start", start)
        server.move(new)
        assert answer(relay).code == skel.NOT_HERE
    assert capfd.readouterr().err.count("can't start new thread") == 1


def configuration(data_dir: str = "/d", **more: Any) -> bytes:
    return json.dumps({"name": "net", "ipam": {"type": "kube-node", "dataDir": data_dir}, **more}).encode()


def test_the_last_configuration_counts() -> None:
    """Of a network's configurations the last is kept, also where it is one that was there before."""
    met = Networks(Log("test"))
    seen: list[bytes] = []
    met.note = lambda key, plugin, stdin: seen.append(stdin)  # type: ignore[method-assign]
    before, after = configuration(), configuration(mtu=9000)
    for conf in (before, before, after, before):
        met.met("kube-node", conf)
    assert seen == [before, before, after, before]


def test_networks_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pod's runtimeConfig makes another configuration, but no other network; and what is remembered has an end."""
    monkeypatch.setattr(networks, "MOST", 10)
    met = Networks(Log("test"))
    for pod in range(25):
        met.met("kube-node", configuration(runtimeConfig={"mac": f"02:00:00:00:00:{pod:02x}"}))
        assert len(met._keys) <= 10
    assert met.known() == [Key("net", "/d")]
    for number in range(25):
        met.met("kube-node", configuration(f"/{number}"))
    assert len(met.known()) == 10
    met.met("kube-node", b"[]")  # no network
    assert len(met.known()) == 10
