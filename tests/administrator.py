# SPDX-License-Identifier: Apache-2.0
"""The file by which a host's administrator says what a network configuration may name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def allow(path: Path, **directories: Sequence[str]) -> Path:
    """Write the file, as only its owner may change it."""
    path.write_text(json.dumps({"allow": directories}))
    path.chmod(0o644)
    return path
