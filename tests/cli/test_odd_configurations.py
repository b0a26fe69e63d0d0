# SPDX-License-Identifier: Apache-2.0
"""Whatever a configuration holds, each command ends with an answer or an error that says what to do: none with a traceback."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner
from healthy import SCRIPTS

from kubenode.base.problem import Problem
from kubenode.cli.main import kube_node

if TYPE_CHECKING:
    from node import SeededNode

pytestmark = pytest.mark.slow

VALUES: list[Any] = [
    None, True, 5, 1.5, -1, 2**70, "", " ", "a\0b", "\ud800", "../../x", "/", "ä", "x" * 5000, [], {}, ["x"], [None], {"a": 1}, [[[]]],
    [[{"subnet": "10.0.0.0/33"}]], {"type": []}, "\x1b[31m", "[bold]", ["\ud800"], [{"dst": 5}], "10.1.0.0/24", {"": ""},
]  # fmt: skip
TOP = (
    "name",
    "cniVersion",
    "cniVersions",
    "type",
    "ipam",
    "plugins",
    "dns",
    "capabilities",
    "runtimeConfig",
    "args",
    "bridge",
    "delegates",
)
IPAM = (
    "type", "dataDir", "annotation", "kubeconfig", "nodeFile", "ipv4-namespaces", "ipv6-namespaces", "delegate", "exclude", "routes",
    "ranges", "subnet", "resolvConf", "logfile", "loglevel", "refreshAfter", "statusWhenFull", "stickyFor", "unknown", "annotation",
)  # fmt: skip
BOMB = b"a0: &a0 [1]\n" + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12))  # 9**11 values
TEXTS = [
    b"", b"\0", b"\xff\xfe{", b"{", b"[]", b"null", b"5", b'"x"', b"[" * 5000, b'{"a":' * 5000, b"---\n---\n", b"a: [", b"a: &a [*a]\n",
    b"? 1\n: 2\n", b"kind: 2024-01-01\nname: 2024-01-01\n", b"a: !!python/object:os.system x\n", b"a: 2024-99-99\n", b"1: 2\n", b"{1: 2}\n",
    BOMB,
    b"kind: List\nitems: {}\n", b"items: [5, null, {}]\n", b"kind: NetworkAttachmentDefinition\n",
    b"kind: NetworkAttachmentDefinition\nmetadata: []\nspec: x\n", b"kind: NetworkAttachmentDefinition\nspec: {config: [1]}\n",
    b'kind: NetworkAttachmentDefinition\nmetadata: {name: [1]}\nspec: {config: "{}"}\n',
    b"kind: NetworkAttachmentDefinition\nmetadata: {name: n}\nspec: {config: '" + b"[" * 5000 + b"'}\n",
    b'kind: NetworkAttachmentDefinition\nmetadata: {name: "\\uD800"}\nspec: {config: "{\\"type\\": \\"x\\"}"}\n',
]  # fmt: skip


def configurations(node: SeededNode) -> list[bytes]:
    """Return each key with some values, three at a time in turn, and texts that are no configuration."""
    values = cycle(VALUES)
    found = list(TEXTS)
    for where, key in [*(("top", key) for key in TOP), *(("ipam", key) for key in IPAM)]:
        for value in islice(values, 3):
            conf = node.conf("odd")
            (conf if where == "top" else conf["ipam"])[key] = value
            found.append(json.dumps(conf).encode())
    return found


COMMANDS = {
    "status": ["status"], "status wide": ["status", "-o", "wide", "--all"], "status json": ["status", "-o", "json"],
    "status address": ["status", "10.1.0.2"], "doctor": ["doctor"], "doctor json": ["doctor", "-o", "json"], "map": ["map"],
    "map json": ["map", "-o", "json"], "map svg": ["map", "--svg=-"], "map html": ["map", "--html=-"], "try-add": ["try-add", "odd"],
    "gc": ["gc", "--dry-run", "--from=netns"], "release": ["release", "10.1.0.250", "--yes"], "version": ["version"],
}  # fmt: skip


@pytest.fixture
def runner(seeded: SeededNode, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    seeded.add(seeded.conf(), "c1", "web/shop")
    monkeypatch.setenv("KUBE_NODE_RUN_DIR", str(seeded.run))
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG", "NODE_NAME"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


def answers(runner: CliRunner, arguments: list[str], content: bytes) -> None:
    """Run a command, which must end with an exit code or an error that is told."""
    result = runner.invoke(kube_node, arguments, standalone_mode=False)
    failure = result.exception
    told = failure is None or isinstance(failure, (Problem, click.ClickException, SystemExit))
    assert told, f"{arguments} with {content[:300]!r}: {failure!r}"
    if isinstance(failure, Problem):
        assert failure.msg
        assert failure.details


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_no_traceback(seeded: SeededNode, runner: CliRunner, command: list[str]) -> None:
    """Over ninety odd configurations, in the runtime's directory by each suffix and by --config: each command answers."""
    empty = seeded.directory / "no-plugins"
    empty.mkdir()
    where = [f"--cni-config={seeded.net}"]
    if command[0] in {"doctor", "try-add", "version"}:
        where.append(f"--bin-dir={empty}")
    seeded.configure(seeded.conf())
    named = seeded.directory / "odd.yaml"
    contents = configurations(seeded)
    assert len(contents) > 90
    for number, content in enumerate(contents):
        named.write_bytes(content)
        answers(runner, [command[0], f"--config={named}", *where, *command[1:]], content)
        path = seeded.net / f"05-odd{('.conf', '.conflist')[number % 2]}"
        path.write_bytes(content)
        answers(runner, [command[0], *where, *command[1:]], content)
        path.unlink()


def test_install(seeded: SeededNode, runner: CliRunner) -> None:
    """The same of install, which refuses what the runtime would, and of uninstall."""
    for content in configurations(seeded):
        path = seeded.net / "05-odd.conf"
        path.write_bytes(content)
        answers(runner, ["install", "--dry-run", f"--from={seeded.bin}", "--credentials=none", f"--conflist={path}"], content)
        answers(runner, ["uninstall", "--dry-run", f"--host-root={seeded.directory}"], content)


def test_one_broken_definition(seeded: SeededNode) -> None:
    """One of three definitions, and one file of two: the others are served, the broken one is named with what to do, once."""
    seeded.configure(seeded.conf())
    seeded.view(["10.1.0.0/24"], {"example.com/a": "172.20.1.0/24", "example.com/b": "172.20.2.0/24"})

    def definition(name: str, config: str) -> str:
        return json.dumps({"kind": "NetworkAttachmentDefinition", "metadata": {"name": name}, "spec": {"config": config}})

    good = {name: json.dumps(seeded.conf(name, annotation=f"example.com/{name}")) for name in ("a", "b")}
    nads, text = seeded.directory / "nads.yaml", seeded.directory / "text.yaml"
    nads.write_text("\n---\n".join([definition("a", good["a"]), definition("broken", "{"), definition("b", good["b"])]))
    text.write_text("a: [")
    named = (f"--config={nads}", f"--config={text}")
    answer = seeded.run_command("status", *named, "-o", "json")
    assert {one["name"] for one in answer.json["networks"]} == {"k8snet", "a", "b"}
    assert answer.code == 69
    assert answer.stderr.count("NetworkAttachmentDefinition broken: spec.config is not JSON") == 1
    assert answer.stderr.count("text.yaml is neither JSON nor YAML") == 1
    checks = [one for one in seeded.run_command("doctor", *named, "-o", "json").json["checks"] if one["check"] == "networks"]
    assert sorted(one["state"] for one in checks) == ["failure", "failure"]
    assert any("NetworkAttachmentDefinition broken" in one["what"] for one in checks)


@pytest.mark.parametrize("command", ["doctor", "status"])
def test_the_place_of_a_fault(seeded: SeededNode, command: str) -> None:
    """A file that is no YAML is named with line and column, as a Node manifest is, and without the words of a library."""
    seeded.configure(seeded.conf())
    path = seeded.directory / "text.yaml"
    path.write_text("a: 1\nb: c: 2\n")
    answer = seeded.run_command(command, f"--config={path}")
    assert f"{path} is neither JSON nor YAML (line 2, column 5)" in (answer.stdout + answer.stderr).replace("\n                    ", " ")
    assert "byte string" not in answer.stdout + answer.stderr


@pytest.mark.parametrize("text", ["", "{}", "null", "[]", "kind: List\nitems: []\n", '{"kind": "Pod"}', '{"name": "x", "type": "bridge"}'])
def test_a_config_without_network(seeded: SeededNode, text: str) -> None:
    """A file that somebody names and that has no network of ours is an error, and not an answer about other networks."""
    path = seeded.directory / "empty.yaml"
    path.write_text(text)
    answer = seeded.run_command("status", f"--config={path}")
    assert answer.code == 69
    assert str(path) in answer.stderr


@pytest.mark.parametrize("option", ["--cni-config", "--run-dir", "--host-root", "--bin-dir"])
def test_a_directory_that_is_not_there(seeded: SeededNode, option: str) -> None:
    """A directory that somebody names has to be there."""
    answer = seeded.run_command("doctor", f"{option}={seeded.directory}/nowhere")
    assert (answer.code, answer.stdout) == (64, "")
    assert f"{option} {seeded.directory}/nowhere: there is no such directory" in answer.stderr


def shell(node: SeededNode, line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", **environ}
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, check=False, cwd=node.directory, errors="replace")
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("command", ["status", "status -o json", "map", "map --svg=-", "version", "doctor", "--help"])
def test_an_output_that_takes_nothing(seeded: SeededNode, command: str) -> None:
    """A full disk behind stdout is an error that is told; a stdout, stderr or stdin that is closed is nothing to stumble over."""
    seeded.configure(seeded.conf())
    full = shell(seeded, f"kube-node {command} >/dev/full")
    assert full.returncode == 69
    assert "standard output: No space left on device" in full.stderr
    open_one = shell(seeded, f"kube-node {command}").returncode
    assert shell(seeded, f"kube-node {command} >&-").returncode == open_one
    assert shell(seeded, f"kube-node {command} 2>&- <&-").returncode == open_one


def test_a_picture_that_cannot_be_written(seeded: SeededNode) -> None:
    """The file is named, and what to do where there is none that can be written."""
    seeded.configure(seeded.conf())
    done = shell(seeded, f"kube-node map --cni-config={seeded.net} --svg=/nowhere/x.svg")
    assert done.returncode == 69
    assert "/nowhere/x.svg: No such file or directory" in done.stderr
    assert "- for standard output" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_another_encoding(seeded: SeededNode, encoding: str) -> None:
    """Partly full blocks, bars and signs are shown by what the encoding has; a name that it lacks is spelt out."""
    seeded.view(["10.1.0.0/16"])
    seeded.configure(seeded.conf())
    seeded.hold("k8snet", 100)
    seeded.hold("k8snet", 40, since=51_200)  # far off, so that a cell is a block
    for command in ("map", "status", "doctor"):
        done = shell(seeded, f"kube-node {command} --cni-config={seeded.net}", PYTHONIOENCODING=encoding)
        assert done.returncode in {0, 1, 2}
        assert "\\u25" not in done.stdout
        assert done.stdout


def test_half_a_character(seeded: SeededNode) -> None:
    """A text that no terminal can show is spelt out."""
    seeded.configure({**seeded.conf(), "ipam": {**seeded.conf()["ipam"], "\ud800": 1}})
    done = shell(seeded, f"kube-node doctor --cni-config={seeded.net}")
    assert "ud800" in done.stdout


@pytest.mark.parametrize("command", [["status"], ["status", "-o", "wide"], ["doctor"]], ids=" ".join)
def test_nothing_steers_the_terminal(seeded: SeededNode, runner: CliRunner, command: list[str]) -> None:
    """A tenant's configuration is shown without its control characters."""
    conf = seeded.conf("odd", annotation="a\x1b[2J\x9b2J", dataDir="/tmp/\x1b[2J")
    (seeded.directory / "odd.yaml").write_text(json.dumps(conf))
    shown = runner.invoke(kube_node, [*command, f"--config={seeded.directory}/odd.yaml", f"--cni-config={seeded.net}"]).output
    assert "odd" in shown
    assert not {"\x1b", "\x9b"} & set(shown)
