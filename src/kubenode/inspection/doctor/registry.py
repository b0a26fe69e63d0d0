# SPDX-License-Identifier: Apache-2.0
"""All checks, in the order in which a pod's address depends on them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kubenode.base import files as files_of_host
from kubenode.base.problem import Problem
from kubenode.inspection.doctor import api, files, networks, pools, runtime, store
from kubenode.inspection.doctor.finding import Check, CheckResult, Finding, Of, State, failure, of_error, ok, skipped
from kubenode.inspection.report import unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.doctor.facts import Facts

CHECKS = (
    Check("cni-config", "", runtime.cni_config),
    Check("pod-network", "", runtime.pod_network),
    Check("plugins", "", files.plugins),
    Check("one-version", "", files.one_version),
    Check("fallback", "", files.fallback),
    Check("allowed", "", files.allowed),
    Check("delegates", "", files.delegates),
    Check("agent", "", files.agent),
    Check("kubeconfig", "", files.kubeconfig),
    Check("api-server", "", api.reachable),
    Check("rights", "", api.rights),
    Check("agent-rights", "", api.agent_rights),
    Check("own-node", "", api.own_node),
    Check("machine-id", "", api.machine_id),
    Check("pod-cidrs", "", api.pod_cidrs),
    Check("node-view", "", api.node_view),
    Check("networks", "each network has what an ADD needs", networks.valid, Of.NETWORKS),
    Check("keys", "every key of ipam is known", networks.unknown_keys, Of.NETWORKS),
    Check("sources", "no two networks take their addresses from one source", networks.sources, Of.NETWORKS),
    Check("pools", "annotations agree with SubnetPools", pools.pools),
    Check("families", "no limit leaves a pod without address", networks.families, Of.SUBNETS),
    Check("overlap", "no two networks give the same addresses", networks.overlap, Of.SUBNETS),
    Check("host-routes", "no subnet overlaps the host's addresses and routes", networks.host_routes, Of.SUBNETS),
    Check("exhaustion", "no pool is over 80 % full", networks.exhaustion, Of.SUBNETS),
    Check("ipv4-limit", "", networks.ipv4_limit, Of.NETWORKS),
    Check("default-gateway", "no secondary network takes the default route", networks.default_gateway, Of.NETWORKS),
    Check("gateways", "no bridge takes addresses of pods and routers", networks.gateways, Of.SUBNETS),
    Check("static-ips", "every definition for Multus has the capability ips", networks.static_ips, Of.NETWORKS),
    Check("access", "only their owners can change reservations", store.access, Of.STORES),
    Check("reboot", "", store.reboot, Of.STORES),
    Check("torn", "every reservation names its container", store.torn, Of.STORES),
    Check("leaks", "the network namespace of every record exists", store.leaks, Of.STORES),
)


def examine(facts: Facts) -> Iterator[CheckResult]:
    """Make all checks. A check without faults has one line."""
    if os.geteuid() != 0:
        _require_access(facts)
    for check in CHECKS:
        found = _look(check, facts)
        found += _passed_over(check, facts) if not found or found[0].state is not State.SKIPPED else ()
        wrong = [one for one in found if one.state > State.OK]
        not_looked = [one for one in found if one.state is State.SKIPPED]
        well = [one for one in found if one.state is State.OK]
        for one in [*(wrong or ([_fine(check, well)] if well or not not_looked else [])), *not_looked]:
            yield CheckResult(check.name, one)


def _look(check: Check, facts: Facts) -> list[Finding]:
    try:
        return [*_not_there(check, facts)] or list(check.look(facts))
    except Problem as error:
        return [of_error(error)]
    except PermissionError as error:
        if os.geteuid() != 0:  # the following checks would fail likewise
            raise unreadable(error) from None
        return [failure(f"{error.filename}: {error.strerror}", "root has no access: does a security module deny it?")]
    except OSError as error:
        return [failure(f"{error.filename}: {error.strerror}", "see what is there: ls -ld, dmesg")]


def _require_access(facts: Facts) -> None:
    """Raise Problem if an ordinary user has no access: the checks would say nothing."""
    root, locations = facts.locations.root, facts.locations
    try:
        for directory in (root.path(locations.config_dir), locations.run):
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_file():
                        files_of_host.read(entry.path)
    except PermissionError as error:
        raise unreadable(error) from None
    except OSError:  # the checks report it
        pass


def _not_there(check: Check, facts: Facts) -> Iterator[Finding]:
    """Say that there is nothing for a check to look at."""
    there = {
        None: True,
        Of.NETWORKS: bool(facts.configured or facts.locations.named.broken),
        Of.SUBNETS: any(network.usages for network in facts.networks),
        Of.STORES: any(os.path.isdir(network.store.directory) for network in facts.networks),
    }
    if not there[check.of]:
        yield skipped(str(check.of and check.of.value))


def _passed_over(check: Check, facts: Facts) -> Iterator[Finding]:
    """Name the networks that a check skipped because their subnets are unknown."""
    unknown = [network.name for network in facts.networks if network.problem]
    if check.of is Of.SUBNETS and unknown:
        yield skipped(f"the subnets of network {', '.join(unknown)} are not known")


def _fine(check: Check, found: list[Finding]) -> Finding:
    return ok("; ".join(dict.fromkeys(one.what for one in found)) or check.fine)
