# SPDX-License-Identifier: Apache-2.0
"""PURE. The search for the own Node. A known name takes one GET; a LIST of all Nodes is the last resort."""

from __future__ import annotations

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import FORBIDDEN, MACHINE_ID_AMBIGUOUS, NODE_NOT_FOUND, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    Manifest = dict[str, Any]

    class NodeLister(Protocol):
        """Requests to an API server."""

        def own_name(self) -> str: ...
        def node(self, name: str) -> Manifest | None: ...
        def nodes(self) -> Iterator[Manifest]: ...


class Identity(NamedTuple):
    """Identity of this host; "" for anything unknown. `guesses` are names that need the same machine-id as proof.

    An administrator may write the name to `name_file`.
    """

    name: str
    name_source: str
    guesses: tuple[str, ...]
    machine_id: str
    name_file: str = "/run/kube-node/nodename"


def other_machine(machine: str, identity: Identity) -> str:
    """Return a message if the configured Node, of this machine-id, belongs to another machine; "" if it does not, or if that is unknown."""
    if not identity.name or not machine or not identity.machine_id or machine == identity.machine_id:
        return ""
    return (
        f"{identity.name_source} says that Node {identity.name} is this host, but that Node has the machineID {machine}, "
        f"and this host has {identity.machine_id}"
    )


def own_node(api: NodeLister, identity: Identity) -> Manifest:
    """Find the own Node: by its name, by the credentials, by a guessed name, by the machine-id alone. Raises CNIError."""
    if identity.name:
        found = api.node(identity.name)
        if found is None:
            raise CNIError(
                NODE_NOT_FOUND,
                f"there is no Node {identity.name}",
                f"{identity.name_source} names this Node; correct the name, or wait until the kubelet has registered the node",
            )
        return found
    if (found := _by_credentials(api, identity)) is not None:
        return found
    if not identity.machine_id:
        raise CNIError(
            NODE_NOT_FOUND,
            "own Node not found: this host has no /etc/machine-id",
            f"set NODE_NAME, or write the name to {identity.name_file}",
        )
    for guess in identity.guesses:
        found = _node_if_allowed(api, guess)
        if found is not None and machine_id_of(found) == identity.machine_id:
            return found
    return _bymachine_id_of(api, identity)


def _by_credentials(api: NodeLister, identity: Identity) -> Manifest | None:
    """Return the Node that the credentials belong to; None if they belong to none, or were copied from another machine."""
    name = api.own_name()
    found = api.node(name) if name else None
    if name and found is None:
        raise CNIError(
            NODE_NOT_FOUND,
            f"there is no Node {name}",
            "the credentials belong to it: wait until the kubelet has registered it, or set NODE_NAME",
        )
    if found is not None and identity.machine_id and machine_id_of(found) not in ("", identity.machine_id):
        return None
    return found


def _node_if_allowed(api: NodeLister, name: str) -> Manifest | None:
    """GET a Node by a guessed name; None if the credentials may read only the own Node, and the guess is wrong."""
    try:
        return api.node(name)
    except CNIError as error:
        if error.code != FORBIDDEN:
            raise
        return None


def _bymachine_id_of(api: NodeLister, identity: Identity) -> Manifest:
    machine_id = identity.machine_id
    found = [node for node in api.nodes() if machine_id_of(node) == machine_id]
    if not found:
        raise CNIError(
            NODE_NOT_FOUND,
            f"own Node not found: no Node has machineID {machine_id}",
            f"set NODE_NAME, or write the name to {identity.name_file}; or wait until the kubelet has registered the node",
        )
    if len(found) > 1:
        names = ", ".join(sorted(node["metadata"]["name"] for node in found))
        raise CNIError(
            MACHINE_ID_AMBIGUOUS,
            f"the Nodes {names} have the same machineID {machine_id}",
            "cloned machines: give each its own (systemd-machine-id-setup), or set NODE_NAME on each; "
            "a guess could give two nodes the same pod addresses",
        )
    return found[0]


def machine_id_of(manifest: Manifest) -> str:
    """Return the machine-id of a Node, "" if it has none."""
    return str(((manifest.get("status") or {}).get("nodeInfo") or {}).get("machineID", ""))
