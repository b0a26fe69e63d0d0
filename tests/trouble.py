# SPDX-License-Identifier: Apache-2.0
"""What befalls an agent, and the processes of plugins, at random: killed, stopped for a while, ended."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    import subprocess
    from collections.abc import Callable, Sequence

    from agentprocess import AgentProcess

RELAY_LIMIT = 3.0  # seconds that a relay waits, but for an ADD
ADD_LIMIT = 15.0  # seconds that it waits for an ADD


class AgentTrouble:
    """What befalls the agent, until a moment; then it is well again. `longer`: it is stopped for longer than an ADD waits, too."""

    def __init__(self, agent: AgentProcess, rng: random.Random, *, longer: bool, pauses: Sequence[float] = (0.02, 0.2, 1)) -> None:
        self._agent = agent
        self._rng = rng
        self._pauses = pauses
        self._kinds = [self._kill, self._short, self._short, self._woken_and_killed, self._end, self._long, self._long_then_killed]
        if longer:
            self._kinds.append(self._longer_than_an_add)
        self.counts: dict[str, int] = {}

    def until(self, end: float) -> None:
        while time.monotonic() < end:
            kind = self._rng.choice(self._kinds)
            name = kind.__name__.strip("_")
            self.counts[name] = self.counts.get(name, 0) + 1
            kind()
            time.sleep(self._rng.choice(self._pauses))

    def _signal(self, number: signal.Signals) -> None:
        assert self._agent.process
        self._agent.process.send_signal(number)

    def _stop(self, seconds: float) -> None:
        self._signal(signal.SIGSTOP)
        time.sleep(seconds)

    def _kill(self) -> None:
        self._agent.kill()
        time.sleep(self._rng.choice([0, 0.5]))
        self._agent.start()

    def _end(self) -> None:
        assert self._agent.stop() == 0
        self._agent.start()

    def _short(self) -> None:
        self._stop(self._rng.uniform(0.05, 1))
        self._signal(signal.SIGCONT)

    def _long(self) -> None:
        self._stop(RELAY_LIMIT + self._rng.uniform(0.2, 2))
        self._signal(signal.SIGCONT)

    def _longer_than_an_add(self) -> None:
        self._stop(ADD_LIMIT + 1)
        self._signal(signal.SIGCONT)

    def _long_then_killed(self) -> None:
        self._stop(RELAY_LIMIT + 0.5)
        self._kill()

    def _woken_and_killed(self) -> None:
        """With calls of many relays in its queue that are gone."""
        self._stop(RELAY_LIMIT + 0.5 if self._rng.random() < 0.5 else 0.5)
        self._signal(signal.SIGCONT)
        time.sleep(self._rng.uniform(0.001, 0.05))
        self._kill()


class ClientTrouble:
    """What befalls plugins' processes while they are at work: a kill, or a stop of up to a second, sometimes with a kill after it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._mutex = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self.counts = {"killed": 0, "stopped": 0}

    def run(self, process: subprocess.Popen[bytes], work: Callable[[], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        """Let trouble find a process for as long as `work` takes."""
        with self._mutex:
            self._running.append(process)
        try:
            return work()
        finally:
            with self._mutex:
                self._running.remove(process)

    def once(self) -> None:
        """Let one process have trouble, if there is one."""
        with self._mutex:
            process = self._rng.choice(self._running) if self._running else None
        if process is None:
            return
        with suppress(ProcessLookupError):
            if self._rng.random() < 0.5:
                self.counts["stopped"] += 1
                process.send_signal(signal.SIGSTOP)
                time.sleep(self._rng.choice([0.02, 0.2, 1]))
                if self._rng.random() < 0.7:
                    process.send_signal(signal.SIGCONT)
                    return
            self.counts["killed"] += 1
            process.kill()
