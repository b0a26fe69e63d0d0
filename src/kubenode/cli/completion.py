# SPDX-License-Identifier: Apache-2.0
"""`kube-node completion`: a shell's completion of commands, options and networks."""

from __future__ import annotations

import click

VARIABLE = "_KUBE_NODE_COMPLETE"  # click's default for a program of this name


@click.command("completion", short_help="Shell completion, for bash, zsh and fish.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    r"""Print a shell's completion of commands, options and network names.

    \b
    Examples:
      kube-node completion bash > /etc/bash_completion.d/kube-node
      kube-node completion zsh > "${fpath[1]}/_kube-node"
      kube-node completion fish > ~/.config/fish/completions/kube-node.fish
    """
    from click.shell_completion import get_completion_class

    from kubenode.cli.main import kube_node

    found = get_completion_class(shell)
    assert found  # noqa: S101 -- click has all three
    complete = found(kube_node, {}, "kube-node", VARIABLE)
    # Not `source()`: that asks bash for its version, and a package may be built without bash.
    click.echo(complete.source_template % complete.source_vars())
