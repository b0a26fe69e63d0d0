# SPDX-License-Identifier: Apache-2.0
"""The output of `kube-node status`: each network with bars, and the holders of addresses."""

from __future__ import annotations

import time
from bisect import bisect_right
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kubenode.cli import screen
from kubenode.cli.entry import printable
from kubenode.inspection.networks import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from kubenode.inspection.cluster.whose import Whois
    from kubenode.inspection.holders import Holder
    from kubenode.inspection.networks import StoredNetwork
    from kubenode.inspection.report import NetworkReport, Other, Report, Whose


SHORT_ID = 12  # characters of a container ID, as in runtimes' own tools
INDENT = 2
BAR = 16
WIDE_BAR = 32
WIDE = 120  # columns that leave room for longer bars


def show(look: Callable[[], Report], interval: float, *, wide: bool) -> None:
    """Print the state of this node; repeatedly if there is an interval."""
    out = screen.console()
    if not interval:
        out.print(page(look(), out, wide=wide))
        return
    if not out.is_terminal:
        while True:
            out.print(page(look(), out, wide=wide, alone=True))
            time.sleep(interval)
    with Live(fitting(look(), out, wide=wide), console=out, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            live.update(fitting(look(), out, wide=wide), refresh=True)


def fitting(report: Report, out: Console, *, wide: bool) -> Group:
    """Return the part that fits on the terminal, leaks and networks with a problem first. It omits holders, then networks, and says so."""
    first = sorted(report.networks, key=lambda one: not (one.suspects or one.network.problem))

    def cut(networks: int, holders: int) -> Group:
        shown = report._replace(networks=[one.first(holders) for one in first[:networks]])
        return page(shown, out, wide=wide, whole=report, alone=True)

    def lines(networks: int, holders: int) -> int:
        return len(out.render_lines(cut(networks, holders), pad=False))

    height, networks = out.height, len(first)
    holders = bisect_right(range(1, height), height, key=lambda count: lines(networks, count))
    if not holders and lines(networks, 0) > height:
        networks = bisect_right(range(1, networks), height, key=lambda count: lines(count, 0))
    return cut(networks, holders)


def page(report: Report, out: Console, *, wide: bool, whole: Report | None = None, alone: bool = False) -> Group:
    """Return all of a report; `whole`: the full report if this is only a part; `alone`: nothing on stderr names what is unread."""
    parts: list[RenderableType] = [_head(report)]
    if alone:
        parts += [Text.from_markup(f"[red]✗[/] {escape(printable(one.msg))}") for one in report.unread]
    if whole:
        parts += _suspects(whole)
    subnets = [len(told(r)) for one in report.networks for usage in one.network.usages for r in usage.range_set.ranges]
    for one in report.networks:
        parts += ["", *_network(one, report, out, max(subnets, default=0), wide=wide, all_of_it="" if whole else ": --all")]
    if whole and (left := len(whole.networks) - len(report.networks)):
        parts += ["", f"[dim]and {screen.counted(left, 'more network')}: --network shows one[/]"]
    elif not report.networks and report.unread:
        parts += ["", "No network is known: the configuration cannot be read."]
    elif not report.networks:
        parts += ["", "No networks: the CNI configuration does not use kube-node, node-annotation or host-local.",
                  "[dim]Name a NetworkAttachmentDefinition with --config, or see kube-node doctor.[/]"]  # fmt: skip
    if not whole:
        parts += _suspects(report)
    return Group(*parts)


def _suspects(report: Report) -> list[RenderableType]:
    if not report.suspects:
        return []
    what = screen.counted(len(report.suspects), "pod has", {"pod has": "pods have"})
    advice = "The agent releases them once their pod is gone, too; kube-node gc does it now."
    return ["", f"[yellow]![/] {what} addresses and no network namespace: leaked? {advice}"]


def _head(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    seen, agent = report.node, report.agent
    if seen.node and seen.view:
        age = "written by hand" if seen.view.fetched is None else f"seen {screen.ago(seen.view.fetched)}"
        table.add_row("Node", f"[bold]{escape(seen.node.name)}[/], {age}")
    else:
        why = str(seen.problem) if seen.problem else f"not seen yet: there is no {seen.path}"
        table.add_row("Node", f"[yellow]{escape(why)}[/]")
    if agent.up:
        table.add_row("Agent", f"[green]up[/], {agent.process}, answers in {agent.milliseconds:.1f} ms")
        for problem in agent.problems:
            table.add_row("", f"[yellow]![/] {escape(problem)}")
    elif agent.installed:
        table.add_row("Agent", f"[red]down[/]: {agent.socket}: {escape(agent.problem)}")
    else:
        table.add_row("Agent", "none: the plugins run by themselves")
    return table


def _network(one: NetworkReport, report: Report, out: Console, subnet: int, *, wide: bool, all_of_it: str) -> list[RenderableType]:
    """Return a network's lines; `subnet`: the width of the widest subnet of all; `all_of_it`: the option that shows the omitted rest."""
    network = one.network
    parts: list[RenderableType] = [_title(network, out)]
    if network.problem:
        parts.append(_indented(Text.from_markup(f"[red]✗[/] {escape(printable(str(network.problem)))}")))
    if network.usages:
        parts.append(_indented(_subnets(network, out, subnet)))
    if wide:
        parts.append(_indented(Text(printable(f"reservations in {network.store.directory}"), "dim")))
    if one.holders:
        parts.append(_indented(_holders(one.holders, out, wide=wide)))
    elif report.wanted.namespace and not one.left_out:
        parts.append(_indented(Text(f"no pods of namespace {report.wanted.namespace}", "dim")))
    if one.left_out:
        parts.append(_indented(Text(f"and {screen.counted(one.left_out, 'more address')}{all_of_it}", "dim")))
    return parts


def _title(network: StoredNetwork, out: Console) -> Text:
    """Return a network's name, plugin, source of subnets and configuration, in as few lines as they need."""
    kind = network.configured.raw.get("type")
    plugin = [] if network.configured.is_recorded else [f"{network.plugin} in {kind}" if kind else network.plugin]
    told = [*plugin, network.source, network.configured.path]
    lines = [f"{network.name}  {told[0]}"]
    between = screen.legible(" · ", out)
    for one in told[1:]:
        if len(lines[-1]) + len(between) + len(one) <= out.width:
            lines[-1] += between + one
        else:
            lines.append(" " * INDENT + one)
    title = Text(printable("\n".join(lines)), "dim")
    title.stylize("not dim bold", 0, len(network.name))
    return title


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, INDENT), expand=False)


def _subnets(network: StoredNetwork, out: Console, subnet: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, min_width=subnet)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right", min_width=len("100 %"))
    table.add_column(no_wrap=True)
    width = WIDE_BAR if out.width >= WIDE else BAR
    for usage in network.usages:
        subnets = "\n".join(map(told, usage.range_set.ranges))
        gauge = screen.legible(screen.bar(usage.used, usage.total, width), out)
        used = f"{screen.number(usage.used)} of {screen.number(usage.total)}"
        table.add_row(subnets, gauge, screen.percent(usage.used, usage.total), used)
    return table


def _holders(found: list[Holder], out: Console, *, wide: bool) -> Table:
    """Return the holders: a pod's addresses in a line if that fits, else below each other, else also the columns of `wide`."""
    for between, stacked in ((", ", False), ("\n", False), ("\n", wide)):
        table = _holder_table(found, between, wide=wide, stacked=stacked)
        if Measurement.get(out, out.options, table).maximum <= out.width - INDENT:
            break
    return table


def _holder_table(found: list[Holder], between: str, *, wide: bool, stacked: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("ADDRESS", no_wrap=True)
    table.add_column("POD, OR CONTAINER", overflow="fold")
    table.add_column("IF", no_wrap=True)
    table.add_column("SINCE", no_wrap=True)
    if wide and not stacked:
        table.add_column("CONTAINER", no_wrap=True)
        table.add_column("NETNS", overflow="fold")
    for one in found:
        whose = who(one, wide=wide)
        more = []
        if wide:
            container = one.attachment.container_id[:SHORT_ID] if one.attachment and not one.rests_until else ""
            more = [container, escape(one.record.netns)]
        if stacked:
            whose = "\n".join([whose, *(f"[dim]{text}[/]" for text in more if text)])
            more = []
        ifname = one.attachment.ifname if one.attachment else ""
        since = screen.stamp(one.since) if wide else screen.ago(one.since)
        table.add_row(between.join(map(str, one.addresses)), whose, ifname, since, *more)
    return table


def who(one: Holder, *, wide: bool) -> str:
    """Return the name of an address's holder."""
    if one.attachment is None:
        return "[yellow]no pod: the file is empty or torn[/]"
    pod = one.record.pod
    name = escape(pod) if pod else f"[dim]{'-' if wide else one.attachment.container_id[:SHORT_ID]}[/]"
    if one.rests_until:
        return f"{name} [cyan]rests until {screen.stamp(one.rests_until)}[/]"
    return f"{name} [yellow]leaked?[/]" if one.suspected else name


def show_whose(found: Whose, known: Whois | None = None) -> None:
    """Print the holders of an address; `known`: the API server's answer if no subnet here has it."""
    out = screen.console()
    for network, one in found.holders:
        table = Table.grid(padding=(0, 2))
        table.add_row("address", f"[bold]{found.address}[/]")
        table.add_row("network", f"{escape(network.name)}  [dim]{escape(network.configured.path)}[/]")
        table.add_row("pod", who(one, wide=False))
        if one.attachment and not one.rests_until:
            table.add_row("container", one.attachment.container_id)
            table.add_row("interface", one.attachment.ifname or "-")
        for label, text in (("netns", one.record.netns), ("pod UID", one.record.pod_uid)):
            if text:
                table.add_row(label, escape(text))
        table.add_row("since", f"{screen.stamp(one.since)}, {screen.ago(one.since)}")
        table.add_row("file", f"{network.store.directory}/{found.address}")
        if others := found.others_of(one):
            table.add_row("also has", _others(others))
        out.print(table)
    if not found.holders and found.networks:
        for network in found.networks:
            out.print(f"No pod has {found.address}. It is in network [bold]{escape(network.name)}[/], {_kind(network, found)}.")
    elif not found.holders and known and known.where:
        out.print(f"{found.address} is not on this node: {_elsewhere(known)}.")
        out.print(f"[dim]Ask there:[/] kube-node status {found.address}")
    elif not found.holders:
        nor = "" if known is None else ", nor in another node's"
        out.print(f"No pod has {found.address}, and it is in no subnet of this node's networks{nor}.")


def _elsewhere(known: Whois) -> str:
    """Name the node and the pod of an address."""
    subnets = [f"{part.subnet} belongs to node [bold]{escape(part.node)}[/] ({escape(part.source)})" for part in known.parts]
    own = [f"it is node [bold]{escape(name)}[/]'s own address" for name in known.nodes]
    pods = [f"pod [bold]{escape(has.pod.name)}[/] on node {escape(has.pod.node)} has it" for has in known.pods if not has.pod.on_host]
    return "; ".join([*subnets, *own, *pods])


def _others(others: list[Other]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for one in others:
        table.add_row(str(one.address), f"{escape(one.network)}, {escape(one.attachment.ifname or '-')}")
    return table


def _kind(network: StoredNetwork, found: Whose) -> str:
    gateways = {r.gateway for usage in network.usages for r in usage.range_set.ranges}
    if found.address in gateways:
        return "whose gateway it is"
    if any(subnet.holds(found.address) for subnet in network.exclude):
        return "which excludes it"
    of = next((one for usage in network.usages if (one := usage.range_set.range_of(found.address))), None)
    if of is None:
        return "outside of its ranges"
    return "which gives no new address of that subnet: it is closing" if of.closing else "which may give it"
