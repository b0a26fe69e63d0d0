# SPDX-License-Identifier: Apache-2.0
"""The watch of the own Node at a real API server."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE
from watching import RunningWatch, finder

from kubenode.cni.errors import FORBIDDEN, NODE_NOT_FOUND
from kubenode.kube.reflector import Pace

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import Asked, RealApiServer

    from kubenode.nodes.node import Node

NOTE = "kube-node.nordix.org/net1"


@pytest.fixture(scope="session")
def watcher(api_server: RealApiServer) -> str:
    """Return the name of a user who may do what the agent needs."""
    api_server.grant("watcher", "get", "watch")
    return "watcher"


def asked_by(api_server: RealApiServer, user: str, since: int) -> list[Asked]:
    return [asked for asked in api_server.asked()[since:] if asked.user == user]


def test_changes_are_seen_within_a_second(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """Of a hundred changes of an annotation nine in ten are seen within a second, and all cost one GET and one WATCH together."""
    api_server.create_node("w-notes", ["10.1.0.0/24"])
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", watcher)
    before = len(api_server.asked())
    with RunningWatch(kubeconfig, "w-notes") as running:
        running.until_watching()
        took = []
        for number in range(100):
            api_server.annotate("w-notes", {NOTE: str(number)})
            took.append(running.until(lambda wanted=str(number): running.annotation(NOTE) == wanted))  # type: ignore[misc]

    assert statistics.quantiles(took, n=10)[-1] < 1  # for the others the machine had no time
    assert len(running.published) == 101
    assert [asked.verb for asked in asked_by(api_server, watcher, before)] == ["get", "watch"]
    assert running.counts.requests == [("get", "200"), ("watch", "200")]
    assert running.counts.restarts == []


def test_watch_asks_for_bookmarks_of_one_node(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """The watch is of the own Node alone, from the version that was read, with bookmarks and an end."""
    api_server.create_node("w-query")
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-query") as running:
        running.until_watching()
        version = api_server.request("GET", "/api/v1/nodes/w-query")["metadata"]["resourceVersion"]

    uri = next(asked.uri for asked in reversed(api_server.asked()) if asked.verb == "watch")
    for part in ("fieldSelector=metadata.name%3Dw-query", f"resourceVersion={version}", "allowWatchBookmarks=true", "timeoutSeconds="):
        assert part in uri
    assert 1400 < int(uri.partition("timeoutSeconds=")[2].partition("&")[0]) < 2200


def test_status_reports_are_not_published(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """What the kubelet reports every now and then is not published again."""
    api_server.create_node("w-status", ["10.1.3.0/24"], machine_id="0123")
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-status") as running:
        running.until_watching()
        for number in range(5):
            condition = {"type": "Ready", "status": "True", "lastHeartbeatTime": f"2030-01-01T00:00:0{number}Z"}
            api_server._merge("/api/v1/nodes/w-status/status", {"status": {"conditions": [condition]}})
        api_server.annotate("w-status", {NOTE: "new"})
        running.until(lambda: running.annotation(NOTE) == "new")

    assert len(running.published) == 2


def test_pod_cidr_is_assigned(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """Subnets that are assigned after the agent's start are seen within a second."""
    api_server.create_node("w-cidr")
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-cidr") as running:
        running.until_watching()
        assert running.last is not None
        assert running.last.pod_cidrs == ()
        api_server._merge("/api/v1/nodes/w-cidr", {"spec": {"podCIDR": "10.1.1.0/24", "podCIDRs": ["10.1.1.0/24", "fd00:1::/64"]}})
        running.until(lambda: running.last is not None and running.last.pod_cidrs == ("10.1.1.0/24", "fd00:1::/64"))


def test_deleted_and_created_anew(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """A Node that is deleted is published as gone; one created under its name is seen within a second, and the log says what is new."""
    api_server.create_node("w-again", ["10.1.4.0/24"])
    log = tmp_path / "log"
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-again", log) as running:
        running.until_watching()
        assert running.last is not None
        old_uid = running.last.uid
        api_server.delete_node("w-again")
        running.until(lambda: running.last is None)
        running.until(lambda: running.watch.failure is not None and running.watch.failure.code == NODE_NOT_FOUND)
        api_server.create_node("w-again", ["10.1.5.0/24"])
        running.until(lambda: running.last is not None)
        running.until_watching()
        new_uid = running.last.uid

    assert new_uid != old_uid
    assert [published.node is None for published in running.published] == [False, True, False]
    line = next(said for said in map(json.loads, log.read_text().splitlines()) if "old_uid" in said)
    assert (line["old_uid"], line["new_uid"]) == (old_uid, new_uid)
    assert (line["old_subnets"], line["new_subnets"]) == (["10.1.4.0/24"], ["10.1.5.0/24"])


def test_node_that_is_registered_late(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """An agent that starts before its Node is registered waits for it, and publishes nothing before."""
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-late") as running:
        running.until(lambda: running.watch.failure is not None and running.watch.failure.code == NODE_NOT_FOUND)
        api_server.create_node("w-late", ["10.1.6.0/24"])
        running.until(lambda: running.last is not None)

    assert len(running.published) == 1


def test_server_down_and_up_again(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """While the API server is down what is known stays; once it serves again changes are seen within a second.

    It then knows nothing older than its start, answers 410 for every Node that has not changed since, and gets few requests nevertheless.
    """
    api_server.create_node("w-down", ["10.1.7.0/24"])
    api_server.create_node("w-down-other")
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", watcher)
    before = len(api_server.asked())
    with RunningWatch(kubeconfig, "w-down") as running:
        running.until_watching()
        api_server.stop()
        running.until(lambda: running.watch.failure is not None)
        with RunningWatch(kubeconfig, "w-down") as second:
            second.until(lambda: second.watch.failure is not None and "Connection refused" in str(second.watch.failure))
            assert second.published == []
            api_server.start()
            running.until_watching()
            second.until_watching()
        api_server.annotate("w-down", {NOTE: "after"})
        running.until(lambda: running.annotation(NOTE) == "after")

    assert running.counts.requests.count(("get", "200")) <= 4
    assert running.counts.restarts[0] == "error"
    assert any("resourceVersion=0&" in asked.uri for asked in asked_by(api_server, watcher, before))


def test_rotated_token(api_server: RealApiServer, tmp_path: Path) -> None:
    """A token file that was rewritten is read again when the API server says 401, without a pause."""
    api_server.grant(api_server.service_account("w-account"), "get", "watch")
    api_server.create_node("w-token", ["10.1.8.0/24"])
    token = tmp_path / "token"
    token.write_text(api_server.token("w-account"))
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", {"tokenFile": "token"})
    find = finder(kubeconfig, "w-token")

    def find_then_rotate() -> Node:
        # The next client, of the watch, reads what is stale by the time that it asks.
        own = find()
        token.write_text("stale")
        return own

    with RunningWatch(kubeconfig, "w-token", find=find_then_rotate) as running:
        running.until(lambda: ("watch", "401") in running.counts.requests)
        token.write_text(api_server.token("w-account"))
        running.until_watching()
        api_server.annotate("w-token", {NOTE: "seen"})
        running.until(lambda: running.annotation(NOTE) == "seen")

    assert running.counts.requests.count(("get", "200")) == 1


def test_without_the_right_to_watch(api_server: RealApiServer, tmp_path: Path) -> None:
    """Who may `get` only is told which rule to bind, and the view is kept right by GETs."""
    api_server.grant("getter", "get")
    api_server.create_node("w-get", ["10.1.9.0/24"])
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", "getter"), "w-get") as running:
        running.until(lambda: running.watch.failure is not None and running.watch.failure.code == FORBIDDEN)
        failure = running.watch.failure
        assert failure is not None
        assert ("watch", "403") in running.counts.requests
        assert 'User "getter" cannot watch resource "nodes"' in failure.msg
        assert 'resources: ["nodes"], verbs: ["watch"]' in failure.details
        api_server.annotate("w-get", {NOTE: "seen"})
        running.until(lambda: running.annotation(NOTE) == "seen")
        api_server.grant("getter", "watch")
        running.until_watching()


def test_letters_that_end_lines_elsewhere(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """U+0085 and U+2028 in an annotation, which end lines for Unicode, do not end an event."""
    api_server.create_node("w-letters")
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-letters") as running:
        running.until_watching()
        api_server.annotate("w-letters", {NOTE: "a\x85b\u2028c\r\nd"})
        running.until(lambda: running.annotation(NOTE) == "a\x85b\u2028c\r\nd")

    assert running.counts.restarts == []


def test_server_ends_a_watch(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """A watch whose time is over is followed by another from where it ended, without a GET, if it has told something."""
    api_server.create_node("w-end")
    pace = Pace(lifetime=2, settled=0.2)
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-end", pace=pace) as running:
        numbers = itertools.count()

        def ended_twice() -> bool:
            api_server.annotate("w-end", {NOTE: str(next(numbers))})
            return running.counts.restarts == ["closed", "closed"]

        running.until(ended_twice)
        api_server.annotate("w-end", {NOTE: "seen"})
        running.until(lambda: running.annotation(NOTE) == "seen")

    assert running.counts.requests.count(("get", "200")) == 1


def test_cancelling_is_prompt(api_server: RealApiServer, watcher: str, tmp_path: Path) -> None:
    """An agent that stops does not wait for its watch."""
    api_server.create_node("w-stop")
    with RunningWatch(api_server.kubeconfig(tmp_path / "kube.conf", watcher), "w-stop") as running:
        running.until_watching()
        time.sleep(0.2)

    assert running.stop_seconds < PATIENCE
