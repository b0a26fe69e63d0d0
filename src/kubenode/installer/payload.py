# SPDX-License-Identifier: Apache-2.0
"""Files for a node: plugins, credentials for the API server, the Node's name, network configurations."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from kubenode.base import files
from kubenode.base.problem import Problem
from kubenode.host import cniconfig
from kubenode.host.attachments import Attachments, everywhere
from kubenode.host.delegate import OUR_LIBRARY
from kubenode.installer.installed import CONFLIST, CREDENTIALS, NODE_NAME, TREE, tree_digest
from kubenode.installer.steps import PayloadPart
from kubenode.ipam.store import DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from kubenode.host.root import HostRoot

LIBRARY = OUR_LIBRARY.decode()
COPIED = ("token", "ca.crt")  # of a service account
KUBECONFIG = "kubeconfig"  # beside them
_LIBRARY_IN_LAUNCHER = re.compile(rb"/(" + re.escape(OUR_LIBRARY) + rb"(?:\.[0-9a-f]+)?)\"")


class PluginDirectory(NamedTuple):
    """Directory from `./build.sh binaries`, or one that we are installed in."""

    directory: str

    def relay(self, plugin: str) -> bytes:
        """Return a plugin's relay."""
        return self._read(plugin)

    def launcher(self, plugin: str) -> bytes | None:
        """Return a plugin's standalone launcher, None if the directory has none."""
        return self._read(f"{plugin}.standalone") if self._has(f"{plugin}.standalone") else None

    def _has(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.directory, name))

    def _read(self, name: str) -> bytes:
        try:
            return files.read(os.path.join(self.directory, name))
        except OSError as error:
            problem = f"{os.path.join(self.directory, name)}: {error.strerror}"
            raise Problem(problem, "--from=DIR names a directory with kube-node's plugins") from None


def own_source() -> str:
    """Return the directory that we run from if it can be a source, "" otherwise."""
    library = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.path.dirname(library) if os.path.basename(library).startswith(LIBRARY) else ""


def plugins(source: PluginDirectory, names: tuple[str, ...], bin_dir: str, root: HostRoot, *, standalone: bool | None) -> list[PayloadPart]:
    """Return the parts for the CNI bin directory. `standalone`: with the standalone plugins; None: if the host's Python can run them."""
    launchers = {name: launcher for name in names if (launcher := source.launcher(name)) is not None}
    if standalone and len(launchers) < len(names):
        raise Problem(f"{source.directory} has no standalone plugins", "--standalone=no installs the relays alone")
    if standalone is None:
        standalone = bool(launchers) and all(_runs_on(root, launcher) for launcher in launchers.values())
    parts = []
    if standalone:
        library = os.path.join(source.directory, library_of(next(iter(launchers.values()))))
        # Named by its digest: launcher and library change at the same moment, and running calls keep their library.
        named = f"{LIBRARY}.{tree_digest(library).removeprefix(TREE)[:12]}"
        parts.append(PayloadPart(os.path.join(bin_dir, named), tree=library))
        for name, launcher in launchers.items():
            content = _LIBRARY_IN_LAUNCHER.sub(f'/{named}"'.encode(), launcher)
            parts.append(PayloadPart(os.path.join(bin_dir, f"{name}.standalone"), content, 0o755))
    return [*parts, *(PayloadPart(os.path.join(bin_dir, name), source.relay(name), 0o755) for name in names)]


def library_of(launcher: bytes) -> str:
    """Return the name of the library beside a launcher that it runs from."""
    found = _LIBRARY_IN_LAUNCHER.search(launcher)
    return found[1].decode() if found else LIBRARY


def credentials(directory: str, service_account: str, server: str) -> list[PayloadPart]:
    """Return a kubeconfig and its files, all in one directory: names are relative, so they are valid on the host and in a container."""
    cluster = {"server": server, "certificate-authority": "ca.crt"}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kube-node",
        "clusters": [{"name": "kube-node", "cluster": cluster}],
        "users": [{"name": "kube-node", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "kube-node", "context": {"cluster": "kube-node", "user": "kube-node"}}],
    }
    copies = service_account_files(service_account).items()
    parts = [PayloadPart(os.path.join(directory, name), content, 0o600, living=True, option=CREDENTIALS) for name, content in copies]
    text = json.dumps(kubeconfig, indent=1).encode() + b"\n"
    return [*parts, PayloadPart(os.path.join(directory, KUBECONFIG), text, 0o600, option=CREDENTIALS)]


def service_account_files(service_account: str) -> dict[str, bytes]:
    """Return a service account's token and certificate authority, by file name. Raises Problem."""
    try:
        return {name: files.read(os.path.join(service_account, name)) for name in COPIED}
    except OSError as error:
        problem = f"service account: {error.filename or service_account}: {error.strerror}"
        raise Problem(problem, "is automountServiceAccountToken false? --credentials=none installs no kubeconfig") from None


def refresh(directory: str, service_account: str) -> bool:
    """Update the copies beside a kubeconfig in `directory`; return whether anything changed. Raises Problem, OSError."""
    new = False
    if not os.path.exists(os.path.join(directory, KUBECONFIG)):  # without a kubeconfig nothing uses them
        return new
    for name, content in service_account_files(service_account).items():
        path = os.path.join(directory, name)
        try:
            if files.read(path) == content:
                continue
        except FileNotFoundError:
            pass
        files.replace(path, content, durable=True)
        new = True
    return new


def node_name(run_dir: str, name: str) -> PayloadPart:
    """Return the file `nodename`, with the Node's name."""
    return PayloadPart(os.path.join(run_dir, "nodename"), f"{name}\n".encode(), living=True, option=NODE_NAME)


def data_dirs(root: HostRoot, run_dir: str, config_dir: str) -> list[str]:
    """Return the directories that may contain reservations of our networks: the default, configured ones, and those in records."""
    conf_dirs = [conf["ipam"].get("dataDir") for conf in cniconfig.netconfs(root.path(config_dir), cniconfig.OURS)]
    run = root.path(run_dir)
    try:
        noted = [record.data_dir for network, attachment in everywhere(run) if (record := Attachments(run, network).read(attachment))]
    except OSError:
        noted = []
    return list(dict.fromkeys([DEFAULT_DATA_DIR, *(str(found) for found in [*conf_dirs, *noted] if found)]))


def network(root: HostRoot, config_dir: str, file: str) -> PayloadPart:
    """Return a network configuration for the runtime's directory. Raises Problem if the runtime would refuse it."""
    path = os.path.join(config_dir, os.path.basename(file))
    try:
        content = files.read(file)
        cniconfig.parse(root.path(path), content)
    except OSError as error:
        raise Problem(f"{file}: {error.strerror}", "--conflist=FILE names a network configuration") from None
    except cniconfig.RefusedError as error:
        raise Problem(f"the runtime would refuse {file}: {error}", error.advice) from None
    return PayloadPart(path, content, option=CONFLIST)


def _runs_on(root: HostRoot, launcher: bytes) -> bool:
    """Say whether the host has a launcher's interpreter in our minor version: compiled dependencies fit no other."""
    interpreter = launcher[2:].split(maxsplit=1)[0].decode()
    path = os.path.realpath(root.path(interpreter))
    if not root.directory and path == os.path.realpath(sys.executable):
        return True
    return os.access(path, os.X_OK) and os.path.basename(path) == f"python{sys.version_info.major}.{sys.version_info.minor}"
