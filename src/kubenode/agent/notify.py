# SPDX-License-Identifier: Apache-2.0
"""Messages to systemd (sd_notify(3)): ready, status, watchdog, stopping."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MICROSECONDS = 1_000_000


class Notifier:
    """The socket in $NOTIFY_SOCKET. Without it, nothing is sent."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog: float | None = None  # seconds without a sign of life after which systemd kills us
        if environ.get("WATCHDOG_USEC", "").isdecimal() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self.watchdog = int(environ["WATCHDOG_USEC"]) / MICROSECONDS

    def tell(self, **assignments: str) -> None:
        """Send assignments such as READY=1; errors are ignored."""
        if not self._address:
            return
        text = "\n".join(f"{key}={value}" for key, value in assignments.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(text.encode(), self._address)
        except OSError:  # systemd is busy or gone; the next message comes soon
            pass
