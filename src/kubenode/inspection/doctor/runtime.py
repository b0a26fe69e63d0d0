# SPDX-License-Identifier: Apache-2.0
"""Checks of the runtime's configuration: the files that it takes, and the pods' network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kubenode.host import cniconfig
from kubenode.inspection.doctor.finding import Finding, failure, ok, skipped, warning
from kubenode.installer import held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.host.cniconfig import Network
    from kubenode.inspection.doctor.facts import Facts

STOPS = "the node has no pod network while it is the first: containerd refuses all, CRI-O takes the next one; "


def cni_config(facts: Facts) -> Iterator[Finding]:
    """Check that the runtime takes each file of its directory."""
    decides = facts.pods_network
    for file in facts.runtime_files:
        if file.refused and (decides is None or file.path < decides[0].path):
            yield failure(f"the runtime refuses {file.path}: {file.refused}", STOPS + file.refused.advice)
        elif file.refused and decides:
            told = f"the runtime would refuse {file.path}: {file.refused}; {decides[0].path} comes before it"
            yield warning(told, file.refused.advice)
    if not facts.runtime_files:
        yield skipped(f"there is no configuration in {facts.locations.config_dir}")
    if taken := [file.path for file in facts.runtime_files if not file.refused]:
        yield ok(f"the runtime takes {', '.join(taken)}")


def pod_network(facts: Facts) -> Iterator[Finding]:
    """Check which network the runtime connects every pod to, and that none of ours is configured for that in vain."""
    directory, found = facts.locations.config_dir, facts.pods_network
    waiting = ", ".join(os.path.basename(path) for path in held.waiting(facts.locations.root.path(directory)))
    if not facts.configured and not waiting:
        advice = f"write one, such as examples/10-k8snet.conflist, to {directory}; or name those of secondary networks with --config"
        yield failure(f"no network with {', '.join(cniconfig.OURS)} in {directory}", advice)
    if found is None:
        if waiting:
            yield failure(
                f"{waiting} in {directory} waits for the agent: the runtime has no network until then",
                "see why the agent is not ready: kubectl -n kube-system logs daemonset/kube-node -c agent",
            )
        elif facts.configured:
            yield skipped(f"there is no network configuration in {directory}, so this runtime connects no pod")
        return
    if facts.runtime_files[0].refused:
        yield skipped(f"{facts.runtime_files[0].path} comes first and is refused, see cni-config")
        return
    file, network = found
    told = f"pods get network {network.name} of {file.path}, with addresses by {' and '.join(_givers(network))}"
    ours = [one for one in facts.runtime_files if any(list(each.netconfs(cniconfig.TAKE_NODES)) for each in one.networks)]
    if any(network.netconfs(cniconfig.TAKE_NODES)):
        yield ok(told)
    elif file.networks[0].is_multus or not ours:  # host-local may be our drop-in
        yield ok(told if any(network.netconfs(cniconfig.OURS)) else f"{told}: kube-node is not this node's pod network")
    else:
        behind = ours[0].path
        yield failure(
            f"{told}: kube-node is not this node's pod network; {behind} comes after",
            f"remove the other CNI, and then {file.path}; or, to run beside it, put {behind}'s network into a NetworkAttachmentDefinition: "
            "docs/how-to/another-cni.md",
        )


def _givers(network: Network) -> list[str]:
    """Return the plugins that give a network's addresses: its IPAM plugins, or without any the first plugin."""
    return [str(plugin["ipam"]["type"]) for plugin in network.plugins if (plugin.get("ipam") or {}).get("type")] or [network.chain[0]]
