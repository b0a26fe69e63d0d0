# SPDX-License-Identifier: Apache-2.0
"""The API server asked for pods, over the wire."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest
from apiserver import write_kubeconfig
from patience import at_best

from kubenode.agent import pods
from kubenode.agent.pods import ApiPods
from kubenode.cni.errors import FORBIDDEN, TRY_AGAIN_LATER, CNIError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PENDING = b'{"kind": "PartialObjectMetadata", "metadata": {"uid": "u"}}'
NOT_FOUND = b'{"kind": "Status", "reason": "NotFound", "message": "no"}'


class Counts:
    def __init__(self) -> None:
        self.results: list[tuple[str, str]] = []

    def requested(self, verb: str, result: str) -> None:
        self.results.append((verb, result))


class Server:
    """Answers each connection with the same text; with none, it is silent and keeps the connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.answer = b""
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def says(self, status: str, body: bytes) -> None:
        self.answer = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status.encode(), len(body), body)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self._kept.append(sock)
            if self.answer:
                sock.recv(65536)
                sock.sendall(self.answer)
                sock.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.listener.close()


def test_answers(server: Server, tmp_path: Path) -> None:
    """A pod, none, and a refusal are told apart, and counted by their HTTP status; half an answer says nothing."""
    counts = Counts()
    api = ApiPods(str(write_kubeconfig(tmp_path / "kubeconfig", {"server": server.url}, {})), {}, lambda: "n", counts)
    server.says("200 OK", PENDING)
    assert (api.pod("default", "pod") or {})["metadata"] == {"uid": "u"}
    server.says("404 Not Found", NOT_FOUND)
    assert api.pod("default", "pod") is None
    for status, body, code in (
        ("403 Forbidden", b"{}", FORBIDDEN),
        ("404 Not Found", b"<html>a proxy's</html>", None),
        ("503 Service Unavailable", b"", TRY_AGAIN_LATER),
        ("200 OK", b'{"kind": "PodList"}', TRY_AGAIN_LATER),
        ("200 OK", b"{", TRY_AGAIN_LATER),
    ):
        server.says(status, body)
        with pytest.raises(CNIError) as error:
            api.pod("default", "pod")
        assert code in {error.value.code, None}
    api.close()
    assert counts.results == [("get", result) for result in ("200", "404", "403", "404", "503", "error", "error")]


@pytest.mark.parametrize(
    "body",
    [
        NOT_FOUND,
        b'{"kind": "PodList", "items": []}',
        b'{"kind": "PartialObjectMetadataList"}',
        b'{"kind": "PartialObjectMetadataList", "items": [], "metadata": {"continue": "more"}}',
    ],
)
def test_a_list_that_is_not_whole(server: Server, tmp_path: Path, body: bytes) -> None:
    """Only a whole list of the node's pods says that one is gone; anything else is an error."""
    api = ApiPods(str(write_kubeconfig(tmp_path / "kubeconfig", {"server": server.url}, {})), {}, lambda: "n", Counts())
    server.says("404 Not Found" if body is NOT_FOUND else "200 OK", body)
    with pytest.raises(CNIError):
        api.on_node()
    api.close()


def test_an_api_server_that_is_silent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question ends within its time, with an error that says that the API server is silent."""
    monkeypatch.setattr(pods, "TIMEOUT", 1.0)
    counts = Counts()
    api = ApiPods(str(write_kubeconfig(tmp_path / "kubeconfig", {"server": server.url}, {})), {}, lambda: "n", counts)

    def ask() -> None:
        with pytest.raises(CNIError) as error:
            api.pod("default", "pod")
        assert error.value.code == TRY_AGAIN_LATER

    assert at_best(ask, 3) < 3
    assert set(counts.results) == {("get", "error")}


def test_a_kubeconfig_that_is_missing(tmp_path: Path) -> None:
    """Without credentials there is an error, and nobody is asked."""
    with pytest.raises(CNIError, match="kubeconfig"):
        ApiPods(str(tmp_path / "none"), {}, lambda: "n", Counts())
