# SPDX-License-Identifier: Apache-2.0
"""Proof that a closing block is empty, before this node gives it back: nothing that may be a network of ours has an address of it.

A network may be unknown to this agent: it was called by an earlier agent or without one, and a full disk kept its records from being
written. So the files on disk count, those of all networks whose source is not known, too. Doubt keeps the block.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from kubenode.agent.counting import NO_NETWORK
from kubenode.base import files
from kubenode.cni.errors import CNIError
from kubenode.host.attachments import Attachments, everywhere
from kubenode.host.datadir import DiskStore, owner_in
from kubenode.ipam.address import Address
from kubenode.ipam.ranges import RangeError, Subnet, parse_subnet
from kubenode.ipam.resting import rest_of
from kubenode.ipam.store import DEFAULT_DATA_DIR, Reservation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kubenode.agent.counting import Places
    from kubenode.agent.host import Stores
    from kubenode.host.attachments import Record
    from kubenode.host.root import HostRoot

IN_FILES = ("", "host-local")  # plugins whose addresses are in files; "": unknown, and its files are searched


class Doubt(NamedTuple):
    """Block that may be in use, and why."""

    block: Subnet
    why: str


class Vacancy:
    """Searches for addresses of closing blocks. May wait for the stores' locks."""

    def __init__(self, root: HostRoot, run_dir: str, stores: Stores) -> None:
        self._root = root
        self._run_dir = run_dir
        self._stores = stores

    def doubts(self, blocks: Collection[Subnet], annotation: str, places: Places) -> list[Doubt]:
        """Return the blocks of an annotation that may be in use."""
        found: list[Doubt] = []
        try:
            for place in places.ours:
                if place.annotation == annotation and place.network != NO_NETWORK:
                    found += _held(self._stores.looked_at(place.data_dir, place.network), blocks)
            found += self._elsewhere(blocks, places)
        except (CNIError, OSError) as error:
            found += [Doubt(block, str(error)) for block in blocks]
        return found

    def _elsewhere(self, blocks: Collection[Subnet], places: Places) -> Iterator[Doubt]:
        """Yield blocks of which another plugin may have given addresses, or a directory without a known source has some."""
        data_dirs = {DEFAULT_DATA_DIR: False, **{place.data_dir: False for place in places.ours}}  # whether we must see it
        for network, attachment in everywhere(self._run_dir):
            record = Attachments(self._run_dir, network).read(attachment)
            if record is None:
                continue  # an ADD is just writing it, with the text of now
            is_known = os.path.normpath(os.path.join(record.data_dir, network)) in places.known
            data_dirs[record.data_dir] = data_dirs.get(record.data_dir, False) or not is_known
            if record.given_by not in IN_FILES:
                yield from (
                    Doubt(block, f"addresses by {record.given_by} in network {network}") for block in blocks if _names(record, block)
                )
        for data_dir, is_needed in data_dirs.items():
            try:
                here = self._root.seen(data_dir, "dataDir")
                names = [entry.name for entry in os.scandir(here) if entry.is_dir()]
            except FileNotFoundError:
                continue
            except CNIError:
                if is_needed:
                    raise
                continue
            for name in names:
                if os.path.normpath(os.path.join(data_dir, name)) not in places.known:
                    yield from _held(self._stores.looked_at(data_dir, name), blocks)


def _names(record: Record, block: Subnet) -> bool:
    """Say whether a record's ranges contain a part of a block."""
    ranges = [one for some in (record.ipam or {}).get("ranges") or () for one in some]
    try:
        return any(parse_subnet(str(one.get("subnet"))).overlaps(block) for one in ranges)
    except (RangeError, AttributeError):
        return True


def _held(store: DiskStore, blocks: Collection[Subnet]) -> Iterator[Doubt]:
    """Yield the blocks of which a store has addresses, by the files on disk."""
    if not store.is_there():
        return
    with store.lock():
        taken = DiskStore.taken(store)
        found = {block: [Address(block.version, n) for n in taken[block.version] if block.number <= n <= block.last] for block in blocks}
        dead = {entry.name for entry in store.from_earlier_boot()} if any(found.values()) else set()
        for block, addresses in found.items():
            if living := [str(address) for address in addresses if str(address) not in dead and _lives(store, address)]:
                yield Doubt(block, f"{living[0]} in {store.directory}")


def _lives(store: DiskStore, address: Address) -> bool:
    """Say whether an address has an owner, or may get one at any moment; not after the end of a rest."""
    try:
        entry = Reservation(str(address), address, owner_in(files.read(f"{store.directory}/{address}")))
    except FileNotFoundError:
        return False
    rest = rest_of(entry.attachment)
    return rest.until > time.time() if rest else entry.attachment is not None or not store.is_abandoned(entry)
