# SPDX-License-Identifier: Apache-2.0
"""The watch of the own Node against what a real API server will not produce on demand."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import base64_text, write_kubeconfig
from authority import Authority
from betweens import StandInProxy
from patience import PATIENCE, eventually
from standin import StandInApiServer, answer, cut, event, failure, node, refuse, reset, stall, stream, trickle
from watching import RunningWatch

from kubenode.cni.errors import FORBIDDEN, NODE_NOT_FOUND, TRY_AGAIN_LATER, UNAUTHORIZED
from kubenode.kube.reflector import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from standin import Step

    from kubenode.nodes.node import Node

PACE = Pace(silence=0.5, first_silence=0.8, greeting=0.4, settled=0.3)
GET = answer(node("n1", 5, "u1", a="old"))
QUIET = stream(stall)


def watching(
    server: StandInApiServer,
    directory: Path,
    user: dict[str, Any] | None = None,
    proxy_url: str = "",
    certificate_authority: bytes = b"",
    **options: Any,
) -> RunningWatch:
    authority = base64_text(certificate_authority or server.authority.certificate)
    cluster = {"server": server.url, "certificate-authority-data": authority, "proxy-url": proxy_url}
    kubeconfig = write_kubeconfig(directory / "kube.conf", cluster, user or {"token": "t0"})
    return RunningWatch(kubeconfig, "n1", **{"pace": PACE, "timeout": 1.0, **options})


def asked(server: StandInApiServer) -> list[str]:
    """Return what was asked: `get`, or `watch` with the version."""
    return [
        "watch " + seen.path.partition("resourceVersion=")[2].partition("&")[0] if "watch=" in seen.path else "get"
        for seen in server.requests
    ]


@pytest.mark.parametrize(
    ("breaks", "wanted"),
    [
        (stream(event("MODIFIED", 6, a="1")), ["get", "watch 5", "watch 6"]),  # ended in order, though early
        (stream(), ["get", "watch 5", "get", "watch 5"]),  # the same, but nothing says that there was a version 5
        (stream(event("BOOKMARK", 7), reset), ["get", "watch 5", "watch 7"]),
        (stream(event("BOOKMARK", 7), cut), ["get", "watch 5", "watch 7"]),
        (stream(event("BOOKMARK", 7), b'{"type": "MODIF'), ["get", "watch 5", "watch 7"]),  # half a line, then an end in order
        (stream(event("BOOKMARK", 7), b'{"type": "MODIF', cut), ["get", "watch 5", "watch 7"]),
        (stream(event("BOOKMARK", 7), failure(410, "too old")), ["get", "watch 5", "get", "watch 0"]),
        (stream(event("BOOKMARK", 7), failure(500, "etcd")), ["get", "watch 5", "get", "watch 5"]),
        (stream(failure(410, "too old")), ["get", "watch 5", "get", "watch 0"]),
        (stream(b"<html>\n", stall), ["get", "watch 5", "get", "watch 5"]),
        (stream(b"\xff\n", stall), ["get", "watch 5", "get", "watch 5"]),
        (stream(b"{}\n", stall), ["get", "watch 5", "get", "watch 5"]),
        (stream(b"\n", stall), ["get", "watch 5", "get", "watch 5"]),
        (stream(b'{"type": "ADDED", "object": {"metadata": {}}}\n', stall), ["get", "watch 5", "get", "watch 5"]),
        (stream(b'{"type": "ERROR", "object": {"code": "x"}}\n', stall), ["get", "watch 5", "get", "watch 5"]),
        (stream(event("MODIFIED", 6, name="other"), stall), ["get", "watch 5", "get", "watch 5"]),
        (stream(event("BOOKMARK", 7), stall), ["get", "watch 5", "get", "watch 5"]),
        (refuse(410, "too old", "Expired"), ["get", "watch 5", "get", "watch 0"]),
        (refuse(504, "Too large resource version", "Timeout"), ["get", "watch 5", "get", "watch 5"]),
        (refuse(500), ["get", "watch 5", "watch 5"]),
        (refuse(429, Retry_After="0"), ["get", "watch 5", "watch 5"]),
        (refuse(503), ["get", "watch 5", "watch 5"]),
        (refuse(401), ["get", "watch 5", "watch 5"]),
        (refuse(404, "gone", "NotFound"), ["get", "watch 5", "get", "watch 5"]),
        (answer(b"<html>", 502), ["get", "watch 5", "watch 5"]),
        (answer(b"<html>welcome"), ["get", "watch 5", "watch 5"]),
        (stall, ["get", "watch 5", "get", "watch 5"]),
        (reset, ["get", "watch 5", "get", "watch 5"]),
    ],
)
def test_fault(tmp_path: Path, breaks: Step, wanted: list[str]) -> None:
    """After whatever ends a watch there is another, from what is known if that can be trusted, and changes are seen again."""
    restarts = [GET] if wanted[2] == "get" else []
    seen = stream(event("ADDED", 5, a="old"), event("MODIFIED", 8, a="new"), stall)
    with StandInApiServer(tmp_path, GET, breaks, *restarts, seen) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.annotation("a") == "new")
        running.until_watching()

        assert asked(server)[:4] == wanted
        assert running.watch.failure is None
        assert None not in [published.node for published in running.published]


def test_time_goes_back(tmp_path: Path) -> None:
    """After an etcd restore the Node is asked for again, once the API server was away, and its older version serves."""
    restored = answer(node("n1", 20, "u1", a="restored"))
    steps = GET, stream(event("MODIFIED", 60, a="lost"), cut), reset, restored, QUIET
    with StandInApiServer(tmp_path, *steps) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.annotation("a") == "restored")
        running.until_watching()

        assert asked(server)[:5] == ["get", "watch 5", "watch 60", "get", "watch 20"]


@pytest.mark.slow
def test_refused_while_busy(tmp_path: Path) -> None:
    """Retry-After is waited for, also where it stands in an event, and `failure` says meanwhile what the API server said."""
    steps = GET, refuse(429, "slow down", Retry_After="1"), stream(failure(429, "slower", retryAfterSeconds=1)), GET, QUIET
    with StandInApiServer(tmp_path, *steps) as server, watching(server, tmp_path) as running:
        running.until(lambda: "slow down" in str(running.watch.failure))
        running.until(lambda: len(server.requests) == 5)
        times = [request.at for request in server.requests]
        assert times[2] - times[1] > 0.8
        assert times[4] - times[2] > 0.8


def test_retry_after_has_an_end(tmp_path: Path) -> None:
    """A server that asks for an hour is asked again after the longest pause."""
    pace = PACE._replace(longest=0.3)
    with (
        StandInApiServer(tmp_path, GET, refuse(503, Retry_After="3600"), QUIET) as server,
        watching(server, tmp_path, pace=pace) as running,
    ):
        running.until(lambda: len(server.requests) == 3)


def test_bookmarks_and_unknown_events_publish_nothing(tmp_path: Path) -> None:
    """A bookmark, an event of a kind that nobody knows yet and a change of what does not matter are no news."""
    changed = event("MODIFIED", 8, a="old")
    changed["object"]["status"] = {"conditions": [{"type": "Ready"}]}
    told = stream(event("BOOKMARK", 6), event("FUTURE", 7, a="x"), changed, event("BOOKMARK", 9))
    with StandInApiServer(tmp_path, GET, told, QUIET) as server, watching(server, tmp_path) as running:
        running.until(lambda: len(server.requests) == 3)

        assert asked(server)[2] == "watch 9"
        assert len(running.published) == 1


def test_huge_event(tmp_path: Path) -> None:
    """An event of several megabytes, in pieces and with another behind it, is one event."""
    note = "ü" * 500_000
    text = event("MODIFIED", 6, a=note)
    with StandInApiServer(tmp_path, GET, stream(text, event("MODIFIED", 7, b="2"), stall)) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.annotation("b") == "2")

        assert running.published[1].node is not None
        assert running.published[1].node.annotations == {"a": note}


def test_event_without_end(tmp_path: Path) -> None:
    """A line that does not end is given up on before it fills the memory."""
    endless = stream(*[b"x" * (1 << 20)] * 17, stall)
    pace = PACE._replace(first_silence=20)
    with StandInApiServer(tmp_path, GET, endless, GET, QUIET) as server, watching(server, tmp_path, pace=pace) as running:
        running.until(lambda: len(server.requests) == 4)

        assert running.counts.restarts == ["error"]


def test_accepted_and_silent(tmp_path: Path) -> None:
    """A watch that says nothing is taken for healthy until the time for a bookmark is over; then the Node is asked for anew."""
    changed = answer(node("n1", 9, "u1", a="new"))
    with StandInApiServer(tmp_path, GET, QUIET, changed, QUIET) as server, watching(server, tmp_path) as running:
        running.until_watching()
        took = running.until(lambda: running.counts.restarts == ["stalled"])
        running.until(lambda: len(server.requests) >= 4)

        assert running.annotation("a") == "new"
        assert took > 0.5
        assert asked(server)[:4] == ["get", "watch 5", "get", "watch 9"]


def test_trickling_refusal(tmp_path: Path) -> None:
    """A server that sends a byte of its answer's head or of a refusal now and then does not hold up the watch."""

    def slow(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-")
        trickle_raw(handler)

    def trickle_raw(handler: Any) -> None:
        while not handler.server.stand_in.ended.wait(0.05):
            handler.wfile.write(b"x")

    with StandInApiServer(tmp_path, GET, slow, GET, QUIET) as server, watching(server, tmp_path) as running:
        running.until(lambda: ("watch", "timeout") in running.counts.requests)
        running.until_watching()


def test_trickling_get(tmp_path: Path) -> None:
    """A server that sends a byte now and then does not hold up the first GET."""
    with StandInApiServer(tmp_path, trickle, GET, QUIET) as server, watching(server, tmp_path) as running:
        running.until_watching()

        assert running.counts.requests[0] == ("get", "error")
        assert server.requests


def test_first_disconnect_is_followed_at_once(tmp_path: Path) -> None:
    """A healthy watch that is cut is there again without a pause; one that is cut again and again is not."""
    pace = PACE._replace(shortest=200, longest=200)  # of which a pause takes half, at least
    with (
        StandInApiServer(tmp_path, GET, stream(0.5, cut), then=stream(cut)) as server,
        watching(server, tmp_path, pace=pace) as running,
    ):
        running.until(lambda: len(server.requests) == 3)
        time.sleep(0.3)

        assert len(server.requests) == 3


@pytest.mark.slow
def test_attempts_become_rarer(tmp_path: Path) -> None:
    """The longer the trouble lasts, the longer the pauses, up to a bound; each is drawn between half and the whole."""
    pace = PACE._replace(shortest=0.02, longest=0.5, share=4)
    with StandInApiServer(tmp_path, then=refuse(500)) as server, watching(server, tmp_path, pace=pace) as running:
        times: list[float] = []
        seen = 0
        began = time.monotonic()
        while time.monotonic() - began < 4:
            if len(server.requests) > seen:
                seen = len(server.requests)
                times.append(time.monotonic() - began)
            time.sleep(0.002)

        assert running.watch.failure is not None
        assert running.watch.failure.code == TRY_AGAIN_LATER
        early = sum(at < 1 for at in times)
        late = sum(3 <= at < 4 for at in times)
        assert early > 2 * late
        running.until(lambda: len(server.requests) > seen)


@pytest.mark.parametrize(
    "broken", [refuse(403, 'User "u" cannot watch resource "nodes" in API group "" at the cluster scope', "Forbidden")]
)
def test_forbidden_watch_falls_back_to_get(tmp_path: Path, broken: Step) -> None:
    """Where the right to watch is missing, `failure` names it and the Node is read by GET."""
    steps = GET, broken, answer(node("n1", 6, "u1", a="new")), broken
    with StandInApiServer(tmp_path, *steps, then=stall) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.annotation("a") == "new")
        running.until(lambda: len(server.requests) == 5)
        running.until(lambda: running.watch.failure is not None and running.watch.failure.code == FORBIDDEN)
        failure = running.watch.failure

        assert failure is not None
        assert 'verbs: ["watch"]' in failure.details


def _exec(directory: Path) -> dict[str, Any]:
    """Return a user whose credential plugin prints what stands in the file `token`."""
    kind = '"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"'
    script = f"""echo '{{{kind}, "status": {{"token": "'$(cat {directory}/token)'"}}}}'"""
    api_version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": api_version, "command": "/bin/sh", "args": ["-c", script], "interactiveMode": "Never"}}


@pytest.mark.parametrize("make_user", [lambda _: {"tokenFile": "token"}, _exec], ids=["file", "exec"])
def test_rotated_token(tmp_path: Path, make_user: Callable[[Path], dict[str, Any]]) -> None:
    """After a 401 the token is read again, or the credential plugin run again, and the watch asked for at once."""
    (tmp_path / "token").write_text("t1")

    def rotate(handler: Any) -> None:
        (tmp_path / "token").write_text("t2")
        refuse(401)(handler)

    steps = GET, rotate, QUIET
    with StandInApiServer(tmp_path, *steps) as server, watching(server, tmp_path, make_user(tmp_path)) as running:
        running.until_watching()

        assert [seen.headers["Authorization"] for seen in server.requests] == ["Bearer t1", "Bearer t1", "Bearer t2"]
        assert running.counts.requests == [("get", "200"), ("watch", "200")]


def test_rotated_kubeconfig(tmp_path: Path) -> None:
    """A kubeconfig that was rewritten is taken when the watch begins again."""
    with StandInApiServer(tmp_path, GET, refuse(401), then=refuse(401)) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.watch.failure is not None and running.watch.failure.code == UNAUTHORIZED)
        cluster = {"server": server.url, "certificate-authority-data": base64_text(server.authority.certificate)}
        write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t9"})
        running.until(lambda: server.requests[-1].headers["Authorization"] == "Bearer t9")
        server.script[:] = [QUIET]  # not before: a request with the old token may be under way
        running.until_watching()


@pytest.mark.slow
def test_no_server(tmp_path: Path) -> None:
    """Where nothing listens `failure` says so in the words of the system."""
    with StandInApiServer(tmp_path, GET, stream(reset)) as server:
        running = watching(server, tmp_path)
        with running:
            running.until_watching()
            write_kubeconfig(tmp_path / "kube.conf", {"server": "https://127.0.0.1:1"}, {"token": "t0"})
            running.until(lambda: ("watch", "error") in running.counts.requests)

            assert "no answer from API server https://127.0.0.1:1: [Errno 111] Connection refused" in str(running.watch.failure)


def test_proxy(tmp_path: Path) -> None:
    """The watch goes through the proxy of the kubeconfig, as the GET does."""
    with StandInApiServer(tmp_path, GET, stream(event("MODIFIED", 6, a="new"), stall)) as server, StandInProxy() as proxy:
        with watching(server, tmp_path, proxy_url=proxy.url) as running:
            running.until(lambda: running.annotation("a") == "new")

        assert proxy.targets == [f"127.0.0.1:{server.port}"] * 2


def test_unknown_authority(tmp_path: Path) -> None:
    """An API server whose certificate is another authority's is not believed, and `failure` says what to correct."""
    authority = Authority()
    with StandInApiServer(tmp_path) as server, watching(server, tmp_path, certificate_authority=authority.certificate) as running:
        running.until(lambda: running.watch.failure is not None and "certificate" in running.watch.failure.msg)

        assert "correct certificate-authority" in str(running.watch.failure)
        assert server.requests == []


def test_deleted_while_nobody_watched(tmp_path: Path) -> None:
    """A Node that was deleted during an outage is published as gone when it is missed."""
    steps = GET, refuse(410, "too old", "Expired"), refuse(404, 'nodes "n1" not found', "NotFound")
    again = answer(node("n1", 20, "u2", a="again"))
    with StandInApiServer(tmp_path, *steps, again, QUIET) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.annotation("a") == "again")
        running.until_watching()

        assert [published.node is None for published in running.published] == [False, True, False]
        assert ("get", "404") in running.counts.requests
        assert asked(server)[-1] == "watch 20"


def test_deleted_between_get_and_watch(tmp_path: Path) -> None:
    """A watch from version 0 that tells of no Node makes sure that there is one."""
    not_found = refuse(404, 'nodes "n1" not found', "NotFound")
    with StandInApiServer(tmp_path, GET, refuse(410), GET, QUIET, then=not_found) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.last is None and running.published)
        running.until(lambda: running.watch.failure is not None and running.watch.failure.code == NODE_NOT_FOUND)

        assert asked(server)[:5] == ["get", "watch 5", "get", "watch 0", "get"]


def test_server_that_lags_behind(tmp_path: Path) -> None:
    """Of several API servers one that has an older Node does not take back what another has told."""
    lagging = stream(event("ADDED", 3, a="older"), event("MODIFIED", 5, a="old"), event("MODIFIED", 6, a="new"), stall)
    with StandInApiServer(tmp_path, GET, refuse(410), GET, lagging) as server, watching(server, tmp_path) as running:
        running.until(lambda: running.annotation("a") == "new")

        notes = [published.node.annotations["a"] for published in running.published if published.node]
        assert notes == ["old", "new"]


def test_publish_that_fails(tmp_path: Path) -> None:
    """Where what is published cannot be taken, as on a full disk, `failure` says so and it is published again."""
    with StandInApiServer(tmp_path, GET, GET, QUIET) as server:
        running = watching(server, tmp_path)
        publish = running.source._publish
        failing = [OSError(28, "No space left on device")]

        def full(own: Node | None) -> None:
            if failing:
                raise failing.pop()
            publish(own)

        running.source._publish = full
        with running:
            running.until(lambda: running.watch.failure is not None and "No space left" in running.watch.failure.msg)
            running.until_watching()

    assert len(running.published) == 1


@pytest.mark.parametrize("step", [stall, stream(stall)])
def test_cancelling_closes_the_connection(tmp_path: Path, step: Step) -> None:
    """An agent that stops does not wait for a silent server, and leaves no connection open."""
    with StandInApiServer(tmp_path, GET, step) as server:
        with watching(server, tmp_path, timeout=10 * PATIENCE) as running:
            running.until(lambda: len(server.requests) == 2)

        assert running.stop_seconds < PATIENCE
        eventually(lambda: _established(server.port) == 0, "a connection is left open")


def test_cancelling_during_the_first_get(tmp_path: Path) -> None:
    """An agent that stops does not wait for a silent server's answer to its GET."""
    with StandInApiServer(tmp_path, stall) as server:
        with watching(server, tmp_path, timeout=10 * PATIENCE) as running:
            running.until(lambda: len(server.requests) == 1)

        assert running.stop_seconds < PATIENCE


def test_keepalive(tmp_path: Path) -> None:
    """The kernel asks a silent peer after 15 s whether it is there."""
    with StandInApiServer(tmp_path, GET, QUIET) as server, watching(server, tmp_path, pace=Pace()) as running:
        running.until_watching()
        ours = [fields[5] for fields in _connections() if fields[2].endswith(f":{server.port:04X}") and fields[3] == "01"]

        kind, _, ticks = ours[0].partition(":")
        assert kind == "02"
        assert int(ticks, 16) <= 1500


@pytest.mark.slow
def test_lost_packets(tmp_path: Path) -> None:
    """A connection that does not come about is given up on after three seconds: until then a SYN goes out each second or two."""
    with StandInApiServer(tmp_path, GET, stream(0.2, cut), QUIET) as server, watching(server, tmp_path, timeout=10) as running:
        running.until(lambda: len(server.requests) == 2)
        # A listener whose queue is full drops SYNs as a network that is down would.
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        address = full.getsockname()
        fill = [socket.socket() for _ in range(3)]
        for one in fill:
            one.setblocking(False)  # noqa: FBT003
            one.connect_ex(address)
        cluster = {"server": f"https://127.0.0.1:{address[1]}"}
        write_kubeconfig(tmp_path / "kube.conf", cluster, {"token": "t0"})
        running.until(lambda: ("watch", "timeout") in running.counts.requests)

        assert "no answer from API server" in str(running.watch.failure)
        for one in [full, *fill]:
            one.close()


def test_threads_do_not_pile_up(tmp_path: Path) -> None:
    """Attempts leave no thread behind."""
    before = threading.active_count()
    with StandInApiServer(tmp_path, then=refuse(500)) as server, watching(server, tmp_path) as running:
        running.until(lambda: len(server.requests) > 5)
        time.sleep(0.1)

        assert threading.active_count() - before < 15


def _connections() -> list[list[str]]:
    """Return the fields of each TCP socket: 2 is the peer, 3 the state (01: established), 5 the timer (kind 02: keepalive)."""
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


def _established(port: int) -> int:
    return sum(fields[2].endswith(f":{port:04X}") and fields[3] == "01" for fields in _connections())
