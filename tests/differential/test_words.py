# SPDX-License-Identifier: Apache-2.0
"""Errors that both give: the reference's words, which programs and test suites compare, and ours in `details`."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment

if TYPE_CHECKING:
    from pathlib import Path

V4: dict[str, Any] = {"subnet": "10.0.0.0/29"}
OTHER: dict[str, Any] = {"subnet": "10.1.0.0/29"}
UNKNOWN_VERSIONS = ("9.9.9", "1.1.1", "1.1", "1.0.1", "0.5.0", "0.0.1")
OLD_VERSIONS = {"CHECK": ("0.1.0", "0.3.1"), "GC": ("0.4.0", "1.0.0"), "STATUS": ("0.1.0", "1.0.0")}

Case = tuple[dict[str, str], dict[str, Any]]  # variables, and keys of the network configuration; those of `ipam` by a dot


def variables(**changes: str) -> Case:
    return {f"CNI_{key}": value for key, value in changes.items()}, {}


def args(text: str) -> Case:
    return {"CNI_ARGS": text}, {}


def keys(**changes: Any) -> Case:
    return {}, changes


def ipam(**changes: Any) -> Case:
    return {}, {f".{key}": value for key, value in changes.items()}


def sets(*found: Any) -> list[Case]:
    """Return range sets, once in the configuration and once of the runtime."""
    return [ipam(ranges=list(found)), keys(runtimeConfig={"ipRanges": list(found)})]


def requested(*found: Any) -> list[Case]:
    return [keys(args={"cni": {"ips": list(found)}}), keys(runtimeConfig={"ips": list(found)})]


CASES: list[Case] = [
    # the environment
    *[variables(CONTAINERID=text) for text in ("-x", "a/b", "a b", "ä", "")],
    *[variables(IFNAME=text) for text in ("a/b", "a:b", "a b", "\u00a0x", ".", "..", "a" * 16, "ä" * 8, "")],
    *[variables(COMMAND=text) for text in ("JUMP", "add")],
    variables(CONTAINERID="-x", IFNAME="a/b"),
    variables(CONTAINERID="-x", NETNS=""),
    variables(IFNAME="a/b", CONTAINERID=""),
    variables(NETNS="", IFNAME=""),
    variables(NETNS="", PATH=""),
    variables(COMMAND="DEL", CONTAINERID="-x"),
    # versions
    *[({"CNI_COMMAND": command}, {"cniVersion": version}) for command in ("ADD", "DEL", *OLD_VERSIONS) for version in UNKNOWN_VERSIONS],
    *[({"CNI_COMMAND": command}, {"cniVersion": version}) for command, versions in OLD_VERSIONS.items() for version in versions],
    *[keys(cniVersion=version, **{".ranges": [[V4], [OTHER]]}) for version in ("0.1.0", "0.2.0")],
    # names
    *[keys(name=text) for text in ("", "../x", "-x", "a b")],
    # what CNI_ARGS, `args` and the runtime ask for
    *[args(f"{text};IgnoreUnknown=1") for text in ("FOO", 'a"b', "IP=x", "IP=10.0.0.4/33", "IP=10.0.0.4/", "IP=10.0.0.1", "IP=10.0.1.1")],
    args("FOO"),
    args("IP=fe80::1%eth0"),
    *[case for text in ("x", "", "10.0.0.1", "10.9.0.1", "10.0.0.4/33", "fe80::1%eth0") for case in requested(text)],
    *requested("10.0.0.3", "10.9.0.1"),
    # ranges
    *sets(),
    *sets([]),
    *sets([{}]),
    *sets([V4], [V4]),
    *sets([V4, V4]),
    *sets([V4, {"subnet": "fd00::/64"}]),
    *[
        case
        for text in ("", "x", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/29", "10.0.0.0/31", "fd00::1/64", "fd00::/127", "::ffff:10.0.0.0/120")
        for case in [*sets([{"subnet": text}]), *sets([OTHER], [{"subnet": text}])]
    ],
    *[case for key in ("rangeStart", "rangeEnd", "gateway") for case in sets([{**V4, key: "x"}])],
    *[case for key in ("rangeStart", "rangeEnd") for text in ("10.0.1.1", "fd00::1") for case in sets([{**V4, key: text}])],
    *sets([{**V4, "rangeStart": "10.0.0.5", "rangeEnd": "10.0.0.3"}]),
    *sets([{**V4, "rangeEnd": "10.0.0.0"}]),
    *[ipam(subnet=text) for text in ("x", "10.0.0.1/29")],
    # the rest
    *[ipam(routes=[route]) for route in ({"dst": "x"}, {"dst": ""}, {"dst": "10.0.0.0/8", "gw": "x"})],
    ipam(resolvConf="/none/resolv.conf"),
    variables(COMMAND="CHECK"),
]


def call(executable: Path, case: Case, data_dir: Path) -> tuple[int, dict[str, Any]]:
    environ, changes = case
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "name": "net", "ipam": {"ranges": [[V4]], "dataDir": str(data_dir)}}
    for key, value in changes.items():
        (conf["ipam"] if key.startswith(".") else conf)[key.lstrip(".")] = value
    if changes.get("runtimeConfig", {}).get("ipRanges") is not None:
        del conf["ipam"]["ranges"]
    environ = {**environment("ADD", args="IgnoreUnknown=1", path=["/none"]), **environ}
    done = subprocess.run([executable], input=json.dumps(conf).encode(), env=environ, capture_output=True, check=False, timeout=30)
    return done.returncode, json.loads(done.stdout or b"{}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_words(built: Path, cni_bin: Path, tmp_path: Path, case: Case) -> None:
    """The message is the reference's, and so is the code but of a file; what ours says beyond it is in `details`."""
    code, theirs = call(cni_bin / "host-local", case, tmp_path / "theirs")
    assert (code, "msg" in theirs) == (1, True), theirs
    code, ours = call(built / "host-local.standalone", case, tmp_path / "ours")
    assert (code, ours["msg"]) == (1, theirs["msg"])
    assert ours["code"] == (5 if ".resolvConf" in case[1] else theirs["code"])
    if theirs["code"] == 1:
        assert ours.get("details") == theirs.get("details")  # suites compare these, too
    else:
        assert ours["details"]


def test_full_and_twice(built: Path, cni_bin: Path, tmp_path: Path) -> None:
    """A full range, an address that is taken, and a second ADD are refused in the reference's words."""
    small = [[{"subnet": "10.0.0.0/30"}]]
    container = {"CNI_CONTAINERID": "c2"}
    for case in (({}, {".ranges": small}), (container, {".ranges": small}), (container, keys(args={"cni": {"ips": ["10.0.0.2"]}})[1])):
        answers = {}
        for name, executable in (("theirs", cni_bin / "host-local"), ("ours", built / "host-local.standalone")):
            directory = tmp_path / name
            call(executable, ({}, {".ranges": small}), directory)
            code, error = call(executable, case, directory)
            answers[name] = (code, error["code"], error["msg"])
        assert answers["ours"] == answers["theirs"]
        assert answers["ours"][:2] == (1, 999)
