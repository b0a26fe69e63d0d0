# SPDX-License-Identifier: Apache-2.0
"""Where what kubectl and Helm make of deploy/ is made."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from rendered import DEPLOY
from wanting import want

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def kubectl() -> None:
    want("kubectl")


@pytest.fixture
def overlay(kubectl: None) -> Iterator[Path]:
    """Return a directory for a kustomization that may take what is in deploy/."""
    directory = DEPLOY / f".test.{os.getpid()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)
