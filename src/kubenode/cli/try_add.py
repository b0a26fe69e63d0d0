"""`kube-node try-add`: what a pod's start and end would be in a network of this node, step by step, with the time that each takes."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kubenode.cli import options
from kubenode.cli.output import with_output

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubenode.cli.output import Output
    from kubenode.cli.pods import Plugin
    from kubenode.inspection.networks import Network
    from kubenode.inspection.place import Place

MILLISECONDS = 1000.0


class Step(NamedTuple):
    """A step that was done, how long it took, and its outcome; `failed` where that was an error."""

    name: str
    milliseconds: float
    told: str
    failed: bool = False


class Trial:
    """The steps so far. Each goes on only where those before it went well."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    @property
    def failed(self) -> bool:
        return any(step.failed for step in self.steps)

    def step(self, name: str, do: Callable[[], str], *, anyway: bool = False) -> None:
        """Do something and note it; `anyway`: also after a failure."""
        from kubenode.base.problem import Problem

        if self.failed and not anyway:
            return
        begin = time.perf_counter()
        try:
            told, failed = do(), False
        except Problem as error:
            told, failed = str(error), True
        self.steps.append(Step(name, (time.perf_counter() - begin) * MILLISECONDS, told, failed))


@click.command("try-add", short_help="Ask for an address and give it back, with timings.")
@click.argument("network", type=options.NetworkName(), metavar="NETWORK")
@click.option("--namespace", default="default", show_default=True, metavar="NAMESPACE", help="As if the pod were of this namespace.")
@click.option("--pod", "with_pod", is_flag=True, help="Also make a network namespace and connect it by the network's plugin. Needs root.")
@with_output
@options.BIN_DIR
@options.place
def command(network: str, namespace: str, place: Place, output: Output, *, with_pod: bool) -> int:
    r"""Ask for an address and give it back, with the time that each step takes.

    The plugins are run as the container runtime runs them. Without --pod only the IPAM plugin is, and no interface is made. Afterwards
    nothing is left; exit code 1 where a step fails.

    \b
    Examples:
      kube-node try-add k8snet
      kube-node try-add k8snet --pod
      kube-node try-add net1 --config=net1.yaml --namespace=web -o json
    """
    from kubenode.inspection.networks import find
    from kubenode.inspection.records import Records
    from kubenode.inspection.report import require_known, unreadable

    if with_pod and place.root.directory:
        raise click.UsageError(
            f"--pod makes an interface of the host, which is only seen at {place.root.directory}: run it on the node itself"
        )
    try:
        found = require_known(find(place, Records(place)), (network,))[0]
        trial = Trial()
        _run(trial, place, found, namespace, with_pod=with_pod)
    except OSError as error:
        raise unreadable(error) from None
    if output.is_object:
        output.dump({"network": network, "failed": trial.failed, "steps": [step._asdict() for step in trial.steps]})
    else:
        _show(trial)
    return int(trial.failed)


def _run(trial: Trial, place: Place, network: Network, namespace: str, *, with_pod: bool) -> None:
    from kubenode.base.problem import Problem
    from kubenode.cni.result import addresses_in
    from kubenode.cni.versions import SINCE, at_least
    from kubenode.ipam.store import Attachment

    raw = network.configured.raw
    container_id = f"kube-node-try-add-{os.getpid()}"
    netns = f"/var/run/netns/{container_id}"
    version = str(raw.get("cniVersion") or "0.1.0")
    plugin = _plugin(place, network, namespace, with_pod=with_pod)
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
    with ExitStack() as stack:
        if with_pod:
            trial.step("make a network namespace", lambda: _namespace(container_id, stack))
        if at_least(version, SINCE["STATUS"]):
            trial.step("STATUS", lambda: quietly("STATUS"))
        trial.step("ADD", add)
        if at_least(version, SINCE["CHECK"]):
            trial.step("CHECK", lambda: quietly("CHECK", added))
        trial.step("DEL", lambda: quietly("DEL", added or None), anyway=True)
        trial.step("look for what is left", left, anyway=True)


def _plugin(place: Place, network: Network, namespace: str, *, with_pod: bool) -> Plugin:
    """Return the plugin to run: the one that connects pods, or the IPAM plugin alone. Raises Problem where it is not there."""
    from kubenode.cli.pods import Plugin
    from kubenode.host import delegate

    directories = [place.root.path(directory) for directory in place.bin_dirs]
    raw = network.configured.raw
    name = str(raw.get("type") or network.plugin) if with_pod else network.plugin
    environ = {
        **{key: value for key, value in place.environ.items() if not key.startswith("CNI_")},
        "KUBE_NODE_RUN_DIR": place.run,
        "KUBE_NODE_SOCKET": place.root.path(place.socket),
        "CNI_PATH": ":".join(directories),
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=kube-node-try-add",
    }
    return Plugin(delegate.require(name, directories), raw, environ)


def _namespace(name: str, stack: ExitStack) -> str:
    from kubenode.cli import pods

    pods.ip("netns", "add", name)
    stack.callback(pods.ip, "netns", "del", name)
    return name


def _subnets(network: Network) -> str:
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
