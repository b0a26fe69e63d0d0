# SPDX-License-Identifier: Apache-2.0
"""Where the system gives no more threads."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from agentprocess import write_node

from kubenode.agent.credentials import keep_credentials
from kubenode.agent.ownnode import OwnNode
from kubenode.base.log import Log
from kubenode.host.nodeview import NodeView

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    import pytest


def test_what_the_agent_keeps_is_kept_afterwards(tmp_path: Path, run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A moment without threads ends neither the agent nor what it follows: the log says so, and it goes on."""
    log = Log("agent")
    manifest = write_node(tmp_path / "node.json", "10.0.0.0/24")
    own = OwnNode(NodeView(str(run_dir), "test", log), log)
    account, copy = tmp_path / "account", tmp_path / "copy"
    for directory in (account, copy):
        directory.mkdir()
    for name in ("token", "ca.crt"):
        (account / name).write_text("x")
    (copy / "kubeconfig").touch()  # without it nobody wants the copies

    async def kept(jobs: list[Coroutine[Any, Any, None]]) -> None:
        tasks = [asyncio.create_task(job) for job in jobs]
        usual = threading.stack_size(1 << 47)  # all that a process can have
        try:
            await asyncio.sleep(0.1)
        finally:
            threading.stack_size(usual)
        async with asyncio.timeout(10):
            while own.node is None or not (copy / "token").exists():
                assert not [task for task in tasks if task.done()]
                await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(kept([own.follow_file(str(manifest), "node.json"), keep_credentials(str(copy), str(account), log, look=0.02)]))
    assert capfd.readouterr().err.count("can't start new thread") == 2
