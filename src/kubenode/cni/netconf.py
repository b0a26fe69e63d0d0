# SPDX-License-Identifier: Apache-2.0
"""Network configuration from stdin (SPEC.md, "Section 1"). Unknown keys stay unchanged."""

from __future__ import annotations

from kubenode.base.jsontext import JSONTextError, loads
from kubenode.base.record import NamedTuple, remembered
from kubenode.cni import keys, versions
from kubenode.cni.errors import INVALID_NETWORK_CONFIG, UNDECODABLE, CNIError
from kubenode.cni.request import has_control, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.base.jsontext import JSON


USUAL = 16 << 10  # bytes of the largest configuration that is cached


class NetConf(NamedTuple):
    """Network configuration; `raw` is the complete object."""

    cni_version: str
    name: str
    ipam: dict[str, JSON]
    raw: dict[str, JSON]

    def with_ipam(self, ipam: dict[str, JSON]) -> dict[str, JSON]:
        """Return the complete configuration with another `ipam`, for a delegate."""
        return {**self.raw, "ipam": ipam}


def decode(stdin: bytes) -> dict[str, JSON]:
    """Parse the JSON object from stdin. It is cached and shared: callers must not change it. Raises CNIError 6."""
    return _remembered(stdin) if len(stdin) <= USUAL else _decode(stdin)


def _decode(stdin: bytes) -> dict[str, JSON]:
    try:
        raw = loads(stdin)
    except JSONTextError as error:
        raise CNIError(
            UNDECODABLE,
            f"error decoding the network configuration on stdin: {error}",
            "stdin must be one JSON object",
            f"error unmarshall network config: {error}",
        ) from None
    if not isinstance(raw, dict):
        found = f"a JSON {json_type(raw)}"
        raise CNIError(
            UNDECODABLE,
            f"the network configuration on stdin is {found}",
            "stdin must be one JSON object",
            f"error unmarshall network config: {found}",
        )
    known: dict[str, JSON] = keys.canonical(raw, keys.NETWORK)
    return known


_remembered = remembered(_decode, 32)  # configurations: an agent gets the same few for all its pods


def cni_version(raw: dict[str, JSON]) -> str:
    """Return the configuration's version; missing or empty means 0.1.0, as in libcni. Raises CNIError 7."""
    version = raw.get("cniVersion") or versions.OLDEST
    if not isinstance(version, str):
        raise CNIError(INVALID_NETWORK_CONFIG, f"cniVersion is a JSON {json_type(version)}", 'cniVersion is a string such as "1.0.0"')
    return version


def parse(raw: dict[str, JSON]) -> NetConf:
    """Validate the keys that every command needs. Raises CNIError 7 with all issues at once."""
    name, ipam = raw.get("name"), raw.get("ipam")
    issues = {}  # our message: the reference plugin's
    if not name:
        issues["missing network name"] = ""
    elif not isinstance(name, str) or not is_name(name):
        issues[f"invalid characters found in network name {name!r}"] = "invalid characters found in network name"
    if ipam is None:
        issues["missing ipam"] = "IPAM config missing 'ipam' key"
    elif not isinstance(ipam, dict):
        issues[f"ipam is a JSON {json_type(ipam)}"] = ""
    if issues:
        first, reference = next(iter(issues.items()))
        raise invalid(list(issues), reference or first)
    assert isinstance(name, str) and isinstance(ipam, dict)  # noqa: S101, PT018 -- for the type checker
    return NetConf(cni_version(raw), name, ipam, raw)


def invalid(issues: list[str], reference: str = "") -> CNIError:
    """Return the error for a configuration with these issues."""
    advice = "correct the network configuration (/etc/cni/net.d or NetworkAttachmentDefinition)"
    return CNIError(INVALID_NETWORK_CONFIG, "; ".join(issues), advice, reference)


def is_path(text: str) -> bool:
    """Say whether a text can be a path or a name: no control characters, no lone surrogates, which JSON may contain."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not has_control(text)


def json_type(value: JSON) -> str:
    """Name a JSON value's type as the JSON specification does."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names[type(value)]
