# SPDX-License-Identifier: Apache-2.0
"""What a refusal means to an operator."""

from __future__ import annotations

import json

import pytest

from kubenode.cni.errors import FORBIDDEN
from kubenode.kube.refusal import refusal

SCOPE = 'in API group "" at the cluster scope'
REFUSED = {
    f'nodes "w" is forbidden: User "agent" cannot get resource "nodes" {SCOPE}': 'resources: ["nodes"], verbs: ["get"]',
    f'nodes "w" is forbidden: User "agent" cannot get resource "nodes" {SCOPE}: RBAC: role "x" not found': "bind that user",
    f'nodes "b" is forbidden: User "system:node:a" cannot get resource "nodes" {SCOPE}: node cannot read other Nodes': (
        "the node authorizer refused it, and no role changes that: the credentials belong to Node a"
    ),
    f'nodes is forbidden: User "system:node:a" cannot list resource "nodes" {SCOPE}': "the credentials belong to Node a",
    "nodes \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no": "the message names the cause",
    'admission webhook "w.example.com" denied the request: no': "the message names the cause",
}


@pytest.mark.parametrize("message", REFUSED)
def test_who_refused(message: str) -> None:
    """The advice of a 403 is for whoever refused: a role is named only where RBAC did."""
    error = refusal("https://api", "kubeconfig", 403, json.dumps({"kind": "Status", "reason": "Forbidden", "message": message}).encode())
    assert error.code == FORBIDDEN
    assert REFUSED[message] in error.details
    assert ("bind that user" in error.details) == ("RBAC" in message or '"agent"' in message)
