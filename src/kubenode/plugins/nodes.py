"""Where a plugin's Node comes from when there is no agent: a file, the Node view, or an API server."""

from __future__ import annotations

from kubenode.cni.errors import NODE_INVALID, CNIError
from kubenode.cni.record import NamedTuple
from kubenode.host import files, identity
from kubenode.host.nodeview import DEFAULT_RUN_DIR, NodeView
from kubenode.kube import node
from kubenode.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from kubenode.host.log import Log
    from kubenode.kube.node import Node

    T = TypeVar("T")

REFRESH_AFTER = 300.0  # seconds
API_TIMEOUT = 10.0  # seconds for all requests of one call; the runtime waits for the rest of its pods too


class NodeOptions(NamedTuple):
    """What a configuration says of where the Node is."""

    kubeconfig: str = ""
    node_file: str = ""
    refresh_after: float = REFRESH_AFTER


def run_dir(environ: Mapping[str, str]) -> str:
    """Return the directory of what lasts until the next boot."""
    return environ.get("KUBE_NODE_RUN_DIR") or DEFAULT_RUN_DIR


def select(options: NodeOptions, choose: Callable[[Node], T], environ: Mapping[str, str], log: Log) -> T:
    """Return what `choose` finds in our Node, from the freshest source that answers. Raises CNIError."""
    if options.node_file:
        return choose(_from_file(options.node_file))
    view = _view(environ, log)
    return view.get(lambda manifest: choose(node.parse(manifest, view.path)), lambda: _ask(options, view, environ), options.refresh_after)


def select_known(options: NodeOptions, choose: Callable[[Node], T], environ: Mapping[str, str], log: Log) -> T | None:
    """Return what `choose` finds in what is on this host, of any age; None where it finds nothing. Never asks an API server."""
    try:
        if options.node_file:
            return choose(_from_file(options.node_file))
        view = _view(environ, log)
        known = view.read()
        return choose(node.parse(known.manifest, view.path)) if known else None
    except (CNIError, OSError) as error:
        log.debug("no Node is known", error=str(error))
        return None


def _view(environ: Mapping[str, str], log: Log) -> NodeView:
    return NodeView(run_dir(environ), node.decode, f"kube-node {VERSION}", log)


def _from_file(path: str) -> Node:
    try:
        text = files.read(path)
    except OSError as error:
        raise CNIError(NODE_INVALID, f"nodeFile {path}: {error.strerror}", "write a Node manifest there, or remove nodeFile") from None
    return node.parse(node.decode(text, path), path)


def _ask(options: NodeOptions, view: NodeView, environ: Mapping[str, str]) -> dict[str, Any]:
    from kubenode.kube import client  # brings lightkube and TLS: a hundred times what an ADD costs
    from kubenode.kube.identity import Identity, own_node

    name, source = identity.given_name(environ, run_dir(environ))
    known = view.read()
    seen_as = [node.parse(known.manifest, view.path).name] if known else []
    myself = Identity(name, source, tuple(dict.fromkeys([*seen_as, identity.host_name()])), identity.machine_id())
    return client.within(
        API_TIMEOUT, lambda: node.reduce(own_node(client.ApiServer(options.kubeconfig or None, environ, API_TIMEOUT), myself))
    )
