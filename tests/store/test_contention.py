# SPDX-License-Identifier: Apache-2.0
"""Sixteen processes on one data directory."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from callplugin import environment
from effort import examples

from kubenode.base.log import Log
from kubenode.plugins import host_local, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from pathlib import Path

PROCESSES, CALLS = 16, examples(10_000)
RANGES = [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]


def call(data_dir: str, command: str, container: str) -> tuple[int, Any]:
    ipam = {"type": "host-local", "dataDir": data_dir, "ranges": RANGES}
    stdin = json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": ipam}).encode()
    code, stdout = skel.run(host_local.COMMANDS, environment(command, container_id=container), stdin, Log("host-local"), Standalone({}))
    return code, json.loads(stdout or b"null")


def work(job: tuple[str, int]) -> tuple[float, list[str]]:
    """ADD and DEL in random order; return the longest wait, and what is wrong."""
    data_dir, number = job
    rng = random.Random(number)
    mine: dict[str, list[str]] = {}
    longest, wrong = 0.0, []
    for turn in range(CALLS // PROCESSES):
        begin = time.monotonic()
        if mine and (len(mine) > 10 or rng.random() < 0.5):
            container = rng.choice(sorted(mine))
            code, answer = call(data_dir, "DEL", container)
            mine.pop(container)
        else:
            container = f"p{number}-{turn}"
            code, answer = call(data_dir, "ADD", container)
            if code == 0:
                mine[container] = [ip["address"].partition("/")[0] for ip in answer["ips"]]
        longest = max(longest, time.monotonic() - begin)
        if code:
            wrong.append(str(answer))
        for name, addresses in mine.items():
            for address in addresses:
                with open(f"{data_dir}/net/{address}", "rb") as file:
                    if file.read() != f"{name}\r\neth0".encode():
                        wrong.append(f"{address} is not {name}'s")
    for container in mine:
        call(data_dir, "DEL", container)
    return longest, wrong


@pytest.mark.slow
def test_ten_thousand_calls(tmp_path: Path, record_property: Any) -> None:
    """Nobody loses an address or gets another's, nothing is left at the end; the longest wait of any caller is reported."""
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        results = pool.map(work, [(str(tmp_path), number) for number in range(PROCESSES)], chunksize=1)
    assert [wrong for _, wrong in results if wrong] == []
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}
    waits = sorted(wait for wait, _ in results)
    record_property("longest wait of the luckiest and of the slowest process, in ms", [round(waits[0] * 1000), round(waits[-1] * 1000)])
    print(f"longest wait: {waits[0] * 1000:.0f} ms (luckiest process) to {waits[-1] * 1000:.0f} ms (slowest)")  # noqa: T201
