# SPDX-License-Identifier: Apache-2.0
"""A node to look at."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from node import SeededNode
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Return a host root that has the test's directory, for sockets where runtimes have theirs; its path is short, as theirs must be."""
    want("the right to mount")
    with TemporaryDirectory(prefix="kn") as directory:
        here = Path(directory, *tmp_path.parts[1:])
        here.mkdir(parents=True)
        subprocess.run(["mount", "--bind", tmp_path, here], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", here], check=True)


@pytest.fixture
def seeded(tmp_path: Path, run_dir: Path) -> SeededNode:
    """Return a node with nothing but a Node view; its parts come as a test wants them."""
    return SeededNode(tmp_path / "node", run_dir)
