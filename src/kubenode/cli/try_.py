# SPDX-License-Identifier: Apache-2.0
"""`kube-node try`: a trial without a cluster. Two pods get addresses from a Node manifest and ping each other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.table import Table

from kubenode.base import files
from kubenode.base.problem import Problem
from kubenode.cli import pods, screen
from kubenode.cli.output import Output, with_output
from kubenode.nodes import node

NETWORK = "try"
NAMES = ("pod-1", "pod-2")


class TrialPod(NamedTuple):
    """A pod for the output: its addresses with prefix length, and the times of its ADD and of each address's answer, in ms."""

    name: str
    addresses: list[str]
    gateways: list[str]
    add_ms: float
    pings: dict[str, float]

    def as_object(self) -> dict[str, Any]:
        """Return it for a program."""
        pings = [{"address": address, "ms": ms} for address, ms in self.pings.items()]
        return {
            "name": self.name,
            "addresses": self.addresses,
            "gateways": self.gateways,
            "addMs": self.add_ms,
            "pings": pings,
        }


class TrialNetwork:
    """A separate network, in a separate directory; everything is removed at the end."""

    def __init__(self, node_file: str, scratch: str) -> None:
        self.data_dir = Path(scratch, "networks")
        self.bridge = f"kntry{os.getpid() % 10**8}"
        plugin = shutil.which("kube-node", path=os.path.dirname(os.path.abspath(sys.argv[0]))) or shutil.which("kube-node")
        if plugin is None:
            raise Problem("kube-node is not found beside this program", "run the installed program")
        self.plugin = os.path.abspath(plugin)
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CNI_")},
            "KUBE_NODE_RUN_DIR": str(Path(scratch, "run")),
            "KUBE_NODE_SOCKET": str(Path(scratch, "no-agent")),  # the host's agent serves another Node
            "KUBE_NODE_CONF": str(Path(scratch, "kube-node.conf")),
            "CNI_PATH": os.path.dirname(self.plugin),
            "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default",
        }
        allow = {"nodeFile": [os.path.realpath(node_file)]}
        files.replace(self.environ["KUBE_NODE_CONF"], json.dumps({"allow": allow}).encode())
        self.netconf = {
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "bridge",
            "bridge": self.bridge,
            "ipam": {"type": "kube-node", "nodeFile": node_file, "dataDir": str(self.data_dir), "delegate": "embedded"},
        }

    def with_bridge(self) -> list[TrialPod]:
        """Connect two network namespaces with the bridge plugin and let each ping the other."""
        bridge = pods.find_bridge(os.environ.get("CNI_PATH", ""))
        assert bridge  # noqa: S101 -- why_not() has looked
        with ExitStack() as stack:
            stack.callback(subprocess.run, ["ip", "link", "del", self.bridge], capture_output=True, check=False)
            caller = pods.PluginProgram(bridge, self.netconf, self.environ)
            found = []
            for name in NAMES:
                netns = f"{self.bridge}-{name}"
                pods.ip("netns", "add", netns)
                stack.callback(pods.ip, "netns", "del", netns)
                found.append(self._add(caller, stack, name, f"/var/run/netns/{netns}"))
            for one, other in (found, reversed(found)):
                for address in other.addresses:
                    bare = address.partition("/")[0]
                    one.pings[bare] = pods.ping(f"{self.bridge}-{one.name}", bare)
        return found

    def alone(self) -> list[TrialPod]:
        """Ask for two pods' addresses, without creating pods."""
        with ExitStack() as stack:
            caller = pods.PluginProgram(self.plugin, self.netconf, self.environ)
            return [self._add(caller, stack, name, f"/var/run/netns/{name}") for name in NAMES]

    def left(self) -> list[str]:
        """Return the addresses that are still reserved."""
        own = ("lock", "last_reserved_ip.")
        return sorted(file.name for file in (self.data_dir / NETWORK).iterdir() if not file.name.startswith(own))

    def _add(self, caller: pods.PluginProgram, stack: ExitStack, name: str, netns: str) -> TrialPod:
        stack.callback(caller.call, "DEL", name, netns)
        begin = time.perf_counter()
        ips: list[dict[str, Any]] = caller.call("ADD", name, netns)["ips"]
        return TrialPod(name, [ip["address"] for ip in ips], [ip["gateway"] for ip in ips], (time.perf_counter() - begin) * 1000, {})


@click.command("try", short_help="Two pods with addresses, without a cluster.")
@click.option(
    "--node", "node_file", type=click.Path(dir_okay=False), help="A Node manifest, YAML or JSON, instead of the built-in example."
)
@with_output
def command(node_file: str | None, output: Output) -> int:
    r"""Give two pods addresses from a Node manifest; it needs no cluster.

    As root, with the reference bridge plugin on this machine, the pods are network namespaces that ping each other. Else it only asks for
    the addresses. It removes everything afterwards.

    \b
    Examples:
      kube-node try
      kube-node try --node=node.yaml -o json
    """
    console = screen.console(stderr=True)
    manifest = os.path.abspath(node_file or str(resources.files("kubenode.cli").joinpath("node.yaml")))
    reason = pods.why_not()
    console.print(f"Node manifest  {manifest}", f"Subnets        {_subnets(manifest)}", sep="\n", soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="kube-node-try.") as scratch:
        trial = TrialNetwork(manifest, scratch)
        with console.status("making pods and letting them ping each other"):
            found = trial.alone() if reason else trial.with_bridge()
        left = trial.left()
    if output.is_object:
        output.dump({"pods": [pod.as_object() for pod in found], "stillReserved": left, "onlyAddresses": reason})
    else:
        screen.console().print(_table(found, reason))
    if reason:
        console.print(f"Only addresses, no pods: {reason}.", soft_wrap=True)
    console.print("Pods, bridge and reservations are gone again." if not left else f"Still reserved: {', '.join(left)}")
    return 1 if left else 0


def _subnets(manifest: str) -> str:
    try:
        text = Path(manifest).read_bytes()
    except FileNotFoundError:
        raise click.UsageError(f"--node {manifest}: there is no such file", click.get_current_context()) from None
    except OSError as error:
        raise Problem(f"{manifest}: {error.strerror}", "name a file with a Node manifest") from None
    return ", ".join(str(subnet) for subnet in node.pod_subnets(node.parse(node.decode(text, manifest), manifest)))


def _table(found: list[TrialPod], reason: str) -> Table:
    table = Table(caption="ping: how long the other pod waited for the address's answer")
    for heading in ("pod", "address", "gateway", "ADD", "ping"):
        table.add_column(heading, no_wrap=True)
    for pod in found:
        pings = {address: ms for other in found for address, ms in other.pings.items()}
        answers = ["-" if reason else f"{pings[address.partition('/')[0]]:.2f} ms" for address in pod.addresses]
        table.add_row(
            pod.name, "\n".join(pod.addresses), "\n".join(pod.gateways), f"{pod.add_ms:.0f} ms", "\n".join(answers), end_section=True
        )
    return table
