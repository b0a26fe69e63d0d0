# SPDX-License-Identifier: Apache-2.0
"""How long containerd and bridge had to wait for a pod's network."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from lab import run

if TYPE_CHECKING:
    from pathlib import Path

LINE = re.compile(r'^time="(?P<time>[^"]+)" level=\w+ msg="(?P<msg>(?:[^"\\]|\\.)*)"(?: podsandboxid=(?P<id>\w+))?')
ASKED = re.compile(r"^RunPodSandbox for &PodSandboxMetadata\{Name:(?P<name>[^,]*),Uid:(?P<uid>[^,]*),.*?\}")
RETURNS = re.compile(r'returns sandbox id \\"(?P<id>\w+)')

# Stands under a plugin's name and notes when a call began and ended. The plugin finds what lies beside it by its own name. In C, as a
# shell takes longer than the plugin.
STOPWATCH = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
extern char **environ;
int main(int argc, char **argv)
{
    struct timespec begin, end;
    char path[4096], line[128];
    pid_t pid;
    int status = 0;
    (void)argc;
    snprintf(path, sizeof path, "%s.timed", argv[0]);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (posix_spawn(&pid, path, NULL, NULL, argv, environ) || waitpid(pid, &status, 0) != pid)
        return 1;
    clock_gettime(CLOCK_MONOTONIC, &end);
    snprintf(path, sizeof path, "%s.times", argv[0]);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    int size = snprintf(line, sizeof line, "%s %.6f\n", getenv("CNI_COMMAND"), seconds);
    if (file < 0 || write(file, line, (size_t)size) != size)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
"""


class Waits:
    """What containerd's log, at level debug, says from here on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._from = log.stat().st_size

    def read(self) -> tuple[list[float], list[float]]:
        """Return seconds for each sandbox: from the kubelet's wish for it to its addresses, and of this the network plugins' part."""
        with self._log.open() as log:
            log.seek(self._from)
            found = [found for line in log if (found := LINE.match(line))]
        asked: dict[str, datetime] = {}
        begun: dict[str, datetime] = {}
        done: dict[str, datetime] = {}
        whose: dict[str, str] = {}
        for line in found:
            when = datetime.fromisoformat(line["time"])
            if wish := ASKED.match(line["msg"]):
                if returned := RETURNS.search(line["msg"]):
                    whose[returned["id"]] = wish["uid"]
                else:
                    asked[wish["uid"]] = when
            elif line["msg"] == "begin cni setup":
                begun[line["id"]] = when
            elif line["msg"].startswith("cni result:"):
                done[line["id"]] = when
        whole = [(done[sandbox] - asked[uid]).total_seconds() for sandbox, uid in whose.items() if sandbox in done]
        return whole, [(done[sandbox] - begun[sandbox]).total_seconds() for sandbox in whose if sandbox in done]


class Stopwatch:
    """Times the ADDs of the plugin at this path."""

    def __init__(self, plugin: Path) -> None:
        self._times = plugin.with_name(f"{plugin.name}.times")
        plugin.rename(plugin.with_name(f"{plugin.name}.timed"))
        run("gcc", "-O2", "-static", "-x", "c", "-o", plugin, "-", stdin=STOPWATCH)

    def reset(self) -> None:
        self._times.unlink(missing_ok=True)

    def read(self) -> list[float]:
        calls = [line.split() for line in self._times.read_text().splitlines()]
        return [float(seconds) for command, seconds in calls if command == "ADD"]
