# SPDX-License-Identifier: Apache-2.0
"""The run of the tests itself: what is left out is counted by what is wanting, and what cannot be built is one error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple, cast

import once
import pytest
import running
import wanting


class Item(NamedTuple):
    fixturenames: tuple[str, ...]


class Placed(NamedTuple):
    path: Path
    number: int


class Factory(NamedTuple):
    base: Path

    def getbasetemp(self) -> Path:
        return self.base


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.TempPathFactory:
    for name in ("PYTEST_XDIST_WORKER", "KUBE_NODE_BINARIES"):
        monkeypatch.delenv(name, raising=False)
    return cast("pytest.TempPathFactory", Factory(tmp_path))


def test_what_is_wanting_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end names each program once, with the number of tests and the place where it comes from, the most wanted first."""
    monkeypatch.setattr(wanting, "has", lambda name: name == "git")
    reasons = []
    for names in (("strace",), ("git", "strace"), ("tmux", "strace"), ("helm",)):
        with pytest.raises(pytest.skip.Exception) as skipped:
            wanting.want(*names)
        reasons.append(f"Skipped: {skipped.value.msg}")
    assert list(wanting.summary([*reasons, "Skipped: no reason that we know"])) == [
        "    3 strace                  Debian: strace",
        "    1 tmux                    Debian: tmux",
        "    1 helm                    helm.sh, in PATH or named by HELM",
        "    1 no reason that we know",
    ]
    wanting.want("git")


def test_what_is_built_is_built_once(factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes first builds, and tells it; who comes later has the same."""
    program = "import sys; open(sys.argv[1], 'x').write('it')"
    monkeypatch.setitem(once.MADE, "built", lambda output: [sys.executable, "-c", program, str(output)])
    told: list[str] = []
    items = cast("list[pytest.Item]", [Item(("tmp_path", "built")), Item(("built",)), Item(())])
    for _ in range(2):
        once.make_all(items, factory, told.append)
    assert once.make(once.shared(factory), "built").read_text() == "it"
    assert len(told) == 1
    for item in items:
        once.check(item, factory)


def test_what_cannot_be_built_is_one_error(factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is tried once; one test fails with what the compiler said, and the others are left out."""
    tries = []

    def fail(output: Path) -> list[str]:
        tries.append(output)
        return [sys.executable, "-c", "import sys; sys.exit('no room on the device')"]

    monkeypatch.setitem(once.MADE, "built", fail)
    monkeypatch.setattr(wanting, "has", lambda _: True)
    items = cast("list[pytest.Item]", [Item(("built",))] * 3)
    once.make_all(items, factory, lambda _: None)
    with pytest.raises(once.NotMadeError, match="no room on the device"):
        once.make(once.shared(factory), "built")
    with pytest.raises(pytest.fail.Exception, match="no room on the device"):
        once.check(items[0], factory)
    for item in items[1:]:
        with pytest.raises(pytest.skip.Exception, match="wants built: it cannot be made; one error says why"):
            once.check(item, factory)
    assert len(tries) == 1


def test_the_longest_files_are_there() -> None:
    """What begins a run is named as it is called."""
    assert [name for name in running.LONGEST if not (Path(__file__).parent / name).is_file()] == []


def test_the_longest_files_begin() -> None:
    """They come in the order of the list; the others keep theirs, and so does each file's inside."""
    names = ["a/test_b.py", running.LONGEST[1], "a/test_a.py", running.LONGEST[0], running.LONGEST[1]]
    items = [Placed(Path("/x/tests") / name, number) for number, name in enumerate(names)]
    assert [item.number for item in sorted(items, key=running._turn)] == [3, 1, 4, 0, 2]  # type: ignore[arg-type]
