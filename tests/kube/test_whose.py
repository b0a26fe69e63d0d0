# SPDX-License-Identifier: Apache-2.0
"""Whose credentials are: what a kubelet's certificate and tokens say of their Node."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

import pytest
from authority import Authority

from kubenode.nodes import whose
from kubenode.plugins import standalone

if TYPE_CHECKING:
    from pathlib import Path

    from apiserver import RealApiServer


def token(claims: Any) -> str:
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", json.dumps(claims).encode(), b"signed"))


@pytest.mark.parametrize("name", ["worker-1", "n" * 50, "ip-10-0-0-1.eu-central-1.compute.internal"])
def test_a_kubelets_certificate(name: str) -> None:
    """The common name of a kubelet's certificate is its Node's; another's is of no Node."""
    assert whose.of_certificate(Authority().client(f"system:node:{name}", "system:nodes").certificate) == name
    assert whose.of_certificate(Authority().client(name).certificate) == ""
    assert whose.of_certificate(b"nothing") == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (token({"sub": "system:serviceaccount:a:b", "kubernetes.io": {"node": {"name": "n", "uid": "u"}}}), "n"),
        (token({"sub": "system:node:n"}), "n"),
        (token({"sub": "system:serviceaccount:a:b", "kubernetes.io": {"pod": {"name": "p"}}}), ""),
        (token({"sub": 5, "kubernetes.io": None}), ""),
        (token([]), None),
        ("opaque", None),
        ("a.ä.c", None),
    ],
)
def test_a_token(text: str, name: str | None) -> None:
    """A bound token says its pod's Node; one that is not for us to read says nothing."""
    assert whose.of_token(text) == name


@pytest.mark.parametrize(
    ("status", "name"),
    [
        ({"userInfo": {"username": "system:node:n"}}, "n"),
        ({"userInfo": {"username": "a", "extra": {"authentication.kubernetes.io/node-name": ["n"]}}}, "n"),
        ({"userInfo": {"username": "a"}}, ""),
        ({}, ""),
    ],
)
def test_a_review(status: dict[str, Any], name: str) -> None:
    """A SelfSubjectReview says it for a kubelet and for a bound token."""
    assert whose.of_review(status) == name


def test_a_node_that_is_not_called_as_its_host(api_server: RealApiServer, tmp_path: Path) -> None:
    """With a kubelet's credentials its Node is found by one GET, though nothing else says its name, and it may not list Nodes."""
    api_server.create_node("cloud-name", ["10.7.0.0/24"])
    user = "system:node:cloud-name"
    kubeconfig = api_server.kubeconfig(tmp_path / "kubeconfig", api_server.certificate_user(user, "system:nodes"))
    found = standalone.fetch(str(kubeconfig), {"KUBE_NODE_RUN_DIR": str(tmp_path)})
    assert found["metadata"]["name"] == "cloud-name"
    assert [(one.verb, one.resource) for one in api_server.asked() if one.user == user] == [("get", "nodes")]
