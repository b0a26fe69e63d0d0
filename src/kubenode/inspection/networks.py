"""The networks of this node: of the runtime's configuration, of files that a person names, and of what ADDs have left."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.cni import versions
from kubenode.cni.errors import CONFIG_FILE, IO_FAILURE, CNIError
from kubenode.cni.netconf import json_type
from kubenode.host import cniconfig, files
from kubenode.host.datadir import DEFAULT_DATA_DIR
from kubenode.inspection.place import Place, call_for
from kubenode.ipam import allocator, config
from kubenode.plugins import delegation, host_local, kube_node, node_annotation, options
from kubenode.plugins.skel import NotHereError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubenode.host.readonly import ReadOnlyStore
    from kubenode.inspection.records import Records
    from kubenode.ipam.allocator import Usage
    from kubenode.ipam.ranges import Subnet
    from kubenode.plugins.skel import Call

RESOLVE: dict[str, Callable[[Call], Call]] = {
    "kube-node": kube_node.resolve,
    "node-annotation": node_annotation.resolve,
    "host-local": lambda call: call,
}
RECORDS = "attachment records"  # where a network's configuration is from if not from a file


class Configured(NamedTuple):
    """A plugin's configuration, and where that stands written; `chain`: the plugins that the network calls, this one among them."""

    path: str
    raw: dict[str, Any]
    chain: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.raw.get("name") or "")

    @property
    def ipam(self) -> dict[str, Any]:
        found: dict[str, Any] = self.raw["ipam"]
        return found


class Network(NamedTuple):
    """A network in a data directory, and how full it is; `problem`: why its subnets are not known."""

    configured: Configured
    data_dir: str
    store: ReadOnlyStore
    usages: tuple[Usage, ...]
    exclude: tuple[Subnet, ...]
    problem: CNIError | None

    @property
    def name(self) -> str:
        return self.configured.name

    @property
    def plugin(self) -> str:
        return str(self.configured.ipam.get("type"))

    @property
    def source(self) -> str:
        """Say where the subnets come from."""
        if self.configured.path == RECORDS:
            return "as last given"
        annotation = self.configured.ipam.get("annotation")
        if self.plugin == "host-local":
            return "ranges"
        return f"annotation {annotation}" if annotation else "spec.podCIDRs"


def find(place: Place, records: Records | None, manifest: dict[str, Any] | None = None) -> list[Network]:
    """Return all networks that configurations and, where they are given, records tell of, each once. `manifest`: a Node newer than it.

    Raises CNIError where a file that a person named cannot be used.
    """
    found: dict[tuple[str, str], Network] = {}
    for configured in [*of_runtime(place), *of_files(place.configs)]:
        network = look_at(place, configured, manifest)
        found.setdefault((network.name, network.data_dir), network)
    for configured in records.networks() if records else ():
        network = look_at(place, configured, manifest)
        found.setdefault((network.name, network.data_dir), network)
    return list(found.values())


def of_runtime(place: Place) -> Iterator[Configured]:
    """Yield what stands in the runtime's directory; a file that cannot be read is `doctor`'s business."""
    for file in runtime_files(place):
        for network in file.networks:
            yield from _configured(file.path, network)


def runtime_files(place: Place) -> list[cniconfig.File]:
    """Return the files of the runtime's directory, by their paths on the host."""
    here = place.root.path(place.config_dir)
    return [file._replace(path=place.config_dir + file.path.removeprefix(here)) for file in cniconfig.read(here)]


def of_files(paths: tuple[str, ...]) -> Iterator[Configured]:
    """Yield what stands in CNI configurations and NetworkAttachmentDefinitions that a person names. Raises CNIError."""
    for path in paths:
        for content in _documents(path):
            try:
                networks = cniconfig.with_delegates(content)
            except cniconfig.RefusedError as error:
                raise CNIError(CONFIG_FILE, f"{path}: {error}", error.advice) from None
            for network in networks:
                yield from _configured(path, network)


def _configured(path: str, network: cniconfig.Network) -> Iterator[Configured]:
    return (Configured(path, raw, network.chain) for raw in network.netconfs(RESOLVE))


def look_at(place: Place, configured: Configured, manifest: dict[str, Any] | None = None) -> Network:
    """Find a network's subnets and how full they are."""
    data_dir = str(configured.ipam.get("dataDir") or "") or DEFAULT_DATA_DIR
    try:
        call = RESOLVE[str(configured.ipam.get("type"))](call_for(place, configured.raw, manifest))
        data_dir = host_local.data_dir(call.netconf) or DEFAULT_DATA_DIR
        conf = config.load(call.netconf, {})
        store = place.store(data_dir, configured.name)
        usages = tuple(allocator.usage(store, conf.sets, conf.exclude))
        return Network(configured, data_dir, store, usages, conf.exclude, None)
    except CNIError as error:
        return Network(configured, data_dir, place.store(data_dir, configured.name), (), (), error)
    except OSError as error:
        problem = CNIError(CONFIG_FILE, f"{error.filename}: {error.strerror}", "run it as root")
        return Network(configured, data_dir, place.store(data_dir, configured.name), (), (), problem)


def rehearse(place: Place, configured: Configured, manifest: dict[str, Any] | None = None) -> None:
    """Go through what an ADD would, all but the reservation. Raises CNIError where it would fail."""
    call = call_for(place, configured.raw, manifest)
    versions.require(call.netconf.cni_version, "ADD")
    call = RESOLVE[str(configured.ipam["type"])](call)
    ipam = options.permit_resolv_conf(call, call.netconf.ipam)
    call = call._replace(netconf=call.netconf._replace(ipam=ipam))
    try:
        delegation.choose(call, str(configured.ipam.get("delegate") or ""), ipam)
    except NotHereError:  # another plugin's: `delegates` looks whether it is there
        pass
    try:
        host_local.ready(call)
        if os.geteuid() == 0:  # what an ordinary user may write says nothing of the runtime
            host_local.require_writable(call)
    except OSError as error:
        raise CNIError(IO_FAILURE, f"{error.filename}: {error.strerror}", "run it as root") from None


def _documents(path: str) -> Iterator[Any]:
    try:
        text = files.read(path)
    except OSError as error:
        raise CNIError(CONFIG_FILE, f"{path}: {error.strerror}", "name a CNI configuration or a NetworkAttachmentDefinition") from None
    import yaml  # what a person names is mostly YAML

    try:
        documents = list(yaml.safe_load_all(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CNIError(CONFIG_FILE, f"{path} is neither JSON nor YAML: {' '.join(str(error).split())}", "correct it") from None
    for document in documents:
        items = document.get("items") if isinstance(document, dict) else None
        for item in items if isinstance(items, list) else [document]:
            yield _config_of(path, item)


def _config_of(path: str, document: Any) -> Any:
    """Return a CNI configuration; of a NetworkAttachmentDefinition the one inside, which may take its name from it, as Multus does."""
    if not isinstance(document, dict):
        raise CNIError(CONFIG_FILE, f"{path} holds a {json_type(document)}", "name a CNI configuration or a NetworkAttachmentDefinition")
    if document.get("kind") != "NetworkAttachmentDefinition":
        return document
    name = (document.get("metadata") or {}).get("name")
    text = (document.get("spec") or {}).get("config")
    try:
        content = json.loads(text or "{}")
    except (ValueError, TypeError) as error:
        raise CNIError(CONFIG_FILE, f"{path}: spec.config of {name} is not JSON: {error}", "correct it") from None
    return {"name": name, "cniVersion": versions.LATEST, **content} if isinstance(content, dict) else content
