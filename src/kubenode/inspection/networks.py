# SPDX-License-Identifier: Apache-2.0
"""The networks of this node: from the runtime's configuration, from files after --config, and from records of attachments."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from kubenode.base.problem import Problem
from kubenode.cni import versions
from kubenode.cni.netconf import is_path
from kubenode.host import cniconfig
from kubenode.inspection import named
from kubenode.inspection.locations import Locations, call_for
from kubenode.ipam import allocator, config
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.plugins import delegation, embedded, options
from kubenode.plugins.skel import NotHereError
from kubenode.plugins.table import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.host.readonly import ReadOnlyStore
    from kubenode.inspection.named import Configured
    from kubenode.inspection.records import Records
    from kubenode.ipam.allocator import Usage
    from kubenode.ipam.ranges import Range, Subnet
    from kubenode.nodes.node import Node


class StoredNetwork(NamedTuple):
    """A network in a data directory, and its use; `problem`: the reason why its subnets are unknown."""

    configured: Configured
    data_dir: str
    store: ReadOnlyStore
    usages: tuple[Usage, ...]
    exclude: tuple[Subnet, ...]
    problem: Problem | None

    @property
    def name(self) -> str:
        """The network's name."""
        return self.configured.name

    @property
    def plugin(self) -> str:
        """The value of `ipam.type`."""
        return str(self.configured.ipam.get("type"))

    @property
    def by_source(self) -> str:
        """The source with the preposition before it."""
        return self.source if self.configured.is_recorded else f"by {self.source}"

    @property
    def source(self) -> str:
        """The source of the subnets."""
        if self.configured.is_recorded:
            return "as last given"
        annotation = self.configured.ipam.get("annotation")
        if self.plugin == "host-local":
            return "ranges"
        return f"annotation {annotation}" if annotation else "spec.podCIDRs"


def told(range_: Range) -> str:
    """Name a range by its subnet, and by its part of that; say if it is closing."""
    text = str(range_.subnet) if range_.is_whole else f"{range_} of {range_.subnet}"
    return f"{text}, closing" if range_.closing else text


def find(locations: Locations, records: Records | None, own: Node | None = None) -> list[StoredNetwork]:
    """Return all networks of configurations and, if given, of records, each once. `own`: a Node newer than the view."""
    found: dict[tuple[str, str], StoredNetwork] = {}
    for configured in [*of_runtime(locations), *locations.named.configured]:
        network = look_at(locations, configured, own)
        found.setdefault((network.name, network.data_dir), network)
    for configured in records.networks() if records else ():
        network = look_at(locations, configured, own)
        found.setdefault((network.name, network.data_dir), network)
    return list(found.values())


def of_runtime(locations: Locations) -> Iterator[Configured]:
    """Yield the configurations in the runtime's directory; `refused` has the unreadable files."""
    for file in runtime_files(locations):
        for network in file.networks:
            yield from named.of(file.path, network)


def read_once(locations: Locations) -> Locations:
    """Return the locations with the runtime's configurations as they are now."""
    return locations._replace(runtime_files=tuple(runtime_files(locations)))


def unread(locations: Locations) -> list[Problem]:
    """Return a problem for each configuration whose networks are unknown: broken parts of --config, and files that the runtime refuses."""
    return [*locations.named.broken, *refused(locations)]


def refused(locations: Locations) -> list[Problem]:
    """Return a problem for each file in the runtime's directory that is refused, and so has no network."""
    return [Problem(f"{file.path}: {file.refused}", file.refused.advice) for file in runtime_files(locations) if file.refused]


def runtime_files(locations: Locations) -> list[cniconfig.File]:
    """Return the files in the runtime's directory, with their paths on the host."""
    if locations.runtime_files is not None:
        return list(locations.runtime_files)
    here = locations.root.path(locations.config_dir)
    return [file._replace(path=locations.config_dir + file.path.removeprefix(here)) for file in cniconfig.read(here)]


def look_at(locations: Locations, configured: Configured, own: Node | None = None) -> StoredNetwork:
    """Find a network's subnets and their use."""
    said = configured.ipam.get("dataDir")
    data_dir = said if isinstance(said, str) and said and is_path(said) else DEFAULT_DATA_DIR
    try:
        call = PLUGINS[str(configured.ipam.get("type"))].resolve(call_for(locations, configured.raw, own))
        data_dir = embedded.data_dir(call.netconf) or DEFAULT_DATA_DIR
        conf = config.load(call.netconf, {})
        store = locations.store(data_dir, configured.name)
        with store.lock():
            usages = tuple(allocator.usage(store, conf.sets, conf.exclude))
        return StoredNetwork(configured, data_dir, store, usages, conf.exclude, None)
    except Problem as error:
        return StoredNetwork(configured, data_dir, locations.store(data_dir, configured.name), (), (), error)
    except OSError as error:
        problem = Problem(f"{error.filename}: {error.strerror}", "run it as root")
        return StoredNetwork(configured, data_dir, locations.store(data_dir, configured.name), (), (), problem)


def rehearse(locations: Locations, configured: Configured, own: Node | None = None) -> None:
    """Do all steps of an ADD but the reservation. Raises Problem if it would fail."""
    call = call_for(locations, configured.raw, own)
    versions.require(call.netconf.cni_version, "ADD")
    call = PLUGINS[str(configured.ipam["type"])].resolve(call)
    ipam = options.permit_resolv_conf(call, call.netconf.ipam)
    call = call._replace(netconf=call.netconf._replace(ipam=ipam))
    try:
        delegation.choose(call, str(configured.ipam.get("delegate") or ""), ipam)
    except NotHereError:  # another plugin: the check `delegates` looks for it
        pass
    try:
        embedded.ready(call)
        embedded.require_writable(call, by_us=os.geteuid() == 0)  # an ordinary user's rights say nothing about the runtime's
    except OSError as error:
        raise Problem(f"{error.filename}: {error.strerror}", "run it as root") from None
