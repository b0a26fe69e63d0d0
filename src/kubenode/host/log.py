"""The log: JSON lines on stderr or in a file, never on stdout, which belongs to the result. `logging` would import `re`."""

from __future__ import annotations

import os
import sys
import time

from kubenode.cni.jsontext import dumps
from kubenode.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kubenode.cni.jsontext import JSON

ERROR, WARNING, INFO, DEBUG, TRACE = -2, -1, 0, 1, 2
NAMES = {ERROR: "error", WARNING: "warning", INFO: "info", DEBUG: "debug", TRACE: "trace"}
STREAMS = frozenset(["stdout", "stderr"])


class Log:
    """Where one call's log lines go. Without a file only warnings and errors are written, to stderr, as the runtime shows that."""

    def __init__(self, plugin: str, level: int = WARNING) -> None:
        self._common: dict[str, JSON] = {"plugin": plugin}
        self._path = ""
        self._level = level

    def of(self, plugin: str) -> Log:
        """Return the log of one call that an agent makes, as detailed as its own."""
        return Log(plugin, self._level)

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

    def _write(self, level: int, message: str, fields: dict[str, JSON]) -> None:
        if level > self._level:
            return
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03}Z"
        line = dumps({"ts": stamp, "level": NAMES.get(level, "trace"), "msg": message, **self._common, **fields}) + "\n"
        if self._path:
            try:
                fd = files.open_exactly(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
                try:
                    os.write(fd, line.encode())  # one write of one line: those of parallel calls do not mix
                finally:
                    os.close(fd)
            except OSError as error:
                sys.stderr.write(f"kube-node: cannot write the log file {self._path}: {error.strerror}\n")
            else:
                return
        sys.stderr.write(line)


def level_of(text: str) -> int:
    """Read `loglevel`: info, debug, trace, or a number, where 1 is debug and 2 is trace; anything else is info."""
    if text.isdecimal():
        return int(text[:9])  # more than anybody means, and int() takes no more than 4300 digits
    return {name: level for level, name in NAMES.items()}.get(text, INFO)
