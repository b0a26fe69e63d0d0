# SPDX-License-Identifier: Apache-2.0
"""Checks of networks: their configuration, their subnets, and the use of the subnets."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kubenode.base.problem import Problem
from kubenode.cni import keys
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError, OutOfReachError
from kubenode.host.sources import Sources
from kubenode.inspection.doctor import hostnet
from kubenode.inspection.doctor.finding import Finding, failure, of_error, ok, skipped, warning
from kubenode.inspection.networks import rehearse, told
from kubenode.ipam.address import parse_address
from kubenode.ipam.store import DEFAULT_DATA_DIR
from kubenode.kube.loadingrules import connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.doctor.facts import Facts
    from kubenode.inspection.named import Configured
    from kubenode.inspection.networks import StoredNetwork
    from kubenode.ipam.address import Address
    from kubenode.ipam.ranges import Range

WITHIN_IPAM = ("annotation", "ipv4-namespaces", "ipv6-namespaces", "nodeFile", "refreshAfter")  # keys that no other plugin has
NEAR_KEY = 0.7  # similarity that makes a key a misspelling of another
NEAR = 80  # per cent in use that cause a warning
ADVICE_FULL = "delete pods of this node or move them to others; or give it another subnet"


def valid(facts: Facts) -> Iterator[Finding]:
    """Each network's configuration, Node and host are as an ADD needs them: it would find an address."""
    for broken in facts.locations.named.broken:
        yield of_error(broken)
    for one in facts.configured:
        try:
            rehearse(facts.locations, one, facts.fresh)
        except Problem as error:
            problem = f"network {one.name} in {one.path}: {error.msg}"
            is_passing = isinstance(error, CNIError) and error.code == TRY_AGAIN_LATER
            if is_passing or (isinstance(error, OutOfReachError) and not _is_mounted(facts, one)):
                yield skipped(problem, error.details)
            else:
                yield failure(problem, error.details or f"correct {one.path}")
    for network in facts.networks:
        if network.problem is None:
            yield ok(f"{network.name}: {', '.join(map(told, _ranges(network)))} {network.by_source}")


def _is_mounted(facts: Facts, one: Configured) -> bool:
    """Say whether this process sees the configuration's paths of the host; in a container it may not."""
    named = [one.ipam.get("dataDir") or DEFAULT_DATA_DIR, one.ipam.get("resolvConf") or DEFAULT_DATA_DIR]
    return all(facts.locations.root.is_mounted(str(path)) for path in named)


def families(facts: Facts) -> Iterator[Finding]:
    """Pods without one family get an address of the other."""
    for network in facts.networks:
        have = sorted({usage.range_set.version for usage in network.usages})
        limits = {family: network.configured.ipam.get(_limit(family)) for family in (4, 6)}
        path = network.configured.path
        if not have or network.plugin != "kube-node":
            continue
        for family in limits.keys() - set(have):
            if limits[family] is not None:
                advice = f"give the Node an IPv{family} subnet, or remove {_limit(family)} from {path}"
                yield warning(f"network {network.name} has {_limit(family)} and no IPv{family} subnet", advice)
        if any(limits[family] is None for family in have):
            continue
        limited = " and ".join(f"{_limit(family)} {limits[family]}" for family in have)
        who = "pods of namespaces other than" if any(limits[family] for family in have) else "pods of all namespaces, by"
        advice = f"add the namespaces, or remove {_limit(have[0])} from {path}"
        if len(have) == 1:
            advice = f"give the Node an IPv{10 - have[0]} subnet, too (--cluster-cidr with both families), or {advice}"
        yield failure(f"network {network.name}: {who} {limited}, get no address", advice)


def _limit(family: int) -> str:
    return f"ipv{family}-namespaces"


def overlap(facts: Facts) -> Iterator[Finding]:
    """No two networks give the same addresses."""
    found = [network for network in facts.networks if network.usages]
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            pair = next(((a, b) for a in _ranges(one) for b in _ranges(other) if a.overlaps(b)), None)
            if pair:
                yield failure(
                    f"networks {one.name} and {other.name} both give addresses of {pair[0].subnet} and {pair[1].subnet}",
                    f"give one of them another subnet: {one.name} has its own {one.by_source}, {other.name} {other.by_source}",
                )


def sources(facts: Facts) -> Iterator[Finding]:
    """Check that no two networks use the same podCIDRs or annotation: they would give the same addresses twice."""
    first: dict[str, tuple[Configured, tuple[str, str]]] = {}
    for one in facts.configured:
        source = _source(one)
        if not source:
            continue
        where = (one.name, str(one.ipam.get("dataDir") or DEFAULT_DATA_DIR))
        other, taken = first.setdefault(source, (one, where))
        if where != taken:
            yield failure(
                f"networks {other.name} ({other.path}, dataDir {taken[1]}) and {one.name} ({one.path}, dataDir {where[1]}) both take "
                f"their addresses from {source}",
                "give both the same name and dataDir, or each an annotation of its own",
            )
        holder = Sources(facts.locations.run).holder(source)
        data_dir, _, network = holder.rpartition("/")
        held = facts.locations.store(data_dir, network).since() if holder and holder != os.path.normpath("/".join(reversed(where))) else []
        if held and one.ipam["type"] == "kube-node":  # an annotation of the other may name a dataDir
            yield failure(
                f"{source} serves network {network} in dataDir {data_dir} with {len(held)} reservations, and cannot also serve {one.name}",
                f"give both the same name and dataDir, or {one.name} another annotation; it takes over once {network} has no reservation",
            )


def _source(one: Configured) -> str:
    """Return the source of a network's addresses, which no other network may use; "" if that is its own configuration."""
    ipam = one.ipam
    if ipam.get("type") == "host-local" or (ipam.get("type") == "node-annotation" and (ipam.get("ranges") or ipam.get("subnet"))):
        return ""
    source = f"annotation {ipam['annotation']}" if ipam.get("annotation") else "spec.podCIDRs"
    return f"{source} of {ipam['nodeFile']}" if ipam.get("nodeFile") else source


def unknown_keys(facts: Facts) -> Iterator[Finding]:
    """Check that all keys are known and in the right place; a configured delegate may have further keys."""
    for one in facts.configured:
        ours = one.ipam["type"] != "host-local"
        names = keys.IPAM.keys() - (set() if ours else set(keys.OWN))
        others = one.ipam.get("delegate") not in (None, "", "embedded", "host-local")
        for key in sorted(one.ipam.keys() - names if not others else ()):
            near = keys.like(key, names, NEAR_KEY)
            advice = f"write {near} if that is meant, else remove it" if near else "remove it: it has no effect"
            who = "nobody knows" if key not in keys.IPAM else "kube-node knows, and host-local does not"
            yield warning(f"network {one.name} in {one.path}: ipam has a key {key!r}, which {who}", advice)
        for key in sorted(one.raw.keys() & set(WITHIN_IPAM) if ours else ()):
            yield warning(
                f"network {one.name} in {one.path}: {key} is beside ipam instead of in it, so it has no effect", f"move {key} into ipam"
            )


def host_routes(facts: Facts) -> Iterator[Finding]:
    """No network overlaps the host's addresses and routes."""
    routes, addresses = hostnet.routes(), hostnet.addresses()
    for network in facts.networks:
        for one in _ranges(network):
            for what in hostnet.conflicts(network.configured.raw, one.subnet, one.gateway, routes, addresses):
                advice = "give the network another subnet, or remove that address or route from the host"
                yield failure(f"subnet {one.subnet} of network {network.name} and {what} overlap", advice)


def exhaustion(facts: Facts) -> Iterator[Finding]:
    """No range set is full, or nearly so."""
    for network in facts.networks:
        for usage in network.usages:
            in_use = f"network {network.name}: {usage.used:,} of {usage.total:,} IPv{usage.range_set.version} addresses are in use"
            if not usage.total:
                yield failure(f"network {network.name}: {usage.range_set}: all of it is closing or excluded", ADVICE_FULL)
            elif usage.used >= usage.total:
                yield failure(in_use, ADVICE_FULL)
            elif usage.used * 100 > usage.total * NEAR:
                yield warning(in_use, ADVICE_FULL)


def ipv4_limit(facts: Facts) -> Iterator[Finding]:
    """Pods without IPv4 can reach the API server: its address is not IPv4."""
    limited = [one for one in facts.networks if one.plugin == "kube-node" and one.configured.ipam.get("ipv4-namespaces") is not None]
    limited = [one for one in limited if not one.configured.is_recorded and not facts.is_secondary(one.configured)]
    if not limited:
        yield skipped("the pods' network has no ipv4-namespaces")
    for network in limited:
        limit = network.configured.ipam["ipv4-namespaces"]
        address = _api_address(facts, facts.kubeconfig_of(network.configured))
        if address is None:
            yield skipped("the API server's address is not known here")
        elif address.version != 4:  # noqa: PLR2004 -- the IP version
            yield ok(f"the API server is at {address}")
        else:
            yield warning(
                f"network {network.name} keeps IPv4 for namespaces {limit}, and the API server is at {address}: other pods cannot reach it",
                "let the cluster's first --service-cluster-ip-range be IPv6, add the namespaces whose pods need the API server, "
                f"or remove ipv4-namespaces from {network.configured.path}",
            )


def default_gateway(facts: Facts) -> Iterator[Finding]:
    """No secondary network takes the pods' default route."""
    for one in facts.configured:
        if one.raw.get("isDefaultGateway") is True and facts.is_secondary(one):
            yield warning(
                f"network {one.name} in {one.path} is a secondary one and has isDefaultGateway true: it takes the default route of pods",
                "remove isDefaultGateway there (isGateway still gives the bridge its address); put its routes into ipam.routes",
            )


def gateways(facts: Facts) -> Iterator[Finding]:
    """No bridge takes the address of a pod, or of the router of a network of all nodes."""
    for network in facts.networks:
        raw, path = network.configured.raw, network.configured.path
        if raw.get("type") != "bridge" or not (raw.get("isGateway") or raw.get("isDefaultGateway")):
            continue
        for one in _ranges(network):
            if one.gateway is None:
                yield failure(
                    f"network {network.name} in {path}: {told(one)} has no gateway, and a bridge with isGateway takes its first address",
                    f"remove isGateway and isDefaultGateway from {path}, or give the subnet a gateway (via ADDRESS in the annotation)",
                )
            elif network.plugin == "kube-node" and not one.is_whole:
                yield failure(
                    f"network {network.name} in {path}: {told(one)} is a block of a network of all nodes, and a bridge with isGateway "
                    f"takes its router's address {one.gateway} on each node",
                    f"remove isGateway and isDefaultGateway from {path}",
                )


def static_ips(facts: Facts) -> Iterator[Finding]:
    """Check that a definition for Multus passes on all addresses that a pod asks for."""
    definitions = [one for one in facts.configured if one.path in facts.locations.configs and facts.is_secondary(one)]
    if not definitions:
        yield skipped("no definition for Multus is given: --config=FILE names one")
    for one in definitions:
        if (one.raw.get("capabilities") or {}).get("ips") is not True:
            yield warning(
                f"network {one.name} in {one.path} has no capability ips: Multus passes on only the first of several addresses for a pod",
                f'add "capabilities": {{"ips": true}} beside "type": {json.dumps(one.raw.get("type"))} in {one.path}',
            )


def _ranges(network: StoredNetwork) -> list[Range]:
    return [one for usage in network.usages for one in usage.range_set.ranges]


def _api_address(facts: Facts, kubeconfig: str) -> Address | None:
    """Return the API server's address; None if unknown."""
    host = facts.locations.environ.get("KUBERNETES_SERVICE_HOST", "")
    if not host:
        try:
            host = (
                urlsplit(
                    connection(facts.locations.kubeconfig or facts.locations.root.path(kubeconfig), facts.locations.environ).cluster.server
                ).hostname
                or ""
            )
        except CNIError:
            return None
    return parse_address(host)
