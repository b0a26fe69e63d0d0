# SPDX-License-Identifier: Apache-2.0
"""The agent keeps the host's copy of its service account as fresh as the kubelet keeps its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from agentprocess import AgentProcess, write_node
from patience import PATIENCE, eventually

from kubenode.agent.credentials import keep_credentials
from kubenode.base.log import Log

if TYPE_CHECKING:
    from pathlib import Path


def test_a_renewed_token_is_copied(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Token and authority are followed by renaming; an account that is away is told once, and then followed again."""
    account, copy = tmp_path / "account", tmp_path / "copy"
    account.mkdir()
    copy.mkdir()
    (copy / "kubeconfig").touch(0o600)

    def renew(token: str) -> None:
        (account / "token").write_text(token)
        (account / "ca.crt").write_text(f"authority of {token}")

    def has(name: str, text: str) -> bool:
        return (copy / name).exists() and (copy / name).read_text() == text

    async def until(token: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (has("token", token) and has("ca.crt", f"authority of {token}")):  # noqa: ASYNC110 -- a file tells nobody
                await asyncio.sleep(0.01)

    async def story() -> None:
        renew("one")
        keeper = asyncio.create_task(keep_credentials(str(copy), str(account), Log("agent"), look=0.02))
        await until("one")
        inode = (copy / "token").stat().st_ino
        await asyncio.sleep(0.1)
        assert (copy / "token").stat().st_ino == inode
        (account / "token").unlink()
        await asyncio.sleep(0.1)
        renew("two")
        await until("two")
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper

    asyncio.run(story())
    assert (copy / "ca.crt").read_text() == "authority of two"
    assert {path.name: path.stat().st_mode & 0o7777 for path in copy.iterdir()} == dict.fromkeys(["kubeconfig", "token", "ca.crt"], 0o600)
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line for line in told if line["level"] == "error"] != []
    assert len([line for line in told if line["level"] == "error"]) == 1


@pytest.mark.parametrize("none", ["nothing", "none"])
def test_no_credentials_are_wanted(tmp_path: Path, run_dir: Path, none: str) -> None:
    """After `install --credentials=none` the agent leaves no token on the host: no kubeconfig would name it, or it is told so, too."""
    directory = tmp_path / "kube-node.d"
    directory.mkdir()
    option = "none" if none == "none" else str(directory)
    node_file = write_node(tmp_path / "node.json", "10.0.0.0/24")
    with AgentProcess(run_dir, f"--node-file={node_file}", f"--credentials={option}") as agent:
        eventually(lambda: agent.get("/readyz")[0] == 200, "it does not get ready")
        assert agent.stop() == 0
        assert not agent.lines("service account")
    assert list(directory.iterdir()) == []
