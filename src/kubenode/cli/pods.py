# SPDX-License-Identifier: Apache-2.0
"""Pods without a cluster, for `try`: network namespaces, connected by a CNI plugin as by a container runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.base.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 10.0  # seconds until an address must answer; a new IPv6 address is checked for duplicates first


class PluginProgram(NamedTuple):
    """A plugin to run, and the environment of its calls."""

    executable: str
    netconf: dict[str, Any]
    environ: Mapping[str, str]

    def call(self, command: str, container_id: str, netns: str, previous: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call it and return its result. Raises Problem with its error."""
        environ = {**self.environ, "CNI_COMMAND": command, "CNI_CONTAINERID": container_id, "CNI_NETNS": netns, "CNI_IFNAME": "eth0"}
        netconf = {**self.netconf, **({"prevResult": previous} if previous else {})}
        done = subprocess.run([self.executable], input=json.dumps(netconf), env=environ, capture_output=True, text=True, check=False)
        try:
            answer: dict[str, Any] = json.loads(done.stdout or "{}")
        except ValueError:
            answer = {}
        if done.returncode:
            reason = str(answer.get("msg") or done.stderr.strip() or f"exit code {done.returncode}")
            raise Problem(f"{command} of {self.executable} failed: {reason}", str(answer.get("details", "")))
        return answer


def ping_command() -> list[str]:
    """Return the ping command, also as busybox's; [] if there is none."""
    if ping := shutil.which("ping"):
        return [ping]
    busybox = shutil.which("busybox")
    return [busybox, "ping"] if busybox else []


def find_bridge(path: str) -> str | None:
    """Return the bridge plugin, from CNI_PATH or distributions' directories."""
    return shutil.which("bridge", path=f"{path}:/opt/cni/bin:/usr/lib/cni")


def why_not() -> str:
    """Return the reason why pods cannot be created here, or ""."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "there is no ip command (Debian: iproute2)"
    if not find_bridge(os.environ.get("CNI_PATH", "")):
        return "there is no bridge plugin in CNI_PATH, /opt/cni/bin or /usr/lib/cni (Debian: containernetworking-plugins)"
    if not ping_command():
        return "there is no ping command (Debian: iputils-ping)"
    probe = subprocess.run(["ip", "netns", "add", f"kn-probe-{os.getpid()}"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"no network namespace can be created: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", f"kn-probe-{os.getpid()}"], capture_output=True, check=False)
    return ""


def ip(*arguments: str) -> None:
    """Run the ip command. Raises Problem."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def ping(netns: str, address: str) -> float:
    """Return the milliseconds after which an address answers a network namespace. Raises Problem if it does not."""
    # `ip netns exec` would mount /sys again, which not every container allows.
    command = ["nsenter", f"--net=/var/run/netns/{netns}", *ping_command(), "-6" if ":" in address else "-4", "-c1", "-W1", address]
    end = time.monotonic() + PATIENCE
    said = ""
    while time.monotonic() < end:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return float(done.stdout.partition("time=")[2].partition(" ")[0] or 0)
        said = done.stderr.strip()
        time.sleep(0.1)
    advice = said or "does a firewall (iptables -L FORWARD) drop what passes a bridge?"
    raise Problem(f"{address} does not answer {netns} within {PATIENCE:g} s", advice)
