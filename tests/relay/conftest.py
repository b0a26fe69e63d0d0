"""A relay whose seconds are short: what it does after 15 s is seen after 1.5 s."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from compile_relay import SOURCE, choose, command, here
from relayplace import SECOND, Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def short_relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a relay like the real one, with short seconds."""
    output = tmp_path_factory.mktemp("relay") / "relay"
    limits = {"SECOND": int(SECOND * 1000), "STDIN_LIMIT": 4194304, "ANSWER_LIMIT": 4194304, "HEADER_LIMIT": 6291456, "SHOWN": 4096}
    options = ['-DVERSION="1.2.3-short"', *(f"-D{name}={value}" for name, value in limits.items())]
    subprocess.run([*command(choose(), here()), *options, SOURCE, "-o", output], check=True)
    return output


@pytest.fixture
def place(tmp_path: Path, short_relay: Path) -> Place:
    return Place(tmp_path / "bin", short_relay)


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory, short_relay: Path) -> Place:
    """Return one for all examples of a property."""
    return Place(tmp_path_factory.mktemp("shared") / "bin", short_relay)
