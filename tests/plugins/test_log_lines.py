# SPDX-License-Identifier: Apache-2.0
"""What a log line says of the call that it is about: an operator looks for a pod."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from patience import eventually

if TYPE_CHECKING:
    from callplugin import Network, NetworkMaker, ViewWriter
    from podnet import Answer
    from ways import ActivatedAgent

POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=web;K8S_POD_NAME=shop-1;K8S_POD_INFRA_CONTAINER_ID=c1"


class Lines:
    """Calls for a pod, and the log lines that each has led to: of the agent, or in a file and on stderr."""

    def __init__(self, agent: ActivatedAgent | None, file: Path) -> None:
        self._agent = agent
        self._file = file
        self._read = 0
        self.option = {} if agent else {"logfile": str(file)}

    def of(self, net: Network, command: str, args: str = POD, **how: Any) -> tuple[Answer, list[dict[str, Any]]]:
        """Call, and return the answer and the lines, as soon as there are any."""
        began = time.monotonic()
        answer = net.call(command, env={"CNI_ARGS": args}, **how)
        took = (time.monotonic() - began) * 1000
        if not self._agent:
            written = self._file.read_text() if self._file.exists() else ""
            new, self._read = written[self._read :] + answer.stderr, len(written)
            lines = [json.loads(line) for line in new.splitlines()]
        else:
            lines = eventually(lambda: self._new(command), "nothing is logged")
        assert all(0 <= line["milliseconds"] <= took for line in lines)
        return answer, lines

    def _new(self, command: str) -> list[dict[str, Any]]:
        assert self._agent
        written = [json.loads(line) for line in self._agent.log_path.read_text().splitlines()]
        new = [line for line in written[self._read :] if line.get("command") == command]
        self._read = len(written) if new else self._read
        return new


@pytest.fixture
def lines(activated: ActivatedAgent | None, tmp_path: Path) -> Lines:
    return Lines(activated, tmp_path / "log")


def named(line: dict[str, Any]) -> dict[str, Any]:
    return {key: line.get(key) for key in ("command", "network", "pod", "containerID", "ifname")}


def one(command: str) -> dict[str, Any]:
    return {"command": command, "network": "net", "pod": "web/shop-1", "containerID": "c1", "ifname": "eth0"}


def test_each_call_names_its_pod(network: NetworkMaker, view: ViewWriter, lines: Lines) -> None:
    """ADD and DEL have a line with pod, network, addresses and milliseconds, whoever gives the addresses; so has what fails."""
    view("10.0.0.0/24")
    net = network(**lines.option)
    answer, (given,) = lines.of(net, "ADD")
    assert answer.code == 0
    assert (named(given), given["msg"], given["ips"]) == (one("ADD"), "addresses allocated", ["10.0.0.2/24"])
    answer, (failed,) = lines.of(net, "ADD")
    assert (answer.code, failed["level"], failed["msg"]) == (1, "error", answer.json["msg"])
    assert named(failed) == one("ADD")
    answer, released = lines.of(net, "DEL")
    assert answer.code == 0
    assert [named(line) for line in released] == [one("DEL")] * len(released)
    assert "addresses released" in {line["msg"] for line in released}
    if not Path(net.path[0], "host-local").exists():
        assert [line["ips"] for line in released] == [["10.0.0.2"]]


BROKEN: dict[str, dict[str, Any]] = {
    "no ipam": {"ipam": None},
    "no such version": {"cniVersion": "9.0.0"},
    "ranges": {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/33"}]]}},
    "dataDir": {"ipam": {"type": "host-local", "dataDir": "/dev/null/x", "subnet": "10.0.0.0/24"}},
}


@pytest.mark.parametrize("plugin", ["kube-node", "host-local"])
@pytest.mark.parametrize("how", BROKEN)
def test_errors_before_the_work(embedded: NetworkMaker, view: ViewWriter, lines: Lines, plugin: str, how: str) -> None:
    """An error names pod and network however early it comes, of the drop-in, too."""
    view("10.0.0.0/24")
    answer, (failed,) = lines.of(embedded(plugin), "ADD", **BROKEN[how])
    assert (answer.code, failed["code"]) == (1, answer.json["code"])
    if plugin == "kube-node":  # the drop-in answers in the reference's words
        assert (failed["msg"], failed["details"]) == (answer.json["msg"], answer.json["details"])
    assert named(failed) == one("ADD")


def test_an_error_of_the_environment(embedded: NetworkMaker, lines: Lines) -> None:
    """What the runtime gets wrong does not keep the log from what it gets right, and a broken pair of CNI_ARGS not from the others."""
    answer, (failed,) = lines.of(embedded("host-local"), "ADD", f"oops;;{POD}", container_id="../x")
    assert (answer.code, answer.json["code"]) == (1, 4)
    assert (failed["pod"], failed["containerID"]) == ("web/shop-1", "../x")


def test_a_pod_without_a_name(embedded: NetworkMaker, view: ViewWriter, lines: Lines) -> None:
    """Where CNI_ARGS name no pod no line pretends that there is one."""
    view("10.0.0.0/24")
    _, (failed,) = lines.of(embedded("host-local"), "ADD", "IgnoreUnknown=1;K8S_POD_NAMESPACE=web", **BROKEN["ranges"])
    assert "pod" not in failed


def test_a_full_range(embedded: NetworkMaker, view: ViewWriter) -> None:
    """The error names the network, in the plugin and in the drop-in; its first words are the reference's, which programs look for."""
    view("10.0.0.0/30")
    own = {"ranges": [[{"subnet": "10.0.0.0/30"}]]}
    for net in (embedded(), embedded("host-local", **own)):
        net.call("ADD", "c0")
        error = net.error(container_id="c9")
        assert error["msg"] == "failed to allocate for range 0: no IP addresses available in range set: 10.0.0.1-10.0.0.2"
        assert error["details"].startswith("network net is full on this node: ")


@pytest.mark.ways("standalone", "console")
def test_who_limits_ipv4_without_an_agent(embedded: NetworkMaker, view: ViewWriter, lines: Lines) -> None:
    """Labels of namespaces only an agent knows: without one the configured list decides, and the log says so."""
    view("10.0.0.0/24", "fd00::/64")
    answer, (said, _) = lines.of(embedded(**{"ipv4-namespaces": ["shop"]}, **lines.option), "ADD")
    assert answer.addresses == ["fd00::2"]
    assert said["msg"] == "ipv4-namespaces decides: only an agent knows the namespaces' labels"
    assert named(said) == one("ADD")


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_a_trace(embedded: NetworkMaker, view: ViewWriter, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the runtime traces (TRACEPARENT), each line of the call has the trace's id, also through the agent; the next call has none."""
    view("10.0.0.0/24")
    net = embedded(**lines.option)
    monkeypatch.setenv("TRACEPARENT", f"00-{TRACE}-00f067aa0ba902b7-01")
    _, (given,) = lines.of(net, "ADD")
    assert (given["traceID"], given["msg"]) == (TRACE, "addresses allocated")
    _, (failed,) = lines.of(net, "ADD")
    assert (failed["traceID"], failed["level"]) == (TRACE, "error")
    monkeypatch.delenv("TRACEPARENT")
    _, (released,) = lines.of(net, "DEL")
    assert "traceID" not in released
