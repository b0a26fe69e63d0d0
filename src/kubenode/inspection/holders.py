# SPDX-License-Identifier: Apache-2.0
"""Holders of addresses, with the time of the reservation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kubenode.host.attachments import Record
from kubenode.ipam.resting import rest_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenode.host.readonly import Held
    from kubenode.inspection.networks import StoredNetwork
    from kubenode.inspection.records import Records
    from kubenode.ipam.address import Address
    from kubenode.ipam.store import Attachment

NEIGHBOURS = 8  # additional addresses to read, so that those of the last pod are complete


class Holder(NamedTuple):
    """An attachment with its addresses; `attachment` is None for a torn file, which names none. Times are in seconds since 1970.

    `rests_until`: no container has the addresses; until that time they rest for the pod that the record names.
    """

    network: str
    attachment: Attachment | None
    addresses: tuple[Address, ...]
    since: float
    record: Record
    suspected: bool
    rests_until: float = 0.0


class HolderFilter(NamedTuple):
    """The holders to show: those of a namespace, "" for all; at most `most`, the newest first, 0 for all."""

    namespace: str = ""
    most: int = 0


def holders(network: StoredNetwork, records: Records, wanted: HolderFilter) -> tuple[list[Holder], int]:
    """Return the holders of a network's addresses, and the number of addresses left out.

    Suspected leaks come first and are never left out, then the newest. Only the necessary files are read.
    """
    suspects = any(name == network.name for name, _ in records.without_namespace)
    since = sorted(network.store.since(), key=lambda pair: pair[1], reverse=True)
    enough = wanted.most * max(1, len(network.usages)) + NEIGHBOURS
    if not wanted.most or wanted.namespace or suspects or len(since) <= enough:
        found = _grouped(network.name, network.store.held(since), records)
        if wanted.namespace:
            found = [one for one in found if one.record.pod.partition("/")[0] == wanted.namespace]
    else:
        found = _grouped(network.name, network.store.held(since[:enough]), records)
    shown = [one for index, one in enumerate(found) if not wanted.most or index < wanted.most or one.suspected]
    shown.sort(key=lambda one: not one.suspected)
    if not wanted.most:
        return shown, 0
    known = len(since) if not wanted.namespace else sum(len(one.addresses) for one in found)
    return shown, known - sum(len(one.addresses) for one in shown)


def holder_of(network: StoredNetwork, records: Records, address: Address) -> Holder | None:
    """Return the holder of an address; None if it has none."""
    held = network.store.holder(address)
    if held is None:
        return None
    (found,) = _grouped(network.name, [held], records)
    return found


def _grouped(network: str, held: Iterable[Held], records: Records) -> list[Holder]:
    """Put the addresses of one attachment together; a torn file is a group of its own."""
    groups: dict[object, list[Held]] = {}
    for one in held:
        groups.setdefault(one.attachment or one.address, []).append(one)
    made = [_holder(network, group, records) for group in groups.values()]
    return sorted(made, key=lambda one: (-one.since, one.addresses))


def _holder(network: str, group: list[Held], records: Records) -> Holder:
    attachment = group[0].attachment
    addresses = tuple(sorted(one.address for one in group))
    since = min(one.since for one in group)
    if rest := rest_of(attachment):
        kept_for = Record(pod_namespace=rest.namespace, pod_name=rest.name)
        return Holder(network, attachment, addresses, since, kept_for, suspected=False, rests_until=rest.until)
    record = records.of(network, attachment) if attachment else Record()
    return Holder(network, attachment, addresses, since, record, records.is_suspect(network, attachment))
