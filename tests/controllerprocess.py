# SPDX-License-Identifier: Apache-2.0
"""The real controller as a process of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ourprocess import OurProcess, free_port
from patience import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IMPATIENT = [sys.executable, str(Path(__file__).with_name("impatient.py")), "growth"]  # as `wrap`: blocks come and go sooner


class ControllerProcess(OurProcess):
    """A controller. `arguments` are those of `kube-node controller`."""

    def __init__(self, kubeconfig: Path, log_path: Path, *arguments: str, wrap: Sequence[str] = (), fresh: bool = False) -> None:
        port = free_port()
        common = ["controller", f"--kubeconfig={kubeconfig}", f"--listen=127.0.0.1:{port}", "--loglevel=debug"]
        super().__init__([*common, *arguments], log_path, port, wrap=wrap, fresh=fresh)


def until(condition: Callable[[], object], seconds: float = PATIENCE, why: Callable[[], object] = lambda: "") -> float:
    """Wait for something; return how long it took."""
    began = time.monotonic()
    eventually(condition, why, seconds)
    return time.monotonic() - began
