"""Whether an agent answers, by the one question that costs nothing: VERSION."""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.agent import protocol

if TYPE_CHECKING:
    from kubenode.inspection.place import Place

PATIENCE = 2.0  # seconds for an answer
MILLISECONDS = 1000.0
QUESTION = protocol.Asked("kube-node", {"CNI_COMMAND": "VERSION"}, b'{"cniVersion": "1.1.0"}')


class Agent(NamedTuple):
    """What became of the question; `problem` is "" where the agent is up. `installed`: something is at the socket's path."""

    socket: str
    installed: bool
    problem: str
    pid: int = 0
    milliseconds: float = 0.0

    @property
    def up(self) -> bool:
        return not self.problem


def ask(place: Place) -> Agent:
    """Ask the agent at the socket's path."""
    path = place.root.path(place.socket)
    if not os.path.lexists(path):
        return Agent(place.socket, installed=False, problem="not running")
    begin = time.perf_counter()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(path)
            pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
            sock.sendall(protocol.frame(QUESTION))
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
    except TimeoutError:
        return Agent(place.socket, installed=True, problem=f"it does not answer within {PATIENCE:g} s")
    except OSError as error:
        return Agent(place.socket, installed=True, problem=error.strerror or str(error))
    if not answer.startswith(b"\0"):
        return Agent(place.socket, installed=True, problem="it answers with something else than a result", pid=pid)
    return Agent(place.socket, True, "", pid, (time.perf_counter() - begin) * MILLISECONDS)  # noqa: FBT003 -- the record's order
