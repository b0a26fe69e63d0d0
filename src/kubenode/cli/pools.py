# SPDX-License-Identifier: Apache-2.0
"""`kube-node pools`: the use of SubnetPools, and the nodes with subnets of a pool."""

from __future__ import annotations

import asyncio
import os
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import click

from kubenode.base.problem import Problem
from kubenode.cli import options, screen
from kubenode.cli.entry import confirm
from kubenode.cli.output import with_output

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from rich.console import Console
    from rich.table import Table

    from kubenode.cli.output import Output
    from kubenode.kube.listwatch import ObjectHandler
    from kubenode.pools.blocks import Block
    from kubenode.pools.ledger import Ledger
    from kubenode.pools.records import NodeSubnet, SubnetPool

TIMEOUT = 30.0  # seconds for one request
BAR = 16  # characters
WIDE = 120  # columns that leave room for annotations


@click.command("pools")
@click.argument("name", required=False)
@with_output
@click.option("--purge", is_flag=True, help="Remove the annotations and NodeSubnets of a deleted pool NAME.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--kubeconfig", metavar="FILE", default="", help="The kubeconfig for the API server. [default: as the plugins]")
@options.CONTEXT
def command(name: str | None, kubeconfig: str, context: str, output: Output, *, purge: bool, yes: bool) -> int:
    """Show SubnetPools and their use; with NAME also its nodes.

    \b
    Examples:
      kube-node pools
      kube-node pools net1
      kube-node pools net1 -o json
      kubectl delete subnetpool net1 && kube-node pools net1 --purge
    """  # noqa: D301 -- click keeps the lines of a paragraph after a backspace
    if purge:
        if name is None:
            raise click.UsageError("--purge needs the NAME of a pool that was deleted")
        return 0 if asyncio.run(_purge(name, kubeconfig, context, yes=yes)) else 1
    ledger = asyncio.run(read(kubeconfig, context, nodes=name is not None))
    if name is not None and name not in ledger.pools and not any(claim.pool == name for _, claim in ledger.claims):
        raise unknown(name, ledger)
    if output.is_object:
        found = [_pool_object(pool) for pool in sorted(ledger.pools.values()) if name in (None, pool.name)]
        output.dump({"pools": found} if name is None else {**(found[0] if found else {"name": name}), "nodes": _nodes(ledger, name)})
        return 0
    from rich.markup import escape

    out = screen.console()
    shown = [pool for pool in sorted(ledger.pools.values()) if name in (None, pool.name)]
    if name is None and not shown:
        out.print("There are no SubnetPools.")
    if shown:
        out.print(_networks(shown, out, wide=output.wide or out.width >= WIDE))
    if name is not None:
        out.print()
        out.print(_nodes_table(ledger, name))
    for pool in shown:
        for kind, message in _troubles(pool):
            # A program gets one line; a person gets lines that break between words.
            out.print(f"[yellow]{escape(pool.name)}: {kind}[/]: {escape(message)}", soft_wrap=not out.is_terminal)
    return 0


def unknown(name: str, ledger: Ledger) -> Problem:
    """Return the error for the name of a missing pool."""
    known = ", ".join(sorted(ledger.pools))
    return Problem(f"there is no SubnetPool {name}", f"there are: {known}" if known else "create it, or name another cluster by --context")


def _pool_object(pool: SubnetPool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "annotation": pool.annotation,
        "cidrs": [{**network, **_cut(pool, network)} for network in pool.status.get("cidrs") or ()],
        "conditions": list(pool.status.get("conditions") or ()),
    }


def _cut(pool: SubnetPool, network: dict[str, Any]) -> dict[str, Any]:
    """Return the division of a network, if the pool still has it."""
    found = [block for block in pool.blocks if str(block.cidr) == network["cidr"]]
    return {"nodePrefix": found[0].node_prefix, "shared": found[0].shared, "gateway": found[0].gateway} if found else {}


def _part(block: Block) -> str:
    """Return a node's part of a network: its prefix length, and anything but defaults."""
    from kubenode.pools.blocks import FIRST

    shared = [f"of one network, via {block.item(block.cidr).gateway or block.gateway}"] if block.shared else []
    return " ".join([f"/{block.node_prefix}", *(shared or ([f"via {block.gateway}"] if block.gateway != FIRST else []))])


def _nodes(ledger: Ledger, pool: str) -> list[dict[str, Any]]:
    return [{"node": node, "subnets": [_subnet(ledger, claim) for claim in claims]} for node, claims in _by_node(ledger, pool)]


def _subnet(ledger: Ledger, claim: NodeSubnet) -> dict[str, Any]:
    released = {} if claim.released is None else {"released": screen.stamp(claim.released)}
    closing = {"closing": True} if _is_closing(ledger, claim) else {}
    return {"cidr": str(claim.subnet), "adopted": claim.adopted, **closing, **released}


def _is_closing(ledger: Ledger, claim: NodeSubnet) -> bool:
    """Say whether a node gives nothing more of a subnet."""
    from kubenode.pools.texts import read as read_text

    node = ledger.nodes.get(claim.node)
    items = read_text(node.annotations.get(claim.annotation)).items if node else ()
    return any(item.closing and item.block == claim.subnet for item in items)


def _by_node(ledger: Ledger, pool: str) -> list[tuple[str, list[NodeSubnet]]]:
    """Return each node with its subnets of a pool, in order."""
    found: dict[str, list[NodeSubnet]] = {}
    for _, claim in sorted(ledger.claims):
        if claim.pool == pool:
            found.setdefault(claim.node, []).append(claim)
    return sorted(found.items())


def _networks(pools: list[SubnetPool], out: Console, *, wide: bool) -> Table:
    """Return each pool with its networks and their use, in subnets."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in ("POOL", "NETWORK", "A NODE'S", ""):
        table.add_column(heading, no_wrap=True)
    for heading in ("", "GIVEN", "FREE"):
        table.add_column(heading, no_wrap=True, justify="right")
    if wide:
        table.add_column("ANNOTATION", no_wrap=True)
    for pool in pools:
        numbers = {network["cidr"]: network for network in pool.status.get("cidrs") or ()}
        name, annotation = f"[bold]{escape(pool.name)}[/]", f"[dim]{escape(pool.annotation)}[/]"
        rows = [[str(block.cidr), _part(block), *_used(numbers.get(str(block.cidr)), out)] for block in pool.blocks]
        for row in rows or [[""] * 6]:
            table.add_row(name, *row, *([annotation] if wide else []))
            name = annotation = ""
    return table


def _used(network: dict[str, Any] | None, out: Console) -> list[str]:
    """Return the use of a network: a bar, its share, the numbers of allocated and of free subnets."""
    if network is None:
        return ["[dim]not seen yet[/]", "", "", ""]
    used, total = network["total"] - network["free"], network["total"]
    given, free = screen.number(network["allocated"]), screen.number(network["free"])
    return [screen.legible(screen.bar(used, total, BAR), out), screen.percent(used, total), given, free]


def _nodes_table(ledger: Ledger, name: str) -> Table:
    """Return the nodes with their subnets of a pool."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("NODE", overflow="fold")
    table.add_column("SUBNETS")
    table.add_column("")
    for node, claims in _by_node(ledger, name):
        notes = ["taken over"] if any(claim.adopted for claim in claims) else []
        closing = sum(_is_closing(ledger, claim) for claim in claims)
        notes += [f"{closing} closing"] if closing else []
        released = [claim.released for claim in claims if claim.released is not None]
        if released:
            left = max(0.0, min(released) + ledger.reclaim_after(name) - time.time())
            notes.append(f"the node no longer has it, free in {screen.age(left)}")
        table.add_row(escape(node), ", ".join(str(claim.subnet) for claim in claims), f"[dim]{'; '.join(notes)}[/]")
    return table


def _troubles(pool: SubnetPool) -> list[tuple[str, str]]:
    found = []
    for condition in pool.status.get("conditions") or ():
        if condition.get("status") == ("False" if condition.get("type") == "Ready" else "True"):
            kind = "NotReady" if condition["type"] == "Ready" else condition["type"]
            found.append((kind, condition.get("message", "")))
    return found


async def read(kubeconfig: str, context: str, *, nodes: bool = False) -> Ledger:
    """Return the API server's pools and claims, and if wanted, nodes."""
    from kubenode.base.log import Log
    from kubenode.controller.handlers import Claims, Nodes, Pools
    from kubenode.controller.reconcile import CLAIMS, NODES, POOLS
    from kubenode.kube.asyncclient import Cluster, Collection
    from kubenode.kube.listwatch import ListWatch
    from kubenode.kube.refusal import StatusError, for_a_person
    from kubenode.pools.ledger import Ledger

    ledger, log = Ledger(), Log("pools")
    cluster = Cluster(kubeconfig or None, os.environ, TIMEOUT, _uncounted, context=context)
    try:
        wanted: list[tuple[Collection, ObjectHandler]] = [
            (Collection(POOLS), Pools(ledger, lambda: None, log)),
            (Collection(CLAIMS), Claims(ledger, lambda: None, log)),
        ]
        if nodes:
            wanted.append((Collection(NODES, metadata=True), Nodes(ledger, lambda: None, log)))
        for collection, sink in wanted:
            await ListWatch(cluster, collection, sink, log).read()
    except StatusError as refused:
        raise for_a_person(refused) from None
    finally:
        await cluster.aclose()
    return ledger


async def _purge(pool: str, kubeconfig: str, context: str, *, yes: bool) -> bool:
    """Remove what is left of a pool; return False if a person does not want it. Raises Problem."""
    from kubenode.controller.reconcile import CLAIMS, NODES
    from kubenode.kube.asyncclient import Cluster
    from kubenode.pools.purge import purge

    ledger = await read(kubeconfig, context, nodes=True)
    if pool in ledger.pools:
        raise Problem(f"SubnetPool {pool} still exists, and would allocate the subnets again", f"kubectl delete subnetpool {pool}")
    annotate, delete = purge(pool, (claim for _, claim in ledger.claims), ledger.nodes)
    if not yes and not confirm(f"Remove {len(delete)} subnets of {pool}, also from the annotations of {len(annotate)} nodes?"):
        return False
    subnets = nodes = 0
    cluster = Cluster(kubeconfig or None, os.environ, TIMEOUT, _uncounted, context=context)
    try:
        while annotate or delete:
            for write in annotate:
                metadata = {"uid": write.node.uid, "resourceVersion": write.node.version, "annotations": dict(write.values)}
                nodes += await _done(cluster.merge(f"{NODES}/{write.node.name}", {"metadata": metadata}, metadata=True))
            for claim in (each.claim for each in delete):
                subnets += await _done(cluster.delete(f"{CLAIMS}/{claim.name}", claim.uid, claim.version))
            # A controller marks lost subnets, and a kubelet writes its state: objects that have changed meanwhile are read again.
            ledger = await read(kubeconfig, context, nodes=True)
            annotate, delete = purge(pool, (claim for _, claim in ledger.claims), ledger.nodes)
    finally:
        await cluster.aclose()
    click.echo(f"removed {subnets} subnets, and changed the annotations of {nodes} nodes")
    return True


def _uncounted(verb: str, resource: str, result: str) -> None:
    """Count nothing: a command has no metrics."""


async def _done(write: Awaitable[object]) -> bool:
    """Do a write; return False if the object has changed or is gone."""
    from kubenode.kube.refusal import StatusError

    try:
        await write
    except StatusError as refused:
        if refused.status not in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
            raise
        return False
    return True
