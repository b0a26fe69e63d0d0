"""The networks that this agent has met, in calls and in the CNI configuration, and how full they are."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kubenode.base.jsontext import JSONTextError, dumps, loads
from kubenode.base.log import ERROR, Log
from kubenode.cni import keys, netconf, request
from kubenode.cni.errors import CNIError
from kubenode.host import cniconfig
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.plugins import embedded
from kubenode.plugins.skel import Call
from kubenode.plugins.table import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.base.workers import Round
    from kubenode.ipam.allocator import Usage
    from kubenode.plugins.skel import Host

    Used = tuple["Key", list[Usage]]


LONGEST = 64 << 10  # bytes of a network's configuration that are remembered
MOST = 1000  # networks remembered; a node has a few


class Key(NamedTuple):
    """A network in a data directory: each has reservations of its own."""

    network: str
    data_dir: str


def key_of(conf: object) -> Key | None:
    """Return whose reservations a network configuration is about; None for what is none."""
    ipam = conf.get("ipam") if isinstance(conf, dict) else None
    if not isinstance(conf, dict) or not isinstance(ipam, dict):
        return None
    return Key(str(conf.get("name")), str(ipam.get("dataDir") or DEFAULT_DATA_DIR))


class Networks:
    """The configurations, one a network and data directory: the last that was seen."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._known: dict[Key, tuple[str, bytes]] = {}
        self._keys: dict[int, Key] = {}  # by a configuration's hash: with runtimeConfig each pod's is another, and may be long

    def met(self, plugin: str, stdin: bytes) -> None:
        """Note the network of a call that went well. Cheap where its configuration is one that was seen already."""
        if len(stdin) > LONGEST:
            return
        digest = hash(stdin)
        key = self._keys.get(digest) or key_of(keys.canonical(loads(stdin), keys.NETWORK))
        if key is None:
            return
        if len(self._keys) >= MOST:
            self._keys.clear()
        self._keys[digest] = key
        self.note(key, plugin, stdin)

    def note(self, key: Key, plugin: str, stdin: bytes) -> None:
        with self._mutex:
            if key in self._known or len(self._known) < MOST:
                self._known[key] = (plugin, stdin)

    def read_config(self, directory: str) -> None:
        """Note what the runtime's configuration has and no call has brought yet."""
        for conf in cniconfig.netconfs(directory, cniconfig.OURS):
            key = key_of(conf)
            if key and key not in self._known:
                self.note(key, str(conf["ipam"]["type"]), dumps(conf).encode())

    def known(self) -> list[Key]:
        with self._mutex:
            return list(self._known)

    def usages(self, ask: Round, environ: Mapping[str, str], host: Host) -> list[Used]:
        """Return how full each network is; one whose lock somebody holds for long is left out."""
        found = ask.gather({key: partial(self.usage, key, environ, host) for key in self.known()})
        return list(dict(one for one in found.values() if one).items())  # two configurations may lead to the same place

    def usage(self, key: Key, environ: Mapping[str, str], host: Host) -> Used | None:
        """Return how full a network is, and where; None where its configuration or the Node does not say. May wait for the store's lock."""
        plugin, stdin = self._known[key]
        try:
            raw = netconf.decode(stdin)
            call = Call(request.parse({"CNI_COMMAND": "STATUS"}), netconf.parse(raw), environ, Log(plugin, ERROR - 1), host)
            call = PLUGINS[plugin].resolve(call)
            # An annotation may have a dataDir of its own.
            return Key(key.network, embedded.data_dir(call.netconf) or DEFAULT_DATA_DIR), embedded.usage(call)
        except (CNIError, JSONTextError, OSError):
            return None
