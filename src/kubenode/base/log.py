# SPDX-License-Identifier: Apache-2.0
"""Log of JSON lines on stderr or in a file, never on stdout, which carries the result. `logging` is not used: it imports `re`.

Logging never raises, and never waits for a reader: a line that cannot be written is dropped and counted.
"""

from __future__ import annotations

import os
import sys
import time

from kubenode.base import files
from kubenode.base.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from select import poll
    from typing import Protocol

    from kubenode.base.jsontext import JSON

    class Sink(Protocol):
        @property
        def dropped(self) -> int:
            """Number of lines that could not be written."""

        def write(self, path: str, text: bytes) -> None:
            """Write to a file, or to stderr if `path` is ""."""


PIPE_BUF = 4096  # bytes that a pipe takes as a whole once poll(2) calls it writable (pipe(7))
PATIENCE = 0.1  # seconds that a whole plugin call may wait for the reader of stderr
ERROR, WARNING, INFO, DEBUG, TRACE = -2, -1, 0, 1, 2
NAMES = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug", TRACE: "trace"}
STREAMS = frozenset(["stdout", "stderr"])


class Log:
    """Log of one call. Without a file it writes only warnings and errors, to stderr, which the runtime shows."""

    def __init__(self, plugin: str, level: int = WARNING, sink: Sink | None = None) -> None:
        self._sink: Sink = sink or DirectSink()
        self._common: dict[str, JSON] = {"plugin": plugin}
        self._path = ""
        self._level = level
        self._began: float | None = None

    def of(self, plugin: str) -> Log:
        """Return the log of one call to a plugin in the agent, with this log's level."""
        return Log(plugin, self._level, self._sink)

    @property
    def dropped(self) -> int:
        """Number of lines that could not be written."""
        return self._sink.dropped

    def begin(self, labels: Mapping[str, JSON]) -> None:
        """Begin a call: add these fields, and the milliseconds since now, to every following line."""
        self._began = time.monotonic()
        self.bind(**labels)

    def bind(self, **fields: JSON) -> None:
        """Add these fields to every following line."""
        self._common.update({key: value for key, value in fields.items() if value})

    def configure(self, path: str, level: str) -> None:
        """Write to this file from now on; its path must contain no symbolic link. "stdout" means stderr, as stdout carries the result."""
        self._path = "" if path in STREAMS else path
        if path:
            self._level = level_of(level)

    def error(self, message: str, **fields: JSON) -> None:
        """Log an error."""
        self._write(ERROR, message, fields)

    def warning(self, message: str, **fields: JSON) -> None:
        """Log a warning."""
        self._write(WARNING, message, fields)

    def info(self, message: str, **fields: JSON) -> None:
        """Log an event of normal operation."""
        self._write(INFO, message, fields)

    def debug(self, message: str, **fields: JSON) -> None:
        """Log a detail, for `loglevel` debug."""
        self._write(DEBUG, message, fields)

    def trace(self, message: str, **fields: JSON) -> None:
        """Log a small detail, for `loglevel` trace."""
        self._write(TRACE, message, fields)

    def pass_on(self, said: bytes) -> None:
        """Write another program's stderr to our stderr."""
        self._sink.write("", said)

    def _write(self, level: int, message: str, fields: dict[str, JSON]) -> None:
        if level > self._level:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        line = {"ts": stamp, "level": NAMES.get(level, "trace"), "msg": message, **self._common, **fields}
        if self._began is not None:
            line["milliseconds"] = round((time.monotonic() - self._began) * 1000, 1)
        try:
            text = dumps(line)
        except RecursionError:  # a configuration nested as deeply as the parser accepts
            text = dumps({**line, **dict.fromkeys(fields, "nested too deeply")})
        self._sink.write(self._path, text.encode() + b"\n")


class DirectSink:
    """Sink that writes at once. `patience`: seconds to wait for the reader of stderr, in total; None: no limit."""

    def __init__(self, patience: float | None = PATIENCE) -> None:
        self._patience = patience
        self.dropped = 0

    def write(self, path: str, text: bytes) -> None:
        if path:
            try:
                _append(path, text)
            except OSError as error:
                text = f"kube-node: cannot write the log file {path}: {error.strerror}\n".encode(errors="replace") + text
            else:
                return
        if not self._to_stderr(text):
            self.dropped += 1

    def _to_stderr(self, text: bytes) -> bool:
        if sys.stderr is None:  # closed at start: its descriptor may be a reservation's by now
            return False
        from select import POLLOUT, poll  # few calls write to stderr

        # Not O_NONBLOCK: it would apply to all processes that share this stderr.
        stderr = poll()
        stderr.register(2, POLLOUT)
        try:
            while text:
                if not stderr.poll(0) and not self._wait(stderr):
                    return False
                text = text[os.write(2, text[:PIPE_BUF]) :]
        except OSError:  # the reader left, or the disk is full
            return False
        return True

    def _wait(self, stderr: poll) -> bool:
        if self._patience is None:
            return bool(stderr.poll())
        began = time.monotonic()
        can_write = bool(stderr.poll(self._patience * 1000))
        self._patience = max(0.0, self._patience - (time.monotonic() - began))
        return can_write


def _append(path: str, text: bytes) -> None:
    """Append with one write(2), so that lines of parallel calls do not mix. Raises OSError."""
    fd = files.open_exactly(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o640)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def level_of(text: str) -> int:
    """Parse `loglevel`: info, debug, trace, or a number (1: debug, 2: trace); anything else is info."""
    if text.isdecimal():
        return int(text[:9])  # int() refuses more than 4300 digits
    return {name: level for level, name in NAMES.items()}.get(text, INFO)
