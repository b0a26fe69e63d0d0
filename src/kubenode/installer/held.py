# SPDX-License-Identifier: Apache-2.0
"""Network configurations that wait for the agent: in the runtime's directory, under a name that the runtime ignores.

A runtime reports its node ready as soon as it finds a network. While no agent answers, pod sandboxes fail, and the kubelet retries each
only after 10 to 30 s; without a network it looks every second.
"""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.host.cniconfig import SUFFIXES

SUFFIX = ".held-by-kube-node"  # unique to us
ENDS = tuple(f"{suffix}{SUFFIX}" for suffix in SUFFIXES)


def waiting(directory: str) -> list[str]:
    """Return the paths of the configurations that wait in a directory; [] without a directory."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(ENDS) and entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return [os.path.join(directory, name) for name in sorted(names)]


def let_go(path: str) -> bool:
    """Rename a waiting configuration to its own name; False if another file has that name. Raises OSError."""
    try:
        os.link(path, path.removesuffix(SUFFIX))
        is_first = True
    except FileExistsError:
        is_first = False
    files.remove(path)  # containerd watches the directory for this, too
    return is_first
