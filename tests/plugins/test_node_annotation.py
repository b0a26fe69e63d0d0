# SPDX-License-Identifier: Apache-2.0
"""node-annotation: any host-local configuration from an annotation, and nothing of it is ever evaluated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import Network, environment, execute
from patience import eventually
from podnet import Answer
from ways import DIFFERENT

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer
    from callplugin import NetworkMaker, ViewWriter

KEY = "example.com/ranges"
RANGES = 'ranges: [[{"subnet": "172.16.5.0/24"}]]'


@pytest.fixture
def said(view: ViewWriter) -> Any:
    """Return a function that sets the annotation of our Node."""

    def say(text: str) -> None:
        view(annotations={KEY: text})

    return say


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes the configuration file, and what $NODE_ANNOTATION_CFG names."""

    def write(content: str | dict[str, Any]) -> Path:
        path = tmp_path / "node-annotation.conf"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("NODE_ANNOTATION_CFG", str(path))
        return path

    return write


def test_the_file_of_a_call(binaries: Path, said: Any, config: Any, tmp_path: Path) -> None:
    """$NODE_ANNOTATION_CFG of a call counts, also by an agent that has started without it."""
    said(RANGES)
    net = Network(binaries / "node-annotation", tmp_path / "networks", {"annotation": KEY})
    net.add("c1")
    path = config("{")
    error = net.error("ADD", "c2")
    assert (error["code"], str(path) in error["msg"]) == (115, True)


@DIFFERENT
@pytest.mark.parametrize(
    "text",
    [
        RANGES,
        '"ranges": [[{"subnet": "172.16.5.0/24"}]]',
        'ranges: [[{subnet: "172.16.5.0/24"}]]',
        '\n  "ranges" :\n [ [ { "subnet" : "172.16.5.0/24" } ] ]\n',
        'subnet: "172.16.5.0/24"',
        f'{RANGES}, type: "whereabouts"',
    ],
)
def test_every_spelling(network: NetworkMaker, said: Any, text: str) -> None:
    """Keys with quotes and without, nested too, the old inline range; a `type` in it decides nothing."""
    said(text)
    net = network("node-annotation", annotation=KEY)
    assert net.add() == ["172.16.5.2"]
    net.ok("CHECK")
    net.ok("STATUS")
    net.ok("DEL")
    assert net.reserved() == []


def test_any_host_local_configuration(network: NetworkMaker, said: Any, tmp_path: Path) -> None:
    """Ranges, gateways, routes, resolvConf and keys of the configuration itself: all that host-local knows."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 1.2.3.4\n")
    said(
        'ranges: [[{"subnet": "172.16.5.0/24", "rangeStart": "172.16.5.100", "rangeEnd": "172.16.5.110", "gateway": "172.16.5.254"}],'
        f' [{{"subnet": "fd00:5::/64"}}]], resolvConf: "{resolv_conf}"'
    )
    net = network("node-annotation", annotation=KEY, routes=[{"dst": "0.0.0.0/0"}])
    answer = net.call("ADD")
    assert answer.json == {
        "cniVersion": "1.1.0",
        "ips": [{"address": "172.16.5.100/24", "gateway": "172.16.5.254"}, {"address": "fd00:5::2/64", "gateway": "fd00:5::1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["1.2.3.4"]},
    }


@pytest.mark.parametrize("gone", ["annotation", "node", "changed"])
def test_del_after_a_change(network: NetworkMaker, said: Any, view: ViewWriter, run_dir: Path, tmp_path: Path, gone: str) -> None:
    """DEL releases what ADD gave, in the dataDir that only the annotation named, whatever has become of the annotation."""
    said(f'{RANGES}, dataDir: "{tmp_path}/elsewhere"')
    net = network("node-annotation", annotation=KEY)
    assert net.add() == ["172.16.5.2"]
    assert net.reserved() == []
    reserved = tmp_path / "elsewhere/net/172.16.5.2"
    assert reserved.exists()
    if gone == "annotation":
        view()
    elif gone == "changed":
        said('ranges: [[{"subnet": "10.0.0.0/24"}]]')
    else:
        (run_dir / "node.json").unlink()
    net.ok("CHECK")
    net.gc("c1")
    assert reserved.exists()
    net.ok("DEL")
    assert not reserved.exists()
    assert list((run_dir / "attachments").iterdir()) == []


def test_a_second_add_for_the_same_address(embedded: NetworkMaker, said: Any, tmp_path: Path, run_dir: Path) -> None:
    """A second ADD that asks for what the interface has is refused as one, and the first one's record stays for its DEL."""
    said(f'{RANGES}, dataDir: "{tmp_path}/elsewhere"')
    net = embedded("node-annotation", annotation=KEY)
    more: dict[str, Any] = {"args": {"cni": {"ips": ["172.16.5.9"]}}}
    assert net.add(**more) == ["172.16.5.9"]
    records = list((run_dir / "attachments").iterdir())
    error = net.error("ADD", **more)
    assert (error["code"], "must call DEL before another ADD" in error["details"]) == (111, True)
    assert list((run_dir / "attachments").iterdir()) == records
    net.ok("DEL")
    assert not (tmp_path / "elsewhere/net/172.16.5.9").exists()


def test_gc_reaches_every_data_dir(embedded: NetworkMaker, said: Any, tmp_path: Path, run_dir: Path) -> None:
    """GC releases stale addresses in each dataDir that annotations have named while pods were added."""
    net = embedded("node-annotation", annotation=KEY, ranges=[[{"subnet": "172.16.0.0/24"}]])
    for number in range(2):
        said(f'dataDir: "{tmp_path}/dir{number}"')
        net.add(f"c{number}")
    net.gc()
    assert [path.name for number in range(2) for path in (tmp_path / f"dir{number}/net").glob("172.*")] == []
    assert list((run_dir / "attachments").iterdir()) == []


@DIFFERENT
@pytest.mark.parametrize(
    "text",
    [
        "ranges: $ENV.RANGES",
        "ranges: [[{subnet: env.SUBNET}]]",
        "ranges: [[{subnet: $ENV}]]",
        "ranges: `cat FILE`",
        "ranges: $(touch FILE)",
        "ranges: input",
        "ranges: (1+1)",
        "ranges: [range(3)]",
        "ranges: 1+1",
        'ranges: "a" + "b"',
        'ranges: [] | "touch FILE" | system',
        "} | input_filename, {",
        '"a": 1}, {"b": 2',
        'ranges: "\\(env.HOME)"',
        "@sh",
        ". as $x | $x",
        "__import__('os').system('touch FILE')",
        "ranges",
        "ranges:",
        ",",
        "ranges: [[",
        "ranges: []]",
        "'ranges': []",
        "ranges: NaN",
        "ranges: [], // comment",
    ],
)
def test_what_is_no_data_is_an_error(embedded: NetworkMaker, said: Any, tmp_path: Path, text: str) -> None:
    """jq source, shell, Python and broken JSON come out as one error with annotation and Node; nothing of them happens."""
    file = tmp_path / "made"
    said(text.replace("FILE", str(file)))
    net = embedded("node-annotation", annotation=KEY)
    error = net.error(env={"SUBNET": "10.0.0.0/24", "RANGES": "[]"})
    assert error["code"] == 108
    assert error["msg"].startswith(f"annotation {KEY} of Node n: ")
    assert not file.exists()
    net.ok("DEL")
    assert net.reserved() == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('ranges: [[{"subnet": "172.16.5.1/24"}]]', "invalid range set 0: Network has host bits set."),
        (f"{RANGES}, dataDir: 5", "dataDir 5 is not a path"),
        ("routes: []", "no IP ranges specified"),
    ],
)
def test_where_a_wrong_configuration_stands(embedded: NetworkMaker, said: Any, text: str, problem: str) -> None:
    """What host-local could not do with is the annotation's fault, and the error says so, not that of a file in /etc/cni/net.d."""
    said(text)
    net = embedded("node-annotation", annotation=KEY)
    for command in ("ADD", "STATUS"):
        error = net.error(command)
        assert (error["code"], error["msg"].startswith(problem)) == (7, True)
        assert error["details"].startswith(f"correct annotation {KEY} of the Node")


def test_text_stays_text(embedded: NetworkMaker, said: Any, config: Any, tmp_path: Path) -> None:
    """Inside of a JSON string the same is plain data, and reaches the delegate as it is."""
    file = tmp_path / "made"
    odd = f"$ENV $(touch {file}) `touch {file}` ${{HOME}} | system; \\\\(1+1) @sh 'x'"
    said(f'{RANGES}, "odd key; $(touch {file})": "{odd}"')
    config({"nextipam": "cat"})
    answer = embedded("node-annotation", annotation=KEY).call("ADD")
    assert answer.json["ipam"][f"odd key; $(touch {file})"] == odd.replace("\\\\", "\\")
    assert not file.exists()


@DIFFERENT
@pytest.mark.parametrize("text", ["$(touch FILE)", "`touch FILE`", "; touch FILE", "$HOME", "${PATH}", 'a"b'])
@pytest.mark.parametrize("key", ["nextipam", "kubeconfig", "log"])
def test_the_configuration_file_is_data(
    embedded: NetworkMaker, said: Any, run_dir: Path, config: Any, tmp_path: Path, way: str, text: str, key: str
) -> None:
    """Shell in the configuration file's values is the name of a plugin, of a kubeconfig or of a log, and nothing else."""
    file = tmp_path / "made"
    value = text.replace("FILE", file.name)
    config({key: f"{tmp_path}/{value}" if key == "log" else value})
    said(RANGES)
    if key == "kubeconfig":
        (run_dir / "node.json").unlink()
    net = embedded("node-annotation", annotation=KEY)
    if key == "log":
        net.add()
        eventually((tmp_path / value).exists, "no log")
    else:
        error = net.error(env={"NODE_NAME": "n"})
        assert error["code"] == {"nextipam": 113, "kubeconfig": 101}[key]
        assert value in error["msg"] or (way == "relay" and key == "kubeconfig")  # an agent has a kubeconfig of its own
    assert not file.exists()


@pytest.mark.parametrize("how", ["path", "name in CNI_PATH", "name in PATH"])
def test_nextipam(binaries: Path, said: Any, config: Any, tmp_path: Path, how: str) -> None:
    """`nextipam` is a path or a name; `cat` shows the configuration that is handed on, complete and with its type."""
    said(f"{RANGES}, x: null")
    path = tmp_path / "plugins"
    path.mkdir()
    cat = shutil.which("cat")
    assert cat
    (path / "show").symlink_to(cat)
    config({"nextipam": {"path": str(path / "show"), "name in CNI_PATH": "show", "name in PATH": "cat"}[how]})
    net = Network(binaries / "node-annotation", tmp_path / "networks", {"annotation": KEY, "routes": []}, [path])
    answer = net.call("ADD", runtimeConfig={"mac": "x"})
    ipam: dict[str, Any] = {
        "type": "cat" if how == "name in PATH" else "show",
        "dataDir": str(tmp_path / "networks"),
        "routes": [],
        "x": None,
    }
    assert answer.json == {**net.netconf, "runtimeConfig": {"mac": "x"}, "ipam": {**ipam, "ranges": [[{"subnet": "172.16.5.0/24"}]]}}


def test_by_hand(binaries: Path, said: Any, config: Any) -> None:
    """Without CNI_COMMAND it prints what would be handed on, and reserves nothing: the original's manual test."""
    said('"ranges": [ [{ "subnet": "16.0.0.0/24" }] ]')
    config({"nextipam": "cat"})
    netconf = {"name": "mynet", "type": "ipvlan", "master": "eth0", "ipam": {"type": "node-annotation", "annotation": KEY}}
    shown = {**netconf, "ipam": {"type": "cat", "ranges": [[{"subnet": "16.0.0.0/24"}]]}}
    for arguments in ([], ["ipam"]):
        done = subprocess.run(
            [binaries / "node-annotation", *arguments], input=json.dumps(netconf), capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == shown


@pytest.mark.parametrize(
    ("content", "problem"),
    [("{", "is not JSON"), ("[]", "not an object"), ('{"nextipam": 5}', "nextipam is a JSON number"), (None, "there is no file")],
)
def test_a_broken_configuration_file(embedded: NetworkMaker, said: Any, config: Any, content: str | None, problem: str) -> None:
    """A configuration file that is broken or missing is an error with its path; an address is released nonetheless."""
    said(RANGES)
    config({})
    net = embedded("node-annotation", annotation=KEY)
    net.add()
    path = config(content or "")
    if content is None:
        path.unlink()
    error = net.error(container_id="c2")
    assert error["code"] == 115
    assert str(path) in error["msg"]
    assert problem in error["msg"]
    net.ok("DEL")
    assert net.reserved() == []


def test_it_needs_an_annotation(embedded: NetworkMaker) -> None:
    """Without `annotation` in the configuration the error says what is missing; DEL works."""
    net = embedded("node-annotation")
    error = net.error()
    assert (error["code"], error["msg"]) == (7, "node-annotation needs annotation, the key of an annotation on the Node")
    net.ok("DEL")


def test_from_the_api_server(network: NetworkMaker, api_server: RealApiServer, node: str, kubeconfig: str, config: Any) -> None:
    """The kubeconfig comes from the configuration file; the annotation from the real Node."""
    api_server.annotate(node, {KEY: RANGES})
    config({"kubeconfig": kubeconfig})
    net = network("node-annotation", annotation=KEY)
    assert net.add() == ["172.16.5.2"]
    api_server.annotate(node, {KEY: None})
    net.ok("DEL")
    assert net.reserved() == []


class TestCommands:
    """What a person runs."""

    @pytest.fixture
    def run(self, binaries: Path, config: Any, kubeconfig: str) -> Any:
        config({"kubeconfig": kubeconfig})

        def call(*arguments: str) -> Answer:
            done = subprocess.run([binaries / "node-annotation", *arguments], capture_output=True, text=True, check=False)
            return Answer(done.returncode, done.stdout, done.stderr)

        return call

    def test_my_node(self, run: Any, node: str) -> None:
        """my_node prints the Node object as the API server has it."""
        answer = run("my_node")
        assert (answer.code, answer.json["metadata"]["name"], answer.json["kind"]) == (0, node, "Node")

    def test_get_annotation(self, run: Any, node: str, api_server: RealApiServer) -> None:
        """get_annotation prints the value as it is, of our Node or of the one that --node names."""
        api_server.annotate(node, {KEY: RANGES})
        assert run("get_annotation", KEY) == (0, RANGES + "\n", "")
        api_server.create_node(f"{node}-other", annotations={KEY: "other"})
        assert run("get_annotation", f"--node={node}-other", KEY) == (0, "other\n", "")
        api_server.delete_node(f"{node}-other")
        answer = run("get_annotation", f"--node={node}-other", KEY)
        assert (answer.code, answer.json["code"], answer.json["msg"]) == (1, 104, f"there is no Node {node}-other")
        answer = run("get_annotation", "none")
        assert (answer.code, answer.json["code"], answer.json["msg"]) == (1, 107, f"Node {node} has no annotation none")

    def test_error_quit(self, run: Any) -> None:
        """error_quit prints a CNI error object, with the message or with the plugin's name."""
        expected = {"cniVersion": "1.1.0", "code": 11}
        assert (run("error_quit").code, run("error_quit").json) == (1, {**expected, "msg": "FAILED: node-annotation"})
        assert run("error_quit", "no luck").json == {**expected, "msg": "FAILED: no luck"}

    @pytest.mark.parametrize("option", ["-h", "--help"])
    def test_help(self, run: Any, option: str) -> None:
        """-h lists every command."""
        answer = run(option)
        assert answer.code == 0
        for command in ("my_node", "get_annotation", "error_quit", "ipam"):
            assert command in answer.stdout

    def test_unknown(self, run: Any) -> None:
        """An unknown command fails and says so on standard error."""
        answer = run("jump")
        assert (answer.code, answer.stdout) == (64, "")
        assert "No such command 'jump'" in answer.stderr


def test_ipam_with_cni_command_is_the_plugin(binaries: Path, said: Any, tmp_path: Path) -> None:
    """`node-annotation ipam` with CNI_COMMAND set is the plugin itself."""
    said(RANGES)
    ipam = {"type": "node-annotation", "annotation": KEY, "dataDir": str(tmp_path)}
    environ = environment("ADD")
    done = subprocess.run(
        [binaries / "node-annotation", "ipam"],
        input=json.dumps({"cniVersion": "1.0.0", "name": "n", "ipam": ipam}).encode(),
        env=environ,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["ips"] == [{"address": "172.16.5.2/24", "gateway": "172.16.5.1"}]
    assert os.listdir(tmp_path / "n")
    assert execute(binaries / "node-annotation", {"name": "n", "ipam": ipam}, {**environ, "CNI_COMMAND": "DEL"}).code == 0
