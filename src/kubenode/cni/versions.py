"""The versions of the specification, and what came with which (SPEC.md, "Version")."""

from __future__ import annotations

from kubenode.cni.errors import INCOMPATIBLE_VERSION, CNIError

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
OLDEST, LATEST = SUPPORTED[0], SUPPORTED[-1]

DIGITS = 9  # of a part of a version that are looked at
SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}  # the commands that are not in every version


def at_least(version: str, other: str) -> bool:
    """Say whether a supported version is as new as another."""
    return SUPPORTED.index(version) >= SUPPORTED.index(other)


def require(version: str, command: str) -> None:
    """Raise CNIError 1 where this version is unknown or does not have this command."""
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
    """Return how libcni refuses a version (its `skel.go`): message, semicolon, details."""
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
    """Return the result of VERSION: the version that was asked for, and all that are supported."""
    return {"cniVersion": asked, "supportedVersions": list(SUPPORTED)}
