# SPDX-License-Identifier: Apache-2.0
"""`-o json|yaml|wide`: the same of every command that shows something."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from kubenode.cli.main import COMMANDS, kube_node

if TYPE_CHECKING:
    from node import SeededNode

CONTEXT = kube_node.make_context("kube-node", [], resilient_parsing=True)
SHOW_NOTHING = {"agent", "controller", "completion"}
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SHOWING = ["status", "status 10.1.0.2", "status 10.1.0.99", "doctor", "map", "gc --dry-run", "version", "release 10.1.0.99 --yes"]


@pytest.mark.parametrize("name", sorted({*COMMANDS} - SHOW_NOTHING))
def test_each_command_has_it(name: str) -> None:
    """Each command that shows something takes -o with the same forms."""
    command = kube_node.get_command(CONTEXT, name)
    assert command is not None
    options = {text: parameter for parameter in command.params for text in parameter.opts}
    assert options["-o"] is options["--output"]
    assert isinstance(options["-o"].type, click.Choice)
    assert list(options["-o"].type.choices) == ["wide", "json", "yaml"]


@pytest.mark.parametrize("name", COMMANDS)
def test_short_options(name: str) -> None:
    """-n is a namespace, as in kubectl, in each command that has one, and nothing else; each --yes is -y."""
    command = kube_node.get_command(CONTEXT, name)
    assert command is not None
    spelt = [parameter.opts for parameter in command.params]
    for short, long in (("-n", "--namespace"), ("-y", "--yes")):
        assert [opts for opts in spelt if short in opts] == [opts for opts in spelt if long in opts]


def without_times(value: Any) -> Any:
    """Return an object with a 0 for each number and time, which differ from call to call."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return re.sub(r"[0-9.]+ s", "0 s", value) if isinstance(value, str) else value if isinstance(value, (bool, int)) else None


@pytest.mark.parametrize("line", SHOWING)
def test_one_object_in_two_languages(seeded: SeededNode, line: str) -> None:
    """JSON and YAML say the same, with the exit code of the text; wide says no less than the text."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/shop")
    text, wide, as_json, as_yaml = [
        seeded.run_command(*line.split(), *how) for how in ((), ("-o", "wide"), ("-o", "json"), ("--output=yaml",))
    ]
    assert {answer.code for answer in (text, wide, as_json, as_yaml)} == {text.code}
    found = json.loads(as_json.stdout)
    assert without_times(yaml.safe_load(as_yaml.stdout)) == without_times(found)
    assert not as_yaml.stdout.lstrip().startswith(("{", "[{"))
    assert len(wide.stdout.split()) >= len(text.stdout.split())


def test_who_would_be_asked(seeded: SeededNode) -> None:
    """Where a program reads the answer nobody is asked: it has to say --yes."""
    for line in ("release 10.1.0.2 -o yaml", "gc --all -o yaml", "gc --all -o json"):
        answer = seeded.run_command(*line.split())
        assert (answer.code, answer.stdout) == (64, "")
        assert "needs --yes" in answer.stderr


def test_times(seeded: SeededNode) -> None:
    """Times are ISO 8601 with their zone, for programs and where there is room for them."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/shop")
    assert ISO.fullmatch(seeded.run_command("status", "-o", "json").json["networks"][0]["attachments"][0]["since"])
    assert ISO.search(seeded.run_command("status", "-o", "wide").stdout)
    assert ISO.search(seeded.run_command("status", "10.1.0.2").stdout)
