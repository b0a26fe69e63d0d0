# SPDX-License-Identifier: Apache-2.0
"""A small HTTPS server on loopback, for what a real API server cannot be made to do."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from authority import Authority, KeyPair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Step = Callable[["Handler"], None]


class Seen(NamedTuple):
    """A request as it arrived."""

    path: str
    headers: dict[str, str]
    certificate: str = ""  # the common name of the client's
    at: float = 0.0  # by the steady clock


class StandInApiServer:
    """Answers each request by the next step of `script`, and by `then` after the last. Steps are made by the functions below."""

    def __init__(
        self,
        directory: Path,
        *script: Step,
        names: tuple[str, ...] = ("127.0.0.1",),
        then: Step | None = None,
        pair: KeyPair | None = None,
        address: str = "127.0.0.1",
        tls: bool = True,
    ) -> None:
        self.authority = Authority()
        self.script = list(script)
        self.then = then or answer({})
        self.requests: list[Seen] = []
        self.server_names: list[str | None] = []
        self.ended = threading.Event()
        pair = pair or self.authority.server(*names)
        self._pem = directory / "stand-in.pem"
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # whatever the length of its key, or of a client's
        self.present(pair)
        context.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._server = (_IPv6Server if ":" in address else _Server)((address, 0), Handler)
        self._server.stand_in = self
        if tls:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        host = f"[{address}]" if ":" in address else address
        self.url = f"http{'s' if tls else ''}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))  # seconds: at the end it waits for this

    def present(self, pair: KeyPair) -> None:
        """Use this certificate from the next connection on."""
        self._pem.write_bytes(pair.certificate + pair.key)
        self._context.load_cert_chain(self._pem)

    def accept_clients_of(self, authority: Authority) -> None:
        """Ask for a client's certificate and take it from this authority, or none."""
        self._context.load_verify_locations(cadata=authority.certificate.decode())
        self._context.verify_mode = ssl.CERT_OPTIONAL

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stand_in: StandInApiServer

    def handle_error(self, *_: object) -> None:
        """Stay quiet: clients that hang up are what the tests are about."""


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer's content waits for no acknowledgement of its header, which takes 40 ms
    server: _Server

    def do_GET(self) -> None:
        stand_in = self.server.stand_in
        stand_in.requests.append(Seen(self.path, dict(self.headers), self._common_name(), time.monotonic()))
        step = stand_in.script.pop(0) if stand_in.script else stand_in.then
        step(self)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def _common_name(self) -> str:
        certificate = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        subject: Any = (certificate or {}).get("subject", ())
        return "".join(value for part in subject for name, value in part if name == "commonName")


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Step:
    """Answer with JSON, or with bytes as they are."""

    def step(handler: Handler) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return step


def serve(name: str) -> Step:
    """Answer a GET of a Node, or a watch of it."""

    def step(handler: Handler) -> None:
        (stream(event("ADDED", 1, name)) if "watch=" in handler.path else answer(node(name)))(handler)

    return step


def refuse(status: int, message: str = "no", reason: str = "", **headers: str) -> Step:
    """Answer with the Status object of an API server; `headers` with _ for -."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": status}
    return answer(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def stall(handler: Handler) -> None:
    """Never answer."""
    handler.server.stand_in.ended.wait()
    handler.close_connection = True


def trickle(handler: Handler) -> None:
    """Answer with a byte now and then, without end."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.stand_in.ended.wait(0.05):
        handler.wfile.write(b" ")
    handler.close_connection = True


def reset(handler: Handler) -> None:
    """Reset the connection instead of answering."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def half(handler: Handler) -> None:
    """Promise more than what comes."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"kind": "Node", "metada')
    handler.close_connection = True


def stream(*parts: dict[str, Any] | bytes | float | Step) -> Step:
    """Answer a watch: events, raw bytes, pauses in seconds, or steps that end it otherwise than in order."""

    def step(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in parts:
            if isinstance(part, (int, float)):
                if handler.server.stand_in.ended.wait(part):
                    handler.close_connection = True
                    return
            elif callable(part):
                part(handler)
                return
            else:
                send_chunk(handler, part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n")
        send_chunk(handler, b"")

    return step


def send_chunk(handler: Handler, content: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))


def cut(handler: Handler) -> None:
    """End the connection in the middle of an answer."""
    handler.close_connection = True


def event(kind: str, version: int, name: str = "n1", uid: str = "u1", **annotations: str) -> dict[str, Any]:
    """Return an event of a watch: about a Node, or a BOOKMARK."""
    if kind == "BOOKMARK":
        return {"type": kind, "object": {"kind": "Node", "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}}}
    return {"type": kind, "object": node(name, version, uid, **annotations)}


def failure(code: int, message: str = "no", **details: Any) -> dict[str, Any]:
    """Return an ERROR event."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code}
    return {"type": "ERROR", "object": {**status, **({"details": details} if details else {})}}


def node(name: str, version: int | None = None, uid: str = "", **annotations: str) -> dict[str, Any]:
    """Return a Node that is enough to be told from others; with a version, one that can be watched."""
    metadata = {"name": name}
    if version is None:
        return {"kind": "Node", "apiVersion": "v1", "metadata": metadata}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {**metadata, "resourceVersion": str(version), "uid": uid, "annotations": annotations},
        "spec": {"podCIDRs": ["10.0.1.0/24"]},
    }


def page(names: list[str], more: str = "") -> Step:
    """Answer with one page of a list; `more` is the token of the next."""
    items = [{"metadata": {"name": name}} for name in names]
    return answer({"kind": "NodeList", "apiVersion": "v1", "metadata": {"continue": more}, "items": items})
