# SPDX-License-Identifier: Apache-2.0
"""Costs as counts, which are the same on a machine that is busy."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

OPENS = """
import sys
sys.addaudithook(lambda event, about: event == "open" and print("opened", about[0], file=sys.stderr))
from kubenode.cli.main import main
sys.exit(main())
"""


def calls_of(action: Callable[[], object]) -> int:
    """Return how many functions something calls in this thread, Python's and C's."""
    count = 0

    def note(_frame: object, event: str, _function: Any) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def opened_by(*arguments: str) -> tuple[str, Counter[str]]:
    """Run `kube-node COMMAND …`; return what it prints, and how often it has opened each file."""
    done = subprocess.run([sys.executable, "-c", OPENS, *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, Counter(line.removeprefix("opened ") for line in done.stderr.splitlines() if line.startswith("opened "))
