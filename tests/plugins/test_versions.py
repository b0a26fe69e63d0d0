# SPDX-License-Identifier: Apache-2.0
"""Every version of the specification: which commands it has, and the shape of a result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import Network, environment, execute
from ways import DIFFERENT

from kubenode.base.log import Log
from kubenode.plugins import host_local, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from pathlib import Path

    from callplugin import NetworkMaker, ViewWriter

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
OLDEST: dict[str, Any] = {
    "ip4": {"ip": "11.0.1.2/24", "gateway": "11.0.1.1", "routes": [{"dst": "0.0.0.0/0"}]},
    "ip6": {"ip": "1100:0:0:1::2/64", "gateway": "1100:0:0:1::1", "routes": [{"dst": "::/0", "gw": "1100:0:0:1::9"}]},
    "dns": {},
}
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "1100:0:0:1::9"}]
MIDDLE: dict[str, Any] = {
    "ips": [
        {"version": "4", "address": "11.0.1.2/24", "gateway": "11.0.1.1"},
        {"version": "6", "address": "1100:0:0:1::2/64", "gateway": "1100:0:0:1::1"},
    ],
    "routes": ROUTES,
    "dns": {},
}
NEWEST: dict[str, Any] = {
    "ips": [{"address": "11.0.1.2/24", "gateway": "11.0.1.1"}, {"address": "1100:0:0:1::2/64", "gateway": "1100:0:0:1::1"}],
    "routes": ROUTES,
}
SHAPES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(["0.1.0", "0.2.0"], OLDEST),
    **dict.fromkeys(["0.3.0", "0.3.1", "0.4.0"], MIDDLE),
    **dict.fromkeys(["1.0.0", "1.1.0"], NEWEST),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_shape_of_a_result(network: NetworkMaker, view: ViewWriter, version: str) -> None:
    """ADD answers in the version that was asked for and in its shape, with host-local and without; DEL says nothing."""
    view("11.0.1.0/24", "1100:0:0:1::/64")
    net = network(version=version, routes=ROUTES)
    answer = net.call("ADD")
    assert (answer.code, answer.json) == (0, {"cniVersion": version, **SHAPES[version]})
    net.ok("DEL")


def test_no_version_is_the_oldest(embedded: NetworkMaker, view: ViewWriter) -> None:
    """A configuration without cniVersion is of 0.1.0, as libcni has it."""
    view("11.0.1.0/24")
    net = embedded()
    del net.netconf["cniVersion"]
    assert net.call("ADD").json["cniVersion"] == "0.1.0"


@DIFFERENT
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("command", "since"), [("CHECK", "0.4.0"), ("STATUS", "1.1.0"), ("GC", "1.1.0")])
def test_a_command_that_is_not_in_a_version(embedded: NetworkMaker, view: ViewWriter, version: str, command: str, since: str) -> None:
    """CHECK is of 0.4.0, STATUS and GC are of 1.1.0; before, they are error 1."""
    view("11.0.1.0/24")
    net = embedded(version=version)
    if version >= since:
        net.add()
        net.ok(command)
    else:
        error = net.error(command)
        assert (error["code"], error["msg"]) == (1, f"config version {version} does not allow {command}")


@pytest.mark.parametrize("version", ["0.9.9", "2.0.0", "1", "x", f"1.{'9' * 5000}"], ids=range(5))
def test_an_unknown_version(embedded: NetworkMaker, version: str) -> None:
    """A version that nobody knows is error 1, which names it."""
    error = embedded(version=version).error()
    assert (error["code"], error["msg"]) == (1, f'incompatible CNI version "{version}"')
    assert embedded(version=version).error("CHECK")["code"] == 1


@pytest.mark.parametrize("name", ["kube-node", "node-annotation"])
@pytest.mark.parametrize(
    ("changes", "msg"),
    [
        ({"CNI_COMMAND": "JUMP"}, "unknown CNI_COMMAND: JUMP"),
        ({"CNI_CONTAINERID": ""}, "required env variables [CNI_CONTAINERID] missing"),
        ({"CNI_IFNAME": "", "CNI_NETNS": ""}, "required env variables [CNI_NETNS,CNI_IFNAME] missing"),
        ({"CNI_CONTAINERID": "../x"}, "CNI_CONTAINERID '../x': invalid characters in containerID"),
        ({"CNI_IFNAME": "a/b"}, "CNI_IFNAME 'a/b': interface name contains / or : or whitespace characters"),
        ({"CNI_IFNAME": "a23456789012345x"}, "CNI_IFNAME 'a23456789012345x': interface name is too long"),
        ({"CNI_ARGS": "novalue"}, "CNI_ARGS: invalid pair 'novalue'"),
    ],
)
def test_a_bad_environment(binaries: Path, view: ViewWriter, tmp_path: Path, name: str, changes: dict[str, str], msg: str) -> None:
    """A variable that is missing or wrong is error 4, which names it."""
    view("11.0.1.0/24", annotations={"a": 'ranges: [[{"subnet": "10.0.0.0/24"}]]'})
    net = Network(binaries / name, tmp_path / "networks", {"annotation": "a"} if name == "node-annotation" else {})
    environ = {**environment("ADD"), **changes}
    answer = execute(net.executable, {**net.netconf, "ipam": net.ipam}, environ)
    assert (answer.code, answer.json["code"], answer.json["msg"]) == (1, 4, msg)


@pytest.mark.parametrize(
    ("stdin", "code", "part"),
    [
        (b"{", 6, "stdin"),
        (b"[]", 6, "JSON array"),
        (b'{"name": "n"} {}', 6, "text after the value"),
        (b"\xff", 6, "not UTF-8"),
        (b'{"ipam": {}}', 7, "missing network name"),
        (b'{"name": "n"}', 7, "missing ipam"),
        (b'{"name": "../n", "ipam": []}', 7, "invalid characters found in network name '../n'; ipam is a JSON array"),
        (b'{"cniVersion": 1, "name": "n", "ipam": {}}', 7, "cniVersion is a JSON number"),
    ],
)
def test_a_bad_configuration(binaries: Path, stdin: bytes, code: int, part: str) -> None:
    """Input that is no network configuration is error 6 or 7, which says what it is."""
    answer = execute(binaries / "kube-node", stdin, environment("ADD"))
    assert (answer.code, answer.json["code"]) == (1, code)
    assert part in answer.json["msg"]


@pytest.mark.parametrize("version", VERSIONS)
def test_as_host_local_answers(binaries: Path, cni_bin: Path, view: ViewWriter, tmp_path: Path, version: str) -> None:
    """Our allocator's result is host-local's for the same configuration, key for key and in its order of addresses and routes."""
    view("11.0.1.0/24", "1100:0:0:1::/64")
    (tmp_path / "resolv.conf").write_text("nameserver 1.1.1.1\nsearch a b\n# c\noptions ndots:5\n")
    more: dict[str, Any] = {"routes": [*ROUTES, {"dst": "10.0.0.0/8", "mtu": 1400}], "resolvConf": str(tmp_path / "resolv.conf")}
    ours = Network(binaries / "kube-node", tmp_path / "ours", {**more, "delegate": "embedded"}, [], version)
    ranges = [[{"subnet": "11.0.1.0/24"}], [{"subnet": "1100:0:0:1::/64"}]]
    theirs = Network(cni_bin / "host-local", tmp_path / "theirs", {**more, "ranges": ranges}, [cni_bin], version)
    assert json.dumps(ours.call("ADD").json, sort_keys=True) == json.dumps(theirs.call("ADD").json, sort_keys=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("environ", [{"CNI_COMMAND": "ADD"}, {"CNI_COMMAND": "UPDATE"}, {}])
def test_the_version_of_an_error_of_the_environment(environ: dict[str, str], version: str) -> None:
    """An error that comes before the configuration is looked at is in the configuration's version, too."""
    stdin = json.dumps({"cniVersion": version, "name": "net", "ipam": {}}).encode()

    for text, expected in ((stdin, version), (b"", VERSIONS[-1]), (b"{", VERSIONS[-1])):
        code, stdout = skel.run(host_local.COMMANDS, environ, text, Log("test"), Standalone(environ))
        error = json.loads(stdout)
        assert (code, error["code"], error["cniVersion"]) == (1, 4, expected)
