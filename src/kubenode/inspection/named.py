# SPDX-License-Identifier: Apache-2.0
"""Networks of the files after --config: CNI configurations and NetworkAttachmentDefinitions, YAML or JSON, each for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kubenode.base import files, place
from kubenode.base.jsontext import JSONTextError, loads
from kubenode.base.problem import Problem
from kubenode.cni import versions
from kubenode.cni.netconf import json_type
from kubenode.host import cniconfig

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFINITION = "NetworkAttachmentDefinition"
WANTED = f"name a CNI configuration or a {DEFINITION}"
MOST = 100_000  # values in a document, also those from anchors


class Configured(NamedTuple):
    """A plugin's configuration, and its path; `chain`: the plugins that the network calls, this one among them.

    `is_recorded`: it comes from records of attachments instead of a file.
    """

    path: str
    raw: dict[str, Any]
    chain: tuple[str, ...] = ()
    is_recorded: bool = False

    @property
    def name(self) -> str:
        """The network's name."""
        return str(self.raw.get("name") or "")

    @property
    def ipam(self) -> dict[str, Any]:
        """The object `ipam`."""
        found: dict[str, Any] = self.raw["ipam"]
        return found


class Named(NamedTuple):
    """Networks of files; `broken`: the faults, one for each document."""

    configured: tuple[Configured, ...]
    broken: tuple[Problem, ...]


def read(paths: tuple[str, ...]) -> Named:
    """Read files. Raises Problem if one is unreadable, or has nothing that could be a network with our plugins."""
    configured: list[Configured] = []
    broken: list[Problem] = []
    for path in paths:
        before = len(configured) + len(broken)
        for document in _documents(path):
            try:
                if isinstance(document, Problem):
                    raise document
                configured += networks(path, document)
            except Problem as error:
                broken.append(error)
        if len(configured) + len(broken) == before:
            raise Problem(f"{path} has no network with {', '.join(cniconfig.OURS)}", WANTED)
    return Named(tuple(configured), tuple(broken))


def of(path: str, network: cniconfig.Network) -> Iterator[Configured]:
    """Yield the configurations of our plugins in a network."""
    return (Configured(path, raw, network.chain) for raw in network.netconfs(cniconfig.OURS))


def _documents(path: str) -> Iterator[Any]:
    """Yield each document, each item of a List, and an error for an invalid rest of the text."""
    try:
        text = files.read(path)
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}", WANTED) from None
    try:
        documents = iter([loads(text)])
    except JSONTextError:
        import yaml  # not every command needs it

        documents = yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        for document in documents:
            items = document.get("items") if isinstance(document, dict) else None
            yield from items if isinstance(items, list) else [document] if document is not None else []
    except Exception as error:  # noqa: BLE001 -- PyYAML lets through whatever int(), date() and dicts raise on a scalar
        yield Problem(f"{path} is neither JSON nor YAML{place.of(error)}", "correct it")


def networks(path: str, document: Any) -> list[Configured]:
    """Return the configurations of our plugins in a document. Raises Problem."""
    if not isinstance(document, dict):
        kind = json_type(document) if isinstance(document, (str, int, float, list)) else type(document).__name__
        raise Problem(f"{path} holds a {kind}", WANTED)
    where = path
    try:
        _require_json(document)
        content: Any = document
        if document.get("kind") == DEFINITION:
            name = _object(document, "metadata").get("name")
            where = f"{path}: {DEFINITION} {name}"
            if not (text := _object(document, "spec").get("config")):
                return []  # Multus then takes the configuration from a file of that name
            content = _config(text, name)
        return [one for network in cniconfig.with_delegates(content) for one in of(path, network)]
    except (cniconfig.RefusedError, OSError) as error:
        advice = error.advice if isinstance(error, cniconfig.RefusedError) else "correct it"
        raise Problem(f"{where}: {error}", advice) from None


def _config(text: Any, name: Any) -> Any:
    """Return the configuration in a definition; without a name it gets the definition's, as in Multus. Raises RefusedError."""
    if not isinstance(text, str):
        raise cniconfig.RefusedError(f"spec.config is a JSON {json_type(text)}, not a string")
    try:
        content = loads(text)
    except (JSONTextError, UnicodeError) as error:
        raise cniconfig.RefusedError(f"spec.config is not JSON: {error}") from None
    return {"name": name, "cniVersion": versions.LATEST, **content} if isinstance(content, dict) else content


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise cniconfig.RefusedError(f"{key} is a JSON {json_type(value)}, not an object")
    return value


def _require_json(document: Any) -> None:
    """Raise RefusedError for a value that JSON lacks: YAML has dates, keys that are numbers, and anchors that multiply a few lines."""
    left, count = [document], 0
    while left:
        one = left.pop()
        count += 1
        if count > MOST:
            raise cniconfig.RefusedError(f"it has more than {MOST} values")
        if isinstance(one, dict):
            if odd := [key for key in one if not isinstance(key, str)]:
                raise cniconfig.RefusedError(f"its key {odd[0]!r} is not a text")
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
        elif one is not None and not isinstance(one, (str, int, float)):
            raise cniconfig.RefusedError(f"it has a {type(one).__name__}, which JSON does not have")
