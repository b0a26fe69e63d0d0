# SPDX-License-Identifier: Apache-2.0
"""Pods without a cluster: network namespaces, connected by real CNI plugins as a container runtime runs them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def ping_command() -> list[str]:
    if ping := shutil.which("ping"):
        return [ping]
    busybox = shutil.which("busybox")
    return [busybox, "ping"] if busybox else []


class Answer(NamedTuple):
    """What a plugin said."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The result or the error object."""
        value: dict[str, Any] = json.loads(self.stdout)
        return value

    @property
    def addresses(self) -> list[str]:
        """The result's addresses without prefix length, in its order. Specification 0.3.0 and later."""
        return [item["address"].split("/")[0] for item in self.json["ips"]]


class Pod(NamedTuple):
    """A network namespace; its name is the container ID, too."""

    name: str

    @property
    def netns(self) -> str:
        return f"/var/run/netns/{self.name}"


class PodNet:
    """Pods, the links that plugins make for them on the host, and the calls in between. Leaving it removes all of them."""

    def __init__(self, cni_path: Path, directory: Path) -> None:
        # Interface names hold 15 bytes; unique, because the host's namespace is everybody's.
        self.prefix = f"kn{secrets.token_hex(3)}"
        self.bridge = f"{self.prefix}br"
        self.data_dir = directory / "networks"
        self.cni_path = cni_path
        self._pods: list[Pod] = []
        self._uplink = ""
        self._host: list[str] = []
        self._inside: list[str] = []  # of `ip`, for the host's namespace

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self._pods:
            ip("netns", "del", pod.name)
        for link in json.loads(ip("-json", "link")):
            # One end of a pair takes the other with it.
            if link["ifname"] in (self.bridge, self._uplink):
                ip("link", "del", link["ifname"])

    def pod(self) -> Pod:
        """Make a pod with nothing but a loopback."""
        pod = Pod(f"{self.prefix}-{len(self._pods)}")
        ip("netns", "add", pod.name)
        self._pods.append(pod)
        ip("-n", pod.name, "link", "set", "lo", "up")
        return pod

    def own_host(self, var_lib: Path | None = None) -> Pod:
        """Run plugins in a network namespace that stands for the host, which is returned; `var_lib` is its /var/lib.

        For addresses and names that others on this machine may use, too.
        """
        host = self.pod()
        self._inside = ["-n", host.name]
        self._host = ["nsenter", f"--net={host.netns}"]
        if var_lib:
            self._host += ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /var/lib && exec "$@"', str(var_lib)]
        return host

    @property
    def host(self) -> list[str]:
        """What stands in front of a command that is to run on that host."""
        return self._host

    def uplink(self) -> str:
        """Return an interface that macvlan and ipvlan can sit on. A pair's end: not every kernel has dummy."""
        if not self._uplink:
            self._uplink = f"{self.prefix}up"
            ip(*self._inside, "link", "add", self._uplink, "type", "veth", "peer", "name", f"{self.prefix}pe")
            for end in (self._uplink, f"{self.prefix}pe"):
                ip(*self._inside, "link", "set", end, "up")
        return self._uplink

    def call(
        self,
        command: str,
        netconf: Mapping[str, Any] | str,
        pod: Pod,
        *,
        ifname: str = "eth0",
        args: str = "",
        cni_path: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Run the plugin that the configuration names. `cni_path`: where to look, the reference plugins' directory unless told."""
        text = netconf if isinstance(netconf, str) else json.dumps(netconf)
        search = cni_path or str(self.cni_path)
        plugin = shutil.which(json.loads(text)["type"], path=search)
        assert plugin, f"{json.loads(text)['type']} is not in {search}"
        cni = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.name,
            "CNI_NETNS": pod.netns,
            "CNI_IFNAME": ifname,
            "CNI_PATH": search,
            "CNI_ARGS": args,
        }
        done = subprocess.run(
            [*self._host, plugin],
            input=text,
            env={**os.environ, **cni, **(environment or {})},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def add(self, netconf: Mapping[str, Any] | str, pod: Pod, **how: Any) -> Answer:
        """ADD that has to succeed."""
        answer = self.call("ADD", netconf, pod, **how)
        assert answer.code == 0, answer.stdout + answer.stderr
        return answer

    def delete(self, netconf: Mapping[str, Any] | str, pod: Pod, **how: Any) -> None:
        """DEL that has to succeed."""
        answer = self.call("DEL", netconf, pod, **how)
        assert answer.code == 0, answer.stdout + answer.stderr

    def check(self, netconf: Mapping[str, Any] | str, pod: Pod, added: Answer, **how: Any) -> None:
        """CHECK that has to find what this ADD has made."""
        conf = json.loads(netconf) if isinstance(netconf, str) else netconf
        answer = self.call("CHECK", {**conf, "prevResult": added.json}, pod, **how)
        assert answer.code == 0, answer.stdout + answer.stderr

    def addresses(self, pod: Pod, ifname: str = "eth0") -> list[str]:
        """Return the addresses of an interface as the kernel has them, link-local ones left out, IPv4 first."""
        found = [item for link in json.loads(ip("-n", pod.name, "-json", "addr", "show", "dev", ifname)) for item in link["addr_info"]]
        return [item["local"] for item in sorted(found, key=lambda item: str(item["family"])) if item["scope"] == "global"]

    def reservations(self, network: str) -> list[str]:
        """Return what is reserved in the data directory, without the allocator's own files."""
        directory = self.data_dir / network
        files = sorted(directory.iterdir()) if directory.is_dir() else []
        return [file.name for file in files if file.name != "lock" and not file.name.startswith("last_reserved_ip.")]

    def ping(self, pod: Pod, address: str) -> None:
        """Assert that the address answers the pod. The first tries may be lost: IPv6 addresses are checked for duplicates first."""
        family = "-6" if ":" in address else "-4"
        command = ["ip", "netns", "exec", pod.name, *ping_command(), family, "-c1", "-W1", address]
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode == 0:
                return
            assert time.monotonic() < end, f"{address} does not answer {pod.name}: {done.stdout}{done.stderr}"
            time.sleep(0.2)
