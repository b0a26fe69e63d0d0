#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many pods, created and deleted again and again on a real one-node cluster whose addresses the agent gives through the relay.

    many_pods.py [--rounds=10] [--pods=50] [--compare=0] [--bin=_output/bin]

Afterwards nothing may be left, and what the agent tells must agree with what has happened. With --compare=N, N rounds more of each: the
agent, kube-node without agent, and the reference's host-local alone, in turn; it shows how long pods waited for their addresses.

Root only; variables as for one_node_cluster.py.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from lab import NODE, CheckFailedError, Lab, cluster_for, parser, pod, pods, wait
from nodeagent import NodeAgent, Samples
from one_node_cluster import check_addresses
from sandboxes import Stopwatch, Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LABEL = {"of": "many"}
SETTLE = 2  # seconds for the runtime to see a changed configuration
CALL = "kubenode_call_duration_seconds"
SANDBOX, NETWORK, IPAM = "sandbox asked for to addresses", "of this all network plugins", "of this the IPAM plugin"


class Seconds(NamedTuple):
    """What a round took: its pods together, and each sandbox."""

    ready: float
    gone: float
    whole: list[float]
    network: list[float]


def prepare(lab: Lab) -> None:
    """Start a cluster whose containerd says when it does what, and whose kubelet reports as fast as its pods change."""
    lab.up()
    config = lab.directory / "containerd.toml"
    config.write_text(config.read_text() + '[debug]\n  level = "debug"\n')
    lab.restart("containerd")
    kubelet = lab.directory / "kubelet.yaml"
    # Its own limit, 5 requests a second, is all that one would measure.
    fast = {"kubeAPIQPS": 200, "kubeAPIBurst": 400, "eventRecordQPS": 0}
    kubelet.write_text(json.dumps({**json.loads(kubelet.read_text()), **fast}))
    lab.restart("kubelet")
    lab.install()


def play(lab: Lab, count: int) -> Seconds:
    """Run so many pods at once, see that all have what they should have, and delete them."""
    waits = Waits(lab.directory / "log/containerd.log")
    begin = time.monotonic()
    lab.kubectl("create", "-f", "-", stdin=pods(*(pod(f"many-{number}", **LABEL) for number in range(count))))
    lab.kubectl("wait", "--for=condition=Ready", "pod", "-l", "of=many", "--timeout=240s")
    ready = time.monotonic() - begin
    addresses = lab.pod_addresses("-l", "of=many")
    if len(addresses) != count:
        raise CheckFailedError(f"{len(addresses)} pods, not {count}")
    check_addresses(lab, addresses)
    begin = time.monotonic()
    lab.kubectl("delete", "pod", "-l", "of=many", "--wait", "--timeout=240s")
    lab.wait_for_nothing(120)
    return Seconds(ready, time.monotonic() - begin, *waits.read())


def middle(values: Sequence[float]) -> str:
    """Return median and 90th percentile in milliseconds."""
    if len(values) < 2:
        return "unknown"
    return f"{statistics.median(values) * 1000:7.1f} ms, nine of ten within {statistics.quantiles(values, n=10)[-1] * 1000:7.1f} ms"


def api_counts(lab: Lab) -> tuple[float, float]:
    """Return how often anybody has listed Nodes, and how many watches of Nodes there are, as the API server counts."""
    samples = Samples(lab.kubectl("get", "--raw=/metrics"))
    lists = samples.total("apiserver_request_total", resource="nodes", verb="LIST")
    watches = samples.total("apiserver_longrunning_requests", resource="nodes", verb="WATCH")  # of today; the other is 1.20's
    return lists, watches or samples.total("apiserver_registered_watchers", group="", kind="Node")


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise CheckFailedError(f"{what}: {found}, not {wanted}")


def many(lab: Lab, agent: NodeAgent, rounds: int, count: int) -> None:
    """The rounds, and what has to hold after them."""
    agent.start("--grace=2")
    lists_before = api_counts(lab)[0]
    took = []
    for number in range(rounds):
        took.append(play(lab, count))
        print(f"round {number + 1:2}: {count} pods ready after {took[-1].ready:5.1f} s, gone after {took[-1].gone:5.1f} s", flush=True)
    lists, watches = api_counts(lab)
    expect("LISTs of Nodes meanwhile", lists - lists_before, 0)
    told = agent.metrics()
    for command in ("ADD", "DEL"):
        expect(f"errors of {command}", told.total("kubenode_call_errors_total", plugin="kube-node", command=command), 0)
        if told.calls(command) < rounds * count:
            raise CheckFailedError(f"{told.calls(command)} {command}, fewer than pods")
    expect("addresses used", told.used(), 0)
    expect("leaks reclaimed", told.reclaimed(), 0)
    expect("watches by the agent", told.total("kubenode_api_requests_total", verb="watch"), 1)
    expect("GETs by the agent", told.total("kubenode_api_requests_total", verb="get"), 1)
    expect("LISTs by the agent", told.total("kubenode_api_requests_total", verb="list"), 0)
    expect("watches begun again", told.total("kubenode_watch_restarts_total"), 0)
    agent.stop()
    wait("a watch of Nodes less, without the agent", 10, lambda: api_counts(lab)[1] == watches - 1)
    agent.without_errors()
    expect("warnings in the agent's log", agent.log("warning"), [])
    print(
        f"the agent: {told.calls('ADD')} ADD, {told.calls('DEL')} DEL, 0 addresses used, 0 leaks, no error; 1 GET and 1 watch of its Node"
    )
    memory = told.total("process_resident_memory_bytes") / 2**20
    print(f"the agent: {told.total('process_cpu_seconds_total'):.1f} s of CPU time, {memory:.0f} MiB resident")
    for command in ("ADD", "DEL"):
        line = ", ".join(
            f"{number} ≤ {bound * 1000:g} ms" for bound, number in told.buckets(CALL, plugin="kube-node", command=command) if number
        )
        print(f"the agent's time for {command}: {line}")
    print(f"{SANDBOX}: {middle([seconds for one in took for seconds in one.whole])}")
    print(f"{NETWORK}: {middle([seconds for one in took for seconds in one.network])}", flush=True)


def compare(lab: Lab, agent: NodeAgent, rounds: int, count: int) -> None:
    """Rounds of each way in turn."""
    ranges = [[{"subnet": cidr}] for cidr in lab.pod_cidrs]
    reference = lab.cni_bin / "host-local"
    reference.unlink()
    reference.write_bytes((lab.reference / "host-local").read_bytes())
    reference.chmod(0o755)
    watches = {"kube-node": Stopwatch(lab.cni_bin / "kube-node"), "host-local": Stopwatch(reference)}

    def with_agent() -> None:
        lab.kube_node(delegate="embedded")
        agent.start()

    ways: dict[str, tuple[str, Callable[[], None]]] = {
        "relay and agent": ("kube-node", with_agent),
        "standalone": ("kube-node", lambda: lab.kube_node(delegate="embedded")),
        "reference host-local": ("host-local", lambda: lab.network(type="host-local", ranges=ranges)),
    }
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for way, (plugin, begin) in ways.items():
            begin()
            time.sleep(SETTLE)
            watches[plugin].reset()
            took = play(lab, count)
            agent.stop()
            for what, values in ((SANDBOX, took.whole), (NETWORK, took.network), (IPAM, watches[plugin].read())):
                found.setdefault((what, way), []).extend(values)
    for (what, way), values in sorted(found.items(), key=lambda item: -len(item[0][0])):
        print(f"{what}: {way:20} {middle(values)}, {len(values)} pods")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--pods", type=int, default=50)
    options.add_argument("--compare", type=int, default=0)
    arguments = options.parse_args()
    with cluster_for(arguments.bin, Lab) as lab:
        prepare(lab)
        lab.kube_node()
        lab.ready()
        print(f"node {NODE}: {', '.join(lab.pod_cidrs)}", flush=True)
        with NodeAgent(lab) as agent:
            many(lab, agent, arguments.rounds, arguments.pods)
            if arguments.compare:
                compare(lab, agent, arguments.compare, arguments.pods)


if __name__ == "__main__":
    main()
