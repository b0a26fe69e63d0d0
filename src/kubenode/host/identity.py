"""What this host knows of its own Node's name."""

from __future__ import annotations

import os

from kubenode.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.host.root import HostRoot

MACHINE_ID = "/etc/machine-id"


def given_name(environ: Mapping[str, str], run_dir: str) -> tuple[str, str]:
    """Return the Node's name where somebody said it, and who: $NODE_NAME, or the file `nodename`. Else two empty strings."""
    if name := environ.get("NODE_NAME", "").strip():
        return name, "NODE_NAME"
    path = os.path.join(run_dir, "nodename")
    return _line(path), path


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
