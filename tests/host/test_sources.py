# SPDX-License-Identifier: Apache-2.0
"""Which network has a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenode.host.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def unused(_network: str, do: Callable[[], None]) -> bool:
    do()
    return True


def test_two_take_over_at_once(tmp_path: Path) -> None:
    """Of two networks that find the same one unused, one has its source."""
    sources = Sources(str(tmp_path))
    assert sources.take("s", "/d/a", unused) == "/d/a"
    second: list[str] = []

    def meanwhile(network: str, do: Callable[[], None]) -> bool:
        second.append(sources.take("s", "/d/c", unused))
        return unused(network, do)

    assert sources.take("s", "/d/b", meanwhile) == "/d/b"
    assert second != ["/d/c"]
    assert sources.holder("s") == "/d/b"
    assert sources.take("s", "/d/c", unused) == "/d/c"


def test_a_source_that_is_named_as_a_file_that_is_not_ready(tmp_path: Path) -> None:
    """To take over one source leaves each other as it is."""
    sources = Sources(str(tmp_path))
    for name in ("s", "s.tmp", "s.1.tmp"):
        assert sources.take(name, f"/d/{name}", unused) == f"/d/{name}"
    assert sources.take("s", "/d/b", unused) == "/d/b"
    assert [sources.holder(name) for name in ("s", "s.tmp", "s.1.tmp")] == ["/d/b", "/d/s.tmp", "/d/s.1.tmp"]
