# SPDX-License-Identifier: Apache-2.0
"""Search for the connection to the API server: the places in order, and the merge of several kubeconfigs.

Matches client-go's loading rules, except that a configured kubeconfig always wins over the service account.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.cni.errors import KUBECONFIG, CNIError
from kubenode.kube.kubeconfig import Connection, Entry, KubeconfigCluster, Pem, User, broken, cluster, user

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_CONFIGURATION, AGENTS, COMMANDS = "ipam.kubeconfig", "the agent's --kubeconfig", "--kubeconfig"  # the settings that name a kubeconfig
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
LARGEST = 8 << 20  # bytes; a larger kubeconfig is a mistake, such as a device


def connection(
    kubeconfig: str | None,
    environ: Mapping[str, str],
    service_account: str = SERVICE_ACCOUNT,
    option: str = IN_CONFIGURATION,
    context: str = "",
) -> Connection:
    """Return the connection from the first of: `kubeconfig`, $KUBECONFIG, the service account, ~/.kube/config.

    `option`: the setting that names a kubeconfig, for the error's advice. `context`: the kubeconfig's context, "" for the current one.
    """
    if kubeconfig:
        return _selected([_load(_without_tilde(kubeconfig, environ))], context)
    if paths := list(dict.fromkeys(filter(None, environ.get("KUBECONFIG", "").split(os.pathsep)))):
        there = [path for path in paths if os.path.exists(path)]
        # Even if none of the files exists: using another identity instead would be a surprise.
        return _selected([_load(path) for path in there or paths[:1]], context)
    if not context and (found := _in_cluster(environ, service_account)):
        return found
    home = _home(environ)
    default = os.path.join(home, ".kube", "config") if home else ""
    if default and os.path.exists(default):
        return _selected([_load(default)], context)
    raise CNIError(
        KUBECONFIG,
        "no kubeconfig found",
        f"looked at {option} (not set), $KUBECONFIG (not set), the service account "
        f"(KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and {service_account}/token: not all present), "
        f"{default or '~/.kube/config'} ({'not found' if default else 'no home directory'}): set {option}",
    )


class _File(NamedTuple):
    path: str
    current_context: str | None
    clusters: dict[str, Entry]
    users: dict[str, Entry]
    contexts: dict[str, Entry]


def _selected(files: list[_File], wanted: str) -> Connection:
    """Return the connection of the wanted or the current context. The first file that sets it, or an entry of a name, wins."""
    names = ":".join(file.path for file in files)
    current = wanted or next((file.current_context for file in files if file.current_context), None)
    if current is None:
        raise broken(names, "no current-context")
    context = next((file.contexts[current] for file in files if current in file.contexts), None)
    if context is None:
        raise broken(names, f"{'' if wanted else 'current-'}context {current!r} is not among the contexts")
    cluster_name, user_name = context.needed("cluster"), context.needed("user")
    cluster_entry = next((file.clusters[cluster_name] for file in files if cluster_name in file.clusters), None)
    if cluster_entry is None:
        raise broken(names, f"context {current!r} names cluster {cluster_name!r}, which does not exist")
    user_entry = next((file.users[user_name] for file in files if user_name in file.users), None)
    if user_entry is None:
        raise broken(names, f"context {current!r} names user {user_name!r}, which does not exist")
    return Connection(f"user {user_name!r} of kubeconfig {user_entry.file}", cluster(cluster_entry), user(user_entry))


def _load(path: str) -> _File:
    root = Entry(path, "", _mapping(path))
    for key, known in (("apiVersion", "v1"), ("kind", "Config")):
        if (found := root.text(key)) not in (None, known):
            raise broken(path, f"not a kubeconfig: {key} is {found!r}, not {known}")
    return _File(
        path,
        root.text("current-context"),
        _named(root, "clusters", "cluster"),
        _named(root, "users", "user"),
        _named(root, "contexts", "context"),
    )


def _named(root: Entry, plural: str, singular: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for position, item in enumerate(root.items(plural)):
        named = root.inside(item, f"{plural}[{position}]")
        name = named.text("name") or ""
        if name in entries:
            raise root.error(f"{plural} has two entries named {name!r}")
        entries[name] = root.inside(named.values.get(singular), f"{singular} {name!r}")
    return entries


def _mapping(path: str) -> dict[str, Any]:
    import yaml

    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise broken(path, f"cannot be read: {reason}") from None
    if len(content) > LARGEST:
        raise broken(path, f"larger than {LARGEST} bytes, so it is not a kubeconfig")
    try:
        # Only the first document, like kubectl: there may be a second one, even a broken one.
        values = next(yaml.load_all(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), None)
    except yaml.MarkedYAMLError as error:
        # Without PyYAML's message: it quotes the text, and the file may be something secret.
        raise broken(path, f"not YAML (line {error.problem_mark.line + 1})" if error.problem_mark else "not YAML") from None
    except Exception as error:  # noqa: BLE001 (PyYAML passes on any error of int(), float(), date() and dicts)
        raise broken(path, f"not YAML: {type(error).__name__}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise broken(path, f"not a kubeconfig: it must be a mapping, not {type(values).__name__}")
    return values


def _in_cluster(environ: Mapping[str, str], service_account: str) -> Connection | None:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token_file = os.path.join(service_account, "token")
    if not (host and port and os.path.exists(token_file)):
        return None
    entry = Entry(token_file, "service account", {"server": f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"})
    authority = Pem("certificate-authority", os.path.join(service_account, "ca.crt"))
    server: KubeconfigCluster = cluster(entry)._replace(certificate_authority=authority)
    return Connection(f"service account {service_account}", server, User(token_file=token_file))


def _without_tilde(path: str, environ: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        return (_home(environ) or "~") + path[1:]
    return path


def _home(environ: Mapping[str, str]) -> str | None:
    """Return the home directory; runtimes often start plugins without HOME."""
    if home := environ.get("HOME"):
        return home
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
