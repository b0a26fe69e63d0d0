# SPDX-License-Identifier: Apache-2.0
"""HTTP for whoever reaches the port: bounded in connections and in time."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from patience import eventually
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from kubenode.base import exposition
from kubenode.base.exposition import HTTPServer
from kubenode.base.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slow:
    """Takes its time to be collected, when it is told to."""

    def __init__(self) -> None:
        self.collected = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.may_go_on.wait(30)
        self.collected += 1
        yield GaugeMetricFamily("slow", "Slow.", value=self.collected)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def server(slow: Slow) -> HTTPServer:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(slow)
    slow.collected = 0
    server = HTTPServer(("127.0.0.1", 0), registry, {"/healthz": lambda: "", "/readyz": lambda: "not\udcff yet"}, Log("test"))
    server.start()
    return server


def connected(server: HTTPServer, said: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), 30)
    sock.sendall(said)
    return sock


def get(server: HTTPServer, path: str = "/healthz", method: str = "GET") -> str:
    with connected(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as sock:
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_answers(server: HTTPServer) -> None:
    """Each page has its status; what is no page, no GET or no HTTP is told so, or gets nothing."""
    assert get(server).startswith("HTTP/1.0 200 OK\r\n")
    assert get(server).endswith("\r\n\r\nok\n")
    assert get(server, "/readyz").startswith("HTTP/1.0 503 ")
    assert get(server, "/metrics?name[]=x").startswith("HTTP/1.0 200 ")
    assert get(server, "/").startswith("HTTP/1.0 404 ")
    assert get(server, "/healthz", "POST").startswith("HTTP/1.0 501 ")
    for said in (b"\r\n\r\n", b"\xff\r\n\r\n"):
        with connected(server, said) as sock:
            assert sock.recv(100).startswith(b"HTTP/1.0 501 ")
    with connected(server, b"x" * 100_000) as sock:
        assert is_closed(sock)
    assert get(server).startswith("HTTP/1.0 200 OK\r\n")


@pytest.mark.slow
def test_thousands_of_connections(server: HTTPServer) -> None:
    """However many connections are open and silent, whoever asks gets an answer; there are a few at a time, and no thread for each."""
    threads, before = threading.active_count(), sockets()
    held: list[socket.socket] = []
    for number in range(1000):
        held.append(connected(server, b"GET /healthz" if number % 2 else b""))
        if number % 100 == 99:
            assert get(server).endswith("ok\n")
    assert threading.active_count() <= threads
    held_here = {f"{os.stat(f'/proc/self/fd/{sock.fileno()}').st_ino}" for sock in held}
    eventually(lambda: len(sockets() - before - held_here) <= exposition.MOST, "they stay")
    for sock in held:
        sock.close()


def sockets() -> set[str]:
    """Return the inodes of this process' sockets; other tests of it have some, too."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            kind, _, inode = os.readlink(f"/proc/self/fd/{name}").partition(":[")
        except FileNotFoundError:
            continue
        if kind == "socket":
            found.add(inode.rstrip("]"))
    return found


def test_five_seconds_in_all(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a byte now and then does not have a connection for longer."""
    monkeypatch.setattr(exposition, "LONGEST", 0.5)
    with connected(server) as sock:
        sock.settimeout(0.1)
        eventually(lambda: is_over(sock), "the connection goes on")


def is_over(sock: socket.socket) -> bool:
    """Send a byte, and say whether the other side has had enough."""
    try:
        sock.sendall(b"x")
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_scrapes_at_once(server: HTTPServer, slow: Slow) -> None:
    """One scrape at a time is made, for all who ask meanwhile; health is answered as well."""
    slow.may_go_on.clear()
    texts: list[str] = []
    scrapers = [threading.Thread(target=lambda: texts.append(get(server, "/metrics"))) for _ in range(8)]
    for scraper in scrapers:
        scraper.start()
    assert get(server).endswith("ok\n")
    slow.may_go_on.set()
    for scraper in scrapers:
        scraper.join()
    assert all("\nslow " in text for text in texts)
    assert slow.collected < 8
