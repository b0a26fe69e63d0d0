# SPDX-License-Identifier: Apache-2.0
"""`kube-node try-add`: the steps of a pod's start and end in a network of this node, with the time of each."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubenode.cli import options
from kubenode.cli.output import as_objects, with_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.base.problem import Problem
    from kubenode.cli.output import Output
    from kubenode.cli.pods import PluginProgram
    from kubenode.inspection.locations import Locations
    from kubenode.inspection.networks import StoredNetwork

MILLISECONDS = 1000.0


class TrialStep(NamedTuple):
    """A completed step, its time, and its outcome; `failed`: that is an error."""

    name: str
    milliseconds: float
    told: str
    failed: bool = False


class Trial:
    """The steps so far. A failure skips the following steps."""

    def __init__(self) -> None:
        self.steps: list[TrialStep] = []

    @property
    def failed(self) -> bool:
        """Whether a step has failed."""
        return any(step.failed for step in self.steps)

    def step(self, name: str, do: Callable[[], str], *, anyway: bool = False) -> None:
        """Do a step and note its outcome; `anyway`: also after a failure."""
        from kubenode.base.problem import Problem

        if self.failed and not anyway:
            return
        begin = time.perf_counter()
        try:
            told, failed = do(), False
        except Problem as error:
            told, failed = str(error), True
        self.steps.append(TrialStep(name, (time.perf_counter() - begin) * MILLISECONDS, told, failed))


@click.command("try-add", short_help="Ask for an address and give it back, with timings.")
@click.argument("network", type=options.NetworkName(), metavar="NETWORK")
@click.option("--namespace", "-n", default="default", show_default=True, metavar="NAMESPACE", help="The pod's namespace.")
@with_output
@options.BIN_DIR
@options.node_networks
def command(network: str, namespace: str, locations: Locations, output: Output, unread: list[Problem]) -> int:
    r"""Ask for an address and give it back, with the time that each step takes.

    It runs the IPAM plugin like the container runtime's plugin does; it creates no interface, and leaves nothing behind. Exit code 1: a
    step failed.

    \b
    Examples:
      kube-node try-add k8snet
      kube-node try-add net1 --config=net1.yaml --namespace=web -o json
    """
    from kubenode.inspection.networks import find
    from kubenode.inspection.records import Records
    from kubenode.inspection.report import require_known, unreadable

    try:
        found = require_known(find(locations, Records(locations)), (network,))[0]
        trial = Trial()
        _run(trial, locations, found, namespace)
    except OSError as error:
        raise unreadable(error) from None
    if output.is_object:
        steps = [step._asdict() for step in trial.steps]
        output.dump({"network": network, "failed": trial.failed, "steps": steps, "unread": as_objects(unread)})
    else:
        _show(trial)
    return int(trial.failed)


def _run(trial: Trial, locations: Locations, network: StoredNetwork, namespace: str) -> None:
    from kubenode.base.problem import Problem
    from kubenode.cni.result import addresses_in
    from kubenode.cni.versions import SINCE, at_least
    from kubenode.ipam.store import Attachment

    raw = network.configured.raw
    container_id = f"kube-node-try-add-{os.getpid()}"
    netns = f"/var/run/netns/{container_id}"
    version = str(raw.get("cniVersion") or "0.1.0")
    plugin = _plugin(locations, network, namespace)
    added: dict[str, Any] = {}

    def add() -> str:
        added.update(plugin.call("ADD", container_id, netns))
        return ", ".join(addresses_in(added)) or "no address"

    def quietly(name: str, previous: dict[str, Any] | None = None) -> str:
        plugin.call(name, container_id, netns, previous)
        return "ok"

    def left() -> str:
        mine = [one for one in network.store.held() if one.attachment == Attachment(container_id, "eth0")]
        if mine:
            raise Problem(f"still reserved: {', '.join(str(one.address) for one in mine)}", "kube-node release ADDRESS")
        return "no reservation"

    trial.step("look at the network", lambda: _subnets(network))
    if at_least(version, SINCE["STATUS"]):
        trial.step("STATUS", lambda: quietly("STATUS"))
    trial.step("ADD", add)
    if at_least(version, SINCE["CHECK"]):
        trial.step("CHECK", lambda: quietly("CHECK", added))
    trial.step("DEL", lambda: quietly("DEL", added or None), anyway=True)
    trial.step("look for what is left", left, anyway=True)


def _plugin(locations: Locations, network: StoredNetwork, namespace: str) -> PluginProgram:
    """Return the network's IPAM plugin. Raises Problem if it is not installed."""
    from kubenode.cli.pods import PluginProgram
    from kubenode.host import delegate

    directories = [locations.root.path(directory) for directory in locations.bin_dirs]
    environ = {
        **{key: value for key, value in locations.environ.items() if not key.startswith("CNI_")},
        "KUBE_NODE_RUN_DIR": locations.run,
        "KUBE_NODE_SOCKET": locations.root.path(locations.socket),
        "CNI_PATH": ":".join(directories),
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=kube-node-try-add",
    }
    return PluginProgram(delegate.require(network.plugin, directories), network.configured.raw, environ)


def _subnets(network: StoredNetwork) -> str:
    if network.problem:
        raise network.problem
    return ", ".join(str(r.subnet) for usage in network.usages for r in usage.range_set.ranges) + f" {network.by_source}"


def _show(trial: Trial) -> None:
    from rich.markup import escape
    from rich.table import Table

    from kubenode.cli import screen

    out = screen.console()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for step in trial.steps:
        sign = "[red]✗[/]" if step.failed else "[green]✓[/]"
        table.add_row(screen.legible(sign, out), step.name, f"{step.milliseconds:.1f} ms", escape(step.told))
    out.print(table)
