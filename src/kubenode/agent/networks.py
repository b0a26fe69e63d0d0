# SPDX-License-Identifier: Apache-2.0
"""Networks that this agent knows from calls and the CNI configuration, and their usage."""

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
    from collections.abc import Iterable, Mapping

    from kubenode.base.workers import Round
    from kubenode.ipam.allocator import Usage
    from kubenode.plugins.skel import Host

    Used = tuple["Key", list[Usage]]


LONGEST = 64 << 10  # bytes of the largest configuration that is kept
MOST = 1000  # networks that are kept; a node has a few
MOST_BYTES = 4 << 20  # of their configurations


class Key(NamedTuple):
    """Network in a data directory: the place of its reservations."""

    network: str
    data_dir: str


def key_of(conf: object) -> Key | None:
    """Return the place of a configuration's reservations; None if it is not a network configuration."""
    ipam = conf.get("ipam") if isinstance(conf, dict) else None
    if not isinstance(conf, dict) or not isinstance(ipam, dict):
        return None
    return Key(str(conf.get("name")), str(ipam.get("dataDir") or DEFAULT_DATA_DIR))


class Networks:
    """The last seen configuration of each network and data directory. If there are too many, the least recently used are left out."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._mutex = threading.Lock()
        self._known: dict[Key, tuple[str, bytes]] = {}  # the last used is the last one
        self._bytes = 0
        self._is_full = False
        self._gone: dict[Key, tuple[str, bytes]] = {}
        self._keys: dict[int, Key] = {}  # by a configuration's hash: with runtimeConfig each pod has another, and it may be long

    def met(self, plugin: str, stdin: bytes) -> None:
        """Note the network of a successful call. Cheap for a known configuration."""
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
        """Note a network's configuration."""
        left_out = None
        with self._mutex:
            self._remove(key)
            self._known[key] = (plugin, stdin)
            self._bytes += len(stdin)
            while len(self._known) > MOST or self._bytes > MOST_BYTES:
                left_out = next(iter(self._known))
                self._remove(left_out)
            if left_out is None or self._is_full:
                return
            self._is_full = True
        told = {"network": left_out.network, "dataDir": left_out.data_dir}
        self._log.warning("too many networks: metrics and report lack those that were not used for longest", most=MOST, **told)

    def forget(self, gone: Iterable[Key]) -> None:
        """Forget networks that are gone, and were in the call before, if nobody has used them since."""
        with self._mutex:
            now = {key: self._known[key] for key in gone if key in self._known}
            for key, found in now.items():
                if self._gone.get(key) is found:
                    self._remove(key)
            self._gone = {key: found for key, found in now.items() if key in self._known}
            self._is_full = self._is_full and len(self._known) >= MOST // 2

    def _remove(self, key: Key) -> None:
        if found := self._known.pop(key, None):
            self._bytes -= len(found[1])

    def read_config(self, directory: str) -> set[Key]:
        """Note the networks of the runtime's configuration that no call has used yet; return all networks of the configuration."""
        found = set()
        for conf in cniconfig.netconfs(directory, cniconfig.OURS):
            key = key_of(conf)
            if key is None:
                continue
            found.add(key)
            if key not in self._known:
                self.note(key, str(conf["ipam"]["type"]), dumps(conf).encode())
        return found

    def known(self) -> list[Key]:
        """Return all networks."""
        with self._mutex:
            return list(self._known)

    def configurations(self) -> list[tuple[Key, str, bytes]]:
        """Return all networks with plugin and configuration."""
        with self._mutex:
            return [(key, *found) for key, found in self._known.items()]

    def usages(self, ask: Round, environ: Mapping[str, str], host: Host) -> list[Used]:
        """Return the usage of each network; a network with a long-held lock is left out."""
        found = ask.gather({key: partial(self.usage, key, environ, host) for key in self.known()})
        return list(dict(one for one in found.values() if one).items())  # two configurations may have the same place

    def usage(self, key: Key, environ: Mapping[str, str], host: Host) -> Used | None:
        """Return a network's usage and place; None if configuration or Node do not give its subnets. May wait for the store's lock."""
        plugin, stdin = self._known.get(key, ("", b""))
        if not plugin:  # forgotten meanwhile
            return None
        try:
            raw = netconf.decode(stdin)
            call = Call(request.parse({"CNI_COMMAND": "STATUS"}), netconf.parse(raw), environ, Log(plugin, ERROR - 1), host)
            call = PLUGINS[plugin].resolve(call)
            # An annotation may contain its own dataDir.
            return Key(key.network, embedded.data_dir(call.netconf) or DEFAULT_DATA_DIR), embedded.usage(call)
        except (CNIError, JSONTextError, OSError):
            return None
