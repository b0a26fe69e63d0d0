# SPDX-License-Identifier: Apache-2.0
"""Whatever a kubeconfig holds: a connection, or one CNIError that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenode.cni.errors import CNIError
from kubenode.kube.client import ApiServer

NO_DEADLINE = settings(deadline=None)  # machines are noisy
EXEC = "client.authentication.k8s.io/v1"
KEYS = [
    "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name", "proxy-url",
    "extensions", "token", "tokenFile", "username", "password", "client-certificate", "client-certificate-data", "client-key",
    "client-key-data", "auth-provider", "as", "name", "cluster", "user", "context",
]  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.binary(max_size=8), st.dates(),
    st.sampled_from(["https://127.0.0.1:1", "AAAA", "LS0tLS0=", "a", "/dev/null", "/", "http://[::1]:1/x", "127.0.0.1:1", "\0", "@"]),
    st.text(st.characters(max_codepoint=300), max_size=12).map("https://".__add__),
    st.from_regex(r"https://([0-9]{1,3}\.){3}[0-9]{1,3}", fullmatch=True),
)  # fmt: skip
SHAPES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
)


def made_of(content: bytes) -> CNIError | None:
    """Make a client of a kubeconfig; return what it complains about. No server is asked, no plugin found: PATH is empty."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "kube.conf"
        path.write_bytes(content)
        try:
            ApiServer(str(path), {"PATH": "/nowhere"}, 1).close()
        except CNIError as error:
            return error
    return None


def check(content: bytes) -> None:
    complaint = made_of(content)
    if complaint is not None:
        assert complaint.msg
        assert json.dumps(complaint.as_object("1.0.0"))


def kubeconfig(cluster: Any, user: Any) -> bytes:
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "c", "user": user}],
    }
    return yaml.safe_dump(content).encode()


@NO_DEADLINE
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes(content: bytes) -> None:
    """Any bytes as a kubeconfig end in a CNIError and nothing else."""
    check(content)


@NO_DEADLINE
@given(SHAPES)
def test_any_yaml(value: Any) -> None:
    """Any YAML value as a kubeconfig ends in a CNIError and nothing else."""
    check(yaml.safe_dump(value).encode())


@NO_DEADLINE
@given(cluster=SHAPES, user=SHAPES, exec_=st.none() | SHAPES)
def test_any_entries(cluster: Any, user: Any, exec_: Any) -> None:
    """A cluster and a user of any shape give a client, or a CNIError and nothing else."""
    if isinstance(cluster, dict):
        cluster = {"server": "https://127.0.0.1:1", **cluster}
    if isinstance(user, dict) and isinstance(exec_, dict):
        user = {**user, "exec": {"apiVersion": EXEC, "command": "x", **exec_}}
    check(kubeconfig(cluster, user))


@NO_DEADLINE
@given(
    cluster=st.dictionaries(st.sampled_from(KEYS[:7]), VALUES, max_size=4),
    user=st.dictionaries(st.sampled_from(KEYS[7:17]), VALUES, max_size=4),
)
def test_any_values(cluster: dict[str, Any], user: dict[str, Any]) -> None:
    """Known keys with any value give a client, or a CNIError and nothing else."""
    check(kubeconfig({"server": "https://127.0.0.1:1", **cluster}, user))
