#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pods on a real one-node cluster get their addresses from kube-node, in each way that it has.

First handed on to host-local, then given by kube-node itself, then by the agent through the relay. Then the agent is killed while pods
start, and has to find a leaked address.

    one_node_cluster.py [--bin=_output/bin]

Root only. KUBE_NODE_TESTBIN names the directory with the `cluster` script, CNI_TEST_PATH one with the reference plugins. Everything
lies in a temporary directory; servers and pods are stopped whatever happens. Takes about a minute and a half.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

from lab import NETWORK, CheckFailedError, Lab, cluster_for, parser, pod, pods, run, wait
from nodeagent import NodeAgent

if TYPE_CHECKING:
    from collections.abc import Callable

    Show = Callable[[str, str], None]

GRACE = 2  # seconds until what may have leaked has
KILLED = 8  # pods that start while the agent is killed

FAULTS = ("warning", "failure")
COUNTING = """#!/bin/sh
echo "$CNI_COMMAND" >>"$0.calls"
exec "$0.reference"
"""


def count_host_local(lab: Lab) -> None:
    """Put something under host-local's name that counts its calls: it shows who gave the addresses."""
    shutil.copy(lab.reference / "host-local", lab.cni_bin / "host-local.reference")
    (lab.cni_bin / "host-local").write_text(COUNTING)
    (lab.cni_bin / "host-local").chmod(0o755)


def delegated(lab: Lab) -> list[str]:
    calls = lab.cni_bin / "host-local.calls"
    return calls.read_text().split() if calls.exists() else []


def create(lab: Lab, *names: str) -> None:
    lab.kubectl("create", "-f", "-", stdin=pods(*(pod(name) for name in names)))


def wait_ready(lab: Lab, *names: str) -> None:
    lab.kubectl("wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=90s")


def check_addresses(lab: Lab, addresses: dict[str, list[str]]) -> None:
    """Raise CheckFailedError unless each has one of each family, inside the Node's, and all that is reserved is theirs."""
    subnets = [ipaddress.ip_network(cidr) for cidr in lab.pod_cidrs]
    for name, found in addresses.items():
        inside = [[ipaddress.ip_address(address) in subnet for subnet in subnets] for address in found]
        if inside != [[True, False], [False, True]]:
            raise CheckFailedError(f"{name} has {found}: not one address of each of {lab.pod_cidrs}")
    # No address twice: a file's name is there once.
    if sorted(lab.reservations()) != sorted(address for found in addresses.values() for address in found):
        raise CheckFailedError(f"reserved: {lab.reservations()}, by {addresses}")


def check(lab: Lab, way: str, show: Show) -> None:
    """Run two pods and delete them again."""
    begin = time.monotonic()
    names = f"{way}-1", f"{way}-2"
    create(lab, *names)
    wait_ready(lab, *names)
    show("pods ready", f"{time.monotonic() - begin:.1f} s")

    addresses = lab.pod_addresses()
    check_addresses(lab, addresses)
    for name, found in addresses.items():
        show(f"{name}: podIPs", ", ".join(found))
    for address in addresses[names[1]]:
        family = "-6" if ":" in address else "-4"
        run(lab.cluster, "exec", lab.directory, names[0], "ping", family, "-c1", "-W5", address)
        show(f"{names[0]} pings {names[1]}", address)
    if way != "agent":  # where there is nothing but relays
        inspect(lab, addresses, show)
    delete(lab, names, show)


def delete(lab: Lab, names: tuple[str, ...], show: Show) -> None:
    begin = time.monotonic()
    lab.kubectl("delete", "pod", *names, "--wait")
    lab.wait_for_nothing(60)
    show("pods deleted, no reservation left", f"{time.monotonic() - begin:.1f} s")


def inspect(lab: Lab, addresses: dict[str, list[str]], show: Show) -> None:
    """Look at the node with our own command line: whose the addresses are, that all is well, and that gc takes only what is stale."""
    (network,) = json.loads(lab.command("status", "-o", "json"))["networks"]
    seen = {one["pod"]: sorted(one["addresses"]) for one in network["attachments"]}
    if seen != {f"default/{name}": sorted(found) for name, found in addresses.items()}:
        raise CheckFailedError(f"status says {seen}")
    whose = json.loads(lab.command("status", "-o", "json", next(iter(addresses.values()))[0]))["holders"]
    show("status: whose address", whose[0]["pod"])
    checks = json.loads(lab.command("doctor", "-o", "json", f"--bin-dir={lab.cni_bin}", may_fail=True))["checks"]
    # The one thing that is not as it should be: relays are installed, and no agent is.
    if wrong := [f"{one['check']}: {one['what']}" for one in checks if one["state"] in FAULTS and one["check"] != "agent"]:
        raise CheckFailedError(f"doctor says {wrong}")
    show("doctor: all is well but for the agent", f"{len(checks)} checks")

    stale = lab.data_dir / NETWORK / "10.244.0.250"
    stale.write_text("gone\r\neth0")
    os.utime(stale, (0, 0))
    gc = ("gc", "-o", "json", f"--cri-socket={lab.directory}/run/containerd.sock")
    cautious, thorough = json.loads(lab.command(*gc)), json.loads(lab.command(*gc, "--all", "--yes"))  # no record says that it is a pod's
    for told, key in ((cautious, "doubtful"), (thorough, "released")):
        if [one["address"] for one in told[key]] != [stale.name]:
            raise CheckFailedError(f"gc says {told}")
    show("gc by the runtime's sandboxes", f"{stale.name} and nothing else")


def relays_only(lab: Lab) -> None:
    """Leave what a node has whose agent comes in a container: no Python beside the relays."""
    for file in lab.cni_bin.glob("*.standalone"):
        file.unlink()


def kill_while_pods_start(lab: Lab, agent: NodeAgent, show: Show) -> None:
    """Kill the agent as soon as the first pod has an address, and start it again a little later."""
    names = tuple(f"killed-{number}" for number in range(KILLED))
    begin = time.monotonic()
    create(lab, *names)
    wait("a reservation", 30, lambda: bool(lab.reservations()), 0.005)
    agent.kill()
    show("agent killed", f"{len(lab.reservations())} of {2 * KILLED} addresses are reserved")
    time.sleep(2)
    agent.start()
    wait_ready(lab, *names)
    addresses = lab.pod_addresses()
    show("pods ready all the same", f"{time.monotonic() - begin:.1f} s, {agent.metrics().calls('ADD')} ADD by the new agent")
    lab.kubectl("delete", "pod", *names, "--wait")
    wait(lambda: f"nothing left, but {lab.reservations()}; pods had {addresses}", 60, lambda: not lab.reservations() + lab.records())
    show("pods deleted, no reservation left", "")


def leak(lab: Lab) -> list[str]:
    """Make an ADD for a pod that does not exist, in a network namespace that goes without a DEL. Return its addresses."""
    name = f"kn-{secrets.token_hex(3)}"
    netns = f"/var/run/netns/{name}"
    conf = json.loads((lab.net_d / "10-k8snet.conflist").read_text())
    stdin = json.dumps({"cniVersion": conf["cniVersion"], "name": NETWORK, **conf["plugins"][0]})
    environ = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_NETNS": netns, "CNI_IFNAME": "eth0", "CNI_PATH": str(lab.cni_bin)}
    args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={name}"
    run("ip", "netns", "add", name)
    try:
        done = subprocess.run(
            [lab.cni_bin / "bridge"],
            input=stdin.encode(),
            env={**os.environ, **environ, "CNI_ARGS": args},
            check=False,
            capture_output=True,
        )
    finally:
        run("ip", "netns", "del", name)
    result: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        raise CheckFailedError(f"ADD by hand: {result}")
    return [entry["address"].partition("/")[0] for entry in result["ips"]]


def find_a_leak(lab: Lab, agent: NodeAgent, show: Show) -> None:
    """See that an agent finds what nobody will ever release."""
    agent.stop()
    agent.start(f"--grace={GRACE}", "--every=1")
    begin = time.monotonic()
    leaked = leak(lab)
    if sorted(lab.reservations()) != sorted(leaked):
        raise CheckFailedError(f"reserved: {lab.reservations()}, not {leaked}")
    lab.wait_for_nothing(30)
    seconds, reclaimed = time.monotonic() - begin, agent.metrics().reclaimed()
    if seconds < GRACE or reclaimed != len(leaked):
        raise CheckFailedError(f"after {seconds:.1f} s {reclaimed} addresses reclaimed, not {leaked}")
    show("leak found and taken back", f"{', '.join(leaked)}, after {seconds:.1f} s")


def story(lab: Lab) -> None:
    way = ""

    def show(what: str, value: str) -> None:
        print(f"{way:12} {what:36} {value}", flush=True)

    begin = time.monotonic()
    lab.up()
    lab.install()
    count_host_local(lab)
    lab.kube_node(delegate="host-local")
    lab.ready()
    show("node ready", f"{time.monotonic() - begin:.1f} s")
    show("spec.podCIDRs", ", ".join(lab.pod_cidrs))

    way = "host-local"
    check(lab, way, show)
    calls = delegated(lab)
    if calls.count("ADD") < 2 or calls.count("DEL") < 2:
        raise CheckFailedError(f"host-local was asked only for {calls}")
    show("asked host-local", f"{calls.count('ADD')} ADD, {calls.count('DEL')} DEL")

    way = "embedded"
    lab.kube_node()
    (lab.cni_bin / "host-local").unlink()
    check(lab, way, show)

    way = "agent"
    relays_only(lab)
    with NodeAgent(lab) as agent:
        agent.start()
        check(lab, way, show)
        told = agent.metrics()
        if told.calls("ADD") < 2 or told.calls("DEL") < 2 or told.used():
            raise CheckFailedError(f"the agent tells of {told.calls('ADD')} ADD, {told.calls('DEL')} DEL, {told.used()} addresses used")
        show("asked the agent", f"{told.calls('ADD')} ADD, {told.calls('DEL')} DEL")
        kill_while_pods_start(lab, agent, show)
        find_a_leak(lab, agent, show)
        agent.stop()
        agent.without_errors()


def main() -> None:
    with cluster_for(parser(__doc__).parse_args().bin, Lab) as lab:
        story(lab)


if __name__ == "__main__":
    main()
