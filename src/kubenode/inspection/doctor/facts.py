# SPDX-License-Identifier: Apache-2.0
"""Facts for the checks, each looked up at its first use. This changes nothing, and sends the API server a few requests."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from kubenode.cni.errors import CNIError
from kubenode.host import cniconfig, identity
from kubenode.inspection import agentprobe, networks
from kubenode.inspection.doctor.executables import Executable, executables
from kubenode.inspection.locations import ReadOnlyHost
from kubenode.inspection.records import Records
from kubenode.inspection.report import NodeSeen, see_node
from kubenode.nodes import node
from kubenode.nodes.identity import Identity, own_node
from kubenode.plugins import node_annotation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from kubenode.host.cniconfig import File, Network
    from kubenode.host.readonly import Held
    from kubenode.inspection.agentprobe import AgentCredentials, AgentStatus
    from kubenode.inspection.locations import Locations
    from kubenode.inspection.named import Configured
    from kubenode.inspection.networks import StoredNetwork
    from kubenode.kube.client import ApiServer
    from kubenode.nodes.node import Node

    T = TypeVar("T")

PATIENCE = 4.0  # seconds for all requests of one check to an API server


class Facts:
    """The facts of one node."""

    def __init__(self, locations: Locations) -> None:
        self.locations = locations

    @cached_property
    def runtime_files(self) -> list[File]:
        """The runtime's own configuration, in its order."""
        return networks.runtime_files(self.locations)

    @cached_property
    def pods_network(self) -> tuple[File, Network] | None:
        """The network that the runtime connects every pod to, and its file."""
        return cniconfig.of_pods(self.runtime_files)

    @cached_property
    def configured(self) -> list[Configured]:
        """Every network configuration with one of our plugins, also two of the same network."""
        return [*networks.of_runtime(self.locations), *self.locations.named.configured]

    @cached_property
    def networks(self) -> list[StoredNetwork]:
        """Every network, by the API server's Node if it answers, else by the Node view."""
        return networks.find(self.locations, self.records, self.fresh)

    @cached_property
    def records(self) -> Records:
        """The records of attachments."""
        return Records(self.locations)

    @cached_property
    def held(self) -> dict[str, list[Held]]:
        """The reservations of each directory, in the order of addresses."""
        directories = {network.store.directory: network.store for network in self.networks}
        return {directory: sorted(store.held(), key=lambda one: one.address) for directory, store in directories.items()}

    @cached_property
    def agent(self) -> AgentStatus:
        """The agent's answer."""
        return agentprobe.ask(self.locations)

    @cached_property
    def seen(self) -> NodeSeen:
        """The Node view."""
        return see_node(self.locations)

    @cached_property
    def executables(self) -> list[Executable]:
        """Our own executables in the CNI bin directories."""
        return executables([self.locations.root.path(directory) for directory in self.locations.bin_dirs])

    @cached_property
    def kubeconfigs(self) -> list[str]:
        """The kubeconfigs of plugins, "" for the default one; none if no plugin asks the API server."""
        if self.why_no_api:
            return []
        if self.locations.kubeconfig:
            return [self.locations.kubeconfig]
        named = {self.kubeconfig_of(one): None for one in self.configured if self.asks(one)}
        return list(named)

    @cached_property
    def why_no_api(self) -> str:
        """The reason why nothing on this node asks the API server; "" if something does."""
        if not any(self.asks(one) for one in self.configured):
            return "no network of this node takes anything from the API server"
        if self.seen.view and self.seen.view.fetched is None:
            return f"{self.seen.path} is written by hand: the API server is not asked"
        if self.agent.up and not self.locations.kubeconfig and not any(self.kubeconfig_of(one) for one in self.configured):
            found = self.agent_credentials
            return found if isinstance(found, str) else "the agent asks the API server, with credentials of its own: see agent-rights"
        return ""

    @staticmethod
    def asks(configured: Configured) -> bool:
        """Say whether a network's plugin asks the API server."""
        return configured.ipam.get("type") in cniconfig.TAKE_NODES and not configured.ipam.get("nodeFile")

    def kubeconfig_of(self, configured: Configured) -> str:
        """Return a network's kubeconfig, "" if it is not allowed: a definition is a tenant's, and a kubeconfig can name a program."""
        if named := configured.ipam.get("kubeconfig"):
            try:
                self.locations.permitted.require("kubeconfig", str(named))
            except CNIError:  # `networks` reports it
                return ""
            return str(named)
        if configured.ipam.get("type") == "node-annotation":
            try:
                return node_annotation.config_file(self.locations.environ, ReadOnlyHost(self.locations)).get("kubeconfig", "")
            except CNIError:
                return ""
        return ""

    @contextmanager
    def api(self, kubeconfig: str) -> Iterator[ApiServer]:
        """Open a connection to the API server. Raises CNIError."""
        from kubenode.kube.client import ApiServer

        path = self.locations.root.path(kubeconfig) if kubeconfig and kubeconfig != self.locations.kubeconfig else kubeconfig
        server = ApiServer(path or None, self.locations.environ, PATIENCE, context=self.locations.context)
        try:
            yield server
        finally:
            server.close()

    def ask(self, kubeconfig: str, question: Callable[[ApiServer], T]) -> T:
        """Ask the API server, with a limit of time. Raises CNIError."""
        from kubenode.kube.client import within

        def call() -> T:
            with self.api(kubeconfig) as server:
                return question(server)

        return within(PATIENCE, call)

    @cached_property
    def agent_credentials(self) -> AgentCredentials | str:
        """The credentials of a running agent; a text is the reason why they are unknown."""
        if not self.agent.up:
            return "no agent answers"
        if self.seen.view is not None and self.seen.view.fetched is None:
            return f"{self.seen.path} is written by hand: the agent does not ask the API server"
        return agentprobe.credentials(self.agent)

    def ask_as(self, found: AgentCredentials, question: Callable[[ApiServer], T]) -> T:
        """Ask the API server with the agent's own credentials. Raises CNIError."""
        from kubenode.kube.client import ApiServer, within

        def call() -> T:
            server = ApiServer(found.kubeconfig or None, found.environ, PATIENCE, found.service_account)
            try:
                return question(server)
            finally:
                server.close()

        return within(PATIENCE, call)

    @cached_property
    def identity(self) -> Identity:
        """The identity of this host, as far as the host knows it."""
        given, source = identity.given_name(self.locations.environ, self.locations.run)
        seen = (self.seen.node.name,) if self.seen.node else ()
        guesses = dict.fromkeys([*seen, *identity.noted_names(self.locations.run), identity.host_name()])
        machine = identity.host_machine_id(self.locations.root)
        return Identity(given, source, tuple(guesses), machine, identity.name_file(self.locations.run))

    @cached_property
    def asked(self) -> dict[str, Node | CNIError]:
        """The answer of each kubeconfig's API server about the own Node."""
        answers: dict[str, Node | CNIError] = {}
        for kubeconfig in self.kubeconfigs:
            try:
                answers[kubeconfig] = node.parse(self.ask(kubeconfig, lambda server: own_node(server, self.identity)), node.ANSWER)
            except CNIError as error:
                answers[kubeconfig] = error
        return answers

    @cached_property
    def fresh(self) -> Node | None:
        """The own Node from the API server; None if it was not asked, or did not know."""
        return next((answer for answer in self.asked.values() if not isinstance(answer, CNIError)), None)

    @cached_property
    def node(self) -> Node | None:
        """The own Node: the API server's, else that of the Node view."""
        return self.fresh or self.seen.node

    def is_secondary(self, configured: Configured) -> bool:
        """Say whether a network is not the pods' network."""
        found = self.pods_network
        return found is None or (configured.path, configured.name) != (found[0].path, found[1].name)

    def bin_dir(self) -> str:
        """Return the directory for our executables, as the host names it."""
        return self.locations.bin_dirs[0]
