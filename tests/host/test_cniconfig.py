# SPDX-License-Identifier: Apache-2.0
"""The runtime's network configurations, read as the runtime reads them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from containerd import containerd
from patience import eventually
from wanting import want

from kubenode.host import cniconfig
from kubenode.inspection import cri

if TYPE_CHECKING:
    from pathlib import Path

TYPES = {"kube-node": 1, "host-local": 2}
IPAM = {"type": "kube-node"}
PLUGIN = {"type": "bridge", "ipam": IPAM}
LIST = {"name": "n", "cniVersion": "1.0.0", "plugins": [PLUGIN]}
SINGLE = {"name": "n", "cniVersion": "1.0.0", **PLUGIN}


class Form(NamedTuple):
    """A file, and what libcni 1.3.0 made of it when it was asked: the version that plugins get, or None where it refused it."""

    file: str
    content: Any
    version: str | None
    others: dict[str, Any] | None = None  # files beside it


FORMS = {
    "a list": Form("a.conflist", LIST, "1.0.0"),
    "a single plugin": Form("a.conf", SINGLE, "1.0.0"),
    "a single plugin in .json": Form("a.json", SINGLE, "1.0.0"),
    "a list in .conf": Form("a.conf", LIST, None),
    "a list in .json": Form("a.json", LIST, None),
    "a single plugin in .conflist": Form("a.conflist", SINGLE, None),
    "a list with a type in .conf": Form("a.conf", {**LIST, **SINGLE}, "1.0.0"),
    "a list without name": Form("a.conflist", {"plugins": [PLUGIN]}, None),
    "a list whose name is a number": Form("a.conflist", {**LIST, "name": 5}, None),
    "a list whose name is spelt Name": Form("a.conflist", {"Name": "n", "plugins": [PLUGIN]}, None),
    "a plugin whose keys are in capitals": Form("a.conf", {"NAME": "n", "CNIVersion": "0.4.0", "Type": "bridge", "IPAM": IPAM}, "0.4.0"),
    "a plugin without type": Form("a.conf", {"name": "n", "ipam": IPAM}, None),
    "a list with a plugin without type": Form("a.conflist", {"name": "n", "plugins": [PLUGIN, {"ipam": IPAM}]}, None),
    "a list with null": Form("a.conflist", {"name": "n", "plugins": [PLUGIN, None]}, None),
    "a list with a text": Form("a.conflist", {"name": "n", "plugins": ["bridge"]}, None),
    "plugins is an object": Form("a.conflist", {"name": "n", "plugins": {}}, None),
    "plugins is null": Form("a.conflist", {"name": "n", "plugins": None}, None),
    "plugins is empty": Form("a.conflist", {"name": "n", "plugins": []}, None),
    "no version": Form("a.conflist", {"name": "n", "plugins": [{**PLUGIN, "cniVersion": "0.4.0"}]}, ""),
    "version is null": Form("a.conflist", {**LIST, "cniVersion": None}, None),
    "several versions": Form("a.conflist", {**LIST, "cniVersions": ["0.4.0", "1.1.0", "1.2.0"]}, "1.1.0"),
    "several versions and a higher one": Form("a.conflist", {**LIST, "cniVersions": ["0.3.1"]}, "1.0.0"),
    "only versions that are unknown": Form("a.conflist", {"name": "n", "cniVersions": ["9.9"], "plugins": [PLUGIN]}, ""),
    "versions that are none": Form("a.conflist", {**LIST, "cniVersions": ["new"]}, None),
    "ipam is a list": Form("a.conflist", {"name": "n", "plugins": [{"type": "bridge", "ipam": []}]}, None),
    "the type of ipam is a list": Form("a.conflist", {"name": "n", "plugins": [{"type": "bridge", "ipam": {"type": ["kube-node"]}}]}, None),
    "a capability is a number": Form("a.conf", {**SINGLE, "capabilities": {"ips": 1}}, None),
    "dns is a text": Form("a.conf", {**SINGLE, "dns": "1.1.1.1"}, None),
    "a flag in a text": Form("a.conflist", {**LIST, "disableCheck": "TRUE"}, "1.0.0"),
    "a flag that is none": Form("a.conflist", {**LIST, "disableCheck": 1}, None),
    "an array": Form("a.conflist", [LIST], None),
    "null": Form("a.conf", None, None),
    "plugins in files of their own": Form("a.conflist", {"name": "n", "cniVersion": "1.0.0"}, "1.0.0", {"n/b.conf": PLUGIN}),
    "plugins in files and in the list": Form("a.conflist", LIST, "1.0.0", {"n/b.conf": {"type": "tuning"}}),
    "no plugin but in a .conflist of its own": Form("a.conflist", {"name": "n"}, None, {"n/b.conflist": PLUGIN}),
    "a plugin's file without type": Form("a.conflist", LIST, None, {"n/b.conf": {}}),
    "a plugin's file is not looked at": Form("a.conflist", {**LIST, "loadOnlyInlinedPlugins": True}, "1.0.0", {"n/b.conf": {}}),
    "only plugins within, and none is": Form(
        "a.conflist", {"name": "n", "loadOnlyInlinedPlugins": True}, None, {"n/b.conf": PLUGIN}
    ),
    "plugins' files beside a single plugin": Form("a.conf", SINGLE, "1.0.0", {"n/b.conf": {}}),
}  # fmt: skip
SINCE_1_3 = {  # what an older libcni does not look at
    "plugins in files of their own", "a plugin's file without type", "versions that are none", "only plugins within, and none is",
    "a flag in a text",
}  # fmt: skip
# What the runtime takes, and no ADD: this is refused here.
NO_POD = [{"type": "bridge"}, {"name": "", "type": "bridge"}, {"name": "a/b", "type": "bridge"}]


def write(directory: Path, form: Form) -> None:
    for name, content in {form.file: form.content, **(form.others or {})}.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content))
        new.rename(path)


def read(directory: Path) -> list[dict[str, Any]]:
    return list(cniconfig.netconfs(str(directory), TYPES))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_form(tmp_path: Path, form: Form) -> None:
    """A file is taken or refused as libcni does it, and our plugin gets the list's name and the version that libcni chooses."""
    write(tmp_path, form)
    (file,) = cniconfig.read(str(tmp_path))
    if form.version is None:
        assert (file.networks, read(tmp_path)) == ((), [])
        assert file.refused
        assert file.refused.advice
    else:
        assert [{**found, "plugins": None} for found in read(tmp_path)] == [
            {**PLUGIN, "name": "n", "cniVersion": form.version, "plugins": None}
        ]


@pytest.mark.parametrize("content", NO_POD)
def test_a_network_that_no_pod_gets(tmp_path: Path, content: dict[str, Any]) -> None:
    """Without a name, or with one that is none, the runtime reads the file, and then refuses each pod."""
    write(tmp_path, Form("a.conf", content, None))
    assert [file.networks for file in cniconfig.read(str(tmp_path))] == [()]


@pytest.mark.slow
def test_the_runtime_itself(tmp_path: Path) -> None:
    """containerd becomes ready with what we take, and is not ready with what we refuse, whatever good file comes after it."""
    want("containerd")
    with containerd(tmp_path / "c/containerd.sock", serves_cri=True) as socket:
        net_d = socket.parent / "net.d"
        plugin = socket.parent / "bin/bridge"
        plugin.parent.mkdir(exist_ok=True)
        plugin.write_text("#!/bin/sh\n")  # well, as containerd 2 asks by STATUS where the version is 1.1.0
        plugin.chmod(0o755)

        def ready() -> bool:
            return b"NetworkPluginNotReady" not in cri._call(str(socket), "/runtime.v1.RuntimeService/Status")[1]

        net_d.mkdir(exist_ok=True)
        for name, form in FORMS.items():
            if name in SINCE_1_3:
                continue
            if form.version is None:
                write(net_d, Form("z.conflist", LIST, "1.0.0"))
                eventually(ready, "containerd does not take a plain list")
            write(net_d, form)
            eventually(lambda form=form: ready() is (form.version is not None), f"{name}: containerd sees it otherwise")  # type: ignore[misc]
            for path in net_d.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            eventually(lambda: not ready(), "containerd keeps what is gone")


def test_the_order(tmp_path: Path) -> None:
    """Files come in the order of their names' bytes; what is refused, no file of its suffixes or a directory hides none of the others."""
    for name in ("b.conf", "B.conflist", "a.conflist", "a.conf", "\u00e9.conf", "note.txt"):
        (tmp_path / name).write_text(json.dumps(LIST if name.endswith("list") else SINGLE))
    (tmp_path / "0.conf").mkdir()
    (tmp_path / "1.conf").symlink_to("none")
    (tmp_path / "2.conf").write_text("{")
    found = [(file.path.rpartition("/")[2], bool(file.networks)) for file in cniconfig.read(str(tmp_path))]
    assert found[:2] == [("1.conf", False), ("2.conf", False)]
    assert found[2:] == [(name, True) for name in ("B.conflist", "a.conf", "a.conflist", "b.conf", "\u00e9.conf")]
    assert len(read(tmp_path)) == 5
    assert cniconfig.read(str(tmp_path / "none")) == []


MULTUS = {"name": "multus-cni-network", "cniVersion": "1.0.0", "type": "multus"}


@pytest.mark.parametrize(
    ("multus", "name"),
    [
        ({"delegates": [LIST, {**SINGLE, "name": "second"}]}, "n"),
        ({"delegates": [SINGLE]}, "n"),
        ({"clusterNetwork": "/host/etc/cni/net.d/20-ours.conflist"}, "ours"),
        ({"clusterNetwork": "ours", "type": "multus-shim"}, "ours"),
        ({"clusterNetwork": "nowhere"}, "multus-cni-network"),
        ({}, "multus-cni-network"),
    ],
)
@pytest.mark.parametrize("file", ["00-multus.conf", "00-multus.conflist"])
def test_multus(tmp_path: Path, multus: dict[str, Any], name: str, file: str) -> None:
    """Behind Multus the pods' network is its first delegate, or its clusterNetwork; each delegate is a network."""
    conf = {**MULTUS, **multus}
    write(tmp_path, Form(file, {"name": "m", "plugins": [conf]} if file.endswith("list") else conf, None))
    write(tmp_path, Form("20-ours.conflist", {**LIST, "name": "ours"}, None))
    found = cniconfig.of_pods(cniconfig.read(str(tmp_path)))
    assert found
    assert found[1].name == ("m" if name == MULTUS["name"] and file.endswith("list") else name)
    names = {str(one["name"]) for one in read(tmp_path)}
    assert names == {"ours", *(str(one["name"]) for one in multus.get("delegates", []))}


@pytest.mark.parametrize("delegates", [5, [5], [{"name": "n"}], [{"name": "n", "plugins": []}], [PLUGIN]])
def test_multus_with_delegates_that_are_none(tmp_path: Path, delegates: Any) -> None:
    """Multus refuses each pod then."""
    write(tmp_path, Form("00-multus.conf", {**MULTUS, "delegates": delegates}, None))
    (file,) = cniconfig.read(str(tmp_path))
    assert "delegates" in str(file.refused)
