"""The network configurations of this host, as the runtime reads them: files of /etc/cni/net.d, each plugin of a list by itself."""

from __future__ import annotations

import os

from kubenode.cni import keys
from kubenode.cni.jsontext import JSONTextError, loads
from kubenode.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

DEFAULT_CONFIG_DIR = "/etc/cni/net.d"
SUFFIXES = (".conf", ".conflist", ".json")  # as libcni's `ConfFiles` has them


def netconfs(directory: str, ipam_types: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield what each plugin with one of these IPAM plugins is given. What cannot be read is the runtime's to complain about."""
    for path in paths(directory):
        try:
            content = loads(files.read(path))
        except (OSError, JSONTextError):
            continue
        yield from plugins(content, ipam_types)


def paths(directory: str) -> list[str]:
    """Return the configuration files of a directory in the runtime's order; none where there is no directory."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [os.path.join(directory, name) for name in names if name.endswith(SUFFIXES)]


def plugins(content: object, ipam_types: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the same of one file's content."""
    if not isinstance(content, dict):
        return
    common = {key: content[key] for key in ("name", "cniVersion") if key in content}
    for one in _listed(content):
        plugin = keys.canonical(one, keys.NETWORK)
        ipam = plugin.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") in list(ipam_types):  # a list compares with whatever stands there
            yield {**plugin, **common}


def chain(content: object) -> tuple[str, ...]:
    """Return which plugins a file's network calls, one after the other."""
    return tuple(str(plugin["type"]) for plugin in _listed(content) if plugin.get("type")) if isinstance(content, dict) else ()


def _listed(content: dict[str, Any]) -> list[dict[str, Any]]:
    listed = content.get("plugins", [content])
    return [plugin for plugin in listed if isinstance(plugin, dict)] if isinstance(listed, list) else []
