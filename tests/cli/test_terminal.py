# SPDX-License-Identifier: Apache-2.0
"""All commands in a pane of tmux, as a person sees them: at 80 and at 200 columns nothing is broken, and at 40 nothing fails."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from pictures import PICTURES
from screens import SHOTS, Screen, take
from wanting import want

from kubenode.cli.main import COMMANDS

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
BLOCKS = [  # of text in the documentation: the page, the screen that it shows, and the text
    (page, *found)
    for page in sorted(DOCS.rglob("*.md"))
    for found in re.findall(r"<!-- screen: (\S+) -->\n```text\n(.*?)```", page.read_text(), re.DOTALL)
]
TINY, NARROW, BROAD = 40, 80, 200
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BARS = frozenset("┃│┳┬╇┼┻┴┡┩├┤┏┓└┘")  # where a table's columns begin and end: as wide as the numbers in them
PICTURE = re.compile("[·█░▒▓G!x-]+")  # a bar, or a row of a map


@pytest.fixture(scope="module")
def screens(built: Path, cni_bin: Path) -> dict[tuple[str, int], Screen]:
    """Return what each command shows at each width."""
    want("tmux", "ping", "network namespaces")
    assert cni_bin.exists()
    return {(screen.name, screen.columns): screen for screen in take([TINY, NARROW, BROAD], built)}


def text(screen: Screen) -> str:
    return COLOUR.sub("", screen.text)


def words(screen: Screen) -> set[str]:
    """Return the words, with a 0 for each number: times and process numbers differ from run to run."""
    found = {word.strip(",") for word in text(screen).split() if not PICTURE.fullmatch(word) and not BARS & set(word)}
    return {re.sub("[0-9a-f]+", "0", word) for word in found}


def test_all_commands_are_there() -> None:
    """Each command is run."""
    assert {shot.line.split()[0] for shot in SHOTS.values() if shot.line} >= {*COMMANDS} - {
        "agent",  # does not end, and writes JSON
        "controller",
        "completion",  # writes a program
    }


@pytest.mark.parametrize("name", SHOTS)
def test_no_command_fails(name: str, screens: dict[tuple[str, int], Screen]) -> None:
    """A command does the same at each width, also at one that is too narrow to read."""
    for columns in (TINY, NARROW, BROAD):
        screen = screens[name, columns]
        assert screen.code == SHOTS[name].code, text(screen)
        assert "Traceback" not in screen.text
        assert text(screen).strip()


@pytest.mark.parametrize("columns", [NARROW, BROAD])
@pytest.mark.parametrize("name", SHOTS)
def test_no_line_is_wrapped_or_cut(name: str, columns: int, screens: dict[tuple[str, int], Screen]) -> None:
    """The terminal wraps no line, and nothing is cut off a text."""
    screen = screens[name, columns]
    assert [line for line in screen.lines if len(line) > columns] == []
    assert "…" not in text(screen)


@pytest.mark.parametrize("name", SHOTS)
def test_no_word_is_broken(name: str, screens: dict[tuple[str, int], Screen]) -> None:
    """At 80 columns stand the words of 200 columns: no address, path or name goes on in the next line."""
    assert words(screens[name, NARROW]) - words(screens[name, BROAD]) == set()


@pytest.mark.parametrize("columns", [NARROW, BROAD])
def test_tables_have_straight_borders(columns: int, screens: dict[tuple[str, int], Screen]) -> None:
    """In a table with borders each line has them in the same columns."""
    bordered = [line for line in text(screens["try", columns]).splitlines() if BARS & set(line)]
    assert len(bordered) > 5
    assert len({tuple(i for i, sign in enumerate(line) if sign in BARS) for line in bordered}) == 1


def sayings(text: str) -> set[str]:
    """Return the words that have no digit: times, versions and process numbers differ from run to run, and columns are as wide as these."""
    found = (word.strip("-") for word in re.split(r"[\s,:·█░▒▓─-╿]+", text))
    return {word for word in found if word and not re.search("[0-9]", word)}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_up_to_date(name: str, screens: dict[tuple[str, int], Screen]) -> None:
    """A picture shows a command, and what it prints today."""
    screen = screens[name, NARROW]
    drawn = ET.parse(DOCS / f"images/{name}.svg").find(".//*[@class='kube-node-matrix']")
    assert drawn is not None
    assert sayings(" ".join(drawn.itertext())) == sayings(f"$ {screen.command}\n{text(screen)}")


@pytest.mark.parametrize(("page", "name", "block"), BLOCKS, ids=[f"{page.name}-{name}" for page, name, _ in BLOCKS])
def test_texts_are_up_to_date(page: Path, name: str, block: str, screens: dict[tuple[str, int], Screen]) -> None:
    """A block of text in the documentation that names a screen does so, too."""
    screen = screens[name, NARROW]
    assert sayings(block) == sayings(f"$ {screen.command}\n{text(screen)}"), page
