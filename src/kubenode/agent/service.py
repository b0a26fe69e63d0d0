# SPDX-License-Identifier: Apache-2.0
"""Agent process: its tasks, from start to end."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.agent import ownnode, protocol
from kubenode.agent.apiaccess import ApiAccess
from kubenode.agent.configuration import Configuration
from kubenode.agent.credentials import keep_credentials
from kubenode.agent.host import AgentHost, ReadOnlyAgentHost, Stores
from kubenode.agent.housekeeping import EVERY, Housekeeping
from kubenode.agent.labels import NamespaceLabels
from kubenode.agent.listener import Listener
from kubenode.agent.metrics import AgentMetrics
from kubenode.agent.networks import Networks
from kubenode.agent.nodeaddresses import NodeAddresses, Parts
from kubenode.agent.nodeevents import NodeEvents
from kubenode.agent.notify import Notifier
from kubenode.agent.reclaim import GRACE, Mode, Reclaimer
from kubenode.agent.server import Server
from kubenode.base.exposition import HTTPServer
from kubenode.base.workers import Round, Workers
from kubenode.host import identity
from kubenode.host.boot import Boot
from kubenode.host.nodeview import NodeView
from kubenode.host.permitted import Permitted
from kubenode.host.root import HostRoot
from kubenode.kube.loadingrules import SERVICE_ACCOUNT
from kubenode.plugins import skel
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from kubenode.agent.server import CallObserver
    from kubenode.base.log import Log
    from kubenode.kube.reflector import Reflector
    from kubenode.nodes.node import Node

DRAIN = 13.0  # seconds at the end for running calls; each has 12
SWEEP = 0.25  # seconds between checks for calls at their deadline
LOOK = 2.0  # seconds between checks whether the socket's path is still ours
BEAT = 2.5  # seconds between heartbeats
ALIVE = 10.0  # seconds that one turn of the event loop may take
PATIENCE = 2.0  # seconds that a scrape or a housekeeping pass waits for networks with a held lock


class AgentOptions(NamedTuple):
    """Options of an agent. Paths are the host's, except `kubeconfig`. `listen`: host and port, None for no HTTP.

    `wait`: first let another agent end that owns the socket. `ipv4_label`: the namespaces' label that gives IPv4, "" for none.
    `node_addresses`: report the use of addresses.
    """

    run_dir: str
    socket: str
    config_dir: str
    host_root: str = ""
    kubeconfig: str = ""
    node_file: str = ""
    listen: tuple[str, int] | None = None
    reclaim: Mode = Mode.ON
    grace: float = GRACE
    credentials: str = ""
    every: float = EVERY
    wait: bool = False
    ipv4_label: str = ""
    node_addresses: bool = False


class Agent:
    """One agent. Raises CNIError if it cannot start."""

    def __init__(self, options: AgentOptions, environ: Mapping[str, str], log: Log) -> None:
        self._options = options
        self._environ = environ
        self._log = log
        self._root = HostRoot(options.host_root)
        self._run_dir = self._root.seen(options.run_dir, "run directory")
        os.makedirs(self._run_dir, 0o755, exist_ok=True)
        socket_dir = self._root.seen(os.path.dirname(os.path.abspath(options.socket)), "directory of the socket")
        os.makedirs(socket_dir, 0o755, exist_ok=True)
        self._listener = Listener(os.path.join(socket_dir, os.path.basename(options.socket)))
        self._metrics = AgentMetrics()
        self._own = ownnode.OwnNode(NodeView(self._run_dir, f"kube-node agent {VERSION}", log), log)
        seen_environ = {**environ, "KUBE_NODE_RUN_DIR": self._run_dir}
        self._api = ApiAccess(options.kubeconfig, seen_environ, self._own, self._root, self._metrics, log)
        self._stores = Stores(self._root, Boot(self._run_dir, self._machine_id))
        self._permitted = Permitted(self._root, environ, unread=("kubeconfig",))
        self._labels = NamespaceLabels(options.ipv4_label, log)
        self._workers = Workers()
        self._networks = Networks(log)
        self._configuration = Configuration(self._root.path(options.config_dir), log)
        self._notifier = Notifier(environ)
        self._turn = time.monotonic()
        self._http: HTTPServer | None = None
        self._reclaimer = self._make_reclaimer()
        self._addresses = self._make_addresses() if options.node_addresses and not options.node_file else None
        self._phase = "the agent is starting"  # why it does not serve; "" while it serves

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then answer the remaining calls."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if not await self._listener.take(stop, self._log, wait=self._options.wait):
            return
        _raise_file_limit()
        self._serve_http()
        listening = self._listener.listen(self._environ)
        jobs = self._node_jobs()
        if directory := self._options.credentials:
            jobs.append(keep_credentials(self._root.seen(directory, "credentials"), SERVICE_ACCOUNT, self._log))
        observers: list[CallObserver] = [self._metrics]
        if not self._options.node_file:
            events = NodeEvents(lambda: self._own.node, self._lacking, self._api.cluster, self._log)
            observers.append(events)
            jobs.append(events.run())
            if self._labels.key:
                jobs.append(self._labels.follow(self._api.cluster, self._metrics.restarted))
        if self._addresses:
            observers.append(self._addresses)
            jobs.append(self._addresses.run())
        server = Server(listening, self._host, self._networks, self._environ, self._log, observers, self._questions())
        server.start()
        self._phase = ""
        self._configuration.start(self._served, self._unready)
        tasks = [asyncio.create_task(job) for job in (self._beat(server), self._stay_reachable(server), *jobs)]
        self._housekeeping().start()
        stopped = asyncio.create_task(stop.wait())
        gc.freeze()  # imported objects stay for ever: collecting them again and again takes a fifteenth of a call
        self._log.info("agent started", version=VERSION, socket=self._options.socket)
        self._notifier.tell(READY="1", STATUS=self._status())
        try:
            done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()  # a task ends only by a bug
        finally:
            self._phase = "the agent is stopping"
            self._notifier.tell(STOPPING="1")
            left = await server.drain(self._listener.leave(), DRAIN)
            for task in [stopped, *tasks]:
                task.cancel()
            server.close()
            if self._http:
                self._http.close()
            self._listener.end()
            self._log.info("agent stopped", unanswered=left)

    def _node_jobs(self) -> list[Coroutine[Any, Any, None]]:
        """Return the tasks that keep our Node current: following a manifest that a person writes, or the watch."""
        if file := self._options.node_file:
            return [self._own.follow_file(self._root.path(file), file), self._own.keep_view()]
        if self._own.start_from_view():
            return [self._own.follow_file(os.path.join(self._run_dir, "node.json"), os.path.join(self._options.run_dir, "node.json"))]
        watch = self._watch()
        starting = watch.failure
        self._own.why = lambda: None if watch.failure is starting else watch.failure
        return [watch.run(), self._own.keep_view()]

    def _watch(self) -> Reflector:
        from kubenode.agent.watch import OwnNodeSource  # loads HTTP and TLS, not needed with --node-file
        from kubenode.kube.reflector import Reflector

        source = OwnNodeSource(self._api.node, self._api.cluster, self._own.publish, self._log, self._metrics.requested)
        return Reflector(source, self._log, self._metrics.restarted)

    def _make_reclaimer(self) -> Reclaimer | None:
        options = self._options
        if options.reclaim is Mode.OFF:
            return None
        connect = None if options.node_file else self._api.pods
        common = (self._root, self._run_dir, self._stores, self._round(), connect, self._log, self._metrics)
        return Reclaimer(*common, options.reclaim, options.grace)

    def _make_addresses(self) -> NodeAddresses:
        leaks = self._reclaimer.suspected if self._reclaimer else lambda: 0
        parts = Parts.of(self._root, self._run_dir, self._networks, self._stores, self._round(), leaks)
        return NodeAddresses(self._own, parts, self._api.cluster, self._log)

    def _round(self) -> Round:
        return Round(self._workers, self._log, PATIENCE)

    def _housekeeping(self) -> Housekeeping:
        config_dir, every = self._root.path(self._options.config_dir), self._options.every
        return Housekeeping(self._networks, self._stores, self._round(), self._reclaimer, self._run_dir, config_dir, self._log, every)

    def _serve_http(self) -> None:
        """Serve metrics and health until the process ends."""
        if self._options.listen is None:
            return
        ask = self._round()
        self._metrics.show_node(lambda: self._own.seen)
        looking = ReadOnlyAgentHost(self._root, self._permitted, self._run_dir, self._stores, self._own, self._labels)
        self._metrics.show_usage(lambda: self._networks.usages(ask, self._environ, looking))
        self._metrics.show_ready(self._unready)
        self._metrics.show_log(lambda: self._log.dropped)
        self._http = HTTPServer(self._options.listen, self._metrics.registry, {"/healthz": self._ill, "/readyz": self._unready}, self._log)
        self._http.start()

    async def _beat(self, server: Server) -> None:
        """Answer calls at their deadline, note the loop's turns, and notify systemd."""
        pause = min(BEAT, (self._notifier.watchdog or BEAT) / 2)
        told = 0.0
        while True:
            server.sweep()
            self._turn = time.monotonic()
            if self._turn - told >= pause:
                self._notifier.tell(WATCHDOG="1", STATUS=self._status())
                told = self._turn
            await asyncio.sleep(SWEEP)

    async def _stay_reachable(self, server: Server) -> None:
        """Create the socket again after somebody removed its path."""
        while not self._phase:
            before = self._listener.problem
            if listener := self._listener.look():
                server.move(listener)
                self._log.warning("socket recreated after its removal", socket=self._options.socket)
            elif self._listener.problem not in {"", before}:
                self._log.error("socket unreachable for relays", error=self._listener.problem)
            await asyncio.sleep(LOOK)

    def _ill(self) -> str:
        silent = time.monotonic() - self._turn
        return f"the event loop has not turned for {silent:.0f} s" if silent > ALIVE else self._listener.problem

    def _unready(self) -> str:
        if self._phase:
            return self._phase
        if self._own.node is None:
            return str(self._own.why() or "the Node is not known yet")
        return self._lacking() or self._ill() or self._configuration.problem

    def _served(self) -> Node | None:
        """Return our Node while calls are served, otherwise None."""
        return None if self._phase or self._ill() else self._own.node

    def _lacking(self) -> str:
        return self._configuration.lacks(self._own.node) if self._own.node else ""

    def _questions(self) -> dict[str, Callable[[], tuple[int, bytes]]]:
        """Return the questions answered on the socket: health, as another program may have the HTTP port, and all problems."""

        def answered(check: Callable[[], str]) -> tuple[int, bytes]:
            problem = check()
            return (1, skel.answer({"msg": problem})) if problem else (0, b"")

        return {
            protocol.HEALTHZ: lambda: answered(self._ill),
            protocol.READYZ: lambda: answered(self._unready),
            protocol.PROBLEMS: lambda: (0, skel.answer({"problems": self._problems()})),
        }

    def _problems(self) -> list[str]:
        """Return all problems, even those that keep no pod from an address."""
        why = self._own.why()
        return _distinct(self._unready(), str(why) if why else "", *self._shortcomings())

    def _shortcomings(self) -> tuple[str, ...]:
        return self._listener.problem, self._configuration.problem, self._http.problem if self._http else ""

    def _status(self) -> str:
        own, why = self._own.node, self._own.why()
        problems = _distinct(why.msg if why else self._lacking(), *self._shortcomings())
        return "; ".join([f"Node {own.name}" if own else "Node not known", *problems])

    def _machine_id(self) -> str:
        """Return the host's machine-id. A container sees only its image's: then the one that the kubelet reported counts."""
        own = self._own.node
        return identity.host_machine_id(self._root) or (own.machine_id if own else "")

    def _host(self, before: Callable[[], None] = lambda: None, *, keep: bool = False) -> AgentHost:
        here = (self._root, self._permitted, self._run_dir, self._stores, self._own, self._labels)
        return AgentHost(*here, before, keep=keep, growth=self._addresses, config_dir=self._options.config_dir)


def _distinct(*texts: str) -> list[str]:
    return list(dict.fromkeys(filter(None, texts)))


def _raise_file_limit() -> None:
    """Allow as many file descriptors as possible: each starting pod needs one for its connection."""
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a system call filter forbids it: then the limit is intended, too
        pass
