# SPDX-License-Identifier: Apache-2.0
"""The client against what a real API server will not produce on demand: overload, stalls, half answers, expired lists."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import base64_text, write_kubeconfig
from patience import at_best
from standin import StandInApiServer, answer, half, node, page, refuse, reset, stall, trickle

from kubenode.cni.errors import KUBECONFIG, NODE_INVALID, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError
from kubenode.kube.client import ApiServer, within

if TYPE_CHECKING:
    from pathlib import Path

    from standin import Step

N1 = node("n1")
HTML = {"Content-Type": "text/html"}


def client(
    server: StandInApiServer, directory: Path, user: dict[str, Any] | None = None, timeout: float = 5, path: str = "", **cluster: Any
) -> ApiServer:
    said = {"server": server.url + path, "certificate-authority-data": base64_text(server.authority.certificate)}
    changes = {key.replace("_", "-"): value for key, value in cluster.items()}
    kubeconfig = write_kubeconfig(directory / "kube.conf", said | changes, user or {"token": "t0"})
    return ApiServer(str(kubeconfig), {}, timeout)


@pytest.mark.parametrize(
    ("step", "code", "complaint"),
    [
        (refuse(500, "etcd is gone"), TRY_AGAIN_LATER, "answered 500: etcd is gone"),
        (refuse(429, "slow down"), TRY_AGAIN_LATER, "answered 429: slow down"),
        (refuse(503, "starting", Retry_After="3600"), TRY_AGAIN_LATER, "answered 503: starting"),
        (refuse(503, "starting", Retry_After="soon"), TRY_AGAIN_LATER, "answered 503: starting"),
        (refuse(401, "Unauthorized"), UNAUTHORIZED, "answered 401: Unauthorized"),
        (refuse(422, "no such field"), NODE_INVALID, "answered 422: no such field"),
        (refuse(404, "not of this world", "Other"), NODE_INVALID, "answered 404: not of this world"),
        (answer(b"<html>bad gateway", 502, HTML), TRY_AGAIN_LATER, "answered 502: <html>bad gateway"),
        (answer(b"404 page not found", 404, HTML), KUBECONFIG, "answered 404: 404 page not found"),
        (answer(b"", 302, {"Location": "https://192.0.2.1/login"}), KUBECONFIG, "answered 302: no text"),
        (answer(b'["Status"]', 400), KUBECONFIG, "answered 400: "),
        (answer(b"<html>welcome to the wifi", headers=HTML), TRY_AGAIN_LATER, "something other than a Node"),
        (answer(b"[1]"), TRY_AGAIN_LATER, "something other than a Node"),
        (answer(b'"text"'), TRY_AGAIN_LATER, "something other than a Node"),
        (answer(b"5"), TRY_AGAIN_LATER, "something other than a Node"),
        (answer(b""), TRY_AGAIN_LATER, "something other than a Node"),
        (answer(b"\xff"), TRY_AGAIN_LATER, "something other than a Node"),
        (answer({"kind": "Pod"}), TRY_AGAIN_LATER, "something other than a Node: a Pod"),
        (answer(b"not gzip", headers={"Content-Encoding": "gzip"}), TRY_AGAIN_LATER, "no answer from API server"),
        (half, TRY_AGAIN_LATER, "no answer from API server"),
        (reset, TRY_AGAIN_LATER, "no answer from API server"),
    ],
)
def test_fault(tmp_path: Path, step: Step, code: int, complaint: str) -> None:
    """Whatever comes instead of a Node is one error with the server's URL, after one request."""
    with StandInApiServer(tmp_path, step) as server:
        with pytest.raises(CNIError, match=complaint) as caught:
            client(server, tmp_path).node("n1")

        assert caught.value.code == code
        assert server.url in caught.value.msg
        assert caught.value.details
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "step",
    [answer({"items": 5}), answer({"items": [5]}), answer({"items": [{"metadata": 5}]}), answer(b"<html>"), answer([])],
)
def test_fault_in_a_list(tmp_path: Path, step: Step) -> None:
    """A list of another shape is one error, too."""
    with StandInApiServer(tmp_path, step) as server:
        with pytest.raises(CNIError, match="something other than a Node") as caught:
            list(client(server, tmp_path).nodes())

        assert caught.value.code == TRY_AGAIN_LATER


def test_other_kinds_of_404_are_none_of_a_node(tmp_path: Path) -> None:
    """Only the API server's own NotFound says that there is no such Node."""
    with StandInApiServer(tmp_path, refuse(404, 'nodes "n1" not found', "NotFound")) as server:
        assert client(server, tmp_path).node("n1") is None


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(tmp_path: Path, status: int) -> None:
    """A busy server that says when to come again is asked once more, not before."""
    with StandInApiServer(tmp_path, refuse(status, Retry_After="1"), answer(N1)) as server:
        began = time.monotonic()

        assert client(server, tmp_path).node("n1") == N1

        assert time.monotonic() - began >= 1
        assert len(server.requests) == 2


def test_retry_after_only_once(tmp_path: Path) -> None:
    """A server that stays busy gets no third request."""
    with StandInApiServer(tmp_path, *[refuse(429, Retry_After="0")] * 3) as server:
        with pytest.raises(CNIError, match="answered 429"):
            client(server, tmp_path).node("n1")

        assert len(server.requests) == 2


def test_token_is_read_again_after_401(tmp_path: Path) -> None:
    """After a 401 the token file is read again, once; the second 401 is an error."""
    (tmp_path / "token").write_text("t1")
    with StandInApiServer(tmp_path, refuse(401), answer(N1), refuse(401), refuse(401)) as server:
        asking = client(server, tmp_path, {"tokenFile": "token"})
        (tmp_path / "token").write_text("t2")

        assert asking.node("n1") == N1
        with pytest.raises(CNIError) as caught:
            asking.node("n1")

        assert caught.value.code == UNAUTHORIZED
        assert [seen.headers["Authorization"] for seen in server.requests] == ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t2"]


def test_unreadable_token_file_leaves_the_token(tmp_path: Path) -> None:
    """Where tokenFile cannot be read, token stands in for it."""
    with StandInApiServer(tmp_path, answer(N1)) as server:
        client(server, tmp_path, {"tokenFile": "gone", "token": "t3"}).node("n1")

        assert server.requests[0].headers["Authorization"] == "Bearer t3"


@pytest.mark.parametrize("token", ["", "\n", "two words", "naïve", "a\nb"])
def test_unusable_token_file(tmp_path: Path, token: str) -> None:
    """A token that cannot stand in a header is an error that names its file, and shows nothing of it."""
    (tmp_path / "token").write_text(token)
    with (
        StandInApiServer(tmp_path) as server,
        pytest.raises(CNIError, match=f"^token file {tmp_path}/token is not a bearer token") as caught,
    ):
        client(server, tmp_path, {"tokenFile": "token"})

    assert caught.value.code == KUBECONFIG


def test_password(tmp_path: Path) -> None:
    """username and password are HTTP basic authentication."""
    with StandInApiServer(tmp_path, answer(N1)) as server:
        client(server, tmp_path, {"username": "jo", "password": "sé"}).node("n1")

        assert server.requests[0].headers["Authorization"] == f"Basic {base64_text('jo:sé'.encode())}"


def test_server_with_a_path(tmp_path: Path) -> None:
    """A server URL with a path, as Rancher's, is what the API's paths are added to."""
    with StandInApiServer(tmp_path, answer(N1)) as server:
        client(server, tmp_path, path="/k8s/clusters/c-1").node("n1")

        assert server.requests[0].path == "/k8s/clusters/c-1/api/v1/nodes/n1"


def test_server_name_is_sent(tmp_path: Path) -> None:
    """tls-server-name is what the server hears (SNI) and what its certificate has to say, whatever the URL says."""
    with StandInApiServer(tmp_path, answer(N1), names=("kubernetes.test",)) as server:
        assert client(server, tmp_path, tls_server_name="kubernetes.test").node("n1") == N1
        assert server.server_names == ["kubernetes.test"]

        with pytest.raises(CNIError, match=r"does not match: .*127\.0\.0\.1"):
            client(server, tmp_path).node("n1")


def test_list_goes_on_page_by_page(tmp_path: Path) -> None:
    """The token of a page asks for the next."""
    with StandInApiServer(tmp_path, page(["a", "b"], "t/1="), page(["c"])) as server:
        assert [found["metadata"]["name"] for found in client(server, tmp_path).nodes()] == ["a", "b", "c"]
        assert [seen.path for seen in server.requests] == ["/api/v1/nodes?limit=500", "/api/v1/nodes?limit=500&continue=t%2F1%3D"]


def test_expired_list_starts_again(tmp_path: Path) -> None:
    """Where a list expires between its pages it is asked for again, and no Node comes twice."""
    steps = page(["a", "b"], "x"), refuse(410, "too old", "Expired"), page(["a", "b"], "y"), page(["c"])
    with StandInApiServer(tmp_path, *steps) as server:
        assert [found["metadata"]["name"] for found in client(server, tmp_path).nodes()] == ["a", "b", "c"]
        assert len(server.requests) == 4


def test_list_that_keeps_expiring(tmp_path: Path) -> None:
    """A list that expires twice is an error that says to try again."""
    steps = (page(["a"], "x"), refuse(410, "too old", "Expired")) * 2
    with StandInApiServer(tmp_path, *steps) as server:
        with pytest.raises(CNIError, match="answered 410: too old") as caught:
            list(client(server, tmp_path).nodes())

        assert caught.value.code == TRY_AGAIN_LATER
        assert len(server.requests) == 4


def test_silent_server(tmp_path: Path) -> None:
    """A server that never answers costs the timeout and no more."""
    with StandInApiServer(tmp_path, then=stall) as server:

        def ask() -> None:
            with pytest.raises(CNIError, match=f"no answer from API server {server.url}: ") as caught:
                client(server, tmp_path, timeout=0.5).node("n1")
            assert caught.value.code == TRY_AGAIN_LATER

        assert at_best(ask, 3) < 3


def test_trickling_server(tmp_path: Path) -> None:
    """A server that sends a byte now and then resets every timeout but `within`'s."""
    with StandInApiServer(tmp_path, then=trickle) as server:

        def ask() -> None:
            asking = client(server, tmp_path, timeout=0.5)
            with pytest.raises(CNIError, match="was not done within 1 s") as caught:
                within(1, lambda: asking.node("n1"))
            assert caught.value.code == TRY_AGAIN_LATER

        assert at_best(ask, 3) < 3


def test_within_hands_on_what_comes() -> None:
    """What the function returns is returned, and what it raises is raised."""
    assert within(5, lambda: "answer") == "answer"
    assert within(5, lambda: None) is None

    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)


def test_within_does_not_hold_up_the_end() -> None:
    """The thread that is given up on does not keep a plugin's process alive."""
    never = threading.Event()
    with pytest.raises(CNIError, match=r"within 0\.1 s"):
        within(0.1, never.wait)

    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    never.set()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6443"])
def test_no_server(tmp_path: Path, address: str) -> None:
    """A server that cannot be reached, or whose name nobody knows, is an error with its URL that says to try again."""
    kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": f"https://{address}"}, {"token": "x"})

    with pytest.raises(CNIError, match=f"no answer from API server https://{address}: ") as caught:
        ApiServer(str(kubeconfig), {}, 5).node("n1")

    assert caught.value.code == TRY_AGAIN_LATER
    assert f"is {address.partition(':')[0]} reachable" in caught.value.details


@pytest.mark.parametrize("server", ["https://10.0.0.01:6443", f"https://{'x' * 70000}"])
def test_server_that_is_no_host(tmp_path: Path, server: str) -> None:
    """A server whose host cannot be one is an error of the kubeconfig, though the URL looks like one."""
    kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": server}, {"token": "x"})

    with pytest.raises(CNIError, match=f"for user 'test' of kubeconfig {kubeconfig}: ") as caught:
        ApiServer(str(kubeconfig), {}, 5)

    assert caught.value.code == KUBECONFIG


@pytest.mark.parametrize("name", ["", ".", "..", "../../secrets", "n1?watch=1", "n1#", "n1/status", "a b", "ü", "N1", "%2e", "a\n"])
def test_odd_name(tmp_path: Path, name: str) -> None:
    """A name that no Node can have is not there, and does not become a request for something else."""
    with StandInApiServer(tmp_path) as server:
        assert client(server, tmp_path).node(name) is None
        assert server.requests == []
