# SPDX-License-Identifier: Apache-2.0
"""Commands of ours without a new interpreter for each: a process that has imported all modules forks one for each call."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import camelcase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Variables that an interpreter reads as it starts; such a call needs one of its own.
READ_AT_START = ("PYTHON", "LC_", "LANG")
# Modules that httpx2 imports at the first request: half of what a short command takes.
AT_FIRST_REQUEST = ("anyio._backends._asyncio", "encodings.idna", "h2.connection", "httpcore2", "stringprep", "truststore")
CALL_LIMIT = 1 << 20  # bytes
TIMEOUT = 120.0  # seconds


class Call(NamedTuple):
    """Command and surroundings of a process. `limit`: seconds that it may take, or 0."""

    arguments: list[str]
    environ: dict[str, str]
    directory: str
    limit: float


class Done(NamedTuple):
    """What a command's process left: exit code as a shell has it, and what it printed."""

    code: int
    stdout: str
    stderr: str


def run(arguments: Sequence[str], env: Mapping[str, str] | None = None, stdin: str = "", wrap: Sequence[str] = ()) -> Done:
    """Run `[WRAP…] kube-node ARGUMENTS…`, with `env` added to the environment of this process; its standard streams are no terminals.

    What it prints as JSON has to have the form that all commands have.
    """
    done = _run(arguments, env or {}, stdin, wrap)
    camelcase.require(arguments, done.stdout)
    return done


def _run(arguments: Sequence[str], env: Mapping[str, str], stdin: str, wrap: Sequence[str]) -> Done:
    if wrap or any(name.startswith(READ_AT_START) for name in env):
        command = [*wrap, str(Path(sys.executable).with_name("kube-node")), *arguments]
        whole = {**os.environ, **env}
        done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False, timeout=TIMEOUT, input=stdin)
        return Done(done.returncode, done.stdout, done.stderr)
    streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        os.write(streams[0], stdin.encode())
        os.lseek(streams[0], 0, os.SEEK_SET)
        code = _forkserver().start(arguments, {**os.environ, **env}, streams, TIMEOUT).wait()
        stdout, stderr = (Path(f"/proc/self/fd/{stream}").read_text() for stream in streams[1:])
    finally:
        for stream in streams:
            os.close(stream)
    return Done(code, stdout, stderr)


def start(arguments: Sequence[str], environ: Mapping[str, str], streams: Sequence[int]) -> Forked:
    """Start `kube-node ARGUMENTS…`, which runs until it ends or is ended. `streams`: its descriptors from 0 on."""
    return _forkserver().start(arguments, environ, streams, 0)


class Forked:
    """A process, as subprocess.Popen has one."""

    def __init__(self, report: int) -> None:
        self._report = report  # a pipe that tells the process ID, and the exit code once it has one
        self.pid = self._read()
        self.returncode: int | None = None

    def _read(self) -> int:
        told = os.read(self._report, 8)
        assert told, "the process that forks has ended"
        return int.from_bytes(told, signed=True)

    def poll(self) -> int | None:
        """Return the exit code; minus the signal that has ended the process; None while it runs."""
        return self._look(None if self._has_ended() else 0)

    def _has_ended(self) -> bool:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state in {"Z", "X"}

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
            self.returncode = self._read()
            os.close(self._report)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _forkserver() -> _Forkserver:
    return _Forkserver()


class _Forkserver:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._calls.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CALL_LIMIT)
            self._process = subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        atexit.register(self._end)

    def _end(self) -> None:
        self._calls.close()  # which ends the server
        self._process.wait()

    def start(self, arguments: Sequence[str], environ: Mapping[str, str], streams: Sequence[int], limit: float) -> Forked:
        report, theirs = os.pipe()
        try:
            call = Call(list(arguments), dict(environ), str(Path.cwd()), limit)
            with self._lock:
                socket.send_fds(self._calls, [json.dumps(call).encode()], [theirs, *streams])
        finally:
            os.close(theirs)
        return Forked(report)


def _serve(calls: socket.socket) -> tuple[Call, list[int]] | None:
    """Fork for each call that comes, until the tests end. Return the call and its streams in the child, None in the process that forks."""
    package = importlib.import_module("kubenode")
    for module in pkgutil.walk_packages(package.__path__, "kubenode."):
        importlib.import_module(module.name)
    for name in AT_FIRST_REQUEST:
        importlib.import_module(name)
    gc.freeze()
    events = selectors.DefaultSelector()
    events.register(calls, selectors.EVENT_READ)
    while True:
        for key, _ in events.select():
            if key.data:
                child, report = key.data
                events.unregister(key.fd)
                os.close(key.fd)
                _tell(report, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                os.close(report)
                continue
            call, descriptors, *_ = socket.recv_fds(calls, CALL_LIMIT, 8)
            if not call:
                return None
            report, *streams = descriptors
            if (child := os.fork()) == 0:
                events.close()  # and not at some collection of garbage, when another file has its number
                calls.close()
                return Call(*json.loads(call)), streams
            for stream in streams:
                os.close(stream)
            _tell(report, child)
            events.register(os.pidfd_open(child), selectors.EVENT_READ, (child, report))


def _tell(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        os.write(report, number.to_bytes(8, signed=True))


def _become(call: Call, streams: list[int]) -> int:
    """Be the command's process; return its exit code."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(len(streams), os.sysconf("SC_OPEN_MAX"))
    sys.stdin, sys.stdout = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(call.environ)
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())  # as systemd does
    os.chdir(call.directory)
    sys.argv = ["kube-node", *call.arguments]
    signal.setitimer(signal.ITIMER_REAL, call.limit)  # SIGALRM ends the process
    try:
        importlib.import_module("kubenode.launcher").kube_node()
    except SystemExit as exit_:
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        print(exit_.code, file=sys.stderr)  # noqa: T201
    except BaseException:  # noqa: BLE001 -- as the interpreter does
        traceback.print_exc()
    return 1


def _main() -> None:
    forked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if not forked:
        return
    code = _become(*forked)
    if forked[0].limit:
        sys.stdout.flush()
        os._exit(code)  # without the interpreter's cleanup, which takes longer than the command
    sys.exit(code)  # which waits for threads


if __name__ == "__main__":
    _main()
