"""PURE. Which Node credentials are of: a kubelet's, or a token that is bound to a pod of the Node."""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64decode
from typing import TYPE_CHECKING, Any

from kubenode.base import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping

KUBELET = "system:node:"  # how a kubelet's user name begins
BOUND = "authentication.kubernetes.io/node-name"  # where the API server says it of a bound token
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")
COMMON_NAME = re.compile(rb"\x06\x03\x55\x04\x03[\x0c\x13](?:\x81)?(.)", re.DOTALL)  # 2.5.4.3 and a string, in DER (RFC 5280)


def of_certificate(pem: bytes) -> str:
    """Return the Node of a client certificate, "" where it is no kubelet's."""
    found = PEM.search(pem)
    der = b64decode(found[1]) if found else b""
    names = (der[one.end() : one.end() + one[1][0]].decode(errors="replace") for one in COMMON_NAME.finditer(der))
    return next(filter(None, map(_of_user, names)), "")


def of_token(token: str) -> str | None:
    """Return the Node of a token, "" where it is of none; None where only the API server can read it, who also verifies it."""
    try:
        _, claims, _ = token.split(".")
        said = jsontext.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        bound = said.get("kubernetes.io") or {}
        return str((bound.get("node") or {}).get("name") or "") or _of_user(str(said.get("sub") or ""))
    except (ValueError, AttributeError, jsontext.JSONTextError):
        return None


def of_review(status: Mapping[str, Any]) -> str:
    """Return the Node of a SelfSubjectReview's status, "" where it is of none."""
    user = status.get("userInfo") or {}
    named = (user.get("extra") or {}).get(BOUND) or [""]
    return _of_user(str(user.get("username") or "")) or str(named[0])


def _of_user(name: str) -> str:
    return name.removeprefix(KUBELET) if name.startswith(KUBELET) else ""
