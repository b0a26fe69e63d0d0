# SPDX-License-Identifier: Apache-2.0
"""What a person reads before a command runs: help, examples, completion, manual pages. All of it from one text."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import click
import forked
import pytest
from manpages import pages

from kubenode.cli.main import COMMANDS, kube_node

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = kube_node.make_context("kube-node", [], resilient_parsing=True)  # with the names of the help option, which commands keep


def examples(text: str) -> list[str]:
    """Return the example command lines of a help text."""
    lines = text.partition("Examples:\n")[2].splitlines()
    return [line.strip() for line in lines[: lines.index("") if "" in lines else None]]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples(name: str) -> None:
    """Every command's help has examples, each on a line of its own, and the command takes each of them."""
    command = kube_node.get_command(CONTEXT, name)
    assert command is not None
    found = examples(command.get_help(click.Context(command, info_name=name, parent=CONTEXT)))
    assert found
    for line in found:
        program, called, *arguments = shlex.split(line.partition(" > ")[0].rpartition(" && ")[2])
        assert (program, called) == ("kube-node", name)
        command.make_context(name, arguments, parent=CONTEXT, resilient_parsing=False)


def said(*words: str) -> tuple[int, str]:
    """Return a command line's exit code and all that it says."""
    done = forked.run(words)
    return done.code, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_as_a_command(name: str) -> None:
    """`help` and `help COMMAND` say what --help says."""
    code, text = said("help", *name.split())
    assert (code, text) == said(*name.split(), "--help")
    assert code == 0


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("statsu", "'status'"), ("doctr --quiet", "'doctor'"), ("help tryadd", "'try-add'"), ("status --netwrk=x", "'--network'"),
        ("gc --dryrun", "'--dry-run'"),
    ],
)  # fmt: skip
def test_did_you_mean(line: str, meant: str) -> None:
    """Of a command or an option that is mistyped the error says what may have been meant."""
    code, text = said(*line.split())
    assert code == 64
    assert f"Did you mean {meant}?" in text
    assert "Did you mean" not in said("zzz")[1]


def test_commands_fit_on_a_line() -> None:
    """The list of commands says of each what it is for, uncut at 80 columns."""
    shown = forked.run(["--help"], {"COLUMNS": "80"}).stdout
    assert "..." not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits(name: str) -> None:
    """At 80 and at 200 columns no line of a help text is too long or cut, and no word is broken."""
    narrow, broad = (forked.run([*name.split(), "--help"], {"COLUMNS": columns}).stdout for columns in ("80", "200"))
    assert max(map(len, narrow.splitlines())) <= 80
    assert max(map(len, broad.splitlines())) <= 200
    assert "…" not in narrow
    assert set(narrow.split()) == set(broad.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, tmp_path: Path) -> None:
    """The script is the shell's own language, as far as that shell is here to say so."""
    script = forked.run(["completion", shell]).stdout
    assert "_KUBE_NODE_COMPLETE" in script
    if shutil.which(shell):
        file = tmp_path / "completion"
        file.write_text(script)
        subprocess.run([shell, "-n", str(file)], check=True)


def completed(*words: str, last: str = "") -> list[str]:
    """Return what bash would offer for the word after these."""
    line = " ".join(["kube-node", *words, last])
    shown = forked.run([], {"_KUBE_NODE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) + 1)}).stdout
    return [item.partition(",")[2] for item in shown.split()]


def test_completion(tmp_path: Path) -> None:
    """Commands, options and the names of networks are completed."""
    (tmp_path / "10-a.conf").write_text('{"name": "k8snet", "type": "bridge", "ipam": {"type": "kube-node"}}')
    assert "doctor" in completed()
    assert completed(last="sta") == ["status"]
    assert "--dry-run" in completed("gc", last="--d")
    assert completed("status", f"--cni-config={tmp_path}", "--network", last="k") == ["k8snet"]


def test_manual_pages(tmp_path: Path) -> None:
    """Each command has a page that says what its help says, with its examples, and of which the formatter complains of nothing."""
    made = pages()
    assert set(made) == {"kube-node.1", *(f"kube-node-{name}.1" for name in COMMANDS)}
    for name, text in made.items():
        assert ".SH EXAMPLES\n" in text
        assert "\\-h, \\-\\-help" in text
        assert "\b" not in text
        (tmp_path / name).write_text(text)
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", *sorted(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert done.stderr == ""
        for name in made:
            assert f"{name.removesuffix('.1')}(1)".upper() in done.stdout.replace("\N{HYPHEN}", "-"), name
