"""Reservations that nobody has any more, and their release. The rule is the agent's: in doubt an address stays where it is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.host.attachments import Attachments
from kubenode.host.datadir import ABANDONED, DiskStore
from kubenode.inspection.records import pod_of
from kubenode.ipam import allocator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.host.readonly import Held
    from kubenode.inspection.networks import Network
    from kubenode.inspection.place import Place
    from kubenode.inspection.records import Records
    from kubenode.ipam.store import Reservation

# A runtime knows a sandbox only once its network is there, so that for a moment an address has nobody.
YOUNG = 300.0  # seconds for which a reservation is not called stale by the runtime's word alone
EARLIER = "it is of before the last reboot"


class Stale(NamedTuple):
    """A reservation that is to go, and why."""

    network: Network
    held: Held
    pod: str
    why: str


def find(place: Place, network: Network, records: Records, sandboxes: frozenset[str] | None) -> Iterator[Stale]:
    """Yield what is stale: of another boot, torn, or of a pod that is gone. `sandboxes`: the runtime's; None: it was not asked.

    Raises OSError.
    """
    dead = {entry.address for entry in network.store.dead()}
    now = time.time()
    for held in network.store.held():
        if held.attachment is None:
            if now - held.since > ABANDONED or held.address in dead:
                yield Stale(network, held, "", "its file is empty or torn")
            continue
        record = records.of(network.name, held.attachment)
        gone = records.is_suspect(network.name, held.attachment)
        netns = str(record.get("netns") or "")
        if held.address in dead:
            why = EARLIER
        elif sandboxes is None:
            why = "its network namespace is gone" if gone else ""
        elif held.attachment.container_id in sandboxes:
            why = ""
        elif gone:
            why = "its network namespace is gone, and the runtime has no such sandbox"
        elif netns and os.path.lexists(place.root.path(netns)):
            why = ""  # somebody else's container, which that runtime does not know
        else:
            why = "the runtime has no such sandbox" if now - held.since > YOUNG else ""
        if why:
            yield Stale(network, held, pod_of(record), why)


def release(place: Place, stale: list[Stale]) -> list[Stale]:
    """Release those that are still held by whom they were held by, and return them. Raises CNIError, OSError."""
    released: list[Stale] = []
    for network in {id(one.network): one.network for one in stale}.values():
        mine = [one for one in stale if one.network is network]
        store = writable(place, network)
        released += _release(store, mine)
        attachments = Attachments(place.run, network.name)
        left = {held.attachment for held in network.store.held()}
        for one in mine:
            if one.held.attachment and one.held.attachment not in left:
                attachments.remove(one.held.attachment)
        if any(one.why == EARLIER for one in mine):
            allocator.release_dead(store)  # nothing is left of an earlier boot: note that it is over
    return released


def _release(store: DiskStore, stale: list[Stale]) -> list[Stale]:
    released = []
    with store.lock():
        now = {entry.address: entry for entry in store.reservations() if entry.address}
        for one in stale:
            entry: Reservation | None = now.get(one.held.address)
            if entry and entry.attachment == one.held.attachment:
                store.release(entry)
                released.append(one)
    return released


def writable(place: Place, network: Network) -> DiskStore:
    """Return a network's store to change. Raises CNIError where its directory is not the host's."""
    return DiskStore(place.root.seen(network.data_dir, "dataDir"), network.name, place.boot)
