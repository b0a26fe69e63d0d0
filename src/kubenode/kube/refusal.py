"""PURE. Answers that are not what was asked for, as errors that an operator understands: an HTTP status and body, or what is no object."""

from __future__ import annotations

import re
from http import HTTPStatus

from kubenode.base import jsontext
from kubenode.cni.errors import FORBIDDEN, KUBECONFIG, NODE_INVALID, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError

PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GONE, HTTPStatus.TOO_MANY_REQUESTS)  # 410: the list has expired under us
LONGEST = 300  # characters of an answer that are worth showing
DENIED = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"')

KUBELET = re.compile(r'User "system:node:(?P<node>[^"]*)"')
NO_TEXT = "no text"


class StatusError(CNIError):
    """The API server answered, but not with what was asked for."""

    def __init__(self, code: int, msg: str, details: str, status: int, said: dict[str, str], *, retry_after: float | None = None) -> None:
        super().__init__(code, msg, details)
        self.status = status
        self.reason = said.get("reason", "")
        self.by_server = bool(said)  # else a proxy or a load balancer may have answered in its place
        self.retry_after = retry_after  # seconds that the server asks to wait


class GarbledError(CNIError):
    """The API server, or something between, sent what is not what was asked for."""

    def __init__(self, problem: str) -> None:
        super().__init__(TRY_AGAIN_LATER, problem, "does something between answer in its place?")


def garbled(server: str, wanted: str, found: object) -> GarbledError:
    return GarbledError(f"API server {server} sent something other than {wanted}: {found}")


def refusal(server: str, origin: str, status: int, body: bytes, retry_after: float | None = None) -> StatusError:
    """Return the error for an answer other than 200; `origin` says whose credentials were used."""
    said = _status_object(body)
    message = said.get("message") or " ".join(body[:LONGEST].decode(errors="replace").split()) or NO_TEXT
    code, details = KUBECONFIG, f"is {server} a Kubernetes API server? It is what the kubeconfig says"
    if status == HTTPStatus.UNAUTHORIZED:
        code, details = UNAUTHORIZED, f"asked as {origin}: has its token or certificate expired, or is it another cluster's?"
    elif status == HTTPStatus.FORBIDDEN:
        code, details = FORBIDDEN, _who_refused(message)
    elif status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        code, details = TRY_AGAIN_LATER, "the API server is overloaded, starting or failing; the runtime will ask again"
    elif said:
        code, details = NODE_INVALID, "the API server understood the request and refused it"
    return StatusError(code, f"API server {server} answered {status}: {message}", details, status, said, retry_after=retry_after)


def _status_object(body: bytes) -> dict[str, str]:
    """Return the texts of a `v1.Status`, or nothing: proxies and load balancers answer with HTML."""
    try:
        said = jsontext.loads(body)
    except jsontext.JSONTextError:
        return {}
    if not isinstance(said, dict) or said.get("kind") != "Status":
        return {}
    return {key: value for key, value in said.items() if isinstance(value, str)}


def _who_refused(message: str) -> str:
    """Return what to do about a 403, by whoever it was: a role helps only where RBAC has refused."""
    denied = DENIED.search(message)
    group, resource, verb = denied.group("group", "resource", "verb") if denied else ("", "nodes", "get")
    if denied is None and message != NO_TEXT:
        return "no missing right is the reason: the message says what refused it, such as an admission policy or a webhook of the cluster"
    if kubelet := KUBELET.search(message):
        return (
            f"the node authorizer refused it, and no role changes that: the credentials are of Node {kubelet['node']}, and may see "
            "only that Node and its pods. Is it this host's? Then let NODE_NAME say so; else use this host's own credentials"
        )
    return f'bind that user to a ClusterRole with the rule {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
