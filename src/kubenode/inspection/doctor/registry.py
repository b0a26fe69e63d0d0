"""All checks, in the order in which a pod's address depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.cni.errors import CNIError
from kubenode.inspection.doctor import api, files, networks, pools, runtime, store
from kubenode.inspection.doctor.finding import Check, Finding, Result, State, failure, of_error, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.doctor.facts import Facts

CHECKS = (
    Check("cni-config", "no configuration", runtime.cni_config),
    Check("pod-network", "", runtime.pod_network),
    Check("plugins", "nothing is called", files.plugins),
    Check("one-version", "nothing of ours to compare: run from a Python environment", files.one_version),
    Check("fallback", "every relay has its launcher, or there is no relay", files.fallback),
    Check("allowed", "", files.allowed),
    Check("delegates", "every delegate is there, or built in", files.delegates),
    Check("agent", "", files.agent),
    Check("kubeconfig", "", files.kubeconfig),
    Check("api-server", "", api.reachable),
    Check("rights", "not asked", api.rights),
    Check("agent-rights", "no agent asks the API server, or not to be seen from here", api.agent_rights),
    Check("own-node", "not asked", api.own_node),
    Check("machine-id", "no other Node has it", api.machine_id),
    Check("pod-cidrs", "the Node is not known", api.pod_cidrs),
    Check("node-view", "it is what the API server says, or newer than five minutes", api.node_view),
    Check("networks", "none is known", networks.valid),
    Check("keys", "every key is known, or like none that is", networks.unknown_keys),
    Check("sources", "no two networks take their addresses from one source", networks.sources),
    Check("pools", "no SubnetPool is for a network of this node", pools.pools),
    Check("families", "every pod gets an address", networks.families),
    Check("overlap", "no two networks give the same addresses", networks.overlap),
    Check("host-routes", "no subnet is in the way of the host's addresses and routes", networks.host_routes),
    Check("exhaustion", "no pool is over 80 % full", networks.exhaustion),
    Check("ipv4-limit", "every pod can reach the API server's address", networks.ipv4_limit),
    Check("default-gateway", "no secondary network takes the default route", networks.default_gateway),
    Check("access", "nobody but root changes reservations", store.access),
    Check("reboot", "no reservations yet", store.reboot),
    Check("torn", "every reservation says whose it is", store.torn),
    Check("leaks", "whoever holds an address has a network namespace", store.leaks),
)


def examine(facts: Facts) -> Iterator[Result]:
    """Make all checks. What is well is told in one line, and only of a check that found nothing wrong."""
    for check in CHECKS:
        found = _look(check, facts)
        wrong = [one for one in found if one.state > State.OK]
        not_looked = [one for one in found if one.state is State.SKIPPED]
        well = [one for one in found if one.state is State.OK]
        for one in [*(wrong or ([_fine(check, well)] if well or not not_looked else [])), *not_looked]:
            yield Result(check.name, one)


def _look(check: Check, facts: Facts) -> list[Finding]:
    try:
        return list(check.look(facts))
    except CNIError as error:
        return [of_error(error)]
    except OSError as error:
        return [failure(f"{error.filename}: {error.strerror}", "run it as root")]


def _fine(check: Check, found: list[Finding]) -> Finding:
    return ok("; ".join(dict.fromkeys(one.what for one in found)) or check.fine)
