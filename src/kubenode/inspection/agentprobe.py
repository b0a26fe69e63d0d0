# SPDX-License-Identifier: Apache-2.0
"""The question to the agent whether it answers, and for the problems that it reports."""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.agent import protocol
from kubenode.base.jsontext import JSONTextError, loads
from kubenode.host.root import HostRoot
from kubenode.kube.loadingrules import SERVICE_ACCOUNT

if TYPE_CHECKING:
    from kubenode.inspection.locations import Locations

PATIENCE = 2.0  # seconds for an answer
MILLISECONDS = 1000.0
UNKNOWN = b"\2"
QUESTION = protocol.Asked(protocol.PROBLEMS, {}, b"")


class AgentStatus(NamedTuple):
    """The outcome of the question; `problem` is "" if the agent is up. `installed`: something is at the socket's path.

    `problems` are those that a running agent reports.
    """

    socket: str
    installed: bool
    problem: str
    pid: int = 0
    milliseconds: float = 0.0
    problems: tuple[str, ...] = ()

    @property
    def up(self) -> bool:
        """Whether the agent answers."""
        return not self.problem

    @property
    def process(self) -> str:
        """The process that answers; a process of another container has no number here."""
        return f"process {self.pid}" if self.pid else "a process of another container"


class AgentCredentials(NamedTuple):
    """The agent's credentials for the API server, by paths that are valid here."""

    kubeconfig: str
    environ: dict[str, str]
    service_account: str


def credentials(agent: AgentStatus) -> AgentCredentials | str:
    """Read a running agent's command line, environment and root directory.

    A text instead is the reason why it does not ask the API server, or is not visible.
    """
    process = f"/proc/{agent.pid}"
    try:
        words = [os.fsdecode(word) for word in _read(f"{process}/cmdline").split(b"\0")]
        variables = [os.fsdecode(line).partition("=") for line in _read(f"{process}/environ").split(b"\0") if line]
        root = HostRoot.of_process(agent.pid)
    except OSError:
        return "the agent's process is not visible from here"
    options = {name: value for name, _, value in (word.partition("=") for word in words)}
    if "--node-file" in options:
        return f"the agent serves the Node manifest {options['--node-file']}: the API server is not asked"
    environ = {name: value for name, _, value in variables}
    if "KUBECONFIG" in environ:
        environ["KUBECONFIG"] = ":".join(map(root.path, environ["KUBECONFIG"].split(":")))
    kubeconfig = options.get("--kubeconfig", "")
    return AgentCredentials(root.path(kubeconfig) if kubeconfig else "", environ, root.path(SERVICE_ACCOUNT))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def ask(locations: Locations) -> AgentStatus:
    """Ask the agent at the socket's path. Raises PermissionError if the user has no right to."""
    path = locations.root.path(locations.socket)
    if not os.path.lexists(path):
        return AgentStatus(locations.socket, installed=False, problem="not running")
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
    except PermissionError as error:
        error.filename = locations.socket
        raise
    except TimeoutError:
        return AgentStatus(locations.socket, installed=True, problem=f"it does not answer within {PATIENCE:g} s")
    except OSError as error:
        problem = error.strerror or str(error)
        if os.path.isdir(path):  # connect(2) says "refused" for it, too
            problem = f"it is a directory (rmdir {locations.socket})"
        return AgentStatus(locations.socket, installed=True, problem=problem)
    took = (time.perf_counter() - begin) * MILLISECONDS
    if answer == UNKNOWN:  # an earlier version, which does not know this question
        return AgentStatus(locations.socket, True, "", pid, took)  # noqa: FBT003 -- the record's order
    try:
        problems = tuple(map(str, loads(answer[1:])["problems"]))
    except (JSONTextError, LookupError, TypeError):
        return AgentStatus(locations.socket, installed=True, problem="its answer is not a result", pid=pid)
    return AgentStatus(locations.socket, True, "", pid, took, problems)  # noqa: FBT003 -- the record's order
