# SPDX-License-Identifier: Apache-2.0
"""Launcher of the plugins: standard input, deadline, standard output, exit code. The command line, without CNI_COMMAND or with arguments.

It imports only the modules of an ADD with a warm Node view; functions import the others.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sys

try:
    from _signal import ITIMER_REAL, SIGALRM, getitimer, setitimer, signal  # type: ignore[import-not-found] # `signal` imports enum
except ImportError:
    from signal import ITIMER_REAL, SIGALRM, getitimer, setitimer, signal

from kubenode.base import files
from kubenode.base.log import Log
from kubenode.cni import request, versions
from kubenode.cni.errors import IO_FAILURE, TRY_AGAIN_LATER, UNDECODABLE, CNIError
from kubenode.plugins import skel, standalone
from kubenode.plugins.standalone import Standalone
from kubenode.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from kubenode.plugins.skel import Command

DEADLINE = 12.0  # seconds for API server and delegates in a call
LOCK_PATIENCE = {"ADD": 60.0, "DEL": 0.0}  # more seconds for a network's lock; 0: as long as the runtime waits
LAST_WORDS = 1.5  # more seconds for the cleanup, such as DEL after a delegate's failed ADD; DEL itself has as long as the runtime waits
STDIN_LIMIT = 4 << 20  # bytes


def kube_node() -> NoReturn:
    """Run as kube-node: a plugin if CNI_COMMAND is set and there is no argument, otherwise the command line."""
    if sys.argv[1:] or not os.environ.get("CNI_COMMAND"):
        from kubenode.cli.main import main

        gc.enable()  # the file that is executed disables it
        sys.exit(main())
    from kubenode.plugins import kube_node as plugin

    _run("kube-node", plugin.COMMANDS, os.environ)


def host_local() -> NoReturn:
    """Run as host-local; without CNI_COMMAND print the versions, like the reference plugin."""
    if sys.argv[1:] or not os.environ.get("CNI_COMMAND"):
        sys.stderr.write(f"host-local of kube-node {VERSION}\nCNI protocol versions supported: {', '.join(versions.SUPPORTED)}\n")
        sys.exit(0)
    from kubenode.plugins import host_local as plugin

    _run("host-local", plugin.COMMANDS, os.environ, plugin.wording)


def node_annotation() -> NoReturn:
    """Run as node-annotation: a plugin unless there is an argument. Without CNI_COMMAND it prints the delegate's configuration."""
    if sys.argv[1:]:
        from kubenode.cli.node_annotation import main

        sys.exit(main(_ipam))
    _ipam()


def _ipam() -> NoReturn:
    from kubenode.plugins import node_annotation as plugin

    if os.environ.get("CNI_COMMAND"):
        _run("node-annotation", plugin.COMMANDS, os.environ)
    _run("node-annotation", plugin.DRY_RUN, {**os.environ, **plugin.NO_CONTAINER})


def _run(
    name: str, commands: Mapping[str, Command], environ: Mapping[str, str], wording: Callable[[CNIError], CNIError] = skel.as_it_is
) -> NoReturn:
    gc.disable()  # the process ends before there is garbage worth collecting
    log = Log(name)
    log.begin(request.labels(environ))
    try:
        signal(SIGALRM, _end)
        if name != "host-local":  # the reference has no deadline, and only the lock can block
            setitimer(ITIMER_REAL, DEADLINE, 0.0 if environ.get("CNI_COMMAND") == "DEL" else LAST_WORDS)
        exit_code, stdout = skel.run(commands, environ, _stdin(), log, Standalone(environ, _wait_for), wording)
        setitimer(ITIMER_REAL, 0)
    except CNIError as error:  # from stdin; or the deadline again, during the answer
        setitimer(ITIMER_REAL, 0)
        log.error(error.msg, code=error.code, details=error.details)
        exit_code, stdout = 1, skel.answer(error.as_object(versions.LATEST))
    try:
        files.write_all(1, stdout)
    except OSError as error:
        log.error("cannot write the answer to stdout", error=str(error))
        exit_code = 1
    os._exit(exit_code)  # skips the interpreter's cleanup, as the process ends


def _stdin() -> bytes:
    try:
        if os.isatty(0):
            return b""  # on a terminal a person tries VERSION, or reads the error
        stdin = files.read_all(0, STDIN_LIMIT)
    except OSError as error:
        raise CNIError(IO_FAILURE, f"cannot read stdin: {error.strerror}", "stdin must be one JSON object") from None
    if len(stdin) > STDIN_LIMIT:
        raise CNIError(UNDECODABLE, f"stdin has more than {STDIN_LIMIT} bytes", "stdin must be one network configuration")
    return stdin


def _wait_for(lock: int, path: str) -> bool:
    """Wait for a network's lock in flock(2), whose queue in the kernel is first come, first served."""

    def give_up(_signal: int, _frame: object) -> NoReturn:
        raise CNIError(
            TRY_AGAIN_LATER,
            f"{path} was locked by another process for {patience:.0f} s",
            f"see who holds it: fuser -v {path}; the runtime tries again",
        )

    left, interval = getitimer(ITIMER_REAL)
    patience = LOCK_PATIENCE.get(os.environ.get("CNI_COMMAND", ""), left) if left else 0.0
    setitimer(ITIMER_REAL, patience, interval)
    before = signal(SIGALRM, give_up)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        signal(SIGALRM, before)
        setitimer(ITIMER_REAL, left, interval)
    return True


def _end(_signal: int, _frame: object) -> NoReturn:
    raise CNIError(
        TRY_AGAIN_LATER,
        f"not done within {DEADLINE:g} s",
        f"the API server, a delegate, or the holder of the lock in {standalone.run_dir(os.environ)} is slow; the runtime tries again",
    )
