# SPDX-License-Identifier: Apache-2.0
"""`kube-node nodes`: every node of the cluster, and the use of its addresses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from kubenode.cli import options
from kubenode.cli.output import with_output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kubenode.cli.output import Output
    from kubenode.inspection.cluster.reading import ClusterReader
    from kubenode.inspection.cluster.usage import NetworkUsage, NodeUsage
    from kubenode.inspection.locations import Locations

BAR = 16  # characters
BESIDE = 3  # lines of a screen for other things than nodes
ORDERS = {
    "full": lambda one: (-one.share, one.node),
    "free": lambda one: (min((network.total - network.used for network in one.networks), default=0), one.node),
    "used": lambda one: (-sum(network.used for network in one.networks), one.node),
    "name": lambda one: one.node,
}


@click.command("nodes", short_help="Every node of the cluster, the fullest first.")
@click.option(
    "--network", "names", multiple=True, metavar="NAME", help="Only this pool, definition, annotation or podCIDRs. May be repeated."
)
@click.option("--sort", type=click.Choice(list(ORDERS)), default="full", show_default=True, help="The order of the nodes.")
@click.option("--watch", "-w", is_flag=True, help="Repeat until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=1), default=15.0, show_default=True, metavar="SECONDS", help="For --watch.")
@with_output
@options.KUBECONFIG
@options.CONTEXT
@options.locations
def command(names: tuple[str, ...], sort: str, interval: float, locations: Locations, output: Output, *, watch: bool) -> int:
    r"""Show the networks of every node, and the number of addresses in use, the fullest node first.

    A node's agent counts what is reserved, and suspected leaks, if it reports (component node-addresses). For other nodes the API server's
    pods are counted, so leaked addresses are not: kube-node status on the node shows them.

    \b
    Examples:
      kube-node nodes
      kube-node nodes --network=net1 --sort=free
      kube-node nodes --context=prod -o json
      kube-node nodes --watch
    """
    from kubenode.inspection.cluster.reading import ClusterReader

    reader = ClusterReader(locations)
    try:
        while True:
            found = _look(reader, names, sort)
            if output.is_object:
                output.dump({"nodes": [_object(one) for one in found]})
            else:
                _show(found, wide=output.wide, on_screen=watch)
            if not watch:
                return 0
            if output.is_object:
                output.separate()
            time.sleep(interval)
    finally:
        reader.close()


def _look(reader: ClusterReader, names: tuple[str, ...], sort: str) -> list[NodeUsage]:
    from kubenode.base.problem import Problem
    from kubenode.inspection.cluster.census import take
    from kubenode.inspection.cluster.reading import collected
    from kubenode.inspection.cluster.usage import usages

    census = collected(lambda: take(reader))
    found = usages(census, names)
    if names and not found:
        known = sorted({one.names[0] for node in usages(census) for one in node.networks})
        advice = f"there are: {', '.join(known)}" if known else "no network of any node is known"
        raise Problem(f"no node has a network {', '.join(names)}", advice)
    return sorted(found, key=ORDERS[sort])


def _show(found: list[NodeUsage], *, wide: bool, on_screen: bool) -> None:
    from kubenode.cli import screen

    out = screen.console()
    if on_screen and out.is_terminal:
        click.clear()
        shown = found[: max(1, out.height - BESIDE)]
        out.print(_table(shown, out, wide=wide))
        if len(found) > len(shown):
            out.print(f"[dim]and {len(found) - len(shown):,} more nodes[/]")
    else:
        out.print(_table(found, out, wide=wide) if found else "There are no nodes.")


def _table(found: list[NodeUsage], out: Console, *, wide: bool) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from kubenode.cli import screen

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("NODE", overflow="fold")
    table.add_column("NETWORK", overflow="fold")
    table.add_column("", no_wrap=True)
    for heading in ("", "USED", "OF"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("AGENT", overflow="fold")
    has_reports = any(one.report for one in found)
    for heading in ("LEAKS", "REPORTED") if has_reports else ():
        table.add_column(heading, no_wrap=True, justify="right")
    if wide:
        table.add_column("SUBNETS", overflow="fold")
    for one in found:
        name, agent = f"[bold]{escape(one.node)}[/]", [_agent(one, wide=wide), *(_report(one) if has_reports else ())]
        for network in _shown(one, wide=wide):
            gauge = screen.legible(screen.bar(network.used, network.total, BAR), out)
            numbers = [screen.percent(network.used, network.total), screen.number(network.used), screen.number(network.total)]
            table.add_row(
                name, escape(network.names[0]), gauge, *numbers, *agent, *([", ".join(map(str, network.subnets))] if wide else [])
            )
            name, agent = "", [""] * len(agent)
        if not one.networks:
            table.add_row(name, "[dim]no subnets[/]", "", "", "", "", *agent, *([""] if wide else []))
    return table


def _shown(one: NodeUsage, *, wide: bool) -> list[NetworkUsage]:
    """Return a node's networks, each with its fuller family, as IPv6 always has room; `wide`: with all families."""
    if wide:
        return list(one.networks)
    return list({network.source: network for network in reversed(one.networks)}.values())[::-1]


def _agent(one: NodeUsage, *, wide: bool) -> str:
    from rich.markup import escape

    if one.agent is None:
        return escape(one.report.version) if one.report else "[dim]-[/]"
    image = one.agent.image if wide else one.agent.image.rpartition("/")[2]
    return escape(image) + ("" if one.agent.ready else " [yellow]not ready[/]")


def _report(one: NodeUsage) -> tuple[str, str]:
    """Return suspected leaks and the age of the last report, which an agent writes only after a change."""
    from kubenode.cli import screen

    if one.report is None:
        return "[dim]-[/]", "[dim]-[/]"
    leaks = f"[yellow]{one.report.leaks}[/]" if one.report.leaks else "0"
    return leaks, screen.since(one.report.time)


def _object(one: NodeUsage) -> dict[str, Any]:
    return {
        "node": one.node,
        "agent": {"pod": one.agent.pod, "image": one.agent.image, "ready": one.agent.ready} if one.agent else None,
        "report": {"version": one.report.version, "time": one.report.time, "suspectedLeaks": one.report.leaks} if one.report else None,
        "networks": [
            {
                "network": network.names[0], "source": network.source, "family": f"IPv{network.version}",
                "subnets": [*map(str, network.subnets)], "used": network.used, "total": network.total, "countedBy": network.counted,
            }
            for network in one.networks
        ],
    }  # fmt: skip
