# SPDX-License-Identifier: Apache-2.0
"""TLS with a real API server: names, authorities, client certificates, and keys that stay off the disk."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from apiserver import RealApiServer, base64_text, write_kubeconfig
from authority import Authority
from cryptography.hazmat.primitives import serialization

from kubenode.cni.errors import KUBECONFIG, CNIError
from kubenode.kube.client import ApiServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT = 10.0
NO_ENVIRON: dict[str, str] = {}


def test_insecure(api_server: RealApiServer, reader: str, tmp_path: Path) -> None:
    """insecure-skip-tls-verify talks to a server whose certificate nobody vouches for."""
    cluster = {"certificate_authority_data": None, "insecure_skip_tls_verify": True}
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", reader, **cluster)

    assert ApiServer(str(kubeconfig), NO_ENVIRON, TIMEOUT).node("n1") is not None


def test_tls_server_name(api_server: RealApiServer, reader: str, tmp_path: Path) -> None:
    """tls-server-name is the name that the certificate is checked against."""
    right = api_server.kubeconfig(tmp_path / "right", reader, tls_server_name="kubernetes.test")
    wrong = api_server.kubeconfig(tmp_path / "wrong", reader, tls_server_name="other.test")

    assert ApiServer(str(right), NO_ENVIRON, TIMEOUT).node("n1") is not None
    with pytest.raises(CNIError, match=r"certificate of API server .* does not match: .*other\.test") as caught:
        ApiServer(str(wrong), NO_ENVIRON, TIMEOUT).node("n1")
    assert caught.value.code == KUBECONFIG


@pytest.mark.parametrize("authority", [None, "another"])
def test_wrong_authority(api_server: RealApiServer, reader: str, tmp_path: Path, authority: str | None) -> None:
    """A server that the given CA, or without one the system's, does not vouch for is an error with the reason, and gets no token."""
    data = None if authority is None else base64_text(Authority(authority).certificate)
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", reader, certificate_authority_data=data)

    with pytest.raises(CNIError, match=f"certificate of API server {api_server.url} is not accepted: ") as caught:
        ApiServer(str(kubeconfig), NO_ENVIRON, TIMEOUT).node("n1")

    assert caught.value.code == KUBECONFIG
    assert "certificate-authority" in caught.value.details


def test_plain_http(api_server: RealApiServer, tmp_path: Path) -> None:
    """http:// for a server that speaks TLS is an error that says what it said."""
    server = api_server.url.replace("https", "http")
    kubeconfig = write_kubeconfig(tmp_path / "kube.conf", {"server": server}, {"token": "x"})

    with pytest.raises(CNIError, match=f"{server} answered 400: Client sent an HTTP request to an HTTPS server") as caught:
        ApiServer(str(kubeconfig), NO_ENVIRON, TIMEOUT).node("n1")

    assert caught.value.code == KUBECONFIG


def _encrypted(server: RealApiServer, directory: Path) -> dict[str, Any]:
    pair = server.authority.client("reader")
    key = serialization.load_pem_private_key(pair.key, None)
    form = serialization.BestAvailableEncryption(b"password")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form)
    return {"client-certificate-data": base64_text(pair.certificate), "client-key-data": base64_text(pem)}


def _another_key(server: RealApiServer, directory: Path) -> dict[str, Any]:
    return server.certificate_user("reader") | {"client-key-data": server.certificate_user("reader")["client-key-data"]}


def _not_pem(server: RealApiServer, directory: Path) -> dict[str, Any]:
    return {"client-certificate-data": base64_text(b"rubbish"), "client-key-data": base64_text(b"rubbish")}


@pytest.mark.parametrize("make_user", [_encrypted, _another_key, _not_pem])
def test_unusable_certificate(
    api_server: RealApiServer, tmp_path: Path, make_user: Callable[[RealApiServer, Path], dict[str, Any]]
) -> None:
    """A client certificate that is no PEM, not the key's, or whose key has a password is an error; nobody is asked for the password."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", make_user(api_server, tmp_path))

    with pytest.raises(CNIError, match=f"client certificate and key of user 'test' of kubeconfig {kubeconfig} cannot be used") as caught:
        ApiServer(str(kubeconfig), NO_ENVIRON, TIMEOUT)

    assert caught.value.code == KUBECONFIG


@pytest.mark.parametrize("missing", ["client-certificate", "client-key", "certificate-authority", "tokenFile"])
def test_missing_file(api_server: RealApiServer, tmp_path: Path, missing: str) -> None:
    """A file that the kubeconfig names and that is not there is named in the error."""
    user: dict[str, Any] = {"client-certificate": "c.crt", "client-key": "c.key"}
    for name, content in zip(user.values(), api_server.authority.client("reader"), strict=True):
        (tmp_path / name).write_bytes(content)
    cluster: dict[str, Any] = {}
    if missing == "certificate-authority":
        cluster = {"certificate_authority": "gone", "certificate_authority_data": None}
    else:
        user[missing] = "gone"
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", user, **cluster)

    with pytest.raises(CNIError, match=f"{tmp_path}/gone .*cannot be read: .*No such file") as caught:
        ApiServer(str(kubeconfig), NO_ENVIRON, TIMEOUT)

    assert caught.value.code == KUBECONFIG


def test_authority_without_certificate(api_server: RealApiServer, tmp_path: Path) -> None:
    """A certificate-authority that holds no certificate is an error that names it."""
    (tmp_path / "ca.crt").write_text("not a certificate")
    cluster = {"certificate_authority": "ca.crt", "certificate_authority_data": None}
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", {"token": "x"}, **cluster)

    with pytest.raises(CNIError, match=f"certificate-authority {tmp_path}/ca.crt is not a PEM certificate") as caught:
        ApiServer(str(kubeconfig), NO_ENVIRON, TIMEOUT)

    assert caught.value.code == KUBECONFIG


WRITTEN = """
import os, sys
written = []
def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(args[0])
sys.dont_write_bytecode = True
from kubenode.kube.client import ApiServer
sys.addaudithook(hook)
assert ApiServer(sys.argv[1], {}, 10).node("n1")
print(written)
"""


def test_keys_stay_off_the_disk(api_server: RealApiServer, reader: str, tmp_path: Path) -> None:
    """client-key-data is handed to OpenSSL without any file being written."""
    kubeconfig = api_server.kubeconfig(tmp_path / "kube.conf", reader)

    process = subprocess.run([sys.executable, "-c", WRITTEN, kubeconfig], check=True, capture_output=True, text=True)

    assert process.stdout == "[]\n"
