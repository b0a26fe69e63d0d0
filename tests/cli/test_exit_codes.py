# SPDX-License-Identifier: Apache-2.0
"""One exit code means one thing, for every command: docs/reference/cli.md has the table."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import forked
import pytest
from pages import ROOT
from wanting import want

from kubenode.cli.entry import FAILED, INTERRUPTED, MISUSED
from kubenode.cli.main import COMMANDS, kube_node
from kubenode.cli.node_annotation import node_annotation
from kubenode.cli.whois import SEVERAL
from kubenode.inspection.doctor.finding import State

if TYPE_CHECKING:
    from node import SeededNode

CONTEXT = kube_node.make_context("kube-node", [], resilient_parsing=True)
NO = 1
NOWHERE = {"KUBECONFIG": "/nowhere/kubeconfig", "KUBERNETES_SERVICE_HOST": "", "HOME": "/nowhere"}
FOUND = {name: kube_node.get_command(CONTEXT, name) for name in COMMANDS}


def options_of(name: str) -> set[str]:
    command = FOUND[name]
    assert command
    return {text for parameter in command.params for text in parameter.opts}


def required(name: str) -> list[str]:
    """Return a command's name and a word for each argument that it needs."""
    command = FOUND[name]
    assert command
    words = {"shell": "bash", "address": "10.1.0.2"}
    return [name, *(words.get(str(one.name), "word") for one in command.params if isinstance(one, click.Argument) and one.required)]


def test_the_page() -> None:
    """The page has each code once, and names the commands that have the options of the API server and of the plugins."""
    page = (ROOT / "docs/reference/cli.md").read_text()
    rows = [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert rows == [0, NO, State.FAILURE, SEVERAL, MISUSED, FAILED, INTERRUPTED]
    elsewhere = {"agent", "controller", "install", "uninstall"}  # with pages of their own
    for option, example in (("--bin-dir", "--bin-dir DIR"), ("--kubeconfig", "--kubeconfig FILE")):
        cells = re.search(rf"^\| `{example}` \| (.*) \| (.*?): .* \|$", page, re.MULTILINE)
        assert cells
        told = {*re.sub(r"\(.*?\)", "", cells[2]).replace(" ", "").split(",")}
        assert told == {name for name in COMMANDS if option in options_of(name)} - elsewhere
        assert option != "--kubeconfig" or told == {name for name in COMMANDS if "--context" in options_of(name)}


def misused(*words: str, env: dict[str, str] | None = None) -> None:
    done = forked.run(words, {**NOWHERE, **(env or {})})
    assert (done.code, done.stdout) == (MISUSED, "")
    assert "Error: " in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name: str) -> None:
    """An unknown option, an option without its value, and one word too many."""
    misused(*required(name), "--typo")
    misused(*required(name), *["word"] * 3)
    for option in {"--config", "--run-dir", "--output", "--kubeconfig"} & options_of(name):
        misused(*required(name), option)


@pytest.mark.parametrize("name", [name for name in COMMANDS if "--output" in options_of(name)])
def test_forms(name: str) -> None:
    """An output that no command has."""
    misused(*required(name), "-o", "xml")


@pytest.mark.parametrize("name", [name for name in COMMANDS if required(name) != [name]])
def test_arguments(name: str) -> None:
    """An argument that is missing."""
    misused(name)


@pytest.mark.parametrize("name", [name for name in COMMANDS if "--config" in options_of(name)])
def test_places(name: str) -> None:
    """A file or a directory that an option names and that is not there."""
    for option in {"--config", "--run-dir", "--host-root"} & options_of(name):
        misused(*required(name), f"{option}=/nowhere/at-all")


WRONG = [
    "statsu",
    "--typo",
    "help statsu",
    "status 10.1",
    "whois 300.1.1.1",
    "whois fe80::1%eth0",
    "release x --yes",
    "doctor --namespace=web",
    "status --interval=x --watch",
    "pools --purge",
    "gc --from=podman",
    "agent --listen=x",
    "try --node=/nowhere",
]


@pytest.mark.parametrize("line", WRONG)
def test_words(line: str) -> None:
    """Unknown commands, values that no option takes, texts that are no address."""
    misused(*line.split())


def test_node_annotation() -> None:
    """The other program with a command line; its errors as a plugin stay 1."""
    program = Path(sys.executable).with_name("node-annotation")
    for words in (["--typo"], ["get_annotation"], ["nonsense"]):
        done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (MISUSED, "")
    assert subprocess.run([program, "error_quit"], capture_output=True, check=False).returncode == 1
    assert "error_quit" in node_annotation.commands


@pytest.mark.parametrize("line", ["whois 10.1.0.99", "nodes", "pools", "pools net1", "pools net1 --purge --yes", "map pool/net1"])
def test_no_api_server(seeded: SeededNode, line: str) -> None:
    """Without a way to the API server a command could not ask: that is not the answer that nobody has an address."""
    answer = seeded.run_command(*line.split(), env=NOWHERE)
    assert (answer.code, answer.stdout) == (FAILED, "")
    assert "Error: " in answer.stderr


@pytest.mark.parametrize("line", ["status --network=net9", "try-add net9", "gc --network=net9", "report /nowhere/x.tar.gz", "gc --from=cri",
    "install --dry-run --from=/nowhere"])  # fmt: skip
def test_could_not(seeded: SeededNode, line: str) -> None:
    """What a command cannot do, with the reason on stderr."""
    seeded.configure(seeded.conf())
    empty = seeded.directory / "empty"
    (empty / str(seeded.net)[1:]).mkdir(parents=True)
    more = [f"--host-root={empty}"] if line == "gc --from=cri" else []
    answer = seeded.run_command(*line.split(), *more, env=NOWHERE)
    assert (answer.code, answer.stdout) == (FAILED, "")
    assert "Error: " in answer.stderr


def test_unreadable(seeded: SeededNode) -> None:
    """Records that an ordinary user may not read."""
    want("root", "setpriv")
    seeded.add(seeded.conf(), "c1", "web/shop")
    seeded.run.chmod(0o700)
    for line in ("status", "map", "gc --dry-run", "status 10.1.0.99", "doctor"):
        answer = seeded.run_command(*line.split(), wrap=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
        assert (answer.code, "run it as root" in answer.stderr) == (FAILED, True)


@pytest.mark.parametrize("line", ["status 10.1.0.99", "status 192.0.2.9", "release 10.1.0.99 --yes"])
def test_no(seeded: SeededNode, line: str) -> None:
    """Nobody has it, or nothing is released, after a look at all that there is."""
    seeded.configure(seeded.conf())
    answer = seeded.run_command(*line.split(), env=NOWHERE)
    assert (answer.code, answer.stderr) == (NO, "")
