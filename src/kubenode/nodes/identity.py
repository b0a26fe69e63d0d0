"""PURE. Which Node is ours. A known name takes one GET; a LIST of all is the last resort."""

from __future__ import annotations

from kubenode.base.record import NamedTuple
from kubenode.cni.errors import FORBIDDEN, MACHINE_ID_AMBIGUOUS, NODE_NOT_FOUND, CNIError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    Manifest = dict[str, Any]

    class Nodes(Protocol):
        """Questions to an API server."""

        def own_name(self) -> str: ...
        def node(self, name: str) -> Manifest | None: ...
        def nodes(self) -> Iterator[Manifest]: ...


class Identity(NamedTuple):
    """This host's knowledge of itself; "" for what it does not know. `guesses` are names that count only with our machine-id.

    `name_file` is where an administrator may write the name.
    """

    name: str
    name_source: str
    guesses: tuple[str, ...]
    machine_id: str
    name_file: str = "/run/kube-node/nodename"


def other_machine(manifest: Manifest, identity: Identity) -> str:
    """Say that a Node which somebody named is another machine's than ours; "" where it is not, or nobody can tell."""
    machine = _machine_id(manifest)
    if not identity.name or not machine or not identity.machine_id or machine == identity.machine_id:
        return ""
    return (
        f"{identity.name_source} says that Node {identity.name} is this host's, but that has the machineID {machine}, "
        f"and this host {identity.machine_id}"
    )


def own_node(api: Nodes, identity: Identity) -> Manifest:
    """Find our Node: by its name, by whose our credentials are, by a guessed name, by the machine-id alone. Raises CNIError."""
    if identity.name:
        found = api.node(identity.name)
        if found is None:
            raise CNIError(
                NODE_NOT_FOUND,
                f"there is no Node {identity.name}",
                f"{identity.name_source} says that this is its name; correct it, or wait until the kubelet has registered the node",
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
        if found is not None and _machine_id(found) == identity.machine_id:
            return found
    return _by_machine_id(api, identity)


def _by_credentials(api: Nodes, identity: Identity) -> Manifest | None:
    """Return the Node that our credentials are of. Credentials that were copied from another machine are no proof."""
    name = api.own_name()
    found = api.node(name) if name else None
    if name and found is None:
        raise CNIError(
            NODE_NOT_FOUND,
            f"there is no Node {name}",
            "our credentials are of it: the kubelet has to register it, or set NODE_NAME",
        )
    if found is not None and identity.machine_id and _machine_id(found) not in ("", identity.machine_id):
        return None
    return found


def _node_if_allowed(api: Nodes, name: str) -> Manifest | None:
    """GET a Node under a guessed name: rights may end at our own, whose name it may not be."""
    try:
        return api.node(name)
    except CNIError as error:
        if error.code != FORBIDDEN:
            raise
        return None


def _by_machine_id(api: Nodes, identity: Identity) -> Manifest:
    machine_id = identity.machine_id
    found = [node for node in api.nodes() if _machine_id(node) == machine_id]
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
            "to guess would give two nodes the same pod addresses",
        )
    return found[0]


def _machine_id(manifest: Manifest) -> str:
    return str(((manifest.get("status") or {}).get("nodeInfo") or {}).get("machineID", ""))
