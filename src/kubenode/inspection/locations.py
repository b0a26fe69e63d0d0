# SPDX-License-Identifier: Apache-2.0
"""The paths to look at, and the host as the plugins' code sees it, read-only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from kubenode.base.log import ERROR, Log
from kubenode.base.problem import Problem
from kubenode.cni import netconf, request
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.host import identity
from kubenode.host.attachments import Attachments
from kubenode.host.boot import Boot
from kubenode.host.namespaces import Namespaces
from kubenode.host.nodeview import NodeView
from kubenode.host.permitted import Permitted
from kubenode.host.readonly import ReadOnlyStore
from kubenode.host.sources import Sources
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.plugins import standalone
from kubenode.plugins.skel import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from kubenode.host.cniconfig import File
    from kubenode.host.nodeview import View
    from kubenode.host.root import HostRoot
    from kubenode.inspection.named import Named
    from kubenode.nodes.node import Node

T = TypeVar("T")


class Locations(NamedTuple):
    """Paths of a node, on the host; but `configs` are files of this process, and `named` is their content.

    `runtime_files`: the runtime's configurations; None: they are read at each use.
    """

    root: HostRoot
    run_dir: str
    config_dir: str
    socket: str
    bin_dirs: tuple[str, ...]
    configs: tuple[str, ...]
    kubeconfig: str
    environ: Mapping[str, str]
    named: Named
    context: str = ""  # of the kubeconfig; "" is its current one
    runtime_files: tuple[File, ...] | None = None

    @property
    def run(self) -> str:
        """The path of the run directory for this process."""
        return self.root.path(self.run_dir)

    @property
    def permitted(self) -> Permitted:
        """The administrator's file."""
        return Permitted(self.root, self.environ)

    def store(self, data_dir: str, network: str) -> ReadOnlyStore:
        return ReadOnlyStore(self.root.path(data_dir or DEFAULT_DATA_DIR), network, self.boot)

    @property
    def boot(self) -> Boot:
        """The current boot of the node."""
        return Boot(self.run, self._machine_id)

    def _machine_id(self) -> str:
        if found := identity.host_machine_id(self.root):
            return found
        try:
            view = self.view()
        except (Problem, OSError):  # the code that needs the Node reports it
            return ""
        return view.node.machine_id if view else ""

    def view(self) -> View | None:
        """Return the Node view; None if there is none. Raises Problem if it is broken, OSError if it cannot be read."""
        return NodeView(self.run, "", SILENT).read()


class ReadOnlyHost:
    """A read-only `skel.Host`: the Node is the given one, else that of the view, of any age."""

    execs = False

    def __init__(self, locations: Locations, own: Node | None = None) -> None:
        self._locations = locations
        self._own = own

    @property
    def permitted(self) -> Permitted:
        return self._locations.permitted

    @property
    def config_dir(self) -> str:
        """The host's directory of the runtime's network configurations."""
        return self._locations.config_dir

    def path(self, path: str) -> str:
        return self._locations.root.path(path)

    def store(self, data_dir: str, network: str) -> ReadOnlyStore:
        return self._locations.store(data_dir, network)

    def attachments(self, network: str) -> Attachments:
        return Attachments(self._locations.run, network)

    def sources(self) -> Sources:
        return Sources(self._locations.run)

    def may_have(self, netns: str) -> bool:
        return Namespaces(self._locations.root).may_be_there(netns)

    def wait_for_more(self, full: CNIError, annotation: str, choose: Callable[[Node], T], had: T) -> None:  # noqa: ARG002 -- skel.Host
        raise full

    def ipv4_label(self, namespace: str, log: Log) -> bool | None:  # noqa: ARG002 -- skel.Host
        return None

    def node(self, options: standalone.NodeOptions, choose: Callable[[Node], T], log: Log) -> T:  # noqa: ARG002 -- skel.Host
        if options.node_file:
            return choose(standalone.from_file(options))
        if self._own is not None:
            return choose(self._own)
        view = self._locations.view()
        if view is None:
            path = os.path.join(self._locations.run_dir, "node.json")
            advice = "the first pod's ADD creates it; kube-node doctor asks the API server itself"
            raise CNIError(TRY_AGAIN_LATER, f"there is no Node view {path} yet", advice)
        return choose(view.node)


SILENT = Log("kube-node", ERROR - 1)


def call_for(locations: Locations, raw: dict[str, Any], own: Node | None = None) -> Call:
    """Return a STATUS call of a network's configuration, on this Node or that of the view. Raises Problem if that is invalid."""
    environ = {**locations.environ, "KUBE_NODE_RUN_DIR": locations.run}
    parsed = netconf.parse(raw)
    return Call(request.parse({"CNI_COMMAND": "STATUS"}), parsed, environ, Log("kube-node", ERROR - 1), ReadOnlyHost(locations, own))
