# SPDX-License-Identifier: Apache-2.0
"""A plugin's request to the API server, and the second try that it makes, over a wire that is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import httpx2
import pytest

from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.kube import transport
from kubenode.kube.kubeconfig import Connection, KubeconfigCluster, User
from kubenode.kube.refusal import StatusError

if TYPE_CHECKING:
    from pathlib import Path

URL = "https://10.96.0.1/api/v1/nodes/n"
TIMEOUT = 5.0


class Wire(httpx2.BaseTransport):
    """Answers what it is given, one after another: a status, with headers, or no answer; keeps what it was asked with."""

    def __init__(self, *answers: httpx2.Response | httpx2.RequestError) -> None:
        self.tokens: list[str] = []
        self._answers = list(answers)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.tokens.append(request.headers.get("Authorization", ""))
        answer = self._answers.pop(0)
        if isinstance(answer, httpx2.RequestError):
            raise answer
        return answer


class Asking:
    """A transport with a token in a file, and the wire that it uses."""

    def __init__(self, directory: Path, *answers: httpx2.Response | httpx2.RequestError, user: User | None = None) -> None:
        self.file = directory / "token"
        self.file.write_text("first")
        self.wire = Wire(*answers)
        connection = Connection(
            "the kubeconfig", KubeconfigCluster("https://10.96.0.1", insecure=True), user or User(token_file=str(self.file))
        )
        self._transport = transport.Transport(connection, {}, TIMEOUT)
        self._transport._wire = cast("httpx2.HTTPTransport", self.wire)

    def status(self) -> int:
        """Ask for a Node. Raises CNIError."""
        return self._transport.send(httpx2.Request("GET", URL)).status_code


def test_an_answer(tmp_path: Path) -> None:
    """A Node comes back with 200, a SelfSubjectAccessReview with 201; each is asked for once, with the token."""
    for status in (200, 201):
        asking = Asking(tmp_path, httpx2.Response(status))
        assert asking.status() == status
        assert asking.wire.tokens == ["Bearer first"]


def test_a_token_that_has_been_renewed(tmp_path: Path) -> None:
    """After a 401 the token is read again and tried, once."""
    asking = Asking(tmp_path, httpx2.Response(401), httpx2.Response(200))
    asking.file.write_text("second")
    assert asking.status() == 200
    assert asking.wire.tokens == ["Bearer first", "Bearer second"]
    asking = Asking(tmp_path, httpx2.Response(401), httpx2.Response(401))
    with pytest.raises(StatusError) as refused:
        asking.status()
    assert refused.value.status == 401


def test_a_token_that_cannot_be_another(tmp_path: Path) -> None:
    """A token in the kubeconfig itself is not tried twice."""
    asking = Asking(tmp_path, httpx2.Response(401), user=User(token="t"))
    with pytest.raises(StatusError):
        asking.status()
    assert asking.wire.tokens == ["Bearer t"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_is_busy(tmp_path: Path, status: int) -> None:
    """A server that says when it can be asked again is asked then, once; a pause that is too long is handed on."""
    soon, late = {"Retry-After": "0.01"}, {"Retry-After": str(TIMEOUT + 1)}
    assert Asking(tmp_path, httpx2.Response(status, headers=soon), httpx2.Response(200)).status() == 200
    for answers, pause in (([soon, soon], 0.01), ([late], TIMEOUT + 1), ([{}], None), ([{"Retry-After": "Fri, 1 Jan 2027"}], None)):
        asking = Asking(tmp_path, *(httpx2.Response(status, headers=headers) for headers in answers))
        with pytest.raises(StatusError) as refused:
            asking.status()
        assert (refused.value.status, refused.value.retry_after, len(asking.wire.tokens)) == (status, pause, len(answers))


def test_other_refusals(tmp_path: Path) -> None:
    """What is refused for another reason is not asked for again, whatever the server says of a pause."""
    for status in (403, 404, 500):
        asking = Asking(tmp_path, httpx2.Response(status, headers={"Retry-After": "0"}))
        with pytest.raises(StatusError) as refused:
            asking.status()
        assert (refused.value.status, len(asking.wire.tokens)) == (status, 1)


def test_no_answer(tmp_path: Path) -> None:
    """No answer is an error that names the server, and to be tried again later; a second try is the runtime's."""
    for failure in (httpx2.ConnectError("refused"), httpx2.ReadTimeout("silent"), httpx2.RemoteProtocolError("half")):
        asking = Asking(tmp_path, failure)
        with pytest.raises(CNIError, match=r"https://10\.96\.0\.1") as error:
            asking.status()
        assert (error.value.code, len(asking.wire.tokens)) == (TRY_AGAIN_LATER, 1)
