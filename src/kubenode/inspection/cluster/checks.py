# SPDX-License-Identifier: Apache-2.0
"""All checks of the cluster, in their order; each looks only at the census."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from kubenode.cni.errors import CNIError
from kubenode.inspection.cluster.census import take
from kubenode.inspection.cluster.overlaps import overlaps
from kubenode.inspection.cluster.reading import collected
from kubenode.inspection.cluster.usage import usages
from kubenode.inspection.doctor.finding import CheckResult, Finding, State, failure, of_error, ok, skipped, warning
from kubenode.inspection.doctor.pools import BAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubenode.inspection.cluster.census import Census, Examples
    from kubenode.inspection.cluster.reading import ClusterReader

NEAR = 80  # per cent in use that cause a warning
NO_AGENTS = "no pod of the cluster is an agent: plugins work without one, and the API server does not know agents that systemd runs"
RESTART = "kubectl -n kube-system rollout restart daemonset kube-node"


class ClusterCheck(NamedTuple):
    """A check. `look` yields findings; without any, `fine` is true. `all_pods`: it needs the pods of all namespaces."""

    name: str
    fine: str
    look: Callable[[Census], Iterator[Finding]]
    all_pods: bool = False


def examine(reader: ClusterReader, namespace: str) -> Iterator[CheckResult]:
    """Read the cluster once, and make all checks."""
    try:
        census = collected(lambda: take(reader))
    except CNIError as error:
        yield CheckResult("api-server", of_error(error))
        return
    yield CheckResult("api-server", ok(f"it lists {len(census.nodes):,} nodes and {census.pods:,} pods"))
    for what, why in census.unseen.items():
        yield CheckResult("api-server", skipped(f"{what} were not seen: {why}"))
    for check in CHECKS:
        if check.all_pods and namespace:
            yield CheckResult(check.name, skipped(f"only pods of namespace {namespace} are checked"))
            continue
        found = list(check.look(census))
        wrong = [one for one in found if one.state > State.OK]
        told = wrong or ([ok(check.fine)] if not found else [])
        for one in [*told, *(one for one in found if one.state <= State.OK)]:
            yield CheckResult(check.name, one)


def _duplicates(census: Census) -> Iterator[Finding]:
    """No two pods of one network have the same address; in two networks it may be intended."""
    advice = "delete one of the pods, and see whose subnets overlap, or which node's reservations were lost: kube-node whois ADDRESS"
    yield from _each(census.shared, advice, failure)
    yield from _each(
        census.across, "two separate networks may have the same addresses; if these are connected: kube-node whois ADDRESS", warning
    )


def _outside(census: Census) -> Iterator[Finding]:
    """Addresses are in their nodes' subnets, in networks with our plugins."""
    advice = (
        "the node has another subnet now, or another plugin gave the address: delete the pod, and its next address is in the node's subnet"
    )
    for network in sorted({*census.misplaced, *census.foreign}):
        yield from _each(census.misplaced[network], advice, warning)
        if network in census.networks or census.inside[network] or census.misplaced[network].total:
            yield from _each(census.foreign[network], advice, warning)
        else:
            name = f"network {network}" if network else "the pods' own network"
            yield skipped(f"{name} has {census.foreign[network].total:,} addresses, none in a node's subnet: another IPAM assigns them")


def _overlap(census: Census) -> Iterator[Finding]:
    """No two nodes or sources have the same subnet."""
    known, guessed = overlaps(census.index, census.keys)
    advice = "pods get the same addresses: correct the Node that is wrong, and delete its pods"
    yield from _each(known, advice, failure)
    yield from _each(guessed, f"if a network takes its subnets from that annotation, {advice}", warning)


def _exhaustion(census: Census) -> Iterator[Finding]:
    """Nodes have addresses left, by their agents' reports or the API server's pods. A pool that grows may be nearly used up."""
    for one in usages(census):
        for network in one.networks:
            full = network.used >= network.total
            grows = one.report is not None and network.names[-1] in one.report.grows
            if not network.total or network.used * 100 < NEAR * network.total or (grows and not full):
                continue
            what = f"node {one.node} uses {network.used:,} of its {network.total:,} IPv{network.version} addresses ({network.source})"
            advice = f"give the node a further subnet, or a larger one; kube-node status on {one.node} shows leaks"
            yield failure(what, advice) if full else warning(what, advice)


def _leaks(census: Census) -> Iterator[Finding]:
    """No agent suspects leaks."""
    if not census.reports:
        yield skipped("no agent reports: see the component node-addresses")
        return
    for node, report in sorted(census.reports.items()):
        if report.leaks and node in census.nodes:
            yield warning(
                f"the agent of node {node} suspects {report.leaks:,} leaks",
                f"its log says why they stay reserved; the component reclaim releases them; kube-node status on {node} shows them",
            )


def _pools(census: Census) -> Iterator[Finding]:
    """SubnetPools have subnets left, and no bad condition."""
    for pool in census.pools:
        for condition in pool.status.get("conditions") or ():
            if condition.get("status") == BAD.get(str(condition.get("type"))):
                what = f"SubnetPool {pool.name}: {condition.get('reason')}: {condition.get('message')}"
                yield warning(what, f"see kubectl describe subnetpool {pool.name}, and the conditions in docs/reference/controller.md")
        for network in pool.status.get("cidrs") or ():
            given = network["total"] - network["free"]
            if given * 100 >= NEAR * network["total"]:
                what = f"{network['cidr']} of SubnetPool {pool.name} has {network['free']:,} of its {network['total']:,} subnets free"
                yield warning(what, f"add a network to the pool before nodes come: kubectl edit subnetpool {pool.name}")


def _agents(census: Census) -> Iterator[Finding]:
    """Each node that an agent's DaemonSet selects has an agent that is ready."""
    if not census.agents and not census.daemon_sets and not census.reports:
        yield skipped(NO_AGENTS)
        return
    wanted = [name for name, is_wanted in census.nodes.items() if is_wanted or not census.daemon_sets]
    for name in sorted(wanted):
        if name not in census.agents and name in census.reports:
            continue  # systemd may run it
        if name not in census.agents:
            yield warning(
                f"node {name} has no agent",
                f"see why: kubectl get pods -A -l app.kubernetes.io/name=kube-node --field-selector spec.nodeName={name}",
            )
        elif not census.agents[name].ready:
            pod = census.agents[name].pod
            namespace, _, short = pod.partition("/")
            yield warning(f"the agent of node {name} is not ready: pod {pod}", f"kubectl -n {namespace} logs {short}")


def _versions(census: Census) -> Iterator[Finding]:
    """All agents have the image of their DaemonSet, or one image; and one version."""
    versions = Counter(report.version for node, report in census.reports.items() if node in census.nodes)
    for node, report in sorted(census.reports.items()):
        if node in census.nodes and report.version != (most := versions.most_common(1)[0][0]):
            yield warning(f"the agent of node {node} has version {report.version}, and most have {most}", f"is a rollout stuck? {RESTART}")
    if not census.agents and not census.reports:
        yield skipped(NO_AGENTS)
        return
    if not census.agents:
        return
    wanted = {one.image for one in census.daemon_sets}
    usual = wanted or {Counter(agent.image for agent in census.agents.values()).most_common(1)[0][0]}
    whose = "the DaemonSet has" if wanted else "most have"
    for node, agent in sorted(census.agents.items()):
        if agent.image not in usual:
            yield warning(
                f"the agent of node {node} is {agent.image}, and {whose} {', '.join(sorted(usual))}", f"is a rollout stuck? {RESTART}"
            )


def _annotations(census: Census) -> Iterator[Finding]:
    """Each plugin can read its annotations of nodes."""
    advice = "pods of that node get no address of this network: kubectl annotate --overwrite node NODE KEY=CIDR[,CIDR...]"
    for key, found in sorted(census.unreadable.items()):
        if key in census.keys:
            yield from _each(found, advice, failure)
        elif census.readable[key] >= found.total:  # probably a network's, as most nodes have subnets there
            yield from _each(found, advice, warning)


def _each(found: Examples, advice: str, make: Callable[[str, str], Finding]) -> Iterator[Finding]:
    for text in found:
        yield make(text, advice)
    if found.total > len(found):
        yield make(f"and {found.total - len(found):,} more like these", advice)


CHECKS = (
    ClusterCheck("duplicates", "no two pods have one address", _duplicates),
    ClusterCheck("outside", "pods' addresses are in their nodes' subnets", _outside),
    ClusterCheck("overlap", "no two nodes or sources have the same subnet", _overlap),
    ClusterCheck("exhaustion", f"no node uses over {NEAR} % of its addresses", _exhaustion, all_pods=True),
    ClusterCheck("leaks", "no agent suspects leaks", _leaks),
    ClusterCheck("pools", f"no SubnetPool has given over {NEAR} % of its subnets", _pools),
    ClusterCheck("agents", "each node has an agent that is ready", _agents, all_pods=True),
    ClusterCheck("versions", "all agents have one image", _versions, all_pods=True),
    ClusterCheck("annotations", "each annotation can be read", _annotations),
)
