# SPDX-License-Identifier: Apache-2.0
"""Name of this host's own Node, as far as the host knows it.

The file `nodename` contains the name set by an administrator; or the name and the Node's machine-id, written by an agent for plugins that
run without it. The latter is a guess, as a node may be renamed.
"""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.cni.errors import IO_FAILURE, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.host.root import HostRoot

MACHINE_ID = "/etc/machine-id"


def name_file(run_dir: str) -> str:
    """Return the path of the file `nodename`."""
    return os.path.join(run_dir, "nodename")


def given_name(environ: Mapping[str, str], run_dir: str) -> tuple[str, str]:
    """Return the configured Node name and its source: $NODE_NAME, or the file `nodename`. Two empty strings if not configured.

    Raises CNIError, OSError.
    """
    if name := environ.get("NODE_NAME", "").strip():
        return name, "NODE_NAME"
    path = name_file(run_dir)
    name, _, machine = _line(path).partition(" ")
    return ("", "") if machine else (name, path)


def noted_names(run_dir: str) -> tuple[str, ...]:
    """Return the name that an agent noted, if any: it counts only with our machine-id."""
    name, _, machine = _line(name_file(run_dir)).partition(" ")
    return (name,) if machine else ()


def note_name(run_dir: str, name: str, machine: str) -> None:
    """Note our Node's name for plugins that run without agent, unless an administrator configured it. Raises OSError."""
    path = name_file(run_dir)
    if machine and _line(path) not in (name, f"{name} {machine}"):
        files.replace(path, f"{name} {machine}\n".encode())


def host_name() -> str:
    """Return the host name, in the form that the kubelet uses as default Node name."""
    return os.uname().nodename.strip().lower()


def machine_id(path: str = MACHINE_ID) -> str:
    """Return the machine-id (machine-id(5)), "" if there is none."""
    return _line(path)


def host_machine_id(root: HostRoot) -> str:
    """Return the machine-id of the host below a root, "" if it is not visible here."""
    return machine_id(root.path(MACHINE_ID)) if root.is_mounted(MACHINE_ID) else ""


def _line(path: str) -> str:
    try:
        return files.read(path).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    except IsADirectoryError:
        advice = f"container runtimes create a directory if a file to mount is missing: rmdir {path}"
        raise CNIError(IO_FAILURE, f"{path} is a directory, not a file", advice) from None
