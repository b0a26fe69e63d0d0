# SPDX-License-Identifier: Apache-2.0
"""`kube-node status`: the networks of this node, their use, and the holders of addresses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kubenode.cli import options
from kubenode.cli.output import as_objects, with_output

if TYPE_CHECKING:
    from kubenode.base.problem import Problem
    from kubenode.cli.output import Output
    from kubenode.inspection.locations import Locations
    from kubenode.ipam.address import Address

NEWEST = 10  # pods of each network shown without --all


@click.command("status", short_help="Networks, used and free addresses, and their holders.")
@click.argument("address", required=False, type=options.IPAddress(), metavar="[ADDRESS]")
@click.option("--network", "names", multiple=True, metavar="NAME", type=options.NetworkName(), help="Only this network. May be repeated.")
@options.NAMESPACE
@click.option("--all", "-a", "show_all", is_flag=True, help=f"All pods, not only the {NEWEST} newest of each network.")
@click.option("--watch", "-w", is_flag=True, help="Repeat until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(min=0.2), default=2.0, show_default=True, metavar="SECONDS", help="For --watch.")
@with_output
@options.KUBECONFIG
@options.CONTEXT
@options.node_networks
def command(
    address: Address | None,
    names: tuple[str, ...],
    namespace: str,
    interval: float,
    locations: Locations,
    output: Output,
    unread: list[Problem],
    *,
    show_all: bool,
    watch: bool,
) -> int:
    r"""Show networks, used and free addresses, and the holder of each with the time.

    With an ADDRESS: its holder; exit code 1 if it has none on this node. The command changes nothing and takes no lock. It asks the API
    server only for the node of an address that is in no subnet here.

    \b
    Examples:
      kube-node status
      kube-node status 10.1.2.3
      kube-node status --network=net1 --namespace=web --all -o wide
      kube-node status --config=net1.yaml -o json
      kube-node status --watch
    """
    from kubenode.cli import statusjson, statusview
    from kubenode.inspection.holders import HolderFilter
    from kubenode.inspection.report import Report, look, look_for

    if address:
        from kubenode.inspection.cluster import elsewhere

        found = look_for(locations, address)
        known = elsewhere.find(locations, found.address) if not found.holders and not found.networks else None
        if output.is_object:
            output.dump({**statusjson.whose(found, known), "unread": as_objects(unread)})
        else:
            statusview.show_whose(found, known)
        return 0 if found.holders else 1
    wanted = HolderFilter(namespace, 0 if show_all or output.is_object else NEWEST)

    def once() -> Report:
        return look(locations._replace(runtime_files=None) if watch else locations, names, wanted)

    if output.is_object:
        while True:
            output.dump(statusjson.status(once()))
            if not watch:
                return 0
            output.separate()
            time.sleep(interval)
    statusview.show(once, interval if watch else 0.0, wide=output.wide)
    return 0
