# SPDX-License-Identifier: Apache-2.0
"""`kube-node doctor`: faults of this node, and advice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubenode.cli import options
from kubenode.cli.output import with_output

if TYPE_CHECKING:
    from kubenode.cli.output import Output
    from kubenode.inspection.doctor.finding import CheckResult, State
    from kubenode.inspection.locations import Locations

COLOURS = ("dim", "green", "yellow", "red")


@click.command("doctor", short_help="Faults of this node, and what to do.")
@with_output
@click.option("--quiet", "-q", is_flag=True, help="Only faults.")
@click.option("--cluster", is_flag=True, help="Check the cluster instead of this node: the API server's nodes and pods.")
@options.NAMESPACE
@options.BIN_DIR
@options.KUBECONFIG
@options.CONTEXT
@options.place_alone
def command(locations: Locations, namespace: str, output: Output, *, quiet: bool, cluster: bool) -> int:
    r"""Check this node, from the plugins to the last reservation, and say what to do.

    Each check has a line with ✓, ! or ✗, or with - and the reason if it was skipped. The exit code is that of the worst: 0 all is well,
    1 something needs a look, 2 pods get no addresses, or will get none. The command changes nothing.

    \b
    Examples:
      kube-node doctor
      kube-node doctor --quiet
      kube-node doctor --config=net1.yaml --config=net2.yaml
      kube-node doctor --kubeconfig=/etc/kubernetes/kubelet.conf -o yaml
      kube-node doctor --cluster --context=prod
    """
    from kubenode.inspection.doctor.finding import State

    if namespace and not cluster:
        raise click.UsageError("--namespace is for --cluster")
    results = _of_cluster(locations, namespace) if cluster else of_node(locations)
    if output.is_object:
        output.dump(describe(results))
    else:
        _show([one for one in results if one.finding.state > State.OK or not quiet])
    return int(_worst(results))


def of_node(locations: Locations) -> list[CheckResult]:
    """Make all checks of this node."""
    from kubenode.inspection.doctor.facts import Facts
    from kubenode.inspection.doctor.registry import examine

    return list(examine(Facts(locations)))


def _of_cluster(locations: Locations, namespace: str) -> list[CheckResult]:
    from kubenode.base.problem import Problem
    from kubenode.inspection.cluster.checks import examine
    from kubenode.inspection.cluster.reading import ClusterReader
    from kubenode.inspection.doctor.finding import CheckResult, of_error

    try:
        reader = ClusterReader(locations, namespace)
    except Problem as error:  # an unusable kubeconfig
        return [CheckResult("api-server", of_error(error))]
    try:
        return list(examine(reader, namespace))
    finally:
        reader.close()


def describe(results: list[CheckResult]) -> dict[str, Any]:
    """Return findings as an object."""
    return {"worst": _worst(results).name.lower(), "checks": [_object(one) for one in results]}


def _worst(results: list[CheckResult]) -> State:
    from kubenode.inspection.doctor.finding import State

    return max([State.OK, *(one.finding.state for one in results)])


def _show(results: list[CheckResult]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from kubenode.cli import screen

    out = screen.console()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check, finding in results:
        sign = f"[{COLOURS[finding.state + 1]}]{screen.legible(finding.state.sign, out)}[/]"
        lines = [escape(finding.what)]
        if finding.advice:
            lines.append(screen.legible("→ ", out) + escape(finding.advice))
        if finding.run:
            lines.append(f"  [bold]{escape(finding.run)}[/]")
        table.add_row(sign, check, "\n".join(lines))
    out.print(table)


def _object(one: CheckResult) -> dict[str, str]:
    finding = one.finding
    told = {"check": one.check, "state": finding.state.name.lower(), "what": finding.what}
    return {**told, **({"advice": finding.advice} if finding.advice else {}), **({"run": finding.run} if finding.run else {})}
