# SPDX-License-Identifier: Apache-2.0
"""All records of attachments, read once, and those whose network namespace is gone."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from kubenode.cni import versions
from kubenode.host.attachments import Attachments, Record, everywhere
from kubenode.host.namespaces import Namespaces
from kubenode.inspection.named import Configured

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kubenode.inspection.locations import Locations
    from kubenode.ipam.store import Attachment

OURS = "host-local"  # the delegate whose files we read
SILENT = Record()


class Records:
    """All records of this node. Raises OSError if they are unreadable."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations

    def of(self, network: str, attachment: Attachment) -> Record:
        """Return one record; an empty one if it is missing."""
        if "all" in self.__dict__:
            return self.all.get((network, attachment), SILENT)
        return self._read(network, attachment)

    def _read(self, network: str, attachment: Attachment) -> Record:
        return Attachments(self._locations.run, network).read(attachment) or SILENT

    @cached_property
    def all(self) -> dict[tuple[str, Attachment], Record]:
        """Every record, by network and attachment."""
        return {(network, attachment): self._read(network, attachment) for network, attachment in everywhere(self._locations.run)}

    @cached_property
    def without_namespace(self) -> frozenset[tuple[str, Attachment]]:
        """Records whose network namespace is gone, by the agent's rule; only the API server knows whether the pod is gone, too."""
        namespaces = Namespaces(self._locations.root)
        return frozenset(key for key, record in self.all.items() if namespaces.is_gone(record.netns))

    def is_suspect(self, network: str, attachment: Attachment | None) -> bool:
        """Say whether one attachment's network namespace is gone, without a look at the others."""
        if attachment is None:
            return False
        if "without_namespace" in self.__dict__:
            return (network, attachment) in self.without_namespace
        return Namespaces(self._locations.root).is_gone(self.of(network, attachment).netns)

    def networks_of(self, containers: Collection[str]) -> set[str]:
        """Return the networks in which containers have a record."""
        return {network for network, attachment in everywhere(self._locations.run) if attachment.container_id in containers}

    def networks(self) -> Iterator[Configured]:
        """Yield a configuration for each network and data directory that records with a host-local configuration name."""
        best: dict[tuple[str, str], dict[str, Any]] = {}
        for (network, _), record in self.all.items():
            if record.ipam is None or record.given_by != OURS:
                continue
            key = (network, record.data_dir)
            if _count(record.ipam) > _count(best.get(key, {})):  # a pod with only one of two families has one range set less
                best[key] = record.ipam
        for (network, data_dir), ipam in best.items():
            raw = {"cniVersion": versions.LATEST, "name": network, "ipam": {**ipam, "dataDir": data_dir}}
            yield Configured("attachment records", raw, is_recorded=True)


def _count(ipam: dict[str, Any]) -> int:
    ranges = ipam.get("ranges")
    return len(ranges) if isinstance(ranges, list) else 0
