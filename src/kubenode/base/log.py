"""The log: JSON lines on stderr or in a file, never on stdout, which belongs to the result. `logging` would import `re`.

To log never raises, and never waits for whoever reads the lines: a line that cannot be written is dropped, and counted.
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
            """Lines that could not be written so far."""

        def write(self, path: str, text: bytes) -> None:
            """Write to a file, or to stderr where `path` is ""."""


PIPE_BUF = 4096  # bytes that a pipe takes whole where poll(2) says that it takes any (pipe(7))
PATIENCE = 0.1  # seconds that all of a plugin's call may wait for the reader of stderr
ERROR, WARNING, INFO, DEBUG, TRACE = -2, -1, 0, 1, 2
NAMES = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug", TRACE: "trace"}
STREAMS = frozenset(["stdout", "stderr"])


class Log:
    """The log of one call. Without a file only warnings and errors are written, to stderr, as the runtime shows that."""

    def __init__(self, plugin: str, level: int = WARNING, sink: Sink | None = None) -> None:
        self._sink: Sink = sink or Output()
        self._common: dict[str, JSON] = {"plugin": plugin}
        self._path = ""
        self._level = level
        self._began: float | None = None

    def of(self, plugin: str) -> Log:
        """Return the log of one call that an agent makes, as detailed as its own."""
        return Log(plugin, self._level, self._sink)

    @property
    def dropped(self) -> int:
        """Lines that could not be written so far."""
        return self._sink.dropped

    def begin(self, labels: Mapping[str, JSON]) -> None:
        """Begin a call: put on every line from now on which one it is, by these fields, and the milliseconds since now."""
        self._began = time.monotonic()
        self.bind(**labels)

    def bind(self, **fields: JSON) -> None:
        """Put these fields on every line from now on."""
        self._common.update({key: value for key, value in fields.items() if value})

    def configure(self, path: str, level: str) -> None:
        """Write to this file from now on, whose path leads through no link. "stdout" means stderr, as stdout is the result's."""
        self._path = "" if path in STREAMS else path
        if path:
            self._level = level_of(level)

    def error(self, message: str, **fields: JSON) -> None:
        self._write(ERROR, message, fields)

    def warning(self, message: str, **fields: JSON) -> None:
        self._write(WARNING, message, fields)

    def info(self, message: str, **fields: JSON) -> None:
        self._write(INFO, message, fields)

    def debug(self, message: str, **fields: JSON) -> None:
        self._write(DEBUG, message, fields)

    def trace(self, message: str, **fields: JSON) -> None:
        self._write(TRACE, message, fields)

    def pass_on(self, said: bytes) -> None:
        """Put on stderr what another program has said there."""
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
        except RecursionError:  # a configuration that is nested as deeply as can just be read
            text = dumps({**line, **dict.fromkeys(fields, "nested too deeply")})
        self._sink.write(self._path, text.encode() + b"\n")


class Output:
    """Writes at once. `patience`: the seconds that it waits for the reader of stderr, in all of its life; None: as long as it takes."""

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
        if sys.stderr is None:  # it was closed when we began: what has its number by now may be a reservation
            return False
        from select import POLLOUT, poll  # few calls have anything to say

        # Not by O_NONBLOCK: that would hold for all processes that have this stderr.
        stderr = poll()
        stderr.register(2, POLLOUT)
        try:
            while text:
                if not stderr.poll(0) and not self._wait(stderr):
                    return False
                text = text[os.write(2, text[:PIPE_BUF]) :]
        except OSError:  # its reader is gone, or the disk is full
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
    """Append by one write, so that lines of parallel calls do not mix. Raises OSError."""
    fd = files.open_exactly(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o640)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def level_of(text: str) -> int:
    """Read `loglevel`: info, debug, trace, or a number, where 1 is debug and 2 is trace; anything else is info."""
    if text.isdecimal():
        return int(text[:9])  # more than anybody means, and int() takes no more than 4300 digits
    return {name: level for level, name in NAMES.items()}.get(text, INFO)
