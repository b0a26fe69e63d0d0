# SPDX-License-Identifier: Apache-2.0
"""The real controller as a process of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ourprocess import OurProcess, free_port
from patience import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class ControllerProcess(OurProcess):
    """A controller. `arguments` are those of `kube-node controller`."""

    def __init__(self, kubeconfig: Path, log_path: Path, *arguments: str, fresh: bool = False) -> None:
        port = free_port()
        common = ["controller", f"--kubeconfig={kubeconfig}", f"--listen=127.0.0.1:{port}", "--loglevel=debug"]
        super().__init__([*common, *arguments], log_path, port, fresh=fresh)


def until(condition: Callable[[], object], seconds: float = PATIENCE, why: Callable[[], object] = lambda: "") -> float:
    """Wait for something; return how long it took."""
    began = time.monotonic()
    eventually(condition, why, seconds)
    return time.monotonic() - began
