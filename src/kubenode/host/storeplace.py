# SPDX-License-Identifier: Apache-2.0
"""Location of a network's reservations: not inside another network's directory, and not in a directory with another purpose."""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.cni.netconf import invalid
from kubenode.host.datadir import LAST_RESERVED, LOCK
from kubenode.ipam.address import address_of

# A directory can harm by its name alone: /etc/cni/kube-node.conf forbids all paths, /etc/nologin all logins.
CONFIGURATION = "/etc"


def require(directory: str, run_dir: str) -> None:
    """Raise CNIError 7 if a network's directory without a lock is in another network's or our own, or contains other files."""
    parent = os.path.realpath(os.path.dirname(directory))
    for place in (CONFIGURATION, os.path.realpath(run_dir)):
        if os.path.commonpath([parent, place]) == place:
            raise invalid([f"dataDir is in {place}, which is for other files"])
    while True:
        if os.path.isfile(os.path.join(parent, LOCK)):
            raise invalid([f"dataDir is in {parent}, which is a network's directory"])
        if parent == os.path.dirname(parent):
            break
        parent = os.path.dirname(parent)
    try:
        with os.scandir(directory) as entries:
            other = next((entry.name for entry in entries if not _is_ours(entry.name)), None)
    except OSError as error:
        if not files.is_nowhere(error):
            raise
        return
    if other is not None:
        raise invalid([f"{directory} has {other!r} in it, so it is no network's directory"])


def _is_ours(name: str) -> bool:
    return name == LOCK or name.startswith(LAST_RESERVED) or address_of(name) is not None
