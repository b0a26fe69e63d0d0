# SPDX-License-Identifier: Apache-2.0
"""`kube-node whois`: the owner of an address, in the whole cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubenode.cli import options
from kubenode.cli.entry import FAILED
from kubenode.cli.output import with_output

if TYPE_CHECKING:
    from rich.table import Table

    from kubenode.cli.output import Output
    from kubenode.inspection.cluster.whose import Has, Whois
    from kubenode.inspection.locations import Locations
    from kubenode.inspection.report import Whose
    from kubenode.ipam.address import Address

NOBODY, SEVERAL = 1, 3  # exit codes


@click.command("whois", short_help="The owner of an address, in the whole cluster.")
@click.argument("address", type=options.IPAddress(), metavar="ADDRESS")
@with_output
@options.KUBECONFIG
@options.CONTEXT
@options.NAMESPACE
@options.locations
def command(address: Address, namespace: str, locations: Locations, output: Output) -> int:
    r"""Show the owner of an address: the node whose subnet contains it, and the pod that has it, on any node and in any network.

    It needs only a kubeconfig, as kubectl does. On a node it also shows the reservation there. Exit code 0: one pod or node has it;
    1: none; 3: more than one; 69: nodes or pods may not be listed, or the API server does not answer.

    \b
    Examples:
      kube-node whois 10.1.2.3
      kube-node whois fd00::1:2 --context=prod
      kube-node whois 172.20.2.7 --kubeconfig=admin.conf -o json
      kube-node whois 10.1.2.3 --namespace=web
    """
    from kubenode.inspection.cluster.reading import ClusterReader
    from kubenode.inspection.cluster.whose import find

    reader = ClusterReader(locations, namespace)
    try:
        found = find(reader, address)
    finally:
        reader.close()
    here = _reserved(locations, found)
    if output.is_object:
        output.dump(_object(found, here))
    else:
        _show(found, here)
    if not found.holders and not (found.sees_pods and found.sees_nodes):
        return FAILED
    return 0 if len(found.holders) == 1 else SEVERAL if found.holders else NOBODY


def _reserved(locations: Locations, found: Whois) -> Whose | None:
    """Return the reservation on this machine; None if there is none, or if an ordinary user may not look."""
    from kubenode.base.problem import Problem
    from kubenode.inspection.report import look_for

    try:
        here = look_for(locations, found.address)
    except Problem:
        return None
    return here if here.holders else None


def _show(found: Whois, here: Whose | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from kubenode.cli import screen, statusview

    out = screen.console()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("address", f"[bold]{found.address}[/]")
    for part in found.parts:
        table.add_row("subnet", f"{part.subnet} of node [bold]{escape(part.node)}[/]  [dim]{escape(part.source)}[/]")
    for pool in found.pools:
        table.add_row("pool", f"SubnetPool {escape(pool)}" + ("" if found.parts else ", which has allocated it to no node"))
    for name in found.nodes:
        table.add_row("node", f"[bold]{escape(name)}[/], its own address")
    _add_pods(table, found)
    for _, one in here.holders if here else ():
        table.add_row("reserved", f"here, for {statusview.who(one, wide=False)}: {one.network}, since {screen.stamp(one.since)}")
    out.print(table)
    for error in found.unseen:
        out.print(f"[dim]not seen: {escape(error.msg)}[/]")
    if len(found.holders) > 1:
        out.print(f"[red]{found.address} has {len(found.holders)} holders[/]: {escape(', '.join(found.holders))}")
    elif not found.holders and not found.sees_pods:
        out.print(f"It is unknown whether a pod has {found.address}.")
    elif not found.holders:
        out.print(
            f"No pod has {found.address}." if found.parts or found.pools else f"No pod has {found.address}, and it is in no node's subnet."
        )


def _add_pods(table: Table, found: Whois) -> None:
    from rich.markup import escape

    for has in found.pods:
        if has.pod.on_host:
            table.add_row("", f"[dim]pod {escape(has.pod.name)} is on the network of node {escape(has.pod.node)}[/]")
        else:
            how = ", ".join(filter(None, (has.interface.network, has.interface.ifname)))
            where = f"on node {escape(has.pod.node)}" if has.pod.node else "on no node yet"
            table.add_row("pod", f"[bold]{escape(has.pod.name)}[/] {where}" + (f"  [dim]{escape(how)}[/]" if how else ""))


def _object(found: Whois, here: Whose | None) -> dict[str, Any]:
    from kubenode.cli import statusjson

    return {
        "address": str(found.address),
        "subnets": [{"cidr": str(part.subnet), "node": part.node, "source": part.source} for part in found.parts],
        "pools": found.pools,
        "nodes": found.nodes,
        "pods": [_pod(has) for has in found.pods if not has.pod.on_host],
        "hostPods": [_pod(has) for has in found.pods if has.pod.on_host],
        "reserved": statusjson.whose(here)["holders"] if here else [],
        "unseen": [error.msg for error in found.unseen],
    }


def _pod(has: Has) -> dict[str, str]:
    return {"pod": has.pod.name, "node": has.pod.node, "network": has.interface.network, "interface": has.interface.ifname}
