"""Commands of ours without a new interpreter for each: a process that has imported them forks one for each call."""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What an interpreter reads as it starts; such a call needs one of its own.
READ_AT_START = ("PYTHON", "LC_", "LANG")
CALL_LIMIT = 1 << 20  # bytes
TIMEOUT = 120.0  # seconds


class Done(NamedTuple):
    """What a command's process left: exit code as a shell has it, and what it printed."""

    code: int
    stdout: str
    stderr: str


def run(arguments: Sequence[str], env: Mapping[str, str] | None = None, stdin: str = "", wrap: Sequence[str] = ()) -> Done:
    """Run `[WRAP…] kube-node ARGUMENTS…`, with `env` added to the environment of this process; its standard streams are no terminals."""
    env = env or {}
    if wrap or any(name.startswith(READ_AT_START) for name in env):
        command = [*wrap, str(Path(sys.executable).with_name("kube-node")), *arguments]
        whole = {**os.environ, **env}
        done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False, timeout=TIMEOUT, input=stdin)
        return Done(done.returncode, done.stdout, done.stderr)
    return _forkserver().run(arguments, {**os.environ, **env}, stdin)


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

    def run(self, arguments: Sequence[str], env: Mapping[str, str], stdin: str) -> Done:
        streams = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        try:
            os.write(streams[0], stdin.encode())
            os.lseek(streams[0], 0, os.SEEK_SET)
            call = json.dumps([["kube-node", *arguments], dict(env), str(Path.cwd())])
            with self._lock:
                socket.send_fds(self._calls, [call.encode()], streams)
                code = int(self._calls.recv(16))
            stdout, stderr = (Path(f"/proc/self/fd/{stream}").read_text() for stream in streams[1:])
        finally:
            for stream in streams:
                os.close(stream)
        return Done(code, stdout, stderr)


def _serve(calls: socket.socket) -> None:
    """Fork for each call that comes, until the tests end."""
    importlib.import_module("kubenode.launcher")
    main = importlib.import_module("kubenode.cli.main")
    for module in main.COMMANDS.values():
        importlib.import_module(f"kubenode.cli.{module.partition(':')[0]}")
    while True:
        call, streams, *_ = socket.recv_fds(calls, CALL_LIMIT, 3)
        if not call:
            return
        argv, env, directory = json.loads(call)
        if (child := os.fork()) == 0:
            calls.close()
            _become(argv, env, directory, streams)
        for stream in streams:
            os.close(stream)
        calls.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _become(argv: list[str], env: dict[str, str], directory: str, streams: list[int]) -> None:
    """Be the command's process, to its end."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout, sys.stderr = open(0, encoding="utf-8"), open(1, "w", encoding="utf-8"), open(2, "w", encoding="utf-8")  # noqa: SIM115
        os.environ.clear()
        os.environ.update(env)
        os.chdir(directory)
        sys.argv = argv
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT)  # SIGALRM ends the process
        code = _exit_code()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 -- as the interpreter does
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code() -> int:
    try:
        importlib.import_module("kubenode.launcher").kube_node()
    except SystemExit as exit_:
        if exit_.code is None or isinstance(exit_.code, int):
            return exit_.code or 0
        print(exit_.code, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
