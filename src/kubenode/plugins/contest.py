# SPDX-License-Identifier: Apache-2.0
"""Assignment of a source of addresses to a network, at the network's first ADD.

The first network that asks gets it, unless the runtime's own configuration, which is the administrator's, gives it to another. So a
NetworkAttachmentDefinition without `annotation` cannot stop a node's pods by being first after a reboot.
"""

from __future__ import annotations

import os

from kubenode.cni.errors import SOURCE_TAKEN, CNIError
from kubenode.host import cniconfig
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.plugins.options import source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kubenode.plugins.skel import Call


def settle(call: Call, source: str, mine: str) -> None:
    """Assign a source to this network. Raises CNIError if another network has reservations of it or must get it; OSError."""

    def if_unused(other: str, do: Callable[[], None]) -> bool:
        data_dir, _, network = other.rpartition("/")
        try:
            return call.host.store(data_dir, network).if_unused(do)
        except (CNIError, OSError):  # an invisible store may have some
            return False

    configured = _configured(call, source)
    if configured and _place(call.netconf.name, call.netconf.ipam) not in configured:
        raise _taken(call, source, configured[0], "is for", "", "")
    holder = call.host.sources().take(source, mine, if_unused)
    if holder != mine:
        _, _, network = holder.rpartition("/")
        takes_over = (
            f"; once {network} has no reservation left (kube-node status, kube-node gc) and nothing holds its lock, this one takes over"
        )
        raise _taken(call, source, holder, "serves", " already", takes_over)


def _taken(call: Call, source: str, place: str, does: str, already: str, then: str) -> CNIError:
    data_dir, _, network = place.rpartition("/")
    return CNIError(
        SOURCE_TAKEN,
        f"{source} {does} network {network} in dataDir {data_dir}{already}, and cannot also serve {call.netconf.name}",
        f"give both the same name and dataDir, or this one another annotation{then}",
    )


def _configured(call: Call, source: str) -> list[str]:
    """Return the directories of the networks with this source in the runtime's configuration."""
    found = cniconfig.netconfs(call.host.path(call.host.config_dir or cniconfig.DEFAULT_CONFIG_DIR), cniconfig.TAKE_NODES)
    return [_place(conf.get("name"), conf["ipam"]) for conf in found if _source(conf["ipam"]) == source]


def _source(ipam: dict[str, Any]) -> str:
    return source_of(str(ipam.get("annotation") or ""), str(ipam.get("nodeFile") or ""))


def _place(network: object, ipam: dict[str, Any]) -> str:
    """Return a network's directory by its configuration; an annotation may name another."""
    return os.path.normpath(os.path.join(str(ipam.get("dataDir") or DEFAULT_DATA_DIR), str(network)))
