# SPDX-License-Identifier: Apache-2.0
"""Execution of another IPAM plugin (SPEC.md, "Section 4: Plugin Delegation"). Importing `subprocess` would cost as much as the plugin."""

from __future__ import annotations

import errno
import os
import time

try:
    from _signal import SIGKILL, SIGPIPE  # type: ignore[import-not-found] # `signal` imports enum and re
except ImportError:
    from signal import SIGKILL, SIGPIPE

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, dumps, loads
from kubenode.cni.errors import DELEGATE_FAILED, DELEGATE_MISSING, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

OUR_LIBRARY = b"kube-node.lib"  # occurs in the launchers and in the relay from `./build.sh binaries`
OUR_SIZE = 1 << 20  # bytes; the relay has 17 kB (700 kB by gcc), the reference's host-local 4 MB
SAID = 65536  # bytes of a delegate's stderr that are passed on
LARGEST = 4 << 20  # bytes of an answer
SHOWN = 300  # characters of a delegate's invalid answer in an error
BUSY_TRIES, BUSY_PAUSE = 5, 1.0  # as in libcni's `RawExec`, while the executable is being written


def find(name: str, path: Iterable[str]) -> str | None:
    """Return the executable with this name in the directories of CNI_PATH, None if missing; a name with a slash is already a path."""
    candidates = [name] if "/" in name else [os.path.join(directory, name) for directory in path]
    return next((file for file in candidates if os.path.isfile(file) and os.access(file, os.X_OK)), None)


def is_ours(executable: str) -> bool:
    """Say whether this is our own launcher or relay: running it would start Python again for work that this process can do."""
    try:
        fd = os.open(executable, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_size <= OUR_SIZE and OUR_LIBRARY in files.read_all(fd)
    except OSError:  # a directory
        return False
    finally:
        os.close(fd)


def require(name: str, path: Iterable[str]) -> str:
    """Return the executable with this name. Raises CNIError, which names all directories searched."""
    directories = list(path)
    found = find(name, directories)
    if found is None:
        raise CNIError(
            DELEGATE_MISSING,
            f"IPAM plugin {name} not found" + ("" if "/" in name else f" in CNI_PATH {':'.join(directories) or '(empty)'}"),
            "install it there, or use the embedded allocator",
        )
    return found


def run(executable: str, netconf: dict[str, Any], environ: Mapping[str, str], pass_on: Callable[[bytes], None]) -> bytes:
    """Run a plugin with this configuration and return its stdout; `pass_on` gets its stderr.

    Raises CNIError: the plugin's own error and code, or ours if it printed none. The plugin does not outlive the call.
    """
    # Files, as pipes could block: the plugin may not read its stdin, and our stderr may have no reader.
    stdin, stderr, (answers, answer) = os.memfd_create("netconf"), os.memfd_create("stderr"), os.pipe()
    try:
        files.write_all(stdin, dumps(netconf).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        pid = _start(executable, environ, (stdin, answer, stderr))
        os.close(answer)
        answer = -1
        try:
            stdout = _all_of(answers, executable)
            exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:  # our deadline; its children end, too
            os.killpg(pid, SIGKILL)
            os.waitpid(pid, 0)
            raise
    finally:
        if said := os.pread(stderr, SAID, 0):
            pass_on(said)
        for fd in (stdin, stderr, answers, answer):
            if fd >= 0:
                os.close(fd)
    if exit_code == 0:
        return stdout
    raise _own_error(stdout) or CNIError(
        DELEGATE_FAILED,
        f"{executable} failed without a CNI error: {_how_it_ended(exit_code)}",
        f"its stdout: {stdout[:SHOWN].decode(errors='replace')!r}; see its stderr in the runtime's log",
    )


def _start(executable: str, environ: Mapping[str, str], standard: tuple[int, int, int]) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(standard)]
    for tries_left in range(BUSY_TRIES, -1, -1):
        try:
            return os.posix_spawn(executable, [executable], environ, file_actions=actions, setpgroup=0, setsigdef=[SIGPIPE])
        except OSError as error:
            if error.errno != errno.ETXTBSY or not tries_left:
                raise CNIError(
                    DELEGATE_FAILED, f"cannot run {executable}: {error.strerror}", "check that it is an executable for this machine"
                ) from None
        time.sleep(BUSY_PAUSE)
    raise AssertionError


def _all_of(answers: int, executable: str) -> bytes:
    stdout = files.read_all(answers, LARGEST)
    if len(stdout) > LARGEST:
        raise CNIError(DELEGATE_FAILED, f"{executable} printed more than {LARGEST} bytes", "look at its stdout")
    return stdout


def _own_error(stdout: bytes) -> CNIError | None:
    try:
        answer = loads(stdout)
    except JSONTextError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("code"), int):
        return None
    return CNIError(answer["code"], str(answer.get("msg", "")), str(answer.get("details", "")))


def _how_it_ended(exit_code: int) -> str:
    return f"exit code {exit_code}" if exit_code > 0 else f"killed by signal {-exit_code}"
