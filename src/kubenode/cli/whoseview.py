"""What `kube-node status ADDRESS` prints: whose it is, or why nobody has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from kubenode.cli import screen
from kubenode.cli.statusview import who

if TYPE_CHECKING:
    from kubenode.inspection.networks import Network
    from kubenode.inspection.report import Other, Whose


def show(found: Whose) -> None:
    """Print whose an address is."""
    out = screen.console()
    for network, one in found.holders:
        table = Table.grid(padding=(0, 2))
        table.add_row("address", f"[bold]{found.address}[/]")
        table.add_row("network", f"{escape(network.name)}  [dim]{escape(network.configured.path)}[/]")
        table.add_row("pod", who(one, wide=False))
        if one.attachment:
            table.add_row("container", one.attachment.container_id)
            table.add_row("interface", one.attachment.ifname or "-")
        for label, key in (("netns", "netns"), ("pod UID", "podUID")):
            if one.record.get(key):
                table.add_row(label, escape(str(one.record[key])))
        table.add_row("since", f"{screen.stamp(one.since)}, {screen.ago(one.since)}")
        table.add_row("file", f"{network.store.directory}/{found.address}")
        if others := found.others_of(one):
            table.add_row("also has", _others(others))
        out.print(table)
    if not found.holders and found.networks:
        for network in found.networks:
            out.print(f"{found.address} is held by nobody; it is of network [bold]{escape(network.name)}[/], {_kind(network, found)}.")
    elif not found.holders:
        out.print(f"{found.address} is held by nobody, and of no subnet of this node's networks.")


def _others(others: list[Other]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for one in others:
        table.add_row(str(one.address), f"{escape(one.network)}, {escape(one.attachment.ifname or '-')}")
    return table


def _kind(network: Network, found: Whose) -> str:
    gateways = {r.gateway for usage in network.usages for r in usage.range_set.ranges}
    if found.address in gateways:
        return "whose gateway it is"
    if any(subnet.holds(found.address) for subnet in network.exclude):
        return "which excludes it"
    return "which may give it" if any(usage.range_set.range_of(found.address) for usage in network.usages) else "outside of its ranges"
