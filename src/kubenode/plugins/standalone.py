# SPDX-License-Identifier: Apache-2.0
"""Host of a plugin that the runtime starts, and the sources of its Node: a file, the view, an API server."""

from __future__ import annotations

import os
import sys

from kubenode.base import files
from kubenode.base.record import NamedTuple
from kubenode.cni.errors import INSTALLATION, NODE_INVALID, CNIError
from kubenode.host import identity
from kubenode.host.attachments import Attachments
from kubenode.host.boot import Boot
from kubenode.host.datadir import DiskStore, wait_for
from kubenode.host.nodeview import DEFAULT_RUN_DIR, NodeView
from kubenode.host.sources import Sources
from kubenode.nodes import node
from kubenode.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from kubenode.base.log import Log
    from kubenode.host.permitted import Permitted
    from kubenode.nodes.node import Node

    T = TypeVar("T")


class Standalone:
    """`skel.Host` without an agent. `wait` waits for a network's lock, as in `DiskStore`."""

    execs = True
    config_dir = ""

    def __init__(self, environ: Mapping[str, str], wait: Callable[[int, str], bool] = wait_for) -> None:
        self._environ = environ
        self._wait = wait
        self._permitted: Permitted | None = None

    @property
    def permitted(self) -> Permitted:
        from kubenode.host.permitted import Permitted  # only configurations with paths of the host need it
        from kubenode.host.root import HostRoot

        if self._permitted is None:
            self._permitted = Permitted(HostRoot(), self._environ)
        return self._permitted

    def path(self, path: str) -> str:
        return path

    def store(self, data_dir: str, network: str) -> DiskStore:
        return DiskStore(data_dir, network, Boot(run_dir(self._environ)), self._wait)

    def attachments(self, network: str) -> Attachments:
        return Attachments(run_dir(self._environ), network)

    def sources(self) -> Sources:
        return Sources(run_dir(self._environ))

    def may_have(self, netns: str) -> bool:
        return netns.startswith("/") and os.path.lexists(netns)

    def ipv4_label(self, namespace: str, log: Log) -> bool | None:
        log.info("ipv4-namespaces decides: only an agent knows the namespaces' labels", namespace=namespace)
        return None

    def node(self, options: NodeOptions, choose: Callable[[Node], T], log: Log) -> T:
        return select(options, choose, self._environ, log)

    def wait_for_more(self, full: CNIError, annotation: str, choose: Callable[[Node], T], had: T) -> None:  # noqa: ARG002 -- skel.Host
        raise full  # only an agent knows whether a controller gives more


REFRESH_AFTER = 300.0  # seconds
API_TIMEOUT = 10.0  # seconds for all requests to the API server in one call
RENEWAL_TIMEOUT = 3.0  # seconds if an old view can serve instead: a pod should not wait for a silent API server
LARGEST = 1 << 20  # bytes of a Node manifest; the API server accepts no more
SINGLE_WAIT = 0.8  # share of that for each single wait, so that a hanging credential plugin ends before its caller


class NodeOptions(NamedTuple):
    """Source of the Node in a configuration; `node_file` is this process's path for the configuration's `node_file_label`."""

    kubeconfig: str = ""
    node_file: str = ""
    node_file_label: str = ""
    refresh_after: float = REFRESH_AFTER


def run_dir(environ: Mapping[str, str]) -> str:
    """Return the run directory, whose files last until the next boot."""
    return environ.get("KUBE_NODE_RUN_DIR") or DEFAULT_RUN_DIR


def select(options: NodeOptions, choose: Callable[[Node], T], environ: Mapping[str, str], log: Log) -> T:
    """Return the result of `choose` on our Node, from the freshest source that answers. Raises CNIError."""
    if options.node_file:
        return choose(from_file(options))
    view = NodeView(run_dir(environ), f"kube-node {VERSION}", log, options.kubeconfig)

    def renew() -> Node:
        seen = view.read()
        guesses = (seen.node.name,) if seen else ()
        timeout = RENEWAL_TIMEOUT if seen else API_TIMEOUT
        return node.parse(fetch(options.kubeconfig, environ, guesses=guesses, timeout=timeout, complain=log.error), node.ANSWER)

    return view.get(choose, renew, options.refresh_after)


def fetch(
    kubeconfig: str,
    environ: Mapping[str, str],
    name: str = "",
    guesses: tuple[str, ...] = (),
    timeout: float = API_TIMEOUT,
    machine_id: str | None = None,
    complain: Callable[[str], None] = lambda _: None,
    option: str = "ipam.kubeconfig",
) -> dict[str, Any]:
    """Return the manifest of our own Node, or the one with this name, from the API server. Raises CNIError; ends within `timeout` seconds.

    `machine_id` is the host's, if it is not visible here. `complain` is called if the Node has another machine-id. `option` names a
    kubeconfig, for advice in errors.
    """
    from kubenode.nodes.identity import Identity, machine_id_of, other_machine, own_node

    try:
        from kubenode.kube import client  # loads HTTP and TLS: a hundred times the cost of an ADD
    except ImportError as error:  # compiled parts need their own minor version of Python
        raise CNIError(
            INSTALLATION,
            f"{sys.executable} cannot load the API client: {error}",
            "install all of a kube-node that was built for this version of Python; or run the agent, which brings its own",
        ) from None

    directory = run_dir(environ)
    given, source = (name, "the command line") if name else identity.given_name(environ, directory)
    known = dict.fromkeys([*guesses, *identity.noted_names(directory), identity.host_name()])
    machine = identity.machine_id() if machine_id is None else machine_id
    myself = Identity(given, source, tuple(known), machine, identity.name_file(directory))

    def ask() -> dict[str, Any]:
        server = client.ApiServer(kubeconfig or None, environ, timeout * SINGLE_WAIT, option=option)
        try:
            return own_node(server, myself)
        finally:
            server.close()

    found = client.within(timeout, ask)
    if not name and (problem := other_machine(machine_id_of(found), myself)):
        complain(problem)
    return found


def from_file(options: NodeOptions) -> Node:
    """Return the Node in the manifest of a configuration. Raises CNIError."""
    label = options.node_file_label
    try:
        text = files.read_exactly(options.node_file, LARGEST)
    except OSError as error:
        raise CNIError(NODE_INVALID, f"nodeFile {label}: {error.strerror}", "write a Node manifest there, or remove nodeFile") from None
    return node.parse(node.decode(text, label), label)
