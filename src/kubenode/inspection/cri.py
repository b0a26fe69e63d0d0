# SPDX-License-Identifier: Apache-2.0
"""The runtime's list of pods: one call of the Container Runtime Interface, ListPodSandbox.

gRPC is HTTP/2 with length-prefixed protocol buffers; this call needs so little of both that `h2` and a few lines are enough.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from kubenode.base.problem import Problem
from kubenode.inspection import kubelet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubenode.host.root import HostRoot

SOCKETS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock", "/run/k3s/containerd/containerd.sock")
METHODS = ("/runtime.v1.RuntimeService/ListPodSandbox", "/runtime.v1alpha2.RuntimeService/ListPodSandbox")
EMPTY = b"\0\0\0\0\0"  # an empty message, not compressed
HEADER = 5  # bytes before each message
PATIENCE = 10.0  # seconds for the answer
UNIMPLEMENTED = "12"  # of gRPC's codes
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protocol buffers' wire types
ITEMS, SANDBOX_ID = 1, 1  # field numbers, of ListPodSandboxResponse and PodSandbox


class NoCRIError(Problem):
    """The runtime at a socket serves no CRI, so it has no pods: Docker's containerd, whose CRI plugin is off."""


def find_sockets(root: HostRoot) -> list[str]:
    """Return the paths of all runtimes' sockets that exist, the kubelet's first."""
    return [path for path in dict.fromkeys([*kubelet.runtime_sockets(root), *SOCKETS]) if os.path.exists(root.path(path))]


def sandboxes_of_all(paths: Iterable[str]) -> frozenset[str]:
    """Return the sandboxes of several runtimes. One without CRI has none, if another has CRI. Raises Problem if one does not answer."""
    found: list[frozenset[str]] = []
    silent: Problem | None = None
    for path in paths:
        try:
            found.append(sandboxes(path))
        except NoCRIError as error:
            silent = silent or error
    if silent and not found:
        raise silent
    return frozenset().union(*found)


def sandboxes(path: str) -> frozenset[str]:
    """Return the IDs of all pod sandboxes, in any state. Raises Problem if the runtime does not answer."""
    for method in METHODS:
        status, message = _call(path, method)
        if status != UNIMPLEMENTED:
            break
    if status == UNIMPLEMENTED:
        raise NoCRIError(f"the runtime at {path} serves no CRI", "name the kubelet's socket with --cri-socket")
    if status != "0":
        raise Problem(f"the runtime at {path} does not list its pods: gRPC status {status or 'missing'}", "is it a CRI socket?")
    if len(message) < HEADER or len(message) - HEADER != int.from_bytes(message[1:HEADER]):
        raise Problem(f"the runtime at {path} sent half an answer", "try again")
    items = [value for number, value in fields(message[HEADER:]) if number == ITEMS and isinstance(value, bytes)]
    ids = [value for item in items for number, value in fields(item) if number == SANDBOX_ID and isinstance(value, bytes)]
    if len(ids) != len(items):
        raise Problem(f"the runtime at {path} sent a sandbox without an ID", "report it with the runtime's version")
    return frozenset(value.decode(errors="replace") for value in ids)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protocol buffers message: number and value. Raises Problem if the bytes are not such a message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        length, at = _varint(message, at) if kind == LENGTH else ({FIXED64: 8, FIXED32: 4}.get(kind, -1), at)
        if length < 0 or at + length > len(message):
            raise _no_message()
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        value |= (message[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not message[at - 1] & 0x80:
            return value, at
    raise _no_message()


def _no_message() -> Problem:
    return Problem("the runtime's answer is not a protocol buffers message", "is it a CRI socket?")


def _call(path: str, method: str) -> tuple[str, bytes]:
    """Make a call with an empty request; return gRPC's status and the answer's data. Raises Problem."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    end = time.monotonic() + PATIENCE
    connection = H2Connection(H2Configuration(client_side=True))
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
        ("content-type", "application/grpc"), ("te", "trailers"),
    ]  # fmt: skip
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(path)
            connection.initiate_connection()
            connection.send_headers(1, headers)
            connection.send_data(1, EMPTY, end_stream=True)
            sock.sendall(connection.data_to_send())
            return _answer(sock, connection, end)
    except ProtocolError as error:
        raise Problem(f"the runtime at {path} does not speak HTTP/2: {error}", "is it a CRI socket?") from None
    except OSError as error:
        reason = error.strerror or "it is silent"
        raise Problem(
            f"the runtime at {path} does not answer: {reason}",
            "is it running? If it is no longer used, remove its socket; --cri-socket names the runtime's socket",
        ) from None


def _answer(sock: socket.socket, connection: H2Connection, end: float) -> tuple[str, bytes]:
    from h2 import events

    status, data = "", b""
    while time.monotonic() < end:
        received = sock.recv(65536)
        if not received:
            raise OSError(0, "it has closed the connection")
        for event in connection.receive_data(received):
            if isinstance(event, events.DataReceived):
                data += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (events.ResponseReceived, events.TrailersReceived)):
                status = next((value.decode() for name, value in event.headers if name == b"grpc-status"), status)
            elif isinstance(event, (events.StreamReset, events.ConnectionTerminated)):
                raise OSError(0, f"it has ended the call: {event.error_code}")
            elif isinstance(event, events.StreamEnded):
                return status, data
        sock.sendall(connection.data_to_send())
    raise TimeoutError


if TYPE_CHECKING:
    from h2.connection import H2Connection
