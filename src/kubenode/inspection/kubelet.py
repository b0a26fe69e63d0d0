# SPDX-License-Identifier: Apache-2.0
"""The kubelet's socket of its container runtime, from the command line and configuration of its process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import yaml

from kubenode.base import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubenode.host.root import HostRoot

NAME = b"kubelet"
OPTION, CONFIG, KEY = "--container-runtime-endpoint", "--config", "containerRuntimeEndpoint"
UNIX = "unix://"


def runtime_sockets(root: HostRoot) -> list[str]:
    """Return the sockets that visible kubelets use; in a container only its own processes are visible."""
    found = []
    for arguments in _kubelets():
        given = _option(arguments, OPTION)
        if not given and (config := _option(arguments, CONFIG)):
            given = _configured(root.path(config))
        if given.startswith((UNIX, "/")):
            found.append(given.removeprefix(UNIX))
    return found


def _kubelets() -> Iterator[list[str]]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                words = files.read(f"/proc/{name}/cmdline").split(b"\0")
            except OSError:  # it has ended
                continue
            if os.path.basename(words[0]) == NAME:
                yield [word.decode(errors="surrogateescape") for word in words]


def _option(arguments: list[str], option: str) -> str:
    """Return an option's value, in either form; "" if it is missing."""
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else "".join(arguments[at + 1 : at + 2])
    return ""


def _configured(path: str) -> str:
    try:
        config = yaml.safe_load(files.read(path))
    except (OSError, yaml.YAMLError):
        return ""
    return str(config.get(KEY) or "") if isinstance(config, dict) else ""
