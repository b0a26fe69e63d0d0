# SPDX-License-Identifier: Apache-2.0
"""A command in a pane of tmux, and what the pane then shows. The server is one of its own, and ends with the pane."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NUMBERS = itertools.count()
PATIENCE = 60.0  # seconds for a command
CONFIG = """
set -g default-terminal tmux-256color
set -g status off
set -g history-limit 10000
"""
ENDED = "ended "
# The pane's title says that the command has ended: tmux has then taken all that came before it. Ctrl-C is for the command alone.
SHELL = rf"""trap : INT; {{}}; printf '\033]2;{ENDED}%s\033\\' $?; exec sleep 1000"""


class Pane:
    """A pane of so many columns and rows in which a command runs. `directory`: where the server has its socket."""

    def __init__(self, command: Sequence[str], columns: int, rows: int, environ: Mapping[str, str], directory: Path) -> None:
        self._command = shlex.join(command)
        (directory / "tmux.conf").write_text(CONFIG)
        name = f"kube-node-{next(NUMBERS)}"  # one that goes away may still be there
        self._tmux = ["tmux", "-u", "-L", name, "-f", str(directory / "tmux.conf")]
        self._size = ["-x", str(columns), "-y", str(rows)]
        self._environ = {**environ, "TMUX_TMPDIR": str(directory), "LANG": "C.UTF-8", "SHELL": "/bin/sh"}

    def __enter__(self) -> Self:
        self._run("new-session", "-d", *self._size, SHELL.format(self._command))
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*self._tmux, "kill-server"], env=self._environ, check=False, capture_output=True)

    def wait(self, text: str = "") -> int:
        """Wait for a text and until nothing moves, or without one for the command's end; return the exit code, 0 while it runs."""
        end, seen = time.monotonic() + PATIENCE, ""
        while time.monotonic() < end:
            title = self._run("display-message", "-p", "#{pane_title}").strip()
            if title.startswith(ENDED):
                return int(title.removeprefix(ENDED))
            before, seen = seen, self.text()
            if text and text in seen and seen == before:
                return 0
            time.sleep(0.05)
        msg = f"{self._command} {f'shows no {text}' if text else 'does not end'} within {PATIENCE:g} s: {seen}"
        raise TimeoutError(msg)

    def type(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def text(self, *how: str) -> str:
        """Return what was shown from the first line on; `how`: -e with colours, -J each line as it was written, however wide."""
        lines = self._run("capture-pane", "-p", "-S", "-", *how).splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], env=self._environ, check=True, capture_output=True, text=True)
        return done.stdout
