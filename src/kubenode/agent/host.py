# SPDX-License-Identifier: Apache-2.0
"""The agent's view of the host: directories below the host root, stores with an index, the Node in memory."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from kubenode.host.attachments import Attachments
from kubenode.host.datadir import HERE, DiskStore
from kubenode.host.indexed import IndexedStore, Memory
from kubenode.host.namespaces import Namespaces
from kubenode.host.readonly import ReadOnlyStore
from kubenode.host.sources import Sources
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.plugins import standalone

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from kubenode.agent.labels import NamespaceLabels
    from kubenode.agent.nodeaddresses import NodeAddresses
    from kubenode.agent.ownnode import OwnNode
    from kubenode.base.log import Log
    from kubenode.cni.errors import CNIError
    from kubenode.host.boot import Boot
    from kubenode.host.permitted import Permitted
    from kubenode.host.root import HostRoot
    from kubenode.ipam.store import Store
    from kubenode.nodes.node import Node

T = TypeVar("T")

LONGEST_WAIT = 5.0  # seconds from the begin of an ADD that finds its blocks full until it fails, unless more come
LOOK = 0.05  # seconds between looks for them


class Stores:
    """Stores that this agent uses, by data directory and network, with their indexes.

    A call keeps its network's memory, so all calls of a network have the same one. Between calls a memory stays while its directory is
    there and has reservations, as housekeeping finds out. Nothing is kept of networks that do not exist: anybody can name some.
    """

    def __init__(self, root: HostRoot, this_boot: Boot = HERE) -> None:
        self._root = root
        self._boot = this_boot
        self._mutex = threading.Lock()
        self._used: WeakValueDictionary[tuple[str, str], Memory] = WeakValueDictionary()
        self._kept: dict[tuple[str, str], Memory] = {}

    def get(self, data_dir: str, network: str, before: Callable[[], None] = lambda: None, *, keep: bool = False) -> IndexedStore:
        """Return a store; `before` and `keep` as in `IndexedStore`. Raises CNIError if its directory is not visible."""
        place = self._place(data_dir, network)
        here = self._root.seen(data_dir or DEFAULT_DATA_DIR, "dataDir")
        with self._mutex:
            memory = self._used.get(place)
            if memory is None:
                memory = self._used[place] = Memory()

        def locked() -> None:
            self._kept[place] = memory  # now the directory is there
            before()

        store = IndexedStore(here, network, memory, locked, self._boot, keep=keep)
        if place not in self._kept and is_there(store):
            self._kept[place] = memory
        return store

    def again(self, data_dir: str, network: str) -> IndexedStore | None:
        """Return a store; None if its directory is gone, and then keep nothing. Raises CNIError if the directory is not visible."""
        store = self.get(data_dir, network)
        place = self._place(data_dir, network)
        memory = self._kept.pop(place, None)  # first: a call may create the directory after our look, and keeps its memory then
        if not is_there(store):
            return None
        if memory:
            self._kept[place] = memory
        return store

    def drop(self, data_dir: str, network: str) -> None:
        """Keep nothing of a network without reservations, until its next call. Needs its lock."""
        self._kept.pop(self._place(data_dir, network), None)

    def looked_at(self, data_dir: str, network: str) -> DiskStore:
        """Return a store for reading only; unless our plugins use the network, nothing is changed there. Raises CNIError."""
        if self._place(data_dir, network) in self._used:
            return self.get(data_dir, network)
        return ReadOnlyStore(self._root.seen(data_dir or DEFAULT_DATA_DIR, "dataDir"), network, self._boot)

    def known(self) -> list[tuple[str, str]]:
        """Return data directories and networks of the stores that are kept: calls or records of this boot name them, so they are ours."""
        return list(self._kept)

    def _place(self, data_dir: str, network: str) -> tuple[str, str]:
        """Return a network's place, the same one for each path that leads to the data directory."""
        place = data_dir or DEFAULT_DATA_DIR, network
        return place if place in self._kept else (self._root.real(place[0]), network)


def is_there(store: DiskStore) -> bool:
    """Say whether a store's directory exists, and can be looked at."""
    try:
        return store.is_there()
    except OSError:
        return False


class AgentHost:
    """`skel.Host` for one call; `before` is called with a store's lock held, and raises if the call is too late.

    `keep`: a store's lock stays held until the end of a `with` around the call and its answer. No other call comes between a call, its
    answer and, if nobody received that, its undoing: a DEL of the runtime is always before or after all of it.
    """

    execs = False

    def __init__(
        self,
        root: HostRoot,
        permitted: Permitted,
        run_dir: str,
        stores: Stores,
        own: OwnNode,
        labels: NamespaceLabels,
        before: Callable[[], None] = lambda: None,
        *,
        keep: bool = False,
        growth: NodeAddresses | None = None,
        config_dir: str = "",
    ) -> None:
        self.permitted = permitted
        self.config_dir = config_dir
        self._root = root
        self._run_dir = run_dir
        self._stores = stores
        self._own = own
        self._labels = labels
        self._before = before
        self._keep = keep
        self._growth = growth
        self._began = time.monotonic()
        self._namespaces = Namespaces(root)
        self._kept: dict[tuple[str, str], IndexedStore] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        for store in self._kept.values():
            store.leave()

    def path(self, path: str) -> str:
        """Return where to find a path of the host here."""
        return self._root.path(path)

    def store(self, data_dir: str, network: str) -> Store:
        """Return the store of a network."""
        if not self._keep:
            return self._stores.get(data_dir, network, self._before)
        key = (data_dir or DEFAULT_DATA_DIR, network)
        if key not in self._kept:
            self._kept[key] = self._stores.get(data_dir, network, self._before, keep=True)
        return self._kept[key]

    def attachments(self, network: str) -> Attachments:
        """Return the records of a network."""
        return Attachments(self._run_dir, network)

    def sources(self) -> Sources:
        """Return the sources of addresses."""
        return Sources(self._run_dir)

    def may_have(self, netns: str) -> bool:
        """Say whether a network namespace may exist."""
        return self._namespaces.may_be_there(netns)

    def ipv4_label(self, namespace: str, log: Log) -> bool | None:
        """Say whether a namespace's label gives IPv4 to its pods; None if it does not say."""
        return self._labels.of(namespace, log)

    def node(self, options: standalone.NodeOptions, choose: Callable[[Node], T], log: Log) -> T:  # noqa: ARG002 -- skel.Host
        """Return the result of `choose` on the Node."""
        if options.node_file:
            return choose(standalone.from_file(options))
        return self._own.choose(choose)

    def wait_for_more(self, full: CNIError, annotation: str, choose: Callable[[Node], T], had: T) -> None:
        """Wait for other subnets than these, without any lock. Raises the error if none come."""
        if self._growth is None or not annotation:
            raise full
        self._growth.hurry()
        self._leave()
        end = self._began + LONGEST_WAIT
        while time.monotonic() < end:
            if self._growth.grows(annotation) is False:
                raise full
            if self._own.choose(choose) != had:
                return
            self._before()
            time.sleep(LOOK)
        name = self._own.choose(lambda node: node.name)
        waited = (
            f"waited {LONGEST_WAIT:g} s for another block in annotation {annotation}, and none came: see kubectl get subnetpool, and "
            f"kubectl get nodeaddresses {name} -o yaml"
        )
        raise type(full)(full.code, full.msg, f"{full.details}; {waited}", full.reference)


class ReadOnlyAgentHost(AgentHost):
    """Host for reading only, also of networks that other plugins serve."""

    def store(self, data_dir: str, network: str) -> Store:
        return self._stores.looked_at(data_dir, network)
