"""A node to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from node import SeededNode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def seeded(tmp_path: Path, run_dir: Path) -> SeededNode:
    """Return a node with nothing but a Node view; its parts come as a test wants them."""
    return SeededNode(tmp_path / "node", run_dir)
