# SPDX-License-Identifier: Apache-2.0
"""Network configurations of this host, read like the runtime does (libcni 1.3 `conf.go`, go-cni `opts.go`, Multus `delegates`).

The suffix decides the format: a `.conflist` is a list of plugins, a `.conf` or `.json` a single plugin. The first file by name is the
pods' network. A file that the runtime refuses has no network.
"""

from __future__ import annotations

import os

from kubenode.base import files
from kubenode.base.jsontext import JSONTextError, loads
from kubenode.base.record import NamedTuple
from kubenode.cni import keys
from kubenode.cni.netconf import is_path, json_type
from kubenode.cni.request import is_name
from kubenode.cni.versions import LATEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from kubenode.base.jsontext import JSON

    Shape = type | dict[str, "Shape"] | list["Shape"]

OURS = ("kube-node", "node-annotation", "host-local")  # values of `ipam.type` that our plugins serve
TAKE_NODES = OURS[:2]  # the plugins that need the Node
DEFAULT_CONFIG_DIR = "/etc/cni/net.d"
LIST = ".conflist"
SUFFIXES = (".conf", LIST, ".json")  # as in libcni's `ConfFiles`
PLUGIN_SUFFIX = ".conf"  # of a list's plugins in separate files
MULTUS = frozenset(["multus", "multus-shim"])
PLUGIN: Shape = {  # the keys that libcni types; "": any other key
    **dict.fromkeys(("cniVersion", "name", "type"), str),
    "ipam": {"type": str},
    "capabilities": {"": bool},
    "dns": {"domain": str, **{key: [str] for key in ("nameservers", "search", "options")}},
    "prevResult": {},
}
DIGITS = 10  # at most, in a number of a version
READABLE = "run it as root, or make it readable"
NAMES = "type names the plugin's executable, such as bridge"
FLAGS = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")


class RefusedError(ValueError):
    """Reason why the runtime refuses a file; `advice` says what to do."""

    def __init__(self, problem: str, advice: str = "correct it, or remove it") -> None:
        super().__init__(problem)
        self.advice = advice


class Network(NamedTuple):
    """Network and its plugins, in the order of their calls."""

    name: str
    version: str
    plugins: tuple[dict[str, JSON], ...]

    @property
    def chain(self) -> tuple[str, ...]:
        """Types of the plugins, in the order of their calls."""
        return tuple(plugin["type"] for plugin in self.plugins)

    @property
    def is_multus(self) -> bool:
        """Say whether the first plugin is Multus."""
        return self.plugins[0]["type"] in MULTUS

    def netconfs(self, ipam_types: Collection[str]) -> Iterator[dict[str, JSON]]:
        """Yield the configuration of each plugin whose IPAM plugin is in `ipam_types`."""
        for plugin in self.plugins:
            if (plugin.get("ipam") or {}).get("type") in ipam_types:
                yield {**plugin, "name": self.name, "cniVersion": self.version}


class File(NamedTuple):
    """File of the runtime's directory: its network, followed by Multus' delegates; none if it is refused."""

    path: str
    networks: tuple[Network, ...]
    refused: RefusedError | None


def netconfs(directory: str, ipam_types: Collection[str]) -> Iterator[dict[str, JSON]]:
    """Yield the configuration of each plugin whose IPAM plugin is in `ipam_types`, in the runtime's order."""
    for file in read(directory):
        for network in file.networks:
            yield from network.netconfs(ipam_types)


def read(directory: str) -> list[File]:
    """Read a directory's files in the runtime's order; [] without a directory."""
    found = []
    try:
        paths = _paths(directory, SUFFIXES)
    except OSError as error:
        return [File(directory, (), RefusedError(f"it cannot be read: {error.strerror}", READABLE))]
    for path in paths:
        try:
            found.append(File(path, parse(path, files.read_regular(path)), None))
        except OSError as error:
            refused = RefusedError(f"it cannot be read: {error.strerror}", f"{READABLE}, or remove it")
            found.append(File(path, (), refused))
        except RefusedError as error:
            found.append(File(path, (), error))
    return found


def parse(path: str, text: bytes) -> tuple[Network, ...]:
    """Return the networks of a file with this path. Raises RefusedError if the runtime would refuse it, OSError."""
    if not path.endswith(SUFFIXES):
        raise RefusedError(f"its name ends in none of {', '.join(SUFFIXES)}", "rename it")
    try:
        content = loads(text)
    except JSONTextError as error:
        raise RefusedError(f"it is not JSON: {error}") from None
    as_list = path.endswith(LIST)
    if isinstance(content, dict) and not as_list and "plugins" in content and not _type(content):
        raise RefusedError("it has plugins, and only a .conflist may", f"rename it to {os.path.splitext(path)[0]}{LIST}")
    return with_delegates(content, as_list=as_list, directory=os.path.dirname(path))


def with_delegates(content: JSON, *, as_list: bool | None = None, directory: str = "") -> tuple[Network, ...]:
    """Return the network in a file's content, and Multus' delegates. Raises RefusedError, OSError.

    `as_list`: whether the content is a list of plugins; None: decide by the key `plugins`. `directory`: may have plugins in separate files.
    """
    if as_list is None:
        as_list = isinstance(content, dict) and not _type(content)
    network = _list(content, directory) if as_list else _single(content)
    if not network.is_multus:
        return (network,)
    delegates = network.plugins[0].get("delegates") or []
    if not isinstance(delegates, list):
        raise RefusedError(f"delegates is a JSON {json_type(delegates)}, not an array")
    try:
        return (network, *(with_delegates(delegate)[0] for delegate in delegates))
    except RefusedError as error:
        raise RefusedError(f"delegates: {error}", error.advice) from None


def of_pods(found: Sequence[File]) -> tuple[File, Network] | None:
    """Return the file and the network that connects every pod, below Multus; None if there is none."""
    first = next((file for file in found if file.networks), None)
    if first is None:
        return None
    multus, *delegates = first.networks
    if not multus.is_multus or delegates:
        return first, (delegates or [multus])[0]
    wanted = str(multus.plugins[0].get("clusterNetwork") or "")  # a network's name, or a file's path in Multus's container
    for file in found:
        for network in file.networks[:1]:
            if wanted and (wanted == network.name or os.path.basename(wanted) == os.path.basename(file.path)) and file is not first:
                return file, network
    return first, multus


def _paths(directory: str, suffixes: tuple[str, ...]) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(suffixes) and not entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if not files.is_nowhere(error):
            raise
        return []
    return [os.path.join(directory, name) for name in sorted(names, key=os.fsencode)]


def _single(content: JSON) -> Network:
    plugin = _plugin(content)
    return Network(_name(plugin.get("name")), plugin.get("cniVersion") or "", (plugin,))


def _list(content: JSON, directory: str) -> Network:
    """Parse a list; its keys are case-sensitive, unlike a plugin's."""
    if not isinstance(content, dict):
        raise RefusedError(f"it is a JSON {json_type(content)}, not an object")
    name, inlined = _name(content.get("name")), _flags(content)["loadOnlyInlinedPlugins"]
    listed = content.get("plugins", [])
    if not isinstance(listed, list):
        raise RefusedError(f"plugins is a JSON {json_type(listed)}, not an array")
    if "plugins" in content and not listed:
        raise RefusedError("plugins is empty")
    plugins = [_plugin(one) for one in listed]
    if directory and not inlined:
        plugins += [_plugin_of(path) for path in _paths(os.path.join(directory, name), (PLUGIN_SUFFIX,))]
    if not plugins and _type(content):
        raise RefusedError("it is one plugin, and a .conflist has plugins", 'rename it to .conf, or write {"plugins": [it]}')
    if not plugins:
        where = f", nor files {os.path.join(directory, name)}/*{PLUGIN_SUFFIX}" if directory and not inlined else ""
        raise RefusedError(f"it has no plugins{where}")
    return Network(name, _version(content), tuple(plugins))


def _plugin_of(path: str) -> dict[str, JSON]:
    try:
        return _plugin(loads(files.read_regular(path)))
    except JSONTextError as error:
        raise RefusedError(f"its plugin {path} is not JSON: {error}") from None
    except RefusedError as error:
        raise RefusedError(f"its plugin {path}: {error}", error.advice) from None


def _plugin(content: JSON) -> dict[str, JSON]:
    plugin: dict[str, JSON] = keys.canonical(content, keys.NETWORK)
    if problem := _misfit(plugin, PLUGIN, "it"):
        raise RefusedError(problem)
    if not plugin.get("type"):
        raise RefusedError("a plugin has no type", NAMES)
    if "/" in plugin["type"] or not is_path(plugin["type"]):
        raise RefusedError(f"the type {plugin['type']!r} is no plugin's name", NAMES)
    return plugin


def _misfit(value: JSON, shape: Shape, what: str) -> str:
    """Describe the first value of another type than libcni expects, "" if there is none; null is accepted, except for a plugin."""
    if isinstance(shape, type):
        wanted = {str: "string", bool: "boolean"}[shape]
        return "" if isinstance(value, shape) else f"{what} is a JSON {json_type(value)}, not a {wanted}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{what} is a JSON {json_type(value)}, not an array"
        return next((found for one in value if one is not None and (found := _misfit(one, shape[0], f"an entry of {what}"))), "")
    if not isinstance(value, dict):
        return f"{what} is a JSON {json_type(value)}, not an object"
    for key, one in value.items():
        inner = shape.get(key, shape.get(""))
        if inner is not None and one is not None and (found := _misfit(one, inner, key)):
            return found
    return ""


def _type(content: dict[str, JSON]) -> JSON:
    return keys.canonical(content, {"type": None}).get("type")


def _name(name: JSON) -> str:
    if name is None or name == "":
        raise RefusedError("it has no name", "give the network a name")
    if not isinstance(name, str) or not is_name(name):
        raise RefusedError(f"its name {name!r} is none of letters, digits and _.-", "give the network another name")
    return name


def _flags(content: dict[str, JSON]) -> dict[str, bool]:
    found = {}
    for key in FLAGS:
        value = content.get(key, False)
        said = value.lower() if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else ""
        if said not in {"true", "false"}:
            raise RefusedError(f"{key} is {value!r}, neither true nor false")
        found[key] = said == "true"
    return found


def _version(content: dict[str, JSON]) -> str:
    """Return the version that libcni chooses: the highest known one of `cniVersions`."""
    own = content.get("cniVersion", "")
    offered = content.get("cniVersions", [])
    if not isinstance(own, str):
        raise RefusedError(f"cniVersion is a JSON {json_type(own)}, not a string")
    if not isinstance(offered, list) or not all(isinstance(one, str) for one in offered):
        raise RefusedError("cniVersions is not an array of strings")
    if "cniVersions" not in content:
        return own
    numbers = {one: _numbers(one) for one in [*offered, *([own] if own else [])]}
    return max((one for one in numbers if numbers[one] <= _numbers(LATEST)), key=numbers.__getitem__, default=own)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".") if version else ["0", "1", "0"]
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() and len(part) < DIGITS for part in parts):  # noqa: PLR2004 -- major, minor, micro
        raise RefusedError(f"cniVersions has {version!r}, which is no version")
    return tuple([int(part) for part in parts] + [0] * (3 - len(parts)))
