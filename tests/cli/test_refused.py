# SPDX-License-Identifier: Apache-2.0
"""A network configuration that cannot be read is named by each command that looks at networks; the others are shown."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING

import pytest
from ourprocess import KUBE_NODE
from rich.console import Console
from wanting import want

from kubenode.cli import statusview
from kubenode.cli.entry import FAILED
from kubenode.host.root import HostRoot
from kubenode.inspection import named
from kubenode.inspection.holders import HolderFilter
from kubenode.inspection.locations import Locations
from kubenode.inspection.report import look

if TYPE_CHECKING:
    from node import SeededNode
    from podnet import Answer

BROKEN = '{"cniVersion": "1.1.0", "name": "net1", "plugins": [{"type": "bridge", "ipam": {"type": "kube-node"}},]}'
USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
ALL_IS_WELL = ("does not use", "Nothing is stale, by", "No subnets are known")
LOOKING = ["status", "status 10.1.0.99", "status 10.1.0.2", "map", "gc --dry-run --from=netns", "release 10.1.0.99 --yes", "try-add net1"]


def names(answer: Answer, path: object) -> None:
    """Require that an answer names what cannot be read, and does not say that all is well."""
    assert str(path) in answer.stderr
    assert answer.code == FAILED
    assert not [text for text in ALL_IS_WELL if text in answer.stdout]


@pytest.mark.parametrize("line", LOOKING)
def test_alone(seeded: SeededNode, line: str) -> None:
    """A comma too many in the only configuration: the file, the reason, and an exit code of its own."""
    path = seeded.net / "10-net1.conflist"
    path.write_text(BROKEN)
    answer = seeded.run_command(*line.split())
    names(answer, path)
    assert "it is not JSON" in answer.stderr
    assert answer.stderr.count(str(path)) == 1


@pytest.mark.parametrize("line", LOOKING)
def test_directory(seeded: SeededNode, tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    """The directory that an ordinary user may not read is named, also with what to do."""
    want("root", "setpriv")
    seeded.configure(seeded.conf())
    for one in (seeded.directory, *seeded.directory.parents):
        if str(one).startswith(str(tmp_path_factory.getbasetemp())):
            one.chmod(0o755)
    seeded.net.chmod(0o700)
    answer = seeded.run_command(*line.split(), wrap=USER)
    names(answer, seeded.net)
    assert "Permission denied" in answer.stderr
    assert "run it as root" in answer.stderr


@pytest.mark.parametrize("line", ["status", "status 10.1.0.2", "map", "gc --dry-run --from=netns", "release 10.1.0.99 --yes"])
def test_beside_others(seeded: SeededNode, line: str) -> None:
    """What works for readable files goes on; an object has the others in a field."""
    conf = seeded.conf()
    seeded.configure(conf)
    seeded.add(conf, "c1", "web/shop")
    (seeded.netns / "c1").unlink()
    whole = seeded.run_command(*line.split())
    whole_object = seeded.run_command(*line.split(), "-o", "json").json
    path = seeded.net / "20-net1.conflist"
    path.write_text(BROKEN)
    answer = seeded.run_command(*line.split())
    names(answer, path)
    assert answer.stdout.splitlines()[2:] == whole.stdout.splitlines()[2:]
    as_object = seeded.run_command(*line.split(), "-o", "json")
    names(as_object, path)
    ((told),) = as_object.json.pop("unread")
    assert told["what"].startswith(f"{path}: it is not JSON")
    assert told["advice"] == "correct it, or remove it"
    assert whole_object.pop("unread") == []
    assert as_object.json.keys() | {"unread"} == whole_object.keys() | {"unread"}


def test_another_network(seeded: SeededNode) -> None:
    """try-add of a network that can be read tries it, and names the others."""
    conf = seeded.conf()
    seeded.configure(conf)
    path = seeded.net / "20-net1.conflist"
    path.write_text(BROKEN)
    (seeded.bin / "kube-node").symlink_to(KUBE_NODE)
    answer = seeded.run_command("try-add", "k8snet", "-o", "json", f"--bin-dir={seeded.bin}")
    names(answer, path)
    assert answer.json["failed"] is False
    assert [step["told"] for step in answer.json["steps"]][-2:] == ["ok", "no reservation"]


def test_what_gc_releases(seeded: SeededNode) -> None:
    """With a broken file gc releases what records show to be stale, in both networks, and nothing that has its network namespace."""
    first, second = seeded.conf(), seeded.conf("net1", annotation="example.com/net1")
    seeded.view(["10.1.0.0/24"], {"example.com/net1": "172.20.1.0/24"})
    seeded.configure(first)
    path = seeded.configure(second, "20-net1.conflist")
    for number, conf in enumerate((first, first, second, second)):
        seeded.add(conf, f"c{number}", f"web/shop-{number}")
    for gone in ("c1", "c3"):
        (seeded.netns / gone).unlink()
    whole = seeded.run_command("gc", "--dry-run", "--from=netns", "-o", "json").json["released"]
    path.write_text(BROKEN)
    answer = seeded.run_command("gc", "--from=netns", "-o", "json")
    assert answer.json["released"] == whole
    assert {one["pod"] for one in whole} == {"web/shop-1", "web/shop-3"}
    names(answer, path)


def test_a_part_of_a_named_file(seeded: SeededNode) -> None:
    """A broken part of a file after --config is in the same field."""
    seeded.configure(seeded.conf())
    path = seeded.directory / "net1.yaml"
    path.write_text(json.dumps(seeded.conf("net1")) + "\n---\na: [")
    answer = seeded.run_command("status", f"--config={path}", "-o", "json")
    assert [str(path) in one["what"] for one in answer.json["unread"]] == [True]
    assert answer.stderr.count("is neither JSON nor YAML") == 1
    assert answer.code == FAILED


def test_watch(seeded: SeededNode) -> None:
    """status --watch shows it on each page: a screen hides what came before."""
    path = seeded.net / "10-net1.conflist"
    path.write_text(BROKEN)
    out = Console(file=io.StringIO(), width=200, height=24, force_terminal=True, color_system=None)
    place = Locations(HostRoot(""), str(seeded.run), str(seeded.net), f"{seeded.run}/agent.sock", (), (), "", os.environ, named.read(()))
    out.print(statusview.fitting(look(place, (), HolderFilter()), out, wide=False))
    assert isinstance(out.file, io.StringIO)
    assert f"✗ {path}: it is not JSON" in out.file.getvalue()
    assert "does not use" not in out.file.getvalue()
