# SPDX-License-Identifier: Apache-2.0
"""A network as it is seen by who looks: its reservations on disk, made at given times, and what ADDs have said of their pods."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from kubenode.host.attachments import Record
from kubenode.host.readonly import ReadOnlyStore
from kubenode.inspection.named import Configured
from kubenode.inspection.networks import StoredNetwork
from kubenode.ipam import allocator
from kubenode.ipam.address import Address, parse_address
from kubenode.ipam.ranges import make_range, make_set, parse_subnet
from kubenode.ipam.store import Attachment

if TYPE_CHECKING:
    from pathlib import Path

    from kubenode.cni.errors import CNIError


class Records:
    """`inspection.records.Records` of what is given: by network and attachment, and those whose network namespace is gone."""

    def __init__(self) -> None:
        self.all: dict[tuple[str, Attachment], Record] = {}
        self.without_namespace: set[tuple[str, Attachment]] = set()

    def of(self, network: str, attachment: Attachment) -> Record:
        return self.all.get((network, attachment), Record())

    def is_suspect(self, network: str, attachment: Attachment | None) -> bool:
        return (network, attachment) in self.without_namespace


class Seen:
    """A network of kube-node in a directory."""

    def __init__(self, data_dir: Path, *subnets: str, name: str = "net", exclude: tuple[str, ...] = ()) -> None:
        self.name = name
        self.records = Records()
        self.problem: CNIError | None = None
        self.ipam: dict[str, Any] = {"type": "kube-node"}
        self.is_recorded = False
        self._data_dir = data_dir
        self._subnets = subnets
        self._exclude = tuple(map(parse_subnet, exclude))
        (data_dir / name).mkdir(parents=True)

    def hold(self, container: str, *addresses: str, since: float = 1000.0, ifname: str = "eth0", gone: bool = False, **record: Any) -> None:
        """Reserve addresses; without a container it is a file that is nobody's. `gone`: the network namespace is."""
        for text in addresses:
            path = self._data_dir / self.name / text
            path.write_text(f"{container}\r\n{ifname}" if container else "")
            os.utime(path, (since, since))
        attachment = Attachment(container, ifname)
        if record:
            self.records.all[self.name, attachment] = Record(**record)
        if gone:
            self.records.without_namespace.add((self.name, attachment))

    def network(self) -> StoredNetwork:
        store = ReadOnlyStore(str(self._data_dir), self.name)
        sets = [make_set(number, [make_range(parse_subnet(text))]) for number, text in enumerate(self._subnets)]
        usages = tuple(allocator.usage(store, sets, self._exclude))
        raw = {"name": self.name, "type": "bridge", "ipam": self.ipam}
        path = "attachment records" if self.is_recorded else "/etc/cni/net.d/10-net.conf"
        configured = Configured(path, raw, is_recorded=self.is_recorded)
        return StoredNetwork(configured, str(self._data_dir), store, usages, self._exclude, self.problem)


def address(text: str) -> Address:
    found = parse_address(text)
    assert found
    return found
