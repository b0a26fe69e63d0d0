# SPDX-License-Identifier: Apache-2.0
"""PURE. The Node that credentials belong to: a kubelet's credentials, or a token bound to a pod of the Node."""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64decode
from typing import TYPE_CHECKING, Any

from kubenode.base import jsontext

if TYPE_CHECKING:
    from collections.abc import Mapping

KUBELET = "system:node:"  # the begin of a kubelet's user name
BOUND = "authentication.kubernetes.io/node-name"  # the key in which the API server names the Node of a bound token
PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")
COMMON_NAME = re.compile(rb"\x06\x03\x55\x04\x03[\x0c\x13](?:\x81)?(.)", re.DOTALL)  # 2.5.4.3 and a string, in DER (RFC 5280)


def of_certificate(pem: bytes) -> str:
    """Return the Node of a client certificate; "" if the certificate is not a kubelet's."""
    found = PEM.search(pem)
    der = b64decode(found[1]) if found else b""
    names = (der[one.end() : one.end() + one[1][0]].decode(errors="replace") for one in COMMON_NAME.finditer(der))
    return next(filter(None, map(_of_user, names)), "")


def of_token(token: str) -> str | None:
    """Return the Node of a token; "" if it has none, None if only the API server can read the token. Only that verifies it, too."""
    try:
        _, claims, _ = token.split(".")
        said = jsontext.loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        bound = said.get("kubernetes.io") or {}
        return str((bound.get("node") or {}).get("name") or "") or _of_user(str(said.get("sub") or ""))
    except (ValueError, AttributeError, jsontext.JSONTextError):
        return None


def of_review(status: Mapping[str, Any]) -> str:
    """Return the Node in a SelfSubjectReview's status; "" if there is none."""
    user = status.get("userInfo") or {}
    named = (user.get("extra") or {}).get(BOUND) or [""]
    return _of_user(str(user.get("username") or "")) or str(named[0])


def _of_user(name: str) -> str:
    return name.removeprefix(KUBELET) if name.startswith(KUBELET) else ""
