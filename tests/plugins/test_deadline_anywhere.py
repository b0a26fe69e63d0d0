# SPDX-License-Identifier: Apache-2.0
"""The deadline's signal wherever it may come in an ADD: what stays reserved has a record by which a DEL finds it."""

from __future__ import annotations

import json
import os
import sys
from inspect import CO_GENERATOR
from typing import TYPE_CHECKING, Any

from callplugin import environment

from kubenode.base.log import Log
from kubenode.cni.errors import TRY_AGAIN_LATER, CNIError
from kubenode.plugins import node_annotation, skel
from kubenode.plugins.standalone import Standalone

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from callplugin import ViewWriter

CONF = json.dumps({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": {"type": "node-annotation", "annotation": "a"}}).encode()


def call(command: str, container_id: str = "c1") -> int:
    environ = environment(command, container_id=container_id)
    try:
        return skel.run(node_annotation.COMMANDS, environ, CONF, Log("node-annotation"), Standalone(os.environ))[0]
    except CNIError:  # while it was answering
        return 1


def call_until(number: int, first: str = "note_turns") -> bool:
    """Call ADD; the deadline comes as the function begins that is the n-th from `first` on. Say whether it came."""
    count = 0
    begun = False

    def trace(frame: FrameType, _event: str, _about: Any) -> None:
        nonlocal count, begun
        if frame.f_code.co_flags & CO_GENERATOR:  # it may go on only because it is closed, and from there an exception goes nowhere
            return
        begun = begun or frame.f_code.co_name == first
        count += begun and f"{os.sep}kubenode{os.sep}" in frame.f_code.co_filename
        if count == number:
            sys.settrace(None)
            count += 1
            raise CNIError(TRY_AGAIN_LATER, "not done in time")

    sys.settrace(trace)
    try:
        call("ADD")
    finally:
        sys.settrace(None)
    return count > number


def unlock(network: Path) -> None:
    """Let the lock go: a plugin's process ends after its deadline, and its lock with it."""
    for fd in os.listdir("/proc/self/fd"):
        if os.path.realpath(f"/proc/self/fd/{fd}") == str(network / "lock"):
            os.close(int(fd))


def test_deadline_anywhere(view: ViewWriter, tmp_path: Path, run_dir: Path) -> None:
    """At each function's begin once, where CPython looks for signals. The annotation alone knows the dataDir."""
    network = tmp_path / "elsewhere/net"
    view(annotations={"a": f'dataDir: "{network.parent}", ranges: [[{{"subnet": "11.0.1.0/24"}}]]'})
    number = 1
    while call_until(number):
        unlock(network)
        assert call("DEL") == 0
        assert [path.name for path in network.iterdir() if path.name.startswith("11.")] == [], number
        number += 1
    assert number > 10
    assert [*(run_dir / "attachments").iterdir()] != []


def test_deadline_anywhere_in_a_second_add(view: ViewWriter, tmp_path: Path, run_dir: Path) -> None:
    """The record of the first ADD stays as it was, whole at each moment: its DEL knows the dataDir from nowhere else."""
    network = tmp_path / "elsewhere/net"
    view(annotations={"a": f'dataDir: "{network.parent}", ranges: [[{{"subnet": "11.0.1.0/24"}}]]'})
    assert call("ADD") == 0
    (record,) = (run_dir / "attachments").iterdir()
    first = record.read_bytes()
    number = 1
    while call_until(number, "noted"):
        unlock(network)
        assert record.read_bytes() == first, number
        number += 1
    assert number > 10
    assert call("DEL") == 0
    assert [path.name for path in network.iterdir() if path.name.startswith("11.")] == []
