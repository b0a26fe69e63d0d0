# SPDX-License-Identifier: Apache-2.0
"""Checks of the files: reservations, and the run directory."""

from __future__ import annotations

import os
import time
from shlex import quote
from typing import TYPE_CHECKING

from kubenode.base import files
from kubenode.host import boot
from kubenode.host.cniconfig import DEFAULT_CONFIG_DIR
from kubenode.host.datadir import ABANDONED
from kubenode.inspection.doctor.finding import Finding, failure, ok, skipped, warning
from kubenode.plugins.standalone import run_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.inspection.doctor.facts import Facts
    from kubenode.inspection.networks import StoredNetwork

SHOWN = 5  # examples in a finding
IN_MEMORY = frozenset(["tmpfs", "ramfs"])
OTHERS_WRITE = 0o022


def access(facts: Facts) -> Iterator[Finding]:
    """Only owners can change the reservations and the Node view."""
    directories = [facts.locations.run, *(network.store.directory for network in _there(facts))]
    for directory in dict.fromkeys(directories):
        if os.path.isdir(directory) and (mode := os.stat(directory).st_mode & 0o7777) & OTHERS_WRITE:
            advice = "remove that right: anyone who writes there decides which addresses pods get"
            yield failure(
                f"{directory} can be written by others than its owner (mode {mode:04o})", advice, f"chmod go-w {quote(directory)}"
            )


def reboot(facts: Facts) -> Iterator[Finding]:
    """Reservations end with a reboot: they are in memory, or their boot is noted."""
    for network in _there(facts):
        if _file_system(network.store.directory) in IN_MEMORY:
            yield ok(f"reservations of {network.name} are in memory")
            continue
        path, machine = quote(network.store.boot_path), facts.locations.boot.machine_id()
        machines = boot.read(network.store.boot_noted())
        note_it = f'echo "$(cat {boot.BOOT_ID}) {machine}" >{path} && chmod 600 {path}'
        if not machine or not facts.locations.boot.id():
            yield skipped(f"this host has no machine-id, so {network.name} has no boot note, and nothing is released after a reboot")
            continue
        if not machines and not _is_ours(facts, network):
            yield skipped(f"{network.name} is another plugin's network: it needs no boot note")
        elif not machines:
            yield warning(
                f"{network.store.directory} is on a disk, and has no note of the boot of its reservations",
                "kube-node's next ADD writes it; if the node has not been rebooted since, write it now",
                note_it,
            )
        elif others := sorted(machines.keys() - {machine}):
            yield warning(
                f"{network.store.directory} was used by other machines, too ({', '.join(others)}): nothing is released after a reboot",
                "nodes that share a dataDir share its addresses; if the other nodes no longer use it, note this node alone",
                note_it,
            )
        elif dead := network.store.from_earlier_boot():
            yield warning(
                f"{network.store.directory} has {len(dead)} reservations from before the last reboot",
                "the next ADD releases them; now:",
                _gc(facts, network),
            )
        else:
            yield ok(f"reservations of {network.name} belong to this boot")


def torn(facts: Facts) -> Iterator[Finding]:
    """Every reservation names its container."""
    for network in _there(facts):
        broken = [
            os.path.join(network.store.directory, str(one.address))
            for one in facts.held[network.store.directory]
            if one.attachment is None and time.time() - one.since > ABANDONED
        ]
        if broken:
            told = _some(broken)
            advice = "a power failure or another program left them; kube-node's next ADD removes them; now:"
            yield warning(f"empty or torn reservation files: {told}", advice, f"rm -f {' '.join(map(quote, broken))}")


def leaks(facts: Facts) -> Iterator[Finding]:
    """Each holder of an address has a network namespace."""
    for network in _there(facts):
        unknown = [
            one.address
            for one in facts.held[network.store.directory]
            if one.attachment and (network.name, one.attachment) not in facts.records.all
        ]
        if unknown:
            yield skipped(f"network {network.name}: {len(unknown)} addresses have no record of their pod")
        gone = {attachment for name, attachment in facts.records.without_namespace if name == network.name}
        held = [one for one in facts.held[network.store.directory] if one.attachment in gone]
        if held:
            told = _some([f"{one.address} ({facts.records.of(network.name, one.attachment).pod or one.attachment.container_id[:12]})"
                          for one in held if one.attachment])  # fmt: skip
            advice = "the agent releases them once the API server says that the pods are gone; now, if you know that they are:"
            yield warning(f"network {network.name} may have leaked {told}: network namespaces are gone", advice, _gc(facts, network))


def _there(facts: Facts) -> list[StoredNetwork]:
    return [network for network in facts.networks if os.path.isdir(network.store.directory)]


def _is_ours(facts: Facts, network: StoredNetwork) -> bool:
    """Say whether our plugins serve a network: another plugin's network gets no boot note."""
    return network.plugin != "host-local" or any(name == network.name for name, _ in facts.records.all)


def _gc(facts: Facts, network: StoredNetwork) -> str:
    locations = facts.locations
    options = [("--network", network.name), *(("--config", path) for path in locations.configs)]
    if locations.config_dir != DEFAULT_CONFIG_DIR:
        options.append(("--cni-config", locations.config_dir))
    if locations.run_dir != run_dir(locations.environ):
        options.append(("--run-dir", locations.run_dir))
    return " ".join(["kube-node gc", *(f"{name}={quote(value)}" for name, value in options)])


def _file_system(path: str) -> str:
    """Return the type of the file system that a path is on (proc_pid_mountinfo(5))."""
    real, best, kind = os.path.realpath(path), "", ""
    for line in files.read("/proc/self/mountinfo").decode(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4]
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return kind


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")
