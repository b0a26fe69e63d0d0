# SPDX-License-Identifier: Apache-2.0
"""Reservations without a container, and their release. The rule is the agent's: in doubt an address stays reserved."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.host.attachments import Attachments
from kubenode.host.datadir import ABANDONED, DiskStore
from kubenode.ipam import allocator
from kubenode.ipam.resting import rest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.host.attachments import Record
    from kubenode.host.readonly import Held
    from kubenode.inspection.locations import Locations
    from kubenode.inspection.networks import StoredNetwork
    from kubenode.inspection.records import Records
    from kubenode.ipam.store import Reservation

# A runtime lists a sandbox only after its network is set up, so for a moment a new address seems to have no container.
YOUNG = 300.0  # seconds for which the runtime's list alone does not make a reservation stale
GONE = "its network namespace is gone"
UNKNOWN = "the runtime has no such sandbox"


class Stale(NamedTuple):
    """A reservation to release, and the reason; `doubtful`: it may belong to a container that no asked runtime can know.

    `earlier_boot`: reserved before the last reboot.
    """

    network: StoredNetwork
    held: Held
    pod: str
    why: str
    doubtful: bool = False
    earlier_boot: bool = False


def find(locations: Locations, network: StoredNetwork, records: Records, sandboxes: frozenset[str] | None) -> Iterator[Stale]:
    """Yield the stale reservations: made before a reboot, torn, or of a deleted pod. `sandboxes`: the runtimes' list; None: not asked.

    A runtime knows its pods and no other containers (podman, Docker, nerdctl): without a record of a pod, one is doubtful. Raises OSError.
    """
    dead = {entry.address for entry in network.store.from_earlier_boot()}
    now = time.time()
    for held in network.store.held():
        if held.attachment is None:
            if now - held.since > ABANDONED or held.address in dead:
                yield Stale(network, held, "", "its file is empty or torn")
            continue
        if rest := rest_of(held.attachment):
            if rest.until <= now or held.address in dead:
                yield Stale(network, held, rest.pod, "its rest is over", earlier_boot=held.address in dead)
            continue
        if found := _of_attachment(locations, Stale(network, held, "", ""), records, sandboxes, earlier_boot=held.address in dead):
            yield found


def _of_attachment(
    locations: Locations, one: Stale, records: Records, sandboxes: frozenset[str] | None, *, earlier_boot: bool
) -> Stale | None:
    """Return an attachment's reservation with the reason if it is stale, else None."""
    assert one.held.attachment  # noqa: S101 -- the caller has looked
    record = records.of(one.network.name, one.held.attachment)
    stale = one._replace(pod=record.pod)
    gone = records.is_suspect(one.network.name, one.held.attachment)
    if earlier_boot:
        return stale._replace(why="it was reserved before the last reboot", earlier_boot=True)
    if sandboxes is None:
        return stale._replace(why=GONE) if gone else None
    if one.held.attachment.container_id in sandboxes:
        return None
    if gone:
        return stale._replace(why=f"{GONE}, and {UNKNOWN}")
    if time.time() - one.held.since > YOUNG and not _is_there(locations, record):
        why = UNKNOWN if record.pod else f"{UNKNOWN}, but no record says that it was a pod"
        return stale._replace(why=why, doubtful=not record.pod)
    return None


def _is_there(locations: Locations, record: Record) -> bool:
    """Say whether the network namespace exists: then it is a container that the asked runtime does not know."""
    return bool(record.netns) and os.path.lexists(locations.root.path(record.netns))


def release(locations: Locations, stale: list[Stale]) -> tuple[list[Stale], list[OSError]]:
    """Release the reservations that still have the same holder; return them, and the failures. Raises Problem, OSError."""
    released: list[Stale] = []
    failures: list[OSError] = []
    for network in {id(one.network): one.network for one in stale}.values():
        mine = [one for one in stale if one.network is network]
        store = writable(locations, network)
        released += _release(store, mine, failures)
        attachments = Attachments(locations.run, network.name)
        # By container: a file may have lost its interface meanwhile, and the agent releases nothing without a record.
        left = {held.attachment.container_id for held in network.store.held() if held.attachment}
        for one in mine:
            if one.held.attachment and one.held.attachment.container_id not in left:
                attachments.remove(one.held.attachment)
        if not failures and any(one.earlier_boot for one in mine):
            with store.lock():
                allocator.release_from_earlier_boot(store)  # no reservation of an earlier boot is left: note this boot
    return released, failures


def _release(store: DiskStore, stale: list[Stale], failures: list[OSError]) -> list[Stale]:
    released = []
    with store.lock():
        now = {entry.address: entry for entry in store.reservations() if entry.address}
        for one in stale:
            entry: Reservation | None = now.get(one.held.address)
            if entry and entry.attachment == one.held.attachment:
                try:
                    store.release(entry)
                except OSError as error:
                    failures.append(error)
                else:
                    released.append(one)
    return released


def writable(locations: Locations, network: StoredNetwork) -> DiskStore:
    """Return a network's store for changes. Raises Problem if its directory is not the host's."""
    return DiskStore(locations.root.seen(network.data_dir, "dataDir"), network.name, locations.boot)
