# SPDX-License-Identifier: Apache-2.0
"""Kubeconfigs of many forms: as whom we reach the API server with each, beside kubectl."""

from __future__ import annotations

import base64
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from string import Template
from typing import TYPE_CHECKING, NamedTuple

import pytest
from apiserver import base64_text
from authority import Authority
from betweens import StandInProxy
from cryptography.hazmat.primitives.asymmetric import rsa
from kubeconfigs import FORMS, REFUSED, Form
from standin import StandInApiServer, serve
from wanting import want

from kubenode.cni.errors import CNIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Ask = Callable[..., str]

pytestmark = pytest.mark.slow

LOGIN = """#!/bin/sh
echo '{"apiVersion": "client.authentication.k8s.io/%s", "kind": "ExecCredential", "status": {"token": "t0"}}'
"""


class Place(NamedTuple):
    """An API server, a directory with all that kubeconfigs name, and what stands in their texts."""

    servers: tuple[StandInApiServer, StandInApiServer]  # with TLS and without
    directory: Path
    values: dict[str, str]

    def write(self, form: Form, name: str = "kube.conf") -> Path:
        path = self.directory / name
        path.write_bytes(Template(form.text).substitute(self.values).encode())
        return path

    def seen(self, path: str) -> str:
        """Return as whom the API server was asked for `path`, or for what ends so."""
        asked = [one for server in self.servers for one in server.requests if one.path.partition("?")[0].endswith(path)]
        return " and ".join(sorted({_who(one.headers, one.certificate) for one in asked})) or REFUSED


def _who(headers: dict[str, str], certificate: str) -> str:
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        value = base64.b64decode(value).decode()
    parts = [f"certificate {certificate}" if certificate else "", f"{'token' if scheme == 'Bearer' else scheme.lower()} {value}".strip()]
    who = ", ".join(filter(None, parts)) or "anonymous"
    return f"{who} as {headers['Impersonate-User']}" if "Impersonate-User" in headers else who


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("forms")
    with (
        StandInApiServer(directory, then=serve("n1"), names=("127.0.0.1", "kubernetes.test")) as server,
        StandInApiServer(directory, then=serve("n1"), tls=False) as plain,
        StandInProxy() as proxy,
    ):
        authority, pair, other = server.authority, server.authority.client("jo"), server.authority.client("other")
        server.accept_clients_of(authority)
        weak = authority.client("jo", key=rsa.generate_private_key(65537, 1024))
        ca, broken = authority.certificate, b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
        while "-" not in base64.urlsafe_b64encode(ca).decode() or not base64_text(ca).endswith("="):
            ca += b"\n~?~?~?\n"[: len(ca) % 3 + 5]
        files = {
            "ca.crt": ca, "client.crt": pair.certificate, "client.key": pair.key, "token": b"t0\n", "empty": b"",
            "login": (LOGIN % "v1").encode(), "login-v1beta1": (LOGIN % "v1beta1").encode(), "fails": b"#!/bin/sh\nexit 1\n",
        }  # fmt: skip
        for name, content in files.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o700)
        values = {
            "SERVER": server.url, "HOST": server.url.removeprefix("https://"), "PROXY": proxy.url,
            "PLAIN_HOST": plain.url.removeprefix("http://"), "CA": base64_text(ca),
            "CA_IN_LINES": "\n\n      ".join(base64_text(ca)[start : start + 76] for start in range(0, 4 * len(ca) // 3 + 4, 76)),
            "CA_UNPADDED": base64_text(ca).rstrip("="), "CA_URLSAFE": base64.urlsafe_b64encode(ca).decode(),
            "CA_BROKEN": base64_text(broken + ca + broken), "OTHER_CA": base64_text(Authority("another").certificate),
            "CERTIFICATE": base64_text(pair.certificate), "KEY": base64_text(pair.key), "OTHER_KEY": base64_text(other.key),
            "BOTH": base64_text(pair.key + pair.certificate),
            "RSA_CERTIFICATE": base64_text(weak.certificate), "RSA_KEY": base64_text(weak.key),
        }  # fmt: skip
        yield Place((server, plain), directory, values)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_form(place: Place, ask: Ask, form: Form) -> None:
    """A kubeconfig is taken as kubectl takes it; where it is refused, the error names the file, or the API server."""
    path = place.write(form)
    for server in place.servers:
        server.requests.clear()
    said = ""

    try:
        ask(path)
    except CNIError as error:
        said = f"{error.msg} {error.details}"

    assert place.seen("") == (form.ours or form.kubectl)
    assert not said or str(place.directory) in said or place.values["HOST"] in said


def test_kubectl(place: Place) -> None:
    """The table says what kubectl does."""
    want("kubectl 1.28")

    def verdict(number: int, form: Form) -> str:
        path = f"/api/v1/nodes/{number}"
        subprocess.run(
            ["kubectl", f"--kubeconfig={place.write(form, str(number))}", "get", "--raw", path],
            env={"PATH": os.environ["PATH"], "HOME": str(place.directory)},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )
        return place.seen(path)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = dict(zip(FORMS, pool.map(verdict, range(len(FORMS)), FORMS.values()), strict=True))

    assert verdicts == {name: form.kubectl for name, form in FORMS.items()}
