"""Running another IPAM plugin (SPEC.md, "Section 4: Plugin Delegation")."""

from __future__ import annotations

import os
import subprocess
import sys

from kubenode.cni.errors import DELEGATE_FAILED, DELEGATE_MISSING, CNIError
from kubenode.cni.jsontext import JSONTextError, dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

SHOWN = 300  # characters of a delegate's broken answer that go into an error


def find(name: str, path: Iterable[str]) -> str | None:
    """Return the executable of this name in the directories of CNI_PATH; a name with a slash is a path already."""
    candidates = [name] if "/" in name else [os.path.join(directory, name) for directory in path]
    return next((file for file in candidates if os.path.isfile(file) and os.access(file, os.X_OK)), None)


def require(name: str, path: Iterable[str]) -> str:
    """Return the executable of this name. Raises CNIError, which names all places that were looked at."""
    directories = list(path)
    found = find(name, directories)
    if found is None:
        raise CNIError(
            DELEGATE_MISSING,
            f"IPAM plugin {name} not found" + ("" if "/" in name else f" in CNI_PATH {':'.join(directories) or '(empty)'}"),
            "install it there, or set delegate to embedded",
        )
    return found


def run(executable: str, netconf: dict[str, Any], environ: Mapping[str, str]) -> bytes:
    """Run a plugin with this configuration and return its stdout.

    Its stderr goes to ours. Raises CNIError: its own error with its own code, or ours where it gave none.
    """
    try:
        done = subprocess.run(
            [executable], input=dumps(netconf).encode(), stdout=subprocess.PIPE, stderr=_stderr(), env=dict(environ), check=False
        )
    except OSError as error:
        raise CNIError(DELEGATE_FAILED, f"cannot run {executable}: {error.strerror}", "check that it is an executable for this machine") from None
    if done.returncode == 0:
        return done.stdout
    raise _own_error(done.stdout) or CNIError(
        DELEGATE_FAILED,
        f"{executable} failed without a CNI error: {_how_it_ended(done.returncode)}",
        f"its stdout: {done.stdout[:SHOWN].decode(errors='replace')!r}; see its stderr in the runtime's log",
    )


def _stderr() -> int | None:
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # no stderr: nobody to relay to
        return subprocess.DEVNULL


def _own_error(stdout: bytes) -> CNIError | None:
    try:
        answer = loads(stdout)
    except JSONTextError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("code"), int):
        return None
    return CNIError(answer["code"], str(answer.get("msg", "")), str(answer.get("details", "")))


def _how_it_ended(returncode: int) -> str:
    return f"exit code {returncode}" if returncode > 0 else f"killed by signal {-returncode}"
