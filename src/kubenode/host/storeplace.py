"""The place of a network's reservations: not inside of another network's directory, and in none that is something else's."""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.cni.netconf import invalid
from kubenode.host.datadir import LAST_RESERVED, LOCK
from kubenode.ipam.address import address_of

# A directory there, by the right name, does as a file: with /etc/cni/kube-node.conf no network has a log, with nologin no user logs in.
CONFIGURATION = "/etc"


def require(directory: str, run_dir: str) -> None:
    """Raise CNIError 7 where a network's directory, which has no lock yet, is in another's or our own, or has other things in it."""
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
