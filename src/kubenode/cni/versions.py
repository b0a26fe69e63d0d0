# SPDX-License-Identifier: Apache-2.0
"""Versions of the specification, and the commands of each (SPEC.md, "Version")."""

from __future__ import annotations

from kubenode.cni.errors import INCOMPATIBLE_VERSION, CNIError

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST, LATEST = SUPPORTED[0], SUPPORTED[-1]

DIGITS = 9  # of each part of a version that are compared
SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}  # commands that older versions lack


def at_least(version: str, other: str) -> bool:
    """Say whether a supported version is at least another one."""
    return SUPPORTED.index(version) >= SUPPORTED.index(other)


def require(version: str, command: str) -> None:
    """Raise CNIError 1 if the version is unknown or lacks the command."""
    if version not in SUPPORTED:
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f'incompatible CNI version "{version}"',
            f"cniVersion must be one of {', '.join(SUPPORTED)}",
            _as_libcni_says(version, command),
        )
    if command in SINCE and not at_least(version, SINCE[command]):
        raise CNIError(
            INCOMPATIBLE_VERSION,
            f"config version {version} does not allow {command}",
            f"{command} needs cniVersion {SINCE[command]} or newer",
            _as_libcni_says(version, command),
        )


def _as_libcni_says(version: str, command: str) -> str:
    """Return libcni's message for a version that it refuses (its `skel.go`): message, semicolon, details."""
    if command in SINCE and version.replace(".", "").isdecimal():
        if _order(version) < _order(SINCE[command]):
            return f"config version does not allow {command}"
        if _order(version) > _order(LATEST):
            return f"plugin version does not allow {command}"
    supported = '" "'.join(SUPPORTED)
    return f'incompatible CNI versions; config is "{version}", plugin supports ["{supported}"]'


def _order(version: str) -> list[int]:
    parts = [int(part[:DIGITS]) if part.isdecimal() else -1 for part in version.split(".")]
    return [*parts, 0, 0][:3]


def answer(asked: str) -> dict[str, str | list[str]]:
    """Return the result of VERSION: the requested version, and all supported ones."""
    return {"cniVersion": asked, "supportedVersions": list(SUPPORTED)}
