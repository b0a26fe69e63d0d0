"""Who we are to the API server: a user's record turned into an Authorization header and a client certificate, read anew each time."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from kubenode.cni.errors import KUBECONFIG, CNIError
from kubenode.kube import tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.kube.kubeconfig import Connection, User

REREAD_AFTER = 60.0  # seconds that a token file's content is taken for current, as in client-go


class Identity(NamedTuple):
    authorization: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    expires: float = float("inf")  # by time.time(): when it has to be asked for again


def renewable(user: User) -> bool:
    """Tell whether asking again can give other credentials."""
    return user.token_file is not None or _uses_exec(user)


def identify(connection: Connection, environ: Mapping[str, str], timeout: float) -> Identity:
    """Return the credentials, none without TLS as in client-go. Reads files or runs the exec plugin, for at most `timeout` seconds."""
    user = connection.user
    if urlsplit(connection.cluster.server).scheme == "http":
        return Identity()
    if _uses_exec(user):
        from kubenode.kube.execplugin import run

        return run(connection, environ, timeout)
    authorization, expires = _authorization(user, connection.origin)
    if user.certificate is None or user.key is None:
        return Identity(authorization, expires=expires)
    return Identity(authorization, tls.read(user.certificate), tls.read(user.key), expires)


def bearer(token: str, where: str) -> str:
    """Return the header for a token; `where` names its place in the error."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CNIError(KUBECONFIG, f"{where} is not a bearer token", "a token is one line of ASCII without blanks")
    return f"Bearer {token}"


def _uses_exec(user: User) -> bool:
    # client-go runs the plugin only where nothing static is set.
    return user.exec is not None and not (user.token or user.token_file or user.username or user.certificate)


def _authorization(user: User, origin: str) -> tuple[str | None, float]:
    if user.token_file is not None:
        try:
            with open(user.token_file, encoding="utf-8", errors="replace") as file:
                token = file.read()
        except (OSError, ValueError) as error:
            if user.token is None:  # else it stands in for an unreadable tokenFile, as in client-go
                advice = "is the token mounted, or written by whoever rotates it?"
                raise CNIError(KUBECONFIG, f"token file {user.token_file} of {origin} cannot be read: {error}", advice) from None
        else:
            return bearer(token, f"token file {user.token_file}"), time.time() + REREAD_AFTER
    if user.token is not None:
        return bearer(user.token, f"the token of {origin}"), float("inf")
    if user.username is not None:
        pair = f"{user.username}:{user.password or ''}"
        return f"Basic {b64encode(pair.encode()).decode()}", float("inf")
    return None, float("inf")
