"""Network configurations that wait for the agent: in their own directory, under a name that the runtime passes over.

A runtime calls its node ready as soon as it finds a network. Pods whose sandbox then fails, as no agent answers yet, wait for 10 to 30 s
until the kubelet tries again; while there is no network it looks every second.
"""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.host.cniconfig import SUFFIXES

SUFFIX = ".held-by-kube-node"  # nobody else's
ENDS = tuple(f"{suffix}{SUFFIX}" for suffix in SUFFIXES)


def waiting(directory: str) -> list[str]:
    """Return the paths of those that wait in a directory of network configurations; none where there is no directory."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(ENDS) and entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return [os.path.join(directory, name) for name in sorted(names)]


def let_go(path: str) -> bool:
    """Give a configuration that waits its own name; say whether nobody else has put a file there. Raises OSError."""
    try:
        os.link(path, path.removesuffix(SUFFIX))
        is_first = True
    except FileExistsError:
        is_first = False
    files.remove(path)  # which is also what containerd's watch goes by
    return is_first
