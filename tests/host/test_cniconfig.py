"""What is read of the runtime's network configurations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kubenode.host import cniconfig

if TYPE_CHECKING:
    from pathlib import Path

TYPES = {"kube-node": 1, "host-local": 2}


def read(directory: Path) -> list[dict[str, Any]]:
    return list(cniconfig.netconfs(str(directory), TYPES))


def test_lists_and_single_configurations(tmp_path: Path) -> None:
    """Each plugin of a list by itself with the list's name and version, as the runtime hands it on; files in the order of their names."""
    plugins = [{"type": "bridge", "ipam": {"type": "kube-node"}}, {"type": "portmap"}, {"type": "x", "ipam": {"type": "other"}}]
    (tmp_path / "20-b.conflist").write_text(json.dumps({"name": "b", "cniVersion": "1.0.0", "plugins": plugins}))
    (tmp_path / "10-a.conf").write_text(json.dumps({"name": "a", "type": "ptp", "ipam": {"type": "host-local"}}))
    (tmp_path / "30-c.json").write_text(json.dumps({"name": "c", "ipam": {"type": "kube-node"}}))
    assert read(tmp_path) == [
        {"name": "a", "type": "ptp", "ipam": {"type": "host-local"}},
        {"name": "b", "cniVersion": "1.0.0", "type": "bridge", "ipam": {"type": "kube-node"}},
        {"name": "c", "ipam": {"type": "kube-node"}},
    ]


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", '"x"', '{"plugins": {}}', '{"plugins": 5}', '{"plugins": [5, null, []]}', '{"ipam": []}', '{"ipam": {}}',
        '{"ipam": {"type": ["kube-node"]}}', '{"ipam": {"type": {}}}', '{"ipam": {"type": null}}',
    ],
)  # fmt: skip
def test_what_is_no_configuration(tmp_path: Path, content: str) -> None:
    """What cannot be read, or is none of ours, is passed over, and the files behind it are read."""
    (tmp_path / "10-bad.conflist").write_text(content)
    (tmp_path / "15-dir.conf").mkdir()
    (tmp_path / "16-gone.conf").symlink_to("none")
    (tmp_path / "20-good.conf").write_text('{"ipam": {"type": "kube-node"}}')
    (tmp_path / "30-note.txt").write_text('{"ipam": {"type": "kube-node"}}')
    assert len(read(tmp_path)) == 1
    assert read(tmp_path / "none") == []
