# SPDX-License-Identifier: Apache-2.0
"""Content of a kubeconfig: the API server, and our credentials there. Records, and the rules for a single entry.

Matches client-go's `tools/clientcmd`: the same keys, and refused where kubectl refuses. `loadingrules` finds the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.cni.errors import KUBECONFIG, CNIError

if TYPE_CHECKING:
    from collections.abc import Mapping

EXEC_API_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
EXEC_EXTENSION = "client.authentication.k8s.io/exec"  # the cluster's data for exec plugins
NEVER_GUESS = ("auth-provider", "as", "as-uid", "as-groups", "as-user-extra")  # ignoring them would change our identity


class Pem(NamedTuple):
    """Certificate or key: `data` from the kubeconfig itself, or the file `path`, read when needed."""

    label: str
    path: str
    data: bytes | None = None


class KubeconfigCluster(NamedTuple):
    """API server of a kubeconfig: its URL, TLS settings and proxy."""

    server: str
    certificate_authority: Pem | None = None
    insecure: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    exec_config: Any = None


class ExecPlugin(NamedTuple):
    """Program that prints credentials (a user's `exec`)."""

    api_version: str
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    install_hint: str | None = None
    provide_cluster_info: bool = False


class User(NamedTuple):
    """User of a kubeconfig: its credentials, or where to get them."""

    certificate: Pem | None = None
    key: Pem | None = None
    token: str | None = None
    token_file: str | None = None
    username: str | None = None
    password: str | None = None
    exec: ExecPlugin | None = None


class Connection(NamedTuple):
    """API server, user, and the source of both for messages."""

    origin: str
    cluster: KubeconfigCluster
    user: User


def broken(file: str, problem: str, details: str = "correct the file, or name another kubeconfig") -> CNIError:
    """Return the error for an invalid kubeconfig."""
    return CNIError(KUBECONFIG, f"kubeconfig {file}: {problem}", details)


class Entry(NamedTuple):
    """Mapping in a kubeconfig. Its methods return a value, or raise CNIError with the file and the key."""

    file: str
    title: str
    values: Mapping[str, Any]

    def error(self, problem: str) -> CNIError:
        """Return the error for a problem in this mapping."""
        return broken(self.file, f"{self.title}: {problem}" if self.title else problem)

    def text(self, key: str) -> str | None:
        """Return the text of `key`; None if absent or empty, which Go does not distinguish."""
        value = self.values.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            # Not the value: it may be a password.
            raise self.error(f"{key} must be text, not {type(value).__name__}: put it in quotes")
        return value

    def needed(self, key: str) -> str:
        """Return the text of `key`, which must not be empty."""
        value = self.text(key)
        if value is None:
            raise self.error(f"{key} is missing")
        return value

    def flag(self, key: str) -> bool:
        """Return the boolean of `key`, False if absent."""
        value = self.values.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false")
        return value

    def items(self, key: str) -> list[Any]:
        """Return the list of `key`, empty if absent."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(f"{key} must be a list")
        return value

    def inside(self, values: Any, title: str) -> Entry:
        """Return a mapping inside this one; an absent one is empty."""
        if values is None:
            values = {}
        if not isinstance(values, dict):
            raise self.error(f"{title} must be a mapping")
        return Entry(self.file, f"{self.title}: {title}" if self.title else title, values)

    def path(self, key: str) -> str | None:
        """Return the path of `key`; a relative path starts at the kubeconfig's directory."""
        import os

        value = self.text(key)
        return None if value is None else os.path.join(os.path.dirname(self.file), value)

    def pem(self, key: str) -> Pem | None:
        """Return the certificate or key of `key`, None if absent."""
        import base64

        path, data = self.path(key), self.text(f"{key}-data")
        if path is not None and data is not None:
            raise self.error(f"{key} and {key}-data are both set: keep one")
        if data is None:
            return None if path is None else Pem(key, path)
        try:
            decoded = base64.b64decode(data.replace("\r", "").replace("\n", ""), validate=True)
        except ValueError as error:
            raise self.error(f"{key}-data is not base64: {error}") from None
        return Pem(f"{key}-data", self.file, decoded)


def cluster(entry: Entry) -> KubeconfigCluster:
    """Read a cluster."""
    certificate_authority, insecure = entry.pem("certificate-authority"), entry.flag("insecure-skip-tls-verify")
    if insecure and certificate_authority is not None:
        raise entry.error(f"insecure-skip-tls-verify and {certificate_authority.label} exclude each other")
    return KubeconfigCluster(
        server=_url(entry, with_tls=insecure or certificate_authority is not None),
        certificate_authority=certificate_authority,
        insecure=insecure,
        tls_server_name=entry.text("tls-server-name"),
        proxy_url=_proxy_url(entry),
        exec_config=_exec_config(entry),
    )


def user(entry: Entry) -> User:
    """Read a user."""
    for key in NEVER_GUESS:
        if entry.values.get(key):
            raise entry.error(f"{key} is not supported: use a token, tokenFile, a client certificate or exec")
    record = User(
        certificate=entry.pem("client-certificate"),
        key=entry.pem("client-key"),
        token=entry.text("token"),
        token_file=entry.path("tokenFile"),
        username=entry.text("username"),
        password=entry.text("password"),
        exec=_exec(entry.inside(entry.values["exec"], "exec")) if entry.values.get("exec") else None,
    )
    if record.certificate is not None and record.key is None:
        raise entry.error("client-certificate needs a client-key or client-key-data")
    if record.key is not None and record.certificate is None:
        raise entry.error("client-key needs a client-certificate or client-certificate-data")
    if record.password is not None and record.username is None:
        raise entry.error("password needs a username")
    if record.token is not None and (record.username is not None or record.password is not None):
        raise entry.error("token and username/password exclude each other")
    return record


def _url(entry: Entry, *, with_tls: bool) -> str:
    server = entry.needed("server")
    if "://" not in server:
        server = f"{'https' if with_tls else 'http'}://{server}"  # like client-go for HOST:PORT
    if not _is_web(server):
        raise entry.error(f"server {server!r} is not an http or https URL")
    return server


def _proxy_url(entry: Entry) -> str | None:
    url = entry.text("proxy-url")
    if url is not None and url.startswith("socks"):
        advice = "give an HTTP proxy as proxy-url, or remove it if the API server is reachable without it"
        raise broken(entry.file, f"{entry.title}: proxy-url is a SOCKS proxy, and socks5 is not supported", advice)
    if url is not None and not _is_web(url):
        raise entry.error("proxy-url is not an http or https URL")
    return url


def _is_web(url: str) -> bool:
    """Say whether a URL is http or https and usable for requests; Python's own parser accepts too much."""
    from urllib.parse import urlsplit

    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _exec_config(entry: Entry) -> Any:
    for item in entry.items("extensions"):
        extension = entry.inside(item, "extensions")
        if extension.values.get("name") == EXEC_EXTENSION:
            return extension.values.get("extension")
    return None


def _exec(entry: Entry) -> ExecPlugin:
    import os

    api_version, command = entry.needed("apiVersion"), entry.needed("command")
    if api_version not in EXEC_API_VERSIONS:
        raise entry.error(f"apiVersion {api_version!r} is not one of {', '.join(EXEC_API_VERSIONS)}")
    mode = entry.text("interactiveMode") or "IfAvailable"
    if mode not in ("Never", "IfAvailable"):
        raise entry.error(f"interactiveMode {mode!r}: a CNI plugin has no terminal, only Never and IfAvailable can work")
    args = entry.items("args")
    if not all(isinstance(arg, str) and "\0" not in arg for arg in (*args, command)):
        raise entry.error("args must be a list of strings: put numbers in quotes")
    variables = [entry.inside(item, "env") for item in entry.items("env")]
    return ExecPlugin(
        api_version=api_version,
        command=os.path.join(os.path.dirname(entry.file), command) if "/" in command else command,
        args=tuple(args),
        env=tuple((_variable(variable), variable.text("value") or "") for variable in variables),
        install_hint=entry.text("installHint"),
        provide_cluster_info=entry.flag("provideClusterInfo"),
    )


def _variable(entry: Entry) -> str:
    name = entry.needed("name")
    if "=" in name or "\0" in name or "\0" in (entry.text("value") or ""):
        raise entry.error("name or value is not valid in an environment")
    return name
