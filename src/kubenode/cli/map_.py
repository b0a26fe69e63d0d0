# SPDX-License-Identifier: Apache-2.0
"""`kube-node map`: a map of a subnet's addresses in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from kubenode.cli import options
from kubenode.cli.entry import FAILED
from kubenode.cli.output import as_objects, with_output

if TYPE_CHECKING:
    from kubenode.base.problem import Problem
    from kubenode.cli.output import Output
    from kubenode.inspection.locations import Locations
    from kubenode.inspection.mapping import Picture
    from kubenode.inspection.networks import StoredNetwork
    from kubenode.inspection.records import Records
    from kubenode.ipam.address import Address
    from kubenode.ipam.ranges import Range, Subnet

IN_TERMINAL, IN_FILE = 1024, 4096  # largest number of cells
POOL = "pool/"  # before a SubnetPool's name
NAMED = 5000  # largest number of addresses whose holders a map names


class Drawn(NamedTuple):
    """A map of one of a network's subnets, with the holders of addresses. `node` is "" for a pool's, or if unknown.

    `of`: the subnet that contains it.
    """

    network: str
    node: str
    picture: Picture
    names: dict[Address, str]
    of: Subnet | None = None


@click.command("map", short_help="A map of a subnet's addresses in use.")
@click.argument("target", type=options.NetworkName(), required=False, default="", metavar="[NETWORK|SUBNET|pool/POOL]")
@click.option("--svg", "svg_file", default="", metavar="FILE", help="Write an SVG picture instead; - is standard output.")
@click.option("--html", "html_file", default="", metavar="FILE", help="Write a page with the picture; - is standard output.")
@with_output
@options.KUBECONFIG
@options.CONTEXT
@options.locations
def command(target: str, svg_file: str, html_file: str, locations: Locations, output: Output) -> int:
    r"""Draw the addresses in use of each subnet: a cell is an address, or in larger subnets a block of addresses.

    A very large subnet is drawn only up to its last address in use. In a file the pointer on a cell shows its holder, and since when.
    In a SubnetPool a cell is a node's subnet; pool/ may be left out if this node has no network of that name.

    \b
    Examples:
      kube-node map
      kube-node map net1
      kube-node map 10.1.2.0/24
      kube-node map k8snet --svg=k8snet.svg
      kube-node map --html=map.html
      kube-node map pool/net1 --kubeconfig=admin.conf
    """
    from kubenode.cli import mapview
    from kubenode.inspection import networks

    files = {name: write for name, write in ((svg_file, mapview.svg), (html_file, mapview.html)) if name}
    most = IN_FILE if files else IN_TERMINAL
    pool = target.removeprefix(POOL) if target.startswith(POOL) else ""
    unread = [*locations.named.broken]
    drawn = _draw_pool(pool, locations, most) if pool else _draw_networks(target, networks.read_once(locations), most, unread)
    code = FAILED if unread else 0
    for name, write in files.items():
        _write(name, write(drawn))
    if files:
        return code
    if output.is_object:
        maps = [mapview.as_object(one) for one in drawn]
        output.dump({"maps": maps, "unread": as_objects(unread)})
    elif drawn or not unread:
        mapview.show(drawn, wide=output.wide)
    return code


def _write(name: str, text: str) -> None:
    """Write a map. Raises Problem if that fails."""
    from kubenode.base.problem import Problem

    try:
        with click.open_file(name, "w", encoding="utf-8", errors="backslashreplace", atomic=name != "-") as file:
            file.write(text)
    except OSError as error:
        if name == "-":
            raise
        raise Problem(f"{name}: {error.strerror}", "name another file, or - for standard output, such as in a container") from None


def _draw_networks(target: str, locations: Locations, most: int, unread: list[Problem]) -> list[Drawn]:
    """Draw this node's subnets, all or the wanted one; else a pool of that name. It names what it cannot read, and adds it to `unread`.

    Raises Problem.
    """
    from kubenode.base.problem import Problem
    from kubenode.inspection import networks
    from kubenode.inspection.records import Records
    from kubenode.inspection.report import see_node, unreadable

    unread += (refused := networks.refused(locations))
    options.tell(refused)
    records = Records(locations)
    own = see_node(locations).node
    node = own.name if own else ""
    try:
        found = networks.find(locations, records)
        drawn = [
            one
            for network in found
            for one in _draw(network, node, records, most)
            if target in {"", one.network, str(one.picture.subnet), str(one.of)}
        ]
    except OSError as error:
        raise unreadable(error) from None
    unknown = [
        Problem(f"network {one.name}: {one.problem.msg}", one.problem.details) for one in found if one.problem and target in {"", one.name}
    ]
    unread += unknown
    options.tell(unknown)
    if drawn or unknown or not target:
        return drawn
    try:
        return _draw_pool(target, locations, most)
    except Problem as error:
        known = ", ".join(f"{one.name} ({', '.join(str(u.range_set.ranges[0].subnet) for u in one.usages)})" for one in found)
        advice = f"there are: {known}" if known else "no network is known here; name its configuration with --config"
        raise Problem(f"there is no network or subnet {target} on this node, and {error.msg}", advice) from None


def _draw_pool(name: str, locations: Locations, most: int) -> list[Drawn]:
    """Draw each network of a SubnetPool. Raises Problem."""
    import asyncio

    from kubenode.cli import pools
    from kubenode.inspection.mapping import draw_pool

    ledger = asyncio.run(pools.read(locations.kubeconfig, locations.context, nodes=True))
    if name not in ledger.pools:
        raise pools.unknown(name, ledger)
    pool = ledger.pools[name]
    return [Drawn(f"{POOL}{name}", "", *draw_pool(ledger, pool, block, most)) for block in pool.blocks]


def _draw(network: StoredNetwork, node: str, records: Records, most: int) -> list[Drawn]:
    from kubenode.cli.screen import stamp
    from kubenode.inspection.holders import HolderFilter, holders
    from kubenode.inspection.mapping import Kind, draw, window

    held = {address: Kind.HELD for address, _ in network.store.since()}
    names: dict[Address, str] = {}
    if len(held) <= NAMED:
        for one in holders(network, records, HolderFilter())[0]:
            who = one.record.pod or (one.attachment.container_id if one.attachment else "nobody")
            until = f", rests until {stamp(one.rests_until)}" if one.rests_until else ""
            names |= dict.fromkeys(one.addresses, f"{who}, since {stamp(one.since)}{until}")
            kind = Kind.LEAKED if one.suspected else Kind.RESTING if one.rests_until else Kind.HELD
            held |= dict.fromkeys(one.addresses, kind)
    drawn = []
    for usage in network.usages:
        by_window: dict[Subnet, list[Range]] = {}
        for r in usage.range_set.ranges:
            by_window.setdefault(window(r), []).append(r)
        drawn += [
            Drawn(network.name, node, draw(ranges, network.exclude, held, most), names, ranges[0].subnet) for ranges in by_window.values()
        ]
    return drawn
