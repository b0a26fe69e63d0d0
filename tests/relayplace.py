# SPDX-License-Identifier: Apache-2.0
"""A relay in a directory of its own, with a standalone that tells what it got."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SECOND = 0.1  # how long a second is to the relay that most tests use
TICK = 0.001  # seconds: the relay's clock counts whole milliseconds
LOCAL = b'{"local": true}\n'


class Done(NamedTuple):
    code: int
    stdout: bytes
    stderr: bytes


class Place:
    """A CNI bin directory with the relay as kube-node, and its standalone."""

    def __init__(self, directory: Path, relay: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.relay = directory / "kube-node"
        self.standalone = directory / "kube-node.standalone"
        self.socket = directory / "sock"
        shutil.copy(relay, self.relay)
        self.becomes(f"cat >{directory}/stdin; echo '{LOCAL.decode().strip()}'")

    def becomes(self, script: str) -> None:
        """Let the standalone do this, in sh, after it has noted that it was run."""
        self.standalone.write_text(f"#!/bin/sh\nprintf '%s|' \"$@\" >{self.directory}/arguments\n{textwrap.dedent(script)}\n")
        self.standalone.chmod(0o755)

    def environment(self, cni_command: str) -> dict[str, str]:
        told = {"CNI_COMMAND": cni_command} if cni_command else {}
        return {"PATH": os.defpath, "KUBE_NODE_SOCKET": str(self.socket), **told}

    def call(
        self,
        cni_command: str = "ADD",
        stdin: bytes = b"{}",
        *arguments: str,
        argv0: str | bytes | None = None,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    ) -> Done:
        """Run the relay, under another argv[0] if one is given."""
        argv: Sequence[str | bytes] = [str(self.relay) if argv0 is None else argv0, *arguments]
        environ = self.environment(cni_command) if env is None else env
        # In a new session: so it is no posix_spawn, to which an argv[0] must not be empty.
        done = subprocess.run(
            argv, executable=self.relay, input=stdin, env=environ, capture_output=True, check=False, timeout=60, start_new_session=True
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def sh(self, cni_command: str, script: str, stdin: bytes = b"{}") -> Done:
        """Run a shell script, in which $relay is the relay."""
        environ = {**self.environment(cni_command), "relay": str(self.relay)}
        done = subprocess.run(["sh", "-c", script], input=stdin, env=environ, capture_output=True, check=False, timeout=60)
        return Done(done.returncode, done.stdout, done.stderr)

    def ran(self) -> bool:
        """Say whether the standalone was run since the last time of asking."""
        noted = self.directory / "arguments"
        found = noted.exists()
        noted.unlink(missing_ok=True)
        return found

    def got(self) -> bytes:
        """Return the standalone's stdin."""
        return (self.directory / "stdin").read_bytes()
