# SPDX-License-Identifier: Apache-2.0
"""The object that `kube-node status` prints with `-o json` and `-o yaml`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubenode.cli import screen
from kubenode.cli.output import as_objects

if TYPE_CHECKING:
    from kubenode.inspection.cluster.whose import Whois
    from kubenode.inspection.holders import Holder
    from kubenode.inspection.report import NetworkReport, Report, Whose


def whose(found: Whose, known: Whois | None = None) -> dict[str, Any]:
    """Return the holders of an address; `known`: the API server's answer if no subnet here has it."""
    holders = [
        {
            "network": network.name,
            "dataDir": network.data_dir,
            **_holder(one),
            "others": [
                {"address": str(other.address), "network": other.network, "ifname": other.attachment.ifname}
                for other in found.others_of(one)
            ],
        }
        for network, one in found.holders
    ]
    told = {"address": str(found.address), "holders": holders, "networks": [network.name for network in found.networks]}
    if known is None:
        return told
    return {**told, "elsewhere": {"nodes": known.where, "pods": [has.pod.name for has in known.pods if not has.pod.on_host]}}


def status(report: Report) -> dict[str, Any]:
    """Return the state of this node."""
    seen, agent = report.node, report.agent
    return {
        "node": {
            "name": seen.node.name if seen.node else None,
            "podCIDRs": list(seen.node.pod_cidrs) if seen.node else [],
            "view": seen.path,
            "fetched": screen.stamp(seen.view.fetched) if seen.view and seen.view.fetched else None,
            "ageSeconds": round(seen.view.age(), 1) if seen.view and seen.view.fetched else None,
            "error": str(seen.problem) if seen.problem else None,
        },
        "agent": {
            "up": agent.up,
            "socket": agent.socket,
            "pid": agent.pid or None,
            "error": agent.problem or None,
            "problems": list(agent.problems),
        },
        "networks": [_network(one) for one in report.networks],
        "unread": as_objects(report.unread),
    }


def _network(one: NetworkReport) -> dict[str, Any]:
    network = one.network
    return {
        "name": network.name,
        "plugin": None if network.configured.is_recorded else network.plugin,
        "config": network.configured.path,
        "dataDir": network.data_dir,
        "source": network.source,
        "error": str(network.problem) if network.problem else None,
        "rangeSets": [
            {
                "family": f"ipv{usage.range_set.version}",
                "subnets": [str(r.subnet) for r in usage.range_set.ranges],
                "ranges": [str(r) for r in usage.range_set.ranges],
                "closing": [str(r) for r in usage.range_set.ranges if r.closing],
                "total": usage.total,
                "used": usage.used,
                "free": usage.total - usage.used,
            }
            for usage in network.usages
        ],
        "attachments": [_holder(holder) for holder in one.holders],
        "suspectedLeaks": len(one.suspects),
    }


def _holder(one: Holder) -> dict[str, Any]:
    return {
        "addresses": list(map(str, one.addresses)),
        "containerID": one.attachment.container_id if one.attachment and not one.rests_until else None,
        "ifname": one.attachment.ifname if one.attachment else None,
        "pod": one.record.pod or None,
        "podUID": one.record.pod_uid or None,
        "netns": one.record.netns or None,
        "since": screen.stamp(one.since),
        "suspectedLeak": one.suspected,
        "restsUntil": screen.stamp(one.rests_until) if one.rests_until else None,
    }
