# SPDX-License-Identifier: Apache-2.0
"""Count of a node's addresses by network, for its report. The indexes of the stores answer, so no directory is read for an ADD."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from kubenode.cni import netconf
from kubenode.cni.errors import CNIError
from kubenode.ipam import config
from kubenode.ipam.address import Address
from kubenode.ipam.ranges import RangeError, Subnet
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.nodes import addresses
from kubenode.nodes.addresses import ItemUse, NetworkUse
from kubenode.plugins.options import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from kubenode.agent.host import Stores
    from kubenode.agent.networks import Key, Networks
    from kubenode.base.workers import Round
    from kubenode.host.sources import Sources
    from kubenode.ipam.store import Store
    from kubenode.nodes.addresses import Numbers
    from kubenode.nodes.node import Node

OURS = "kube-node"
EMBEDDED = ("", "embedded", "host-local")  # delegates whose addresses are in host-local's files
NO_NETWORK = "-"  # name of an entry for an annotation that no network uses; no network can have it
ANNOTATION = "annotation "
MOST = 256  # entries of a report


class Place(NamedTuple):
    """Network in a data directory, with one of its sources: an annotation, or "" for podCIDRs.

    `is_in_files`: all of its addresses are in files; `is_ours`: our plugins have used the directory since the machine's start.
    """

    network: str
    data_dir: str
    annotation: str
    exclude: tuple[Subnet, ...] = ()
    is_in_files: bool = True
    is_ours: bool = False

    @property
    def directory(self) -> str:
        """The host's path of its directory."""
        return os.path.normpath(os.path.join(self.data_dir, self.network))


class Places(NamedTuple):
    """Networks with a source of this Node, and the directories of all networks whose source is known."""

    ours: tuple[Place, ...]
    known: frozenset[str]


class Counting:
    """Counts the addresses of all networks."""

    def __init__(self, networks: Networks, stores: Stores, sources: Sources, ask: Round) -> None:
        self._networks = networks
        self._stores = stores
        self._sources = sources
        self._ask = ask
        self._last: dict[Place, NetworkUse] = {}

    def places(self, own: Node, wanted: Collection[str]) -> Places:
        """Return all networks; an annotation in `wanted` without a network has an entry, too. Raises OSError."""
        found: dict[tuple[str, str], Place] = {}
        others = set()
        for key, plugin, stdin in self._networks.configurations():
            if place := _configured(key, plugin, stdin):
                found[place.directory, place.annotation] = place
            else:
                others.add(os.path.normpath(os.path.join(key.data_dir, key.network)))
        known = {*others, *(place.directory for place in found.values())}
        for source, directory in self._sources.all(source_of(key, "") for key in {*own.annotations, *wanted}):
            data_dir, _, network = directory.rpartition("/")
            annotation = "" if source == source_of("", "") else source.removeprefix(ANNOTATION)
            known.add(directory)
            if source == source_of(annotation, "") and " of " not in annotation:  # " of ": a file's
                place = found.get((directory, annotation)) or Place(network, data_dir, annotation)
                found[directory, annotation] = place._replace(is_ours=True)
        for annotation in {*wanted} - {place.annotation for place in found.values()}:
            found["", annotation] = Place(NO_NETWORK, DEFAULT_DATA_DIR, annotation)
        # Those of podCIDRs are only shown: if there are too many, these are left out.
        ours = sorted(found.values(), key=lambda one: (not one.annotation, *one[:3]))
        while len(ours) > MOST and not ours[-1].annotation:
            ours.pop()
        return Places(tuple(ours), frozenset(known))

    def count(
        self, own: Node, places: Iterable[Place], is_settled: Callable[[str], bool], left: Mapping[str, Collection[Subnet]]
    ) -> dict[Place, NetworkUse]:
        """Count; a network that cannot be read now is as before, and its closing items are settling. Without a count before it is left out.

        `is_settled` says of an annotation whether no call can still take an address of its closing items; `left`: blocks that have left an
        annotation, of which a call may still take one.
        """
        blocks: dict[str, list[Subnet]] = {}
        for place in places:
            blocks.setdefault(place.directory, []).extend(item.block for item in addresses.source_of(own, place.annotation).items)
        questions = {
            place: partial(self._count, place, own, blocks[place.directory], is_settled, left.get(place.annotation, ())) for place in places
        }
        counted: Mapping[Place, NetworkUse | None] = self._ask.gather(questions, "report")
        found = {place: counted.get(place) or self._unread(place, own) for place in places}
        self._last = {place: one for place, one in found.items() if one}
        return self._last

    def _count(
        self,
        place: Place,
        own: Node,
        blocks: Collection[Subnet],
        is_settled: Callable[[str], bool],
        left: Collection[Subnet],
    ) -> NetworkUse | None:
        """Return a network's use; None if it cannot be read. May wait for the store's lock."""
        source = addresses.source_of(own, place.annotation)
        try:
            look = self._stores.get if place.is_ours else self._stores.looked_at
            taken = addresses.NOTHING if place.network == NO_NETWORK else living(look(place.data_dir, place.network))
        except (CNIError, OSError):
            return None
        settled = place.is_in_files and is_settled(place.annotation)  # now: the question may have waited
        uses = addresses.uses(source, taken, place.exclude, {*blocks, *left}, settling=not settled)
        uses += tuple(ItemUse(block, addresses.count(taken, block), 0, settling=True, outside=True) for block in sorted(left))
        return NetworkUse(place.network, place.data_dir, place.annotation, source.text, uses)

    def _unread(self, place: Place, own: Node) -> NetworkUse | None:
        """Return the use of a network that cannot be read: as it was, or if an item is closing, full, so that the item is opened again."""
        source = addresses.source_of(own, place.annotation)
        last = self._last.get(place)
        if last and last.observed == source.text:
            return last._replace(uses=tuple(use._replace(settling=use.closing or use.settling) for use in last.uses))
        if not any(item.closing for item in source.items):
            return last  # about the text of then: it agrees to nothing
        uses = addresses.uses(source, addresses.NOTHING, place.exclude, settling=True)
        full = tuple(use if use.closing else use._replace(used=use.total) for use in uses)
        return NetworkUse(place.network, place.data_dir, place.annotation, source.text, full)


def kept(counted: Iterable[NetworkUse], annotation: str, blocks: Collection[Subnet]) -> list[NetworkUse]:
    """Return the same with some closing items of an annotation marked as settling."""

    def keep(use: ItemUse) -> ItemUse:
        return use._replace(settling=True) if use.closing and use.subnet in blocks else use

    return [one._replace(uses=tuple(map(keep, one.uses))) if one.annotation == annotation else one for one in counted]


def living(store: Store) -> Numbers:
    """Return the numbers of a store's addresses, without those of an earlier boot. Raises OSError."""
    if not store.is_there():
        return addresses.NOTHING
    with store.lock():
        taken = {version: list(numbers) for version, numbers in store.taken().items()}
        if not store.is_of_this_boot() and (dead := {entry.address for entry in store.from_earlier_boot()}):
            return {version: [number for number in taken[version] if Address(version, number) not in dead] for version in taken}
        return taken


@lru_cache(256)
def _configured(key: Key, plugin: str, stdin: bytes) -> Place | None:
    """Return the place of a configuration; None if its addresses are not the Node's, or if it cannot be read."""
    try:
        ipam = netconf.parse(netconf.decode(stdin)).ipam
        exclude = config.exclusions(ipam)
    except (CNIError, RangeError):
        return None
    if plugin != OURS or ipam.get("nodeFile"):
        return None
    is_in_files = str(ipam.get("delegate") or "").rpartition("/")[2] in EMBEDDED
    return Place(key.network, key.data_dir, str(ipam.get("annotation") or ""), exclude, is_in_files)
