# SPDX-License-Identifier: Apache-2.0
"""PURE. Unexpected answers, as errors for an operator: an HTTP status and body, or content that is not an object."""

from __future__ import annotations

import re
from http import HTTPStatus

from kubenode.base import jsontext
from kubenode.cni.errors import FORBIDDEN, KUBECONFIG, NODE_INVALID, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError

PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS)  # 410: the list expired
LONGEST = 300  # characters of an answer in a message
DENIED = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"')

KUBELET = re.compile(r'User "system:node:(?P<node>[^"]*)"')
PROGRAM = re.compile(r'User "(?P<user>system:(?:serviceaccount|node):[^"]*)"')
NO_TEXT = "no text"


class StatusError(CNIError):
    """Error status of an answer."""

    def __init__(self, code: int, msg: str, details: str, status: int, said: dict[str, str], *, retry_after: float | None = None) -> None:
        super().__init__(code, msg, details)
        self.status = status
        self.reason = said.get("reason", "")
        self.by_server = bool(said)  # otherwise a proxy or load balancer may have answered
        self.retry_after = retry_after  # seconds to wait, as the server asks


class GarbledError(CNIError):
    """Error: the answer of the API server, or of something before it, has unexpected content."""

    def __init__(self, problem: str) -> None:
        super().__init__(TRY_AGAIN_LATER, problem, "does a proxy or load balancer answer in its place?")


def garbled(server: str, wanted: str, found: object) -> GarbledError:
    """Return the error for content that is not `wanted`."""
    return GarbledError(f"API server {server} sent something other than {wanted}: {found}")


def refusal(server: str, origin: str, status: int, body: bytes, retry_after: float | None = None) -> StatusError:
    """Return the error for an answer other than 200; `origin` names the source of the credentials."""
    said = _status_object(body)
    message = said.get("message") or " ".join(body[:LONGEST].decode(errors="replace").split()) or NO_TEXT
    code, details = KUBECONFIG, f"is {server} a Kubernetes API server? The kubeconfig names it"
    if status == HTTPStatus.UNAUTHORIZED:
        code, details = UNAUTHORIZED, f"asked as {origin}: has its token or certificate expired, or does it belong to another cluster?"
    elif status == HTTPStatus.FORBIDDEN:
        code, details = FORBIDDEN, _who_refused(message)
    elif status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        code, details = TRY_AGAIN_LATER, "the API server is overloaded, starting or failing; the runtime will ask again"
    elif said:
        code, details = NODE_INVALID, "the API server understood the request and refused it"
    return StatusError(code, f"API server {server} answered {status}: {message}", details, status, said, retry_after=retry_after)


def for_a_person(refused: StatusError) -> StatusError:
    """Return a refusal with the advice for a person's command, which found the credentials of a program, such as the agent's in its pod."""
    program = PROGRAM.search(refused.msg) if refused.status == HTTPStatus.FORBIDDEN else None
    if program and DENIED.search(refused.msg):
        refused.details = (
            f"these are the credentials of {program['user']}, which needs no such right: run the command with your own kubeconfig "
            "(--kubeconfig, or where kubectl reaches the cluster)"
        )
    return refused


def _status_object(body: bytes) -> dict[str, str]:
    """Return the texts of a `v1.Status`; {} for another body, such as HTML from a load balancer."""
    try:
        said = jsontext.loads(body)
    except jsontext.JSONTextError:
        return {}
    if not isinstance(said, dict) or said.get("kind") != "Status":
        return {}
    return {key: value for key, value in said.items() if isinstance(value, str)}


def _who_refused(message: str) -> str:
    """Return the advice for a 403: a role helps only if RBAC refused."""
    denied = DENIED.search(message)
    group, resource, verb = denied.group("group", "resource", "verb") if denied else ("", "nodes", "get")
    if denied is None and message != NO_TEXT:
        return "RBAC did not refuse it: the message names the cause, such as an admission policy or a webhook"
    if kubelet := KUBELET.search(message):
        return (
            f"the node authorizer refused it, and no role changes that: the credentials belong to Node {kubelet['node']} and may see "
            "only that Node and its pods. If it is this host's Node, set NODE_NAME; otherwise use this host's own credentials"
        )
    return f'bind that user to a ClusterRole with the rule {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
