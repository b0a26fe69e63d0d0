"""The name of this host's own Node, as far as the host knows it.

The file `nodename` has a name that an administrator has said; or, where an agent has left it for plugins that run without one, a name and
the machine-id that its Node had. That is a guess, as a node may be renamed.
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
    """Return the path of the file with the Node's name."""
    return os.path.join(run_dir, "nodename")


def given_name(environ: Mapping[str, str], run_dir: str) -> tuple[str, str]:
    """Return the Node's name where somebody said it, and who: $NODE_NAME, or the file `nodename`. Else two empty strings.

    Raises CNIError, OSError.
    """
    if name := environ.get("NODE_NAME", "").strip():
        return name, "NODE_NAME"
    path = name_file(run_dir)
    name, _, machine = _line(path).partition(" ")
    return ("", "") if machine else (name, path)


def noted_names(run_dir: str) -> tuple[str, ...]:
    """Return the name that the program itself has noted, if it has: it counts only with our machine-id."""
    name, _, machine = _line(name_file(run_dir)).partition(" ")
    return (name,) if machine else ()


def note_name(run_dir: str, name: str, machine: str) -> None:
    """Leave our Node's name for plugins that run without agent, unless an administrator has said it. Raises OSError."""
    path = name_file(run_dir)
    if machine and _line(path) not in (name, f"{name} {machine}"):
        files.replace(path, f"{name} {machine}\n".encode())


def host_name() -> str:
    """Return the host name as the kubelet takes it for a Node's name by default."""
    return os.uname().nodename.strip().lower()


def machine_id(path: str = MACHINE_ID) -> str:
    """Return the machine-id (machine-id(5)), or "" where there is none."""
    return _line(path)


def host_machine_id(root: HostRoot) -> str:
    """Return the machine-id of the host below a root, or "" where it is not to be seen from here."""
    return machine_id(root.path(MACHINE_ID)) if root.is_mounted(MACHINE_ID) else ""


def _line(path: str) -> str:
    try:
        return files.read(path).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
    except IsADirectoryError:
        advice = f"a container runtime makes one where a file to mount is missing: rmdir {path}"
        raise CNIError(IO_FAILURE, f"{path} is a directory, and has to be a file", advice) from None
