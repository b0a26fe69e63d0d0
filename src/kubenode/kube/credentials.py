# SPDX-License-Identifier: Apache-2.0
"""Credentials for the API server: an Authorization header and a client certificate from a kubeconfig's user, read again each time.

Also from credential plugins (client.authentication.k8s.io v1 and v1beta1): programs in a user's `exec` that print credentials.
"""

from __future__ import annotations

import os
import signal
import time
from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from kubenode.base import jsontext
from kubenode.cni.errors import KUBECONFIG, TRY_AGAIN_LATER, UNAUTHORIZED, CNIError
from kubenode.kube import tls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubenode.kube.kubeconfig import Connection, ExecPlugin, KubeconfigCluster, User

REREAD_AFTER = 60.0  # seconds for which a token file's content counts as current, as in client-go
STDERR_TAIL = 1000  # last characters of a failed plugin's stderr in the error


class Credentials(NamedTuple):
    """Values for requests, as one user's record gives them."""

    authorization: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    expires: float = float("inf")  # as of time.time(): when to read them again


def renewable(user: User) -> bool:
    """Say whether reading again can give other credentials."""
    return user.token_file is not None or _uses_exec(user)


def identify(connection: Connection, environ: Mapping[str, str], timeout: float) -> Credentials:
    """Return the credentials; none without TLS, as in client-go. Reads files or runs the exec plugin, for at most `timeout` seconds."""
    user = connection.user
    if urlsplit(connection.cluster.server).scheme == "http":
        return Credentials()
    if _uses_exec(user):
        return _run(connection, environ, timeout)
    authorization, expires = _authorization(user, connection.origin)
    if user.certificate is None or user.key is None:
        return Credentials(authorization, expires=expires)
    return Credentials(authorization, tls.read(user.certificate), tls.read(user.key), expires)


def bearer(token: str, where: str) -> str:
    """Return the header for a token; `where` names its source in an error."""
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise CNIError(KUBECONFIG, f"{where} is not a bearer token", "a token is one line of ASCII without blanks")
    return f"Bearer {token}"


def _uses_exec(user: User) -> bool:
    # client-go runs the plugin only if no static credentials are set.
    return user.exec is not None and not (user.token or user.token_file or user.username or user.certificate)


def _authorization(user: User, origin: str) -> tuple[str | None, float]:
    if user.token_file is not None:
        try:
            with open(user.token_file, encoding="utf-8", errors="replace") as file:
                token = file.read()
        except (OSError, ValueError) as error:
            if user.token is None:  # otherwise it replaces an unreadable tokenFile, as in client-go
                advice = "is the token mounted, or does a program that rotates it write it?"
                raise CNIError(KUBECONFIG, f"token file {user.token_file} of {origin} cannot be read: {error}", advice) from None
        else:
            return bearer(token, f"token file {user.token_file}"), time.time() + REREAD_AFTER
    if user.token is not None:
        return bearer(user.token, f"the token of {origin}"), float("inf")
    if user.username is not None:
        pair = f"{user.username}:{user.password or ''}"
        return f"Basic {b64encode(pair.encode()).decode()}", float("inf")
    return None, float("inf")


def _run(connection: Connection, environ: Mapping[str, str], timeout: float) -> Credentials:
    """Run the credential plugin of `connection` and return its credentials."""
    plugin = connection.user.exec
    assert plugin is not None  # noqa: S101 (`identify` has checked)
    where = f"credential plugin {plugin.command} of {connection.origin}"
    environment = {**environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": _info(plugin, connection.cluster, where)}
    return _credential(_output(plugin, environment, timeout, where), plugin, where)


def _output(plugin: ExecPlugin, environment: Mapping[str, str], timeout: float, where: str) -> bytes:
    import subprocess

    try:
        process = subprocess.Popen(
            [plugin.command, *plugin.args],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,  # so that the children of a shell script end with it
        )
    except (OSError, ValueError) as error:
        advice = plugin.install_hint or "install it on the node, or give its full path: runtimes start plugins with a short PATH"
        raise CNIError(KUBECONFIG, f"{where} cannot be run: {error}", advice) from None
    with process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise CNIError(TRY_AGAIN_LATER, f"{where} has not answered within {timeout:g} s", "see why it hangs") from None
    if process.returncode != 0:
        said = stderr.decode(errors="replace").strip()[-STDERR_TAIL:]
        raise CNIError(UNAUTHORIZED, f"{where} failed with exit code {process.returncode}", said or "its stderr is empty")
    return stdout


def _info(plugin: ExecPlugin, cluster: KubeconfigCluster, where: str) -> str:
    """Return the value for KUBERNETES_EXEC_INFO."""
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info:
        authority = cluster.certificate_authority
        said = {
            "server": cluster.server,
            "tls-server-name": cluster.tls_server_name,
            "insecure-skip-tls-verify": cluster.insecure or None,
            "certificate-authority-data": None if authority is None else b64encode(tls.read(authority)).decode(),
            "proxy-url": cluster.proxy_url,
            "config": cluster.exec_config,
        }
        spec["cluster"] = {key: value for key, value in said.items() if value is not None}
    try:
        return jsontext.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec})
    except (TypeError, ValueError, RecursionError) as error:  # YAML has dates, NaN and loops
        raise CNIError(
            KUBECONFIG, f"{where}: the cluster's extension cannot be written as JSON: {error}", "use only JSON's types there"
        ) from None


def _credential(output: bytes, plugin: ExecPlugin, where: str) -> Credentials:
    """Parse an ExecCredential."""
    advice = f"it must print an ExecCredential of {plugin.api_version} with status.token, or a certificate and its key"
    try:
        answer = jsontext.loads(output)
    except jsontext.JSONTextError as error:
        raise CNIError(KUBECONFIG, f"{where} printed no JSON: {error}", advice) from None
    if not isinstance(answer, dict) or answer.get("kind") != "ExecCredential":
        raise CNIError(KUBECONFIG, f"{where} printed no ExecCredential", advice)
    if answer.get("apiVersion") != plugin.api_version:
        raise CNIError(KUBECONFIG, f"{where} answered in apiVersion {answer.get('apiVersion')!r}", advice)
    status = answer.get("status")
    if not isinstance(status, dict):
        raise CNIError(KUBECONFIG, f"{where} printed no status", advice)
    token, certificate, key, expires = (
        status.get(name) or None for name in ("token", "clientCertificateData", "clientKeyData", "expirationTimestamp")
    )
    if not all(value is None or isinstance(value, str) for value in (token, certificate, key, expires)):
        raise CNIError(KUBECONFIG, f"{where} printed a value that is not text", advice)
    if (certificate is None) != (key is None) or (token is None and certificate is None):
        raise CNIError(KUBECONFIG, f"{where} printed neither a token nor a certificate with its key", advice)
    return Credentials(
        None if token is None else bearer(token, f"the token of {where}"),
        None if certificate is None else certificate.encode(),
        None if key is None else key.encode(),
        float("inf") if expires is None else _seconds(expires, where),
    )


def _seconds(timestamp: str, where: str) -> float:
    try:
        moment = datetime.fromisoformat(timestamp)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except ValueError:
        pass
    raise CNIError(KUBECONFIG, f"{where}: expirationTimestamp {timestamp!r} is not an RFC 3339 time", "for example 2030-01-31T12:00:00Z")
