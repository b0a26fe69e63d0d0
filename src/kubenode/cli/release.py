# SPDX-License-Identifier: Apache-2.0
"""`kube-node release`: release one address by hand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kubenode.cli import options
from kubenode.cli.entry import confirm
from kubenode.cli.output import as_objects, with_output

if TYPE_CHECKING:
    from kubenode.base.problem import Problem
    from kubenode.cli.output import Output
    from kubenode.inspection.holders import Holder
    from kubenode.inspection.locations import Locations
    from kubenode.inspection.networks import StoredNetwork
    from kubenode.ipam.address import Address


@click.command("release", short_help="Release one address by hand.")
@click.argument("address", type=options.IPAddress(), metavar="ADDRESS")
@click.option("--network", default="", metavar="NAME", type=options.NetworkName(), help="In this network, if several have the address.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask; -o json and yaml need it.")
@with_output
@options.node_networks
def command(address: Address, network: str, locations: Locations, output: Output, unread: list[Problem], *, yes: bool) -> int:
    r"""Release an address, with any holder. It asks before.

    A pod that still exists keeps the address on its interface, and another pod may get it, too: kube-node gc is the safer way.
    Exit code 1: the address has no holder, or you said no.

    \b
    Examples:
      kube-node release 10.1.2.3
      kube-node release fd00::1:2 --network=net1 --yes
    """
    from kubenode.cli import screen, statusview
    from kubenode.inspection.report import look_for

    found = look_for(locations, address)
    holders = [(of, one) for of, one in found.holders if network in {"", of.name}]
    if output.is_object and not yes:
        raise click.UsageError(f"-o {output.form} needs --yes: there is nobody to ask")
    if len(holders) > 1:
        raise click.UsageError(f"{address} is held in {', '.join(of.name for of, _ in holders)}: name one with --network")
    if not holders:
        if output.is_object:
            output.dump({"address": str(found.address), "released": False, "unread": as_objects(unread)})
        else:
            statusview.show_whose(found._replace(holders=[]))
        return 1
    ((of, holder),) = holders
    if not output.is_object:
        statusview.show_whose(found._replace(holders=holders))
        netns = holder.record.netns
        if netns and os.path.lexists(locations.root.path(netns)):
            screen.console().print("[yellow]![/] Its network namespace still exists: the pod may be alive, and keep using the address.")
    if not yes and not confirm(f"Release {found.address}?"):
        return 1
    done = _release(locations, of, found.address, holder)
    if output.is_object:
        output.dump({"address": str(found.address), "network": of.name, "released": done, "unread": as_objects(unread)})
    else:
        click.echo(f"{found.address} released." if done else f"{found.address} now has another holder: nothing was released.")
    return 0 if done else 1


def _release(locations: Locations, network: StoredNetwork, address: Address, holder: Holder) -> bool:
    """Release an address if it still has this holder; say whether it had. Raises Problem."""
    from kubenode.inspection import stale
    from kubenode.inspection.report import unreadable

    try:
        held = network.store.holder(address)
        done, failures = stale.release(locations, [stale.Stale(network, held, holder.record.pod, "asked for")]) if held else ([], [])
    except OSError as error:
        raise unreadable(error) from None
    if failures:
        raise unreadable(failures[0])
    return bool(done)
