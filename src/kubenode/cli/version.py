# SPDX-License-Identifier: Apache-2.0
"""`kube-node version`: versions of this program, the installed executables, Python and the specification."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from kubenode.cli import options
from kubenode.cli.output import with_output
from kubenode.version import VERSION

if TYPE_CHECKING:
    from kubenode.cli.output import Output
    from kubenode.inspection.locations import Locations


@click.command("version", short_help="Versions of this program and of the installed executables.")
@with_output
@options.BIN_DIR
@options.locations
def command(locations: Locations, output: Output) -> None:
    r"""Show versions: of this program, of the executables in the CNI bin directory, of the specification.

    \b
    Examples:
      kube-node version
      kube-node version -o yaml
    """
    found = describe(locations)
    if output.is_object:
        output.dump(found)
        return
    click.echo(f"kube-node {VERSION}, Python {found['python']}\nCNI {', '.join(found['cniVersions'])}")
    width = max((len(one["path"]) for one in found["installed"]), default=0)
    for one in found["installed"]:
        click.echo(f"{one['path']:{width}}  {one['kind']:8}  {one['version'] or 'unknown version'}")


def describe(locations: Locations) -> dict[str, Any]:
    """Return all versions as an object."""
    from kubenode.cni import versions
    from kubenode.inspection.doctor.executables import executables

    found = executables([locations.root.path(directory) for directory in locations.bin_dirs])
    installed = [{"path": one.path, "kind": "relay" if one.is_relay else "launcher", "version": one.version or None} for one in found]
    python = ".".join(map(str, sys.version_info[:3]))
    return {"version": VERSION, "python": python, "cniVersions": list(versions.SUPPORTED), "installed": installed}
