"""PURE. Versions of the API server's objects."""

from __future__ import annotations


def before(version: str, other: str) -> bool:
    """Compare two versions; all that is known of their form is that they are numbers by now."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
