# SPDX-License-Identifier: Apache-2.0
"""A relay whose seconds are short: what it does after 15 s is seen after 1.5 s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from relayplace import Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path, short_relay: Path) -> Place:
    return Place(tmp_path / "bin", short_relay)


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory, short_relay: Path) -> Place:
    """Return one for all examples of a property."""
    return Place(tmp_path_factory.mktemp("shared") / "bin", short_relay)
