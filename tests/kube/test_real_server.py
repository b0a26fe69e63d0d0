# SPDX-License-Identifier: Apache-2.0
"""The client against a real API server: Nodes, rights, every kind of credentials."""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import RealApiServer, base64_text

from kubenode.cni.errors import FORBIDDEN, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError
from kubenode.kube.client import ApiServer
from kubenode.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT = 10.0
NO_ENVIRON: dict[str, str] = {}
IN_CLUSTER_KEYS = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")


def test_node_is_what_the_api_server_says(api_server: RealApiServer, reader: str, tmp_path: Path) -> None:
    """A Node comes as the API server's JSON says it, and costs one GET that says who asks."""
    before = api_server.asked()
    client = ApiServer(str(api_server.kubeconfig(tmp_path / "kube.conf", reader)), NO_ENVIRON, TIMEOUT)

    node = client.node("n1")

    assert node == api_server.request("GET", "/api/v1/nodes/n1")
    [asked] = api_server.asked()[len(before) :]
    assert (asked.user, asked.verb, asked.resource, asked.name) == (reader, "get", "nodes", "n1")
    assert asked.agent == f"kube-node/{VERSION}"


def test_no_such_node(api_server: RealApiServer, reader: str, tmp_path: Path) -> None:
    """A Node that is not there is None, not an error."""
    client = ApiServer(str(api_server.kubeconfig(tmp_path / "kube.conf", reader)), NO_ENVIRON, TIMEOUT)

    assert client.node("no-such-node") is None


def test_get_alone_does_not_list(api_server: RealApiServer, reader: str, tmp_path: Path) -> None:
    """With `get` on nodes only, one Node can be had; a list cannot, and the error names verb, resource, user and the rule needed."""
    client = ApiServer(str(api_server.kubeconfig(tmp_path / "kube.conf", reader)), NO_ENVIRON, TIMEOUT)
    assert client.node("n1") is not None

    with pytest.raises(CNIError) as caught:
        list(client.nodes())

    assert caught.value.code == FORBIDDEN
    assert 'User "reader" cannot list resource "nodes"' in caught.value.msg
    assert 'resources: ["nodes"], verbs: ["list"]' in caught.value.details


@pytest.mark.parametrize("user", ["nobody-special", None])
def test_no_right_at_all(api_server: RealApiServer, tmp_path: Path, user: str | None) -> None:
    """A user without any right, and one without credentials, are told which verb, resource and user were refused."""
    client = ApiServer(str(api_server.kubeconfig(tmp_path / "kube.conf", user or {})), NO_ENVIRON, TIMEOUT)

    for ask, verb in (lambda: client.node("n1"), "get"), (lambda: list(client.nodes()), "list"):
        with pytest.raises(CNIError) as caught:
            ask()
        assert caught.value.code == FORBIDDEN
        assert f'User "{user or "system:anonymous"}" cannot {verb} resource "nodes"' in caught.value.msg
        assert f'verbs: ["{verb}"]' in caught.value.details


def test_list_in_pages(api_server: RealApiServer, tmp_path: Path) -> None:
    """More Nodes than fit in a page are all there, each once, and each the whole object that a GET has."""
    names = {f"many-{number}" for number in range(510)}
    for name in names:
        body = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "labels": {"test": "pages"}}}
        api_server.request("POST", "/api/v1/nodes", body)
    api_server.grant("lister", "list")
    before = api_server.asked()
    try:
        client = ApiServer(str(api_server.kubeconfig(tmp_path / "kube.conf", "lister")), NO_ENVIRON, TIMEOUT)
        listed = list(client.nodes())
        found = [node["metadata"]["name"] for node in listed]
        whole = api_server.request("GET", "/api/v1/nodes/many-7")
    finally:
        api_server.request("DELETE", "/api/v1/nodes?labelSelector=test%3Dpages")

    assert sorted(name for name in found if name.startswith("many-")) == sorted(names)
    assert [node for node in listed if node["metadata"]["name"] == "many-7"] == [whole]
    assert len([asked for asked in api_server.asked()[len(before) :] if asked.verb == "list"]) == 2


def _certificate_data(server: RealApiServer, directory: Path) -> dict[str, Any]:
    return server.certificate_user("reader")


def _certificate_files(server: RealApiServer, directory: Path) -> dict[str, Any]:
    pair = server.authority.client("reader")
    (directory / "c.crt").write_bytes(pair.certificate)
    (directory / "c.key").write_bytes(pair.key)
    return {"client-certificate": "c.crt", "client-key": "c.key"}


def _token(server: RealApiServer, directory: Path) -> dict[str, Any]:
    return {"token": server.token("reading-account")}


def _token_file(server: RealApiServer, directory: Path) -> dict[str, Any]:
    (directory / "token").write_text(server.token("reading-account") + "\n")
    return {"tokenFile": "token", "token": "tokenFile wins over token"}


def _exec(directory: Path, version: str, status: dict[str, str]) -> dict[str, Any]:
    api_version = f"client.authentication.k8s.io/{version}"
    answer = {"apiVersion": api_version, "kind": "ExecCredential", "status": status}
    return {"exec": {"apiVersion": api_version, "command": "echo", "args": [json.dumps(answer)], "interactiveMode": "Never"}}


def _exec_v1(server: RealApiServer, directory: Path) -> dict[str, Any]:
    return _exec(directory, "v1", {"token": server.token("reading-account")})


def _exec_v1beta1(server: RealApiServer, directory: Path) -> dict[str, Any]:
    return _exec(directory, "v1beta1", {"token": server.token("reading-account")})


def _exec_certificate(server: RealApiServer, directory: Path) -> dict[str, Any]:
    pair = server.authority.client("reader")
    return _exec(directory, "v1", {"clientCertificateData": pair.certificate.decode(), "clientKeyData": pair.key.decode()})


@pytest.mark.parametrize(
    "make_user",
    [_certificate_data, _certificate_files, _token, _token_file, _exec_v1, _exec_v1beta1, _exec_certificate],
)
def test_credentials(
    api_server: RealApiServer, account: str, tmp_path: Path, make_user: Callable[[RealApiServer, Path], dict[str, Any]]
) -> None:
    """Every kind of credentials that a kubeconfig may hold is one that the API server accepts."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", make_user(api_server, tmp_path))

    node = ApiServer(str(kubeconfig), {"PATH": os.environ["PATH"]}, TIMEOUT).node("n1")

    assert node is not None
    assert node["spec"]["podCIDRs"] == ["10.0.1.0/24", "fd00:1::/64"]


def test_service_account(api_server: RealApiServer, account: str, tmp_path: Path) -> None:
    """In a pod, the service account's files and the environment are all that is needed."""
    (tmp_path / "token").write_text(api_server.token(account))
    (tmp_path / "ca.crt").write_bytes(api_server.authority.certificate)
    host, _, port = api_server.url.removeprefix("https://").partition(":")

    client = ApiServer(None, dict(zip(IN_CLUSTER_KEYS, (host, port), strict=True)), TIMEOUT, service_account=str(tmp_path))

    assert client.node("n1") is not None


def test_rotated_token(api_server: RealApiServer, account: str, tmp_path: Path) -> None:
    """A token file that has been rewritten since it was read is read again when the API server says 401."""
    token_file = tmp_path / "token"
    token_file.write_text("stale")
    client = ApiServer(str(api_server.kubeconfig(tmp_path / "kube.conf", {"tokenFile": "token"})), NO_ENVIRON, TIMEOUT)
    token_file.write_text(api_server.token(account))

    assert client.node("n1") is not None


def _expired_certificate(server: RealApiServer) -> dict[str, Any]:
    pair = server.authority.client("reader", lifetime=dt.timedelta(days=-1))
    return {"client-certificate-data": base64_text(pair.certificate), "client-key-data": base64_text(pair.key)}


@pytest.mark.parametrize("make_user", [_expired_certificate, lambda server: {"token": "no-such-token"}], ids=["certificate", "token"])
def test_unauthorized(api_server: RealApiServer, tmp_path: Path, make_user: Callable[[RealApiServer], dict[str, Any]]) -> None:
    """Credentials that the API server does not know are an error that names the server and the kubeconfig's user."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", make_user(api_server))

    with pytest.raises(CNIError) as caught:
        ApiServer(str(kubeconfig), NO_ENVIRON, TIMEOUT).node("n1")

    assert caught.value.code == UNAUTHORIZED
    assert api_server.url in caught.value.msg
    assert f"user 'test' of kubeconfig {kubeconfig}" in caught.value.details


def test_server_down_and_up_again(api_server: RealApiServer, reader: str, tmp_path: Path) -> None:
    """While the API server is down the error says to try again and names it; afterwards the same client works again."""
    client = ApiServer(str(api_server.kubeconfig(tmp_path / "kube.conf", reader)), NO_ENVIRON, TIMEOUT)
    assert client.node("n1") is not None

    api_server.stop()
    try:
        with pytest.raises(CNIError, match=f"no answer from API server {api_server.url}: .*Connection refused") as caught:
            client.node("n1")
    finally:
        api_server.start()

    assert caught.value.code == TRY_AGAIN_LATER
    assert client.node("n1") is not None
