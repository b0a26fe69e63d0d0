# SPDX-License-Identifier: Apache-2.0
"""`kube-node report`: this node's data for a bug report, in one file, without secrets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kubenode.base.problem import Problem
from kubenode.cli import options
from kubenode.cli.output import with_output

if TYPE_CHECKING:
    from kubenode.cli.output import Output
    from kubenode.inspection.bugreport.archive import Archive
    from kubenode.inspection.locations import Locations

STDOUT = "-"


@click.command("report", short_help="This node's data for a bug report, without secrets.")
@click.argument("file", metavar="FILE.tar.gz")
@with_output
@options.BIN_DIR
@options.KUBECONFIG
@options.CONTEXT
@options.place_alone
def command(file: str, locations: Locations, output: Output) -> int:
    r"""Write this node's data for a bug report, and list its content and everything left out.

    It has the output of doctor, status and version, configurations, the Node view, records of attachments, the agent's recent log lines,
    kernel and runtime. Tokens, keys, certificates, passwords and variables are left out. It contains names of pods and addresses: check it
    before you send it. With - the archive goes to standard output, and the list to standard error.

    \b
    Examples:
      kube-node report report.tar.gz
      kube-node report /tmp/report.tar.gz -o json
      kube-node report - > report.tar.gz
    """
    from kubenode.base import files
    from kubenode.inspection.bugreport import sources
    from kubenode.inspection.bugreport.archive import Archive
    from kubenode.inspection.bugreport.secrets import Scrubber

    archive = Archive(Scrubber(sources.known_secrets(locations)))
    archive.attempt("version", lambda: _version(archive, locations))
    archive.attempt("doctor", lambda: _doctor(archive, locations))
    archive.attempt("status", lambda: _status(archive, locations))
    for what, source in (
        ("configuration", sources.configuration),
        ("records", sources.records),
        ("logs", sources.logs),
        ("kernel and runtime", sources.machine),
    ):
        archive.attempt(what, lambda source=source: source(archive, locations))  # type: ignore[misc] # a default
    if file == STDOUT:
        sys.stdout.buffer.write(archive.content())
    else:
        try:
            files.replace(file, archive.content())
        except OSError as error:
            advice = f"name a file that can be written, or {STDOUT} for standard output"
            raise Problem(f"{file} cannot be written: {error.strerror or error}", advice) from None
    _tell(archive, file, output)
    return 0


def _version(archive: Archive, locations: Locations) -> None:
    from kubenode.cli import version

    archive.add("version.json", "kube-node version", version.describe(locations))


def _doctor(archive: Archive, locations: Locations) -> None:
    from kubenode.cli import doctor

    archive.add("doctor.json", "kube-node doctor", doctor.describe(doctor.of_node(locations)))


def _status(archive: Archive, locations: Locations) -> None:
    from kubenode.cli import statusjson
    from kubenode.inspection.holders import HolderFilter
    from kubenode.inspection.report import look

    archive.add("status.json", "kube-node status", statusjson.status(look(locations, (), HolderFilter())))


def _tell(archive: Archive, file: str, output: Output) -> None:
    if output.is_object and file != STDOUT:
        output.dump({"file": file, **archive.contents()})
        return
    from rich.markup import escape
    from rich.table import Table

    from kubenode.cli import screen

    out = screen.console(stderr=file == STDOUT)
    taken = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    taken.add_column("FILE", no_wrap=True)
    taken.add_column("BYTES", no_wrap=True, justify="right")
    taken.add_column("CONTENT", overflow="fold")
    for one in archive.taken:
        taken.add_row(escape(one.file), f"{one.size:,}", escape(one.what))
    out.print(taken)
    for left in archive.left_out:
        out.print(f"[dim]left out: {escape(left.what)}: {escape(left.why)}[/]")
    if file != STDOUT:
        out.print(f"{escape(file)}: {len(archive.taken)} files. Check it before you send it: it contains names of pods and addresses.")
