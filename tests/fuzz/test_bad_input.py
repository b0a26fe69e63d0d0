# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in: one result or one error object comes out, and a failed call changes nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment, execute
from effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubenode.base.log import Log
from kubenode.host import datadir
from kubenode.plugins import host_local, kube_node, node_annotation, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: dict[str, Mapping[str, skel.Command]] = {
    "kube-node": kube_node.COMMANDS,
    "node-annotation": node_annotation.COMMANDS,
    "host-local": host_local.COMMANDS,
}
KNOWN = {*range(1, 8), 11, 50, *range(101, 118), 999}  # without 100: a fault of ours
CASES = settings(max_examples=examples(400), deadline=None, suppress_health_check=list(HealthCheck))
SMALL = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ODD = SMALL | st.lists(SMALL, max_size=3) | st.dictionaries(st.text(max_size=8), SMALL, max_size=3)
TEXTS = st.sampled_from(
    [
        "",
        ".",
        "..",
        "/",
        "../x",
        "\0",
        "a\0b",
        "a/b",
        "x" * 300,
        "ä",
        "\ud800",
        "/\ud800",
        "$(id)",
        "10.0.0.0/24",
        "10.0.0.0/99",
        "::ffff:10.0.0.4",
        "::ffff:10.0.0.0/120",
        "fd00::/64",
        "10.0.0.2",
    ]
)
ANYTHING = ODD | TEXTS | st.lists(TEXTS, max_size=2) | st.lists(st.lists(st.fixed_dictionaries({"subnet": TEXTS}), max_size=2), max_size=2)

NODE: dict[str, Any] = {
    "kind": "Node",
    "metadata": {"name": "n", "uid": "u", "annotations": {"a": "10.1.0.0/24, fd01::/64", "b": 'ranges: [[{"subnet": "10.2.0.0/24"}]]'}},
    "spec": {"podCIDRs": ["10.0.0.0/24", "fd00::/64"]},
    "status": {"nodeInfo": {"machineID": "m"}},
}
NETCONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge",
    "runtimeConfig": {"ips": [], "mac": "x"},
    "args": {"cni": {"ips": []}},
    "prevResult": {"ips": [{"address": "10.0.0.2/24"}]},
    "cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}],
}
IPAM: dict[str, Any] = {
    "annotation": "a",
    "ipv4-namespaces": ["ns"],
    "ipv6-namespaces": ["*"],
    "delegate": "embedded",
    "refreshAfter": 5,
    "exclude": ["10.0.0.3"],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1400}],
    "resolvConf": "/etc/hostname",
    "loglevel": "info",
}


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a copy with one to three values, at any depth, replaced by something odd, or removed."""
    copy = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = copy
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            if draw(st.integers(0, 4)) == 0:
                del place[key]
            else:
                place[key] = draw(ANYTHING)
            break
    return copy


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def tree(directory: Path) -> dict[str, bytes | None]:
    """Return all files below a directory but locks and notes of the boot, which say nothing of anybody's address."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "lock" and not path.name.endswith(".note")
    }


class Host:
    """A directory for all that a call may touch."""

    def __init__(self, directory: str) -> None:
        self.base = Path(directory)
        self.run_dir, self.data_dir = self.base / "run", self.base / "networks"
        self.run_dir.mkdir()
        self.data_dir.mkdir()
        (self.run_dir / "node.json").write_bytes(encoded(NODE))
        self.environ = {"KUBE_NODE_RUN_DIR": str(self.run_dir), "HOME": directory, "NODE_NAME": "n"}

    def netconf(self, **ipam: Any) -> dict[str, Any]:
        return {**NETCONF, "ipam": {**IPAM, **ipam, "dataDir": str(self.data_dir)}}


def ask(plugin: str, environ: dict[str, str], stdin: bytes) -> tuple[int, bytes]:
    return skel.run(COMMANDS[plugin], environ, stdin, Log(plugin), Standalone(environ))


def judge(exit_code: int, stdout: bytes) -> None:
    """Assert that it is a success, or one error object with a code that is documented."""
    if exit_code == 0:
        assert not stdout or isinstance(json.loads(stdout), dict)
        return
    error = json.loads(stdout)
    assert exit_code == 1
    assert set(error) <= {"cniVersion", "code", "msg", "details"}
    assert isinstance(error["cniVersion"], str)
    assert error["code"] in KNOWN, error
    assert isinstance(error["msg"], str)
    assert error["msg"]
    assert b"Traceback" not in stdout


def check(plugin: str, host: Host, environ: dict[str, str], stdin: bytes) -> None:
    """Call it; a failure must leave the reservations as they were, and a DEL afterwards everything free."""
    before = tree(host.data_dir)
    exit_code, stdout = ask(plugin, environ, stdin)
    judge(exit_code, stdout)
    if exit_code:
        assert tree(host.data_dir) == before


@pytest.fixture
def capture(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the log out of the way, and the machine's own reservations: a dataDir that is no path is the default one for a DEL."""
    del capfd
    monkeypatch.setattr(datadir, "DEFAULT_DATA_DIR", str(tmp_path / "default"))


PLUGINS = st.sampled_from(["kube-node", "node-annotation"])
VERBS = st.sampled_from(["ADD", "ADD", "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])


@pytest.mark.usefixtures("capture")
@given(plugin=st.sampled_from(sorted(COMMANDS)), verb=VERBS, data=st.data())
@CASES
def test_configurations(plugin: str, verb: str, data: st.DataObject) -> None:
    """A configuration with anything anywhere."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(directory)
        complete = host.netconf(**({"annotation": "b"} if plugin == "node-annotation" else {}))
        if plugin == "host-local":
            complete["ipam"]["ranges"] = [
                [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.9"}],
                [{"subnet": "fd00::/64", "rangeStart": "fd00::9"}],
            ]
        netconf = data.draw(changed(complete))
        ipam = netconf.get("ipam")
        if isinstance(ipam, dict) and ipam.get("dataDir") != str(host.data_dir):
            ipam["dataDir"] = data.draw(st.sampled_from([5, [], "\0", "/\ud800", str(host.data_dir / "x/../y")]))
        if isinstance(ipam, dict):
            ipam.pop("logfile", None)
            if data.draw(st.integers(0, 9)) == 0:
                ipam["logfile"] = "/\ud800"
        check(plugin, host, {**host.environ, **environment(verb, args="K8S_POD_NAMESPACE=ns"), **host.environ}, encoded(netconf))


@pytest.mark.usefixtures("capture")
@given(
    plugin=PLUGINS, stdin=st.binary(max_size=60) | ODD.map(encoded) | st.text(max_size=40).map(lambda text: text.encode(errors="replace"))
)
@CASES
def test_standard_input(plugin: str, stdin: bytes) -> None:
    """Anything on standard input."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(directory)
        check(plugin, host, {**environment("ADD"), **host.environ}, stdin)


NAMES = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
    "NODE_NAME",
    "NODE_ANNOTATION_CFG",
    "KUBECONFIG",
]
VALUES = st.text(max_size=20).filter(lambda text: "\0" not in text) | st.sampled_from(
    ["ADD", "DEL", "IP=10.0.0.7", "IP=x", "IP=", "a=b;", ";;", "=", "."]
)


@pytest.mark.usefixtures("capture")
@given(plugin=PLUGINS, changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
@CASES
def test_environments(plugin: str, changes: dict[str, str]) -> None:
    """Anything in the environment; then a DEL releases what there is."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(directory)
        good = {**environment("ADD", args="K8S_POD_NAMESPACE=ns"), **host.environ}
        stdin = encoded(host.netconf(annotation="b" if plugin == "node-annotation" else "a"))
        check(plugin, host, {**good, **changes}, stdin)
        judge(*ask(plugin, {**good, **changes, "CNI_COMMAND": "DEL"}, stdin))
        assert ask(plugin, {**good, "CNI_COMMAND": "GC"}, stdin) == (0, b"")
        assert not [name for name in tree(host.data_dir) if not name.rpartition("/")[2].startswith("last_reserved")]


@pytest.mark.usefixtures("capture")
@given(plugin=PLUGINS, manifest=changed(NODE), verb=VERBS, as_view=st.booleans())
@CASES
def test_nodes(plugin: str, manifest: Any, verb: str, *, as_view: bool) -> None:
    """A Node with anything in it, as view or as nodeFile."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(directory)
        path = host.run_dir / "node.json" if as_view else host.base / "node.yaml"
        path.write_bytes(encoded(manifest))
        ipam = {"annotation": "b" if plugin == "node-annotation" else "a", **({} if as_view else {"nodeFile": str(path)})}
        environ = {**environment(verb, args="K8S_POD_NAMESPACE=ns"), **host.environ}
        check(plugin, host, environ, encoded(host.netconf(**ipam)))
        assert ask(plugin, {**environ, "CNI_COMMAND": "DEL"}, encoded(host.netconf(**ipam))) == (0, b"")


@pytest.mark.usefixtures("capture")
@given(
    plugin=PLUGINS,
    text=st.text(max_size=60)
    | st.sampled_from(["10.0.0.0/24", "ranges: []", "subnet: 5"]).flatmap(lambda t: st.text(max_size=5).map(t.__add__)),
)
@CASES
def test_annotations(plugin: str, text: str) -> None:
    """Anything in an annotation; the pod's DEL works."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(directory)
        (host.run_dir / "node.json").write_bytes(encoded({**NODE, "metadata": {"name": "n", "annotations": {"a": text}}}))
        environ = {**environment("ADD", args="K8S_POD_NAMESPACE=ns"), **host.environ}
        stdin = encoded(host.netconf())
        check(plugin, host, environ, stdin)
        assert ask(plugin, {**environ, "CNI_COMMAND": "DEL"}, stdin) == (0, b"")


KUBECONFIG: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", "tls-server-name": "x"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
}


@pytest.mark.usefixtures("capture")
@given(plugin=PLUGINS, content=changed(KUBECONFIG).map(encoded) | st.binary(max_size=60))
@settings(CASES, max_examples=examples(150))
def test_kubeconfigs(plugin: str, content: bytes) -> None:
    """A kubeconfig with anything in it, where there is no view; nobody listens at the address that a good one has."""
    with tempfile.TemporaryDirectory() as directory:
        host = Host(directory)
        (host.run_dir / "node.json").unlink()
        (host.base / "kubeconfig").write_bytes(content)
        environ = {**environment("ADD", args="K8S_POD_NAMESPACE=ns"), **host.environ}
        stdin = encoded(host.netconf(kubeconfig=str(host.base / "kubeconfig")))
        check(plugin, host, environ, stdin)
        assert ask(plugin, {**environ, "CNI_COMMAND": "DEL"}, stdin) == (0, b"")


@given(data=st.data())
@settings(CASES, max_examples=examples(60))
def test_executables(binaries: Path, data: st.DataObject) -> None:
    """The same through the executables: nothing but the answer on standard output, no traceback anywhere."""
    directory = Path(tempfile.mkdtemp())
    try:
        host = Host(str(directory))
        plugin = data.draw(PLUGINS)
        environ = {
            **environment(data.draw(VERBS)),
            **host.environ,
            **data.draw(st.dictionaries(st.sampled_from(NAMES[:6]), VALUES, max_size=2)),
        }
        environ = {name: value.encode(errors="replace").decode() for name, value in environ.items()}
        netconf = data.draw(changed(host.netconf(annotation=data.draw(st.sampled_from(["a", "b"])))))
        if isinstance(netconf.get("ipam"), dict):
            netconf["ipam"].update({"dataDir": str(host.data_dir), "logfile": ""})
        stdin = data.draw(st.just(encoded(netconf)) | st.binary(max_size=30))
        if not environ["CNI_COMMAND"]:
            return  # that is the command line
        answer = execute(binaries / plugin, stdin, environ)
        judge(answer.code, answer.stdout.encode())
        assert "Traceback" not in answer.stderr
    finally:
        shutil.rmtree(directory)
